//! Connection settings as libpq finds them: URL, service file, environment, password file, defaults.
//!
//! `pg_dump` and `pg_restore` find their own; this is for the connection that is ours. See chapters 34.1 and 34.15 to 34.17 of
//! PostgreSQL's documentation.

use crate::database::environment::Environment;
use crate::database::refused;
use crate::database::url::{Password, Url};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Settings that have a variable in the environment.
const VARIABLES: [(&str, &str); 14] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("options", "PGOPTIONS"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("channel_binding", "PGCHANNELBINDING"),
];
/// Where sockets lie: as Debian's and Fedora's libpq have it, and as the sources do.
const SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];
const PORT: &str = "5432";
/// Where the service file of the whole machine lies.
const SERVICES: &str = "/etc/postgresql-common";

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SslMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// All that a connection needs.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    values: BTreeMap<String, String>,
    password: Option<Password>,
    home: Option<PathBuf>,
}

impl Settings {
    /// Settles every setting for this URL.
    ///
    /// # Errors
    /// `Refused` for a service that does not exist, and files that cannot be read.
    pub(super) fn new(url: &Url, environment: &Environment) -> Result<Self> {
        let mut values = of_url(url)?;
        let mut password = url.password().cloned();
        let home = environment.home();
        let service = values.get("service").cloned().or_else(|| environment.get("PGSERVICE"));
        if let Some(service) = service {
            for (key, value) in of_service(&service, environment)? {
                match key.as_str() {
                    "password" if password.is_none() => password = Some(Password::new(value)),
                    "password" => {}
                    _ => drop(values.entry(key).or_insert(value)),
                }
            }
        }
        for (key, variable) in VARIABLES {
            let Some(value) = environment.get(variable) else { continue };
            match key {
                "password" if password.is_none() => password = Some(Password::new(value)),
                "password" => {}
                _ => drop(values.entry(key.into()).or_insert(value)),
            }
        }
        let mut default = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                values.entry(key.into()).or_insert(value);
            }
        };
        default("user", environment.user());
        let socket = SOCKETS.into_iter().find(|place| Path::new(place).is_dir()).unwrap_or("/tmp");
        default("host", Some(socket.into()));
        default("port", Some(PORT.into()));
        let user = values.get("user").cloned();
        if let Some(user) = user {
            values.entry("dbname".into()).or_insert(user);
        }
        let mut settings = Self { values, password, home };
        if settings.password.is_none() {
            settings.password = settings.of_password_file()?;
        }
        Ok(settings)
    }

    /// A setting.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    pub(super) fn password(&self) -> Option<&Password> {
        self.password.as_ref()
    }

    /// The name of the database.
    pub(super) fn database(&self) -> &str {
        self.get("dbname").unwrap_or_default()
    }

    /// Where the server is, for people.
    pub(super) fn place(&self) -> String {
        let hosts: Vec<_> = self
            .hosts()
            .map(|(host, port)| match port {
                PORT => host.to_owned(),
                port => format!("{host}:{port}"),
            })
            .collect();
        hosts.join(", ")
    }

    /// Hosts with their ports: one port may be for all of them.
    pub(super) fn hosts(&self) -> impl Iterator<Item = (&str, &str)> {
        let ports: Vec<&str> = self.get("port").unwrap_or(PORT).split(',').collect();
        let last = ports.last().copied().unwrap_or(PORT);
        let hosts = self.get("host").unwrap_or_default().split(',');
        hosts.enumerate().map(move |(at, host)| {
            let port = ports.get(at).copied().unwrap_or(last);
            (host, if port.is_empty() { PORT } else { port })
        })
    }

    /// How the connection is to be encrypted.
    ///
    /// # Errors
    /// `Refused` for a word that libpq does not know.
    pub(super) fn ssl_mode(&self) -> Result<SslMode> {
        Ok(match self.get("sslmode").unwrap_or("prefer") {
            "disable" => SslMode::Disable,
            "allow" | "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            other => {
                let hint = "sslmode is disable, allow, prefer, require, verify-ca or verify-full";
                return Err(refused(format!("there is no sslmode {other:?}"), hint));
            }
        })
    }

    /// A file that a setting names, else the one of this name in the user's directory if it is there.
    pub(super) fn file(&self, key: &str, name: &str) -> Option<PathBuf> {
        if let Some(path) = self.get(key) {
            return Some(path.into());
        }
        let path = self.home.as_ref()?.join(".postgresql").join(name);
        path.is_file().then_some(path)
    }

    fn of_password_file(&self) -> Result<Option<Password>> {
        use std::os::unix::fs::PermissionsExt;
        let path = match (self.get("passfile"), &self.home) {
            (Some(path), _) => PathBuf::from(path),
            (None, Some(home)) => home.join(".pgpass"),
            (None, None) => return Ok(None),
        };
        let Ok(metadata) = std::fs::metadata(&path) else { return Ok(None) };
        if !metadata.is_file() {
            return Ok(None);
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            // As libpq does; but it only warns, and then the password is missing.
            let what = format!("the password file {} may be read by others", path.display());
            return Err(refused(what, format!("chmod 600 {}", path.display())));
        }
        let text = read(&path)?;
        let (user, database) = (self.get("user").unwrap_or_default(), self.database());
        Ok(self.hosts().find_map(|(host, port)| {
            // A socket in the usual place is called localhost there.
            let host = if SOCKETS.contains(&host) { "localhost" } else { host };
            password_of(&text, [host, port, database, user])
        }))
    }
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<String>> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        refused(format!("{} cannot be read: {error}", path.display()), "check its owner and mode")
    })?;
    Ok(text.into())
}

