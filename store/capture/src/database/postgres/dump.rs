//! The dump of a pinned instant as one stream: a script that `psql` runs.
//!
//! ```text
//! origin, schema before the data, rows of each table, schema after the data, sequences
//! ```
//!
//! Sequences come last and as they stood at the pin: they are no part of any snapshot.

use super::catalogue::{Catalogue, SequenceValue, Table, failed};
use super::server::Server;
use crate::database::piped::{self, Held, Out, put};
use crate::error::{Error, Result};
use postgres::Client;
use serde::{Deserialize, Serialize};
use std::io::BufRead;
use stillpoint_archive::StreamSource;

/// What the first line of a script begins with; behind it stands [`Origin`].
const ORIGIN: &str = "-- stillpoint postgresql ";
/// What a restore must know of the database that was dumped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) server: String,
    pub(crate) database: String,
    pub(crate) encoding: String,
    pub(crate) collate: String,
    pub(crate) ctype: String,
    /// That own something, or have rights.
    pub(crate) roles: Vec<String>,
}

impl Origin {
    /// What the first line of a script says.
    pub(crate) fn of(line: &str) -> Option<Self> {
        serde_json::from_str(line.strip_prefix(ORIGIN)?).ok()
    }
}

/// The schema, in the two parts between which the rows belong.
#[derive(Debug, Clone)]
pub(super) struct Schema {
    pub(super) before: Vec<u8>,
    pub(super) after: Vec<u8>,
    /// Of the catalogue that it was dumped from.
    pub(super) fingerprint: String,
}

/// All of a dump but the rows.
pub(super) struct Script {
    origin: String,
    schema: Schema,
    tables: Vec<Table>,
    sequences: String,
}

impl Script {
    pub(super) fn new(
        server: &Server,
        catalogue: &Catalogue,
        schema: Schema,
        sequences: &[SequenceValue],
    ) -> Result<Self> {
        let origin = Origin {
            server: server.version.clone(),
            database: server.database.clone(),
            encoding: server.encoding.clone(),
            collate: server.collate.clone(),
            ctype: server.ctype.clone(),
            roles: catalogue.roles.clone(),
        };
        let origin =
            serde_json::to_string(&origin).map_err(|error| Error::Failed(error.to_string()))?;
        Ok(Self {
            origin: format!("{ORIGIN}{origin}\n"),
            schema,
            tables: catalogue.tables.clone(),
            sequences: set(sequences),
        })
    }

    /// Writes the script, reading rows by the session that holds the instant.
    fn write(&self, client: &mut Client, out: &mut Out) -> Result<()> {
        put(out, self.origin.as_bytes())?;
        put(out, &self.schema.before)?;
        for table in &self.tables {
            rows(client, table, out)?;
        }
        put(out, &self.schema.after)?;
        put(out, self.sequences.as_bytes())?;
        // The session is the one that held the instant all the time: it never connects again by itself.
        client.batch_execute("COMMIT").map_err(|error| failed("ending the dump", &error))
    }
}

/// Statements that set sequences as they stood.
fn set(sequences: &[SequenceValue]) -> String {
    let mut text = String::from("\n-- Sequences as they stood at the pinned instant.\n\n");
    for SequenceValue { name, last, is_called } in sequences {
        let name = name.replace('\'', "''");
        text.push_str(&format!("SELECT pg_catalog.setval('{name}', {last}, {is_called});\n"));
    }
    text
}

/// Writes the rows of one table, in the text format of COPY.
fn rows(client: &mut Client, table: &Table, out: &mut Out) -> Result<()> {
    let Some(query) = table.copy_out() else { return Ok(()) };
    let failed = |told: String| Error::Failed(format!("dumping {}: {told}", table.name));
    put(out, table.copy_in().as_bytes())?;
    let mut reader =
        client.copy_out(&query).map_err(|error| failed(super::connect::message(&error)))?;
    loop {
        let bytes = reader.fill_buf().map_err(|error| failed(error.to_string()))?;
        let count = bytes.len();
        if count == 0 {
            break;
        }
        put(out, bytes)?;
        reader.consume(count);
    }
    put(out, b"\\.\n\n")
}

/// Starts the dump as a stream.
pub(super) fn start(
    name: &str,
    script: Script,
    mut held: Held<Client>,
) -> Result<Box<dyn StreamSource>> {
    piped::start(format!("{name}.sql"), move |out| script.write(held.session()?, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Names with quotes stay names, and the first line says where a script comes from.
    #[test]
    fn scripts() {
        let value =
            |name: &str| SequenceValue { name: name.into(), last: "7".into(), is_called: true };
        let text = set(&[value("public.a"), value("public.\"it's\"")]);
        assert_eq!(
            text.lines().last(),
            Some("SELECT pg_catalog.setval('public.\"it''s\"', 7, true);")
        );
        let server = Server {
            major: 15,
            version: "15.4".into(),
            database: "sh\"op\n".into(),
            encoding: "UTF8".into(),
            collate: "C".into(),
            ctype: "C".into(),
        };
        let schema = Schema { before: Vec::new(), after: Vec::new(), fingerprint: String::new() };
        let script = Script::new(&server, &Catalogue::default(), schema, &[]).unwrap();
        assert_eq!(Origin::of(script.origin.trim_end()).unwrap().database, "sh\"op\n");
        assert_eq!(Origin::of("SELECT 1;"), None);
    }
}
