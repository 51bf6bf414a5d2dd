//! From file handles to keys: the marked file systems, and a cache of the directories that were met.
//!
//! A handle names an inode, not a path. The path of a directory is asked for once and remembered until any directory is
//! renamed; then all are forgotten. Keys in here are inner keys: they count from the root of the file system.

use super::Inode;
use super::fanotify;
use super::mounts::{Mount, key};
use super::records::Handle;
use super::scope::{Scope, rebased};
use rustix::fs::{AtFlags, Mode, OFlags, Stat, StatxFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use stillpoint_archive::path::{is_within, path_from_key};

/// Directories that are remembered; beyond this all are forgotten.
const DIRECTORIES_MAX: usize = 65_536;
/// How often a handle is tried while the kernel has no memory.
const TRIES: u32 = 10_000;
/// How far up a directory with a shorter path is looked for, when its own is too long for the kernel to tell.
const CLIMB_MAX: usize = 4096;

/// One place where a file system, or a part of it, is mounted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct View {
    /// The kernel's number for the mount.
    pub(super) mount: u64,
    /// The inner key of what is mounted.
    pub(super) inside: Vec<u8>,
    /// Where: a real key.
    pub(super) at: Vec<u8>,
}

/// A file system whose root directory is mounted somewhere.
#[derive(Debug)]
pub(super) struct Filesystem {
    /// As its events name it.
    id: u64,
    /// As the table of mounts names it: major, minor.
    pub(super) device: (u32, u32),
    /// Its root directory, open, and where that is mounted: nowhere if the mount is our own.
    anchor: OwnedFd,
    anchor_at: Vec<u8>,
    _mount: Option<OwnedFd>,
    has_subvolumes: bool,
    pub(super) views: Vec<View>,
}

/// Where a directory was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// It does not exist any more.
    Gone,
    /// Nowhere near the roots.
    Outside,
    /// On this file system (its number in the table), with this inner key.
    At(usize, Arc<[u8]>),
    /// Its path is too long to tell; the inner key of a directory above it.
    Below(usize, Arc<[u8]>),
}

/// An inode that exists.
#[derive(Debug)]
pub(super) struct Object {
    /// Its numbers, as `stat` gives them.
    pub(super) inode: Inode,
    /// How many names it has.
    pub(super) links: u64,
    /// The number of its file system in the table.
    pub(super) filesystem: usize,
    /// One of its names, as an inner key, if the kernel knows one.
    pub(super) name: Option<Vec<u8>>,
}

/// A path as the kernel tells it.
enum Told {
    Path(Vec<u8>),
    TooLong,
    Nowhere,
}

impl Filesystem {
    /// Opens the root directory of the file system that this mount shows whole, through a mount of our own if possible: an open
    /// directory would keep people from unmounting theirs.
    ///
    /// # Errors
    /// When something else is mounted over it.
    pub(super) fn open(mount: &Mount) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let anchor = rustix::fs::open(path_from_key(&mount.at), flags, Mode::empty())?;
        let stat = rustix::fs::statx(&anchor, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
        if stat.stx_mnt_id != mount.id {
            return Err(Errno::XDEV.into());
        }
        let own = || -> io::Result<(OwnedFd, OwnedFd)> {
            let own = fanotify::detached_mount(anchor.as_fd())?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::openat(&own, ".", flags, Mode::empty())?;
            Ok((root, own))
        };
        let (anchor, anchor_at, own) = match own() {
            Ok((root, own)) => (root, Vec::new(), Some(own)),
            Err(_) => (anchor, mount.at.clone(), None),
        };
        Ok(Self {
            id: rustix::fs::fstatvfs(&anchor)?.f_fsid,
            device: mount.device,
            anchor,
            anchor_at,
            _mount: own,
            has_subvolumes: mount.kind == "btrfs",
            views: Vec::new(),
        })
    }

