//! `stillpoint ls`: lists the files of a snapshot.

use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::in_snapshot;
use crate::listing::{self, Node};
use crate::selection::SnapshotJson;
use crate::values::{self, SnapshotPath};
use anyhow::Result;
use clap::Args;
use stillpoint_archive::Entry;
use stillpoint_archive::listing::{Depth, list};

/// Options of `ls`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  stillpoint ls latest                      everything
  stillpoint ls -l latest:/etc              one directory
  stillpoint ls --recursive latest:/etc     and all below it")]
pub struct LsArgs {
    /// The snapshot; with :/PATH the file or directory to list
    #[arg(value_name = "SNAPSHOT[:/PATH]", value_parser = values::snapshot_path_parser())]
    snapshot: SnapshotPath,

    /// Files and directories to list; without one, the whole snapshot
    #[arg(value_name = "PATH")]
    paths: Vec<std::path::PathBuf>,

    /// Also everything below the directories
    #[arg(long)]
    recursive: bool,

    /// Also type, permissions, owner, size and time
    #[arg(short, long)]
    long: bool,
}

/// Lists what is asked for, in the order of paths.
pub fn run(context: &Context, args: &LsArgs) -> Result<Outcome> {
    let repository = context.open()?;
    let snapshot = repository.find_snapshot(&args.snapshot.snapshot)?;
    let base = args.snapshot.path.as_deref();
    let whole = base.is_none() && args.paths.is_empty();
    let depth = if whole || args.recursive { Depth::All } else { Depth::Children };
    let reader = repository.reader()?;
    let output = &context.output;
    output.message("snapshot", &SnapshotJson::new(&snapshot))?;
    let mut visit = |key: &[u8], entry: &Entry| {
        if output.is_json() {
            let path = listing::path_bytes(key);
            let node = Node::new(key, &path, entry);
            return output.message("node", &node).map_err(listing::output_failed);
        }
        output.line(listing::line(key, entry, args.long)).map_err(listing::output_failed)
    };
    let itself = [std::path::PathBuf::new()];
    let paths = if args.paths.is_empty() { &itself[..] } else { &args.paths };
    for path in paths {
        let key = listing::key(base, path)?;
        in_snapshot(list(&reader, snapshot.record.root, &key, depth, &mut visit))?;
    }
    Ok(Outcome::Complete)
}
