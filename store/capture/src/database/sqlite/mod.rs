//! SQLite in WAL mode: an open read transaction pins the instant, and the same connection copies it afterwards.
//!
//! The locks that keep a checkpoint from writing over what is pinned belong to this process, and go when the process
//! closes any descriptor of the same file (POSIX). So the files of a pinned database must not be opened otherwise, see
//! [`DatabaseSource::files`]; whether the locks stood is checked at the end.

mod locks;
mod restore;

pub(super) use restore::restore;

use super::{DatabaseOptions, DatabaseSource, PinReport, Url, file_name, refused};
use crate::error::{Error, Result};
use locks::Watched;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, TransactionState};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use stillpoint_archive::StreamSource;

/// How many pages are copied at once.
const PAGES_AT_ONCE: i32 = 4096;
/// How long a busy database is waited for, in one step.
const BUSY: Duration = Duration::from_millis(250);
/// What SQLite puts beside a database in WAL mode.
const BESIDE: [&str; 2] = ["-wal", "-shm"];
/// What the name of a dump ends in.
const ENDING: &str = ".sqlite";

/// A SQLite database in WAL mode.
pub struct SqliteSource {
    path: PathBuf,
    options: DatabaseOptions,
    name: String,
    opened: Option<Opened>,
    pinned: Option<Instant>,
    report: Arc<Mutex<PinReport>>,
}

/// A connection, and which file it is to.
struct Opened {
    connection: Connection,
    identity: (u64, u64),
}

impl SqliteSource {
    /// The database in the file that a URL names: `sqlite:/path`. Opens nothing.
    ///
    /// # Errors
    /// `Refused` for a path that is not absolute.
    pub fn new(url: &Url, options: DatabaseOptions) -> Result<Self> {
        let path = path(url)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = file_name(options.name.as_ref(), &stem)?;
        Ok(Self { path, options, name, opened: None, pinned: None, report: Arc::default() })
    }

    fn open(&self) -> Result<Opened> {
        let shown = self.path.display();
        let identity = identity(&self.path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags);
        let connection = connection.map_err(|error| self.explain(&error))?;
        connection.busy_timeout(BUSY).map_err(|error| self.explain(&error))?;
        let mode: String = connection
            .query_row("PRAGMA journal_mode", [], |row| row.get(0))
            .map_err(|error| self.explain(&error))?;
        if mode != "wal" {
            return Err(refused(
                format!(
                    "{shown} is not in WAL mode but in mode {mode}: while it is read, nobody could write"
                ),
                format!(
                    "sqlite3 {shown} 'PRAGMA journal_mode=WAL' (once, it stays); or leave it to the capture of files if it is small"
                ),
            ));
        }
        Ok(Opened { connection, identity })
    }

    fn explain(&self, error: &rusqlite::Error) -> Error {
        use rusqlite::ErrorCode::{CannotOpen, DatabaseBusy, NotADatabase, PermissionDenied};
        let hint = match error.sqlite_error_code() {
            Some(NotADatabase) => "is it a database of SQLite, and not encrypted?",
            Some(CannotOpen | PermissionDenied) => {
                "this program needs to read the file and to write into its directory (SQLite's -shm file): run it as the user who owns the database"
            }
            Some(DatabaseBusy) => {
                "somebody uses the database alone (PRAGMA locking_mode=EXCLUSIVE, or a long write): let others in"
            }
            _ => "`PRAGMA integrity_check` in sqlite3 tells more",
        };
        refused(format!("{}: SQLite says: {error}", self.path.display()), hint)
    }

    /// Begins to read, which pins what is there.
    fn begin(&self, opened: &Opened) -> rusqlite::Result<()> {
        // The transaction begins with the first read.
        opened.connection.execute_batch("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1")?;
        match opened.connection.transaction_state::<&std::ffi::CStr>(None)? {
            TransactionState::Read => Ok(()),
            _ => Err(rusqlite::Error::InvalidQuery),
        }
    }
}

/// The path of a `sqlite:` URL.
///
/// # Errors
/// `Refused` if it is not absolute.
pub(super) fn path(url: &Url) -> Result<PathBuf> {
    let path = PathBuf::from(url.path()?);
    if path.is_absolute() && path.file_name().is_some() {
        return Ok(path);
    }
    Err(refused("a SQLite database is named by its whole path", "write sqlite:/var/lib/app/app.db"))
}

fn identity(path: &Path) -> Result<(u64, u64)> {
    let found = std::fs::metadata(path).map_err(|error| {
        refused(format!("{}: {error}", path.display()), "check the path of the database")
    })?;
    if !found.is_file() {
        return Err(refused(
            format!("{} is no file", path.display()),
            "check the path of the database",
        ));
    }
    Ok((found.dev(), found.ino()))
}

/// The files that belong to a database.
fn files(path: &Path) -> Vec<PathBuf> {
    let beside = |ending: &&str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    std::iter::once(path.to_owned()).chain(BESIDE.iter().map(beside)).collect()
}

