//! The index: a reader until something is written, then the folder's owner if nobody else is.
//!
//! Opening for reading takes a few milliseconds, changes nothing, and many processes can do it; opening for writing costs
//! several syncs. So a process that only looks up never becomes the owner. A reader that cannot become the owner, or
//! whose database was moved on by another process meanwhile, keeps what it adds in memory.

use crate::Settings;
use crate::database::{Database, failed};
use crate::folder::{self, Folder, Format};
use crate::sort::{Entry, Sorter};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use stillpoint_store::index::{Index, IndexState, IsLive, Location, MemoryIndex};
use stillpoint_store::{ChunkId, Error, Result};

/// An index in a folder.
pub(crate) struct RocksIndex {
    mode: RwLock<Mode>,
    dir: PathBuf,
    settings: Settings,
    notice: Option<String>,
    /// Held while something is written.
    writer: Mutex<()>,
}

enum Mode {
    /// The database as it was when it was opened, if it could be read, and what was added here since.
    Reader { base: Option<Database>, additions: MemoryIndex },
    /// This process alone writes the database, which is in the index's folder or in a private one. None only while it is
    /// replaced, and after that failed. (Dropped in this order: the database before the lock on its folder.)
    Owner { database: Option<Database>, folder: Folder },
}

impl Mode {
    fn reader(base: Option<Database>) -> Self {
        Self::Reader { base, additions: MemoryIndex::new() }
    }
}

impl RocksIndex {
    pub(crate) fn open(dir: &Path, settings: Settings) -> Result<Self> {
        folder::create(dir)?;
        let (mode, notice) = match read(dir, settings) {
            Ok(base) => (Mode::reader(Some(base)), None),
            // Another process may be making it anew at this moment; if not, the owner is this one.
            Err(_) => match Folder::own(dir)? {
                Some(folder) => open_owned(dir, folder, settings)?,
                None => (Mode::reader(None), None),
            },
        };
        let (mode, writer) = (RwLock::new(mode), Mutex::new(()));
        Ok(Self { mode, dir: dir.to_path_buf(), settings, notice, writer })
    }

    fn read(&self) -> RwLockReadGuard<'_, Mode> {
        // A panic of the caller's `is_live` leaves nothing half changed.
        self.mode.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace_mode(&self, mode: Mode) -> Mode {
        std::mem::replace(&mut *self.mode.write().unwrap_or_else(PoisonError::into_inner), mode)
    }

    /// After damage was found the database is not opened again, whatever this process does next.
    fn watch<T>(&self, outcome: Result<T>) -> Result<T> {
        if let Err(Error::Damaged { .. }) = &outcome {
            let unmarked = match &*self.read() {
                Mode::Owner { folder, .. } => folder.unmark(),
                // With an owner at work, this is its business.
                Mode::Reader { .. } => Folder::own(&self.dir)
                    .and_then(|folder| folder.map_or(Ok(()), |folder| folder.unmark())),
            };
            if let Err(error) = unmarked {
                tracing::debug!(%error, "damaged index stays marked as usable");
            }
        }
        outcome
    }

    /// Turns a reader that has added nothing yet into the owner, if nobody else is and the database has not moved since
    /// it was read. Otherwise it stays what it is.
    fn take_over(&self) -> Result<()> {
        let known = match &*self.read() {
            Mode::Reader { base: Some(base), additions } if additions.state()?.is_none() => {
                base.state()?
            }
            _ => return Ok(()),
        };
        let folder = match Folder::own(&self.dir) {
            Ok(Some(folder)) if folder.format() == Format::Known => folder,
            Ok(_) => return Ok(()),
            Err(error) => {
                tracing::debug!(%error, "index stays read-only");
                return Ok(());
            }
        };
        match Database::open(&folder.database(), self.settings) {
            Ok(database) if database.state()? == known => {
                drop(self.replace_mode(Mode::Owner { database: Some(database), folder }));
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "index stays read-only"),
        }
        Ok(())
    }

