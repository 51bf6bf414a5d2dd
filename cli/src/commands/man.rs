//! `stillpoint man`: writes the man pages, made from the same definitions as `--help`.

use crate::args::Cli;
use crate::context::Context;
use crate::exit::Outcome;
use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _};
use serde::Serialize;
use std::fs;
use std::path::PathBuf;

/// Options of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Directory for the pages; it is created when it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Writes `stillpoint.1` and a page for each command.
pub fn run(context: &Context, args: &ManArgs) -> Result<Outcome> {
    #[derive(Serialize)]
    struct Written {
        pages: usize,
    }
    // Man pages are for everybody.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    fs::create_dir_all(&args.out).with_context(|| format!("creating {}", args.out.display()))?;
    let failed = || format!("writing man pages to {}", args.out.display());
    clap_mangen::generate_to(Cli::command(), &args.out).with_context(failed)?;
    let pages = fs::read_dir(&args.out).with_context(failed)?.count();
    context.output.say(format!("wrote {pages} pages to {}", args.out.display()))?;
    context.output.message("man", &Written { pages })?;
    Ok(Outcome::Complete)
}
