//! The directory that a restore writes into, and the only door to it.
//!
//! Everything happens below one directory descriptor: names are resolved with `openat2` (beneath the root, no links,
//! no magic links), or one component at a time without following links where the kernel has no `openat2`. So a link
//! that somebody plants or swaps in while a restore runs is an error, never a way out. Paths may be longer than
//! `PATH_MAX`: they are stepped through. Knows nothing of manifests but the form of their keys.

mod dir;
mod metadata;
mod owners;
mod remove;

pub use dir::{Dir, Node, TemporaryName};
pub use metadata::{
    Degraded, DegradedKind, Fresh, MetadataWriter, Ownership, Warning, flags_must_wait,
};
pub use owners::Owners;

use crate::path::{SEPARATOR, check_key, parent_key};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use stillpoint_store::{Error, Result};

/// Most directories kept open between uses; each costs a descriptor.
pub const OPEN_DIRECTORIES_MAX: usize = 256;
/// Longest relative path handed to the kernel at once; `PATH_MAX` is 4096 with the closing zero.
const STEP_BYTES_MAX: usize = 3 << 10;
/// How often a resolution is tried again that lost a race with a rename (`EAGAIN`).
const RACE_RETRIES_MAX: usize = 128;

/// How names turn into descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolver {
    /// `openat2`, Linux 5.6 and newer.
    Openat2,
    /// `openat` with `O_NOFOLLOW`, one component after the other.
    Stepwise,
}

/// The root directory of a restore.
pub struct Target {
    path: PathBuf,
    root: Arc<Dir>,
    resolver: Resolver,
    created: bool,
    open: Mutex<HashMap<Box<[u8]>, Arc<Dir>>>,
}

impl Target {
    /// Opens the directory, creating it and its parents where they are missing. The given path itself is the
    /// user's word: links in it are followed, below it none is.
    ///
    /// # Errors
    /// `Io` when it cannot be created or is no directory.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| Error::io("opening", path.display(), error);
        let created = match std::fs::symlink_metadata(path) {
            Ok(_) => false,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::create_dir_all(path).map_err(failed)?;
                true
            }
            Err(error) => return Err(failed(error)),
        };
        let mut target = Self::open_existing(path)?;
        target.created = created;
        Ok(target)
    }

    /// Opens a directory that exists.
    ///
    /// # Errors
    /// `Io` when it is missing or is no directory.
    pub fn open_existing(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|errno| Error::io("opening", path.display(), errno.into()))?;
        let root = Dir::new(root);
        let resolver = Resolver::probe(&root);
        Ok(Self {
            path: path.to_owned(),
            root: Arc::new(root),
            resolver,
            created: false,
            open: Mutex::default(),
        })
    }

    /// The same target with a resolver of the caller's choice (tests run both).
    pub fn with_resolver(mut self, resolver: Resolver) -> Self {
        self.resolver = resolver;
        self
    }

    /// Whether [`Target::open`] made the directory.
    pub fn created(&self) -> bool {
        self.created
    }

    /// The root directory.
    pub fn root(&self) -> &Arc<Dir> {
        &self.root
    }

    /// Where a key lies, for messages only.
    pub fn display(&self, key: &[u8]) -> PathBuf {
        let below = crate::path::path_from_key(key);
        match below.strip_prefix("/") {
            Ok(below) if !below.as_os_str().is_empty() => self.path.join(below),
            _ => self.path.clone(),
        }
    }

    /// The directory with this key (relative to the root); every component must be a real directory.
    ///
    /// # Errors
    /// `ELOOP` or `ENOTDIR` where a link or another thing stands in the way, `ENOENT` where nothing is.
    pub fn dir(&self, key: &[u8]) -> rustix::io::Result<Arc<Dir>> {
        if key.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some(dir) = self.cached(key) {
            return Ok(dir);
        }
        check_key(key).map_err(|_| Errno::INVAL)?;
        let (mut dir, mut rest) = self.nearest(key);
        while !rest.is_empty() {
            let (step, tail) = split_step(rest);
            dir = Arc::new(Dir::new(self.resolver.open(&dir, step)?));
            rest = tail;
        }
        self.remember(key, &dir);
        Ok(dir)
    }

    /// Forgets open directories, because directories were removed or replaced.
    pub fn forget_open(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn cached(&self, key: &[u8]) -> Option<Arc<Dir>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn remember(&self, key: &[u8], dir: &Arc<Dir>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= OPEN_DIRECTORIES_MAX {
            open.clear();
        }
        open.insert(key.into(), dir.clone());
    }

    /// The deepest open ancestor and what remains to resolve below it.
    fn nearest<'k>(&self, key: &'k [u8]) -> (Arc<Dir>, &'k [u8]) {
        let mut ancestor = key;
        while let Some(parent) = parent_key(ancestor).filter(|parent| !parent.is_empty()) {
            if let Some(dir) = self.cached(parent) {
                return (dir, key.get(parent.len() + 1..).unwrap_or_default());
            }
            ancestor = parent;
        }
        (self.root.clone(), key)
    }
}

impl Resolver {
    /// Finds out whether the kernel (or a sandbox around it) knows `openat2`.
    fn probe(root: &Dir) -> Self {
        match Self::Openat2.open(root, b".") {
            Err(Errno::NOSYS | Errno::PERM) => Self::Stepwise,
            _ => Self::Openat2,
        }
    }

    /// Opens the directory at `step` (components joined by 0x00) below `dir`.
    fn open(self, dir: &Dir, step: &[u8]) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match self {
            Self::Openat2 => {
                let path: Vec<u8> =
                    step.iter().map(|byte| if *byte == SEPARATOR { b'/' } else { *byte }).collect();
                let resolve =
                    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
                let open = || {
                    rustix::fs::openat2(dir.fd(), path.as_slice(), flags, Mode::empty(), resolve)
                };
                let mut answer = open();
                for _ in 0..RACE_RETRIES_MAX {
                    if !matches!(answer, Err(Errno::AGAIN | Errno::INTR)) {
                        break;
                    }
                    answer = open();
                }
                answer
            }
            Self::Stepwise => {
                let mut current: Option<OwnedFd> = None;
                for name in crate::path::components(step) {
                    let at = current.as_ref().map_or(dir.fd(), std::os::fd::AsFd::as_fd);
                    current = Some(rustix::fs::openat(at, name, flags, Mode::empty())?);
                }
                current.ok_or(Errno::INVAL)
            }
        }
    }
}

/// Splits off as many components as the kernel takes at once.
fn split_step(key: &[u8]) -> (&[u8], &[u8]) {
    if key.len() <= STEP_BYTES_MAX {
        return (key, &[]);
    }
    let is_separator = |byte: &u8| *byte == SEPARATOR;
    let head = key.get(..STEP_BYTES_MAX).unwrap_or(key);
    // A single component longer than a step is refused by the kernel; it is passed on to get the kernel's error.
    let end = head.iter().rposition(is_separator).or_else(|| key.iter().position(is_separator));
    match end {
        Some(end) => (key.get(..end).unwrap_or_default(), key.get(end + 1..).unwrap_or_default()),
        None => (key, &[]),
    }
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