/// What the URL says itself.
fn of_url(url: &Url) -> Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    let hosts = url.hosts()?;
    if !hosts.is_empty() {
        let join = |parts: Vec<&str>| parts.join(",");
        values.insert("host".into(), join(hosts.iter().map(|host| host.0.as_str()).collect()));
        if hosts.iter().any(|host| host.1.is_some()) {
            let ports = hosts.iter().map(|host| host.1.as_deref().unwrap_or(PORT)).collect();
            values.insert("port".into(), join(ports));
        }
    }
    if let Some(user) = url.user()? {
        values.insert("user".into(), user);
    }
    let path = url.path()?;
    let database = path.strip_prefix('/').unwrap_or(&path);
    if !database.is_empty() {
        values.insert("dbname".into(), database.into());
    }
    for (key, value) in url.query()? {
        let key = if key == "ssl" && value == "true" { "sslmode".into() } else { key };
        let value = if key == "sslmode" && value == "true" { "require".into() } else { value };
        values.insert(key, value);
    }
    Ok(values)
}

/// What a service file says of a service.
fn of_service(name: &str, environment: &Environment) -> Result<Vec<(String, String)>> {
    let own = environment.get("PGSERVICEFILE").map(PathBuf::from);
    let own = own.or_else(|| environment.home().map(|home| home.join(".pg_service.conf")));
    let system = environment.get("PGSYSCONFDIR").unwrap_or_else(|| SERVICES.into());
    let files = [own, Some(Path::new(&system).join("pg_service.conf"))];
    for path in files.into_iter().flatten().filter(|path| path.is_file()) {
        if let Some(found) = service_of(&read(&path)?, name) {
            return Ok(found);
        }
    }
    let what = format!("there is no service {name} in the service files of PostgreSQL");
    Err(refused(what, "see PGSERVICE, PGSERVICEFILE and ~/.pg_service.conf"))
}

/// The settings of one section.
fn service_of(text: &str, name: &str) -> Option<Vec<(String, String)>> {
    let mut found: Option<Vec<(String, String)>> = None;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            if found.is_some() {
                break;
            }
            found = (section == name).then(Vec::new);
        } else if let (Some(found), Some((key, value))) = (&mut found, line.split_once('=')) {
            found.push((key.trim().into(), value.trim().into()));
        }
    }
    found
}

/// The password of the first line that fits: `host:port:database:user:password`, with `*` for anything.
fn password_of(text: &str, wanted: [&str; 4]) -> Option<Password> {
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields = fields(line);
        let [given @ .., password] = fields.as_slice() else { continue };
        let fits = |(given, wanted): (&String, &str)| given == "*" || given == wanted;
        if given.len() == wanted.len() && given.iter().zip(wanted).all(fits) {
            return Some(Password::new(password.as_str()));
        }
    }
    None
}

