//! Owner, mode, extended attributes, times and inode flags, set through a descriptor of the very thing.
//!
//! The order matters: a change of owner clears setuid bits and capabilities, a mode without write permission forbids
//! attributes, an access control list changes the mode, everything changes times, and flags may forbid all of it.

use super::dir::Dir;
use super::owners::Owners;
use crate::entry::Entry;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, IFlags, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags,
};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
/// Longest list of attribute names of one inode that is read, bytes; Linux allows 64 KiB.
const XATTR_LIST_BYTES_MAX: usize = 64 << 10;
/// The inode flags that a person sets with chattr; all others belong to the file system.
const FLAGS: IFlags = IFlags::from_bits_retain(
    IFlags::APPEND.bits()
        | IFlags::IMMUTABLE.bits()
        | IFlags::NODUMP.bits()
        | IFlags::NOATIME.bits()
        | IFlags::SYNC.bits()
        | IFlags::DIRSYNC.bits()
        | IFlags::COMPRESSED.bits()
        | IFlags::NOCOW.bits()
        | IFlags::TOPDIR.bits()
        | IFlags::PROJECT_INHERIT.bits(),
);
/// Those that only work on a file without content, or shape how content is stored.
const EARLY_FLAGS: IFlags =
    IFlags::from_bits_retain(IFlags::COMPRESSED.bits() | IFlags::NOCOW.bits());

/// Those that forbid further hard links.
const SEALING_FLAGS: IFlags =
    IFlags::from_bits_retain(IFlags::APPEND.bits() | IFlags::IMMUTABLE.bits());

/// Whether the entry's flags must wait until all of its names exist.
pub fn flags_must_wait(entry: &Entry) -> bool {
    entry.link_id().is_some() && IFlags::from_bits_retain(entry.flags).intersects(SEALING_FLAGS)
}

/// Whose the restored files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub enum Ownership {
    /// The user and group of the saved names where this machine knows them, else the saved ids.
    #[default]
    ByName,
    /// The saved ids.
    Numeric,
    /// Whoever runs the restore. Setuid and setgid bits are dropped then, because they would mean somebody else.
    Mine,
}

/// What was given up on many files at once; each kind is one warning, not one for each file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DegradedKind {
    /// Owner or group could not be set.
    Owner,
    /// Setuid or setgid was dropped, because the owner is another one.
    SetuidDropped,
    /// Attributes that need privileges.
    PrivilegedAttributes,
    /// Attributes that the target file system does not keep.
    UnsupportedAttributes,
    /// Inode flags that need privileges or that the target file system does not keep.
    Flags,
}

impl DegradedKind {
    fn words(self) -> &'static str {
        match self {
            Self::Owner => "owner or group not restored",
            Self::SetuidDropped => "setuid or setgid bit not restored",
            Self::PrivilegedAttributes => "privileged extended attributes not restored",
            Self::UnsupportedAttributes => {
                "extended attributes not restored: the file system keeps none of their kind"
            }
            Self::Flags => "inode flags not restored",
        }
    }
}

/// One kind of degradation, with how often it happened and where first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What was given up.
    pub kind: DegradedKind,
    /// How many entries are concerned.
    pub count: u64,
    /// The first of them.
    pub first: PathBuf,
    /// What it is in words: lower case, no full stop.
    pub what: String,
}

/// Counts degradations.
#[derive(Default)]
pub struct Degraded(Mutex<BTreeMap<DegradedKind, (u64, PathBuf, Errno)>>);

impl Degraded {
    /// One more entry on which `kind` was given up because of `errno`.
    pub fn note(&self, kind: DegradedKind, errno: Errno, path: impl FnOnce() -> PathBuf) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.entry(kind).or_insert_with(|| (0, path(), errno)).0 += 1;
    }

    /// All of them, by kind.
    pub fn warnings(&self) -> Vec<Warning> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let warning = |(kind, (count, first, errno)): (&DegradedKind, &(u64, PathBuf, Errno))| {
            let cause = std::io::Error::from(*errno);
            Warning {
                kind: *kind,
                count: *count,
                first: first.clone(),
                what: format!("{} ({cause})", kind.words()),
            }
        };
        map.iter().map(warning).collect()
    }
}

/// Whether something was made by this restore; then it has no attributes but inherited ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// Made just now, in a directory that gives new things an access control list or does not.
    Yes {
        /// Whether a list may have been inherited.
        inherits_acl: bool,
    },
    /// It was there before and may carry anything.
    No,
}

impl Fresh {
    /// Made just now in `dir`.
    pub fn made_in(dir: &Dir) -> Self {
        Self::Yes { inherits_acl: dir.has_default_acl() }
    }
}

