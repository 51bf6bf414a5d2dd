//! borg: `repokey-blake2` encryption; a check with `--verify-data` decrypts and verifies every chunk.

use super::{Place, Tool, below};
use crate::measure::Invocation;
use std::path::{Path, PathBuf};

/// borg at this path.
pub struct Borg(pub PathBuf);

impl Borg {
    fn run<S: Into<std::ffi::OsString>>(
        &self,
        at: &Place,
        args: impl IntoIterator<Item = S>,
    ) -> Invocation {
        let passphrase = format!("cat {}", at.passphrase.display());
        at.program(&self.0)
            .env("BORG_REPO", &at.repository)
            .env("BORG_PASSCOMMAND", passphrase)
            .env("BORG_BASE_DIR", &at.home)
            .args(args)
    }
}

impl Tool for Borg {
    fn name(&self) -> &'static str {
        "borg"
    }

    fn version(&self) -> Invocation {
        Invocation::new(&self.0).args(["--version"])
    }

    fn init(&self, at: &Place) -> Vec<Invocation> {
        vec![self.run(at, ["init", "--encryption", "repokey-blake2"])]
    }

    fn backup(&self, at: &Place, label: &str, path: &Path) -> Vec<Invocation> {
        let compression = format!("zstd,{}", at.level);
        vec![
            self.run(at, ["create", "--compression", &compression, &format!("::{label}")])
                .args([path]),
        ]
    }

    fn backup_stream(&self, at: &Place, label: &str, stream: &Path) -> Vec<Invocation> {
        let compression = format!("zstd,{}", at.level);
        let name = format!("::{label}");
        let mut run = self.run(
            at,
            ["create", "--compression", &compression, "--stdin-name", "dump.sql", &name, "-"],
        );
        run.stdin = Some(stream.to_path_buf());
        vec![run]
    }

    fn restore(&self, at: &Place, label: &str, _path: &Path, target: &Path) -> Vec<Invocation> {
        let mut run = self.run(at, ["extract", &format!("::{label}")]);
        run.directory = Some(target.to_path_buf());
        vec![run]
    }

    fn restored(&self, path: &Path, target: &Path) -> PathBuf {
        below(path, target)
    }

    fn restore_stream(&self, at: &Place, label: &str, target: &Path) -> Vec<Invocation> {
        let mut run = self.run(at, ["extract", "--stdout", &format!("::{label}")]);
        run.stdout = Some(target.to_path_buf());
        vec![run]
    }

    fn list(&self, at: &Place) -> Vec<Invocation> {
        vec![self.run(at, ["list"])]
    }

    fn check(&self, at: &Place) -> Vec<Invocation> {
        vec![self.run(at, ["check", "--verify-data"])]
    }

    fn prune(&self, at: &Place, _drop: &[String], keep: usize) -> Vec<Invocation> {
        vec![self.run(at, ["prune", "--keep-last", &keep.to_string()]), self.run(at, ["compact"])]
    }
}
