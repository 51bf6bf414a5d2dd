//! A dump becomes a new file.

use super::path;
use crate::database::restore::{Content, Restored};
use crate::database::{Url, refused};
use crate::error::{Error, Result};
use rusqlite::{Connection, OpenFlags};
use std::io::Write;
use std::path::Path;

/// What every database begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Restores a dump into a file that does not exist yet.
///
/// # Errors
/// As [`crate::database::restore_into`].
pub(crate) fn restore(url: &Url, content: Content<'_>) -> Result<Restored> {
    let path = path(url)?;
    let shown = path.display();
    if path.symlink_metadata().is_ok() {
        return Err(refused(
            format!("{shown} exists already: nothing is restored over it"),
            "name a file that does not exist yet",
        ));
    }
    let io = |action: &'static str| {
        let shown = shown.to_string();
        move |error| Error::Store(stillpoint_store::Error::io(action, shown, error))
    };
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    let mut file = tempfile::Builder::new()
        .prefix(".stillpoint-")
        .tempfile_in(directory)
        .map_err(io("making a file beside"))?;
    content(&mut file)?;
    file.flush().and_then(|()| file.as_file().sync_all()).map_err(io("writing"))?;
    check(file.path())?;
    // A name that was free is taken by nobody else meanwhile, or this fails.
    file.persist_noclobber(&path).map_err(|error| io("naming")(error.error))?;
    Ok(Restored { title: format!("SQLite, {shown}"), notes: Vec::new() })
}

/// It is a database, and sound.
fn check(path: &Path) -> Result<()> {
    let mut head = [0; MAGIC.len()];
    let file = std::fs::File::open(path);
    let is_one = file.and_then(|mut file| std::io::Read::read_exact(&mut file, &mut head)).is_ok();
    if !is_one || head != MAGIC {
        return Err(refused(
            "this is no dump of a SQLite database",
            "`stillpoint ls SNAPSHOT` lists the files: the dump of a SQLite database ends in .sqlite",
        ));
    }
    // Immutable: nothing is put beside a file that is about to be renamed.
    let uri = format!("file:{}?immutable=1", crate::database::url::encode_path(path));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let verdict: Result<String, _> = Connection::open_with_flags(uri, flags)
        .and_then(|opened| opened.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)));
    match verdict {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(verdict) => Err(Error::Failed(format!("the restored database is damaged: {verdict}"))),
        Err(error) => Err(Error::Failed(format!("the restored database cannot be read: {error}"))),
    }
}
