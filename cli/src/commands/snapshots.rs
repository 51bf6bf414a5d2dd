//! `stillpoint snapshots`: lists the snapshots.

use crate::args::FilterArgs;
use crate::context::Context;
use crate::exit::Outcome;
use crate::selection::{self, SnapshotJson};
use crate::text::{self, Align, Table};
use anyhow::Result;
use clap::Args;
use std::collections::BTreeMap;
use std::sync::Arc;
use stillpoint_store::Repository;
use stillpoint_store::repository::Snapshot;

/// Options of `snapshots`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  stillpoint snapshots --host web1 --latest 3
  stillpoint snapshots --json | jq -r .short_id")]
pub struct SnapshotsArgs {
    /// Only these snapshots
    #[arg(value_name = "SNAPSHOT")]
    ids: Vec<String>,

    #[command(flatten)]
    filter: FilterArgs,

    /// Only the newest N of each host and set of paths
    #[arg(long, value_name = "N")]
    latest: Option<usize>,

    /// One short line each: no paths, no sizes
    #[arg(short, long)]
    compact: bool,

    /// The forgotten snapshots that `undelete` can bring back, and until when
    #[arg(long, conflicts_with = "latest")]
    forgotten: bool,
}

/// Prints the list, oldest first.
pub fn run(context: &Context, args: &SnapshotsArgs) -> Result<Outcome> {
    let repository = context.open()?;
    if args.forgotten {
        return forgotten(context, args, &repository);
    }
    let found = if args.ids.is_empty() {
        repository.snapshots()?
    } else {
        args.ids.iter().map(|spec| repository.find_snapshot(spec)).collect::<Result<Vec<_>, _>>()?
    };
    let mut shown = selection::select(&args.filter, found);
    if let Some(newest) = args.latest {
        shown = keep_latest(shown, newest);
    }
    if context.output.is_json() {
        for snapshot in &shown {
            context.output.message("snapshot", &SnapshotJson::new(snapshot))?;
        }
        return Ok(Outcome::Complete);
    }
    if !shown.is_empty() {
        context.output.lines(table(&shown, args.compact).lines())?;
        context.output.say("")?;
    }
    let count = u64::try_from(shown.len()).unwrap_or(u64::MAX);
    context.output.say(text::count(count, "snapshot", "snapshots"))?;
    Ok(Outcome::Complete)
}

/// Prints the forgotten ones, the longest forgotten first.
fn forgotten(
    context: &Context,
    args: &SnapshotsArgs,
    repository: &Arc<Repository>,
) -> Result<Outcome> {
    let mut shown = match args.ids.is_empty() {
        true => repository.forgotten()?,
        false => {
            let found = args.ids.iter().map(|spec| repository.find_forgotten(spec));
            found.collect::<Result<Vec<_>, _>>()?
        }
    };
    shown.retain(|one| selection::matches(&args.filter, &one.snapshot));
    let mut columns = vec![
        ("ID", Align::Left),
        ("Time", Align::Left),
        ("Host", Align::Left),
        ("Tags", Align::Left),
        ("Forgotten", Align::Left),
        ("Until", Align::Left),
    ];
    if !args.compact {
        columns.push(("Paths", Align::Left));
    }
    let mut table = Table::new(&columns);
    for one in &shown {
        context.output.message("snapshot", &SnapshotJson::forgotten(one))?;
        let record = &one.snapshot.record;
        let row = [
            one.snapshot.id.short(),
            text::time(record.time),
            text::safe(&record.host),
            text::safe(&record.tags.join(",")),
            text::time(one.forgotten),
            text::time(selection::recoverable_until(one)),
            selection::paths(&one.snapshot),
        ];
        table.row(row.into_iter().take(columns.len()));
    }
    if !shown.is_empty() {
        context.output.lines(table.lines())?;
        context.output.say("")?;
    }
    let count = u64::try_from(shown.len()).unwrap_or(u64::MAX);
    let count = text::count(count, "forgotten snapshot", "forgotten snapshots");
    context.output.say(match shown.is_empty() {
        true => count,
        false => format!("{count}; `stillpoint undelete` brings them back"),
    })?;
    Ok(Outcome::Complete)
}

/// The newest few of each host and set of paths, in the order they came.
fn keep_latest(snapshots: Vec<Snapshot>, newest: usize) -> Vec<Snapshot> {
    let mut seen: BTreeMap<_, usize> = BTreeMap::new();
    let mut kept: Vec<_> = snapshots
        .into_iter()
        .rev()
        .filter(|snapshot| {
            let group = (snapshot.record.host.clone(), snapshot.record.paths.clone());
            let count = seen.entry(group).or_default();
            *count += 1;
            *count <= newest
        })
        .collect();
    kept.reverse();
    kept
}

fn table(snapshots: &[Snapshot], compact: bool) -> Table {
    let mut columns = vec![
        ("ID", Align::Left),
        ("Time", Align::Left),
        ("Host", Align::Left),
        ("Tags", Align::Left),
    ];
    let has_protected = snapshots.iter().any(|snapshot| snapshot.protected);
    if has_protected {
        columns.push(("Kept", Align::Left));
    }
    if !compact {
        columns.extend([("Size", Align::Right), ("Added", Align::Right), ("Paths", Align::Left)]);
    }
    let mut table = Table::new(&columns);
    for snapshot in snapshots {
        let record = &snapshot.record;
        let mut row = vec![
            snapshot.id.short(),
            text::time(record.time),
            text::safe(&record.host),
            text::safe(&record.tags.join(",")),
        ];
        if has_protected {
            row.push(if snapshot.protected { "protected".into() } else { String::new() });
        }
        row.extend([
            text::size(record.summary.bytes_total),
            text::size(record.summary.bytes_stored),
            selection::paths(snapshot),
        ]);
        table.row(row.into_iter().take(columns.len()));
    }
    table
}
