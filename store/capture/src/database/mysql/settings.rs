//! Connection settings as MariaDB's and MySQL's own clients find them: URL, option files, environment, defaults.
//!
//! Option files are read by `my_print_defaults`, which both bring along: where they lie and what they include is the
//! vendors' business.

use crate::database::tool::Tool;
use crate::database::url::{Password, Url};
use crate::database::{DatabaseOptions, refused};
use crate::error::{Error, Result};
use mysql::{Conn, OptsBuilder};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What clients read of option files.
const GROUPS: [&str; 3] = ["client", "client-server", "client-mariadb"];
/// Where sockets lie.
const SOCKETS: [&str; 3] =
    ["/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock"];
const PORT: u16 = 3306;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long what option files say may be, bytes.
const OPTIONS_BYTES_MAX: u64 = 1 << 20;
/// What MySQL's `my_print_defaults` prints in place of a password unless it is told to show it.
const HIDDEN: &str = "*****";

/// All that a connection needs.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) database: String,
    user: String,
    password: Option<Password>,
    server: Place,
}

/// Where the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Socket(String),
    Host(String, u16),
}

impl Settings {
    /// Settles every setting for this URL.
    ///
    /// # Errors
    /// `Refused` for a URL without a database, and for option files that cannot be used.
    pub(super) fn new(url: &Url, options: &DatabaseOptions) -> Result<Self> {
        let mut files = option_files(options)?;
        let environment = &options.environment;
        let path = url.path()?;
        let database = path.strip_prefix('/').unwrap_or(&path).to_owned();
        if database.is_empty() {
            return Err(refused("the URL names no database", "write mysql://user@host/database"));
        }
        let query: BTreeMap<String, String> = url.query()?.into_iter().collect();
        let mut hosts = url.hosts()?;
        if hosts.len() > 1 {
            return Err(refused("the URL names several hosts", "name one of them"));
        }
        let (host, port) = hosts.pop().unzip();
        let is_tcp = port.as_ref().is_some_and(Option::is_some);
        let host = host.or_else(|| files.remove("host")).or_else(|| environment.get("MYSQL_HOST"));
        let port = port.flatten().or_else(|| files.remove("port"));
        let port = port.or_else(|| environment.get("MYSQL_TCP_PORT"));
        let socket = query.get("socket").cloned().or_else(|| files.remove("socket"));
        let socket = socket.or_else(|| environment.get("MYSQL_UNIX_PORT"));
        let server = place(host, port, socket, is_tcp)?;
        let user = url.user()?.or_else(|| files.remove("user"));
        let password = url.password().cloned();
        let password = password.or_else(|| files.remove("password").map(Password::new));
        let password = password.or_else(|| environment.get("MYSQL_PWD").map(Password::new));
        let user = user.or_else(|| environment.user()).unwrap_or_default();
        Ok(Self { database, user, password, server })
    }

