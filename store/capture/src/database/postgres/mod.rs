//! PostgreSQL: an instant is pinned under the lock by one session, which dumps the rows after the lock is given back.
//!
//! The schema is dumped by `pg_dump` in the rehearsal, and taken to be the same if a fingerprint of the catalogue is. Rows
//! are copied by the session that holds the locks, not by `pg_dump`: its requests for locks would queue behind a TRUNCATE
//! that waits for ours, and both would wait for ever (decision 10).

mod catalogue;
mod connect;
mod dump;
mod libpq;
mod restore;
mod server;

pub(super) use restore::restore;

use super::piped::Held;
use super::tool::{self, Program, Tool};
use super::{DatabaseOptions, DatabaseSource, PinReport, Url, file_name, refused};
use crate::error::{Error, Result};
use catalogue::{Catalogue, Pin, Snapshot};
use dump::{Schema, Script};
use libpq::Settings;
use postgres::Client;
use server::Server;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use stillpoint_archive::StreamSource;

/// How often pinning begins again because tables came or went.
const ATTEMPTS_MAX: u32 = 5;
/// How long a schema may be, bytes.
const SCHEMA_BYTES_MAX: u64 = 256 << 20;
const NO_PROGRAM: &str = "install the client programs of the server's version (Debian: postgresql-client), or say where they are";

/// A PostgreSQL database, version 12 or newer.
pub struct PostgresSource {
    url: Url,
    settings: Settings,
    options: DatabaseOptions,
    name: String,
    rehearsed: Option<Rehearsed>,
    client: Option<Client>,
    pinned: Option<(Snapshot, Instant)>,
    report: Arc<Mutex<PinReport>>,
}

/// What the rehearsal found.
struct Rehearsed {
    server: Server,
    program: Program,
    catalogue: Catalogue,
    schema: Schema,
}

impl PostgresSource {
    /// The database that a URL names, after libpq's rules. Connects to nothing.
    ///
    /// # Errors
    /// `Refused` when service or password files are unusable.
    pub fn new(url: Url, options: DatabaseOptions) -> Result<Self> {
        let settings = Settings::new(&url, &options.environment)?;
        let name = file_name(options.name.as_ref(), settings.database())?;
        Ok(Self {
            url,
            settings,
            options,
            name,
            rehearsed: None,
            client: None,
            pinned: None,
            report: Arc::default(),
        })
    }

    fn connect(&mut self) -> Result<Server> {
        let mut client = connect::connect(&self.settings)?;
        let server = Server::ask(&mut client, self.options.lock_timeout)?;
        self.client = Some(client);
        Ok(server)
    }

    fn user(&self) -> &str {
        self.settings.get("user").unwrap_or("this role")
    }

    /// One section of the schema, as it is in a snapshot.
    fn section(
        &self,
        program: &Program,
        server: &Server,
        snapshot: &str,
        section: &str,
    ) -> Result<Vec<u8>> {
        let mut command = Command::new(&program.path);
        self.options.environment.apply(&mut command);
        // By the environment: a command line can be read by everybody.
        if let Some(password) = self.url.password() {
            command.env("PGPASSWORD", password.reveal());
        }
        // What we copy is in this encoding, unless the server knows none.
        if server.encoding != "SQL_ASCII" {
            command.arg("--encoding=UTF8");
        }
        command
            .env("PGAPPNAME", "stillpoint pg_dump")
            .args(["--no-password", "--format=plain", "--snapshot", snapshot, "--section", section])
            .arg(format!("--lock-wait-timeout={}", self.options.lock_timeout.as_millis().max(1)))
            .arg(format!("--dbname={}", self.url))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        Tool::spawn("pg_dump", &mut command)?.output(SCHEMA_BYTES_MAX)
    }

    fn schema(
        &self,
        program: &Program,
        server: &Server,
        id: &str,
        of: &Catalogue,
    ) -> Result<Schema> {
        Ok(Schema {
            before: self.section(program, server, id, "pre-data")?,
            after: self.section(program, server, id, "post-data")?,
            fingerprint: of.fingerprint.clone(),
        })
    }

    /// What has to be there: reads the catalogue, pins for trial, and lets the dump program read the schema.
    fn try_everything(&mut self) -> Result<Rehearsed> {
        let server = self.connect()?;
        let places = places();
        let program = tool::find("pg_dump", server.major, &self.options, &places, NO_PROGRAM)?;
        let user = self.user().to_owned();
        let client = self.client.as_mut().ok_or_else(not_rehearsed)?;
        let catalogue = Catalogue::read(client)?;
        catalogue.check(&user)?;
        let (snapshot, catalogue) = pin(client, catalogue, &user)?;
        let schema = self.schema(&program, &server, &snapshot.id, &catalogue)?;
        self.unpin();
        Ok(Rehearsed { server, program, catalogue, schema })
    }

