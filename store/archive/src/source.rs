//! Where content comes from: directories held by descriptors, and streams.
//!
//! Every path below a root is resolved one name at a time against an open directory, so a path may be longer than
//! PATH_MAX and no swapped link is followed. Knows nothing of manifests or of what is worth saving.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use stillpoint_store::{Result, Timestamp};

/// A stream that becomes one file of the snapshot: standard input, a command's output.
pub trait StreamSource: Read + Send {
    /// The name under which the content stands at the top of the snapshot; may hold `/`.
    fn name(&self) -> &str;

    /// Called once after the last byte. Decides whether what was read is whole.
    ///
    /// # Errors
    /// Any error ends the backup without a snapshot.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Standard input or any other reader, under a name. Its end is its success.
pub struct ReaderSource<R> {
    name: String,
    reader: R,
}

impl<R: Read + Send> ReaderSource<R> {
    /// The reader's bytes under this name.
    pub fn new(name: impl Into<String>, reader: R) -> Self {
        Self { name: name.into(), reader }
    }
}

impl<R: Read> Read for ReaderSource<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl<R: Read + Send> StreamSource for ReaderSource<R> {
    fn name(&self) -> &str {
        &self.name
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// The clock against which the times of files are judged: the one that stamps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadClock {
    /// The kernel's clock of file times (`CLOCK_REALTIME_COARSE`), which runs a little behind the fine one.
    #[default]
    FileSystem,
    /// A fixed moment, for tests and for frozen sources: nothing that changed well before it is racy.
    Fixed(Timestamp),
}

impl ReadClock {
    /// The moment.
    pub(crate) fn now(self) -> Timestamp {
        match self {
            Self::Fixed(moment) => moment,
            Self::FileSystem => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
                let nanos = u32::try_from(now.tv_nsec).expect("the kernel gives less than 10^9");
                Timestamp { seconds: now.tv_sec, nanos }
            }
        }
    }
}

/// Most directories of one root whose descriptors stay open without need; well below the usual limit of 1024 files.
pub(crate) const OPEN_DIRS_MAX: usize = 384;
/// How many levels keep their descriptors when they are opened again, so that climbing back up costs little.
const REOPENED_KEPT: usize = 64;

/// An open directory of the source, below a root that stays open.
///
/// The descriptor may be given back ([`Dir::release`]) while the walk is deep below; [`Dir::fd`] then opens it again
/// from the nearest open ancestor and makes sure that it still is the same directory.
#[derive(Debug)]
pub(crate) struct Dir {
    parent: Option<Arc<Dir>>,
    name: CString,
    identity: (u64, u64),
    fd: Mutex<Option<Arc<OwnedFd>>>,
    /// How many directories of this root hold a descriptor.
    open: Arc<AtomicUsize>,
}

impl Dir {
    /// Opens the directory at these components below `/`, following symbolic links: the way to a root is the user's.
    pub(crate) fn open_path<'a>(
        components: impl Iterator<Item = &'a [u8]>,
    ) -> rustix::io::Result<Arc<Self>> {
        let open = |dir: rustix::fd::BorrowedFd<'_>, name: &CStr| {
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            match rustix::fs::openat(dir, name, flags | OFlags::RDONLY, Mode::empty()) {
                // Searching needs no right to list.
                Err(Errno::ACCESS) => {
                    rustix::fs::openat(dir, name, flags | OFlags::PATH, Mode::empty())
                }
                other => other,
            }
        };
        let mut fd = open(CWD, c"/")?;
        for component in components {
            let name = CString::new(component).map_err(|_| Errno::INVAL)?;
            fd = open(fd.as_fd(), &name)?;
        }
        Self::held(fd, None, CString::default())
    }

    /// Opens a directory in this one, refusing links.
    pub(crate) fn open_child(self: &Arc<Self>, name: &CStr) -> rustix::io::Result<Arc<Self>> {
        let parent = self.fd()?;
        let fd = open_directory(&parent, name)?;
        Self::held(fd, Some(Arc::clone(self)), name.to_owned())
    }

    fn held(
        fd: OwnedFd,
        parent: Option<Arc<Self>>,
        name: CString,
    ) -> rustix::io::Result<Arc<Self>> {
        let identity = identity(&fd)?;
        let open = parent.as_ref().map(|parent| Arc::clone(&parent.open)).unwrap_or_default();
        let dir = Self { parent, name, identity, fd: Mutex::default(), open };
        dir.keep(Arc::new(fd));
        Ok(Arc::new(dir))
    }

    fn keep(&self, fd: Arc<OwnedFd>) {
        if self.slot().replace(fd).is_none() {
            self.open.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The descriptor, opened again if it was released.
    ///
    /// # Errors
    /// `ESTALE` when another directory took its place meanwhile.
    pub(crate) fn fd(&self) -> rustix::io::Result<Arc<OwnedFd>> {
        if let Some(fd) = &*self.slot() {
            return Ok(Arc::clone(fd));
        }
        self.reopen()
    }

    /// Gives the descriptor back, if the directory can be opened again through its parent.
    pub(crate) fn release(&self) {
        if self.parent.is_some() && self.slot().take().is_some() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Gives the descriptor back if too many are held: the walk has left the directory, only jobs may need it yet.
    pub(crate) fn release_if_many(&self) {
        if self.open.load(Ordering::Relaxed) > OPEN_DIRS_MAX {
            self.release();
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<OwnedFd>>> {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reopen(&self) -> rustix::io::Result<Arc<OwnedFd>> {
        let mut closed: Vec<&Self> = vec![self];
        let mut next = self.parent.as_deref();
        let mut fd = loop {
            let dir = next.expect("a root is never released");
            if let Some(fd) = &*dir.slot() {
                break Arc::clone(fd);
            }
            closed.push(dir);
            next = dir.parent.as_deref();
        };
        for (left, dir) in closed.iter().enumerate().rev() {
            let opened = open_directory(&fd, &dir.name)?;
            if identity(&opened)? != dir.identity {
                return Err(Errno::STALE);
            }
            fd = Arc::new(opened);
            if left < REOPENED_KEPT && self.open.load(Ordering::Relaxed) < OPEN_DIRS_MAX {
                dir.keep(Arc::clone(&fd));
            }
        }
        Ok(fd)
    }
}

impl Drop for Dir {
    /// Lets go of the ancestors one by one: a chain of thousands must not recurse.
    fn drop(&mut self) {
        if self.slot().take().is_some() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        let mut next = self.parent.take();
        while let Some(mut dir) = next.and_then(Arc::into_inner) {
            next = dir.parent.take();
        }
    }
}

fn identity(fd: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn open_directory(parent: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY
        | OFlags::DIRECTORY
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC
        | OFlags::NOATIME;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        // Only the owner may leave the access time alone.
        Err(Errno::PERM) => {
            rustix::fs::openat(parent, name, flags - OFlags::NOATIME, Mode::empty())
        }
        other => other,
    }
}

/// Opens what was a regular file a moment ago for reading. Never waits for the other end of a fifo and never makes
/// a terminal the controlling one; the caller looks with `fstat` at what it got.
pub(crate) fn open_file(dir: &Dir, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let dir = dir.fd()?;
    let flags = OFlags::RDONLY
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC
        | OFlags::NOATIME;
    match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(&dir, name, flags - OFlags::NOATIME, Mode::empty()),
        Err(Errno::WOULDBLOCK) => wait_for_lease(&dir, name),
        other => other,
    }
}

/// Another process (a file server) holds a lease: waiting breaks it. A descriptor that cannot be swapped for a fifo
/// is opened first, so that nothing else is waited for.
fn wait_for_lease(dir: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    use rustix::fd::AsRawFd;
    let place = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat(dir, name, place, Mode::empty())?;
    if !crate::meta::Stat::of(place.as_fd())?.is_file() {
        return Err(Errno::STALE);
    }
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    fn open(path: &Path) -> Arc<Dir> {
        let key = crate::path::key_from_path(path).unwrap();
        Dir::open_path(crate::path::components(&key)).unwrap()
    }

    // A released directory opens again from its ancestors, and only if it still is the same one.
    #[test]
    fn released_directories_reopen_or_are_stale() {
        let temp = tempfile::tempdir().unwrap();
        let mut path = temp.path().to_path_buf();
        let mut dirs = vec![open(&path)];
        for _ in 0..200 {
            path.push("d");
            std::fs::create_dir(&path).unwrap();
            let next = dirs.last().unwrap().open_child(c"d").unwrap();
            dirs.push(next);
        }
        std::fs::write(path.join("f"), b"x").unwrap();
        dirs.iter().for_each(|dir| dir.release());
        open_file(dirs.last().unwrap(), c"f").unwrap();
        let kept = dirs.iter().filter(|dir| dir.slot().is_some()).count();
        assert_eq!(kept, REOPENED_KEPT + 1, "the root and the lowest levels");

        dirs.iter().for_each(|dir| dir.release());
        let top = temp.path().join("d");
        std::fs::rename(&top, temp.path().join("away")).unwrap();
        std::fs::create_dir(&top).unwrap();
        assert_eq!(dirs[1].fd().unwrap_err(), Errno::STALE);
    }

    // Neither a fifo nor a link keeps or misleads the reader.
    #[test]
    fn fifos_do_not_block_and_links_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let fifo = temp.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        std::os::unix::fs::symlink("fifo", temp.path().join("link")).unwrap();
        let dir = open(temp.path());
        let fd = open_file(&dir, c"fifo").unwrap();
        assert!(!crate::meta::Stat::of(fd.as_fd()).unwrap().is_file());
        assert_eq!(open_file(&dir, c"link").unwrap_err(), Errno::LOOP);
        assert!(dir.open_child(c"link").is_err());
    }

    // The way to a root follows links, as the user meant it.
    #[test]
    fn links_on_the_way_to_a_root_are_followed() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", temp.path().join("link")).unwrap();
        let through = open(&temp.path().join("link"));
        let straight = open(&temp.path().join("real"));
        assert_eq!(through.identity, straight.identity);
        assert!(temp.path().as_os_str().as_bytes().starts_with(b"/"));
    }
}