    /// Puts an empty database in place of whatever there is; in a private folder if another process is the owner, so
    /// that memory stays bounded.
    fn start_anew(&self) -> Result<()> {
        let folder = match self.replace_mode(Mode::reader(None)) {
            Mode::Owner { folder, .. } => folder,
            Mode::Reader { .. } => match Folder::own(&self.dir)? {
                Some(folder) => folder,
                None => Folder::private(&self.dir)?,
            },
        };
        let created = create_owned(&folder, self.settings);
        let (database, outcome) = match created {
            Ok(database) => (Some(database), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.replace_mode(Mode::Owner { database, folder });
        outcome
    }

    fn fill(
        &self,
        entries: &mut dyn Iterator<Item = Result<Entry>>,
        state: IndexState,
    ) -> Result<()> {
        let scratch = match &*self.read() {
            Mode::Owner { folder, .. } => folder.fresh_sort_folder()?,
            Mode::Reader { .. } => return Err(unusable()),
        };
        let Settings { sort_entries, sort_runs, .. } = self.settings;
        let mut sorter = Sorter::new(&scratch, sort_entries, sort_runs);
        for entry in entries {
            sorter.push(entry?)?;
        }
        match &*self.read() {
            Mode::Owner { database: Some(database), folder } => {
                database.fill(sorter.finish()?, state, &scratch)?;
                folder.fresh_sort_folder().map(drop)
            }
            _ => Err(unusable()),
        }
    }
}

/// A database that is missing since its replacement failed.
fn unusable() -> Error {
    Error::damaged("index", "it could not be made anew")
}

/// Opens the folder's database for reading, or says why that is not possible; None if there is no database yet.
fn read(dir: &Path, settings: Settings) -> Result<Database, Option<String>> {
    match folder::format_of(dir) {
        Format::Known => Database::open_for_reading(&folder::database_in(dir), settings)
            .map_err(|error| Some(format!("it cannot be opened ({})", error.into_string()))),
        Format::Other(reason) => Err(Some(reason)),
        Format::New => Err(None),
    }
}

/// Makes the database anew, unless another owner has just done so; with the reason, if there was one before.
fn open_owned(dir: &Path, folder: Folder, settings: Settings) -> Result<(Mode, Option<String>)> {
    match read(dir, settings) {
        Ok(base) => Ok((Mode::reader(Some(base)), None)),
        Err(reason) => {
            let database = Some(create_owned(&folder, settings)?);
            let notice =
                reason.map(|reason| format!("the index was dropped and is made anew: {reason}"));
            Ok((Mode::Owner { database, folder }, notice))
        }
    }
}

fn create_owned(folder: &Folder, settings: Settings) -> Result<Database> {
    folder.clear()?;
    let path = folder.database();
    let database =
        Database::open(&path, settings).map_err(|error| failed("creating", &path, error))?;
    folder.mark()?;
    Ok(database)
}

impl Index for RocksIndex {
    fn notice(&self) -> Option<String> {
        self.notice.clone()
    }

    fn state(&self) -> Result<Option<IndexState>> {
        let outcome = match &*self.read() {
            Mode::Owner { database, .. } => database.as_ref().map_or(Ok(None), Database::state),
            Mode::Reader { base, additions } => match (additions.state(), base) {
                (Ok(None), Some(base)) => base.state(),
                (own, _) => own,
            },
        };
        self.watch(outcome)
    }

    fn lookup(&self, ids: &[ChunkId], is_live: IsLive<'_>) -> Result<Vec<Option<Location>>> {
        let outcome = match &*self.read() {
            Mode::Owner { database, .. } => {
                database.as_ref().ok_or_else(unusable).and_then(|db| db.lookup(ids, is_live))
            }
            Mode::Reader { base: None, additions } => additions.lookup(ids, is_live),
            Mode::Reader { base: Some(base), additions } => {
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
        let taken_over = self.take_over();
        self.watch(taken_over)?;
        let outcome = match &*self.read() {
            Mode::Owner { database: None, .. } => Err(unusable()),
            Mode::Owner { database: Some(database), folder } => {
                let bulk = additions.len() >= self.settings.bulk_entries;
                let scratch = bulk.then(|| folder.fresh_sort_folder()).transpose();
                scratch.and_then(|scratch| database.apply(additions, state, scratch.as_deref()))
            }
            Mode::Reader { additions: own, .. } => own.apply(additions, state),
        };
        self.watch(outcome)
    }

    fn rebuild(
        &self,
        entries: &mut dyn Iterator<Item = Result<Entry>>,
        state: IndexState,
    ) -> Result<()> {
        let _writer = self.writer();
        self.start_anew()?;
        self.fill(entries, state)
    }

    fn len_estimate(&self) -> Result<u64> {
        let outcome = match &*self.read() {
            Mode::Owner { database, .. } => database.as_ref().map_or(Ok(0), Database::len_estimate),
            Mode::Reader { base, additions } => {
                let known = base.as_ref().map_or(Ok(0), Database::len_estimate);
                known.and_then(|known| Ok(known + additions.len_estimate()?))
            }
        };
        self.watch(outcome)
    }
}
