//! `stillpoint forget`: removes snapshots, named by hand or chosen by retention rules.

mod rules;
mod show;

use crate::args::{FilterArgs, WriteArgs};
use crate::clock;
use crate::commands::prune;
use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::Problem;
use crate::selection;
use crate::text;
use anyhow::Result;
use clap::Args;
use jiff::tz::TimeZone;
use rules::{GuardArgs, KeepArgs};
use show::Decision;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use stillpoint_archive::retention::guard::{Refusal, judge};
use stillpoint_archive::retention::{Candidate, GroupBy, RetentionPlan, plan_retention};
use stillpoint_store::{Error, Repository, SnapshotId};

/// Options of `forget`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  stillpoint forget 3f2a91c0                                          one snapshot
  stillpoint forget --keep-daily 7 --keep-weekly 5 --dry-run          shows what would go, and why the rest stays
  stillpoint forget --keep-within 14d --keep-monthly 12 --prune       prunes afterwards

Rules apply to each host and set of paths by itself (--group-by). Protected snapshots stay. What is forgotten stays \
whole for 7 days: `stillpoint undelete` brings it back, `stillpoint prune` then removes it.")]
pub struct ForgetArgs {
    /// Forget these snapshots, whatever the rules say
    #[arg(value_name = "SNAPSHOT", conflicts_with_all = rules::RULE_NAMES)]
    ids: Vec<String>,

    #[command(flatten)]
    keep: KeepArgs,

    /// Only snapshots of this host
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,

    /// Only snapshots that carry all of these tags
    #[arg(long, value_name = "TAG[,TAG]")]
    tag: Vec<String>,

    /// Only snapshots of this path
    #[arg(long, value_name = "PATH")]
    path: Vec<PathBuf>,

    /// Apply the rules to each group of equal host, paths, tags: a list of these words, or nothing
    #[arg(short, long, value_name = "host,paths,tags", default_value = "host,paths", value_parser = rules::group_by)]
    group_by: GroupBy,

    /// Only show what would be forgotten, and why the rest stays
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    guards: GuardArgs,

    /// Remove data that is no longer needed right away
    #[arg(long)]
    prune: bool,

    #[command(flatten)]
    prune_args: prune::PruneLimits,

    #[command(flatten)]
    write: WriteArgs,
}

/// Forgets what is named, or what the rules do not keep.
pub fn run(context: &Context, args: ForgetArgs) -> Result<Outcome> {
    if args.ids.is_empty() && args.keep.is_empty() {
        return Err(Problem::usage(
            "forget needs snapshots or rules: without either there is nothing to decide by",
            "name snapshots, or say what to keep, for instance --keep-daily 7 --keep-weekly 5",
        ));
    }
    let repository = context.open()?;
    let gone = match args.ids.is_empty() {
        true => by_rules(context, &args, &repository)?,
        false => by_name(context, &args, &repository)?,
    };
    let forgotten = if args.dry_run { gone.clone() } else { repository.forget(&gone)? };
    show::summarise(context, &args, &forgotten)?;
    if args.prune {
        prune::check_clock(&repository, &args.prune_args, args.guards.ignore_clock)?;
        return prune::prune(context, &repository, &args.prune_args, &args.write, args.dry_run);
    }
    Ok(Outcome::Complete)
}

fn by_name(
    context: &Context,
    args: &ForgetArgs,
    repository: &Arc<Repository>,
) -> Result<Vec<SnapshotId>> {
    let mut gone = Vec::new();
    for spec in &args.ids {
        let snapshot = repository.find_snapshot(spec)?;
        if snapshot.protected {
            return Err(Error::Protected { snapshot: snapshot.id }.into());
        }
        if !gone.contains(&snapshot.id) {
            gone.push(snapshot.id);
            context.output.message("forget", &Decision::of(&snapshot, &[]))?;
        }
    }
    Ok(gone)
}

fn by_rules(
    context: &Context,
    args: &ForgetArgs,
    repository: &Arc<Repository>,
) -> Result<Vec<SnapshotId>> {
    let policy = args.keep.policy(repository)?;
    let filter =
        FilterArgs { host: args.host.clone(), tag: args.tag.clone(), path: args.path.clone() };
    let snapshots = selection::select(&filter, repository.snapshots()?);
    let clock = repository.clock_evidence()?;
    let judge_by = args.keep.judge_by();
    let candidates: Vec<_> =
        snapshots.iter().map(|snapshot| Candidate::new(snapshot, judge_by)).collect();
    let zone = TimeZone::system();
    let plan = plan_retention(&candidates, &policy, args.group_by, clock.now, &zone);
    let by_id: BTreeMap<_, _> = snapshots.iter().map(|snapshot| (snapshot.id, snapshot)).collect();
    show::show_plan(context, args, &plan, &by_id)?;
    if !args.guards.unsafe_allow_remove_all {
        keeps_some(&plan)?;
    }
    judge(&plan, &candidates, &clock, &args.guards.guards()).map_err(refused)?;
    if !args.dry_run {
        repository.believe_clock(&clock);
    }
    Ok(plan.remove().collect())
}

/// Refuses a plan that leaves nothing of a group: more often a rule that is mistyped than a wish.
fn keeps_some(plan: &RetentionPlan) -> Result<()> {
    let emptied =
        plan.groups.iter().find(|group| group.keep.is_empty() && !group.remove.is_empty());
    match emptied {
        None => Ok(()),
        Some(group) => Err(Problem::failed(
            format!(
                "the rules keep no snapshot of {}; nothing was forgotten",
                show::title(&group.key).trim_end_matches(':')
            ),
            "check the rules (a --keep-tag that no snapshot carries?), or add --unsafe-allow-remove-all",
        )),
    }
}

/// What a person sees of a refusal, and what to do next.
fn refused(refusal: Refusal) -> anyhow::Error {
    let message = format!("{refusal}; nothing was forgotten");
    match refusal {
        Refusal::Clock(doubt) => clock::doubted(doubt, "forgotten"),
        Refusal::Future { time, .. } => Problem::failed(
            format!("{message} (it says {})", text::time(time)),
            "find out whose clock was wrong; then forget that snapshot, or add --allow-future: it is kept and not counted",
        ),
        Refusal::TooMany { .. } => Problem::failed(
            message,
            "look at what --dry-run shows; if it is what you mean, add --max-forget 100%",
        ),
    }
}
