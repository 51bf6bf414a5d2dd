//! `stillpoint dump`: prints a file, or a directory as a tar archive, to standard output.

use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::{self, in_snapshot};
use crate::json;
use crate::listing;
use crate::text;
use crate::values::{self, SnapshotPath};
use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use stillpoint_archive::Problem;
use stillpoint_archive::dump::dump;
use stillpoint_store::Reader;
use stillpoint_store::tree::Root;

/// Options of `dump`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  stillpoint dump latest /etc/fstab
  stillpoint dump latest shop.sql | psql shop
  stillpoint dump latest:/home/me project | tar t")]
pub struct DumpArgs {
    /// The snapshot; with :/PATH the directory that PATH is relative to
    #[arg(value_name = "SNAPSHOT[:/PATH]", value_parser = values::snapshot_path_parser())]
    snapshot: SnapshotPath,

    /// The file or directory
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    target: Option<PathBuf>,
}

/// Writes the file or archive.
pub fn run(context: &Context, args: &DumpArgs) -> Result<Outcome> {
    let to_stdout = args.target.is_none();
    if to_stdout && context.output.is_json() {
        return Err(failure::Problem::usage(
            "the content of a file is not JSON",
            "with --json name a file to write to: --target FILE",
        ));
    }
    let repository = context.open()?;
    let snapshot = repository.find_snapshot(&args.snapshot.snapshot)?;
    let key = listing::key(args.snapshot.path.as_deref(), &args.path)?;
    let reader = repository.reader()?;
    let root = snapshot.record.root;
    let (problems, bytes) = match &args.target {
        None => (into_stdout(context, &reader, root, &key)?, None),
        Some(path) => {
            let (problems, bytes) = into_file(&reader, root, &key, path)?;
            (problems, Some(bytes))
        }
    };
    for problem in &problems {
        context.output.problem("dump", problem.path.as_os_str().as_bytes(), &problem.what);
    }
    if let Some(bytes) = bytes {
        let path = listing::path_bytes(&key);
        let message = Dumped { path: json::Path::item(&path), bytes };
        context.output.say(format!("wrote {}", text::size(bytes)))?;
        context.output.message("summary", &message)?;
    }
    Ok(Outcome::unless(!problems.is_empty()))
}

#[derive(Serialize)]
struct Dumped<'a> {
    #[serde(flatten)]
    path: json::Path<'a>,
    bytes: u64,
}

fn into_stdout(context: &Context, reader: &Reader, root: Root, key: &[u8]) -> Result<Vec<Problem>> {
    let mut out = context.output.raw();
    let problems = in_snapshot(dump(reader, root, key, &mut out))?;
    out.flush()?;
    Ok(problems)
}

fn into_file(reader: &Reader, root: Root, key: &[u8], path: &Path) -> Result<(Vec<Problem>, u64)> {
    let failed = || format!("writing {}", path.display());
    let file = std::fs::File::create(path).with_context(failed)?;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
    let problems = in_snapshot(dump(reader, root, key, &mut out))?;
    let file = out.into_inner().map_err(|error| error.into_error()).with_context(failed)?;
    file.sync_all().with_context(failed)?;
    Ok((problems, file.metadata().with_context(failed)?.len()))
}
