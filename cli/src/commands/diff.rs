//! `stillpoint diff`: shows what changed between two snapshots.

use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::Problem;
use crate::json;
use crate::listing;
use crate::text::{self, Align, Table};
use crate::values::{self, SnapshotPath};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::path::Path;
use stillpoint_archive::Entry;
use stillpoint_archive::diff::{DiffCount, DiffEntry, DiffStats, Difference, diff};
use stillpoint_store::Snapshot;

/// Options of `diff`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Each line is a sign and a path:
  +   added
  -   removed
  M   content changed
  U   metadata changed (with --metadata)
  T   type changed, for instance from a file to a directory

Examples:
  stillpoint diff latest~1 latest
  stillpoint diff --metadata 3f2a91c0:/etc latest:/etc")]
pub struct DiffArgs {
    /// The snapshot before
    #[arg(value_name = "SNAPSHOT[:/PATH]", value_parser = values::snapshot_path_parser())]
    before: SnapshotPath,

    /// The snapshot after
    #[arg(value_name = "SNAPSHOT[:/PATH]", value_parser = values::snapshot_path_parser())]
    after: SnapshotPath,

    /// Also show entries of which only metadata changed
    #[arg(long)]
    metadata: bool,
}

/// Prints the differences in path order, and their sums.
pub fn run(context: &Context, args: &DiffArgs) -> Result<Outcome> {
    let key = |spec: &SnapshotPath| listing::key(spec.path.as_deref(), Path::new(""));
    let prefix = key(&args.before)?;
    if prefix != key(&args.after)? {
        return Err(Problem::usage(
            "the two paths differ",
            "name the same path with both snapshots, as in A:/etc B:/etc",
        ));
    }
    let repository = context.open()?;
    let before = repository.find_snapshot(&args.before.snapshot)?;
    let after = repository.find_snapshot(&args.after.snapshot)?;
    let (id, other) = (before.id.short(), after.id.short());
    context.output.say(format!("from snapshot {id} to {other}:"))?;
    context.output.say("")?;
    let reader = repository.reader()?;
    let mut stats = DiffStats::default();
    for found in diff(&reader, before.record.root, after.record.root, &prefix)? {
        let found = found?;
        stats.count(&found);
        show(context, args, &found)?;
    }
    summarise(context, [&before, &after], &stats)?;
    Ok(Outcome::Complete)
}

fn show(context: &Context, args: &DiffArgs, found: &DiffEntry) -> Result<()> {
    #[derive(Serialize)]
    struct Changed<'a> {
        #[serde(flatten)]
        path: json::Path<'a>,
        modifier: &'a str,
    }
    let modifier = match found.difference {
        Difference::Added => "+",
        Difference::Removed => "-",
        Difference::TypeChanged => "T",
        Difference::Modified { content: true, metadata } if metadata && args.metadata => "MU",
        Difference::Modified { content: true, .. } => "M",
        Difference::Modified { content: false, .. } if args.metadata => "U",
        Difference::Modified { .. } => return Ok(()),
    };
    let mut path = listing::path_bytes(&found.key);
    let entry = found.new.as_ref().or(found.old.as_ref());
    if entry.is_some_and(Entry::is_directory) && path != b"/" {
        path.push(b'/');
    }
    context.output.line(format!("{modifier:<3} {}", text::name(&path)))?;
    context.output.message("change", &Changed { path: json::Path::item(&path), modifier })?;
    Ok(())
}

fn summarise(context: &Context, snapshots: [&Snapshot; 2], stats: &DiffStats) -> Result<()> {
    #[derive(Serialize)]
    struct Count {
        files: u64,
        dirs: u64,
        others: u64,
        bytes: u64,
    }
    #[derive(Serialize)]
    struct Statistics {
        source_snapshot: String,
        target_snapshot: String,
        changed_files: u64,
        added: Count,
        removed: Count,
        content_changed: Count,
        metadata_changed: Count,
    }
    let json = |count: &DiffCount| Count {
        files: count.files,
        dirs: count.directories,
        others: count.others,
        bytes: count.bytes,
    };
    let columns = [
        ("", Align::Left),
        ("Files", Align::Right),
        ("Directories", Align::Right),
        ("Others", Align::Right),
        ("Size", Align::Right),
    ];
    let mut table = Table::new(&columns);
    for (word, count) in [
        ("added", &stats.added),
        ("removed", &stats.removed),
        ("content changed", &stats.content_changed),
        ("metadata changed", &stats.metadata_changed),
    ] {
        table.row([
            word.to_owned(),
            text::grouped(count.files),
            text::grouped(count.directories),
            text::grouped(count.others),
            text::size(count.bytes),
        ]);
    }
    context.output.say("")?;
    table.lines().into_iter().try_for_each(|line| context.output.say(line))?;
    let [before, after] = snapshots;
    let statistics = Statistics {
        source_snapshot: before.id.to_string(),
        target_snapshot: after.id.to_string(),
        changed_files: stats.content_changed.files,
        added: json(&stats.added),
        removed: json(&stats.removed),
        content_changed: json(&stats.content_changed),
        metadata_changed: json(&stats.metadata_changed),
    };
    context.output.message("statistics", &statistics)?;
    Ok(())
}
