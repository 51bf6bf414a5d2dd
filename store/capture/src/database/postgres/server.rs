//! What a server says of itself and of a database, and the session settings of a dump.

use super::catalogue::{failed, row};
use crate::database::refused;
use crate::error::{Error, Result};
use postgres::Client;
use std::time::Duration;

/// The oldest server that is supported, as `server_version_num` has it.
const OLDEST: u32 = 12_00_00;
const QUERY: &str = "\
SELECT pg_catalog.current_setting('server_version_num'), pg_catalog.current_setting('server_version'), d.datname, \
  pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate, d.datctype \
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";
/// What decides how values are written, as `pg_dump` sets it; and nothing may time out.
const SETTINGS: &str = "\
SET search_path = ''; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET extra_float_digits = 3; \
SET synchronize_seqscans = off; SET row_security = off; SET statement_timeout = 0; \
SET idle_in_transaction_session_timeout = 0";

/// The server and the database, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) major: u32,
    pub(super) version: String,
    pub(super) database: String,
    pub(super) encoding: String,
    pub(super) collate: String,
    pub(super) ctype: String,
}

impl Server {
    /// Asks the server, and makes the session one that nothing times out.
    ///
    /// # Errors
    /// `Refused` for a server that is too old.
    pub(super) fn ask(client: &mut Client, lock_timeout: Duration) -> Result<Self> {
        let found = row(client, QUERY)?;
        let Ok([number, version, database, encoding, collate, ctype]) =
            <[String; 6]>::try_from(found)
        else {
            return Err(Error::Failed("the server does not describe its database".into()));
        };
        let number: u32 = number.parse().unwrap_or(0);
        let version = version.split(' ').next().unwrap_or_default().to_owned();
        if number < OLDEST {
            let what =
                format!("PostgreSQL {version} is too old: 12 is the oldest that can be captured");
            return Err(refused(what, "dump it by a command, or upgrade the server"));
        }
        let wait = lock_timeout.as_millis().max(1);
        let mut settings = format!("{SETTINGS}; SET lock_timeout = {wait}");
        if number >= 14_00_00 {
            settings.push_str("; SET idle_session_timeout = 0");
        }
        if number >= 17_00_00 {
            settings.push_str("; SET transaction_timeout = 0");
        }
        client
            .batch_execute(&settings)
            .map_err(|error| failed("setting the session up", &error))?;
        Ok(Self { major: number / 10_000, version, database, encoding, collate, ctype })
    }
}