/// Sets metadata as entries say.
#[derive(Default)]
pub struct MetadataWriter {
    /// Whose the files are.
    pub ownership: Ownership,
    /// The user database.
    pub owners: Owners,
    /// What could not be done on many files.
    pub degraded: Degraded,
}

impl MetadataWriter {
    /// Flags that must stand before content is written. Failing is no error: [`Self::apply`] tries again.
    pub fn prepare(&self, fd: BorrowedFd<'_>, entry: &Entry) {
        let early = IFlags::from_bits_retain(entry.flags) & EARLY_FLAGS;
        if !early.is_empty()
            && let Ok(now) = rustix::fs::ioctl_getflags(fd)
        {
            let _ = rustix::fs::ioctl_setflags(fd, now | early);
        }
    }

    /// Sets everything on an open file or directory.
    ///
    /// # Errors
    /// What should have worked and did not; what privileges or the file system forbid is counted instead.
    pub fn apply(
        &self,
        fd: BorrowedFd<'_>,
        entry: &Entry,
        fresh: Fresh,
        path: &dyn Fn() -> PathBuf,
    ) -> rustix::io::Result<()> {
        let owned = self.change_owner(fd, entry, path);
        self.write_xattrs(&Inode::Open(fd), entry, fresh, path)?;
        let mode = self.permitted_mode(entry, owned, || rustix::fs::fstat(fd), path)?;
        rustix::fs::fchmod(fd, mode)?;
        rustix::fs::futimens(fd, &times(entry))?;
        if !flags_must_wait(entry) {
            self.write_flags(fd, entry, fresh, path);
        }
        Ok(())
    }

