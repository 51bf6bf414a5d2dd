//! A snapshot of the file system: made when the application is drained, so that its own lock can be given back at once; what
//! is saved is read from there.
//!
//! Btrfs is built in; for others there are commands. The application's own lock is another adapter, or none.

use super::guarded::Guarded;
use super::keeper::Keeper;
use super::order::{Hitch, Order, TakeError};
use super::run::{Ran, anchored, find, run};
use super::sys;
use super::{Drain, Level, LockAdapter, Rehearsal, Tell, View, whole};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use stillpoint_store::{Env as _, SystemEnv};

/// `BTRFS_SUPER_MAGIC`, linux/magic.h.
const BTRFS_MAGIC: u32 = 0x9123_683e;
/// The inode number of every subvolume's root, `BTRFS_FIRST_FREE_OBJECTID`.
const ROOT_INODE: u64 = 256;
/// How the names of our snapshots begin.
const PREFIX: &str = ".stillpoint-snapshot-";
/// A snapshot stays as long as it is read: years are no limit.
const NO_LIMIT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// The variables that commands find.
const NAME: &str = "STILLPOINT_SNAPSHOT_NAME";
const PATH: &str = "STILLPOINT_SNAPSHOT_PATH";

/// How snapshots are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Snapshots {
    /// By Btrfs itself: of the subvolume that the source is in. Subvolumes below it are not part of the snapshot.
    Btrfs {
        /// Where the snapshot is made, on the same Btrfs; None: in the root of the subvolume.
        folder: Option<PathBuf>,
    },
    /// By commands, each a program and its arguments.
    Commands {
        /// Makes one and prints the directory in which the source is found then, mounted and all.
        create: Vec<String>,
        /// Removes it; must be harmless when there is none.
        release: Vec<String>,
        /// The longest that either may take.
        limit: Duration,
    },
}

/// A snapshot of a directory, under the lock of another adapter.
pub struct Snapshot {
    inner: Box<dyn LockAdapter>,
    source: PathBuf,
    snapshots: Snapshots,
    guarded: Option<Guarded>,
    keeper: Keeper,
    tell: Tell,
    is_held: bool,
}

impl Snapshot {
    /// Snapshots of the file system of `source`, made while `inner` holds the application.
    pub fn new(
        inner: Box<dyn LockAdapter>,
        source: PathBuf,
        snapshots: Snapshots,
        keeper: Keeper,
        tell: Tell,
    ) -> Self {
        let keeper = keeper.with_limit(NO_LIMIT);
        let source = whole(&source);
        let snapshots = match snapshots {
            Snapshots::Btrfs { folder } => {
                Snapshots::Btrfs { folder: folder.as_deref().map(whole) }
            }
            Snapshots::Commands { create, release, limit } => {
                Snapshots::Commands { create: anchored(create), release: anchored(release), limit }
            }
        };
        Self { inner, source, snapshots, guarded: None, keeper, tell, is_held: false }
    }

    /// What is to be made, and below what of it the source is found.
    fn plan(&self) -> Result<(Held, PathBuf)> {
        let mut random = [0; 8];
        SystemEnv.fill_random(&mut random);
        let name = format!("{PREFIX}{:016x}", u64::from_le_bytes(random));
        let snapshots = self.snapshots.clone();
        let source = self.source.clone();
        let (subvolume, below) = match &self.snapshots {
            Snapshots::Btrfs { folder } => {
                let (subvolume, below) = subvolume(&self.source)?;
                try_folder(folder.as_ref().unwrap_or(&subvolume))?;
                (subvolume, below)
            }
            Snapshots::Commands { create, release, .. } => {
                for command in [create, release] {
                    let program = command.first().map_or("", String::as_str);
                    if find(program).is_none() {
                        return Err(refuse(
                            format!("no program `{program}` can be run"),
                            "give its path; a line for a shell is `sh -c LINE`",
                        ));
                    }
                }
                (source.clone(), PathBuf::new())
            }
        };
        Ok((Held { source, subvolume, snapshots, name, path: None }, below))
    }
}

fn refuse(what: impl Into<String>, hint: &str) -> Error {
    Error::Refused { what: what.into(), hint: Some(hint.into()) }
}

/// The root of the subvolume that a directory is in, and the directory below it.
fn subvolume(source: &Path) -> Result<(PathBuf, PathBuf)> {
    let failed = |error: io::Error| {
        refuse(format!("{}: {error}", source.display()), "name a directory that exists")
    };
    let source = source.canonicalize().map_err(failed)?;
    let kind = rustix::fs::statfs(&source).map_err(|error| failed(error.into()))?.f_type;
    if u32::try_from(kind) != Ok(BTRFS_MAGIC) {
        return Err(refuse(
            format!("{} is not on Btrfs", source.display()),
            "for other file systems give the commands `create` and `release`",
        ));
    }
    for root in source.ancestors() {
        if root.metadata().map_err(failed)?.ino() == ROOT_INODE {
            let below = source.strip_prefix(root).unwrap_or(Path::new("")).to_owned();
            return Ok((root.to_owned(), below));
        }
    }
    Err(refuse(format!("{}: no subvolume found", source.display()), "use the commands instead"))
}

fn try_folder(folder: &Path) -> Result<()> {
    use rustix::fs::{Access, access};
    access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        refuse(
            format!("snapshots cannot be made in {}: {error}", folder.display()),
            "run as a user who may write there, or name another folder on the same Btrfs",
        )
    })
}