    /// Its root directory.
    pub(super) fn anchor(&self) -> BorrowedFd<'_> {
        self.anchor.as_fd()
    }

    fn open_handle(&self, handle: &Handle<'_>) -> io::Result<Option<OwnedFd>> {
        let mut tries = 0;
        loop {
            match fanotify::open_handle(self.anchor(), handle.kind, handle.bytes) {
                Ok(fd) => return Ok(Some(fd)),
                Err(error) if is_gone(&error) => return Ok(None),
                // ext4 says so, too, while another inode of the same number is being created: that takes a moment.
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && tries < TRIES => {
                    tries += 1;
                    std::thread::yield_now();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The inner key of what is open here.
    fn inner(&self, fd: BorrowedFd<'_>) -> io::Result<Told> {
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let path = match rustix::fs::readlink(link, Vec::new()) {
            Ok(path) => path.into_bytes(),
            Err(Errno::NAMETOOLONG) => return Ok(Told::TooLong),
            Err(error) => return Err(error.into()),
        };
        let path = key(&path);
        if !is_within(&path, &self.anchor_at) {
            return Ok(Told::Nowhere);
        }
        Ok(Told::Path(rebased(&path, &self.anchor_at, b"")))
    }

    /// The numbers of what lies at this inner key, which is not the root.
    pub(super) fn look(&self, inner: &[u8]) -> Option<Inode> {
        let path = path_from_key(inner);
        let relative = path.strip_prefix("/").ok()?;
        let stat = rustix::fs::statat(&self.anchor, relative, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(inode_of(&stat))
    }

    /// The real keys of an inner key: one for each place where it can be seen.
    fn real_keys(&self, inner: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        let seen = self.views.iter().filter(|view| is_within(inner, &view.inside));
        seen.map(|view| rebased(inner, &view.inside, &view.at))
    }

    fn is_near(&self, inner: &[u8], scope: &Scope) -> bool {
        self.real_keys(inner).any(|real| scope.is_near(&real))
            || self
                .views
                .iter()
                .any(|view| is_within(&view.inside, inner) && scope.is_near(&view.at))
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESTALE | libc::ENOENT))
}

fn inode_of(stat: &Stat) -> Inode {
    Inode { device: stat.st_dev, number: stat.st_ino }
}

/// The marked file systems.
#[derive(Debug, Default)]
pub(super) struct Filesystems {
    table: Vec<Filesystem>,
    directories: HashMap<Vec<u8>, Found>,
}

impl Filesystems {
    /// The one on this device.
    pub(super) fn on(&mut self, device: (u32, u32)) -> Option<&mut Filesystem> {
        self.table.iter_mut().find(|found| found.device == device)
    }

    /// Adds one that carries a mark now.
    pub(super) fn add(&mut self, filesystem: Filesystem) {
        self.table.push(filesystem);
    }

    /// All of them, to change them; what was remembered of directories is forgotten.
    pub(super) fn all(&mut self) -> &mut Vec<Filesystem> {
        self.forget_directories();
        &mut self.table
    }

    /// The devices of all of them.
    pub(super) fn devices(&self) -> Vec<(u32, u32)> {
        self.table.iter().map(|found| found.device).collect()
    }

    /// Forgets where directories lie.
    pub(super) fn forget_directories(&mut self) {
        self.directories.clear();
    }

    /// Whether only a part of some file system is mounted somewhere: a rename may then move what is seen there.
    pub(super) fn has_parts(&self) -> bool {
        self.table.iter().any(|found| found.views.iter().any(|view| !view.inside.is_empty()))
    }

    /// The manifest's keys of an inner key.
    pub(super) fn keys(&self, filesystem: usize, inner: &[u8], scope: &Scope) -> Vec<Vec<u8>> {
        let Some(found) = self.table.get(filesystem) else { return Vec::new() };
        found.real_keys(inner).flat_map(|real| scope.keys(&real).collect::<Vec<_>>()).collect()
    }

    /// The numbers of what lies at this inner key.
    pub(super) fn look(&self, filesystem: usize, inner: &[u8]) -> Option<Inode> {
        self.table.get(filesystem)?.look(inner)
    }

    /// Where a directory lies.
    ///
    /// # Errors
    /// When the kernel cannot tell for want of something: memory, descriptors, a disk that answers.
    pub(super) fn directory(&mut self, handle: &Handle<'_>, scope: &Scope) -> io::Result<Found> {
        let mut key = Vec::with_capacity(handle.bytes.len() + 12);
        key.extend(handle.filesystem.to_ne_bytes());
        key.extend(handle.kind.to_ne_bytes());
        key.extend(handle.bytes);
        if let Some(found) = self.directories.get(&key) {
            return Ok(found.clone());
        }
        let found = self.find(handle, scope)?;
        if self.directories.len() >= DIRECTORIES_MAX {
            self.directories.clear();
        }
        self.directories.insert(key, found.clone());
        Ok(found)
    }

    fn by_id(&self, id: u64) -> Option<(usize, &Filesystem)> {
        self.table.iter().enumerate().find(|(_, found)| found.id == id)
    }

    fn find(&self, handle: &Handle<'_>, scope: &Scope) -> io::Result<Found> {
        let Some((number, filesystem)) = self.by_id(handle.filesystem) else {
            return Ok(Found::Outside);
        };
        let Some(mut fd) = filesystem.open_handle(handle)? else { return Ok(Found::Gone) };
        if rustix::fs::fstat(&fd)?.st_nlink == 0 {
            return Ok(Found::Gone);
        }
        let here = |inner: Vec<u8>, found: fn(usize, Arc<[u8]>) -> Found| {
            if !filesystem.is_near(&inner, scope) {
                return Found::Outside;
            }
            found(number, inner.into())
        };
        match filesystem.inner(fd.as_fd())? {
            Told::Path(inner) => return Ok(here(inner, Found::At)),
            Told::Nowhere => return Ok(Found::Gone),
            Told::TooLong => {}
        }
        for _ in 0..CLIMB_MAX {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            fd = rustix::fs::openat(&fd, "..", flags, Mode::empty())?;
            match filesystem.inner(fd.as_fd())? {
                Told::Path(inner) => return Ok(here(inner, Found::Below)),
                Told::Nowhere => return Ok(Found::Gone),
                Told::TooLong => {}
            }
        }
        Err(Errno::NAMETOOLONG.into())
    }

    /// The inode that a handle names; None when it is gone or lies on no marked file system.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub(super) fn object(&self, handle: &Handle<'_>) -> io::Result<Option<Object>> {
        let Some((number, filesystem)) = self.by_id(handle.filesystem) else { return Ok(None) };
        let Some(fd) = filesystem.open_handle(handle)? else { return Ok(None) };
        let stat = rustix::fs::fstat(&fd)?;
        if stat.st_nlink == 0 {
            return Ok(None);
        }
        let name = match filesystem.inner(fd.as_fd())? {
            // The root of a file system is a directory: this inode is known under no name at the moment.
            Told::Path(inner) if inner.is_empty() || inner.ends_with(b" (deleted)") => None,
            Told::Path(inner) => Some(inner),
            Told::TooLong | Told::Nowhere => None,
        };
        let links = stat.st_nlink;
        Ok(Some(Object { inode: inode_of(&stat), links, filesystem: number, name }))
    }

    /// The inode that is open here, if it lies on a marked file system.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub(super) fn object_of(&self, fd: BorrowedFd<'_>) -> io::Result<Option<Object>> {
        let (inode, id) = (inode_of(&rustix::fs::fstat(fd)?), rustix::fs::fstatvfs(fd)?.f_fsid);
        // Where inodes have no handles there is no mark either.
        let Ok((kind, bytes)) = fanotify::handle_of(fd) else { return Ok(None) };
        let object = |id| self.object(&Handle { filesystem: id, kind, bytes: &bytes });
        if self.by_id(id).is_some() {
            return object(id);
        }
        // Each subvolume of Btrfs has an id of its own, but the handle leads from any to any other.
        for found in self.table.iter().filter(|found| found.has_subvolumes) {
            if let Ok(Some(object)) = object(found.id)
                && object.inode == inode
            {
                return Ok(Some(object));
            }
        }
        Ok(None)
    }
}
