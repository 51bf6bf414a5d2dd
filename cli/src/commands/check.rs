//! `stillpoint check`: verifies the repository.

use crate::context::Context;
use crate::exit::Outcome;
use crate::progress::Progress;
use crate::text;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::time::Duration;
use stillpoint_store::Finding;
use stillpoint_store::check::{CheckOptions, CheckReport};

/// Options of `check`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Without options it verifies everything but the packs' content: head, catalogue, snapshot records, pack footers, and \
that every snapshot's manifest and data lie in packs that are there. With --read-data it also reads, opens and \
verifies every pack.

Damage is listed with the snapshots it touches; the exit code is then 1. Backups may run at the same time.")]
pub struct CheckArgs {
    /// Also read and verify all data
    #[arg(long)]
    read_data: bool,
}

/// Checks, lists what is damaged, and says whether all is well.
pub fn run(context: &Context, args: &CheckArgs) -> Result<Outcome> {
    let repository = context.open()?;
    let progress = Progress::start(&context.output, &context.cancel, "check");
    let options = CheckOptions { read_data: args.read_data };
    let report = repository.check(options, &|done, total| progress.set_items(done, total))?;
    let duration = progress.finish();
    for finding in &report.findings {
        show(context, finding)?;
    }
    summarise(context, args, &report, duration)?;
    Ok(if report.findings.is_empty() { Outcome::Complete } else { Outcome::Negative })
}

fn show(context: &Context, finding: &Finding) -> Result<()> {
    #[derive(Serialize)]
    struct Found<'a> {
        object: Option<String>,
        snapshot: Option<String>,
        message: &'a str,
    }
    let object = finding.object.map(|object| object.to_string());
    let snapshot = finding.snapshot.map(|snapshot| snapshot.to_string());
    let place = object.as_deref().unwrap_or("repository");
    let reached = finding
        .snapshot
        .map_or(String::new(), |snapshot| format!(" (snapshot {})", snapshot.short()));
    context.output.line(format!("damage: {place}{reached}: {}", text::safe(&finding.detail)))?;
    context.output.message("finding", &Found { object, snapshot, message: &finding.detail })?;
    Ok(())
}

fn summarise(
    context: &Context,
    args: &CheckArgs,
    report: &CheckReport,
    duration: Duration,
) -> Result<()> {
    #[derive(Serialize)]
    struct Summary {
        num_errors: usize,
        snapshots: u64,
        packs: u64,
        chunks: u64,
        orphan_packs: u64,
        read_data: bool,
        bytes_read: u64,
        total_duration: f64,
    }
    let output = &context.output;
    output.say(format!(
        "checked {}, {}, {}",
        text::count(report.snapshots, "snapshot", "snapshots"),
        text::count(report.packs, "pack", "packs"),
        text::count(report.chunks, "chunk", "chunks"),
    ))?;
    if args.read_data {
        output.say(format!("read and verified {}", text::size(report.bytes_read)))?;
    }
    if report.orphans > 0 {
        let packs = text::count(report.orphans, "pack", "packs");
        output.say(format!("{packs} without use: left by interrupted runs, or being written right now; `prune` removes what is left over"))?;
    }
    match report.findings.len() {
        0 => output.say(format!("no damage found ({})", text::duration(duration)))?,
        found => output.line(format!(
            "{} found",
            text::count(u64::try_from(found).unwrap_or(u64::MAX), "damage", "damages")
        ))?,
    }
    let summary = Summary {
        num_errors: report.findings.len(),
        snapshots: report.snapshots,
        packs: report.packs,
        chunks: report.chunks,
        orphan_packs: report.orphans,
        read_data: args.read_data,
        bytes_read: report.bytes_read,
        total_duration: duration.as_secs_f64(),
    };
    output.message("summary", &summary)?;
    Ok(())
}
