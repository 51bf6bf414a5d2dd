//! The dump of a pinned instant as one stream: a script that the vendors' client runs.
//!
//! ```text
//! origin, tables and their rows, placeholders of views, triggers, routines, events, views
//! ```

use super::catalogue::{Catalogue, failed, identifier, rows, text};
use super::values::{Forms, literal};
use crate::database::piped::{Out, put};
use crate::error::{Error, Result};
use mysql::Conn;
use mysql::prelude::Queryable;
use serde::{Deserialize, Serialize};

/// What the first line of a script begins with; behind it stands [`Origin`].
const ORIGIN: &str = "-- stillpoint mysql ";
/// How long a statement gets before the next one is begun, bytes.
const STATEMENT_BYTES: usize = 256 << 10;
/// In which moments are written.
const TIME_ZONE: &str = "+00:00";
const HEAD: &str = "\
/*!40101 SET NAMES utf8mb4 */;
SET @stillpoint_time_zone = @@TIME_ZONE, TIME_ZONE = '+00:00';
SET UNIQUE_CHECKS = 0, FOREIGN_KEY_CHECKS = 0, SQL_MODE = 'NO_AUTO_VALUE_ON_ZERO';
SET AUTOCOMMIT = 0;
";
const TAIL: &str = "
SET TIME_ZONE = @stillpoint_time_zone, UNIQUE_CHECKS = 1, FOREIGN_KEY_CHECKS = 1, SQL_MODE = DEFAULT;
COMMIT;
SET AUTOCOMMIT = 1;
";

/// What a restore must know of the database that was dumped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) server: String,
    pub(super) database: String,
    pub(super) charset: String,
    pub(super) collation: String,
}

impl Origin {
    /// Asks the server.
    pub(super) fn ask(session: &mut Conn) -> Result<Self> {
        let query = "SELECT @@version, DATABASE(), @@character_set_database, @@collation_database";
        let found = rows(session, query)?;
        let row =
            found.first().ok_or_else(|| Error::Failed("the server does not answer".into()))?;
        let [server, database, charset, collation] = [0, 1, 2, 3].map(|column| text(row, column));
        Ok(Self { server, database, charset, collation })
    }

    /// What the first line of a script says.
    pub(super) fn of(line: &str) -> Option<Self> {
        serde_json::from_str(line.strip_prefix(ORIGIN)?).ok()
    }

    /// The vendor's name and the version, for people.
    pub(super) fn product(&self) -> String {
        let version = self.server.split('-').next().unwrap_or_default();
        let vendor = if self.server.contains("MariaDB") { "MariaDB" } else { "MySQL" };
        format!("{vendor} {version}")
    }

    fn line(&self) -> Result<String> {
        let text = serde_json::to_string(self).map_err(|error| Error::Failed(error.to_string()))?;
        Ok(format!("{ORIGIN}{text}\n"))
    }
}

/// Writes the whole script, by the session that holds the instant.
pub(super) fn write(
    session: &mut Conn,
    origin: &Origin,
    of: &Catalogue,
    out: &mut Out,
) -> Result<()> {
    put(out, origin.line()?.as_bytes())?;
    put(out, HEAD.as_bytes())?;
    for table in &of.tables {
        write_table(session, table, out)?;
    }
    for view in &of.views {
        write_placeholder(session, view, out)?;
    }
    put(out, b"DELIMITER ;;\n")?;
    write_objects(
        session,
        "TRIGGER",
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE() ORDER BY EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER",
        out,
    )?;
    for kind in ["FUNCTION", "PROCEDURE"] {
        let names = format!(
            "SELECT ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE() AND ROUTINE_TYPE = '{kind}' ORDER BY 1"
        );
        write_objects(session, kind, &names, out)?;
    }
    write_objects(
        session,
        "EVENT",
        "SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE() ORDER BY 1",
        out,
    )?;
    put(out, b"SET SQL_MODE = 'NO_AUTO_VALUE_ON_ZERO' ;;\nDELIMITER ;\n")?;
    for view in &of.views {
        let create =
            shown(session, &format!("SHOW CREATE VIEW {}", identifier(view)), "Create View")?;
        let create = create.strip_prefix("CREATE ").unwrap_or(&create);
        put(out, format!("CREATE OR REPLACE {create};\n").as_bytes())?;
    }
    session.query_drop("COMMIT").map_err(|error| failed("ending the dump", &error))?;
    put(out, TAIL.as_bytes())
}

