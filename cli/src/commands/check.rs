//! `stillpoint check`: verifies the repository.

use crate::context::Context;
use crate::damage::{self, Novelty};
use crate::exit::Outcome;
use crate::json;
use crate::progress::Progress;
use crate::text;
use crate::values;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use stillpoint_store::Finding;
use stillpoint_store::check::{CheckOptions, CheckReport, DataOptions, DataReport, Ledger, Share};
use stillpoint_store::repository::Repository;

/// Options of `check`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Without options it verifies everything but the packs' content: configuration, keys, head, catalogue, snapshot records, \
pack footers, and that every snapshot's manifest and data lie in packs that are there. With --read-data it also reads, \
opens and verifies every pack. The repository remembers when each pack was last verified: parts of the data are read \
the longest unverified first, so that runs of `--read-data-subset 10%` or `--max-duration 1h` go round all of it.

Damage is listed with the snapshots and files it touches; the exit code is then 1, and `stillpoint repair --dry-run` \
says what can be done. Backups may run at the same time.

Examples:
  stillpoint check
  stillpoint check --read-data-subset 5%
  stillpoint check --max-age 30d --max-duration 2h     what was not verified for 30 days, for at most two hours")]
pub struct CheckArgs {
    /// Also read and verify all data
    #[arg(long)]
    read_data: bool,

    /// Read and verify a part of the data: slice N of T, a share, or an amount
    #[arg(long, value_name = "N/T|X%|SIZE", value_parser = share, conflicts_with = "read_data")]
    read_data_subset: Option<Share>,

    /// Read only packs whose last verification is older than this (36h, 30d)
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    max_age: Option<Duration>,

    /// Begin no other pack after this time (30m, 2h); the next check goes on from there
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    max_duration: Option<Duration>,
}

impl CheckArgs {
    fn options(&self) -> CheckOptions {
        let Self { read_data, read_data_subset, max_age, max_duration } = *self;
        let reads =
            read_data || read_data_subset.is_some() || max_age.is_some() || max_duration.is_some();
        let share = read_data_subset.unwrap_or_default();
        let data = DataOptions { share, max_age, max_duration, ..DataOptions::default() };
        CheckOptions { data: reads.then_some(data) }
    }
}

/// Parses `2/7`, `5%` or `20G`.
fn share(text: &str) -> Result<Share, String> {
    if let Some((number, of)) = text.split_once('/') {
        return match (number.parse(), of.parse()) {
            (Ok(number), Ok(of)) if (1..=of).contains(&number) => Ok(Share::Slice { number, of }),
            _ => Err(format!("`{text}` is not a slice; examples: 1/7, 7/7")),
        };
    }
    let Some(percent) = text.strip_suffix('%') else {
        return values::size(text).map(Share::Bytes);
    };
    match percent.trim().parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => {
            let hundredths = text::whole((percent * 100.0).ceil());
            Ok(Share::Hundredths(u32::try_from(hundredths).unwrap_or(10_000)))
        }
        _ => Err(format!("`{text}` is not a share; examples: 5%, 0.5%")),
    }
}

/// Checks, lists what is damaged, and says whether all is well.
pub fn run(context: &Context, args: &CheckArgs) -> Result<Outcome> {
    let repository = context.open()?;
    let progress = Progress::start(&context.output, &context.cancel, "check");
    let report =
        repository.check(args.options(), &|done, total| progress.set_items(done, total))?;
    let duration = progress.finish();
    for finding in &report.findings {
        show(context, finding)?;
    }
    let files = show_touched(context, &repository, &report)?;
    summarise(context, &report, files, duration)?;
    Ok(if report.findings.is_empty() { Outcome::Complete } else { Outcome::Negative })
}

/// Names the files of snapshots that cannot be restored whole; gives the number of those that nobody knew of.
fn show_touched(
    context: &Context,
    repository: &Arc<Repository>,
    report: &CheckReport,
) -> Result<u64> {
    let files = match &report.damage {
        Some(damage) => damage::show(context, repository, damage, Novelty::New)?,
        None => 0,
    };
    if let Some(known) = &report.known {
        damage::show(context, repository, known, Novelty::Known)?;
        context.output.say(
            "what is known to be lost is stored again by the next snapshot of files that hold it",
        )?;
    }
    Ok(files)
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
    // Snapshots that are touched are named with their files.
    if snapshot.is_none() {
        context.output.line(format!("damage: {place}: {}", text::safe(&finding.detail)))?;
    }
    context.output.message("finding", &Found { object, snapshot, message: &finding.detail })?;
    Ok(())
}

