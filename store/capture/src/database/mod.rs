//! Databases as sources: an instant is pinned under the lock, and dumped after it is given back.
//!
//! Owns what a database of any kind is to a capture, and the way from a URL to one. Knows nothing of locks of
//! applications or of repositories; passwords go to the database and to environments of child processes only.

mod command;
mod environment;
mod feed;
mod mysql;
mod piped;
mod postgres;
mod restore;
mod sqlite;
mod tool;
mod url;

pub use command::{CommandDatabase, When};
pub use environment::Environment;
pub use mysql::MysqlSource;
pub use postgres::PostgresSource;
pub use restore::{Content, Restored, restore_into};
pub use sqlite::SqliteSource;
pub use url::Url;

use crate::error::{Error, Result};
use std::path::PathBuf;
use std::time::Duration;
use stillpoint_archive::StreamSource;

/// How long a pin waits for somebody else's lock on a table, unless the options say so.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// A database that can be captured.
///
/// The calls come in this order: `rehearse`, `pin`, and `dump` after the application's lock was given back. Dropping
/// it gives up whatever is pinned.
pub trait DatabaseSource: Send {
    /// The database, for people: `PostgreSQL 15.4, database shop on /run/postgresql`. Never holds a password.
    fn title(&self) -> String;

    /// Tries everything that can fail, without stopping anybody: connects, looks at rights, versions and the dump
    /// program, pins an instant for trial. The connections stay open and warm.
    ///
    /// # Errors
    /// `Refused` with what to do.
    fn rehearse(&mut self) -> Result<()>;

    /// Pins this instant: what is dumped later is what the database holds now. Takes milliseconds; starts no process.
    /// May be called again: the pin before is given up.
    ///
    /// # Errors
    /// What the database answers; nothing is pinned then.
    fn pin(&mut self) -> Result<()>;

    /// The dump of what was pinned, as streams, each of which becomes one file of the snapshot. Their names begin with the name
    /// of this source. What is pinned is given up when the last of them is finished or dropped.
    ///
    /// # Errors
    /// When nothing is pinned, or a dump cannot be started.
    fn dump(&mut self) -> Result<Vec<Box<dyn StreamSource>>>;

    /// What pinning took and held back, as far as it is known by now.
    fn report(&self) -> PinReport;

    /// Files that the dump stands for. From `pin` until the dump is stored this process must not open them in any
    /// other way, so a capture leaves them out of the files that it saves.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// What pinning an instant took, and what it held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PinReport {
    /// How long the last `pin` took.
    pub pin: Option<Duration>,
    /// How long the database had to keep old row versions (vacuum, purge, checkpoints of the log) for it; None as long
    /// as it does.
    pub held: Option<Duration>,
}

/// What to know of a database beside its URL.
#[derive(Debug, Clone)]
pub struct DatabaseOptions {
    /// The name that its files in the snapshot begin with; None: the name of the database.
    pub name: Option<String>,
    /// How long `pin` waits for somebody else's lock on a table.
    pub lock_timeout: Duration,
    /// Where a dump that cannot be streamed is put until it is stored (SQLite); a private directory is made in it.
    pub scratch: PathBuf,
    /// Where the database's programs are; None: in `PATH`, then in the usual directories.
    pub programs: Option<PathBuf>,
    /// The environment that the database's own settings come from.
    pub environment: Environment,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self {
            name: None,
            lock_timeout: LOCK_TIMEOUT,
            scratch: std::env::temp_dir(),
            programs: None,
            environment: Environment::own(),
        }
    }
}

/// The database that a URL names: `postgresql://user@host/database`, `mysql://…` (or `mariadb://…`), `sqlite:/path`. Connects
/// to nothing.
///
/// # Errors
/// `Refused` for a URL of another kind, or one that cannot be read.
pub fn parse(url: &str, options: DatabaseOptions) -> Result<Box<dyn DatabaseSource>> {
    let url = Url::parse(url)?;
    match url.scheme() {
        "postgresql" | "postgres" => Ok(Box::new(PostgresSource::new(url, options)?)),
        "mysql" | "mariadb" => Ok(Box::new(MysqlSource::new(&url, options)?)),
        "sqlite" => Ok(Box::new(SqliteSource::new(&url, options)?)),
        other => Err(unknown(other)),
    }
}

fn unknown(scheme: &str) -> Error {
    refused(
        format!("{scheme}: is no kind of database that is known here"),
        "databases are named as postgresql://user@host/database, mysql://user@host/database or sqlite:/path",
    )
}

/// The error that stops a capture before anything is locked.
fn refused(what: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::Refused { what: what.into(), hint: Some(hint.into()) }
}

/// The name that a source's files begin with: chosen, or the database's. A `/` in it would make directories.
fn file_name(chosen: Option<&String>, database: &str) -> Result<String> {
    let name = chosen.cloned().unwrap_or_else(|| database.replace('/', "_"));
    if name.is_empty() || matches!(name.as_str(), "." | "..") || name.contains(['/', '\0']) {
        return Err(refused(
            format!("{name:?} cannot be the name of files"),
            "choose a name for this database's files, without slashes",
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    // What is no database is refused with the forms there are.
    #[test]
    fn kinds_of_urls() {
        let options = DatabaseOptions::default;
        assert!(parse("postgresql://localhost/shop", options()).is_ok());
        assert!(parse("postgres:///shop?host=/run/postgresql", options()).is_ok());
        for url in ["oracle://x", "shop", ""] {
            let error = parse(url, options()).err().unwrap();
            assert!(matches!(error, Error::Refused { hint: Some(_), .. }), "{url}: {error}");
        }
    }

    // A name becomes one file name or is refused.
    #[test]
    fn names_of_files() {
        assert_eq!(file_name(None, "a/b").unwrap(), "a_b");
        assert_eq!(file_name(Some(&"x".into()), "a").unwrap(), "x");
        for bad in ["", ".", "..", "a/b", "a\0"] {
            assert!(file_name(Some(&bad.into()), "a").is_err(), "{bad:?}");
        }
    }
}
