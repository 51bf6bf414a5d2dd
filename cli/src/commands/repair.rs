//! `stillpoint repair`: brings a damaged repository back in order.

use crate::args::WriteArgs;
use crate::context::Context;
use crate::damage::{self, Novelty};
use crate::exit::Outcome;
use crate::progress::Progress;
use crate::text;
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use stillpoint_archive::node_references;
use stillpoint_store::PackId;
use stillpoint_store::repair::{
    CataloguePlan, PackPlan, Parts, RecordPlan, Remedy, RepairOptions, RepairPlan, RepairReport,
};
use stillpoint_store::repository::Repository;

/// Options of `repair`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Nothing is deleted: what is damaged is condemned, and a later `prune` deletes it when its grace is over. What can be \
read of a damaged pack is stored again; what is nowhere is listed as lost, and the files that need it are named. The \
next snapshot of such files stores it again, and old snapshots that need it are whole again, too. Backups, restores \
and prunes may run at the same time. A repository that is sound is left as it is.

Packs are read whole only where a check on this host found damage, or with --read-data.

Examples:
  stillpoint repair --dry-run
  stillpoint repair --read-data
  stillpoint repair index              the local index alone, whatever its state")]
pub struct RepairArgs {
    /// Repair only this; nothing: whatever needs it
    #[arg(value_name = "PART", value_enum)]
    parts: Vec<Part>,

    /// Show what would be done; change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Read and verify all data first, to find damage that nobody knows of
    #[arg(long)]
    read_data: bool,

    /// Read this pack first (its id; may be repeated)
    #[arg(long, value_name = "ID", value_parser = pack)]
    pack: Vec<PackId>,

    #[command(flatten)]
    write: WriteArgs,
}

/// A part of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The local index: dropped and built anew
    Index,
    /// The head and the catalogue
    Catalogue,
    /// Lost and damaged packs
    Packs,
    /// Lost and damaged records of snapshots
    Snapshots,
}

fn pack(text: &str) -> Result<PackId, String> {
    PackId::from_hex(text).ok_or_else(|| format!("`{text}` is not the id of a pack (32 digits)"))
}

impl RepairArgs {
    fn parts(&self) -> Parts {
        if self.parts.is_empty() {
            return Parts::default();
        }
        let has = |part| self.parts.contains(&part);
        Parts {
            index: has(Part::Index),
            catalogue: has(Part::Catalogue),
            packs: has(Part::Packs),
            snapshots: has(Part::Snapshots),
        }
    }
}

/// Repairs, and says what was done and what is lost.
pub fn run(context: &Context, args: &RepairArgs) -> Result<Outcome> {
    let repository = context.open()?;
    let options = RepairOptions {
        dry_run: args.dry_run,
        parts: args.parts(),
        read_all: args.read_data,
        packs: args.pack.clone(),
        write: args.write.options(&repository, false),
        ..RepairOptions::new(node_references)
    };
    let progress = Progress::start(&context.output, &context.cancel, "repair");
    let report = repository.repair(&options, &|done, total| progress.set_items(done, total))?;
    let duration = progress.finish();
    show_plan(context, &report.plan, args.dry_run)?;
    let files = show_losses(context, &repository, &report)?;
    summarise(context, args, &report, files, duration)?;
    let is_damaged = report.after.as_ref().is_some_and(|after| after.finding_count() > 0);
    let is_lossy = report.plan.chunks_given_up > 0 || set_aside(&report.plan) > 0;
    Ok(match (is_damaged, is_lossy && !args.dry_run) {
        (true, _) => Outcome::Negative,
        (false, is_lossy) => Outcome::unless(is_lossy),
    })
}

fn set_aside(plan: &RepairPlan) -> usize {
    plan.catalogue.as_ref().map_or(0, |catalogue| catalogue.snapshots_set_aside.len())
}

