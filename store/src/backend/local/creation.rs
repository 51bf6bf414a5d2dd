//! A place for a new repository: empty, or cleared of an attempt that was cut short.
//!
//! Owns the order of these steps, and the lock that keeps two processes from creating repositories at one place.

use super::reserve::{self, RESERVE};
use super::{FOLDERS, HEAD, HEAD_LOCK, LocalBackend, durable};
use crate::backend::{Backend, KINDS_OF_BEGINNING, KINDS_OF_DATA, config_is_lost};
use crate::error::{Error, Result};
use crate::id::ObjectName;
use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// What an attempt to create a repository may leave at the top.
const OWN_FILES: [&str; 4] = [HEAD, HEAD_LOCK, RESERVE, "lost+found"];

impl LocalBackend {
    /// As [`Backend::initialise`].
    pub(super) fn prepare_creation(&self) -> Result<()> {
        self.refuse_existing()?;
        durable::create_folders_durably(&self.root)?;
        refuse_foreign_entries(&self.root)?;
        self.lock_creation()?;
        // Whoever held the lock before may have come to an end.
        self.refuse_existing()?;
        self.create_folders()?;
        self.clear_attempt()?;
        reserve::make(&self.root)
    }

    fn refuse_existing(&self) -> Result<()> {
        match self.size_bytes(&ObjectName::Config)? {
            Some(_) => Err(Error::AlreadyExists { location: self.location() }),
            None => Ok(()),
        }
    }

    /// Keeps others from creating a repository at the same time: they would take what this one writes before its config
    /// for the remains of an attempt that was cut short.
    fn lock_creation(&self) -> Result<()> {
        let mut creating = self.creating.lock().expect("no panic while it is locked");
        if creating.is_none() {
            let failed = |error: io::Error| Error::io("locking", self.root.display(), error);
            let folder = File::open(&self.root).map_err(failed)?;
            match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => *creating = Some(folder),
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(Error::AlreadyExists { location: self.location() });
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
        Ok(())
    }

    /// Removes what an attempt to create a repository has left behind; the caller holds the lock of that.
    fn clear_attempt(&self) -> Result<()> {
        for kind in KINDS_OF_DATA {
            if !self.list(kind)?.is_empty() {
                return Err(config_is_lost(&self.location()));
            }
        }
        let head = self.root.join(HEAD);
        match fs::remove_file(&head) {
            Ok(()) => durable::sync_folder(&self.root)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("removing", head.display(), error)),
        }
        for kind in KINDS_OF_BEGINNING {
            self.list(kind)?.iter().try_for_each(|(name, _)| self.remove(name))?;
        }
        Ok(())
    }
}

/// A new repository goes into an empty folder, or one where an earlier attempt was cut short.
fn refuse_foreign_entries(root: &Path) -> Result<()> {
    let failed = |error| Error::io("listing", root.display(), error);
    for entry in fs::read_dir(root).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if !FOLDERS.iter().chain(&OWN_FILES).any(|own| name == *own) {
            return Err(Error::Invalid(format!(
                "{} is not empty: it holds {}",
                root.display(),
                name.display()
            )));
        }
    }
    Ok(())
}
