//! `stillpoint forget`: removes snapshots, named by hand or chosen by retention rules.

use crate::args::{FilterArgs, WriteArgs};
use crate::commands::prune;
use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::Problem;
use crate::selection::{self, SnapshotJson};
use crate::text::{self, Align, Table};
use anyhow::Result;
use clap::Args;
use jiff::tz::TimeZone;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use stillpoint_archive::retention::{
    Candidate, GroupBy, GroupKey, GroupPlan, Keep, Period, RetentionPlan, RetentionPolicy,
    plan_retention,
};
use stillpoint_archive::retention_span::KeepSpan;
use stillpoint_store::SnapshotId;
use stillpoint_store::repository::{Repository, Snapshot};

const RULES: &str = "Retention rules (a snapshot stays when any rule keeps it)";

/// Options of `forget`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  stillpoint forget 3f2a91c0                                          one snapshot
  stillpoint forget --keep-daily 7 --keep-weekly 5 --dry-run          shows what would go, and why the rest stays
  stillpoint forget --keep-within 2w --keep-monthly 12 --prune        also frees the space

Rules apply to each host and set of paths by itself (--group-by). Snapshots that lie in the future are kept and \
not counted. Without --prune the data stays until the next `stillpoint prune`.")]
pub struct ForgetArgs {
    /// Forget these snapshots, whatever the rules say
    #[arg(value_name = "SNAPSHOT", conflicts_with_all = RULE_NAMES)]
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
    #[arg(short, long, value_name = "host,paths,tags", default_value = "host,paths", value_parser = group_by)]
    group_by: GroupBy,

    /// Only show what would be forgotten, and why the rest stays
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Let the rules remove all snapshots of a group
    #[arg(long)]
    unsafe_allow_remove_all: bool,

    /// Remove data that is no longer needed right away
    #[arg(long)]
    prune: bool,

    #[command(flatten)]
    prune_args: prune::PruneLimits,

    #[command(flatten)]
    write: WriteArgs,
}

const RULE_NAMES: [&str; 13] = [
    "keep_last",
    "keep_hourly",
    "keep_daily",
    "keep_weekly",
    "keep_monthly",
    "keep_yearly",
    "keep_within",
    "keep_within_hourly",
    "keep_within_daily",
    "keep_within_weekly",
    "keep_within_monthly",
    "keep_within_yearly",
    "keep_tag",
];

/// The rules, in restic's spelling.
#[derive(Debug, Args)]
struct KeepArgs {
    /// Keep the newest N snapshots (N may be `unlimited`)
    #[arg(short = 'l', long, value_name = "N", value_parser = keep, help_heading = RULES)]
    keep_last: Option<Keep>,
    /// Keep the newest snapshot of each of the newest N hours that have one
    #[arg(short = 'H', long, value_name = "N", value_parser = keep, help_heading = RULES)]
    keep_hourly: Option<Keep>,
    /// The same for days
    #[arg(short = 'd', long, value_name = "N", value_parser = keep, help_heading = RULES)]
    keep_daily: Option<Keep>,
    /// The same for weeks
    #[arg(short = 'w', long, value_name = "N", value_parser = keep, help_heading = RULES)]
    keep_weekly: Option<Keep>,
    /// The same for months
    #[arg(short = 'm', long, value_name = "N", value_parser = keep, help_heading = RULES)]
    keep_monthly: Option<Keep>,
    /// The same for years
    #[arg(short = 'y', long, value_name = "N", value_parser = keep, help_heading = RULES)]
    keep_yearly: Option<Keep>,
    /// Keep all snapshots this long before the newest one (1y5m7d2h: years, months, days, hours)
    #[arg(long, value_name = "DURATION", help_heading = RULES)]
    keep_within: Option<KeepSpan>,
    /// Keep an hourly snapshot for this long
    #[arg(long, value_name = "DURATION", help_heading = RULES)]
    keep_within_hourly: Option<KeepSpan>,
    /// Keep a daily snapshot for this long
    #[arg(long, value_name = "DURATION", help_heading = RULES)]
    keep_within_daily: Option<KeepSpan>,
    /// Keep a weekly snapshot for this long
    #[arg(long, value_name = "DURATION", help_heading = RULES)]
    keep_within_weekly: Option<KeepSpan>,
    /// Keep a monthly snapshot for this long
    #[arg(long, value_name = "DURATION", help_heading = RULES)]
    keep_within_monthly: Option<KeepSpan>,
    /// Keep a yearly snapshot for this long
    #[arg(long, value_name = "DURATION", help_heading = RULES)]
    keep_within_yearly: Option<KeepSpan>,
    /// Keep snapshots that carry all of these tags; may be given several times
    #[arg(long, value_name = "TAG[,TAG]", help_heading = RULES)]
    keep_tag: Vec<String>,
}