    /// Sets everything on the link, pipe, socket or device behind an `O_PATH` descriptor.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_to_node(
        &self,
        node: BorrowedFd<'_>,
        entry: &Entry,
        path: &dyn Fn() -> PathBuf,
    ) -> rustix::io::Result<()> {
        let stat = rustix::fs::fstat(node)?;
        let owned = self.change_owner(node, entry, path);
        self.write_xattrs(&Inode::Node(proc_path(node)), entry, Fresh::No, path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            let mode = self.permitted_mode(entry, owned, || rustix::fs::fstat(node), path)?;
            change_mode_of_node(node, mode)?;
        }
        match rustix::fs::utimensat(node, "", &times(entry), AtFlags::EMPTY_PATH) {
            // Before Linux 5.8 the flag is unknown.
            Err(Errno::INVAL) => {
                rustix::fs::utimensat(CWD, proc_path(node), &times(entry), AtFlags::empty())
            }
            other => other,
        }
    }

    /// The user and group that an entry is to have here; None where it is left to whoever restores.
    pub fn owner_of(&self, entry: &Entry) -> Option<(u32, u32)> {
        match self.ownership {
            Ownership::Mine => None,
            Ownership::Numeric => Some((entry.uid, entry.gid)),
            Ownership::ByName => Some((
                self.owners.user(&entry.user).unwrap_or(entry.uid),
                self.owners.group(&entry.group).unwrap_or(entry.gid),
            )),
        }
    }

    /// Whether the owner is now the wanted one.
    fn change_owner(&self, fd: BorrowedFd<'_>, entry: &Entry, path: &dyn Fn() -> PathBuf) -> Owned {
        let Some((uid, gid)) = self.owner_of(entry) else { return Owned::NotWanted };
        // -1 means "leave it" to the kernel, so an entry cannot ask for it.
        let (Some(user), Some(group)) = (wanted(uid), wanted(gid)) else {
            self.degraded.note(DegradedKind::Owner, Errno::INVAL, path);
            return Owned::Unknown { uid, gid };
        };
        let change = |user: Option<u32>, group: Option<u32>| {
            let user = user.map(Uid::from_raw);
            let group = group.map(Gid::from_raw);
            rustix::fs::chownat(fd, "", user, group, AtFlags::EMPTY_PATH)
        };
        match change(Some(user), Some(group)) {
            Ok(()) => Owned::Yes,
            Err(errno) => {
                // Without privileges the group may still be one of our own.
                let _ = change(None, Some(group));
                self.degraded.note(DegradedKind::Owner, errno, path);
                Owned::Unknown { uid, gid }
            }
        }
    }

    /// The mode, without setuid and setgid where they would lend the rights of somebody else.
    fn permitted_mode(
        &self,
        entry: &Entry,
        owned: Owned,
        stat: impl FnOnce() -> rustix::io::Result<Stat>,
        path: &dyn Fn() -> PathBuf,
    ) -> rustix::io::Result<Mode> {
        let mut mode = entry.mode & 0o7777;
        let lending = mode & (SETUID | SETGID);
        if lending != 0 && owned != Owned::Yes {
            let stat = stat()?;
            let (uid, gid) = match owned {
                Owned::Unknown { uid, gid } => (Some(uid), Some(gid)),
                Owned::Yes | Owned::NotWanted => (None, None),
            };
            if uid != Some(stat.st_uid) {
                mode &= !SETUID;
            }
            // On a directory setgid lends nothing: it only names the group of what is made inside.
            if gid != Some(stat.st_gid) && !entry.is_directory() {
                mode &= !SETGID;
            }
            if mode & (SETUID | SETGID) != lending {
                self.degraded.note(DegradedKind::SetuidDropped, Errno::PERM, path);
            }
        }
        Ok(Mode::from_raw_mode(mode))
    }

    fn write_xattrs(
        &self,
        inode: &Inode<'_>,
        entry: &Entry,
        fresh: Fresh,
        path: &dyn Fn() -> PathBuf,
    ) -> rustix::io::Result<()> {
        let foreign = match fresh {
            Fresh::Yes { inherits_acl: false } => Vec::new(),
            Fresh::Yes { inherits_acl: true } | Fresh::No => inode.names(),
        };
        for name in foreign.iter().filter(|name| is_ours(name)) {
            if !entry.xattrs.iter().any(|(wanted, _)| wanted == name) {
                self.tolerate(name, inode.remove(name), path)?;
            }
        }
        for (name, value) in &entry.xattrs {
            self.tolerate(name, inode.set(name, value), path)?;
        }
        Ok(())
    }

    fn tolerate(
        &self,
        name: &[u8],
        result: rustix::io::Result<()>,
        path: &dyn Fn() -> PathBuf,
    ) -> rustix::io::Result<()> {
        let privileged = !name.starts_with(b"user.");
        match result {
            Ok(()) | Err(Errno::NODATA) => Ok(()),
            Err(errno @ (Errno::PERM | Errno::ACCESS)) if privileged => {
                self.degraded.note(DegradedKind::PrivilegedAttributes, errno, path);
                Ok(())
            }
            Err(Errno::OPNOTSUPP) => {
                self.degraded.note(DegradedKind::UnsupportedAttributes, Errno::OPNOTSUPP, path);
                Ok(())
            }
            Err(errno) => Err(errno),
        }
    }

    /// Sets inode flags; what privileges or the file system forbid is counted.
    pub fn write_flags(
        &self,
        fd: BorrowedFd<'_>,
        entry: &Entry,
        fresh: Fresh,
        path: &dyn Fn() -> PathBuf,
    ) {
        let wanted = IFlags::from_bits_retain(entry.flags) & FLAGS;
        if wanted.is_empty() && fresh != Fresh::No {
            return;
        }
        let result = rustix::fs::ioctl_getflags(fd).and_then(|now| {
            let next = (now & !FLAGS) | wanted;
            if next == now { Ok(()) } else { rustix::fs::ioctl_setflags(fd, next) }
        });
        match result {
            Ok(()) => {}
            // A file system without flags, and none are wanted.
            Err(_) if wanted.is_empty() => {}
            Err(errno) => self.degraded.note(DegradedKind::Flags, errno, path),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owned {
    Yes,
    NotWanted,
    Unknown { uid: u32, gid: u32 },
}

fn wanted(id: u32) -> Option<u32> {
    (id != u32::MAX).then_some(id)
}

/// Sets the mode of what an `O_PATH` descriptor stands for; `fchmod` refuses such descriptors.
pub(super) fn change_mode_of_node(node: BorrowedFd<'_>, mode: Mode) -> rustix::io::Result<()> {
    rustix::fs::chmodat(CWD, proc_path(node), mode, AtFlags::empty())
}

/// Our own name for an open descriptor: it leads to the inode itself, not through any directory.
fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn times(entry: &Entry) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: entry.mtime.seconds,
            tv_nsec: i64::from(entry.mtime.nanos.min(999_999_999)),
        },
    }
}

/// The attributes that a restore removes where the snapshot has none; others belong to the system (labels).
fn is_ours(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name == ACCESS_ACL
        || name == DEFAULT_ACL
        || name == b"security.capability"
}

enum Inode<'a> {
    Open(BorrowedFd<'a>),
    Node(String),
}

impl Inode<'_> {
    fn set(&self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Node(path) => {
                rustix::fs::setxattr(path.as_str(), name, value, XattrFlags::empty())
            }
        }
    }

    fn remove(&self, name: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Self::Node(path) => rustix::fs::removexattr(path.as_str(), name),
        }
    }

    /// All attribute names; none where they cannot be listed.
    fn names(&self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0u8; XATTR_LIST_BYTES_MAX];
        let length = match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, buffer.as_mut_slice()),
            Self::Node(path) => rustix::fs::listxattr(path.as_str(), buffer.as_mut_slice()),
        };
        let listed = buffer.get(..length.unwrap_or(0)).unwrap_or_default();
        listed
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(<[u8]>::to_vec)
            .collect()
    }
}
