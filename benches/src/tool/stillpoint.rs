//! stillpoint itself, through its command line like every other tool.

use super::{Place, Tool, below};
use crate::measure::Invocation;
use std::path::{Path, PathBuf};

/// stillpoint, and what opens its repository.
pub struct Stillpoint {
    /// The program.
    pub program: PathBuf,
    /// Take the passphrase file as a key file, which costs no key derivation (as bupstash does).
    pub key_file: bool,
}

impl Stillpoint {
    fn run<S: Into<std::ffi::OsString>>(
        &self,
        at: &Place,
        args: impl IntoIterator<Item = S>,
    ) -> Invocation {
        let secret = if self.key_file { "STILLPOINT_KEY_FILE" } else { "STILLPOINT_PASSWORD_FILE" };
        at.program(&self.program)
            .env("STILLPOINT_REPOSITORY", &at.repository)
            .env(secret, &at.passphrase)
            .args(args)
    }

    fn snapshot(&self, at: &Place, label: &str) -> Invocation {
        let level = at.level.to_string();
        self.run(at, ["snapshot", "--quiet", "--compression", &level, "--tag", label])
    }
}

impl Tool for Stillpoint {
    fn name(&self) -> &'static str {
        "stillpoint"
    }

    fn version(&self) -> Invocation {
        Invocation::new(&self.program).args(["--version"])
    }

    fn init(&self, at: &Place) -> Vec<Invocation> {
        vec![self.run(at, ["init"])]
    }

    fn backup(&self, at: &Place, label: &str, path: &Path) -> Vec<Invocation> {
        vec![self.snapshot(at, label).args([path])]
    }

    fn backup_stream(&self, at: &Place, label: &str, stream: &Path) -> Vec<Invocation> {
        let mut run = self.snapshot(at, label).args(["--stdin", "--stdin-filename", "dump.sql"]);
        run.stdin = Some(stream.to_path_buf());
        vec![run]
    }

    fn restore(&self, at: &Place, _label: &str, _path: &Path, target: &Path) -> Vec<Invocation> {
        vec![self.run(at, ["restore", "--quiet", "latest", "--target"]).args([target])]
    }

    fn restored(&self, path: &Path, target: &Path) -> PathBuf {
        below(path, target)
    }

    fn restore_stream(&self, at: &Place, _label: &str, target: &Path) -> Vec<Invocation> {
        let mut run = self.run(at, ["dump", "latest", "dump.sql"]);
        run.stdout = Some(target.to_path_buf());
        vec![run]
    }

    fn list(&self, at: &Place) -> Vec<Invocation> {
        vec![self.run(at, ["snapshots"])]
    }

    fn check(&self, at: &Place) -> Vec<Invocation> {
        vec![self.run(at, ["check", "--read-data"])]
    }

    fn prune(&self, at: &Place, _drop: &[String], keep: usize) -> Vec<Invocation> {
        let keep = keep.to_string();
        let forget = [
            "forget",
            "--group-by",
            "",
            "--keep-last",
            &keep,
            "--prune",
            "--keep-forgotten",
            "0s",
            "--grace",
            "0s",
        ];
        vec![self.run(at, forget)]
    }
}