fn keep(text: &str) -> Result<Keep, String> {
    match text {
        "unlimited" | "-1" => Ok(Keep::All),
        number => match number.parse::<u32>() {
            Ok(0) => Ok(Keep::None),
            Ok(number) => Ok(Keep::Count(number)),
            Err(_) => Err(format!("`{text}` is neither a number nor `unlimited`")),
        },
    }
}

fn group_by(text: &str) -> Result<GroupBy, String> {
    let mut by = GroupBy { host: false, paths: false, tags: false };
    for word in text.split(',').filter(|word| !word.is_empty()) {
        match word {
            "host" | "hosts" => by.host = true,
            "path" | "paths" => by.paths = true,
            "tag" | "tags" => by.tags = true,
            other => return Err(format!("`{other}` is none of host, paths, tags")),
        }
    }
    Ok(by)
}

impl KeepArgs {
    fn policy(&self) -> RetentionPolicy {
        let within = [
            (Period::Last, self.keep_within),
            (Period::Hourly, self.keep_within_hourly),
            (Period::Daily, self.keep_within_daily),
            (Period::Weekly, self.keep_within_weekly),
            (Period::Monthly, self.keep_within_monthly),
            (Period::Yearly, self.keep_within_yearly),
        ];
        let tags = |set: &String| -> Vec<String> { set.split(',').map(str::to_owned).collect() };
        RetentionPolicy {
            last: self.keep_last.unwrap_or_default(),
            hourly: self.keep_hourly.unwrap_or_default(),
            daily: self.keep_daily.unwrap_or_default(),
            weekly: self.keep_weekly.unwrap_or_default(),
            monthly: self.keep_monthly.unwrap_or_default(),
            yearly: self.keep_yearly.unwrap_or_default(),
            within: within.into_iter().filter_map(|(period, span)| Some((period, span?))).collect(),
            tags: self.keep_tag.iter().map(tags).collect(),
            ids: Vec::new(),
        }
    }
}

/// Forgets what is named, or what the rules do not keep.
pub fn run(context: &Context, args: ForgetArgs) -> Result<Outcome> {
    let policy = args.keep.policy();
    if args.ids.is_empty() && policy.is_empty() {
        return Err(Problem::usage(
            "forget needs snapshots or rules: without either there is nothing to decide by",
            "name snapshots, or say what to keep, for instance --keep-daily 7 --keep-weekly 5",
        ));
    }
    let repository = context.open()?;
    let gone = if args.ids.is_empty() {
        let filter =
            FilterArgs { host: args.host.clone(), tag: args.tag.clone(), path: args.path.clone() };
        let snapshots = selection::select(&filter, repository.snapshots()?);
        by_rules(context, &args, &policy, &snapshots)?
    } else {
        by_name(context, &args, &repository)?
    };
    let forgotten = if args.dry_run { gone.clone() } else { repository.forget(&gone)? };
    summarise(context, &args, &forgotten)?;
    if args.prune {
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
        if !gone.contains(&snapshot.id) {
            gone.push(snapshot.id);
            context.output.message("forget", &Decision::of(&snapshot, &[]))?;
        }
    }
    Ok(gone)
}

/// One decision in JSON.
#[derive(Serialize)]
struct Decision<'a> {
    keep: bool,
    reasons: &'a [String],
    snapshot: SnapshotJson<'a>,
}

impl<'a> Decision<'a> {
    fn of(snapshot: &'a Snapshot, reasons: &'a [String]) -> Self {
        Self { keep: !reasons.is_empty(), reasons, snapshot: SnapshotJson::new(snapshot) }
    }
}

fn by_rules(
    context: &Context,
    args: &ForgetArgs,
    policy: &RetentionPolicy,
    snapshots: &[Snapshot],
) -> Result<Vec<SnapshotId>> {
    let now = context.env().now();
    let candidates: Vec<_> = snapshots.iter().map(Candidate::from).collect();
    let plan = plan_retention(&candidates, policy, args.group_by, now, &TimeZone::system());
    let by_id: BTreeMap<_, _> = snapshots.iter().map(|snapshot| (snapshot.id, snapshot)).collect();
    show_plan(context, &plan, &by_id)?;
    if !args.unsafe_allow_remove_all {
        keeps_some(&plan)?;
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
                title(&group.key).trim_end_matches(':')
            ),
            "check the rules (a --keep-tag that no snapshot carries?), or add --unsafe-allow-remove-all",
        )),
    }
}

