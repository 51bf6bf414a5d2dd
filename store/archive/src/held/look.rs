//! Looking at changed paths for somebody who is going to hold them, under the rules of a backup.
//!
//! Everything but content is taken at once; who takes content, and how, is the caller's business.

use super::{Held, HeldContent, HeldKind};
use crate::backup::BackupOptions;
use crate::change::is_racy;
use crate::filter::Filter;
use crate::meta::{self, Stat};
use crate::scan::{self, Met, Place, Reach, Scan, ScanRules};
use crate::source::{self, ReadClock};
use rustix::fs::FileType;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use stillpoint_store::{Error, Result};

/// Looks at paths as a backup with the same options would. Make it before anything is locked: it looks at the roots.
#[derive(Debug)]
pub struct Looker {
    roots: Vec<Vec<u8>>,
    filter: crate::FilterOptions,
    devices: Option<BTreeSet<u64>>,
    clock: ReadClock,
}

/// What was found at a path.
#[derive(Debug)]
pub enum Looked {
    /// Nothing, or something that the rules leave out. Nothing is below it either.
    Gone,
    /// Something of which not enough could be found out, and why.
    Failed(String),
    /// Something.
    There(Box<Unheld>),
}

/// A path that was looked at. Its content, if it is a file, is held by nobody yet.
#[derive(Debug)]
pub struct Unheld {
    held: Held,
    file: Option<OwnedFd>,
    clock: ReadClock,
}

impl Looker {
    /// Looks as a backup with these options would.
    ///
    /// # Errors
    /// `Invalid` for rules or roots that cannot work.
    pub fn new(options: &BackupOptions) -> Result<Self> {
        let roots = scan::root_keys(&options.roots)?;
        Filter::new(&options.filter)?;
        let devices = options.one_file_system.then(|| crate::backup::devices(&roots));
        Ok(Self { roots, filter: options.filter.clone(), devices, clock: options.clock })
    }

    /// The roots.
    pub fn roots(&self) -> impl Iterator<Item = PathBuf> {
        self.roots.iter().map(|key| crate::path::path_from_key(key))
    }

    /// Looks at these paths, and at these trees with everything below them, in ascending order of keys. A path inside
    /// a tree comes once. Gives the directories below which everything was looked at. Paths outside of the roots are
    /// passed over.
    ///
    /// # Errors
    /// `Invalid` for a key that is no path; those of `take`, which end it.
    pub fn look<E: From<Error>>(
        &self,
        paths: &BTreeSet<Vec<u8>>,
        trees: &BTreeSet<Vec<u8>>,
        take: &mut dyn FnMut(&[u8], Looked) -> std::result::Result<(), E>,
    ) -> std::result::Result<BTreeSet<Vec<u8>>, E> {
        for key in paths.iter().chain(trees) {
            crate::path::check_key(key).map_err(|error| Error::Invalid(error.to_string()))?;
        }
        let rules = ScanRules { filter: Filter::new(&self.filter)?, devices: self.devices.clone() };
        let mut all = trees.clone();
        all.extend(rules.marked(paths.iter(), &scan::outer_roots(&self.roots)));
        let scan = Scan::new(scan::stations_within(&self.roots, paths, &all), rules);
        let mut walked = BTreeSet::new();
        let mut walk = scan.walk();
        while let Some(met) = walk.next() {
            match met {
                Met::Gone { key } => take(key, Looked::Gone)?,
                Met::Problem { key, what, errno, .. } => {
                    let why = format!("{what}: {}", io::Error::from(errno));
                    take(key, Looked::Failed(why))?;
                }
                Met::Path(place) => {
                    if matches!(place.reach, Some(Reach::Root | Reach::Whole { .. })) {
                        walked.insert(place.key.to_vec());
                    }
                    take(place.key, self.look_at(&place))?;
                }
            }
        }
        Ok(walked)
    }

    fn look_at(&self, place: &Place<'_>) -> Looked {
        match self.gather(place) {
            Ok(unheld) => Looked::There(Box::new(unheld)),
            Err(Errno::NOENT) => Looked::Gone,
            Err(errno) => Looked::Failed(format!("cannot be read: {}", io::Error::from(errno))),
        }
    }

    fn gather(&self, place: &Place<'_>) -> std::result::Result<Unheld, Errno> {
        let mut stat = *place.stat;
        let racy = |stat: &Stat| is_racy(stat, self.clock.now());
        let (mut file, mut flags) = (None, 0);
        let (kind, xattrs) = match stat.kind {
            FileType::RegularFile => {
                let fd = source::open_file(place.dir, place.name)?;
                stat = Stat::of(fd.as_fd())?;
                if !stat.is_file() {
                    return Err(Errno::STALE);
                }
                flags = meta::flags_of(fd.as_fd())?;
                let xattrs = meta::xattrs_of(fd.as_fd())?;
                file = Some(fd);
                (HeldKind::File(HeldContent::Memory([].into())), xattrs)
            }
            FileType::Symlink => {
                let dir = place.dir.fd()?;
                let target = rustix::fs::readlinkat(&dir, place.name, Vec::new())?;
                let xattrs = meta::xattrs_at(dir.as_fd(), place.name)?;
                (HeldKind::Symlink(target.into_bytes()), xattrs)
            }
            FileType::Directory => {
                let dir = place.dir.open_child(place.name)?;
                let fd = dir.fd()?;
                flags = meta::flags_of(fd.as_fd())?;
                (HeldKind::Other, meta::xattrs_of(fd.as_fd())?)
            }
            _ => (HeldKind::Other, meta::xattrs_at(place.dir.fd()?.as_fd(), place.name)?),
        };
        let held = Held { racy: racy(&stat), stat, kind, xattrs, flags, note: None };
        Ok(Unheld { held, file, clock: self.clock })
    }
}

impl Unheld {
    /// The open file, if it is a regular one; somebody has to hold its content.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// Takes the open file; see [`Self::file`].
    pub fn take_file(&mut self) -> Option<OwnedFd> {
        self.file.take()
    }

    /// Logical size in bytes, as of the last look; 0 for all but files.
    pub fn size(&self) -> u64 {
        self.held.size()
    }

    /// Whether there may be holes, which memory does not keep.
    pub fn may_have_holes(&self) -> bool {
        self.held.stat.is_file() && self.held.stat.may_have_holes()
    }

    /// Device and inode.
    pub fn inode(&self) -> (u64, u64) {
        self.held.inode()
    }

    /// Number of names.
    pub fn names(&self) -> u32 {
        self.held.stat.nlink
    }

    /// Looks at the open file again. True when its content may have changed since the last look.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn look_again(&mut self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let now = Stat::of(file.as_fd())?;
        let changed = self.held.stat.content_differs(&now);
        self.held.racy = is_racy(&now, self.clock.now());
        self.held.stat = now;
        Ok(changed)
    }

    /// Says what should be known about it; it becomes a problem of the snapshot.
    pub fn note(&mut self, note: impl Into<String>) {
        self.held.note = Some(note.into());
    }

    /// The path as it is held now; what is no regular file needs no content.
    pub fn hold(mut self, content: Option<HeldContent>) -> Held {
        if let (HeldKind::File(kept), Some(content)) = (&mut self.held.kind, content) {
            *kept = content;
        }
        self.held
    }
}
