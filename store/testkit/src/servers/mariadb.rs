//! A MariaDB server of its own for one test.

use super::{Server, command, directory, first, run};
use rustix::process::Signal;
use std::path::{Path, PathBuf};

/// A MariaDB server on a socket in a directory of its own; `root` needs no password there.
pub struct MariadbServer {
    directory: tempfile::TempDir,
    server: Option<Server>,
}

impl MariadbServer {
    /// Starts one; None, said on stderr, where MariaDB is not installed.
    pub fn start() -> Option<Self> {
        let Some((install, server)) =
            Self::program("mariadb-install-db").zip(Self::program("mariadbd"))
        else {
            eprintln!("skipped: no MariaDB server is installed");
            return None;
        };
        let directory = directory();
        let data = directory.path().join("data");
        let at = format!("--datadir={}", data.display());
        let make =
            ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"];
        // Several servers with one directory for temporary tables remove each other's.
        let scratch = format!("--tmpdir={}", directory.path().display());
        run(command(&install).arg("--no-defaults").args([&at, &scratch]).args(make));
        let mut start = command(&server);
        start.arg("--no-defaults").args([&at, &scratch]);
        start.arg(format!("--socket={}", directory.path().join("socket").display()));
        start.args([
            "--skip-networking",
            "--innodb-buffer-pool-size=16M",
            "--innodb-flush-log-at-trx-commit=0",
        ]);
        let server = Server::start(&mut start, "ready for connections");
        Some(Self { directory, server: Some(server) })
    }

    /// Where one of its programs is.
    pub fn program(name: &str) -> Option<PathBuf> {
        first(["/usr/bin", "/usr/sbin"].map(|place| Path::new(place).join(name)))
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// The URL of a database for a user, with its password if it has one.
    pub fn url_as(&self, user: &str, database: &str) -> String {
        format!("mysql://{user}@localhost/{database}?socket={}", self.socket().display())
    }

    /// The URL of a database for `root`.
    pub fn url(&self, database: &str) -> String {
        self.url_as("root", database)
    }

    /// Ends the server at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.signal(Signal::KILL);
        }
    }
}

impl Drop for MariadbServer {
    fn drop(&mut self) {
        self.kill();
    }
}