/// Fields between colons; a backslash takes the next character as it is. The fifth goes to the end of the line.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let escaped = if character == '\\' { characters.next() } else { None };
        if character == ':' && fields.len() < 5 {
            fields.push(String::new());
        } else if let Some(field) = fields.last_mut() {
            field.push(escaped.unwrap_or(character));
        }
    }
    fields
}

/// The error for a setting that this program cannot honour.
pub(super) fn unusable(key: &str, value: &str) -> Error {
    refused(format!("{key}={value} cannot be used"), "see docs/capture/databases.md for what can")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn environment(home: &Path, more: &[(&str, &str)]) -> Environment {
        let mut environment = Environment::own().with("HOME", home.to_str().unwrap());
        for (_, variable) in VARIABLES {
            environment = environment.without(variable);
        }
        for (key, value) in more {
            environment = environment.with(*key, *value);
        }
        environment
    }

    fn settings(url: &str, environment: &Environment) -> Result<Settings> {
        Settings::new(&Url::parse(url).unwrap(), environment)
    }

    // The URL wins over the service, the service over the environment, and that over defaults.
    #[test]
    fn precedence() {
        let home = tempfile::tempdir().unwrap();
        let services = "# mine\n[other]\nhost=o\n[shop]\nhost=s\nuser=su\npassword=sp\ndbname = sd\n\n[last]\nuser=x\n";
        std::fs::write(home.path().join(".pg_service.conf"), services).unwrap();
        let all =
            [("PGSERVICE", "shop"), ("PGUSER", "eu"), ("PGPORT", "6543"), ("PGPASSWORD", "ep")];
        let found = settings("postgresql://uh/?user=uu", &environment(home.path(), &all)).unwrap();
        let values = ["host", "user", "dbname", "port"].map(|key| found.get(key).unwrap());
        assert_eq!(values, ["uh", "uu", "sd", "6543"]);
        assert_eq!(found.password().unwrap().reveal(), "sp");
        assert_eq!(found.place(), "uh:6543");

        let plain = environment(home.path(), &[("PGUSER", "me")]);
        let found = settings("postgresql:///", &plain).unwrap();
        assert_eq!((found.database(), found.get("user")), ("me", Some("me")));
        assert_eq!(found.ssl_mode().unwrap(), SslMode::Prefer);
        assert!(
            settings("postgresql:///?service=none", &plain)
                .unwrap_err()
                .to_string()
                .contains("none")
        );
        assert!(settings("postgresql:///?sslmode=x", &plain).unwrap().ssl_mode().is_err());
    }

    // Several hosts have their own ports, or one for all.
    #[test]
    fn hosts_and_ports() {
        let home = tempfile::tempdir().unwrap();
        let environment = environment(home.path(), &[]);
        let check = |url: &str, expected: &[(&str, &str)]| {
            let found = settings(url, &environment).unwrap();
            assert_eq!(found.hosts().collect::<Vec<_>>(), expected, "{url}");
        };
        check("postgresql://a:1,b/d", &[("a", "1"), ("b", "5432")]);
        check("postgresql://a,b/d?port=7", &[("a", "7"), ("b", "7")]);
        check("postgresql:///d?host=/run/x", &[("/run/x", "5432")]);
        check("postgresql://%2Frun%2Fx:9/d", &[("/run/x", "9")]);
    }

    // Password files are read as libpq reads them, and one that others may read is refused.
    #[test]
    fn password_files() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(".pgpass");
        let text = "# host:port:db:user:password\na:5432:d:u:one\n*:*:we\\:ird:u:t\\\\w:o\nlocalhost:*:*:*:local\n";
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let environment = environment(home.path(), &[("PGUSER", "u")]);
        let check = |url: &str, expected: Option<&str>| {
            let found = settings(url, &environment).unwrap();
            assert_eq!(found.password().map(Password::reveal), expected, "{url}");
        };
        check("postgresql://a/d", Some("one"));
        check("postgresql://a:5433/d", None);
        check("postgresql://x/we%3Aird", Some("t\\w:o"));
        check("postgresql:///d?host=/tmp", Some("local"));
        check("postgresql://u:own@a/d", Some("own"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(settings("postgresql://a/d", &environment).is_err());
        check("postgresql://u:own@a/d", Some("own"));
    }
}
