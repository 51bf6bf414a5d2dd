//! A PostgreSQL server of its own for one test.

use super::{Server, command, directory, first, run};
use rustix::process::Signal;
use std::path::{Path, PathBuf};

/// A PostgreSQL server on a socket in a directory of its own. The role `postgres` needs no password there; the role
/// `secret`, if a test makes it, does.
pub struct PostgresServer {
    directory: tempfile::TempDir,
    server: Option<Server>,
}

const ACCESS: &str = "local all secret scram-sha-256\nlocal all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";

impl PostgresServer {
    /// Starts one; None, said on stderr, where PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// Starts one with these settings (`name=value`).
    pub fn start_with(settings: &[&str]) -> Option<Self> {
        let Some(programs) = Self::programs() else {
            eprintln!("skipped: no PostgreSQL server is installed");
            return None;
        };
        let mut this = Self { directory: directory(), server: None };
        let data = this.data();
        let initdb = [
            "--auth=trust",
            "--username=postgres",
            "--no-sync",
            "--encoding=UTF8",
            "--no-instructions",
        ];
        run(command(&programs.join("initdb")).args(initdb).arg("-D").arg(&data));
        std::fs::write(data.join("pg_hba.conf"), ACCESS).unwrap();
        this.start_again(settings);
        Some(this)
    }

    /// Starts one that also listens on `localhost`, encrypted and for passwords only, with a certificate of its own for that
    /// name. Gives the port and the certificate.
    pub fn start_encrypted() -> Option<(Self, u16, PathBuf)> {
        if first([PathBuf::from("/usr/bin/openssl")]).is_none() {
            eprintln!("skipped: no openssl is installed");
            return None;
        }
        let mut this = Self::start()?;
        this.kill();
        let (key, certificate) = (this.socket().join("key"), this.socket().join("certificate"));
        let mut make = command(Path::new("openssl"));
        make.args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "9",
            "-subj",
            "/CN=localhost",
        ]);
        make.args([
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ]);
        run(make.arg("-keyout").arg(&key).arg("-out").arg(&certificate));
        // Free a moment ago; somebody may take it before the server does, and the test fails then.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            "ssl=on".to_owned(),
            format!("ssl_key_file={}", key.display()),
            format!("ssl_cert_file={}", certificate.display()),
        ];
        this.start_again(&settings.each_ref().map(String::as_str));
        Some((this, port, certificate))
    }

    /// Starts the server after it was stopped.
    pub fn start_again(&mut self, settings: &[&str]) {
        let programs = Self::programs().unwrap();
        let mut server = command(&programs.join("postgres"));
        server.arg("-D").arg(self.data()).arg("-k").arg(self.directory.path());
        let own = [
            "listen_addresses=",
            "fsync=off",
            "logging_collector=off",
            "log_destination=stderr",
            "shared_buffers=16MB",
        ];
        for setting in own.iter().chain(settings) {
            server.args(["-c", setting]);
        }
        self.server = Some(Server::start(&mut server, "ready to accept connections"));
    }

    /// Where the server's programs are: of the newest version that is installed.
    pub fn programs() -> Option<PathBuf> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
        let mut versions: Vec<_> =
            versions.map(|entry| entry.path().join("bin/postgres")).collect();
        versions.sort();
        let found = first(versions.into_iter().rev().chain(["/usr/bin/postgres".into()]))?;
        found.parent().map(Path::to_path_buf)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The directory of the socket.
    pub fn socket(&self) -> &Path {
        self.directory.path()
    }

    /// The URL of a database for the role `postgres`.
    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    /// The URL of a database for a role, with its password if it has one.
    pub fn url_as(&self, role: &str, database: &str) -> String {
        format!("postgresql://{role}@/{database}?host={}", self.directory.path().display())
    }

    /// Ends the server at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.signal(Signal::QUIT);
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
    }
}
