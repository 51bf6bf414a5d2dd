//! Paths as they were at one moment: everything that an entry needs, and who has the content.
//!
//! Whoever holds them (see [`HeldFile`]) answers for content that does not change. Knows nothing of manifests.

mod look;

pub use look::{Looked, Looker, Unheld};

use crate::meta::{Stat, Xattrs};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// One path as it was at one moment. A clone shares the content.
#[derive(Debug, Clone)]
pub struct Held {
    pub(crate) stat: Stat,
    pub(crate) kind: HeldKind,
    pub(crate) xattrs: Xattrs,
    pub(crate) flags: u32,
    pub(crate) racy: bool,
    /// What should be known about it.
    pub(crate) note: Option<String>,
}

/// What it is, as far as stat does not say it.
#[derive(Debug, Clone)]
pub(crate) enum HeldKind {
    File(HeldContent),
    Symlink(Vec<u8>),
    Other,
}

/// Who has the content of a file.
#[derive(Clone)]
pub enum HeldContent {
    /// All of it.
    Memory(Arc<[u8]>),
    /// Something that can be read: a clone, a copy, or the file itself while nobody may write to it.
    File(Arc<dyn HeldFile>),
}

impl fmt::Debug for HeldContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(bytes) => write!(f, "Memory({} bytes)", bytes.len()),
            Self::File(_) => write!(f, "File"),
        }
    }
}

/// A file whose content does not change while it is held.
pub trait HeldFile: Send + Sync {
    /// Calls `act` with a descriptor of the content, which stays as it is for the time of the call. Gives what `act`
    /// gives. Called from several threads.
    ///
    /// # Errors
    /// What `act` gives, or that the content is not held any more.
    fn with(&self, act: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<u64>) -> io::Result<u64>;

    /// Called after the last read: says whether all that was read is what was held.
    ///
    /// # Errors
    /// When some of it may have changed.
    fn settle(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A descriptor that nobody else writes through: a clone or a copy without a name.
impl HeldFile for OwnedFd {
    fn with(&self, act: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<u64>) -> io::Result<u64> {
        act(self.as_fd())
    }
}

impl Held {
    /// Logical size in bytes; 0 for all but files.
    pub fn size(&self) -> u64 {
        if self.stat.is_file() { self.stat.size } else { 0 }
    }

    /// Device and inode.
    pub fn inode(&self) -> (u64, u64) {
        (self.stat.device, self.stat.inode)
    }
}
