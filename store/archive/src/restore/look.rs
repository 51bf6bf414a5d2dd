//! How a walk looks at the target: what stands where, making and finding directories, names that will go.

use super::ledger::Ledger;
use super::levels::{Level, LevelState};
use super::walk::Walk;
use crate::entry::Entry;
use crate::path;
use crate::plan::{Action, Existing, ExistingKind, decide};
use crate::target::{Dir, Fresh};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use std::path::PathBuf;
use std::sync::Arc;
use stillpoint_store::Timestamp;

impl Walk<'_> {
    pub(super) fn names_to_delete(&self, level: &Level) -> Vec<Vec<u8>> {
        let Some(leftovers) = &level.leftovers else { return Vec::new() };
        let dir = self.target.and_then(|target| target.dir(&level.key).ok());
        let mut names: Vec<Vec<u8>> = leftovers.iter().cloned().collect();
        names.sort();
        names.retain(|name| {
            let key = path::child_key(&level.key, name);
            let stat = dir.as_ref().and_then(|dir| dir.stat(name).ok().flatten());
            let is_dir = stat.is_some_and(|stat| kind_of(&stat) == FileType::Directory);
            let selection = &self.options.selection;
            !selection.excludes(&key, is_dir)
                && (level.included || selection.includes(&key, is_dir))
        });
        names
    }

    /// Makes or finds one directory.
    pub(super) fn enter(
        &mut self,
        key: &[u8],
        entry: Option<&Entry>,
        index: usize,
    ) -> Result<Entered, Failure> {
        let name = path::file_name(key);
        let parent = self.parent(index - 1).map_err(|errno| Failure::Io("opening", errno))?;
        let unknown = Entry::default();
        let existing = match &parent {
            Some(dir) => self.existing(dir, name, entry.unwrap_or(&unknown), index - 1)?,
            None => None,
        };
        let action = decide(entry.unwrap_or(&unknown), existing.as_ref(), self.options.overwrite);
        if existing.is_some_and(|existing| existing.kind == ExistingKind::Directory) {
            self.plan.directories_existing += 1;
            let unlocked = parent.filter(|_| self.acting).and_then(|dir| unlock(&dir, name));
            let touch = action == Action::Refresh;
            return Ok(Entered { state: LevelState::Found, fresh: Fresh::No, touch, unlocked });
        }
        if action == Action::Keep {
            return Err(Failure::Says("what is no directory stands here and is kept"));
        }
        self.plan.directories_new += 1;
        let made = |fresh| Entered { state: LevelState::Made, fresh, touch: true, unlocked: None };
        let Some(dir) = parent.filter(|_| self.acting) else { return Ok(made(Fresh::No)) };
        if action == Action::Replace {
            dir.unlink(name).map_err(|errno| Failure::Io("replacing", errno))?;
        }
        dir.make_dir(name).map_err(|errno| Failure::Io("creating", errno))?;
        Ok(made(Fresh::made_in(&dir)))
    }

    pub(super) fn list_leftovers(&mut self, index: usize) {
        let Some(level) = self.levels.get_mut(index) else { return };
        let Some(target) = self.target else { return };
        if !self.options.delete || level.state != LevelState::Found {
            return;
        }
        let names = target.dir(&level.key).and_then(|dir| dir.names());
        match names {
            Ok(names) => level.leftovers = Some(names.into_iter().collect()),
            Err(errno) => {
                let path = target.display(&level.key);
                self.ledger.failed(path, "listing", errno);
            }
        }
    }

    pub(super) fn look_at(&self, key: &[u8], entry: &Entry) -> Result<Option<Existing>, Failure> {
        let index = self.levels.len() - 1;
        match self.parent(index).map_err(|errno| Failure::Io("opening", errno))? {
            Some(dir) => self.existing(&dir, path::file_name(key), entry, index),
            None => Ok(None),
        }
    }

    /// The open directory of a level; None in a rehearsal of one that does not exist.
    pub(super) fn parent(&self, index: usize) -> rustix::io::Result<Option<Arc<Dir>>> {
        let Some(level) = self.levels.get(index) else { return Ok(None) };
        match self.target {
            Some(target) if self.acting || level.state == LevelState::Found => {
                target.dir(&level.key).map(Some)
            }
            _ => Ok(None),
        }
    }

    pub(super) fn existing(
        &self,
        dir: &Dir,
        name: &[u8],
        entry: &Entry,
        parent: usize,
    ) -> Result<Option<Existing>, Failure> {
        // What we made holds nothing; should somebody put something there, creating it anew fails.
        if self.levels.get(parent).is_none_or(|level| level.state == LevelState::Made) {
            return Ok(None);
        }
        let reading = |errno| Failure::Io("looking at", errno);
        let Some(stat) = dir.stat(name).map_err(reading)? else { return Ok(None) };
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match kind_of(&stat) {
            FileType::RegularFile => {
                ExistingKind::File { size: u64::try_from(stat.st_size).unwrap_or(0) }
            }
            FileType::Directory => ExistingKind::Directory,
            FileType::Symlink => {
                ExistingKind::Symlink { target: dir.read_link(name).map_err(reading)? }
            }
            FileType::Fifo => ExistingKind::Fifo,
            FileType::Socket => ExistingKind::Socket,
            FileType::CharacterDevice => ExistingKind::CharDevice { major, minor },
            FileType::BlockDevice => ExistingKind::BlockDevice { major, minor },
            FileType::Unknown => return Err(Failure::Says("a thing of unknown kind stands here")),
        };
        let ours = rustix::process::geteuid().as_raw();
        let foreign = stat.st_uid != ours
            && self.metadata.owner_of(entry).map(|it| it.0) != Some(stat.st_uid);
        Ok(Some(Existing {
            shared: foreign || (stat.st_nlink > 1 && kind != ExistingKind::Directory),
            kind,
            mtime: modified(&stat),
            mode: stat.st_mode & 0o7777,
        }))
    }

    pub(super) fn display(&self, key: &[u8]) -> PathBuf {
        match self.target {
            Some(target) => target.display(key),
            None => self
                .options
                .target
                .join(path::path_from_key(key).strip_prefix("/").unwrap_or("".as_ref())),
        }
    }
}

/// A directory that was made or found.
pub(super) struct Entered {
    pub state: LevelState,
    pub fresh: Fresh,
    pub touch: bool,
    pub unlocked: Option<u32>,
}

/// Gives ourselves access to a directory of our own that forbids it; gives its mode from before.
fn unlock(dir: &Dir, name: &[u8]) -> Option<u32> {
    let stat = dir.stat(name).ok().flatten()?;
    if rustix::process::geteuid().is_root() || stat.st_mode & 0o700 == 0o700 {
        return None;
    }
    // Without permission what is inside fails by itself.
    dir.make_accessible(name, &stat).ok()?;
    Some(stat.st_mode & 0o7777)
}

/// Why a directory cannot be entered or a name not be looked at.
pub(super) enum Failure {
    Io(&'static str, Errno),
    Says(&'static str),
}

impl Failure {
    pub(super) fn tell(&self, ledger: &Ledger<'_>, path: PathBuf) {
        match self {
            Self::Io(action, errno) => ledger.failed(path, action, *errno),
            Self::Says(what) => ledger.problem(path, what),
        }
    }
}

fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn modified(stat: &Stat) -> Timestamp {
    Timestamp { seconds: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}
