//! Owner names to ids, as this machine knows them; each name is asked for once.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Mutex, PoisonError};

/// Longest record of the user database that is read, bytes.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// A cache of the user and group databases.
#[derive(Default)]
pub struct Owners {
    users: Mutex<HashMap<Vec<u8>, Option<u32>>>,
    groups: Mutex<HashMap<Vec<u8>, Option<u32>>>,
}

impl Owners {
    /// The id of a user name; None where the machine does not know it or the name is empty.
    pub fn user(&self, name: &[u8]) -> Option<u32> {
        cached(&self.users, name, look_up_user)
    }

    /// The id of a group name; None where the machine does not know it or the name is empty.
    pub fn group(&self, name: &[u8]) -> Option<u32> {
        cached(&self.groups, name, look_up_group)
    }
}

fn cached(
    cache: &Mutex<HashMap<Vec<u8>, Option<u32>>>,
    name: &[u8],
    look_up: fn(&CString) -> Option<u32>,
) -> Option<u32> {
    if name.is_empty() {
        return None;
    }
    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = cache.get(name) {
        return *known;
    }
    let id = CString::new(name).ok().and_then(|name| look_up(&name));
    cache.insert(name.to_vec(), id);
    id
}

/// Calls a `get..nam_r` function with a buffer that grows until the record fits.
fn with_buffer(mut call: impl FnMut(&mut [libc::c_char]) -> libc::c_int) {
    let mut buffer = vec![0; 4 << 10];
    while call(&mut buffer) == libc::ERANGE && buffer.len() < RECORD_BYTES_MAX {
        let longer = buffer.len() * 4;
        buffer.resize(longer, 0);
    }
}

fn look_up_user(name: &CString) -> Option<u32> {
    let mut found = None;
    with_buffer(|buffer| {
        // SAFETY: an all-zero passwd is valid (null pointers and zeros); the call only writes to it.
        let mut record: libc::passwd = unsafe { std::mem::zeroed() };
        let mut result = std::ptr::null_mut();
        // SAFETY: the name ends with a zero byte, and record, buffer and result live through the call.
        let code = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                &raw mut record,
                buffer.as_mut_ptr(),
                buffer.len(),
                &raw mut result,
            )
        };
        found = (code == 0 && !result.is_null()).then_some(record.pw_uid);
        code
    });
    found
}

fn look_up_group(name: &CString) -> Option<u32> {
    let mut found = None;
    with_buffer(|buffer| {
        // SAFETY: an all-zero group is valid (null pointers and zeros); the call only writes to it.
        let mut record: libc::group = unsafe { std::mem::zeroed() };
        let mut result = std::ptr::null_mut();
        // SAFETY: the name ends with a zero byte, and record, buffer and result live through the call.
        let code = unsafe {
            libc::getgrnam_r(
                name.as_ptr(),
                &raw mut record,
                buffer.as_mut_ptr(),
                buffer.len(),
                &raw mut result,
            )
        };
        found = (code == 0 && !result.is_null()).then_some(record.gr_gid);
        code
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_nobody_else_is_invented() {
        let owners = Owners::default();
        assert_eq!(owners.user(b"root"), Some(0));
        assert_eq!(owners.group(b"root"), Some(0));
        assert_eq!(owners.user(b""), None);
        assert_eq!(owners.user(b"no such user here"), None);
        assert_eq!(owners.group(b"no\xffsuch\0group"), None);
    }
}
