//! `stillpoint prune`: removes data that no snapshot needs any more.

mod explain;

use crate::args::WriteArgs;
use crate::clock;
use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::Problem;
use crate::output::Verbosity;
use crate::text::{self, Align, Table};
use crate::values;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use stillpoint_store::prune::{MaxUnused, PruneOptions, PruneReport, Stop};
use stillpoint_store::repository::Repository;

/// Options of `prune`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Backups, restores, checks and other prunes may run at the same time; nothing has to be locked or unlocked. Packs that \
are not needed any more are condemned first and deleted when the grace period is over, by this or a later prune. \
What is partly needed is packed again, in batches that are committed one by one: an interrupted prune loses nothing \
of what it did, and the next one goes on. On a full disk, what frees space is done first.

Examples:
  stillpoint prune --explain --dry-run      what could be freed now, what later, and why not yet
  stillpoint prune --max-unused 10%
  stillpoint prune --max-duration 1h        leaves the rest of the rewriting to the next prune
  stillpoint prune --now                    frees everything at once; what was forgotten cannot be taken back then")]
pub struct PruneArgs {
    /// Show what would be removed; change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    limits: PruneLimits,

    /// Believe this machine's clock, although it was set or lies behind the repository's
    #[arg(long)]
    ignore_clock: bool,

    #[command(flatten)]
    write: WriteArgs,
}

/// How far a prune goes.
#[derive(Debug, Args)]
pub struct PruneLimits {
    /// Tolerate this much unused data in packs that are still needed: a share, a size, or `unlimited`
    #[arg(long, value_name = "LIMIT", default_value = "5%", value_parser = unused)]
    max_unused: MaxUnused,

    /// Rewrite packs of no more than this size together; the next prune does the rest
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    max_repack_size: Option<u64>,

    /// Begin no more rewriting after this time; the next prune does the rest
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    max_duration: Option<Duration>,

    /// Rewrite also what older keys seal, after a `key rotate`
    #[arg(long)]
    reseal: bool,

    /// Keep forgotten snapshots, and what they need, this long: until then `undelete` brings them back
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = values::duration)]
    keep_forgotten: Duration,

    /// Keep condemned packs this long before they are deleted (30m, 36h, 7d)
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = values::duration)]
    grace: Duration,

    /// Free everything at once: the same as --keep-forgotten 0s --grace 0s
    #[arg(long, conflicts_with_all = ["keep_forgotten", "grace"])]
    now: bool,

    /// Show what can be freed now, what later, and why not yet; with -v for each pack
    #[arg(long)]
    explain: bool,
}

impl PruneLimits {
    fn keep_forgotten(&self) -> Duration {
        if self.now { Duration::ZERO } else { self.keep_forgotten }
    }

    fn grace(&self) -> Duration {
        if self.now { Duration::ZERO } else { self.grace }
    }
}

fn unused(text: &str) -> Result<MaxUnused, String> {
    if text == "unlimited" {
        return Ok(MaxUnused::Unlimited);
    }
    match text.strip_suffix('%') {
        None => values::size(text).map(MaxUnused::Bytes),
        Some(share) => match share.trim().parse::<f64>() {
            Ok(share) if (0.0..=100.0).contains(&share) => Ok(MaxUnused::Percent(share)),
            _ => Err(format!("`{text}` is not a share from 0% to 100%")),
        },
    }
}

/// Prunes the repository.
pub fn run(context: &Context, args: &PruneArgs) -> Result<Outcome> {
    let repository = context.open()?;
    check_clock(&repository, &args.limits, args.ignore_clock)?;
    prune(context, &repository, &args.limits, &args.write, args.dry_run)
}

/// Refuses when something would go because its time is over, and the clock that says so cannot be believed.
pub fn check_clock(repository: &Arc<Repository>, limits: &PruneLimits, ignore: bool) -> Result<()> {
    let is_timeless = limits.keep_forgotten().is_zero() && limits.grace().is_zero();
    if is_timeless { Ok(()) } else { clock::check(repository, ignore, "removed") }
}

