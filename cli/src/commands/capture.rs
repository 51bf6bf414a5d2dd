//! `stillpoint capture`: holds an application still for a moment and saves that moment.

mod locks;
mod show;

use crate::args::WriteArgs;
use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::Problem;
use crate::location;
use crate::progress::Progress;
use crate::sources::{RecordArgs, SelectArgs};
use crate::values;
use anyhow::Result;
use clap::{Args, ValueEnum};
use locks::LockArgs;
use show::Shown;
use std::path::PathBuf;
use std::time::Duration;
use stillpoint_capture::database::{self, DatabaseOptions, DatabaseSource};
use stillpoint_capture::machine::{CaptureOptions, ChangesMode, Ending, OnBudget, capture};

const LIMITS: &str = "How long and how";
const DATABASES: &str = "Databases";

/// Options of `capture`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A capture saves what it can while the application runs, then asks it to hold still, takes what changed in the last \
moment, and lets it go on; only then are databases dumped and everything stored. The snapshot records how long the application \
was locked, and what it shows: `application` (one instant of an application that held still), `filesystem` or `none`.

Whatever happens to this process, a second one gives the lock back; `stillpoint unlock --stale` does after a power cut.

Exit code 4: the lock budget was over. The application was unlocked in time, and with --on-budget degrade there is a \
snapshot that claims no consistency.

Examples:
  stillpoint capture /srv/app --lock hooks --lock-command '/srv/app/bin/freeze' --unlock-command '/srv/app/bin/thaw'
  stillpoint capture /srv/bitbucket --lock bitbucket --url https://git.example.com --user backup --user-password-file /etc/secret --database postgresql:///bitbucket
  stillpoint capture ~ --database sqlite:/srv/app/data.db")]
pub struct CaptureArgs {
    #[command(flatten)]
    select: SelectArgs,

    #[command(flatten)]
    lock: LockArgs,

    /// Also save this database as of the same instant (postgresql://user@host/name); may be given several times, and NAME=URL names its files
    #[arg(long, value_name = "[NAME=]URL", help_heading = DATABASES)]
    database: Vec<String>,

    /// The longest that the lock may be held, from its request to its release
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::short_duration, help_heading = LIMITS)]
    lock_budget: Duration,

    /// What happens then: no snapshot, or one that claims no consistency
    #[arg(long, value_enum, default_value_t = OnBudgetArg::Abort, help_heading = LIMITS)]
    on_budget: OnBudgetArg,

    /// Passes before the lock, at most
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100), help_heading = LIMITS)]
    warm_passes: u32,

    /// A pass that took no longer than this is the last one before the lock
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = values::short_duration, help_heading = LIMITS)]
    warm_until: Duration,

    /// How changes of the last moment are found
    #[arg(long, value_enum, default_value_t = ChangesArg::Auto, help_heading = LIMITS)]
    changes: ChangesArg,

    /// Directory for large changed files, where they cannot be held otherwise [default: the system's temporary directory]
    #[arg(long, value_name = "DIR", help_heading = LIMITS)]
    spool: Option<PathBuf>,

    #[command(flatten)]
    record: RecordArgs,

    #[command(flatten)]
    write: WriteArgs,
}

/// What happens when the lock budget is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnBudgetArg {
    /// The lock is given back; there is no snapshot
    Abort,
    /// The lock is given back; the snapshot is of the running application, and says so
    Degrade,
}

/// How changes are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ChangesArg {
    /// By the journal where there can be one, else by a walk
    Auto,
    /// By the journal, or the capture fails before anything is locked
    Journal,
    /// By a walk under the lock
    Walk,
}

/// Captures.
pub fn run(context: &Context, args: &CaptureArgs) -> Result<Outcome> {
    let roots = args.select.roots()?;
    if roots.is_empty() {
        return Err(Problem::usage(
            "nothing to capture: no path is named",
            "name the application's directory, for instance `stillpoint capture /srv/app`",
        ));
    }
    let filter = args.select.filter()?;
    let shown = Shown::new(context);
    let state_dir = location::state_dir(args.lock.state_dir.as_deref())?;
    let lock = args.lock.adapter(&state_dir, args.lock_budget, shown.tell())?;
    let databases = databases(args)?;
    let repository = context.open()?;
    let write = args.write.options(&repository, false);
    let options = CaptureOptions {
        backup: args.record.options(context, (roots, filter, &args.select), write),
        changes: match args.changes {
            ChangesArg::Auto => ChangesMode::Auto,
            ChangesArg::Journal => ChangesMode::Journal,
            ChangesArg::Walk => ChangesMode::Walk,
        },
        lock_budget: args.lock_budget,
        on_budget: match args.on_budget {
            OnBudgetArg::Abort => OnBudget::Abort,
            OnBudgetArg::Degrade => OnBudget::Degrade,
        },
        warm_passes: args.warm_passes,
        warm_until: args.warm_until,
        spool: args.spool.iter().cloned().collect(),
    };
    let progress = Progress::start(&context.output, &context.cancel, "capture");
    let result = capture(&repository, options, lock, databases, &shown.watcher(&progress));
    progress.finish();
    let report = result?;
    show::report(context, &report)?;
    Ok(match report.ending {
        Ending::Degraded => Outcome::Degraded,
        Ending::Complete => {
            Outcome::unless(report.unsaved > 0 || report.backup.summary().problems > 0)
        }
    })
}

fn databases(args: &CaptureArgs) -> Result<Vec<Box<dyn DatabaseSource>>> {
    let parse = |text: &String| {
        // A name has no colon; a URL has one before any equals sign.
        let (name, url) = match text.split_once('=') {
            Some((name, url)) if !name.contains(':') => (Some(name.to_owned()), url),
            _ => (None, text.as_str()),
        };
        let options = DatabaseOptions { name, ..DatabaseOptions::default() };
        Ok(database::parse(url, options)?)
    };
    args.database.iter().map(parse).collect()
}
