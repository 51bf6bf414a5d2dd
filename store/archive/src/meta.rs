//! What the operating system says about one inode: stat, owner names, extended attributes, inode flags.
//!
//! Knows system calls on descriptors and names relative to them. Knows nothing of manifests beyond [`Entry`], and
//! decides nothing.

use crate::entry::{Entry, EntryKind};
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::{Arc, PoisonError, RwLock};
use stillpoint_store::Timestamp;

/// Extended attributes of one file: name and value.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Room for the names of a file's extended attributes before a second look is needed, bytes.
const XATTR_LIST_BYTES: usize = 1024;
/// Longest value and longest list of names that the kernel gives, bytes (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const XATTR_BYTES_MAX: usize = 64 << 10;
/// Most owner ids whose names are remembered; beyond, the cache starts anew.
const NAMES_MAX: usize = 1 << 16;

/// What one `statx` says, without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) kind: FileType,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u32,
    pub(crate) size: u64,
    /// Allocated space in units of 512 bytes.
    pub(crate) blocks: u64,
    pub(crate) inode: u64,
    pub(crate) device: u64,
    /// Major and minor number of what a device file stands for.
    pub(crate) represents: (u32, u32),
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
    pub(crate) btime: Option<Timestamp>,
}

impl Stat {
    /// Looks at `name` in the directory, not following a symbolic link and mounting nothing.
    pub(crate) fn at(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Self> {
        Self::ask(dir, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Looks at `name` in the directory, following symbolic links.
    pub(crate) fn following(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Self> {
        Self::ask(dir, name, AtFlags::empty())
    }

    /// Looks at an open file.
    pub(crate) fn of(file: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        Self::ask(file, c"", AtFlags::EMPTY_PATH)
    }

    fn ask(dir: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> rustix::io::Result<Self> {
        let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        rustix::fs::statx(dir, name, flags | AtFlags::NO_AUTOMOUNT, mask).map(|x| Self::from(&x))
    }

    /// Whether the file is regular.
    pub(crate) fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    /// Whether it is a directory.
    pub(crate) fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Whether fewer blocks are allocated than the size needs, so that there may be holes.
    pub(crate) fn may_have_holes(&self) -> bool {
        self.blocks.saturating_mul(512) < self.size
    }

    /// Whether content may have changed between two looks at one file.
    pub(crate) fn content_differs(&self, later: &Self) -> bool {
        (self.size, self.mtime, self.inode, self.device, self.kind)
            != (later.size, later.mtime, later.inode, later.device, later.kind)
    }
}

impl From<&Statx> for Stat {
    fn from(x: &Statx) -> Self {
        let time = |t: &rustix::fs::StatxTimestamp| Timestamp {
            seconds: t.tv_sec,
            nanos: t.tv_nsec.min(999_999_999),
        };
        let has_btime = x.stx_mask & StatxFlags::BTIME.bits() != 0;
        Self {
            kind: FileType::from_raw_mode(x.stx_mode.into()),
            mode: u32::from(x.stx_mode) & 0o7777,
            uid: x.stx_uid,
            gid: x.stx_gid,
            nlink: x.stx_nlink,
            size: x.stx_size,
            blocks: x.stx_blocks,
            inode: x.stx_ino,
            device: rustix::fs::makedev(x.stx_dev_major, x.stx_dev_minor),
            represents: (x.stx_rdev_major, x.stx_rdev_minor),
            mtime: time(&x.stx_mtime),
            ctime: time(&x.stx_ctime),
            btime: has_btime.then(|| time(&x.stx_btime)),
        }
    }
}

/// An entry with everything that `stat` and the name cache know; kind, attributes and flags are the caller's.
pub(crate) fn entry_from(stat: &Stat, kind: EntryKind, names: &Names) -> Entry {
    Entry {
        kind,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        user: names.user(stat.uid).to_vec(),
        group: names.group(stat.gid).to_vec(),
        mtime: stat.mtime,
        ctime: stat.ctime,
        btime: stat.btime,
        inode: stat.inode,
        device: stat.device,
        nlink: stat.nlink,
        ..Entry::default()
    }
}

/// All extended attributes of an open file, by ascending name. ACLs and capabilities are among them.
pub(crate) fn xattrs_of(file: BorrowedFd<'_>) -> rustix::io::Result<Xattrs> {
    collect(
        |buffer| rustix::fs::flistxattr(file, buffer),
        |name, buffer| rustix::fs::fgetxattr(file, name, buffer),
    )
}

/// All extended attributes of `name` in a directory, without following a link and without opening the file (so that
/// nothing happens to fifos, sockets and devices). Goes through `/proc/self/fd`.
pub(crate) fn xattrs_at(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Xattrs> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    let path = CString::new(path).map_err(|_| Errno::INVAL)?;
    collect(
        |buffer| rustix::fs::llistxattr(&*path, buffer),
        |name, buffer| rustix::fs::lgetxattr(&*path, name, buffer),
    )
}

/// The inode flags of an open file or directory; 0 where the file system has none.
pub(crate) fn flags_of(file: BorrowedFd<'_>) -> rustix::io::Result<u32> {
    match rustix::fs::ioctl_getflags(file) {
        Ok(flags) => Ok(flags.bits()),
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::BADF) => Ok(0),
        Err(errno) => Err(errno),
    }
}

fn collect(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&CStr, &mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Xattrs> {
    let mut small = [0u8; XATTR_LIST_BYTES];
    let large;
    let names = match list(&mut small) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(len) => small.get(..len).unwrap_or_default(),
        Err(Errno::RANGE) => {
            large = grown(&list)?;
            large.as_slice()
        }
        Err(errno) => return Err(errno),
    };
    let mut xattrs = Xattrs::new();
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        match grown(&|buffer: &mut [u8]| get(name, buffer)) {
            Ok(value) => xattrs.push((name.to_bytes().to_vec(), value)),
            // Removed since it was listed.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    xattrs.sort_unstable();
    xattrs.dedup_by(|a, b| a.0 == b.0);
    Ok(xattrs)
}

/// Asks with a small buffer, then with ever larger ones up to what the kernel allows at most.
fn grown(ask: &dyn Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0u8; 128];
    loop {
        match ask(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < XATTR_BYTES_MAX => {
                buffer.resize((buffer.len() * 8).min(XATTR_BYTES_MAX), 0);
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// Names of users and groups, each id looked up once. Shared by all workers.
#[derive(Debug, Default)]
pub(crate) struct Names {
    users: RwLock<HashMap<u32, Arc<[u8]>>>,
    groups: RwLock<HashMap<u32, Arc<[u8]>>>,
}

impl Names {
    /// The user's name; empty where there is none.
    pub(crate) fn user(&self, uid: u32) -> Arc<[u8]> {
        cached(&self.users, uid, user_name)
    }

    /// The group's name; empty where there is none.
    pub(crate) fn group(&self, gid: u32) -> Arc<[u8]> {
        cached(&self.groups, gid, group_name)
    }
}

fn cached(
    cache: &RwLock<HashMap<u32, Arc<[u8]>>>,
    id: u32,
    look_up: impl Fn(u32) -> Vec<u8>,
) -> Arc<[u8]> {
    if let Some(name) = cache.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
        return Arc::clone(name);
    }
    let name: Arc<[u8]> = look_up(id).into();
    let mut cache = cache.write().unwrap_or_else(PoisonError::into_inner);
    if cache.len() >= NAMES_MAX {
        cache.clear();
    }
    cache.insert(id, Arc::clone(&name));
    name
}

/// Longest answer of the user database, bytes.
const NAME_ANSWER_BYTES_MAX: usize = 1 << 20;

fn user_name(uid: u32) -> Vec<u8> {
    ask_database(|buffer, len| {
        // SAFETY: an all-zero passwd is a valid value of the C struct; the call overwrites it.
        let mut record: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are valid for the call, and `len` is the length of `buffer`.
        let code = unsafe { libc::getpwuid_r(uid, &raw mut record, buffer, len, &raw mut found) };
        (code, if found.is_null() { std::ptr::null() } else { record.pw_name.cast_const() })
    })
}

fn group_name(gid: u32) -> Vec<u8> {
    ask_database(|buffer, len| {
        // SAFETY: an all-zero group is a valid value of the C struct; the call overwrites it.
        let mut record: libc::group = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are valid for the call, and `len` is the length of `buffer`.
        let code = unsafe { libc::getgrgid_r(gid, &raw mut record, buffer, len, &raw mut found) };
        (code, if found.is_null() { std::ptr::null() } else { record.gr_name.cast_const() })
    })
}

/// Runs one of the `_r` functions with a buffer that grows until the answer fits. The answer is a C string inside
/// that buffer, or null.
fn ask_database(
    ask: impl Fn(*mut libc::c_char, usize) -> (libc::c_int, *const libc::c_char),
) -> Vec<u8> {
    let mut buffer: Vec<libc::c_char> = vec![0; 1024];
    loop {
        let (code, name) = ask(buffer.as_mut_ptr(), buffer.len());
        if code == libc::ERANGE && buffer.len() < NAME_ANSWER_BYTES_MAX {
            buffer.resize(buffer.len() * 4, 0);
            continue;
        }
        if code != 0 || name.is_null() {
            return Vec::new();
        }
        // SAFETY: the function succeeded, so `name` is a terminated string inside `buffer`, which is alive.
        return unsafe { CStr::from_ptr(name) }.to_bytes().to_vec();
    }
}

/// The kind of everything that is neither a regular file nor a symbolic link.
pub(crate) fn plain_kind(stat: &Stat) -> Option<EntryKind> {
    let (major, minor) = stat.represents;
    Some(match stat.kind {
        FileType::Directory => EntryKind::Directory,
        FileType::Fifo => EntryKind::Fifo,
        FileType::Socket => EntryKind::Socket,
        FileType::CharacterDevice => EntryKind::CharDevice { major, minor },
        FileType::BlockDevice => EntryKind::BlockDevice { major, minor },
        FileType::RegularFile | FileType::Symlink | FileType::Unknown => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsFd;

    // Attributes come back sorted and whole, also when there are more than the first buffer holds.
    #[test]
    fn many_and_long_xattrs() {
        let dir = tempfile::tempdir_in(std::env::temp_dir()).unwrap();
        let file = std::fs::File::create(dir.path().join("f")).unwrap();
        let mut expected = Xattrs::new();
        for n in 0..60u8 {
            let name = format!("user.{:a>20}{n:02}", "");
            let value = vec![n; if n == 7 { 1500 } else { usize::from(n) % 5 }];
            match rustix::fs::fsetxattr(&file, &*name, &value, rustix::fs::XattrFlags::empty()) {
                Ok(()) => expected.push((name.into_bytes(), value)),
                Err(Errno::OPNOTSUPP) => {
                    eprintln!("skipped: no user attributes on {}", dir.path().display());
                    return;
                }
                // ext4 has one block for all of them.
                Err(Errno::NOSPC) => break,
                Err(errno) => panic!("{errno}"),
            }
        }
        assert!(expected.len() > XATTR_LIST_BYTES / 28, "the first buffer must overflow");
        assert_eq!(xattrs_of(file.as_fd()).unwrap(), expected);
        let folder = std::fs::File::open(dir.path()).unwrap();
        assert_eq!(xattrs_at(folder.as_fd(), c"f").unwrap(), expected);
    }

    // Owner names are looked up, and an id without a name gives an empty one.
    #[test]
    fn names_of_owners() {
        let names = Names::default();
        assert_eq!(&*names.user(0), b"root");
        assert_eq!(&*names.group(0), b"root");
        assert_eq!(&*names.user(3_999_999_999), b"");
        assert_eq!(&*names.user(3_999_999_999), b"");
    }

    // A symbolic link is looked at itself, never its target.
    #[test]
    fn stat_does_not_follow() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("l")).unwrap();
        let folder = std::fs::File::open(dir.path()).unwrap();
        let stat = Stat::at(folder.as_fd(), c"l").unwrap();
        assert_eq!(stat.kind, FileType::Symlink);
        assert_eq!(Stat::following(folder.as_fd(), c"l").unwrap_err(), Errno::NOENT);
        assert!(Stat::of(folder.as_fd()).unwrap().is_directory());
    }
}
