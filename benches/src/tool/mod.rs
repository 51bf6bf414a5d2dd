//! The tools under comparison: one adapter each, which only says which commands to run.
//!
//! Every tool encrypts, compresses with zstd at a comparable level where it can, and keeps its cache outside the
//! repository.

mod borg;
mod bupstash;
mod restic;
mod rustic;
mod stillpoint;

use crate::measure::Invocation;
use std::path::{Path, PathBuf};

/// Where one tool works.
#[derive(Debug, Clone)]
pub struct Place {
    /// The repository.
    pub repository: PathBuf,
    /// The tool's home folder, for caches and configuration.
    pub home: PathBuf,
    /// A file with the passphrase.
    pub passphrase: PathBuf,
    /// The zstd level.
    pub level: u8,
}

impl Place {
    /// A program whose caches go to this place.
    fn program(&self, program: &Path) -> Invocation {
        Invocation::new(program)
            .env("HOME", &self.home)
            .env("XDG_CACHE_HOME", self.home.join("cache"))
            .env("XDG_CONFIG_HOME", self.home.join("config"))
    }
}

/// One tool. Snapshots are named by a label that is unique within a repository.
pub trait Tool {
    /// The tool's name in the tables.
    fn name(&self) -> &'static str;
    /// Prints the version.
    fn version(&self) -> Invocation;
    /// Creates the repository.
    fn init(&self, at: &Place) -> Vec<Invocation>;
    /// Backs up a directory.
    fn backup(&self, at: &Place, label: &str, path: &Path) -> Vec<Invocation>;
    /// Backs up a file as a stream on standard input, named `dump.sql`.
    fn backup_stream(&self, at: &Place, label: &str, stream: &Path) -> Vec<Invocation>;
    /// Restores the newest snapshot into an empty directory.
    fn restore(&self, at: &Place, label: &str, path: &Path, target: &Path) -> Vec<Invocation>;
    /// Where the restored copy of `path` then stands.
    fn restored(&self, path: &Path, target: &Path) -> PathBuf;
    /// Writes the newest snapshot's `dump.sql` to a file.
    fn restore_stream(&self, at: &Place, label: &str, target: &Path) -> Vec<Invocation>;
    /// Lists the snapshots.
    fn list(&self, at: &Place) -> Vec<Invocation>;
    /// Checks everything, reading all data; empty where the tool cannot.
    fn check(&self, at: &Place) -> Vec<Invocation>;
    /// Drops these snapshots (`keep` newest ones stay) and frees their space at once.
    fn prune(&self, at: &Place, drop: &[String], keep: usize) -> Vec<Invocation>;
}

/// Every tool, found below a private root of peers, on the path, or beside this program.
pub fn all(peers: &Path, own: &Path, key_file: bool) -> Vec<Box<dyn Tool>> {
    let peer = |name: &str| {
        let private = peers.join("bin").join(name);
        if private.exists() { private } else { PathBuf::from(name) }
    };
    vec![
        Box::new(stillpoint::Stillpoint { program: own.to_path_buf(), key_file }),
        Box::new(restic::Restic(peer("restic"))),
        Box::new(borg::Borg(peer("borg"))),
        Box::new(rustic::Rustic(peer("rustic"))),
        Box::new(bupstash::Bupstash(peer("bupstash"))),
    ]
}

/// A restore that recreates the absolute path below its target.
fn below(path: &Path, target: &Path) -> PathBuf {
    target.join(path.strip_prefix("/").unwrap_or(path))
}
