//! bupstash: a key file instead of a passphrase, and no check of stored data.

use super::{Place, Tool};
use crate::measure::Invocation;
use std::path::{Path, PathBuf};

/// bupstash at this path.
pub struct Bupstash(pub PathBuf);

impl Bupstash {
    fn run<S: Into<std::ffi::OsString>>(
        &self,
        at: &Place,
        args: impl IntoIterator<Item = S>,
    ) -> Invocation {
        at.program(&self.0)
            .env("BUPSTASH_REPOSITORY", &at.repository)
            .env("BUPSTASH_KEY", at.home.join("bupstash.key"))
            .args(args)
    }
}

impl Tool for Bupstash {
    fn name(&self) -> &'static str {
        "bupstash"
    }

    fn version(&self) -> Invocation {
        Invocation::new(&self.0).args(["version"])
    }

    fn init(&self, at: &Place) -> Vec<Invocation> {
        let key = self.run(at, ["new-key", "-o"]).args([at.home.join("bupstash.key")]);
        vec![key, self.run(at, ["init"])]
    }

    fn backup(&self, at: &Place, label: &str, path: &Path) -> Vec<Invocation> {
        let level = format!("zstd:{}", at.level);
        let run = self.run(at, ["put", "--quiet", "--compression", &level, "--send-log"]);
        vec![run.args([at.home.join("send.log")]).args([format!("label={label}")]).args([path])]
    }

    fn backup_stream(&self, at: &Place, label: &str, stream: &Path) -> Vec<Invocation> {
        let mut runs = self.backup(at, label, Path::new("-"));
        runs[0].stdin = Some(stream.to_path_buf());
        runs
    }

    fn restore(&self, at: &Place, label: &str, _path: &Path, target: &Path) -> Vec<Invocation> {
        let run = self.run(at, ["restore", "--quiet", "--into"]).args([target]);
        vec![run.args([format!("label={label}")])]
    }

    fn restored(&self, _path: &Path, target: &Path) -> PathBuf {
        target.to_path_buf()
    }

    fn restore_stream(&self, at: &Place, label: &str, target: &Path) -> Vec<Invocation> {
        let mut run = self.run(at, ["get", "--quiet", &format!("label={label}")]);
        run.stdout = Some(target.to_path_buf());
        vec![run]
    }

    fn list(&self, at: &Place) -> Vec<Invocation> {
        vec![self.run(at, ["list", "--quiet"])]
    }

    fn check(&self, _at: &Place) -> Vec<Invocation> {
        Vec::new()
    }

    fn prune(&self, at: &Place, drop: &[String], _keep: usize) -> Vec<Invocation> {
        let remove = |label: &String| self.run(at, ["rm", "--quiet", &format!("label={label}")]);
        drop.iter().map(remove).chain([self.run(at, ["gc", "--quiet"])]).collect()
    }
}
