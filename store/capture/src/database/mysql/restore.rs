//! A dump becomes a new database, by the vendors' client.

use super::catalogue::{failed, identifier, rows, text};
use super::dump::Origin;
use super::settings::Settings;
use super::values::literal;
use crate::database::feed::{self, Feed};
use crate::database::restore::{Content, Restored};
use crate::database::tool::{self, Program, Tool};
use crate::database::{DatabaseOptions, Url, refused};
use crate::error::{Error, Result};
use mysql::Conn;
use mysql::prelude::Queryable;
use std::process::{ChildStdin, Command, Stdio};

/// The vendors' names of their client.
const PROGRAMS: [&str; 2] = ["mariadb", "mysql"];
const NO_PROGRAM: &str = "install the client programs (Debian: mariadb-client)";

/// Restores a dump.
///
/// # Errors
/// As [`crate::database::restore_into`].
pub(crate) fn restore(
    url: &Url,
    options: &DatabaseOptions,
    content: Content<'_>,
) -> Result<Restored> {
    let settings = Settings::new(url, options)?;
    let find = |name| tool::find(name, 0, options, &[], NO_PROGRAM);
    let program = find(PROGRAMS[0]).or_else(|_| find(PROGRAMS[1]))?;
    let session = settings.connect(false)?;
    let mut target = Target { session, settings, made: false, notes: Vec::new() };
    target.check_empty()?;
    let mut tool = None;
    let mut feed = Feed::new(|line: &str| target.begin(line, &program, options, &mut tool));
    let written = content(&mut feed);
    let (input, result) = feed.finish(written);
    match feed::end(tool, input, result) {
        Ok(()) => {
            let title =
                format!("database {} on {}", target.settings.database, target.settings.place());
            Ok(Restored { title, notes: target.notes })
        }
        Err(error) => {
            target.give_up();
            Err(error)
        }
    }
}

/// The database to be.
struct Target {
    session: Conn,
    settings: Settings,
    /// By us: it goes again if the restore fails.
    made: bool,
    notes: Vec<String>,
}

impl Target {
    fn name(&self) -> String {
        identifier(&self.settings.database)
    }

    fn exists(&mut self) -> Result<bool> {
        let name = literal(self.settings.database.as_bytes());
        let name = String::from_utf8_lossy(&name).into_owned();
        let query = format!("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {name}");
        Ok(!rows(&mut self.session, &query)?.is_empty())
    }

    /// Refuses a database that holds anything.
    fn check_empty(&mut self) -> Result<()> {
        let name = literal(self.settings.database.as_bytes());
        let name = String::from_utf8_lossy(&name).into_owned();
        let query = format!(
            "SELECT (SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {name}) + \
             (SELECT COUNT(*) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {name})"
        );
        let count = rows(&mut self.session, &query)?;
        if count.first().is_some_and(|row| text(row, 0) == "0") {
            return Ok(());
        }
        let place = self.settings.place();
        Err(refused(
            format!(
                "the database {} on {place} is not empty: nothing is restored over it",
                self.settings.database
            ),
            "name a database that does not exist yet: it is made",
        ))
    }

    /// Makes the database by what the dump says of itself, and starts the program that fills it.
    fn begin(
        &mut self,
        line: &str,
        program: &Program,
        options: &DatabaseOptions,
        tool: &mut Option<Tool>,
    ) -> Result<ChildStdin> {
        let origin = Origin::of(line).ok_or_else(|| {
            refused(
                "this is no dump of a MariaDB or MySQL database that a capture made",
                "for other dumps: `stillpoint dump SNAPSHOT FILE | mariadb DATABASE`",
            )
        })?;
        if !self.exists()? {
            self.make(&origin)?;
        }
        let mut command = Command::new(&program.path);
        options.environment.apply(&mut command);
        self.settings.apply(&mut command);
        command.args([
            "--batch",
            "--binary-mode",
            "--comments",
            "--default-character-set=utf8mb4",
            "--max-allowed-packet=1G",
        ]);
        command.arg(format!("--database={}", self.settings.database));
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut started = Tool::spawn("the client", &mut command)?;
        let input = started.take_stdin();
        *tool = Some(started);
        input.ok_or_else(|| Error::Failed("the client takes no input".into()))
    }

    fn make(&mut self, origin: &Origin) -> Result<()> {
        let quoted = |text: &str| String::from_utf8_lossy(&literal(text.as_bytes())).into_owned();
        let plain =
            format!("CREATE DATABASE {} CHARACTER SET {}", self.name(), quoted(&origin.charset));
        let full = format!("{plain} COLLATE {}", quoted(&origin.collation));
        match self.session.query_drop(full) {
            // MariaDB and MySQL do not know all of each other's.
            Err(mysql::Error::MySqlError(told)) if told.code == 1273 => {
                let made = self.session.query_drop(plain);
                made.map_err(|error| failed("making the database", &error))?;
                self.notes.push(format!("the server has no collation {}", origin.collation));
            }
            made => made.map_err(|error| failed("making the database", &error))?,
        }
        self.made = true;
        Ok(())
    }

    /// Takes away what was made; what happens is told by the error that came first.
    fn give_up(&mut self) {
        let name = self.name();
        if self.made && self.session.query_drop(format!("DROP DATABASE IF EXISTS {name}")).is_err()
        {
            tracing::warn!("the database {name} could not be dropped again");
        }
    }
}