    /// Where the server is, for people.
    pub(super) fn place(&self) -> String {
        match &self.server {
            Place::Socket(path) => path.clone(),
            Place::Host(host, PORT) => host.clone(),
            Place::Host(host, port) => format!("{host}:{port}"),
        }
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// Connects, to the database or to the server alone.
    ///
    /// # Errors
    /// `Refused` with what to do.
    pub(super) fn connect(&self, database: bool) -> Result<Conn> {
        let mut options = OptsBuilder::new()
            .user(Some(&self.user))
            .pass(self.password.as_ref().map(Password::reveal))
            .prefer_socket(false)
            .tcp_connect_timeout(Some(CONNECT_TIMEOUT))
            .tcp_keepalive_time_ms(Some(30_000));
        options = match &self.server {
            Place::Socket(path) => options.socket(Some(path)),
            Place::Host(host, port) => options.ip_or_hostname(Some(host)).tcp_port(*port),
        };
        if database {
            options = options.db_name(Some(&self.database));
        }
        Conn::new(options).map_err(|error| self.explain(&error))
    }

    /// Tells one of the vendor's programs to connect in the same way.
    pub(super) fn apply(&self, command: &mut Command) {
        command.arg("--no-defaults").arg(format!("--user={}", self.user));
        match &self.server {
            Place::Socket(path) => command.arg("--protocol=socket").arg(format!("--socket={path}")),
            Place::Host(host, port) => command
                .arg("--protocol=tcp")
                .arg(format!("--host={host}"))
                .arg(format!("--port={port}")),
        };
        // By the environment: a command line can be read by everybody.
        match &self.password {
            Some(password) => command.env("MYSQL_PWD", password.reveal()),
            None => command.env_remove("MYSQL_PWD"),
        };
    }

    fn explain(&self, error: &mysql::Error) -> Error {
        let code = match error {
            mysql::Error::MySqlError(told) => Some(told.code),
            _ => None,
        };
        let hint = match code {
            Some(1045 | 1698) => {
                "check user and password: the URL, the option files (~/.my.cnf), MYSQL_PWD"
            }
            Some(1049) => "check the name of the database: SHOW DATABASES lists those that exist",
            Some(1044) => {
                "the user needs rights in this database: GRANT SELECT, SHOW VIEW, TRIGGER, EVENT"
            }
            Some(3159) => {
                "the server wants encryption, which is not supported here: use its socket, or dump by a command"
            }
            Some(1040 | 1203) => {
                "raise max_connections of the server, or end connections that nobody needs"
            }
            Some(_) => "see the server's log",
            None => {
                "check that the server runs there, and host, port and socket (?socket=/path in the URL)"
            }
        };
        let place = self.place();
        refused(
            format!(
                "no connection to MariaDB or MySQL, database {} on {place}: {}",
                self.database,
                told(error)
            ),
            hint,
        )
    }
}

/// What the server says, or what went wrong on the way.
pub(super) fn told(error: &mysql::Error) -> String {
    match error {
        mysql::Error::MySqlError(told) => told.message.clone(),
        other => other.to_string(),
    }
}

fn place(
    host: Option<String>,
    port: Option<String>,
    socket: Option<String>,
    is_tcp: bool,
) -> Result<Place> {
    let host = host.unwrap_or_else(|| "localhost".into());
    // As the vendors have it, localhost means the socket, unless somebody names a port.
    if host == "localhost" && !is_tcp {
        let usual = SOCKETS.into_iter().find(|path| Path::new(path).exists());
        return Ok(Place::Socket(socket.unwrap_or_else(|| usual.unwrap_or(SOCKETS[0]).into())));
    }
    let port = match port {
        Some(text) => text.parse().map_err(|_| {
            refused(format!("{text:?} is no port"), "ports are numbers up to 65535")
        })?,
        None => PORT,
    };
    Ok(Place::Host(host, port))
}

/// What option files say, by name.
fn option_files(options: &DatabaseOptions) -> Result<BTreeMap<String, String>> {
    let printed = print(options, &[])?;
    if printed.get("password").is_some_and(|password| password == HIDDEN) {
        return print(options, &["--show"]);
    }
    Ok(printed)
}

fn print(options: &DatabaseOptions, more: &[&str]) -> Result<BTreeMap<String, String>> {
    let mut command = Command::new("my_print_defaults");
    if let Some(directory) = &options.programs {
        command = Command::new(directory.join("my_print_defaults"));
    }
    options.environment.apply(&mut command);
    command.args(more).args(GROUPS).stdin(Stdio::null()).stdout(Stdio::piped());
    let tool = Tool::spawn("my_print_defaults", &mut command);
    let text = tool.and_then(|tool| tool.output(OPTIONS_BYTES_MAX)).map_err(|error| {
        refused(
            format!("option files cannot be read: {error}"),
            "install the client programs (Debian: mariadb-client), and check ~/.my.cnf",
        )
    })?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// Lines of `--name=value`; the last of a name counts.
fn parse(text: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| {
        let (name, value) = line.strip_prefix("--")?.split_once('=')?;
        Some((name.replace('_', "-"), value.to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // The last of a name counts, and names may be written in two ways.
    #[test]
    fn options_of_files() {
        let found = parse("--user=a\n--quick\n--user=b\n--default_character_set=utf8\n");
        assert_eq!(found["user"], "b");
        assert_eq!(found["default-character-set"], "utf8");
        assert_eq!(found.len(), 2);
    }

    // localhost is the socket unless a port is named in the URL; other hosts have the usual port.
    #[test]
    fn places() {
        let check = |host: Option<&str>, port: Option<&str>, is_tcp, expected: Place| {
            let found =
                place(host.map(Into::into), port.map(Into::into), Some("/s".into()), is_tcp);
            assert_eq!(found.unwrap(), expected);
        };
        check(None, None, false, Place::Socket("/s".into()));
        check(Some("localhost"), Some("3307"), false, Place::Socket("/s".into()));
        check(Some("localhost"), Some("3307"), true, Place::Host("localhost".into(), 3307));
        check(Some("db"), None, false, Place::Host("db".into(), PORT));
        assert!(place(Some("db".into()), Some("x".into()), None, true).is_err());
    }
}