/// A column of the only row of a SHOW statement.
fn shown(session: &mut Conn, query: &str, column: &str) -> Result<String> {
    let found = rows(session, query)?;
    let value: Option<String> = found.first().and_then(|row| row.get_opt(column)?.ok());
    value.ok_or_else(|| {
        // It shows nothing to those who may not see.
        Error::Failed(format!("{query} shows nothing: the user lacks the right to see it"))
    })
}

fn write_table(session: &mut Conn, table: &str, out: &mut Out) -> Result<()> {
    let name = identifier(table);
    let create = shown(session, &format!("SHOW CREATE TABLE {name}"), "Create Table")?;
    put(out, format!("\n{create};\n").as_bytes())?;
    let query = format!(
        "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {} \
         AND EXTRA NOT LIKE '%VIRTUAL%' AND EXTRA NOT LIKE '%STORED%' AND EXTRA NOT LIKE '%PERSISTENT%' ORDER BY ORDINAL_POSITION",
        quoted(table)
    );
    let columns = rows(session, &query)?;
    let names: Vec<_> = columns.iter().map(|row| identifier(&text(row, 0))).collect();
    let select: Vec<_> = columns
        .iter()
        .zip(&names)
        .map(|(row, name)| {
            // The server writes six digits of a FLOAT, and all that matter of a DOUBLE.
            if text(row, 1) == "float" { format!("({name} + 0e0)") } else { name.clone() }
        })
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    let insert = format!("INSERT INTO {name} ({}) VALUES\n", names.join(","));
    let query = format!("SELECT {} FROM {name}", select.join(","));
    let doing = format!("dumping {table}");
    let failed = |error: mysql::Error| failed(&doing, &error);
    let mut result = session.query_iter(query).map_err(failed)?;
    let forms = Forms::of(result.columns().as_ref());
    let mut statement = Vec::new();
    while let Some(set) = result.iter() {
        for row in set {
            let row = row.map_err(failed)?;
            if statement.is_empty() {
                statement.extend_from_slice(insert.as_bytes());
            } else {
                statement.extend_from_slice(b",\n");
            }
            forms.write(&row, &mut statement);
            if statement.len() >= STATEMENT_BYTES {
                statement.extend_from_slice(b";\n");
                put(out, &statement)?;
                statement.clear();
            }
        }
    }
    if !statement.is_empty() {
        statement.extend_from_slice(b";\n");
        put(out, &statement)?;
    }
    put(out, b"COMMIT;\n")
}

fn quoted(text: &str) -> String {
    String::from_utf8_lossy(&literal(text.as_bytes())).into_owned()
}

/// A view of the right columns, for what names it before it can be made.
fn write_placeholder(session: &mut Conn, view: &str, out: &mut Out) -> Result<()> {
    let query = format!(
        "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {} ORDER BY ORDINAL_POSITION",
        quoted(view)
    );
    let columns = rows(session, &query)?;
    let columns: Vec<_> =
        columns.iter().map(|row| format!("1 AS {}", identifier(&text(row, 0)))).collect();
    let text = format!("CREATE VIEW {} AS SELECT {};\n", identifier(view), columns.join(", "));
    put(out, text.as_bytes())
}

/// Triggers, routines or events, each with the mode that it was made in.
fn write_objects(session: &mut Conn, kind: &str, names: &str, out: &mut Out) -> Result<()> {
    let column = match kind {
        "TRIGGER" => "SQL Original Statement",
        "FUNCTION" => "Create Function",
        "PROCEDURE" => "Create Procedure",
        _ => "Create Event",
    };
    for row in rows(session, names)? {
        let query = format!("SHOW CREATE {kind} {}", identifier(&text(&row, 0)));
        let mode = shown(session, &query, "sql_mode")?;
        let create = shown(session, &query, column)?;
        let mode = quoted(&mode);
        // The moments of an event are those of its time zone.
        let zone = match kind {
            "EVENT" => quoted(&shown(session, &query, "time_zone")?),
            _ => quoted(TIME_ZONE),
        };
        let text = format!("SET SQL_MODE = {mode}, TIME_ZONE = {zone} ;;\n{create} ;;\n");
        put(out, text.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The first line says where a script comes from.
    #[test]
    fn origins() {
        let origin = Origin {
            server: "10.11.6-MariaDB-0+deb12u1".into(),
            database: "sh`op\n".into(),
            charset: "utf8mb4".into(),
            collation: "utf8mb4_bin".into(),
        };
        assert_eq!(Origin::of(origin.line().unwrap().trim_end()), Some(origin.clone()));
        assert_eq!(origin.product(), "MariaDB 10.11.6");
        assert_eq!(Origin { server: "8.0.36".into(), ..origin }.product(), "MySQL 8.0.36");
        assert_eq!(Origin::of("SELECT 1;"), None);
    }
}
