//! `stillpoint restore`: writes files of a snapshot back to disk.

mod into;

use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::in_target;
use crate::listing;
use crate::progress::Progress;
use crate::safeguard::Request;
use crate::text;
use crate::values::{self, SnapshotPath};
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use stillpoint_archive::plan::{Overwrite, RestorePlan};
use stillpoint_archive::restore::{RestoreOptions, RestoreReport, Selection, restore};
use stillpoint_archive::target::Ownership;
use stillpoint_store::Snapshot;

/// Options of `restore`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  stillpoint restore latest --target /tmp/back
  stillpoint restore latest:/home/me/project --target ./project      the content of one directory
  stillpoint restore 3f2a91c0 --target / --include /etc/nginx --dry-run
  stillpoint restore latest:/shop.sql --into postgresql:///shop_again     a database that does not exist yet

Files that are there already and equal are not written again. Nothing outside the target is ever touched, whatever \
links lie in it. Files get their owners back when run as root (--owner).")]
pub struct RestoreArgs {
    /// The snapshot: an id, the first digits of one, `latest`, or `latest~N`; with :/PATH only what is below it
    #[arg(value_name = "SNAPSHOT[:/PATH]", value_parser = values::snapshot_path_parser())]
    snapshot: SnapshotPath,

    /// Directory to restore into; it is created when it is missing
    #[arg(short, long, value_name = "DIR", required_unless_present = "into")]
    target: Option<PathBuf>,

    /// Restore the dump of a database instead, into this new database: postgresql://…, mysql://…, sqlite:/PATH
    #[arg(long, value_name = "URL", conflicts_with_all = [
        "target", "include", "exclude", "overwrite", "delete", "verify", "sparse", "owner", "dry_run",
    ])]
    into: Option<String>,

    /// Restore only what matches; patterns as in .gitignore, counted from what is restored
    #[arg(short, long, value_name = "PATTERN")]
    include: Vec<String>,

    /// Leave out what matches
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<String>,

    /// What to do with files that are there already
    #[arg(long, value_enum, default_value_t = OverwriteChoice::Always)]
    overwrite: OverwriteChoice,

    /// Remove from the target what the snapshot does not have; only for a saved path or what is below it
    #[arg(long)]
    delete: bool,

    /// Read back every restored file and compare it with the snapshot
    #[arg(long)]
    verify: bool,

    /// Make holes of all long runs of zeros, not only of those that were holes
    #[arg(long)]
    sparse: bool,

    /// Whose the restored files are [default: name for root, mine for everybody else]
    #[arg(long, value_enum, value_name = "WHOSE")]
    owner: Option<OwnerChoice>,

    /// Show what would be done; change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

impl RestoreArgs {
    /// The directory; the command line demands one unless a database is restored.
    fn target(&self) -> &Path {
        self.target.as_deref().unwrap_or(Path::new(""))
    }
}

/// Whose the restored files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OwnerChoice {
    /// The saved user and group by name where this machine knows them, else by number
    Name,
    /// The saved user and group by number
    Numeric,
    /// Those of whoever runs the restore
    Mine,
}

/// What to do with files that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OverwriteChoice {
    /// Make each like the snapshot's; content that is equal is not written again
    Always,
    /// Trust files of equal size and time; make the others like the snapshot's
    IfChanged,
    /// Replace those that are older than the snapshot's
    IfNewer,
    /// Leave them alone
    Never,
}

/// Restores, or shows what would be done.
pub fn run(context: &Context, args: RestoreArgs) -> Result<Outcome> {
    if let Some(url) = &args.into {
        return into::run(context, &args, url);
    }
    let repository = context.open()?;
    let snapshot = repository.find_snapshot(&args.snapshot.snapshot)?;
    let subtree = listing::key(args.snapshot.path.as_deref(), Path::new(""))?;
    let request = Request {
        snapshot: &snapshot,
        spec: &args.snapshot.snapshot,
        subtree: &subtree,
        target: args.target(),
        delete: args.delete,
        exclude: &args.exclude,
        repository: &context.repository_dir()?,
    };
    request.check(&repository.reader()?)?;
    let options = RestoreOptions {
        subtree,
        selection: Selection::new(&args.include, &args.exclude)?,
        overwrite: args.overwrite.into(),
        delete: args.delete,
        verify: args.verify,
        dry_run: args.dry_run,
        sparse: args.sparse,
        ownership: ownership(&args),
        ..RestoreOptions::new(snapshot.record.root, args.target())
    };
    let progress = Progress::start(&context.output, &context.cancel, "restore");
    let report = in_target(restore(&repository, &options, &progress));
    let duration = progress.finish();
    let report = report?;
    for warning in &report.warnings {
        let entries = text::count(warning.count, "entry", "entries");
        let first = warning.first.display();
        context.output.warn(format!("{}: {entries}, the first is {first}", warning.what));
    }
    show(context, &args, &snapshot, &report, duration)?;
    Ok(Outcome::unless(report.problem_count > 0))
}