    fn unpin(&mut self) {
        self.pinned = None;
        if let Some(client) = &mut self.client
            && catalogue::release(client).is_err()
        {
            self.client = None;
        }
    }
}

fn pin(client: &mut Client, mut catalogue: Catalogue, user: &str) -> Result<(Snapshot, Catalogue)> {
    for _ in 0..ATTEMPTS_MAX {
        match catalogue.pin(client)? {
            Pin::Done(snapshot) => return Ok((snapshot, catalogue)),
            Pin::Changed(now) => catalogue = now,
        }
        catalogue.check(user)?;
    }
    Err(Error::Failed(
        "tables of the database come and go all the time: nothing can be pinned".into(),
    ))
}

/// Where the programs of several versions lie beside each other, newest first.
fn places() -> Vec<PathBuf> {
    let below = |path: &str| std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut found: Vec<_> =
        below("/usr/lib/postgresql").map(|entry| entry.path().join("bin")).collect();
    let fedora =
        below("/usr").filter(|entry| entry.file_name().to_string_lossy().starts_with("pgsql-"));
    found.extend(fedora.map(|entry| entry.path().join("bin")));
    let version = |path: &PathBuf| -> Option<u32> {
        let name = path.parent().and_then(Path::file_name)?.to_string_lossy().into_owned();
        name.rsplit('-').next()?.parse().ok()
    };
    found.sort_by_key(|path| std::cmp::Reverse(version(path)));
    found
}

fn not_rehearsed() -> Error {
    Error::Failed("the database was not rehearsed".into())
}

impl DatabaseSource for PostgresSource {
    fn title(&self) -> String {
        let version = self.rehearsed.as_ref().map(|found| format!(" {}", found.server.version));
        let (database, place) = (self.settings.database(), self.settings.place());
        format!("PostgreSQL{}, database {database} on {place}", version.unwrap_or_default())
    }

    fn rehearse(&mut self) -> Result<()> {
        let rehearsed = self.try_everything().map_err(|error| match error {
            Error::Failed(what) => refused(what, "nothing was locked: mend it and run again"),
            other => other,
        })?;
        self.rehearsed = Some(rehearsed);
        Ok(())
    }

    fn pin(&mut self) -> Result<()> {
        let started = Instant::now();
        if self.pinned.is_some() {
            self.unpin();
        }
        match &mut self.client {
            Some(client) if !client.is_closed() => {}
            // It was cut meanwhile, or lent to a dump: milliseconds more, better than no capture.
            _ => drop(self.connect()?),
        }
        let user = self.user().to_owned();
        let rehearsed = self.rehearsed.as_mut().ok_or_else(not_rehearsed)?;
        let client = self.client.as_mut().ok_or_else(not_rehearsed)?;
        let (snapshot, catalogue) = pin(client, rehearsed.catalogue.clone(), &user)?;
        rehearsed.catalogue = catalogue;
        self.pinned = Some((snapshot, started));
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        *report = PinReport { pin: Some(started.elapsed()), held: None };
        Ok(())
    }

    fn dump(&mut self) -> Result<Vec<Box<dyn StreamSource>>> {
        let (snapshot, since) = self.pinned.take().ok_or_else(|| {
            Error::Failed("nothing is pinned in the database, so there is nothing to dump".into())
        })?;
        let client = self.client.take().ok_or_else(not_rehearsed)?;
        let held = Held::new(client, since, Arc::clone(&self.report));
        let rehearsed = self.rehearsed.as_ref().ok_or_else(not_rehearsed)?;
        let Rehearsed { server, program, catalogue, schema } = rehearsed;
        let schema = if schema.fingerprint == catalogue.fingerprint {
            schema.clone()
        } else {
            // Somebody changed it since the rehearsal. This needs locks of its own, so it may have to give up.
            self.schema(program, server, &snapshot.id, catalogue)?
        };
        let script = Script::new(server, catalogue, schema, &snapshot.sequences)?;
        Ok(vec![dump::start(&self.name, script, held)?])
    }

    fn report(&self) -> PinReport {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PostgresSource {
    fn drop(&mut self) {
        self.unpin();
    }
}
