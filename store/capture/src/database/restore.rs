//! The other half: a dump becomes a new database. Nothing that holds tables is ever written to.

use super::{DatabaseOptions, Url, mysql, postgres, sqlite, unknown};
use crate::error::Result;
use std::io::Write;

/// What came of restoring a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The new database, for people.
    pub title: String,
    /// What is not as it was; one line each.
    pub notes: Vec<String>,
}

/// Gives the content of a dump to a writer, from its beginning to its end.
pub type Content<'a> = &'a mut dyn FnMut(&mut dyn Write) -> stillpoint_store::Result<()>;

/// Restores a dump into the new database that a URL names. The database is made if it is not there; one that is there must
/// be empty.
///
/// # Errors
/// `Refused` when there are tables in it, and for what is no dump of that kind of database; `Failed` with what the
/// database says, and what `content` gives. Nothing of it is left then.
pub fn restore_into(
    url: &str,
    options: &DatabaseOptions,
    content: Content<'_>,
) -> Result<Restored> {
    let url = Url::parse(url)?;
    match url.scheme() {
        "postgresql" | "postgres" => postgres::restore(&url, options, content),
        "mysql" | "mariadb" => mysql::restore(&url, options, content),
        "sqlite" => sqlite::restore(&url, content),
        other => Err(unknown(other)),
    }
}
