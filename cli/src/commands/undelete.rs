//! `stillpoint undelete`: takes back what `forget` did.

use crate::args::FilterArgs;
use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::Problem;
use crate::selection::{self, SnapshotJson};
use crate::text;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::sync::Arc;
use stillpoint_store::{Error, Forgotten, Repository};

/// Options of `undelete`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A forgotten snapshot stays whole until a prune finds that it was forgotten 7 days ago (`prune --keep-forgotten`). \
Until then this brings it back at once; no data moves.

Examples:
  stillpoint snapshots --forgotten
  stillpoint undelete 3f2a91c0
  stillpoint undelete --all --host web1")]
pub struct UndeleteArgs {
    /// The forgotten snapshots
    #[arg(value_name = "SNAPSHOT")]
    ids: Vec<String>,

    /// All forgotten snapshots; with --host, --tag or --path those that match
    #[arg(long, conflicts_with = "ids")]
    all: bool,

    #[command(flatten)]
    filter: FilterArgs,

    /// Only show what would be brought back
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Brings forgotten snapshots back.
pub fn run(context: &Context, args: &UndeleteArgs) -> Result<Outcome> {
    if args.ids.is_empty() && !args.all && args.filter.is_empty() {
        return Err(Problem::usage(
            "undelete needs snapshots to bring back",
            "name some that `stillpoint snapshots --forgotten` lists, or use --all, --host, --tag or --path",
        ));
    }
    let repository = context.open()?;
    let chosen = choose(context, args, &repository)?;
    for one in &chosen {
        context.output.message("undelete", &SnapshotJson::forgotten(one))?;
    }
    let ids: Vec<_> = chosen.iter().map(|one| one.snapshot.id).collect();
    let back = if args.dry_run { ids } else { repository.undelete(&ids)? };
    let count = text::count(u64::try_from(back.len()).unwrap_or(u64::MAX), "snapshot", "snapshots");
    context.output.say(match (back.is_empty(), args.dry_run) {
        (true, _) => "nothing to bring back".to_owned(),
        (false, true) => format!("would bring back {count} (dry run: nothing was changed)"),
        (false, false) => format!("brought back {count}"),
    })?;
    #[derive(Serialize)]
    struct Summary {
        dry_run: bool,
        snapshots_undeleted: usize,
        ids: Vec<String>,
    }
    let ids: Vec<_> = back.iter().map(ToString::to_string).collect();
    let summary = Summary { dry_run: args.dry_run, snapshots_undeleted: ids.len(), ids };
    context.output.message("summary", &summary)?;
    Ok(Outcome::Complete)
}

fn choose(
    context: &Context,
    args: &UndeleteArgs,
    repository: &Arc<Repository>,
) -> Result<Vec<Forgotten>> {
    if args.ids.is_empty() {
        let all = repository.forgotten()?.into_iter();
        return Ok(all.filter(|one| selection::matches(&args.filter, &one.snapshot)).collect());
    }
    let mut chosen: Vec<Forgotten> = Vec::new();
    for spec in &args.ids {
        match repository.find_forgotten(spec) {
            Ok(one) if chosen.iter().any(|other| other.snapshot.id == one.snapshot.id) => {}
            Ok(one) => chosen.push(one),
            Err(Error::NoSuchSnapshot { detail }) => match repository.find_snapshot(spec) {
                Ok(live) => {
                    context.output.notice(format!("snapshot {} is not forgotten", live.id.short()))
                }
                Err(Error::NoSuchSnapshot { .. }) => {
                    return Err(Problem::failed(
                        format!("{detail} among the forgotten ones"),
                        "`stillpoint snapshots --forgotten` lists what can be brought back; what a prune has removed cannot",
                    ));
                }
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
    chosen.retain(|one| selection::matches(&args.filter, &one.snapshot));
    Ok(chosen)
}
