//! What `forget` shows: each decision with its reasons, and the summary.

use super::ForgetArgs;
use crate::context::Context;
use crate::selection::{self, SnapshotJson};
use crate::text::{self, Align, Table};
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use stillpoint_archive::retention::{GroupKey, GroupPlan, JudgeBy, RetentionPlan};
use stillpoint_store::SnapshotId;
use stillpoint_store::repository::Snapshot;

/// One decision in JSON.
#[derive(Serialize)]
pub struct Decision<'a> {
    keep: bool,
    reasons: &'a [String],
    snapshot: SnapshotJson<'a>,
}

impl<'a> Decision<'a> {
    /// The decision on this snapshot; it goes when nothing keeps it.
    pub fn of(snapshot: &'a Snapshot, reasons: &'a [String]) -> Self {
        Self { keep: !reasons.is_empty(), reasons, snapshot: SnapshotJson::new(snapshot) }
    }
}

/// Snapshots by their names.
pub type ById<'a> = BTreeMap<SnapshotId, &'a Snapshot>;

/// Shows the decision on every snapshot, group by group.
pub fn show_plan(
    context: &Context,
    args: &ForgetArgs,
    plan: &RetentionPlan,
    by_id: &ById<'_>,
) -> Result<()> {
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
            show_group(context, args, group, by_id)?;
        }
    }
    Ok(())
}

fn show_group(
    context: &Context,
    args: &ForgetArgs,
    group: &GroupPlan,
    by_id: &ById<'_>,
) -> Result<()> {
    let output = &context.output;
    output.say(title(&group.key))?;
    let (heading, judged): (_, fn(&Snapshot) -> _) = match args.keep.judge_by() {
        JudgeBy::Time => ("Time", |snapshot| snapshot.record.time),
        JudgeBy::Committed => ("Committed", |snapshot| snapshot.committed),
    };
    let mut table = Table::new(&[
        ("", Align::Left),
        ("ID", Align::Left),
        (heading, Align::Left),
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
    rows.sort_by_key(|(snapshot, ..)| (judged(snapshot), snapshot.id));
    for (snapshot, word, why) in rows {
        table.row([
            word.to_owned(),
            snapshot.id.short(),
            text::time(judged(snapshot)),
            text::safe(&snapshot.record.tags.join(",")),
            text::safe(&why),
        ]);
    }
    table.lines().into_iter().try_for_each(|line| output.say(line))?;
    output.say("")?;
    Ok(())
}

/// What the snapshots of a group have in common, in one line.
pub fn title(key: &GroupKey) -> String {
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

/// Says what was done.
pub fn summarise(context: &Context, args: &ForgetArgs, gone: &[SnapshotId]) -> Result<()> {
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
        context.output.say(
            "`stillpoint undelete` brings them back until a prune finds that they were forgotten 7 days ago",
        )?;
    }
    let summary = Summary {
        dry_run: args.dry_run,
        snapshots_forgotten: gone.len(),
        ids: gone.iter().map(ToString::to_string).collect(),
    };
    context.output.message("summary", &summary)?;
    Ok(())
}