impl LockAdapter for Snapshot {
    fn level(&self) -> Level {
        self.inner.level().max(Level::Filesystem)
    }

    fn rehearse(&mut self) -> Result<Rehearsal> {
        let mut rehearsal = self.inner.rehearse()?;
        let (held, below) = self.plan()?;
        if below.as_os_str().is_empty() && matches!(self.snapshots, Snapshots::Btrfs { .. }) {
            rehearsal.excludes.push(format!("/{PREFIX}*"));
        }
        let order = Order::Snapshot(held);
        let mut guarded = Guarded::new(self.keeper.clone(), order, self.tell.clone());
        rehearsal.notes.extend(guarded.rehearse()?);
        self.guarded = Some(guarded);
        Ok(rehearsal)
    }

    fn lock(&mut self) -> Result<()> {
        if self.guarded.is_none() {
            self.rehearse()?;
        }
        self.inner.lock()
    }

    fn drain(&mut self) -> Result<Drain> {
        self.inner.drain()
    }

    fn hold(&mut self) -> Result<Vec<View>> {
        let (_, below) = self.plan()?;
        let mut views = self.inner.hold()?;
        let guarded = self.guarded.as_mut().ok_or_else(|| Error::Failed("not rehearsed".into()))?;
        self.is_held = true;
        guarded.take()?;
        if let Order::Snapshot(Held { path: Some(path), .. }) = guarded.order() {
            views.push(View { of: self.source.clone(), at: path.join(below) });
        }
        Ok(views)
    }

    fn progress(&mut self, percent: u8) -> Result<()> {
        self.inner.progress(percent)
    }

    fn complete(&mut self) -> Result<()> {
        match &mut self.guarded {
            Some(guarded) if self.is_held => guarded.complete()?,
            _ => return Err(Error::Failed("no snapshot was made".into())),
        }
        self.inner.complete()
    }

    fn unlock(&mut self) -> Result<()> {
        self.inner.unlock()
    }

    fn dismiss(&mut self) -> Result<()> {
        let inner = self.inner.dismiss();
        let Some(guarded) = self.guarded.as_mut().filter(|_| self.is_held) else { return inner };
        let was_held = guarded.confirm();
        guarded.give_back()?;
        self.is_held = false;
        was_held.and(inner)
    }
}

/// A snapshot as an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    source: PathBuf,
    /// What Btrfs makes the snapshot of.
    subvolume: PathBuf,
    snapshots: Snapshots,
    name: String,
    /// Where it is, once it is made.
    path: Option<PathBuf>,
}

impl Held {
    pub(crate) fn title(&self) -> String {
        format!("the snapshot of {}", self.source.display())
    }

    pub(crate) fn manual(&self) -> String {
        match &self.snapshots {
            Snapshots::Btrfs { .. } => {
                format!("btrfs subvolume delete {}", self.folder().join(&self.name).display())
            }
            Snapshots::Commands { release, .. } => {
                let path = self.path.as_ref().map(|path| format!("{PATH}='{}' ", path.display()));
                let line = release.join(" ");
                format!("{NAME}='{}' {}{line}", self.name, path.unwrap_or_default())
            }
        }
    }

    fn folder(&self) -> &Path {
        match &self.snapshots {
            Snapshots::Btrfs { folder: Some(folder) } => folder,
            _ => &self.subvolume,
        }
    }

    pub(crate) fn take(&mut self) -> std::result::Result<(), TakeError> {
        let Snapshots::Commands { create, limit, .. } = &self.snapshots else {
            let text = |error| format!("making a snapshot in {}: {error}", self.folder().display());
            self.create().map_err(|error| TakeError::NotLocked(text(error)))?;
            self.path = Some(self.folder().join(&self.name));
            return Ok(());
        };
        match run(create, &[(NAME, &self.name)], *limit) {
            Ran::Well(path) if Path::new(&path).is_dir() && Path::new(&path).is_absolute() => {
                self.path = Some(path.into());
                Ok(())
            }
            Ran::Well(path) => Err(TakeError::Halfway(format!(
                "`{}` is to print an absolute directory, and printed {path:?}",
                create.join(" ")
            ))),
            Ran::NotStarted(text) => Err(TakeError::NotLocked(text)),
            Ran::Failed { text, .. } => Err(TakeError::Halfway(text)),
        }
    }

    fn create(&self) -> io::Result<()> {
        let folder = File::open(self.folder())?;
        sys::snapshot(&File::open(&self.subvolume)?, &folder, OsStr::new(&self.name))
    }

    pub(crate) fn give_back(&self) -> std::result::Result<String, Hitch> {
        let done = format!("{} removed", self.title());
        let Snapshots::Commands { release, limit, .. } = &self.snapshots else {
            let removed = File::open(self.folder())
                .and_then(|folder| sys::remove_subvolume(&folder, OsStr::new(&self.name)));
            return match removed {
                Ok(()) => Ok(done),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(done),
                Err(error) => Err(Hitch::passing(format!("removing {}: {error}", self.title()))),
            };
        };
        let path = self.path.as_ref().map(|path| path.display().to_string());
        let mut variables = vec![(NAME, self.name.as_str())];
        variables.extend(path.as_deref().map(|path| (PATH, path)));
        match run(release, &variables, *limit) {
            Ran::Well(_) => Ok(done),
            Ran::NotStarted(text) => Err(Hitch::lasting(text)),
            Ran::Failed { text, .. } => Err(Hitch::passing(text)),
        }
    }
}
