//! What a database consists of, whether all of it can be dumped, and the statements that pin it.

use super::settings::{Settings, told};
use crate::database::refused;
use crate::error::{Error, Result};
use mysql::prelude::Queryable;
use mysql::{Conn, Row, Value};

/// Engines whose tables have snapshots.
const ENGINES: [&str; 2] = ["InnoDB", "ROCKSDB"];
/// What a user must be allowed to in the database.
const RIGHTS: [&str; 4] = ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"];
/// How many names a message shows.
const SHOWN_MAX: usize = 5;
/// How long the server waits for somebody who does not read at once, s: a backup may have to wait for its storage.
const PATIENCE: u32 = 86_400;

/// Names of tables and views, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Catalogue {
    pub(super) tables: Vec<String>,
    pub(super) views: Vec<String>,
}

/// What came of pinning.
pub(super) enum Pin {
    Done,
    /// Tables came or went; nothing is pinned.
    Changed,
}

/// The error of a statement.
pub(super) fn failed(doing: &str, error: &mysql::Error) -> Error {
    let more = match error {
        mysql::Error::MySqlError(told) if told.code == 1205 => {
            "; somebody holds a lock on a table (a migration, or LOCK TABLES): try again later"
        }
        mysql::Error::MySqlError(told) if told.code == 1412 => {
            "; a table was emptied or changed in the very moment of the pin: run again"
        }
        _ => "",
    };
    Error::Failed(format!("{doing}: the server says: {}{more}", told(error)))
}