#[derive(Serialize)]
struct Summary {
    num_errors: u64,
    snapshots: u64,
    forgotten_snapshots: u64,
    packs: u64,
    chunks: u64,
    parity_objects: u64,
    orphan_packs: u64,
    damaged_files: u64,
    lost_chunks: u64,
    known_lost_chunks: u64,
    read_data: bool,
    bytes_read: u64,
    packs_chosen: u64,
    packs_read: u64,
    packs_verified: u64,
    packs_never_verified: Option<u64>,
    oldest_verification: Option<String>,
    ledger_written: Option<bool>,
    total_duration: f64,
}

fn summarise(
    context: &Context,
    report: &CheckReport,
    damaged_files: u64,
    duration: Duration,
) -> Result<()> {
    let output = &context.output;
    output.say(format!(
        "checked {}, {}, {}",
        text::count(report.snapshots, "snapshot", "snapshots"),
        text::count(report.packs, "pack", "packs"),
        text::count(report.chunks, "chunk", "chunks"),
    ))?;
    if let Some(data) = &report.data {
        say_data(context, data)?;
    }
    if report.orphans > 0 {
        let packs = text::count(report.orphans, "pack", "packs");
        output.say(format!("{packs} without use: left by interrupted runs, or being written right now; `prune` removes what is left over"))?;
    }
    match report.finding_count() {
        0 => output.say(format!("no damage found ({})", text::duration(duration)))?,
        found => {
            output.line(format!("{} found", text::count(found, "damage", "damages")))?;
            output.say("`stillpoint repair --dry-run` says what can be done")?;
        }
    }
    let data = report.data.clone().unwrap_or_default();
    let lost = |damage: &Option<Arc<_>>| {
        damage
            .as_ref()
            .map_or(0, |damage: &Arc<stillpoint_store::check::Damage>| damage.lost_count())
    };
    let reads = report.data.is_some();
    let summary = Summary {
        num_errors: report.finding_count(),
        snapshots: report.snapshots,
        forgotten_snapshots: report.forgotten,
        packs: report.packs,
        chunks: report.chunks,
        parity_objects: report.parity_objects,
        orphan_packs: report.orphans,
        damaged_files,
        lost_chunks: lost(&report.damage),
        known_lost_chunks: lost(&report.known),
        read_data: reads,
        bytes_read: data.bytes_read,
        packs_chosen: data.chosen,
        packs_read: data.read,
        packs_verified: data.verified,
        packs_never_verified: reads.then_some(data.never),
        oldest_verification: data.oldest.map(json::moment),
        ledger_written: match data.ledger {
            Ledger::Untouched => None,
            Ledger::Written(_) => Some(true),
            Ledger::Failed(_) => Some(false),
        },
        total_duration: duration.as_secs_f64(),
    };
    output.message("summary", &summary)?;
    Ok(())
}

fn say_data(context: &Context, data: &DataReport) -> Result<()> {
    let output = &context.output;
    let packs = |count| text::count(count, "pack", "packs");
    output.say(format!("read {} in {}", text::size(data.bytes_read), packs(data.read)))?;
    if data.read < data.chosen {
        let left = packs(data.chosen - data.read);
        output.say(format!("{left} left when the time was up; the next check begins with them"))?;
    }
    if data.never > 0 {
        output.say(format!("{} never verified so far", packs(data.never)))?;
    } else if let Some(oldest) = data.oldest {
        output.say(format!("all packs were verified since {}", text::time(oldest)))?;
    }
    if let Ledger::Failed(why) = &data.ledger {
        output.warn(format!("when packs were verified was not written down: {why}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Slices, shares and sizes, and nothing that means none of them.
    #[test]
    fn parts_are_parsed() {
        assert_eq!(share("2/7"), Ok(Share::Slice { number: 2, of: 7 }));
        assert_eq!(share("7/7"), Ok(Share::Slice { number: 7, of: 7 }));
        assert_eq!(share("5%"), Ok(Share::Hundredths(500)));
        assert_eq!(share("0.001%"), Ok(Share::Hundredths(1)));
        assert_eq!(share("20G"), Ok(Share::Bytes(20 << 30)));
        for wrong in ["0/7", "8/7", "1/0", "a/b", "0%", "101%", "-1%", "%", "x", ""] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
