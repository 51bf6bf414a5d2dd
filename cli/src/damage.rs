//! Naming what a damage touches: the files of each snapshot that cannot be restored whole.

use crate::context::Context;
use crate::json;
use crate::listing::{self, output_failed};
use crate::output::Verbosity;
use crate::text;
use anyhow::Result;
use serde::Serialize;
use std::sync::Arc;
use stillpoint_archive::damage::{DamageNames, Damaged, DamagedFiles};
use stillpoint_store::check::{Damage, Touched};
use stillpoint_store::repository::Repository;

/// Files that are named for each snapshot unless somebody asks for all.
const NAMED: u64 = 100;

/// How a damage is spoken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Novelty {
    /// It was found now.
    New,
    /// An earlier repair has given it up.
    Known,
}

/// Names the files of each snapshot that the damage touches; gives their number, each counted in each snapshot.
pub fn show(
    context: &Context,
    repository: &Arc<Repository>,
    damage: &Damage,
    novelty: Novelty,
) -> Result<u64> {
    let reader = repository.reader()?;
    let mut names = DamageNames::new(&reader, damage);
    let mut files = 0;
    for touched in &damage.snapshots {
        files += show_snapshot(context, &mut names, touched, novelty)?.files;
    }
    if damage.is_truncated() {
        let lost = text::count(damage.lost_count(), "chunk is lost", "chunks are lost");
        context.output.line(format!("{lost}: more files are touched than are named here"))?;
    }
    Ok(files)
}

fn show_snapshot(
    context: &Context,
    names: &mut DamageNames<'_>,
    touched: &Touched,
    novelty: Novelty,
) -> Result<DamagedFiles> {
    let output = &context.output;
    let is_all = output.is_json() || output.verbosity() >= Verbosity::Verbose;
    let word = match novelty {
        Novelty::New => "damage",
        Novelty::Known => "known loss",
    };
    let forgotten = if touched.is_forgotten { ", which was forgotten" } else { "" };
    output.line(format!(
        "{word}: snapshot {}{forgotten}: what cannot be restored whole:",
        touched.id.short()
    ))?;
    let id = touched.id.to_string();
    let list_max = if is_all { u64::MAX } else { NAMED };
    let mut named = 0;
    let found = names.of(touched.root, list_max, &mut |damaged| {
        named += 1;
        show_one(context, &id, &damaged).map_err(output_failed)
    })?;
    let more = (found.files + found.gaps).saturating_sub(named);
    if more > 0 {
        output.line(format!("  and {more} more; -v names all"))?;
    }
    output.message("damaged_snapshot", &SnapshotMessage::new(&id, touched, novelty, &found))?;
    Ok(found)
}

#[derive(Serialize)]
struct SnapshotMessage<'a> {
    snapshot: &'a str,
    forgotten: bool,
    known: bool,
    files: u64,
    parts: u64,
    entries_in_parts: u64,
}

impl<'a> SnapshotMessage<'a> {
    fn new(id: &'a str, touched: &Touched, novelty: Novelty, found: &DamagedFiles) -> Self {
        Self {
            snapshot: id,
            forgotten: touched.is_forgotten,
            known: novelty == Novelty::Known,
            files: found.files,
            parts: found.gaps,
            entries_in_parts: found.gap_entries,
        }
    }
}

fn show_one(context: &Context, snapshot: &str, damaged: &Damaged<'_>) -> std::io::Result<()> {
    #[derive(Serialize)]
    struct File<'a> {
        snapshot: &'a str,
        #[serde(flatten)]
        path: json::Path<'a>,
    }
    #[derive(Serialize)]
    struct Part<'a> {
        snapshot: &'a str,
        after: Option<json::Path<'a>>,
        until: Option<json::Path<'a>>,
        entries: u64,
    }
    let output = &context.output;
    match damaged {
        Damaged::File { key } => {
            let path = listing::path_bytes(key);
            output.line(format!("  {}", text::name(&path)))?;
            output.message("damaged_file", &File { snapshot, path: json::Path::item(&path) })
        }
        Damaged::Gap { after, until, entries } => {
            let (after, until) = (after.map(listing::path_bytes), until.map(listing::path_bytes));
            let name = |path: &Option<Vec<u8>>, word: &str| {
                path.as_ref().map_or(String::new(), |path| format!("{word}{}", text::name(path)))
            };
            output.line(format!(
                "  {} whose names are lost{}{}",
                text::count(*entries, "entry", "entries"),
                name(&after, ", after "),
                name(&until, ", up to "),
            ))?;
            let (after, until) =
                (after.as_deref().map(json::Path::item), until.as_deref().map(json::Path::item));
            let part = Part { snapshot, after, until, entries: *entries };
            output.message("damaged_part", &part)
        }
    }
}
