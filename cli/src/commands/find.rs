//! `stillpoint find`: finds files by name in all snapshots.

use crate::args::FilterArgs;
use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::Problem;
use crate::listing::{self, Node};
use crate::selection;
use crate::text;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use stillpoint_archive::Entry;
use stillpoint_archive::listing::{Query, find};
use stillpoint_store::{Reader, Snapshot, Timestamp};

/// Options of `find`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  stillpoint find '*.odt'                       by name, anywhere
  stillpoint find '/home/*/mail/**/inbox'       by path, when the pattern holds a slash
  stillpoint find -i report --newest 2026-02-01 --long")]
pub struct FindArgs {
    /// Name, or path when it holds a slash; with *, ? and [...]
    #[arg(value_name = "PATTERN", required = true)]
    patterns: Vec<std::ffi::OsString>,

    /// Only in these snapshots
    #[arg(short, long, value_name = "SNAPSHOT")]
    snapshot: Vec<String>,

    #[command(flatten)]
    filter: FilterArgs,

    /// Take no account of upper and lower case
    #[arg(short, long)]
    ignore_case: bool,

    /// Also type, permissions, owner, size and time
    #[arg(short, long)]
    long: bool,

    /// Only files changed at or after this time
    #[arg(short = 'O', long, value_name = "TIME", value_parser = crate::values::moment)]
    oldest: Option<Timestamp>,

    /// Only files changed at or before this time
    #[arg(short = 'N', long, value_name = "TIME", value_parser = crate::values::moment)]
    newest: Option<Timestamp>,
}

/// Prints what matches, snapshot by snapshot, the oldest first.
pub fn run(context: &Context, args: &FindArgs) -> Result<Outcome> {
    let query = query(args)?;
    let repository = context.open()?;
    let snapshots = if args.snapshot.is_empty() {
        selection::select(&args.filter, repository.snapshots()?)
    } else {
        args.snapshot
            .iter()
            .map(|spec| repository.find_snapshot(spec))
            .collect::<Result<Vec<_>, _>>()?
    };
    let reader = repository.reader()?;
    let mut total = 0;
    for snapshot in &snapshots {
        total += search(context, args, &query, &reader, snapshot, total == 0)?;
    }
    if total == 0 {
        let count = u64::try_from(snapshots.len()).unwrap_or(u64::MAX);
        let searched = text::count(count, "snapshot", "snapshots");
        context.output.say(format!("nothing found in {searched}"))?;
    }
    Ok(Outcome::Complete)
}

fn query(args: &FindArgs) -> Result<Query> {
    let mut patterns = Vec::new();
    for pattern in &args.patterns {
        // Patterns are text; names of other bytes are found by `?` and `*`.
        patterns.push(pattern.to_str().map(str::to_owned).ok_or_else(|| {
            Problem::usage("the pattern is not UTF-8", "write ? for each byte that is not")
        })?);
    }
    let mut query = Query::new(&patterns, args.ignore_case)?;
    query.modified_from = args.oldest;
    // `until` is the first moment that is too late.
    query.modified_until =
        args.newest.map(|moment| Timestamp::from_nanos(moment.as_nanos().saturating_add(1)));
    Ok(query)
}

fn search(
    context: &Context,
    args: &FindArgs,
    query: &Query,
    reader: &Reader,
    snapshot: &Snapshot,
    is_first: bool,
) -> Result<u64> {
    #[derive(Serialize)]
    struct Match<'a> {
        snapshot: &'a str,
        #[serde(flatten)]
        node: Node<'a>,
    }
    let output = &context.output;
    let id = snapshot.id.to_string();
    let mut found = 0u64;
    let mut show = |key: &[u8], entry: &Entry| -> std::io::Result<()> {
        found += 1;
        if output.is_json() {
            let path = listing::path_bytes(key);
            let node = Node::new(key, &path, entry);
            return output.message("match", &Match { snapshot: &id, node });
        }
        if found == 1 {
            if !is_first {
                output.say("")?;
            }
            let time = text::time(snapshot.record.time);
            output.say(format!("snapshot {} of {time}:", snapshot.id.short()))?;
        }
        output.line(listing::line(key, entry, args.long))
    };
    let mut visit = |key: &[u8], entry: &Entry| show(key, entry).map_err(listing::output_failed);
    find(reader, snapshot.record.root, &[], query, &mut visit)?;
    Ok(found)
}