/// A column of a row as text; empty for NULL.
pub(super) fn text(row: &Row, column: usize) -> String {
    match row.as_ref(column) {
        Some(Value::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        Some(Value::NULL) | None => String::new(),
        Some(other) => other.as_sql(true).trim_matches('\'').to_owned(),
    }
}

/// The rows of a query, which are few.
pub(super) fn rows(session: &mut Conn, query: &str) -> Result<Vec<Row>> {
    session.query(query).map_err(|error| failed("asking the server", &error))
}

/// A name for a statement.
pub(super) fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Makes a session one that writes values as a script wants them and that nothing times out.
pub(super) fn prepare(session: &mut Conn, lock_timeout: std::time::Duration) -> Result<()> {
    let wait = lock_timeout.as_secs().max(1);
    let settings = format!(
        "SET SESSION sql_mode = '', time_zone = '+00:00', sql_quote_show_create = 1, \
         lock_wait_timeout = {wait}, net_write_timeout = {PATIENCE}, net_read_timeout = {PATIENCE}, wait_timeout = {PATIENCE}"
    );
    for statement in
        ["SET NAMES utf8mb4", &settings, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"]
    {
        session.query_drop(statement).map_err(|error| failed("setting the session up", &error))?;
    }
    // Known to MariaDB alone.
    let _ = session.query_drop("SET SESSION max_statement_time = 0");
    Ok(())
}

impl Catalogue {
    /// Reads the names, and makes sure that everything can be dumped.
    ///
    /// # Errors
    /// `Refused` for what has no snapshots and what may not be read.
    pub(super) fn read(session: &mut Conn, settings: &Settings) -> Result<Self> {
        check_rights(session, settings)?;
        let query = "SELECT TABLE_NAME, TABLE_TYPE, ENGINE FROM information_schema.TABLES \
            WHERE TABLE_SCHEMA = DATABASE()";
        let (mut catalogue, mut refusals) = (Self::default(), Vec::new());
        for row in rows(session, query)? {
            let (name, kind, engine) = (text(&row, 0), text(&row, 1), text(&row, 2));
            match kind.as_str() {
                "VIEW" => catalogue.views.push(name),
                "BASE TABLE" if ENGINES.iter().any(|known| engine.eq_ignore_ascii_case(known)) => {
                    catalogue.tables.push(name);
                }
                "BASE TABLE" => refusals.push(format!("{name} (engine {engine})")),
                other => refusals.push(format!("{name} ({})", other.to_lowercase())),
            }
        }
        catalogue.tables.sort();
        catalogue.views.sort();
        if refusals.is_empty() {
            return Ok(catalogue);
        }
        let shown = refusals.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
        Err(refused(
            format!("of {} tables no instant can be pinned: {shown}", refusals.len()),
            "ALTER TABLE … ENGINE=InnoDB, or dump this database by a command",
        ))
    }

    /// Pins this instant, if the tables are those of this catalogue.
    ///
    /// First the snapshot, then a metadata lock on each table. What empties or changes a table between the two makes the
    /// dump fail (error 1412); later it waits. All of it is one message to the server.
    ///
    /// # Errors
    /// What the server answers; nothing is pinned then.
    pub(super) fn pin(&self, session: &mut Conn) -> Result<Pin> {
        let found = self.answers(session);
        match found {
            Ok(found) if found == *self => Ok(Pin::Done),
            Ok(_) => release(session).map(|()| Pin::Changed),
            Err(error) => {
                release(session)?;
                match error {
                    mysql::Error::MySqlError(told) if told.code == 1146 => Ok(Pin::Changed),
                    other => Err(failed("pinning an instant", &other)),
                }
            }
        }
    }

    fn answers(&self, session: &mut Conn) -> Result<Self, mysql::Error> {
        let mut result = session.query_iter(self.statements())?;
        let mut found = Self::default();
        while let Some(set) = result.iter() {
            for row in set {
                let row = row?;
                match text(&row, 1).as_str() {
                    "VIEW" => found.views.push(text(&row, 0)),
                    _ => found.tables.push(text(&row, 0)),
                }
            }
        }
        found.tables.sort();
        found.views.sort();
        Ok(found)
    }

    fn statements(&self) -> String {
        let mut query = String::from("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY");
        for table in &self.tables {
            query.push_str(&format!("; SELECT 1 FROM {} LIMIT 0", identifier(table)));
        }
        query.push_str("; SHOW FULL TABLES");
        query
    }
}

/// Ends the transaction, if there is one.
///
/// # Errors
/// When the connection is broken.
pub(super) fn release(session: &mut Conn) -> Result<()> {
    session.query_drop("ROLLBACK").map_err(|error| failed("giving a pin up", &error))
}

/// What a user may not read is not even listed, so rights on single tables are not enough.
fn check_rights(session: &mut Conn, settings: &Settings) -> Result<()> {
    let grants: Vec<_> = rows(session, "SHOW GRANTS")?.iter().map(|row| text(row, 0)).collect();
    let missing: Vec<_> = RIGHTS
        .into_iter()
        .filter(|right| !grants.iter().any(|grant| gives(grant, right, &settings.database)))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let (user, database) = (settings.user(), identifier(&settings.database));
    Err(refused(
        format!("the user {user} lacks rights in the whole database: {}", missing.join(", ")),
        format!("GRANT {} ON {database}.* TO {user}", RIGHTS.join(", ")),
    ))
}

/// Whether a line of SHOW GRANTS gives this right in the whole database.
fn gives(grant: &str, right: &str, database: &str) -> bool {
    let Some((rights, rest)) = grant.strip_prefix("GRANT ").and_then(|g| g.split_once(" ON "))
    else {
        return false;
    };
    let Some((place, _)) = rest.split_once(" TO ") else { return false };
    let is_here = place == "*.*"
        || place
            .strip_suffix(".*")
            .and_then(|name| name.strip_prefix('`')?.strip_suffix('`'))
            .is_some_and(|pattern| {
                is_like(database.as_bytes(), pattern.replace("``", "`").as_bytes())
            });
    is_here && rights.split(", ").any(|given| given == "ALL PRIVILEGES" || given == right)
}

/// LIKE, as names of databases in grants are compared.
fn is_like(name: &[u8], pattern: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'\\', literal, pattern @ ..], [first, name @ ..]) => {
            literal == first && is_like(name, pattern)
        }
        ([b'%', pattern @ ..], _) => {
            (0..=name.len()).any(|at| is_like(name.split_at(at).1, pattern))
        }
        ([b'_', pattern @ ..], [_, name @ ..]) => is_like(name, pattern),
        ([literal, pattern @ ..], [first, name @ ..]) => literal == first && is_like(name, pattern),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Rights count where they cover the whole database, by name or pattern.
    #[test]
    fn grants() {
        let check = |grant: &str, database: &str, expected| {
            assert_eq!(gives(grant, "SELECT", database), expected, "{grant} {database}");
        };
        check("GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION", "x", true);
        check("GRANT SELECT, TRIGGER ON `shop`.* TO `a`@`%`", "shop", true);
        check("GRANT SELECT ON `shop`.`t` TO `a`@`%`", "shop", false);
        check("GRANT SELECT ON `sh%`.* TO `a`@`%`", "shop", true);
        check("GRANT SELECT ON `my\\_shop`.* TO `a`@`%`", "my_shop", true);
        check("GRANT SELECT ON `my\\_shop`.* TO `a`@`%`", "myxshop", false);
        check("GRANT USAGE ON *.* TO `a`@`%`", "shop", false);
        check("GRANT `role` TO `a`@`%`", "shop", false);
    }

    // The snapshot comes first, in one message with all locks; names cannot leave their quotes.
    #[test]
    fn statements_of_a_pin() {
        let catalogue =
            Catalogue { tables: vec!["a".into(), "b`; DROP".into()], views: vec!["v".into()] };
        assert_eq!(
            catalogue.statements(),
            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY; SELECT 1 FROM `a` LIMIT 0; \
             SELECT 1 FROM `b``; DROP` LIMIT 0; SHOW FULL TABLES"
        );
    }
}
