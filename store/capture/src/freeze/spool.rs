//! Where clones and copies go: files without a name, which are gone with their descriptor.

use super::memory::{CHANGED, READS_MAX};
use crate::error::{Error, Result};
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stillpoint_archive::held::{HeldContent, Unheld};

/// Bytes that are copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// The directories.
#[derive(Debug)]
pub(super) struct Spool {
    places: Vec<Place>,
}

/// One directory.
#[derive(Debug)]
pub(super) struct Place {
    dir: OwnedFd,
    device: u64,
    /// Numbers of files on file systems that cannot make one without a name.
    next: AtomicU64,
}

impl Spool {
    /// Opens the directories and tries to make a file in each.
    ///
    /// # Errors
    /// `Refused` when that does not work, or there is none.
    pub(super) fn open(paths: &[PathBuf]) -> Result<Self> {
        let refused = |path: &PathBuf, errno: Errno| Error::Refused {
            what: format!("nothing can be put into {}: {errno}", path.display()),
            hint: Some(
                "name a directory that can be written to, on the file system of the sources".into(),
            ),
        };
        let mut places = Vec::new();
        for path in paths {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let open = || -> rustix::io::Result<Place> {
                let dir = rustix::fs::open(path, flags, Mode::empty())?;
                let device = rustix::fs::fstat(&dir)?.st_dev;
                let place = Place { dir, device, next: AtomicU64::new(0) };
                place.file()?;
                Ok(place)
            };
            places.push(open().map_err(|errno| refused(path, errno))?);
        }
        if places.is_empty() {
            return Err(Error::Refused {
                what: "there is no directory for what is held".into(),
                hint: Some("name one on the file system of the sources".into()),
            });
        }
        Ok(Self { places })
    }

    /// The directories, those on this device first.
    pub(super) fn places(&self, device: u64) -> impl Iterator<Item = &Place> {
        let is_same = move |place: &&Place| place.device == device;
        let others = self.places.iter().filter(move |place| !is_same(place));
        self.places.iter().filter(is_same).chain(others)
    }

    /// Copies the file as it is now.
    ///
    /// # Errors
    /// Those of the system calls; also when the file does not keep still.
    pub(super) fn hold(&self, unheld: &mut Unheld) -> io::Result<HeldContent> {
        for _ in 0..READS_MAX {
            let Some(file) = unheld.file() else { break };
            let copied = self.copy(file, unheld.inode().0, unheld.size())?;
            if !unheld.look_again()? {
                return Ok(HeldContent::File(Arc::new(copied)));
            }
        }
        Err(io::Error::other(CHANGED))
    }

    /// A copy of the first `size` bytes of a file, holes included.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(super) fn copy(&self, file: BorrowedFd<'_>, device: u64, size: u64) -> io::Result<OwnedFd> {
        let place = self.places(device).next().ok_or_else(|| io::Error::other("no directory"))?;
        let target = place.file()?;
        rustix::fs::ftruncate(&target, size)?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut at = 0;
        while at < size {
            let (data, end) = next_data(file, at, size)?;
            at = data;
            while at < end {
                let left = usize::try_from(end - at).unwrap_or(COPY_BYTES);
                let wanted = buffer.get_mut(..left.min(COPY_BYTES)).unwrap_or_default();
                let count = match rustix::io::pread(file, wanted, at) {
                    Ok(0) => return Ok(target),
                    Ok(count) => count,
                    Err(Errno::INTR) => continue,
                    Err(errno) => return Err(errno.into()),
                };
                write_all(&target, buffer.get(..count).unwrap_or_default(), at)?;
                at += u64::try_from(count).map_err(io::Error::other)?;
            }
        }
        Ok(target)
    }
}

impl Place {
    /// A file without a name that can be written and read.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(super) fn file(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        match rustix::fs::openat(&self.dir, c".", flags | OFlags::TMPFILE, mode) {
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
            other => return other,
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!(".stillpoint-{}-{number}", std::process::id());
        let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.dir, &*name, flags, mode)?;
        rustix::fs::unlinkat(&self.dir, &*name, rustix::fs::AtFlags::empty())?;
        Ok(file)
    }
}

fn write_all(target: &OwnedFd, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(target, bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or_default();
                at += u64::try_from(count).map_err(io::Error::other)?;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Where the next data at or after `at` begins and ends; both `size` where there is none.
fn next_data(file: BorrowedFd<'_>, at: u64, size: u64) -> io::Result<(u64, u64)> {
    let data = match rustix::fs::seek(file.as_fd(), SeekFrom::Data(at)) {
        Ok(data) => data.min(size),
        Err(Errno::NXIO) => return Ok((size, size)),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((at, size)),
        Err(errno) => return Err(errno.into()),
    };
    match rustix::fs::seek(file.as_fd(), SeekFrom::Hole(data)) {
        Ok(hole) => Ok((data, hole.clamp(data, size))),
        Err(Errno::NXIO) => Ok((size, size)),
        Err(errno) => Err(errno.into()),
    }
}
