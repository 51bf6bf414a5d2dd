//! The journal: which paths changed since a moment. It narrows a scan and never decides it.
//!
//! One fanotify mark for each file system tells of every change on it; a thread reads the kernel's queue all the time and folds
//! what it says into a set of bounded size. [`Journal::drain`] gives that set, complete up to a cookie file whose own event was
//! seen. Whatever cannot be known for certain makes the set name more, or carry a [`Gap`]; nothing is left out in silence.
//!
//! Knows the kernel, mounts and processes. Knows nothing of repositories: what the paths held before is not its business.

pub mod audit;
pub mod baseline;
mod cookie;
mod fanotify;
mod fold;
mod handles;
mod log;
mod mapped;
mod marks;
mod mounts;
pub mod positions;
mod reader;
pub mod records;
mod scope;
pub mod service;
mod wire;

use crate::error::{Error, Result};
use cookie::Cookie;
use fanotify::Group;
use fold::Fold;
use handles::Filesystems;
use mounts::MountTable;
use reader::Reader;
use scope::Scope;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use fold::{LINKED_MAX, NAMED_MAX};
pub use log::Position;

/// What changed since a moment, as keys of the manifest (components joined by zero bytes, see `archive::path`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangeSet {
    /// Paths to look at again: created, changed, removed, or with other metadata.
    pub paths: BTreeSet<Vec<u8>>,
    /// Directories below which everything is to be looked at again: new, moved, gone, or of unknown content. None lies within
    /// another, and no path lies within one.
    pub trees: BTreeSet<Vec<u8>>,
    /// Inodes that changed and may have names which are not among the paths: all names that the manifest knows for one are to
    /// be looked at again.
    pub linked: BTreeSet<Inode>,
    /// Why the set cannot be trusted to be whole; a walk decides then.
    pub gap: Option<Gap>,
    /// How many processes hid from the journal (their user's, or without `CAP_SYS_PTRACE`): what such a process writes through a
    /// shared mapping is named only when it lets go of the mapping.
    pub opaque: u64,
}

impl ChangeSet {
    /// True when nothing changed, for certain.
    pub fn is_empty(&self) -> bool {
        let Self { paths, trees, linked, gap, opaque: _ } = self;
        paths.is_empty() && trees.is_empty() && linked.is_empty() && gap.is_none()
    }

    /// True when this key is named: as a path, or by a tree that holds it.
    pub fn names(&self, key: &[u8]) -> bool {
        self.paths.contains(key) || fold::covers(&self.trees, key)
    }
}

/// An inode, as `stat` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Inode {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub number: u64,
}

/// Why a journal knows less than everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gap {
    /// The kernel's queue ran over.
    Overflow,
    /// The cookie file's event never came.
    CookieUnseen,
    /// A file system below the roots carries no mark: where, and why.
    Unmarked(String),
    /// It was not running all the time since the moment.
    Interrupted,
    /// A root, or a directory above one, was replaced by another.
    Moved,
    /// Too many files with several names changed.
    TooMany,
    /// Something that the kernel said, or did not say, could not be read.
    Unreadable(String),
}

impl fmt::Display for Gap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overflow => formatter.write_str("the kernel's queue of changes ran over"),
            Self::CookieUnseen => {
                formatter.write_str("the kernel's queue of changes was not read to its end")
            }
            Self::Unmarked(place) => write!(formatter, "changes are not told of {place}"),
            Self::Interrupted => formatter.write_str("the journal did not run all the time"),
            Self::Moved => formatter.write_str("a directory above what is watched was replaced"),
            Self::TooMany => formatter.write_str("too many files with several names changed"),
            Self::Unreadable(what) => write!(formatter, "not everything could be read: {what}"),
        }
    }
}

/// How a journal works.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether file systems that are mounted below the roots count. If they do, one that takes no mark is a gap.
    pub crosses_mounts: bool,
    /// Directories of which the first that works gets the cookie files. Best outside of the roots.
    pub cookies: Vec<PathBuf>,
    /// Whether the kernel's queue may grow without limit; otherwise it overflows at the system's.
    pub unlimited_queue: bool,
    /// Paths and trees that are kept apart, at most; beyond it many paths of one place become that place as a whole.
    pub named_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        let cookies = ["/run".into(), "/dev/shm".into(), std::env::temp_dir()];
        Self {
            crosses_mounts: true,
            cookies: cookies.into(),
            unlimited_queue: true,
            named_max: NAMED_MAX,
        }
    }
}

/// A running journal. Dropping it ends its thread and its marks.
#[derive(Debug)]
pub struct Journal {
    reader: Arc<Mutex<Reader>>,
    /// Closing it tells the thread to end.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Watches these directories, or files, and everything below them, from now on.
    ///
    /// # Errors
    /// `Refused` when something is missing: the privilege (`CAP_SYS_ADMIN`), the kernel's or the file system's support, a root.
    /// A walk does the same work then.
    pub fn start(roots: &[PathBuf]) -> Result<Self> {
        Self::start_with(roots, &Options::default())
    }

