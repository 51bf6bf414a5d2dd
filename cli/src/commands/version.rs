//! `stillpoint version`: the versions of the program and of the repository format.

use crate::context::Context;
use crate::exit::Outcome;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use stillpoint_store::record::config::FORMAT_VERSION;

/// Options of `version`.
#[derive(Debug, Args)]
pub struct VersionArgs {}

/// What the program calls itself, also in snapshot records.
pub const PROGRAM: &str = concat!("stillpoint ", env!("CARGO_PKG_VERSION"));

/// Prints the versions.
pub fn run(context: &Context) -> Result<Outcome> {
    #[derive(Serialize)]
    struct Version {
        version: &'static str,
        repository_format: u32,
        os: &'static str,
        arch: &'static str,
    }
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    context.output.line(format!("{PROGRAM}, repository format {FORMAT_VERSION}, {os} {arch}"))?;
    let version = env!("CARGO_PKG_VERSION");
    context
        .output
        .message("version", &Version { version, repository_format: FORMAT_VERSION, os, arch })?;
    Ok(Outcome::Complete)
}
