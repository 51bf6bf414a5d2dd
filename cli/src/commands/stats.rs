//! `stillpoint stats`: how much is stored, and how well it is deduplicated.

use crate::context::Context;
use crate::exit::Outcome;
use crate::selection;
use crate::text::{self, Align, Table};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use stillpoint_store::HeadView;
use stillpoint_store::repository::Snapshot;

/// Options of `stats`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
All figures come from the catalogue and the snapshot records: it takes no longer for a large repository. What single \
snapshots would free is shown by `stillpoint forget --prune --dry-run`.")]
pub struct StatsArgs {}

/// The figures; sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Stats {
    snapshots: u64,
    files_in_snapshots: u64,
    total_size: u64,
    latest_size: u64,
    stored_size: u64,
    reduction: f64,
    packs: u64,
    data_chunks: u64,
    node_chunks: u64,
    condemned_packs: u64,
    condemned_size: u64,
    head: u64,
}

/// Prints the figures.
pub fn run(context: &Context, _: &StatsArgs) -> Result<Outcome> {
    let repository = context.open()?;
    let view = repository.head()?;
    let snapshots = repository.snapshots_of(&view)?;
    let stats = gather(&view, &snapshots)?;
    let mut table = Table::new(&[("", Align::Left), ("", Align::Right)]);
    let mut row = |what: &str, value: String| table.row([what.to_owned(), value]);
    row("snapshots", text::grouped(stats.snapshots));
    row("files in all snapshots", text::grouped(stats.files_in_snapshots));
    row("size of all snapshots, if restored", text::size(stats.total_size));
    row("size of the newest snapshot", text::size(stats.latest_size));
    row("stored", text::size(stats.stored_size));
    row("reduction", format!("{:.2} to 1", stats.reduction));
    row("packs", text::grouped(stats.packs));
    row("chunks of data", text::grouped(stats.data_chunks));
    row("nodes of manifests", text::grouped(stats.node_chunks));
    if stats.condemned_packs > 0 {
        row("condemned packs that wait", text::grouped(stats.condemned_packs));
        row("their size", text::size(stats.condemned_size));
    }
    // Neither heading says anything here.
    table.lines().into_iter().skip(2).try_for_each(|line| context.output.line(line))?;
    context.output.message("stats", &stats)?;
    Ok(Outcome::Complete)
}

fn gather(view: &HeadView, snapshots: &[Snapshot]) -> Result<Stats> {
    let mut stats = Stats { head: view.seq(), ..Stats::default() };
    for snapshot in snapshots {
        let summary = &snapshot.record.summary;
        stats.snapshots += 1;
        stats.files_in_snapshots += selection::files(summary);
        stats.total_size = stats.total_size.saturating_add(summary.bytes_total);
        stats.latest_size = summary.bytes_total;
    }
    for pack in view.packs()?.values() {
        stats.packs += 1;
        stats.stored_size = stats.stored_size.saturating_add(pack.size_bytes);
        stats.data_chunks += u64::from(pack.data_chunks);
        stats.node_chunks += u64::from(pack.node_chunks);
    }
    for tombstone in view.tombstones()?.values() {
        stats.condemned_packs += 1;
        stats.condemned_size = stats.condemned_size.saturating_add(tombstone.size_bytes);
    }
    if stats.stored_size > 0 {
        stats.reduction = stats.total_size as f64 / stats.stored_size as f64;
    }
    Ok(stats)
}
