//! rustic: restic's repository format in Rust; level 3 is set in the repository.

use super::{Place, Tool};
use crate::measure::Invocation;
use std::path::{Path, PathBuf};

/// rustic at this path.
pub struct Rustic(pub PathBuf);

impl Rustic {
    fn run<S: Into<std::ffi::OsString>>(
        &self,
        at: &Place,
        args: impl IntoIterator<Item = S>,
    ) -> Invocation {
        at.program(&self.0)
            .env("RUSTIC_REPOSITORY", &at.repository)
            .env("RUSTIC_PASSWORD_FILE", &at.passphrase)
            .env("RUSTIC_NO_PROGRESS", "true")
            .args(args)
    }
}

impl Tool for Rustic {
    fn name(&self) -> &'static str {
        "rustic"
    }

    fn version(&self) -> Invocation {
        Invocation::new(&self.0).args(["--version"])
    }

    fn init(&self, at: &Place) -> Vec<Invocation> {
        vec![self.run(at, ["init", "--set-compression", &at.level.to_string()])]
    }

    fn backup(&self, at: &Place, label: &str, path: &Path) -> Vec<Invocation> {
        vec![self.run(at, ["backup", "--label", label]).args([path])]
    }

    fn backup_stream(&self, at: &Place, label: &str, stream: &Path) -> Vec<Invocation> {
        let mut run =
            self.run(at, ["backup", "--label", label, "--stdin-filename", "dump.sql", "-"]);
        run.stdin = Some(stream.to_path_buf());
        vec![run]
    }

    fn restore(&self, at: &Place, _label: &str, path: &Path, target: &Path) -> Vec<Invocation> {
        let from = format!("latest:{}", path.display());
        vec![self.run(at, ["restore", &from]).args([target])]
    }

    fn restored(&self, _path: &Path, target: &Path) -> PathBuf {
        target.to_path_buf()
    }

    fn restore_stream(&self, at: &Place, _label: &str, target: &Path) -> Vec<Invocation> {
        let mut run = self.run(at, ["dump", "latest:dump.sql"]);
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
        let forget =
            ["forget", "--group-by", "", "--keep-last", &keep.to_string()].map(String::from);
        vec![self.run(at, forget), self.run(at, ["prune", "--instant-delete"])]
    }
}
