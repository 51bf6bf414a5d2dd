//! Steps that survive a power failure: folders, fsync of folders, publishing a written file under its final name.
//!
//! Owns the order of system calls; knows nothing of objects. Sources: fsync(2), rename(2), "All File Systems Are Not
//! Created Equal" (Pillai et al., OSDI 2014): a name is durable once the folder that holds it has been synced.

use crate::error::{Error, Result};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Mode of every folder of a repository.
const FOLDER_MODE: u32 = 0o700;

/// How a rename treats a file that has the final name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// Give `AlreadyExists`.
    Keep,
    /// Replace it atomically (the head, and objects that are healed).
    Replace,
}

/// Makes all entries of a folder durable.
pub(super) fn sync_folder(path: &Path) -> Result<()> {
    trace(Step::SyncFolder, path);
    let failed = |error| Error::io("syncing folder", path.display(), error);
    match File::open(path).map_err(failed)?.sync_all() {
        // CIFS and some FUSE file systems cannot sync a folder and say so; there is nothing else to call there.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other.map_err(failed),
    }
}

/// Creates a folder if it is not there; the caller syncs its parent. True if it was created.
pub(super) fn create_folder(path: &Path) -> Result<bool> {
    let failed = |error| Error::io("creating folder", path.display(), error);
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Ok(()) => {
            trace(Step::CreateFolder, path);
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match fs::metadata(path).map_err(failed)?.is_dir() {
                true => Ok(false),
                false => Err(failed(error)),
            }
        }
        Err(error) => Err(failed(error)),
    }
}

/// Creates a folder and every missing folder above it, durably.
pub(super) fn create_folders_durably(path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_folders_durably(parent)?;
    create_folder(path)?;
    sync_folder(parent)
}

/// Writes the file's bytes through to the device.
pub(super) fn sync_file(file: &File, path: &Path) -> Result<()> {
    trace(Step::SyncFile, path);
    file.sync_all().map_err(|error| Error::io("syncing", path.display(), error))
}

/// Gives the synced file at `from` its final name, atomically and durably.
///
/// # Errors
/// `AlreadyExists` when the name is taken and `existing` is `Keep`. After an `Io` error the name may or may not be
/// there, and if it is, it may not be durable.
pub(super) fn publish(from: &Path, to: &Path, existing: Existing) -> Result<()> {
    trace(Step::Rename, to);
    let renamed = match existing {
        Existing::Replace => fs::rename(from, to),
        Existing::Keep => rename_to_free_name(from, to),
    };
    renamed.map_err(|error| match (existing, error.kind()) {
        (Existing::Keep, io::ErrorKind::AlreadyExists) => {
            Error::AlreadyExists { location: to.display().to_string() }
        }
        _ => Error::io("renaming to", to.display(), error),
    })?;
    sync_folder(to.parent().expect("an object lies in a folder"))
}

fn rename_to_free_name(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link_to_free_name(from, to),
        other => Ok(other?),
    }
}

/// For file systems without `RENAME_NOREPLACE` (NFS, some FUSE ones): a hard link refuses a taken name, too.
fn link_to_free_name(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::io::Errno;
    match rustix::fs::link(from, to) {
        // A leftover second name under tmp/ is removed by the sweep; the object is whole either way.
        Ok(()) => fs::remove_file(from),
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => rename_after_look(from, to),
        Err(error) => Err(error.into()),
    }
}

/// For file systems without hard links as well (exFAT): look, then rename. Two processes could both find the name
/// free, but names are random (or, for catalogue nodes, stand for the same content), so they never meet.
fn rename_after_look(from: &Path, to: &Path) -> io::Result<()> {
    match fs::symlink_metadata(to) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
    }
}

/// One durability step, recorded in unit tests so that their order can be asserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "only read by the unit tests"))]
pub(super) enum Step {
    CreateFolder,
    SyncFile,
    Rename,
    SyncFolder,
}

#[cfg(not(test))]
fn trace(_step: Step, _path: &Path) {}

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::RefCell<Vec<(Step, std::path::PathBuf)>> =
        const { std::cell::RefCell::new(Vec::new()) };
}

#[cfg(test)]
fn trace(step: Step, path: &Path) {
    STEPS.with_borrow_mut(|steps| steps.push((step, path.to_path_buf())));
}

/// The steps of this thread since the last call.
#[cfg(test)]
pub(super) fn take_steps() -> Vec<(Step, std::path::PathBuf)> {
    STEPS.with_borrow_mut(std::mem::take)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way of renaming to a free name refuses a taken one and keeps both files as they are.
    #[test]
    fn a_taken_name_is_never_replaced() {
        for rename in [rename_to_free_name, link_to_free_name, rename_after_look] {
            let dir = tempfile::tempdir().unwrap();
            let (new, old, free) =
                (dir.path().join("new"), dir.path().join("old"), dir.path().join("free"));
            fs::write(&new, b"new").unwrap();
            fs::write(&old, b"old").unwrap();
            let error = rename(&new, &old).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&old).unwrap(), b"old");
            rename(&new, &free).unwrap();
            assert_eq!(fs::read(&free).unwrap(), b"new");
            assert!(!new.exists());
        }
    }

    /// Each created folder is followed by a sync of the folder that names it.
    #[test]
    fn new_parent_folders_are_synced() {
        let dir = tempfile::tempdir().unwrap();
        take_steps();
        create_folders_durably(&dir.path().join("a/b")).unwrap();
        let at = |step, path: &str| (step, dir.path().join(path));
        assert_eq!(
            take_steps(),
            [
                at(Step::CreateFolder, "a"),
                (Step::SyncFolder, dir.path().to_path_buf()),
                at(Step::CreateFolder, "a/b"),
                at(Step::SyncFolder, "a"),
            ]
        );
    }
}
