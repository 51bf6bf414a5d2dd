//! The index: as the database's owner, or as a guest beside another process.

use crate::Settings;
use crate::database::{Database, failed};
use crate::folder::{self, Folder, Format};
use crate::sort::{Entry, Sorter};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use stillpoint_store::index::{Index, IndexState, IsLive, Location, MemoryIndex};
use stillpoint_store::{ChunkId, Error, Result};

/// An index in a folder.
pub(crate) struct RocksIndex {
    // Dropped in this order: the database before the lock on its folder.
    mode: RwLock<Mode>,
    folder: Folder,
    settings: Settings,
    notice: Option<String>,
    /// Held while something is written.
    writer: Mutex<()>,
}

enum Mode {
    /// This process alone writes the database. None only while it is being replaced, and after that failed.
    Owner(Option<Database>),
    /// Another process does: its database as it was when this one was opened, if it could be read, and what was added
    /// here since.
    Guest { base: Option<Database>, additions: MemoryIndex },
}

impl RocksIndex {
    pub(crate) fn open(dir: &Path, settings: Settings) -> Result<Self> {
        folder::create(dir)?;
        let (folder, mode, notice) = match Folder::own(dir)? {
            Some(folder) => {
                let (database, notice) = open_owned(&folder, settings)?;
                (folder, Mode::Owner(Some(database)), notice)
            }
            None => {
                let folder = Folder::private(dir)?;
                let (base, notice) = open_beside(dir, &folder, settings);
                (folder, Mode::Guest { base, additions: MemoryIndex::new() }, notice)
            }
        };
        let (mode, writer) = (RwLock::new(mode), Mutex::new(()));
        Ok(Self { mode, folder, settings, notice, writer })
    }

    fn read(&self) -> RwLockReadGuard<'_, Mode> {
        // A panic of the caller's `is_live` leaves nothing half changed.
        self.mode.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace_mode(&self, mode: Mode) {
        *self.mode.write().unwrap_or_else(PoisonError::into_inner) = mode;
    }

    /// After damage was found the database is not opened again, whatever this process does next.
    fn watch<T>(&self, outcome: Result<T>) -> Result<T> {
        if let Err(Error::Damaged { .. }) = &outcome
            && let Err(error) = self.folder.unmark()
        {
            tracing::debug!(%error, "damaged index stays marked as usable");
        }
        outcome
    }

    /// Puts an empty database in place of whatever there is.
    fn start_anew(&self) -> Result<()> {
        self.replace_mode(Mode::Owner(None));
        let database = create_owned(&self.folder, self.settings)?;
        self.replace_mode(Mode::Owner(Some(database)));
        Ok(())
    }

    fn sort(
        &self,
        entries: &mut dyn Iterator<Item = Result<Entry>>,
        folder: &Path,
    ) -> Result<Sorter> {
        let Settings { sort_entries, sort_runs, .. } = self.settings;
        let mut sorter = Sorter::new(folder, sort_entries, sort_runs);
        for entry in entries {
            sorter.push(entry?)?;
        }
        Ok(sorter)
    }
}

/// A database that is missing since its replacement failed.
fn unusable() -> Error {
    Error::damaged("index", "it could not be made anew")
}

/// Opens the owner's database; one that cannot be used is dropped, and the reason is given.
fn open_owned(folder: &Folder, settings: Settings) -> Result<(Database, Option<String>)> {
    let reason = match folder.format() {
        Format::Known => match Database::open(&folder.database(), settings) {
            Ok(database) => return Ok((database, None)),
            Err(error) => Some(format!("it cannot be opened ({})", error.into_string())),
        },
        Format::Other(reason) => Some(reason),
        Format::New => None,
    };
    let database = create_owned(folder, settings)?;
    Ok((database, reason.map(|reason| format!("the index was dropped and is made anew: {reason}"))))
}

fn create_owned(folder: &Folder, settings: Settings) -> Result<Database> {
    folder.clear()?;
    let path = folder.database();
    let database =
        Database::open(&path, settings).map_err(|error| failed("creating", &path, error))?;
    folder.mark()?;
    Ok(database)
}

/// Opens the database of the owner of `dir` for reading; without it the guest begins with nothing.
fn open_beside(dir: &Path, own: &Folder, settings: Settings) -> (Option<Database>, Option<String>) {
    if folder::format_of(dir) != Format::Known {
        return (None, None);
    }
    match Database::open_beside(&folder::database_in(dir), &own.database(), settings) {
        Ok(database) => (Some(database), None),
        Err(error) => {
            let reason = error.into_string();
            let notice = format!("the index of another process cannot be read: {reason}");
            (None, Some(notice))
        }
    }
}

impl Index for RocksIndex {
    fn notice(&self) -> Option<String> {
        self.notice.clone()
    }

    fn state(&self) -> Result<Option<IndexState>> {
        let outcome = match &*self.read() {
            Mode::Owner(database) => database.as_ref().map_or(Ok(None), Database::state),
            Mode::Guest { base, additions } => match (additions.state(), base) {
                (Ok(None), Some(base)) => base.state(),
                (own, _) => own,
            },
        };
        self.watch(outcome)
    }

    fn lookup(&self, ids: &[ChunkId], is_live: IsLive<'_>) -> Result<Vec<Option<Location>>> {
        let outcome = match &*self.read() {
            Mode::Owner(database) => {
                database.as_ref().ok_or_else(unusable).and_then(|db| db.lookup(ids, is_live))
            }
            Mode::Guest { base: None, additions } => additions.lookup(ids, is_live),
            Mode::Guest { base: Some(base), additions } => {
                additions.lookup(ids, is_live).and_then(|own| {
                    let known = base.lookup(ids, is_live)?;
                    Ok(own.into_iter().zip(known).map(|(own, known)| own.or(known)).collect())
                })
            }
        };
        self.watch(outcome)
    }

    fn apply(&self, additions: &[Entry], state: IndexState) -> Result<()> {
        let _writer = self.writer();
        let outcome = match &*self.read() {
            Mode::Owner(None) => Err(unusable()),
            Mode::Owner(Some(database)) if additions.len() < self.settings.bulk_entries => {
                database.apply(additions, state, None)
            }
            Mode::Owner(Some(database)) => self
                .folder
                .fresh_sort_folder()
                .and_then(|folder| database.apply(additions, state, Some(&folder))),
            Mode::Guest { additions: own, .. } => own.apply(additions, state),
        };
        self.watch(outcome)
    }

    fn rebuild(
        &self,
        entries: &mut dyn Iterator<Item = Result<Entry>>,
        state: IndexState,
    ) -> Result<()> {
        let _writer = self.writer();
        // A guest gets a database of its own, in its private folder, so that its memory stays bounded.
        self.start_anew()?;
        let folder = self.folder.fresh_sort_folder()?;
        let sorted = self.sort(entries, &folder)?.finish()?;
        let filled = match &*self.read() {
            Mode::Owner(Some(database)) => database.fill(sorted, state, &folder),
            _ => Err(unusable()),
        };
        filled?;
        self.folder.fresh_sort_folder().map(drop)
    }

    fn len_estimate(&self) -> Result<u64> {
        let outcome = match &*self.read() {
            Mode::Owner(database) => database.as_ref().map_or(Ok(0), Database::len_estimate),
            Mode::Guest { base, additions } => {
                let known = base.as_ref().map_or(Ok(0), Database::len_estimate);
                known.and_then(|known| Ok(known + additions.len_estimate()?))
            }
        };
        self.watch(outcome)
    }
}
