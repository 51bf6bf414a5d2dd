//! `stillpoint unlock`: gives back the locks of applications that captures hold or left behind.

use crate::context::Context;
use crate::exit::Outcome;
use crate::location;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;
use stillpoint_capture::Error;
use stillpoint_capture::lock::{Found, Keeper, RecordState};

/// Options of `unlock`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Before an application is locked, what is needed to unlock it is written to the state directory; it is removed when the
application is unlocked. A process of its own watches every capture and unlocks when that ends, in whatever way. This
command is for the rest: the machine went down, or both processes were killed. A password is read again from where the
capture had it: the same file, or the same variable.

This is about applications that captures lock. Repositories are never locked.

Examples:
  stillpoint unlock --stale          what captures left behind that are gone
  stillpoint unlock                  also what a running capture holds: that capture fails then
  stillpoint unlock --list")]
pub struct UnlockArgs {
    /// Only what captures left behind that are gone
    #[arg(long, conflicts_with = "list")]
    stale: bool,

    /// Show what is locked, and change nothing
    #[arg(long)]
    list: bool,

    /// Directory for what must survive a restart [env: STILLPOINT_STATE_DIR]
    /// [default: $XDG_STATE_HOME/stillpoint or ~/.local/state/stillpoint]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// How long one application is tried.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct Lock<'a> {
    record: String,
    application: &'a str,
    state: Option<RecordState>,
    is_stale: bool,
    unlocked: bool,
    message: &'a str,
    manual: Option<&'a str>,
}

#[derive(Serialize)]
struct Summary {
    unlocked: usize,
    left: usize,
}

/// Unlocks, or lists.
pub fn run(context: &Context, args: &UnlockArgs) -> Result<Outcome> {
    let keeper = Keeper::new(location::state_dir(args.state_dir.as_deref())?, LIMIT)
        .with_give_back_limit(LIMIT);
    let mut summary = Summary { unlocked: 0, left: 0 };
    for found in keeper.records()? {
        if args.list {
            summary.left += 1;
            list(context, &found)?;
        } else if !(args.stale && found.is_live) {
            let is_unlocked = unlock(context, &keeper, found)?;
            summary.unlocked += usize::from(is_unlocked);
            summary.left += usize::from(!is_unlocked);
        }
    }
    if summary.unlocked + summary.left == 0 {
        let what = if args.stale { "nothing was left behind" } else { "nothing is locked" };
        context.output.say(what)?;
    }
    context.output.message("summary", &summary)?;
    Ok(if args.list || summary.left == 0 { Outcome::Complete } else { Outcome::Negative })
}

fn list(context: &Context, found: &Found) -> Result<()> {
    let (application, message, state) = match &found.record {
        Ok(record) => {
            let message = match (record.state, found.is_live) {
                (RecordState::Prepared, _) => "not locked",
                (_, true) => "locked by a running capture",
                (_, false) => "left behind: `stillpoint unlock --stale` unlocks it",
            };
            (record.order.title(), message, Some(record.state))
        }
        Err(what) => (found.path.display().to_string(), what.as_str(), None),
    };
    context.output.line(format!("{application}: {message}"))?;
    let manual = found.record.as_ref().ok().map(|record| record.order.manual());
    tell(context, found, &application, state, (false, message, manual.as_deref()))
}

/// True when it was unlocked.
fn unlock(context: &Context, keeper: &Keeper, found: Found) -> Result<bool> {
    let path = found.path.display().to_string();
    let is_stale = !found.is_live;
    let record = found.record.as_ref().ok();
    let application = record.map_or_else(|| path.clone(), |record| record.order.title());
    let state = record.map(|record| record.state);
    let (unlocked, text, manual) = match keeper.finish(found) {
        Ok(how) => (true, how, None),
        Err(error) => {
            let hint = match &error {
                Error::StillLocked { manual, .. } => Some(manual.clone()),
                Error::Refused { hint, .. } => hint.clone(),
                _ => None,
            };
            (false, error.to_string(), hint)
        }
    };
    if unlocked {
        context.output.line(&text)?;
    } else {
        let by_hand = manual.as_deref().map(|manual| format!("; by hand: {manual}"));
        context.output.warn(format!("{text}{}", by_hand.unwrap_or_default()));
    }
    let manual = manual.as_deref();
    let lock = Lock {
        record: path,
        application: &application,
        state,
        is_stale,
        unlocked,
        message: &text,
        manual,
    };
    context.output.message("lock", &lock)?;
    Ok(unlocked)
}

fn tell(
    context: &Context,
    found: &Found,
    application: &str,
    state: Option<RecordState>,
    (unlocked, message, manual): (bool, &str, Option<&str>),
) -> Result<()> {
    let record = found.path.display().to_string();
    let is_stale = !found.is_live;
    let lock = Lock { record, application, state, is_stale, unlocked, message, manual };
    Ok(context.output.message("lock", &lock)?)
}
