//! `stillpoint prune`: removes data that no snapshot needs any more.

use crate::args::WriteArgs;
use crate::clock;
use crate::context::Context;
use crate::exit::Outcome;
use crate::text::{self, Align, Table};
use crate::values;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use stillpoint_store::prune::{MaxUnused, PruneOptions, PruneReport};
use stillpoint_store::repository::Repository;

/// Options of `prune`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Backups, restores and checks may run at the same time; nothing has to be locked or unlocked. Packs that are not \
needed any more are condemned first and deleted when the grace period is over, by this or a later prune.

Examples:
  stillpoint prune --dry-run
  stillpoint prune --max-unused 10%
  stillpoint prune --grace 0s          deletes at once; a restore that runs meanwhile may then fail")]
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

    /// Keep forgotten snapshots, and what they need, this long: until then `undelete` brings them back
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = values::duration)]
    keep_forgotten: Duration,

    /// Keep condemned packs this long before they are deleted (30m, 36h, 7d)
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = values::duration)]
    grace: Duration,
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
    let is_timeless = limits.keep_forgotten.is_zero() && limits.grace.is_zero();
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
        keep_forgotten: limits.keep_forgotten,
        grace: limits.grace,
        write: write.options(repository, dry_run),
        ..PruneOptions::default()
    };
    let report = repository.prune(&options)?;
    show(context, &report, limits, dry_run)?;
    Ok(Outcome::Complete)
}

fn show(context: &Context, report: &PruneReport, limits: &PruneLimits, dry: bool) -> Result<()> {
    let output = &context.output;
    let plan = &report.plan;
    let packs = |count: usize| text::count(count.try_into().unwrap_or(u64::MAX), "pack", "packs");
    let mut table =
        Table::new(&[("", Align::Left), ("Packs", Align::Right), ("Size", Align::Right)]);
    let mut row = |what: &str, count: u64, bytes: Option<u64>| {
        if count > 0 {
            let bytes = bytes.map(text::size).unwrap_or_default();
            table.row([what.to_owned(), text::grouped(count), bytes]);
        }
    };
    let number = |list: &Vec<_>| u64::try_from(list.len()).unwrap_or(u64::MAX);
    row("still needed", number(&plan.keep), None);
    row("not needed any more", number(&plan.drop), Some(plan.drop_bytes));
    row("partly needed, rewritten", number(&plan.rewrite), Some(plan.rewrite_bytes));
    row("left by interrupted runs", report.orphans, Some(report.orphan_bytes));
    row("young, perhaps being written", report.young_orphans, None);
    row("condemned, waiting for their time", report.waiting, Some(report.waiting_bytes));
    row("condemned earlier, deleted now", report.deleted, Some(report.deleted_bytes));
    let other = [report.orphans, report.young_orphans, report.waiting, report.deleted];
    if plan.drop.is_empty() && plan.rewrite.is_empty() && other == [0; 4] {
        output.say("nothing to prune")?;
    } else {
        table.lines().into_iter().try_for_each(|line| output.say(line))?;
        output.say("")?;
    }
    let condemned = plan.drop.len() + plan.rewrite.len();
    if dry {
        output.say("dry run: nothing was changed")?;
    } else if condemned > 0 || report.orphans > 0 {
        let hours = limits.grace.as_secs() / 3600;
        output.say(format!(
            "condemned {}; deleted by the first prune after {}",
            packs(condemned.saturating_add(report.orphans.try_into().unwrap_or(0))),
            if hours >= 48 { format!("{} days", hours / 24) } else { text::duration(limits.grace) },
        ))?;
    }
    if plan.unused_bytes > 0 {
        let unused = text::size(plan.unused_bytes);
        output.say(format!(
            "{unused} of unused data stays in packs that are needed (--max-unused)"
        ))?;
    }
    output.message("summary", &Summary::new(report, dry))?;
    Ok(())
}

#[derive(Serialize)]
struct Summary {
    dry_run: bool,
    packs_kept: usize,
    packs_unneeded: usize,
    bytes_unneeded: u64,
    packs_rewritten: usize,
    bytes_rewritten: u64,
    bytes_unused_left: u64,
    bytes_reclaimed: u64,
    packs_orphaned: u64,
    bytes_orphaned: u64,
    packs_young: u64,
    packs_waiting: u64,
    bytes_waiting: u64,
    packs_deleted: u64,
    bytes_deleted: u64,
}

impl Summary {
    fn new(report: &PruneReport, dry_run: bool) -> Self {
        let plan = &report.plan;
        Self {
            dry_run,
            packs_kept: plan.keep.len(),
            packs_unneeded: plan.drop.len(),
            bytes_unneeded: plan.drop_bytes,
            packs_rewritten: plan.rewrite.len(),
            bytes_rewritten: plan.rewrite_bytes,
            bytes_unused_left: plan.unused_bytes,
            bytes_reclaimed: plan.reclaim_bytes,
            packs_orphaned: report.orphans,
            bytes_orphaned: report.orphan_bytes,
            packs_young: report.young_orphans,
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
}
