//! Who and where: names for snapshot records and key labels.

use std::ffi::CStr;

/// The machine's host name.
pub fn name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".into() } else { name.into() }
}

/// The name of the user who runs the program, or the number where there is no name.
pub fn user() -> String {
    let uid = rustix::process::geteuid().as_raw();
    account(uid).unwrap_or_else(|| uid.to_string())
}

/// `USER@HOST`.
pub fn user_at_host() -> String {
    format!("{}@{}", user(), name())
}

fn account(uid: u32) -> Option<String> {
    let mut buffer = vec![0 as libc::c_char; 16 << 10];
    // SAFETY: an all-zero passwd is a valid value of a plain C structure.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: all pointers are to live memory of the stated length; the result points into `buffer` or is null.
    let status = unsafe {
        libc::getpwuid_r(uid, &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found)
    };
    if status != 0 || found.is_null() {
        return None;
    }
    // SAFETY: after success the name is a C string inside `buffer`, which is still alive.
    let name = unsafe { CStr::from_ptr(entry.pw_name) };
    Some(name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    // There is always a name, and it is one line.
    #[test]
    fn names_are_lines() {
        for name in [super::name(), super::user(), super::user_at_host()] {
            assert!(!name.is_empty() && !name.contains('\n'), "{name:?}");
        }
    }
}