fn ownership(args: &RestoreArgs) -> Ownership {
    match args.owner {
        Some(OwnerChoice::Name) => Ownership::ByName,
        Some(OwnerChoice::Numeric) => Ownership::Numeric,
        Some(OwnerChoice::Mine) => Ownership::Mine,
        // Only root can give files away; for everybody else trying would be a warning for each file.
        None if rustix::process::geteuid().is_root() => Ownership::ByName,
        None => Ownership::Mine,
    }
}

impl From<OverwriteChoice> for Overwrite {
    fn from(choice: OverwriteChoice) -> Self {
        match choice {
            OverwriteChoice::Always => Self::Always,
            OverwriteChoice::IfChanged => Self::IfChanged,
            OverwriteChoice::IfNewer => Self::IfNewer,
            OverwriteChoice::Never => Self::Never,
        }
    }
}

fn show(
    context: &Context,
    args: &RestoreArgs,
    snapshot: &Snapshot,
    report: &RestoreReport,
    duration: Duration,
) -> Result<()> {
    let output = &context.output;
    let target = text::safe(&args.target().to_string_lossy());
    let from = format!("snapshot {} of {}", snapshot.id.short(), text::time(snapshot.record.time));
    if args.dry_run {
        output.say(format!("would restore {from} into {target} (dry run: nothing was changed)"))?;
    } else {
        let took = text::duration(duration);
        output.say(format!("restored {from} into {target} in {took}"))?;
    }
    plan_lines(&report.plan).into_iter().try_for_each(|line| output.say(line))?;
    if args.dry_run {
        let most = text::size(report.plan.bytes_to_write);
        output.say(format!("would write up to {most}"))?;
    } else {
        output.say(format!(
            "wrote {}, left {} that were the same",
            text::size(report.bytes_written),
            text::size(report.bytes_matched.saturating_add(report.plan.bytes_unchanged)),
        ))?;
    }
    if args.verify && !args.dry_run {
        let files = text::count(report.files_verified, "file", "files");
        output.say(format!("verified {files}"))?;
    }
    if report.problem_count > 0 {
        let problems = text::count(report.problem_count, "problem", "problems");
        output.say(format!("{problems}: named above, the rest is restored"))?;
    }
    output.message("summary", &Summary::new(args, snapshot, report, duration))?;
    Ok(())
}

/// What was decided, one line for each kind that occurs.
fn plan_lines(plan: &RestorePlan) -> Vec<String> {
    let lines = [
        (plan.files_new, "new file", "new files"),
        (plan.files_replaced, "file replaced", "files replaced"),
        (plan.files_compared, "existing file compared", "existing files compared"),
        (plan.files_unchanged, "file unchanged", "files unchanged"),
        (plan.directories_new, "new directory", "new directories"),
        (plan.directories_existing, "existing directory", "existing directories"),
        (plan.others_new, "new link or special file", "new links and special files"),
        (
            plan.others_unchanged,
            "link or special file unchanged",
            "links and special files unchanged",
        ),
        (plan.hard_links, "hard link", "hard links"),
        (plan.kept, "existing entry left alone", "existing entries left alone"),
        (plan.excluded, "entry left out", "entries left out"),
        (plan.deleted, "entry deleted", "entries deleted"),
    ];
    lines
        .into_iter()
        .filter(|(number, ..)| *number > 0)
        .map(|(number, one, many)| format!("  {}", text::count(number, one, many)))
        .collect()
}

#[derive(Serialize)]
struct Summary<'a> {
    dry_run: bool,
    snapshot_id: String,
    target: std::borrow::Cow<'a, str>,
    files_written: u64,
    files_matched: u64,
    files_verified: u64,
    bytes_written: u64,
    bytes_matched: u64,
    entries_deleted: u64,
    error_count: u64,
    total_duration: f64,
    plan: &'a RestorePlan,
}

impl<'a> Summary<'a> {
    fn new(
        args: &'a RestoreArgs,
        snapshot: &Snapshot,
        report: &'a RestoreReport,
        duration: Duration,
    ) -> Self {
        Self {
            dry_run: args.dry_run,
            snapshot_id: snapshot.id.to_string(),
            target: args.target().to_string_lossy(),
            files_written: report.files_written,
            files_matched: report.files_matched,
            files_verified: report.files_verified,
            bytes_written: report.bytes_written,
            bytes_matched: report.bytes_matched,
            entries_deleted: report.deleted,
            error_count: report.problem_count,
            total_duration: duration.as_secs_f64(),
            plan: &report.plan,
        }
    }
}
