//! Holding files by clones (`FICLONE`): the file system shares the blocks, whatever the size.
//!
//! What was written a moment ago has to reach the disk first; the file system sees to that, and it takes time.

use super::memory::READS_MAX;
use super::spool::Spool;
use std::collections::HashSet;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use stillpoint_archive::held::{HeldContent, Unheld};

/// Which file systems can clone.
#[derive(Debug)]
pub(super) struct Clones {
    wanted: bool,
    /// Devices on which it was tried and cannot be.
    unable: Mutex<HashSet<u64>>,
}

impl Clones {
    pub(super) fn new(wanted: bool) -> Self {
        Self { wanted, unable: Mutex::default() }
    }

    /// Clones the file; None where that cannot be.
    ///
    /// # Errors
    /// Those of the system calls on the file itself.
    pub(super) fn hold(
        &self,
        unheld: &mut Unheld,
        spool: &Spool,
    ) -> io::Result<Option<HeldContent>> {
        let device = unheld.inode().0;
        let mut unable = self.unable.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.wanted || unable.contains(&device) {
            return Ok(None);
        }
        for _ in 0..READS_MAX {
            let Some(file) = unheld.file() else { return Ok(None) };
            let Some(cloned) = clone(file, device, spool) else {
                unable.insert(device);
                return Ok(None);
            };
            // A clone is of one instant; the stat must be of the same.
            if !unheld.look_again()? {
                return Ok(Some(HeldContent::File(Arc::new(cloned))));
            }
        }
        Ok(None)
    }
}

/// A clone in the spool; None where there can be none.
pub(super) fn clone(file: BorrowedFd<'_>, device: u64, spool: &Spool) -> Option<OwnedFd> {
    // A directory on the same device first, then any: file systems may have several devices.
    spool.places(device).find_map(|place| {
        let target = place.file().ok()?;
        rustix::fs::ioctl_ficlone(&target, file).ok()?;
        Some(target)
    })
}
