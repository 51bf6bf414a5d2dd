//! Freeze: the changed files of one instant, held so that they can be stored after the application goes on.
//!
//! Small files go to memory. A large one is leased: it costs microseconds whatever its size, and whoever wants to
//! write to it waits until it was put away. Where there is no lease it is cloned, and where that cannot be, copied.
//! Decides who holds what; knows nothing of locks, and leaves metadata to the archive's [`Looker`].

mod clone;
mod lease;
mod memory;
mod spool;

use crate::error::{Error, Result};
use clone::Clones;
use lease::Keeper;
use rustix::process::Resource;
use serde::{Deserialize, Serialize};
use spool::Spool;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stillpoint_archive::held::{Held, HeldContent, Looked, Looker, Unheld};
use stillpoint_archive::path::path_from_key;
use stillpoint_archive::{BackupOptions, Changes, Problem};

/// How files are held.
#[derive(Debug, Clone)]
pub struct FreezeOptions {
    /// Directories for clones and copies, best one on each file system that the sources lie on, because a clone cannot
    /// leave its file system. What is put there has no name and is gone when it is not needed any more, whatever
    /// happens.
    pub spool: Vec<PathBuf>,
    /// Files up to this size go to memory, bytes.
    pub small_bytes_max: u64,
    /// Most memory for that, bytes.
    pub memory_bytes_max: u64,
    /// Most files that are leased at a time; each needs a descriptor. 0: none.
    pub leases_max: usize,
    /// Whether files may be cloned.
    pub clones: bool,
}

impl Default for FreezeOptions {
    fn default() -> Self {
        Self {
            spool: vec![std::env::temp_dir()],
            small_bytes_max: 128 << 10,
            memory_bytes_max: 256 << 20,
            leases_max: 8192,
            clones: true,
        }
    }
}

/// Files and bytes that one method took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Part {
    /// Files.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
}

impl Part {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What a freeze did, and what it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Files in memory.
    pub memory: Part,
    /// Leased files.
    pub lease: Part,
    /// Cloned files.
    pub clone: Part,
    /// Copied files.
    pub copy: Part,
    /// Further names of files that are held already.
    pub names: u64,
    /// Directories, links and whatever has no content.
    pub others: u64,
    /// Paths that were not there.
    pub gone: u64,
    /// The time it took.
    pub took: Duration,
}

impl Figures {
    /// All files that have content, and their bytes.
    pub fn files(&self) -> Part {
        let parts = [self.memory, self.lease, self.clone, self.copy];
        parts.iter().fold(Part::default(), |sum, part| Part {
            files: sum.files + part.files,
            bytes: sum.bytes.saturating_add(part.bytes),
        })
    }
}

/// Paths as they were at one instant.
#[derive(Debug, Default)]
pub struct Frozen {
    /// What was held; None: was not there.
    pub held: BTreeMap<Vec<u8>, Option<Held>>,
    /// Directories below which exactly what was held is there.
    pub trees: BTreeSet<Vec<u8>>,
    /// What could not be held. A capture that has such problems does not show one instant.
    pub problems: Vec<Problem>,
    /// How it was done.
    pub figures: Figures,
}

impl Frozen {
    /// As changes for [`stillpoint_archive::backup_changes`].
    pub fn into_changes(self) -> Changes {
        Changes { held: self.held, held_trees: self.trees, ..Changes::default() }
    }
}

/// Everything that a freeze needs, made beforehand: nothing is opened, started or allowed under the lock but the files
/// themselves.
#[derive(Debug)]
pub struct Freezer {
    looker: Looker,
    options: FreezeOptions,
    spool: Arc<Spool>,
    clones: Clones,
    keeper: Arc<Keeper>,
}

impl Freezer {
    /// Prepares to freeze what a backup with these options would save. Lets the process have as many open files as
    /// it may.
    ///
    /// # Errors
    /// `Refused` when nothing can be put into a spool directory, those of unusable paths and rules.
    pub fn new(backup: &BackupOptions, options: FreezeOptions) -> Result<Self> {
        let looker = Looker::new(backup)?;
        let spool = Arc::new(Spool::open(&options.spool)?);
        let keeper = Keeper::start(Arc::clone(&spool)).map_err(|error| Error::Refused {
            what: format!("no thread can be started to watch leases: {error}"),
            hint: None,
        })?;
        raise_open_files();
        Ok(Self { looker, clones: Clones::new(options.clones), options, spool, keeper })
    }