type ById<'a> = BTreeMap<SnapshotId, &'a Snapshot>;

fn show_plan(context: &Context, plan: &RetentionPlan, by_id: &ById<'_>) -> Result<()> {
    for group in &plan.groups {
        let kept = group.keep.iter().map(|kept| (kept.id, kept.reasons.as_slice()));
        let removed = group.remove.iter().map(|id| (*id, &[][..]));
        if context.output.is_json() {
            for (id, reasons) in kept.chain(removed) {
                if let Some(snapshot) = by_id.get(&id) {
                    context.output.message("forget", &Decision::of(snapshot, reasons))?;
                }
            }
        } else {
            show_group(context, group, by_id)?;
        }
    }
    Ok(())
}

fn show_group(context: &Context, group: &GroupPlan, by_id: &ById<'_>) -> Result<()> {
    let output = &context.output;
    output.say(title(&group.key))?;
    let mut table = Table::new(&[
        ("", Align::Left),
        ("ID", Align::Left),
        ("Time", Align::Left),
        ("Tags", Align::Left),
        ("Because", Align::Left),
    ]);
    let mut rows: Vec<_> = group
        .keep
        .iter()
        .map(|kept| (kept.id, "keep", kept.reasons.join(", ")))
        .chain(group.remove.iter().map(|id| (*id, "forget", "no rule keeps it".to_owned())))
        .filter_map(|(id, word, why)| Some((*by_id.get(&id)?, word, why)))
        .collect();
    rows.sort_by_key(|(snapshot, ..)| (snapshot.record.time, snapshot.id));
    for (snapshot, word, why) in rows {
        table.row([
            word.to_owned(),
            snapshot.id.short(),
            text::time(snapshot.record.time),
            text::safe(&snapshot.record.tags.join(",")),
            text::safe(&why),
        ]);
    }
    table.lines().into_iter().try_for_each(|line| output.say(line))?;
    output.say("")?;
    Ok(())
}

fn title(key: &GroupKey) -> String {
    let mut parts = Vec::new();
    if let Some(host) = &key.host {
        parts.push(format!("host {}", text::safe(host)));
    }
    if let Some(tags) = &key.tags {
        parts.push(format!("tags {}", text::safe(&tags.join(", "))));
    }
    if let Some(paths) = &key.paths {
        parts.push(format!("paths {}", selection::list(paths.iter().map(Vec::as_slice))));
    }
    if parts.is_empty() { "all snapshots:".into() } else { format!("{}:", parts.join(", ")) }
}

fn summarise(context: &Context, args: &ForgetArgs, gone: &[SnapshotId]) -> Result<()> {
    #[derive(Serialize)]
    struct Summary {
        dry_run: bool,
        snapshots_forgotten: usize,
        ids: Vec<String>,
    }
    let count = u64::try_from(gone.len()).unwrap_or(u64::MAX);
    let count = text::count(count, "snapshot", "snapshots");
    context.output.say(match (args.dry_run, gone.is_empty()) {
        (_, true) => "nothing to forget".to_owned(),
        (true, false) => format!("would forget {count} (dry run: nothing was changed)"),
        (false, false) => format!("forgot {count}"),
    })?;
    if !args.dry_run && !args.prune && !gone.is_empty() {
        context.output.say("`stillpoint prune` frees the space that only they needed")?;
    }
    let summary = Summary {
        dry_run: args.dry_run,
        snapshots_forgotten: gone.len(),
        ids: gone.iter().map(ToString::to_string).collect(),
    };
    context.output.message("summary", &summary)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Counts and grouping as restic's users type them.
    #[test]
    fn rules_are_parsed() {
        assert_eq!(keep("3"), Ok(Keep::Count(3)));
        assert_eq!(keep("unlimited"), Ok(Keep::All));
        assert_eq!(keep("0"), Ok(Keep::None));
        assert!(keep("x").is_err());
        assert_eq!(group_by(""), Ok(GroupBy { host: false, paths: false, tags: false }));
        assert_eq!(group_by("host,tags"), Ok(GroupBy { host: true, paths: false, tags: true }));
        assert!(group_by("user").is_err());
    }
}
