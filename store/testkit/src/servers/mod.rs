//! Real database servers for tests: started as an unprivileged user on private sockets, gone when they are dropped.
//!
//! A server dies with the thread that started it, whatever way that ends. Where the programs are missing, a test says so
//! and is skipped.

mod mariadb;
mod postgres;

pub use mariadb::MariadbServer;
pub use postgres::PostgresServer;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// How long a server may take to start.
const START_MAX: Duration = Duration::from_secs(60);
/// Who servers run as where tests run as root: most servers refuse to run as root.
const NOBODY: u32 = 65_534;

/// A directory that the servers' user owns, short enough for sockets.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix("sp-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    if is_root() {
        chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    directory
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command as the servers' user, which dies with the thread that starts it.
fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if is_root() {
        let id = NOBODY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    }
    command.arg(program).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC").stdin(Stdio::null()).current_dir("/tmp");
    command
}

/// Runs a command to its end; it must succeed.
#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The first of these files that exists.
fn first(candidates: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    candidates.into_iter().find(|path| path.is_file())
}

/// A running server.
struct Server {
    child: Child,
}

impl Server {
    /// Starts a server and waits until its log says that it is ready.
    fn start(command: &mut Command, ready: &'static str) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = child.stderr.take().unwrap();
        let (sender, is_ready) = channel();
        std::thread::spawn(move || {
            let mut said = Vec::new();
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                let found = line.contains(ready);
                said.push(line);
                if found {
                    let _ = sender.send(Ok(()));
                }
            }
            let _ = sender.send(Err(said));
        });
        match is_ready.recv_timeout(START_MAX) {
            Ok(Ok(())) => Self { child },
            Ok(Err(said)) => panic!("{command:?} ended: {said:#?}"),
            Err(_) => panic!("{command:?} is not ready after {START_MAX:?}"),
        }
    }

    /// Sends a signal.
    fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(id, signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.wait();
    }
}
