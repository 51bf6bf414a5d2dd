//! `stillpoint protect` and `unprotect`: which snapshots nobody forgets by mistake.

use crate::context::Context;
use crate::exit::Outcome;
use crate::text;
use anyhow::Result;
use clap::Args;
use serde::Serialize;

/// Options of `protect` and `unprotect`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A protected snapshot is kept by every rule, and `forget` refuses to take it by name.

Examples:
  stillpoint protect latest
  stillpoint unprotect 3f2a91c0")]
pub struct ProtectArgs {
    /// The snapshots
    #[arg(value_name = "SNAPSHOT", required = true)]
    ids: Vec<String>,
}

#[derive(Serialize)]
struct Summary {
    protected: bool,
    snapshots_changed: usize,
    ids: Vec<String>,
}

/// Protects the snapshots, or takes that back.
pub fn run(context: &Context, args: &ProtectArgs, protected: bool) -> Result<Outcome> {
    let repository = context.open()?;
    let mut ids = Vec::new();
    for spec in &args.ids {
        let id = repository.find_snapshot(spec)?.id;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let changed = repository.protect(&ids, protected)?;
    let count =
        text::count(u64::try_from(changed.len()).unwrap_or(u64::MAX), "snapshot", "snapshots");
    context.output.say(match (changed.is_empty(), protected) {
        (true, true) => "protected already: nothing was changed".to_owned(),
        (true, false) => "not protected: nothing was changed".to_owned(),
        (false, true) => format!("protected {count}"),
        (false, false) => format!("{count} can be forgotten again"),
    })?;
    let ids: Vec<_> = changed.iter().map(ToString::to_string).collect();
    let summary = Summary { protected, snapshots_changed: ids.len(), ids };
    context.output.message("summary", &summary)?;
    Ok(Outcome::Complete)
}
