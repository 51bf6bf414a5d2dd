//! A little room set aside in a file of its own, so that a full disk can be emptied: what frees space writes a few
//! catalogue nodes and a head first.

use super::durable;
use crate::error::{Error, Result};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The file's name at the root of a repository. Readers ignore it, as any foreign name.
pub(super) const RESERVE: &str = "reserve";
/// Room that is set aside: 4 MiB.
const RESERVE_BYTES: u64 = 4 << 20;
/// Bytes of a block in which the kernel counts what a file takes.
const BLOCK_BYTES: u64 = 512;

/// Creates or completes the file. A disk without room for it is no error, and neither is a file system that cannot
/// set room aside.
pub(super) fn make(root: &Path) -> Result<()> {
    let path = root.join(RESERVE);
    if fs::metadata(&path).is_ok_and(|data| data.blocks() * BLOCK_BYTES >= RESERVE_BYTES) {
        return Ok(());
    }
    let failed = |error: io::Error| Error::io("setting room aside in", path.display(), error);
    let mut open = OpenOptions::new();
    open.write(true).create(true).truncate(false).mode(super::temp::FILE_MODE);
    let file = match open.open(&path) {
        Ok(file) => file,
        Err(error) if is_full(&error) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let flags = rustix::fs::FallocateFlags::empty();
    match rustix::fs::fallocate(&file, flags, 0, RESERVE_BYTES).map_err(io::Error::from) {
        Ok(()) => Ok(()),
        // Half a reserve only takes room away from others.
        Err(_) => fs::remove_file(&path).map_err(failed),
    }
}

/// Removes the file; false if there was none.
pub(super) fn release(root: &Path) -> Result<bool> {
    let path = root.join(RESERVE);
    match fs::remove_file(&path) {
        // Some file systems give the room back only then.
        Ok(()) => durable::sync_folder(root).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("removing", path.display(), error)),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The room is really taken, once, and given back once.
    #[test]
    fn room_is_set_aside_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let taken = || fs::metadata(dir.path().join(RESERVE)).map(|data| data.blocks());
        assert!(!release(dir.path()).unwrap());
        make(dir.path()).unwrap();
        if taken().is_err() {
            eprintln!("skipped: this file system cannot set room aside");
            return;
        }
        assert!(taken().unwrap() * BLOCK_BYTES >= RESERVE_BYTES);
        make(dir.path()).unwrap();
        assert!(release(dir.path()).unwrap());
        assert!(taken().is_err());
        assert!(!release(dir.path()).unwrap());
        // A file that is too small is completed.
        fs::write(dir.path().join(RESERVE), b"short").unwrap();
        make(dir.path()).unwrap();
        assert!(taken().unwrap() * BLOCK_BYTES >= RESERVE_BYTES);
    }
}