    /// Holds these paths, and these trees with everything below them, as they are now. A path that cannot be held is
    /// a problem of the outcome, not an error.
    ///
    /// # Errors
    /// For keys that are no paths.
    pub fn freeze(&self, paths: &BTreeSet<Vec<u8>>, trees: &BTreeSet<Vec<u8>>) -> Result<Frozen> {
        let started = Instant::now();
        let mut freeze = Freeze { freezer: self, frozen: Frozen::default(), names: HashMap::new() };
        let trees = self.looker.look::<Error>(paths, trees, &mut |key, looked| {
            freeze.take(key, looked);
            Ok(())
        })?;
        let mut frozen = freeze.frozen;
        frozen.trees = trees;
        frozen.figures.took = started.elapsed();
        Ok(frozen)
    }

    /// How many leases were broken so far: somebody wanted to write, and waited until the file was put away.
    pub fn leases_broken(&self) -> u64 {
        self.keeper.broken()
    }
}

/// A freeze on its way.
struct Freeze<'a> {
    freezer: &'a Freezer,
    frozen: Frozen,
    /// Content of files with several names, by device and inode.
    names: HashMap<(u64, u64), Held>,
}

impl Freeze<'_> {
    fn take(&mut self, key: &[u8], looked: Looked) {
        let held = match looked {
            Looked::Gone => {
                self.frozen.figures.gone += 1;
                Ok(None)
            }
            Looked::Failed(why) => Err(why),
            Looked::There(unheld) => self.hold(*unheld).map(Some),
        };
        match held {
            Ok(held) => drop(self.frozen.held.insert(key.to_vec(), held)),
            Err(what) => self.frozen.problems.push(Problem { path: path_from_key(key), what }),
        }
    }

    fn hold(&mut self, mut unheld: Unheld) -> Result<Held, String> {
        if unheld.file().is_none() {
            self.frozen.figures.others += 1;
            return Ok(unheld.hold(None));
        }
        let (inode, names) = (unheld.inode(), unheld.names());
        if let Some(held) = self.names.get(&inode).filter(|_| names > 1) {
            self.frozen.figures.names += 1;
            return Ok(held.clone());
        }
        let content = self
            .hold_content(&mut unheld)
            .map_err(|error| format!("its content cannot be held: {error}"))?;
        let held = unheld.hold(Some(content));
        if names > 1 {
            self.names.insert(inode, held.clone());
        }
        Ok(held)
    }

    fn hold_content(&mut self, unheld: &mut Unheld) -> std::io::Result<HeldContent> {
        let Freezer { options, spool, clones, keeper, .. } = self.freezer;
        let figures = &mut self.frozen.figures;
        let left = options.memory_bytes_max.saturating_sub(figures.memory.bytes);
        // Memory keeps no holes.
        let fits = unheld.size() <= options.small_bytes_max.min(left);
        if fits && (!unheld.may_have_holes() || unheld.size() == 0) {
            let content = memory::hold(unheld)?;
            figures.memory.add(unheld.size());
            return Ok(content);
        }
        if keeper.leased() < options.leases_max
            && let Some(content) = keeper.hold(unheld)?
        {
            figures.lease.add(unheld.size());
            return Ok(content);
        }
        if let Some(content) = clones.hold(unheld, spool)? {
            figures.clone.add(unheld.size());
            return Ok(content);
        }
        let content = spool.hold(unheld)?;
        figures.copy.add(unheld.size());
        Ok(content)
    }
}

/// Leases, clones and copies are descriptors.
fn raise_open_files() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(errno) = rustix::process::setrlimit(Resource::Nofile, limit) {
        tracing::warn!("the limit of open files cannot be raised: {errno}");
    }
}

#[cfg(test)]
#[path = "freeze_tests.rs"]
mod tests;
