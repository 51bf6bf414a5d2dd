//! Temporary files: written in `tmp/`, then published under their final name, or removed.
//!
//! A writer holds an exclusive `flock` on its temporary file for as long as it lives, and the kernel drops the lock
//! with the process. So a file that can be locked belongs to nobody, and the sweep may remove it, whatever its age,
//! process number or host; a clock is never asked. Where a file system has no locks, nothing is swept.

use super::durable::{self, Existing};
use crate::error::{Error, Result};
use rustix::fs::FlockOperation;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Mode of every file of a repository.
pub(super) const FILE_MODE: u32 = 0o600;
/// Small writes are gathered up to this many bytes.
const BUFFER_BYTES: usize = 64 << 10;
/// Names tried before giving up; each clash means that another process has the same number on another host.
const NAMES_TRIED_MAX: usize = 1000;

/// A file on its way to a final name. Dropped, it is removed.
pub(super) struct TempFile {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
    poisoned: bool,
    published: bool,
}

impl TempFile {
    /// Creates and locks an empty file in `folder`; `purpose` becomes part of its name.
    pub(super) fn create(folder: &Path, purpose: &str) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        for _ in 0..NAMES_TRIED_MAX {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{purpose}.{}.{number}", std::process::id()));
            let created =
                OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path);
            match created {
                Ok(file) if own(&file) => {
                    let buffer = Vec::new();
                    return Ok(Self { file, path, buffer, poisoned: false, published: false });
                }
                // A sweep saw the file before it was locked, and has removed or is removing it.
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(Error::io("creating", path.display(), error)),
            }
        }
        Err(Error::io("creating", folder.display(), io::ErrorKind::AlreadyExists.into()))
    }

    /// Appends bytes. After an error the file can only be dropped.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.check_poison()?;
        if self.buffer.len() + bytes.len() <= BUFFER_BYTES {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        if bytes.len() >= BUFFER_BYTES {
            self.write_through(bytes)
        } else {
            self.buffer.extend_from_slice(bytes);
            Ok(())
        }
    }

    /// Makes the bytes durable and gives the file its final name.
    pub(super) fn publish(mut self, to: &Path, existing: Existing) -> Result<()> {
        self.check_poison()?;
        self.flush()?;
        durable::sync_file(&self.file, &self.path)?;
        let outcome = durable::publish(&self.path, to, existing);
        // After a failed sync of the folder the file has left its temporary name; removing that is harmless.
        self.published = outcome.is_ok();
        outcome
    }

    fn flush(&mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        self.write_through(&buffer)?;
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    fn write_through(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| {
            self.poisoned = true;
            Error::io("writing", self.path.display(), error)
        })
    }

    fn check_poison(&self) -> Result<()> {
        if self.poisoned {
            let error = io::Error::other("an earlier write to this file failed");
            return Err(Error::io("writing", self.path.display(), error));
        }
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.published {
            // The lock is still held, so nobody else can have taken the name.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Locks a file that was just created; false if a sweep was faster.
fn own(file: &File) -> bool {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => file.metadata().is_ok_and(|found| found.nlink() > 0),
        Err(rustix::io::Errno::WOULDBLOCK) => false,
        // No locks on this file system: then no sweep can lock it, either.
        Err(_) => true,
    }
}

/// Removes the temporary files of processes that are gone. Failures are left to the next sweep.
pub(super) fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if let Err(error) = sweep_one(&entry.path()) {
            tracing::debug!(path = %entry.path().display(), %error, "temporary file stays");
        }
    }
}

fn sweep_one(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    // The lock is on a file; remove the name only if it still means that file.
    let (locked, named) = (file.metadata()?, fs::symlink_metadata(path)?);
    if locked.is_file() && (locked.dev(), locked.ino()) == (named.dev(), named.ino()) {
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sweep takes what nobody holds and leaves the file of a living writer.
    #[test]
    fn sweep_spares_living_writers() {
        let dir = tempfile::tempdir().unwrap();
        let mut alive = TempFile::create(dir.path(), "alive").unwrap();
        alive.write(b"bytes").unwrap();
        fs::write(dir.path().join("dead.1.1"), b"left over").unwrap();
        sweep(dir.path());
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(left, [alive.path.clone()]);
        let to = dir.path().join("final");
        alive.publish(&to, Existing::Keep).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"bytes");
    }

    /// A writer whose file was swept before it was locked takes another name.
    #[test]
    fn a_swept_file_is_not_owned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("early");
        let file = File::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!own(&file));
    }

    /// A failed write poisons the file: no later write or publish succeeds, and no name appears.
    #[test]
    fn a_failed_write_poisons() {
        let dir = tempfile::tempdir().unwrap();
        let mut temp = TempFile::create(dir.path(), "poisoned").unwrap();
        temp.file = File::open("/dev/null").unwrap(); // read-only: writing gives EBADF
        assert!(temp.write(&vec![0; BUFFER_BYTES + 1]).is_err());
        assert!(temp.write(b"x").is_err());
        let to = dir.path().join("final");
        assert!(temp.publish(&to, Existing::Keep).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// A full disk is an error that names the file and the action.
    #[test]
    fn a_full_disk_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut temp = TempFile::create(dir.path(), "full").unwrap();
        temp.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = temp.write(&vec![0; BUFFER_BYTES + 1]).unwrap_err();
        assert!(error.to_string().starts_with("writing "), "{error}");
        assert!(error.to_string().contains("full."), "{error}");
        let Error::Io { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    }
}
