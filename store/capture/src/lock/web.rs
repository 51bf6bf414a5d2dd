//! HTTP calls to an application: one kept-alive connection, log-in, time limits, and what a failure means for a second try.

use crate::error::{Error, Result};
use base64::Engine as _;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use ureq::config::RedirectAuthHeaders;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, ResponseExt as _, http};
use zeroize::Zeroizing;

/// The most that is read of an answer, bytes.
const BODY_BYTES_MAX: u64 = 1 << 20;
/// How long a connection may be idle and still be used again.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// How an application is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebOptions {
    /// A file of certificates (PEM) that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The longest that one call may take.
    pub call_limit: Duration,
}

impl Default for WebOptions {
    fn default() -> Self {
        Self { ca_file: None, call_limit: Duration::from_secs(30) }
    }
}

impl WebOptions {
    /// The same with whole paths, to be read from other directories.
    #[must_use]
    pub fn anchored(self) -> Self {
        Self { ca_file: self.ca_file.as_deref().map(super::whole), ..self }
    }
}

/// Calls one application.
#[derive(Debug)]
pub struct Web {
    agent: Agent,
    authorization: Option<Zeroizing<String>>,
}

/// A call.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// `GET`, `POST`, ...
    pub method: &'a str,
    /// Where to.
    pub url: &'a str,
    /// Headers besides those of every call.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body; empty: none.
    pub body: &'a [u8],
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body, at most 1 MiB.
    pub body: Vec<u8>,
    /// Who answered, after redirections.
    pub url: String,
}

/// No answer came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoReply {
    /// Why.
    pub text: String,
    /// True when the call may have been carried out.
    pub may_be_done: bool,
}

impl Reply {
    /// True for 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// True where trying again may help.
    pub fn is_passing(&self) -> bool {
        self.status >= 500 || self.status == 429
    }

    /// The status, and what the application says about it.
    pub fn complaint(&self) -> String {
        #[derive(Deserialize)]
        struct Envelope {
            errors: Vec<Complaint>,
        }
        #[derive(Deserialize)]
        struct Complaint {
            message: String,
        }
        let said = serde_json::from_slice::<Envelope>(&self.body).ok();
        match said.and_then(|envelope| envelope.errors.into_iter().next()) {
            Some(complaint) => format!("status {}: {}", self.status, complaint.message),
            None => format!("status {}", self.status),
        }
    }
}

impl Web {
    /// Calls with this log-in; `user` and password.
    ///
    /// # Errors
    /// `Refused` when the certificates cannot be read.
    pub fn new(options: &WebOptions, login: Option<(&str, &str)>) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(match &options.ca_file {
                Some(path) => certificates(path)?,
                None => RootCerts::PlatformVerifier,
            })
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_global(Some(options.call_limit))
            .max_idle_age(IDLE_MAX)
            .user_agent("stillpoint")
            .accept("application/json")
            .build();
        let authorization = login.map(|(user, password)| {
            let pair = Zeroizing::new(format!("{user}:{password}"));
            let text = base64::engine::general_purpose::STANDARD.encode(pair.as_bytes());
            Zeroizing::new(format!("Basic {text}"))
        });
        Ok(Self { agent: config.new_agent(), authorization })
    }

    /// Makes one call, once.
    ///
    /// # Errors
    /// [`NoReply`]; any status is a reply.
    pub fn call(&self, call: &Call<'_>) -> std::result::Result<Reply, NoReply> {
        let mut request = http::Request::builder().method(call.method).uri(call.url);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization.as_str());
        }
        for (name, value) in call.headers {
            request = request.header(*name, *value);
        }
        let wrong = |error: http::Error| NoReply {
            text: format!("{} is no address that can be called: {error}", call.url),
            may_be_done: false,
        };
        let has_body = !call.body.is_empty() || !matches!(call.method, "GET" | "DELETE" | "HEAD");
        let result = if has_body {
            self.agent.run(request.body(call.body).map_err(wrong)?)
        } else {
            self.agent.run(request.body(()).map_err(wrong)?)
        };
        let mut response = result.map_err(|error| no_reply(&error))?;
        let body = response.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_vec();
        Ok(Reply {
            status: response.status().as_u16(),
            url: response.get_uri().to_string(),
            body: body.map_err(|error| no_reply(&error))?,
        })
    }
}

fn no_reply(error: &ureq::Error) -> NoReply {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    use ureq::Timeout;
    let not_sent = match error {
        ureq::Error::Io(error) => {
            matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
        }
        ureq::Error::Timeout(limit) => matches!(limit, Timeout::Connect | Timeout::Resolve),
        ureq::Error::HostNotFound
        | ureq::Error::BadUri(_)
        | ureq::Error::Http(_)
        | ureq::Error::ConnectionFailed
        | ureq::Error::Tls(_)
        | ureq::Error::Rustls(_) => true,
        _ => false,
    };
    NoReply { text: error.to_string(), may_be_done: !not_sent }
}

fn certificates(path: &Path) -> Result<RootCerts> {
    let refuse = |what: String| Error::Refused {
        what: format!("the certificates in {}: {what}", path.display()),
        hint: Some("name a PEM file with the certificate of the authority".into()),
    };
    let pem = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) =
            item.map_err(|error| refuse(error.to_string()))?
        {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(refuse("there is none".into()));
    }
    Ok(RootCerts::from(found))
}

/// A text as it may stand in the query of a URL.
pub fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The host of a URL, without its port.
pub fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => host.split(':').next().unwrap_or(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What is not a plain character is written by its number; a host is found in whatever stands around it.
    #[test]
    fn texts_in_urls() {
        assert_eq!(encoded("aZ09-._~"), "aZ09-._~");
        assert_eq!(encoded("a b&c=ä"), "a%20b%26c%3D%C3%A4");
        for (url, host) in [
            ("http://h:7990/bitbucket", "h"),
            ("https://u@h.example/x:y", "h.example"),
            ("http://[::1]:80/", "::1"),
            ("h", "h"),
        ] {
            assert_eq!(host_of(url), host, "{url}");
        }
    }

    // Nothing listens: the call was surely not carried out.
    #[test]
    fn refused_connections_are_not_sent() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let web = Web::new(&WebOptions::default(), None).unwrap();
        let call = Call { method: "POST", url: &url, headers: &[], body: b"" };
        let error = web.call(&call).unwrap_err();
        assert!(!error.may_be_done, "{error:?}");
    }

    // A file without a certificate is refused, by name.
    #[test]
    fn authorities() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let options = WebOptions { ca_file: Some(file.path().into()), ..WebOptions::default() };
        let error = Web::new(&options, None).unwrap_err().to_string();
        assert!(error.contains("there is none"), "{error}");
    }
}
