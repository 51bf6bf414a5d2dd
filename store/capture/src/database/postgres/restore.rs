//! A dump becomes a new database, by `psql` in one transaction.

use super::catalogue::{failed, row};
use super::connect::connect;
use super::dump::Origin;
use super::libpq::Settings;
use super::{NO_PROGRAM, places};
use crate::database::feed::{self, Feed};
use crate::database::restore::{Content, Restored};
use crate::database::tool::{self, Program, Tool};
use crate::database::url::{Url, encode};
use crate::database::{DatabaseOptions, refused};
use crate::error::{Error, Result};
use postgres::Client;
use std::process::{ChildStdin, Command, Stdio};

/// Databases that are there on every server, for the connection that makes the new one.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];
/// Everything that a user made in a database.
const OBJECTS: &str = "\
SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'";

/// Restores a dump.
///
/// # Errors
/// As [`crate::database::restore_into`].
pub(crate) fn restore(
    url: &Url,
    options: &DatabaseOptions,
    content: Content<'_>,
) -> Result<Restored> {
    let settings = Settings::new(url, &options.environment)?;
    let program = tool::find("psql", 0, options, &places(), NO_PROGRAM)?;
    let mut target = Target { url, options, settings, made: false, notes: Vec::new() };
    target.check_empty()?;
    let mut tool = None;
    let mut feed = Feed::new(|line: &str| target.begin(line, &program, &mut tool));
    let written = content(&mut feed);
    let (input, result) = feed.finish(written);
    match feed::end(tool, input, result) {
        Ok(()) => Ok(Restored { title: target.title(), notes: target.notes }),
        Err(error) => {
            target.give_up();
            Err(error)
        }
    }
}

/// The database to be.
struct Target<'a> {
    url: &'a Url,
    options: &'a DatabaseOptions,
    settings: Settings,
    /// By us: it goes again if the restore fails.
    made: bool,
    notes: Vec<String>,
}

impl Target<'_> {
    fn title(&self) -> String {
        format!("PostgreSQL, database {} on {}", self.settings.database(), self.settings.place())
    }

    /// A connection to another database of the server.
    fn maintenance(&self) -> Result<Client> {
        let mut first = None;
        for name in MAINTENANCE {
            let url = self.url.with_path(&format!("/{}", encode(name)));
            match connect(&Settings::new(&url, &self.options.environment)?) {
                Ok(client) => return Ok(client),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| Error::Failed("no connection".into())))
    }

    fn exists(&self, client: &mut Client) -> Result<bool> {
        let query = "SELECT count(*) FROM pg_catalog.pg_database WHERE datname = $1";
        let found = client.query_one(query, &[&self.settings.database()]);
        let count: i64 = found
            .and_then(|row| row.try_get(0))
            .map_err(|error| failed("asking the server", &error))?;
        Ok(count > 0)
    }

    /// Refuses a database that holds anything.
    fn check_empty(&self) -> Result<()> {
        if !self.exists(&mut self.maintenance()?)? {
            return Ok(());
        }
        let count = row(&mut connect(&self.settings)?, OBJECTS)?;
        if count.first().is_some_and(|count| count == "0") {
            return Ok(());
        }
        Err(refused(
            format!("{} exists and is not empty: nothing is restored over it", self.title()),
            "name a database that does not exist yet: it is made",
        ))
    }

    /// Makes the database by what the dump says of itself, and starts the program that fills it.
    fn begin(
        &mut self,
        line: &str,
        program: &Program,
        tool: &mut Option<Tool>,
    ) -> Result<ChildStdin> {
        let origin = Origin::of(line).ok_or_else(|| {
            refused(
                "this is no dump of a PostgreSQL database that a capture made",
                "for other dumps: `stillpoint dump SNAPSHOT FILE | psql DATABASE`, or pg_restore",
            )
        })?;
        let mut client = self.maintenance()?;
        check_roles(&mut client, &origin)?;
        if !self.exists(&mut client)? {
            self.make(&mut client, &origin)?;
        }
        let mut command = Command::new(&program.path);
        self.options.environment.apply(&mut command);
        if let Some(password) = self.url.password() {
            command.env("PGPASSWORD", password.reveal());
        }
        command.env("PGAPPNAME", "stillpoint restore");
        command.args([
            "-X",
            "-q",
            "-w",
            "--single-transaction",
            "--set=ON_ERROR_STOP=1",
            "--file=-",
        ]);
        command.arg(format!("--dbname={}", self.url)).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut started = Tool::spawn("psql", &mut command)?;
        let input = started.take_stdin();
        *tool = Some(started);
        input.ok_or_else(|| Error::Failed("psql takes no input".into()))
    }

    fn make(&mut self, client: &mut Client, origin: &Origin) -> Result<()> {
        let name = identifier(self.settings.database());
        let plain = format!(
            "CREATE DATABASE {name} TEMPLATE template0 ENCODING {}",
            literal(&origin.encoding)
        );
        let locale =
            format!(" LC_COLLATE {} LC_CTYPE {}", literal(&origin.collate), literal(&origin.ctype));
        let made = client.batch_execute(&format!("{plain}{locale}"));
        if let Err(error) = made {
            let is_unknown =
                error.code().is_some_and(|code| matches!(code.code(), "22023" | "42809"));
            if !is_unknown {
                return Err(failed("making the database", &error));
            }
            client.batch_execute(&plain).map_err(|error| failed("making the database", &error))?;
            self.notes.push(format!(
                "the server has no locale {}: text is sorted as its template0 sorts it",
                origin.collate
            ));
        }
        self.made = true;
        Ok(())
    }

    /// Takes away what was made; what happens is told by the error that came first.
    fn give_up(&self) {
        if !self.made {
            return;
        }
        let name = identifier(self.settings.database());
        let dropped = self.maintenance().map(|mut client| {
            // Before version 13 nobody can be thrown out.
            let drop = format!("DROP DATABASE IF EXISTS {name}");
            let forced = client.batch_execute(&format!("{drop} WITH (FORCE)"));
            forced.or_else(|_| client.batch_execute(&drop))
        });
        if !matches!(dropped, Ok(Ok(()))) {
            tracing::warn!("the empty database {name} could not be dropped again");
        }
    }
}

fn check_roles(client: &mut Client, origin: &Origin) -> Result<()> {
    let query = "SELECT w FROM pg_catalog.unnest($1::text[]) w WHERE NOT EXISTS \
        (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = w)";
    let found = client
        .query(query, &[&origin.roles])
        .map_err(|error| failed("asking for roles", &error))?;
    let missing: Vec<String> = found.iter().filter_map(|row| row.try_get(0).ok()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let create: Vec<_> =
        missing.iter().map(|role| format!("CREATE ROLE {};", identifier(role))).collect();
    Err(refused(
        format!("the server lacks roles that own parts of the database: {}", missing.join(", ")),
        format!("make them first: {}", create.join(" ")),
    ))
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string for a statement that takes no parameters.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Names and texts cannot leave their quotes.
    #[test]
    fn quotes() {
        assert_eq!(identifier("a\"b; c"), "\"a\"\"b; c\"");
        assert_eq!(literal("a'b\\"), "E'a''b\\\\'");
    }
}
