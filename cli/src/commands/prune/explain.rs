//! `prune --explain`: what can be freed now, what later, and why not yet.

use crate::context::Context;
use crate::json;
use crate::text::{self, Align, Table};
use anyhow::Result;
use serde::Serialize;
use stillpoint_store::Timestamp;
use stillpoint_store::prune::{Class, PackLine, PruneReport, Share, Stop};

/// Lists each class, then each pack if the report has them.
pub fn show(context: &Context, report: &PruneReport, dry_run: bool) -> Result<bool> {
    let explanation = &report.explanation;
    let columns = [
        ("", Align::Left),
        ("Packs", Align::Right),
        ("Size", Align::Right),
        ("Freed", Align::Left),
        ("Because", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for share in &explanation.shares {
        let (freed, because) = (freed(share, dry_run), because(share.class, report));
        let (packs, size) = (text::grouped(share.packs), text::size(share.bytes));
        table.row([what(share.class).to_owned(), packs, size, freed, because.to_owned()]);
        context.output.message("class", &ShareMessage::new(share, because))?;
    }
    table.lines().into_iter().try_for_each(|line| context.output.line(line))?;
    if !explanation.packs.is_empty() {
        context.output.line("")?;
        show_packs(context, &explanation.packs)?;
    }
    Ok(!explanation.shares.is_empty())
}

fn show_packs(context: &Context, packs: &[PackLine]) -> Result<()> {
    let columns = [
        ("Pack", Align::Left),
        ("Size", Align::Right),
        ("Unused", Align::Right),
        ("Held", Align::Right),
        ("Freed", Align::Left),
        ("", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for line in packs {
        table.row([
            line.pack.to_string(),
            text::size(line.size_bytes),
            text::size(line.unused_bytes),
            text::size(line.held_bytes),
            line.when.map(text::time).unwrap_or_default(),
            what(line.class).to_owned(),
        ]);
        context.output.message("pack", &PackMessage::new(line))?;
    }
    table.lines().into_iter().try_for_each(|line| context.output.line(line))?;
    Ok(())
}

fn what(class: Class) -> &'static str {
    match class {
        Class::Needed => "needed by snapshots",
        Class::Held => "needed by forgotten snapshots alone",
        Class::Tolerated => "unused, beside what is needed",
        Class::Postponed => "unused, left to the next prune",
        Class::Rewritten => "unused, what is beside it moves",
        Class::Unneeded => "not needed any more",
        Class::Orphaned => "left by interrupted runs",
        Class::Young => "young, perhaps being written",
        Class::Waiting => "condemned earlier",
        Class::Deletable => "condemned long enough ago",
    }
}

fn freed(share: &Share, dry_run: bool) -> String {
    match (share.class, share.first, share.last) {
        (Class::Needed, _, _) => String::new(),
        (Class::Deletable, _, _) => if dry_run { "now" } else { "done" }.into(),
        (_, Some(first), Some(last)) => {
            let (first, last) = (text::time(first), text::time(last));
            if first == last { first } else { format!("{first} to {last}") }
        }
        _ => "not planned".into(),
    }
}

fn because(class: Class, report: &PruneReport) -> &'static str {
    match class {
        Class::Needed => "",
        Class::Held => "they can be taken back (--keep-forgotten, then --grace)",
        Class::Tolerated => "it is little enough (--max-unused)",
        Class::Postponed => match &report.stop {
            Some(Stop::TimeOver) => "the time was over (--max-duration)",
            Some(Stop::DiskFull(_)) => "there was no room to rewrite",
            Some(Stop::Overtaken) => "other processes were faster",
            None if report.plan.postpone.is_empty() => "it became needed, or is damaged",
            None => "no more was to be rewritten (--max-repack-size)",
        },
        Class::Rewritten | Class::Unneeded | Class::Waiting => {
            "who reads them now may go on (--grace)"
        }
        Class::Orphaned => "who wrote them may still commit them (--grace)",
        Class::Young => "a backup may be writing them",
        Class::Deletable => "their time is over",
    }
}

#[derive(Serialize)]
struct ShareMessage {
    class: Class,
    packs: u64,
    bytes: u64,
    freed_first: Option<String>,
    freed_last: Option<String>,
    because: &'static str,
}

impl ShareMessage {
    fn new(share: &Share, because: &'static str) -> Self {
        let Share { class, packs, bytes, first, last } = *share;
        let [freed_first, freed_last] = [first, last].map(|moment| moment.map(json::moment));
        Self { class, packs, bytes, freed_first, freed_last, because }
    }
}

#[derive(Serialize)]
struct PackMessage {
    pack: String,
    class: Class,
    bytes: u64,
    bytes_unused: u64,
    bytes_held: u64,
    freed: Option<String>,
}

impl PackMessage {
    fn new(line: &PackLine) -> Self {
        let when: Option<Timestamp> = line.when;
        Self {
            pack: line.pack.to_string(),
            class: line.class,
            bytes: line.size_bytes,
            bytes_unused: line.unused_bytes,
            bytes_held: line.held_bytes,
            freed: when.map(json::moment),
        }
    }
}
