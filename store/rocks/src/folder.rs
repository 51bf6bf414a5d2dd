//! The folder of an index: who owns it, and what it holds.
//!
//! ```text
//! lock            the owner holds an exclusive flock on it
//! format          "stillpoint index 1"; written last, removed first
//! rocksdb/        the database
//! sort/           the owner's temporary files
//! private-*/      the same for a process that is not the owner; private-*.lock is locked by it
//! ```
//! Only these names are ever removed, so a folder that was named by mistake loses nothing else.

use rustix::fs::FlockOperation;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use stillpoint_store::{Error, Result};

const FORMAT: &str = "stillpoint index 1\n";
const PRIVATE_PREFIX: &str = "private-";

/// A folder for a database that this process alone writes: the index's own, or a private one beside it.
pub(crate) struct Folder {
    path: PathBuf,
    /// Locked for as long as the folder is in use.
    _lock: File,
    /// The private folder's lock file; both are removed in the end.
    private_lock: Option<PathBuf>,
}

/// Creates a folder and those above it, for the owner's eyes only.
pub(crate) fn create(path: &Path) -> Result<()> {
    let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|error| Error::io("creating folder", path.display(), error))
}

impl Folder {
    /// Takes the folder as its owner; None if another process owns it.
    pub(crate) fn own(path: &Path) -> Result<Option<Self>> {
        let lock_path = path.join("lock");
        let failed = |error| Error::io("locking", lock_path.display(), error);
        let lock = open_lock(&lock_path, false).map_err(failed)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let folder = Self { path: path.to_path_buf(), _lock: lock, private_lock: None };
                folder.sweep();
                Ok(Some(folder))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// A private folder below another one.
    pub(crate) fn private(below: &Path) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = below.join(format!("{PRIVATE_PREFIX}{}-{number}", std::process::id()));
            let lock_path = path.with_extension("lock");
            let lock = match open_lock(&lock_path, true) {
                Ok(lock) => lock,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(Error::io("creating", lock_path.display(), error)),
            };
            // The owner's sweep may have seen the file before it was locked.
            let locked = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
            if locked && lock.metadata().is_ok_and(|found| found.nlink() > 0) {
                create(&path)?;
                return Ok(Self { path, _lock: lock, private_lock: Some(lock_path) });
            }
        }
    }

    /// Where the database lies.
    pub(crate) fn database(&self) -> PathBuf {
        database_in(&self.path)
    }

    /// Empties the folder for temporary files and gives it.
    pub(crate) fn fresh_sort_folder(&self) -> Result<PathBuf> {
        let path = self.path.join("sort");
        remove_folder(&path)?;
        create(&path)?;
        Ok(path)
    }

    /// What the folder holds.
    pub(crate) fn format(&self) -> Format {
        format_of(&self.path)
    }

    /// Removes the database, and before it the format, so that half a removal is never taken for a database.
    pub(crate) fn clear(&self) -> Result<()> {
        self.unmark()?;
        remove_folder(&self.database())
    }

    /// Says that the database is not to be used again.
    pub(crate) fn unmark(&self) -> Result<()> {
        let path = self.path.join("format");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("removing", path.display(), error))
            }
            _ => Ok(()),
        }
    }

    /// Says that the database is complete.
    pub(crate) fn mark(&self) -> Result<()> {
        let path = self.path.join("format");
        fs::write(&path, FORMAT).map_err(|error| Error::io("writing", path.display(), error))
    }

    /// Removes private folders of processes that are gone. Failures are left to the next owner.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".lock")) else {
                continue;
            };
            let Ok(lock) = open_lock(&entry.path(), false) else { continue };
            if stem.starts_with(PRIVATE_PREFIX)
                && rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
            {
                let _ = remove_folder(&self.path.join(stem));
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(lock_path) = &self.private_lock {
            let _ = remove_folder(&self.path);
            let _ = fs::remove_file(lock_path);
        }
    }
}

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    /// Nothing yet.
    New,
    /// A database of this format.
    Known,
    /// Something else: the reason.
    Other(String),
}

pub(crate) fn format_of(path: &Path) -> Format {
    let database = database_in(path).exists();
    match fs::read(path.join("format")) {
        Ok(bytes) if bytes == FORMAT.as_bytes() && database => Format::Known,
        Ok(bytes) if bytes == FORMAT.as_bytes() => Format::Other("its database is gone".into()),
        Ok(_) => Format::Other("it has another format".into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !database => Format::New,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Format::Other("it was not completed".into())
        }
        Err(error) => Format::Other(format!("its format cannot be read ({error})")),
    }
}

pub(crate) fn database_in(path: &Path) -> PathBuf {
    path.join("rocksdb")
}

fn open_lock(path: &Path, new: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).truncate(false).mode(0o600);
    if new {
        options.create_new(true)
    } else {
        options.create(true)
    };
    options.open(path)
}

fn remove_folder(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("removing", path.display(), error))
        }
        _ => Ok(()),
    }
}
