//! A connection to PostgreSQL, encrypted as libpq would do it, and what its refusals mean.

use super::libpq::{Settings, SslMode, unusable};
use crate::database::refused;
use crate::error::{Error, Result};
use postgres::config::{ChannelBinding, Config};
use postgres::error::SqlState;
use postgres::{Client, NoTls};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long a connection may take, unless the settings say so.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Where Debian and Fedora keep the authorities that the system trusts (`sslrootcert=system`).
const SYSTEM_ROOTS: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// Connects.
///
/// # Errors
/// `Refused` with what to do.
pub(super) fn connect(settings: &Settings) -> Result<Client> {
    let mut config = Config::new();
    config.application_name("stillpoint").connect_timeout(timeout(settings)?);
    config.dbname(settings.database());
    if let Some(user) = settings.get("user") {
        config.user(user);
    }
    if let Some(password) = settings.password() {
        config.password(password.reveal());
    }
    if let Some(options) = settings.get("options") {
        config.options(options);
    }
    let mut is_local = true;
    for (host, port) in settings.hosts() {
        config.host(host).port(port.parse().map_err(|_| unusable("port", port))?);
        is_local &= host.starts_with('/');
    }
    if let Some(addresses) = settings.get("hostaddr") {
        for address in addresses.split(',') {
            config.hostaddr(address.parse().map_err(|_| unusable("hostaddr", address))?);
        }
        is_local = false;
    }
    match settings.get("channel_binding") {
        Some("require") => drop(config.channel_binding(ChannelBinding::Require)),
        Some("disable") => drop(config.channel_binding(ChannelBinding::Disable)),
        _ => {}
    }
    let mode = settings.ssl_mode()?;
    let connected = if is_local || mode == SslMode::Disable {
        config.ssl_mode(postgres::config::SslMode::Disable).connect(NoTls)
    } else {
        config.ssl_mode(match mode {
            SslMode::Prefer => postgres::config::SslMode::Prefer,
            _ => postgres::config::SslMode::Require,
        });
        config.connect(MakeRustlsConnect::new(encryption(settings, mode)?))
    };
    connected.map_err(|error| explain(settings, &error))
}

fn timeout(settings: &Settings) -> Result<Duration> {
    match settings.get("connect_timeout") {
        None | Some("0") => Ok(CONNECT_TIMEOUT),
        Some(text) => {
            let seconds = text.parse().map_err(|_| unusable("connect_timeout", text))?;
            // libpq waits at least two.
            Ok(Duration::from_secs(std::cmp::max(seconds, 2)))
        }
    }
}

/// What a refused connection means, and what to do.
fn explain(settings: &Settings, error: &postgres::Error) -> Error {
    let (database, place) = (settings.database(), settings.place());
    let told = message(error);
    let what = format!("no connection to PostgreSQL, database {database} on {place}: {told}");
    let hint = match error.code() {
        Some(code) if *code == SqlState::INVALID_PASSWORD => {
            "check the password: PGPASSWORD, ~/.pgpass (mode 600), or the URL"
        }
        Some(code) if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "check the role in the URL and the server's pg_hba.conf; `peer` wants the system user of the same name"
        }
        Some(code) if *code == SqlState::INVALID_CATALOG_NAME => {
            "check the name of the database: `psql -l` lists those that exist"
        }
        Some(code) if *code == SqlState::TOO_MANY_CONNECTIONS => {
            "raise max_connections of the server, or end connections that nobody needs"
        }
        Some(_) => "see the server's log",
        None if told.contains("password missing") => {
            "give the password in PGPASSWORD, ~/.pgpass (mode 600), or the URL"
        }
        None if told.contains("TLS") || told.contains("certificate") => {
            "check sslmode, sslrootcert, and whether the server has `ssl = on`"
        }
        None => {
            "check that the server runs there, and host and port (a directory is a socket's place)"
        }
    };
    refused(what, hint)
}

/// An error with its causes in one line.
pub(super) fn message(error: &postgres::Error) -> String {
    if let Some(told) = error.as_db_error() {
        let detail = told.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
        return format!("{}{detail}", told.message());
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}

/// How this mode encrypts: `require` trusts any server unless there is a root certificate, as libpq has it.
fn encryption(settings: &Settings, mode: SslMode) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let roots = roots(settings)?;
    let inner = match (roots, mode) {
        (None, SslMode::VerifyCa | SslMode::VerifyFull) => {
            return Err(refused(
                "there is no root certificate to check the server's with",
                "name one: sslrootcert=FILE (or sslrootcert=system), or put it into ~/.postgresql/root.crt",
            ));
        }
        (None, _) => None,
        (Some(roots), _) => {
            let builder =
                WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone());
            Some(builder.build().map_err(|error| bad_certificate(&error))?)
        }
    };
    let check_name = mode == SslMode::VerifyFull || settings.get("sslrootcert") == Some("system");
    let verifier = Verifier { inner, check_name, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad_certificate(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let own =
        settings.file("sslcert", "postgresql.crt").zip(settings.file("sslkey", "postgresql.key"));
    let Some((certificate, key)) = own else { return Ok(config.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_file(&key).map_err(|error| bad_file(&key, &error))?;
    config
        .with_client_auth_cert(certificates(&certificate)?, key)
        .map_err(|error| bad_certificate(&error))
}

fn roots(settings: &Settings) -> Result<Option<RootCertStore>> {
    let path = match settings.file("sslrootcert", "root.crt") {
        Some(path) if path == Path::new("system") => {
            let known = SYSTEM_ROOTS.into_iter().map(PathBuf::from).find(|path| path.is_file());
            known.ok_or_else(|| unusable("sslrootcert", "system"))?
        }
        Some(path) => path,
        None => return Ok(None),
    };
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates(&path)?);
    if store.is_empty() {
        return Err(bad_file(&path, &"no certificate in it"));
    }
    Ok(Some(store))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    found.map_err(|error| bad_file(path, &error))
}

fn bad_file(path: &Path, error: &dyn std::fmt::Display) -> Error {
    let what = format!("{} cannot be used: {error}", path.display());
    refused(what, "check sslrootcert, sslcert and sslkey: they want files in PEM")
}

fn bad_certificate(error: &dyn std::fmt::Display) -> Error {
    refused(
        format!("certificates cannot be used: {error}"),
        "check sslrootcert, sslcert and sslkey",
    )
}

/// Checks certificates as far as the mode wants.
#[derive(Debug)]
struct Verifier {
    /// None: any certificate will do.
    inner: Option<Arc<WebPkiServerVerifier>>,
    check_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                NotValidForName | NotValidForNameContext { .. },
            )) if !self.check_name => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
