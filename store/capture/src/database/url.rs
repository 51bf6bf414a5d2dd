//! URLs of databases, from which the password is taken out at once.

use super::refused;
use crate::error::{Error, Result};
use std::fmt;

/// A secret that no message shows.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(zeroize::Zeroizing<String>);

impl Password {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(zeroize::Zeroizing::new(text.into()))
    }

    /// The secret itself, for the database and for the environment of a child process.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// A URL in its parts, which stay as they were typed (percent-encoded), but for the password.
#[derive(Debug, Clone)]
pub struct Url {
    scheme: String,
    user: Option<String>,
    password: Option<Password>,
    hosts: String,
    path: String,
    query: Vec<(String, String)>,
}

impl Url {
    /// Takes a URL apart: `scheme://user:password@host,host:port/path?key=value`, or `scheme:path`.
    ///
    /// # Errors
    /// `Refused`, with a message that does not show the URL: it may hold a password.
    pub fn parse(text: &str) -> Result<Self> {
        let (scheme, rest) = text.split_once(':').ok_or_else(malformed)?;
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if scheme.is_empty() || !scheme.chars().all(is_scheme) {
            return Err(malformed());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => match rest.find('/') {
                Some(at) => rest.split_at(at),
                None => (rest, ""),
            },
            None => ("", rest),
        };
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        let (user, password) =
            match credentials.map(|text| text.split_once(':').unwrap_or((text, ""))) {
                Some((user, password)) => (Some(user.to_owned()), decode(password)?),
                None => (None, String::new()),
            };
        let mut url = Self {
            scheme: scheme.to_ascii_lowercase(),
            user: user.filter(|user| !user.is_empty()),
            password: (!password.is_empty()).then(|| Password::new(password)),
            hosts: hosts.to_owned(),
            path: path.to_owned(),
            query: Vec::new(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(malformed)?;
            match key {
                "password" => url.password = Some(Password::new(decode(value)?)),
                _ => url.query.push((key.to_owned(), value.to_owned())),
            }
        }
        Ok(url)
    }

    /// The kind of database, in small letters.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    pub(crate) fn user(&self) -> Result<Option<String>> {
        self.user.as_deref().map(decode).transpose()
    }

    pub(crate) fn password(&self) -> Option<&Password> {
        self.password.as_ref()
    }

    /// Hosts and, where they are given, their ports.
    pub(crate) fn hosts(&self) -> Result<Vec<(String, Option<String>)>> {
        let split = |host: &str| {
            // The colons of an address of version 6 stand in brackets.
            let (name, rest) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                Some((name, rest)) => (name, rest),
                None => host.split_at(host.find(':').unwrap_or(host.len())),
            };
            let port = rest.strip_prefix(':').filter(|port| !port.is_empty()).map(str::to_owned);
            Ok((decode(name)?, port))
        };
        self.hosts.split(',').filter(|host| !host.is_empty()).map(split).collect()
    }

    /// The path with its first slash, decoded.
    pub(crate) fn path(&self) -> Result<String> {
        decode(&self.path)
    }

    /// The settings behind `?`, decoded.
    pub(crate) fn query(&self) -> Result<Vec<(String, String)>> {
        let pair = |(key, value): &(String, String)| Ok((decode(key)?, decode(value)?));
        self.query.iter().map(pair).collect()
    }

    /// The URL with another path and without its password.
    pub(crate) fn with_path(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }
}

impl fmt::Display for Url {
    /// As it was typed, without the password: fit for command lines and messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        write!(f, "{}{}", self.hosts, self.path)?;
        for (number, (key, value)) in self.query.iter().enumerate() {
            write!(f, "{}{key}={value}", if number == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

fn malformed() -> Error {
    refused(
        "this is no URL of a database",
        "write it as postgresql://user@host:port/database; special characters of names as %XX",
    )
}

/// Decodes `%XX`.
fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.filter(|byte| *byte != 0).ok_or_else(malformed)?);
        rest = rest.get(2..).unwrap_or_default();
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

/// Encodes what would end a part of a URL.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A path for a URL, in which the slashes stay.
pub(crate) fn encode_path(path: &std::path::Path) -> String {
    path.to_string_lossy().split('/').map(encode).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    // All parts are found, decoded, and shown again without the password, wherever it stood.
    #[test]
    fn parts() {
        let url = Url::parse(
            "PostgreSQL://me%40x:s%2Fe:c@h1:5433,[::1]:5434/sh%20op?sslmode=require&password=zwei",
        )
        .unwrap();
        assert_eq!(url.scheme(), "postgresql");
        assert_eq!(url.user().unwrap().as_deref(), Some("me@x"));
        assert_eq!(url.password().unwrap().reveal(), "zwei");
        let hosts = [("h1".into(), Some("5433".into())), ("::1".into(), Some("5434".into()))];
        assert_eq!(url.hosts().unwrap(), hosts);
        assert_eq!(url.path().unwrap(), "/sh op");
        assert_eq!(url.query().unwrap(), [("sslmode".to_owned(), "require".to_owned())]);
        assert_eq!(
            url.to_string(),
            "postgresql://me%40x@h1:5433,[::1]:5434/sh%20op?sslmode=require"
        );
        let url = Url::parse("postgresql://me:s%2Fe:c@h/d").unwrap();
        assert_eq!(url.password().unwrap().reveal(), "s/e:c");
        assert!(!format!("{url:?}{url}").contains("s/e"), "{url:?}");
        let url = Url::parse("sqlite:/var/lib/a b.db").unwrap();
        assert_eq!((url.scheme(), url.path().unwrap().as_str()), ("sqlite", "/var/lib/a b.db"));
    }

    // What cannot be read is refused without showing it.
    #[test]
    fn bad_urls() {
        for text in [
            "",
            "x",
            "://a",
            "pg://h/d?a",
            "pg://u:geheim%2@h/d",
            "pg://u:geheim%00@h/d",
            "p g://geheim",
        ] {
            let result = Url::parse(text).and_then(|url| url.path().map(|_| ()));
            let error = result.unwrap_err().to_string();
            assert!(!error.contains("geheim"), "{text}: {error}");
        }
        assert_eq!(decode(&encode("a b/ü?")).unwrap(), "a b/ü?");
    }
}