fn show_plan(context: &Context, plan: &RepairPlan, is_dry: bool) -> Result<()> {
    if let Some(catalogue) = &plan.catalogue {
        show_catalogue(context, catalogue, is_dry)?;
    }
    for pack in &plan.packs {
        show_pack(context, pack, is_dry)?;
    }
    let groups = |count: usize| text::count(count.try_into().unwrap_or(0), "group", "groups");
    if !plan.parity_healed.is_empty() {
        let (count, would) =
            (groups(plan.parity_healed.len()), if is_dry { "would be " } else { "" });
        context.output.line(format!("parity of {count}: damaged, {would}computed again"))?;
    }
    if !plan.parity_given_up.is_empty() {
        let count = groups(plan.parity_given_up.len());
        context.output.line(format!(
            "parity of {count}: too much is lost, given up; `parity add` protects the packs again"
        ))?;
    }
    for record in &plan.records {
        show_record(context, record, is_dry)?;
    }
    let output = &context.output;
    let chunks = |count| text::count(count, "chunk", "chunks");
    let would = if is_dry { "would be " } else { "" };
    if plan.chunks_rescued > 0 {
        let (rescued, bytes) = (chunks(plan.chunks_rescued), text::size(plan.bytes_rescued));
        output.line(format!("{rescued} ({bytes}) {would}stored again"))?;
    }
    if plan.chunks_back > 0 {
        let back = chunks(plan.chunks_back);
        output.line(format!("{back} given up earlier, there again or not needed any more"))?;
    }
    if plan.chunks_given_up > 0 {
        let lost = chunks(plan.chunks_given_up);
        output.line(format!("{lost} that snapshots need {would}given up: they are nowhere"))?;
    }
    if plan.index {
        output.line(if is_dry {
            "the index would be built anew"
        } else {
            "built the index anew"
        })?;
    }
    Ok(())
}

fn show_catalogue(context: &Context, plan: &CataloguePlan, is_dry: bool) -> Result<()> {
    #[derive(Serialize)]
    struct Catalogue<'a> {
        reason: &'a str,
        head: u64,
        nodes_read: u64,
        nodes_lost: u64,
        packs_listed: u64,
        packs_found: usize,
        packs_condemned: u64,
        snapshots_listed: u64,
        snapshots_found: Vec<String>,
        snapshots_set_aside: Vec<String>,
    }
    let output = &context.output;
    let would = if is_dry { "would be " } else { "" };
    output.line(format!("catalogue: {}; {would}built anew:", text::safe(&plan.reason)))?;
    let packs = |count| text::count(count, "pack", "packs");
    output.line(format!(
        "  {} listed, {} found, {} condemned; {} listed",
        packs(plan.packs_listed),
        plan.packs_found.len(),
        plan.packs_condemned,
        text::count(plan.snapshots_listed, "snapshot", "snapshots"),
    ))?;
    for id in &plan.snapshots_found {
        output.line(format!(
            "  snapshot {}: found and whole; it may have been forgotten meanwhile, or never completed",
            id.short()
        ))?;
    }
    for id in &plan.snapshots_set_aside {
        output.line(format!(
            "  snapshot {}: found, but not whole or perhaps forgotten; put among the forgotten ones (`undelete` takes it back)",
            id.short()
        ))?;
    }
    let ids =
        |list: &[stillpoint_store::SnapshotId]| list.iter().map(ToString::to_string).collect();
    let message = Catalogue {
        reason: &plan.reason,
        head: plan.seq,
        nodes_read: plan.nodes_read,
        nodes_lost: plan.nodes_lost,
        packs_listed: plan.packs_listed,
        packs_found: plan.packs_found.len(),
        packs_condemned: plan.packs_condemned,
        snapshots_listed: plan.snapshots_listed,
        snapshots_found: ids(&plan.snapshots_found),
        snapshots_set_aside: ids(&plan.snapshots_set_aside),
    };
    output.message("catalogue", &message)?;
    Ok(())
}

fn show_pack(context: &Context, plan: &PackPlan, is_dry: bool) -> Result<()> {
    #[derive(Serialize)]
    struct Pack<'a> {
        pack: String,
        reason: &'a str,
        remedy: &'a str,
    }
    let (remedy, done) = match plan.remedy {
        Remedy::Heal => ("heal", "put back from parity"),
        Remedy::Replace => ("replace", "condemned"),
    };
    let would = if is_dry { "would be " } else { "" };
    let reason = text::safe(&plan.reason);
    context.output.line(format!("pack {}: {reason}; {would}{done}", plan.pack))?;
    let message = Pack { pack: plan.pack.to_string(), reason: &plan.reason, remedy };
    context.output.message("pack", &message)?;
    Ok(())
}