impl DatabaseSource for SqliteSource {
    fn title(&self) -> String {
        format!("SQLite {}, {}", rusqlite::version(), self.path.display())
    }

    fn rehearse(&mut self) -> Result<()> {
        self.pinned = None;
        let opened = self.open()?;
        self.begin(&opened).map_err(|error| self.explain(&error))?;
        opened.connection.execute_batch("COMMIT").map_err(|error| self.explain(&error))?;
        tempfile::tempfile_in(&self.options.scratch).map_err(|error| {
            let what = format!("no file can be made in {}: {error}", self.options.scratch.display());
            refused(what, "the copy of a SQLite database lies there until it is stored: choose another directory")
        })?;
        self.opened = Some(opened);
        Ok(())
    }

    fn pin(&mut self) -> Result<()> {
        let started = Instant::now();
        if self.pinned.take().is_some() {
            self.opened = None;
        }
        let is_same =
            |opened: &Opened| identity(&self.path).is_ok_and(|now| now == opened.identity);
        if !self.opened.as_ref().is_some_and(is_same) {
            // Another file stands there by now.
            self.opened = None;
            self.opened = Some(self.open()?);
        }
        let opened = self.opened.as_ref().ok_or_else(nothing_pinned)?;
        if let Err(error) = self.begin(opened) {
            let error = self.explain(&error);
            self.opened = None;
            return Err(error);
        }
        self.pinned = Some(started);
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        *report = PinReport { pin: Some(started.elapsed()), held: None };
        Ok(())
    }

    fn dump(&mut self) -> Result<Vec<Box<dyn StreamSource>>> {
        let since = self.pinned.take().ok_or_else(nothing_pinned)?;
        let opened = self.opened.take().ok_or_else(nothing_pinned)?;
        Ok(vec![Box::new(Copied {
            name: format!("{}{ENDING}", self.name),
            path: self.path.clone(),
            scratch: self.options.scratch.clone(),
            held: Some(Held { opened, since, report: Arc::clone(&self.report) }),
            copy: None,
        })])
    }

    fn report(&self) -> PinReport {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> Vec<PathBuf> {
        files(&self.path)
    }
}

fn nothing_pinned() -> Error {
    Error::Failed("nothing is pinned in the database, so there is nothing to dump".into())
}

/// A pinned instant, until it is copied or dropped.
struct Held {
    opened: Opened,
    since: Instant,
    report: Arc<Mutex<PinReport>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // The end of the transaction; an error would mean that it has ended already.
        let _ = self.opened.connection.execute_batch("ROLLBACK");
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.held = Some(self.since.elapsed());
    }
}

/// The pinned database as a stream: copied when it is first read, for the copy needs room.
struct Copied {
    name: String,
    path: PathBuf,
    scratch: PathBuf,
    held: Option<Held>,
    copy: Option<(File, tempfile::TempDir)>,
}

impl Copied {
    fn copy(&mut self) -> std::io::Result<()> {
        let Some(held) = self.held.take() else { return Ok(()) };
        let scratch =
            tempfile::Builder::new().prefix("stillpoint-dump-").tempdir_in(&self.scratch)?;
        let target = scratch.path().join("copy");
        let watched = Watched::new(&files(&self.path));
        let copy = || -> rusqlite::Result<bool> {
            let mut into = Connection::open(&target)?;
            // It is read once and thrown away.
            into.execute_batch("PRAGMA synchronous = OFF")?;
            let backup = Backup::new(&held.opened.connection, &mut into)?;
            let deadline = Instant::now() + super::LOCK_TIMEOUT;
            loop {
                match backup.step(PAGES_AT_ONCE)? {
                    StepResult::Done => break,
                    StepResult::More => {}
                    _ if Instant::now() > deadline => return Ok(false),
                    _ => std::thread::yield_now(),
                }
            }
            Ok(true)
        };
        if !copy().map_err(std::io::Error::other)? {
            return Err(std::io::Error::other("the database is busy all the time"));
        }
        if !watched.are_held() {
            return Err(std::io::Error::other(
                "a file of the database was opened by this process meanwhile, which took its locks: what was copied may be mixed",
            ));
        }
        drop(held);
        self.copy = Some((File::open(&target)?, scratch));
        Ok(())
    }
}

impl Read for Copied {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.copy()?;
        self.copy.as_mut().map_or(Ok(0), |(file, _)| file.read(buffer))
    }
}

impl StreamSource for Copied {
    fn name(&self) -> &str {
        &self.name
    }

    fn finish(self: Box<Self>) -> stillpoint_store::Result<()> {
        if self.copy.is_some() {
            return Ok(());
        }
        let error = std::io::Error::other("it was not copied to its end");
        Err(stillpoint_store::Error::io("dumping", &self.name, error))
    }
}