/// Prunes an open repository; `forget --prune` ends here too.
pub fn prune(
    context: &Context,
    repository: &Arc<Repository>,
    limits: &PruneLimits,
    write: &WriteArgs,
    dry_run: bool,
) -> Result<Outcome> {
    let options = PruneOptions {
        dry_run,
        max_unused: limits.max_unused,
        max_repack_bytes: limits.max_repack_size,
        max_duration: limits.max_duration,
        reseal: limits.reseal,
        keep_forgotten: limits.keep_forgotten(),
        grace: limits.grace(),
        explain_packs: limits.explain && context.output.verbosity() >= Verbosity::Verbose,
        write: write.options(repository, dry_run),
        ..PruneOptions::default()
    };
    let report = repository.prune(&options).map_err(refused)?;
    let has_table = match limits.explain {
        true => explain::show(context, &report, dry_run)?,
        false => show(context, &report)?,
    };
    let lines = conclude(&report, limits, dry_run);
    if has_table && !lines.is_empty() {
        context.output.say("")?;
    }
    lines.iter().try_for_each(|line| context.output.say(line))?;
    warn(context, &report);
    context.output.message("summary", &Summary::new(&report, dry_run))?;
    let is_full = matches!(report.stop, Some(Stop::DiskFull(_)));
    Ok(Outcome::unless(is_full || !report.damaged.is_empty()))
}

/// A prune that finds data of live snapshots missing does nothing.
fn refused(error: stillpoint_store::Error) -> anyhow::Error {
    if !error.is_damage() {
        return error.into();
    }
    Problem::failed(
        error.to_string(),
        "nothing that is needed was removed; `stillpoint check` shows which snapshots are affected, `stillpoint repair` what can be done about it",
    )
}

/// Lists what became of the packs; false where there is nothing to list.
fn show(context: &Context, report: &PruneReport) -> Result<bool> {
    let output = &context.output;
    let plan = &report.plan;
    let mut table =
        Table::new(&[("", Align::Left), ("Packs", Align::Right), ("Size", Align::Right)]);
    let mut row = |what: &str, count: u64, bytes: Option<u64>| {
        if count > 0 {
            let bytes = bytes.map(text::size).unwrap_or_default();
            table.row([what.to_owned(), text::grouped(count), bytes]);
        }
    };
    let stays = plan.keep.len() + plan.tolerate.len() + plan.postpone.len();
    row("still needed", number(stays), None);
    row("not needed any more", number(plan.drop.len()), Some(plan.drop_bytes));
    row("partly needed, rewritten", number(plan.rewrite.len()), Some(plan.rewrite_bytes));
    row("left by interrupted runs", report.orphans, Some(report.orphan_bytes));
    row("young, perhaps being written", report.young_orphans, Some(report.young_bytes));
    row("condemned, waiting for their time", report.waiting, Some(report.waiting_bytes));
    row("condemned, deleted now", report.deleted, Some(report.deleted_bytes));
    let other = [report.orphans, report.young_orphans, report.waiting, report.deleted];
    let is_idle = plan.drop.is_empty() && plan.rewrite.is_empty() && other == [0; 4];
    if is_idle && report.expired == 0 {
        output.say("nothing to prune")?;
        return Ok(false);
    }
    table.lines().into_iter().try_for_each(|line| output.say(line))?;
    Ok(true)
}

/// What was done, what was not, and why.
fn conclude(report: &PruneReport, limits: &PruneLimits, dry_run: bool) -> Vec<String> {
    let plan = &report.plan;
    let mut lines = Vec::new();
    if report.expired > 0 {
        let snapshots = text::count(report.expired, "forgotten snapshot", "forgotten snapshots");
        let would = if dry_run { "would remove" } else { "removed" };
        lines.push(format!("{would} {snapshots} for good"));
    }
    let condemned = number(plan.drop.len()) + report.rewritten + report.orphans;
    if dry_run {
        lines.push("dry run: nothing was changed".into());
    } else if condemned > 0 {
        let packs = text::count(condemned, "pack", "packs");
        lines.push(match limits.grace() {
            grace if grace.is_zero() => format!("condemned and deleted {packs}"),
            grace => format!("condemned {packs}; deleted by the first prune after {}", long(grace)),
        });
    }
    match &report.stop {
        Some(Stop::TimeOver) => {
            lines.push("the time is over (--max-duration); the next prune goes on".into());
        }
        Some(Stop::Overtaken) => {
            lines
                .push("other processes were faster again and again; the next prune goes on".into());
        }
        Some(Stop::DiskFull(_)) | None => {}
    }
    if !plan.postpone.is_empty() {
        let packs = text::count(number(plan.postpone.len()), "pack", "packs");
        lines.push(format!("{packs} left to the next prune (--max-repack-size)"));
    }
    if plan.unused_bytes > 0 && plan.postpone.is_empty() && !limits.explain {
        let unused = text::size(plan.unused_bytes);
        lines
            .push(format!("{unused} of unused data stays in packs that are needed (--max-unused)"));
    }
    lines
}