fn show_record(context: &Context, plan: &RecordPlan, is_dry: bool) -> Result<()> {
    #[derive(Serialize)]
    struct Record {
        snapshot: String,
        forgotten: bool,
    }
    let now = if is_dry { "it would be made anew" } else { "made anew" };
    let forgotten = if plan.is_forgotten { ", which was forgotten" } else { "" };
    let id = plan.snapshot.short();
    context.output.line(format!("snapshot {id}{forgotten}: its record is lost; {now}"))?;
    let message = Record { snapshot: plan.snapshot.to_string(), forgotten: plan.is_forgotten };
    context.output.message("record", &message)?;
    Ok(())
}

/// Names what cannot be restored whole; gives the number of files.
fn show_losses(
    context: &Context,
    repository: &Arc<Repository>,
    report: &RepairReport,
) -> Result<u64> {
    let known = report.after.as_ref().and_then(|after| after.known.as_ref());
    let mut files = 0;
    if let Some(damage) = &report.damage {
        files += damage::show(context, repository, damage, Novelty::New)?;
    }
    if let Some(known) = known {
        files += damage::show(context, repository, known, Novelty::Known)?;
    }
    if let Some(after) = report.after.as_ref().filter(|after| after.finding_count() > 0) {
        for finding in &after.findings {
            let place = finding.object.map_or("repository".into(), |object| object.to_string());
            context.output.line(format!("still damaged: {place}: {}", finding.detail))?;
        }
    }
    Ok(files)
}

fn summarise(
    context: &Context,
    args: &RepairArgs,
    report: &RepairReport,
    damaged_files: u64,
    duration: Duration,
) -> Result<()> {
    #[derive(Serialize)]
    struct Summary {
        dry_run: bool,
        nothing_to_do: bool,
        read_data: bool,
        catalogue_rebuilt: bool,
        packs_healed: usize,
        packs_replaced: usize,
        parity_healed: usize,
        parity_given_up: usize,
        chunks_rescued: u64,
        bytes_rescued: u64,
        chunks_given_up: u64,
        chunks_back: u64,
        records_renewed: usize,
        index_rebuilt: bool,
        is_first_part: bool,
        damaged_files: u64,
        num_errors_left: u64,
        total_duration: f64,
    }
    let (output, plan) = (&context.output, &report.plan);
    if plan.is_empty() {
        let read = match args.read_data {
            true => "",
            false => " (the packs' content was not read; --read-data looks at that, too)",
        };
        output.say(format!("nothing to repair{read}"))?;
    } else if args.dry_run {
        if plan.is_first_part {
            output.say("this is the first part: more may come to light when it is done")?;
        }
        output.say("dry run: nothing was changed")?;
    } else {
        output.say(format!("repaired ({})", text::duration(duration)))?;
        if plan.chunks_given_up > 0 {
            output.say("the next snapshot of files that hold what is lost stores it again")?;
        }
    }
    let packs = |remedy| plan.packs.iter().filter(|pack| pack.remedy == remedy).count();
    let summary = Summary {
        dry_run: args.dry_run,
        nothing_to_do: plan.is_empty(),
        read_data: args.read_data,
        catalogue_rebuilt: plan.catalogue.is_some(),
        packs_healed: packs(Remedy::Heal),
        packs_replaced: packs(Remedy::Replace),
        parity_healed: plan.parity_healed.len(),
        parity_given_up: plan.parity_given_up.len(),
        chunks_rescued: plan.chunks_rescued,
        bytes_rescued: plan.bytes_rescued,
        chunks_given_up: plan.chunks_given_up,
        chunks_back: plan.chunks_back,
        records_renewed: plan.records.len(),
        index_rebuilt: plan.index,
        is_first_part: plan.is_first_part,
        damaged_files,
        num_errors_left: report.after.as_ref().map_or(0, |after| after.finding_count()),
        total_duration: duration.as_secs_f64(),
    };
    output.message("summary", &summary)?;
    Ok(())
}
