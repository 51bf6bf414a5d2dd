//! Who logs in to an application, and where the password comes from. Passwords never stand on a command line or on disk of ours.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longest file that a password is read from, bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A user, and where the password comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// Where the password comes from.
    pub password: PasswordSource,
}

/// Where a password comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PasswordSource {
    /// This environment variable.
    Env(String),
    /// The first line of this file.
    File(PathBuf),
    /// The entry of the host in this file, in the form of `.netrc`.
    Netrc(PathBuf),
}

impl fmt::Display for PasswordSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the variable ${name}"),
            Self::File(path) | Self::Netrc(path) => write!(f, "the file {}", path.display()),
        }
    }
}

impl Login {
    /// The same with whole paths, to be read from other directories.
    #[must_use]
    pub fn anchored(self) -> Self {
        let password = match self.password {
            PasswordSource::Env(name) => PasswordSource::Env(name),
            PasswordSource::File(path) => PasswordSource::File(super::whole(&path)),
            PasswordSource::Netrc(path) => PasswordSource::Netrc(super::whole(&path)),
        };
        Self { password, ..self }
    }

    /// Reads the password; `host` is the host's name, for a file of several.
    ///
    /// # Errors
    /// `Refused` when there is none.
    pub fn read(&self, host: &str) -> Result<Zeroizing<String>> {
        let found = match &self.password {
            PasswordSource::Env(name) => std::env::var(name).ok().map(Zeroizing::new),
            PasswordSource::File(path) => {
                let text = read(path)?;
                text.lines().next().map(|line| Zeroizing::new(line.to_owned()))
            }
            PasswordSource::Netrc(path) => {
                password_in_netrc(&read(path)?, host, &self.user).map(Zeroizing::new)
            }
        };
        found.filter(|password| !password.is_empty()).ok_or_else(|| Error::Refused {
            what: format!("there is no password for {} in {}", self.user, self.password),
            hint: Some(format!("put it there; it is read as the password of {host}")),
        })
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>> {
    use std::io::Read as _;
    let mut text = Zeroizing::new(String::new());
    let result = std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    match result {
        Ok(_) => Ok(text),
        Err(error) => Err(Error::Refused {
            what: format!("reading the password from {}: {error}", path.display()),
            hint: Some("name a file that this user may read".into()),
        }),
    }
}

/// The password of a host and user; `default` and entries without a user are for everybody.
fn password_in_netrc(text: &str, host: &str, user: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    let (mut is_host, mut is_user) = (false, true);
    while let Some(word) = words.next() {
        match word {
            "machine" => (is_host, is_user) = (words.next()? == host, true),
            "default" => (is_host, is_user) = (true, true),
            "login" => is_user = words.next()? == user,
            "account" => drop(words.next()),
            "password" => {
                let password = words.next()?;
                if is_host && is_user {
                    return Some(password.to_owned());
                }
            }
            // A macro runs to an empty line, which is not seen here; what follows it is not read.
            "macdef" => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    // The entry of the host and of the user counts, the first that fits.
    #[test]
    fn netrc_entries() {
        let text = "machine a login me password one\nmachine b\n login you\n password two\n\
                    machine b login me password three\ndefault password four\n";
        let check = |host: &str, user: &str, expected: Option<&str>| {
            assert_eq!(password_in_netrc(text, host, user).as_deref(), expected, "{host} {user}");
        };
        check("a", "me", Some("one"));
        check("b", "me", Some("three"));
        check("b", "you", Some("two"));
        check("c", "me", Some("four"));
        assert_eq!(password_in_netrc("machine a login me", "a", "me"), None);
        assert_eq!(password_in_netrc("machine", "a", "me"), None);
    }

    // A file gives its first line; what is missing is refused by name.
    #[test]
    fn files_and_what_is_missing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "pass word\nmore\n").unwrap();
        let login = |password| Login { user: "me".into(), password };
        let source = PasswordSource::File(file.path().into());
        assert_eq!(*login(source).read("h").unwrap(), "pass word");
        let missing = login(PasswordSource::Env("STILLPOINT_NO_SUCH_VARIABLE".into()));
        let error = missing.read("h").unwrap_err().to_string();
        assert!(error.contains("$STILLPOINT_NO_SUCH_VARIABLE"), "{error}");
        assert!(login(PasswordSource::File("/no/such".into())).read("h").is_err());
        let anchored = login(PasswordSource::Netrc("a".into())).anchored().password;
        assert!(matches!(anchored, PasswordSource::Netrc(path) if path.is_absolute()));
    }
}