/// What kept the prune from doing all of its work.
fn warn(context: &Context, report: &PruneReport) {
    for damage in &report.damaged {
        context.output.warn(format!("{}; its pack was not rewritten", text::message(damage)));
    }
    if let Some(Stop::DiskFull(error)) = &report.stop {
        let error = text::message(error);
        context.output.warn(format!(
            "{error}: there is no room to rewrite packs that are partly needed; all else was done"
        ));
    }
}

/// A duration in the words of its options.
fn long(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds >= 48 * 3600 => format!("{} days", seconds / (24 * 3600)),
        seconds if seconds >= 3600 && seconds.is_multiple_of(3600) => {
            text::count(seconds / 3600, "hour", "hours")
        }
        _ => text::duration(time),
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[derive(Serialize)]
struct Summary {
    dry_run: bool,
    snapshots_expired: u64,
    packs_kept: usize,
    packs_unneeded: usize,
    bytes_unneeded: u64,
    packs_rewritten: u64,
    bytes_rewritten: u64,
    packs_postponed: usize,
    packs_damaged: usize,
    stopped: Option<&'static str>,
    bytes_unused_left: u64,
    bytes_reclaimed: u64,
    bytes_held: u64,
    packs_orphaned: u64,
    bytes_orphaned: u64,
    packs_young: u64,
    bytes_young: u64,
    packs_waiting: u64,
    bytes_waiting: u64,
    packs_deleted: u64,
    bytes_deleted: u64,
}

impl Summary {
    fn new(report: &PruneReport, dry_run: bool) -> Self {
        let plan = &report.plan;
        let (rewritten, rewritten_bytes) = match dry_run {
            true => (number(plan.rewrite.len()), plan.rewrite_bytes),
            false => (report.rewritten, report.rewritten_bytes),
        };
        Self {
            dry_run,
            snapshots_expired: report.expired,
            packs_kept: plan.keep.len() + plan.tolerate.len() + plan.postpone.len(),
            packs_unneeded: plan.drop.len(),
            bytes_unneeded: plan.drop_bytes,
            packs_rewritten: rewritten,
            bytes_rewritten: rewritten_bytes,
            packs_postponed: plan.postpone.len(),
            packs_damaged: report.damaged.len(),
            stopped: report.stop.as_ref().map(|stop| match stop {
                Stop::TimeOver => "time over",
                Stop::DiskFull(_) => "disk full",
                Stop::Overtaken => "overtaken",
            }),
            bytes_unused_left: plan.unused_bytes,
            bytes_reclaimed: plan.reclaim_bytes,
            bytes_held: plan.held_bytes,
            packs_orphaned: report.orphans,
            bytes_orphaned: report.orphan_bytes,
            packs_young: report.young_orphans,
            bytes_young: report.young_bytes,
            packs_waiting: report.waiting,
            bytes_waiting: report.waiting_bytes,
            packs_deleted: report.deleted,
            bytes_deleted: report.deleted_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Shares, sizes and no limit, and nothing else.
    #[test]
    fn limits_are_parsed() {
        assert_eq!(unused("5%"), Ok(MaxUnused::Percent(5.0)));
        assert_eq!(unused("1G"), Ok(MaxUnused::Bytes(1 << 30)));
        assert_eq!(unused("unlimited"), Ok(MaxUnused::Unlimited));
        for wrong in ["101%", "-1%", "%", "x"] {
            assert!(unused(wrong).is_err(), "{wrong}");
        }
    }

    // Spans are said as people say them.
    #[test]
    fn spans_are_readable() {
        let hours = |hours: u64| long(Duration::from_secs(hours * 3600));
        assert_eq!([hours(1), hours(24), hours(168)], ["1 hour", "24 hours", "7 days"]);
    }
}