    /// As [`Self::start`], with options.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(roots: &[PathBuf], options: &Options) -> Result<Self> {
        let scope = Scope::new(roots)?;
        let group = Group::new(options.unlimited_queue).map_err(|error| no_group(&error))?;
        let failed =
            |what: &'static str| move |error: io::Error| refused(format!("{what}: {error}"), None);
        let cookie = Cookie::create(&group, &options.cookies)
            .map_err(failed("no directory for the journal's cookie files"))?;
        let mut reader = Reader {
            group: Arc::new(group),
            filesystems: Filesystems::default(),
            scope,
            fold: Fold::new(options.named_max, LINKED_MAX),
            cookie,
            mounts: MountTable::open().map_err(failed("the table of mounts cannot be read"))?,
            unmarked: BTreeMap::new(),
            crosses_mounts: options.crosses_mounts,
            repeats: HashSet::new(),
            buffer: Reader::buffer(),
        };
        reader.mounts.changed().map_err(failed("the table of mounts cannot be watched"))?;
        marks::follow(&mut reader).map_err(failed("the table of mounts cannot be read"))?;
        refuse_unmarked(&reader)?;
        let moment = reader.cookie.send().map_err(failed("creating a cookie file"))?;
        reader.scope.look_again(moment);
        Self::run(reader)
    }

    fn run(reader: Reader) -> Result<Self> {
        let failed = |error: io::Error| Error::Failed(format!("starting the journal: {error}"));
        let (stop, stopped) = UnixStream::pair().map_err(failed)?;
        let group = Arc::clone(&reader.group);
        // A table of the thread's own: each one that is open tells of each change once.
        let mounts = MountTable::open().map_err(failed)?;
        let reader = Arc::new(Mutex::new(reader));
        let shared = Arc::clone(&reader);
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || {
            while group.wait(stopped.as_fd(), mounts.as_fd()).unwrap_or(false) {
                let mut reader = lock(&shared);
                // So that what was unmounted is let go of at once.
                reader.follow_mounts(false);
                if let Err(error) = reader.read() {
                    reader.fold.gap(Gap::Unreadable(error.to_string()));
                    return;
                }
            }
        });
        Ok(Self { reader, stop: Some(stop), thread: Some(thread.map_err(failed)?) })
    }

    /// What changed since the last drain, or since the start: everything that was done before this was called, and perhaps some of
    /// what was done meanwhile. Takes about as long as reading what is in the queue; `limit` is when to give up (a gap).
    pub fn drain(&mut self, limit: Duration) -> ChangeSet {
        let mut reader = lock(&self.reader);
        let reader = &mut *reader;
        reader.follow_mounts(false);
        let moment = match reader.cookie.send() {
            Ok(moment) if reader.read_to_cookie(limit) => moment,
            _ => {
                reader.fold.gap(Gap::CookieUnseen);
                (0, 0)
            }
        };
        let ways = reader.scope.look_again(moment);
        ways.paths.into_iter().for_each(|way| reader.fold.path(way, reader.scope.roots()));
        if ways.moved {
            reader.fold.gap(Gap::Moved);
            reader.follow_mounts(true);
        }
        reader.note_silent_writers();
        reader.take()
    }

    /// Does something while the queue is not read: for tests and measurements.
    pub fn while_stopped<T>(&mut self, action: impl FnOnce() -> T) -> T {
        let _stopped = lock(&self.reader);
        action()
    }

    /// The keys of what is watched, as a manifest has them.
    pub fn roots(&self) -> Vec<Vec<u8>> {
        lock(&self.reader).scope.roots().map(<[u8]>::to_vec).collect()
    }

    /// How many paths and trees wait to be drained.
    pub fn pending(&self) -> usize {
        lock(&self.reader).fold.len()
    }
}

impl Reader {
    fn note_silent_writers(&mut self) {
        let devices = self.filesystems.devices();
        let opaque = mapped::silent_writers(&devices, &mut |file| {
            let found = self.filesystems.object_of(file);
            self.object(found, None);
        });
        match opaque {
            Ok(opaque) => self.fold.opaque(opaque),
            Err(error) => self.fold.gap(Gap::Unreadable(format!("/proc: {error}"))),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A thread that panicked has nothing left to end.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A reader in which a thread panicked has lost events.
fn lock(reader: &Mutex<Reader>) -> MutexGuard<'_, Reader> {
    reader.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
        let mut reader: MutexGuard<'_, Reader> = poisoned.into_inner();
        reader.fold.gap(Gap::Interrupted);
        reader
    })
}

fn refused(what: String, hint: Option<&str>) -> Error {
    Error::Refused { what, hint: hint.map(str::to_owned) }
}

fn no_group(error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EPERM) => refused(
            "the journal needs the privilege CAP_SYS_ADMIN".into(),
            Some("run it as root; without it, changes are found by a walk"),
        ),
        Some(libc::EINVAL | libc::ENOSYS) => refused(
            "this kernel does not tell which files change (fanotify of Linux 5.9 or newer)".into(),
            Some("changes are found by a walk"),
        ),
        _ => refused(format!("the kernel gives no journal: {error}"), None),
    }
}

/// A root on a file system without a mark would be no journal at all.
fn refuse_unmarked(reader: &Reader) -> Result<()> {
    let roots = reader.scope.real_roots();
    for (place, why) in &reader.unmarked {
        let is_below = |root: &Vec<u8>| stillpoint_archive::path::is_within(root, place);
        if let Some(root) = roots.iter().find(|root| is_below(root)) {
            let root = stillpoint_archive::path::path_from_key(root);
            let what = format!("there can be no journal of {}: {why}", root.display());
            return Err(refused(what, Some("changes are found by a walk")));
        }
    }
    Ok(())
}
