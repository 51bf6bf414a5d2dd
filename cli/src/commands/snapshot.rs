//! `stillpoint snapshot`: takes a snapshot of files and of command output.

use crate::args::WriteArgs;
use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::Problem;
use crate::json;
use crate::progress::Progress;
use crate::selection::SummaryJson;
use crate::sources::{RecordArgs, SelectArgs};
use crate::stdin::{Interruptible, Stdin};
use crate::text;
use crate::values::{self, NamedCommand};
use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use stillpoint_archive::ChangeRules;
use stillpoint_archive::backup::{BackupOptions, BackupReport, ParentChoice, backup};
use stillpoint_archive::filter::FilterOptions;
use stillpoint_archive::source::StreamSource;
use stillpoint_capture::CommandSource;
use stillpoint_store::{Error, Repository};

const STREAMS: &str = "Streams";
const CHANGES: &str = "What counts as changed";

/// Options of `snapshot`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  stillpoint snapshot ~ --exclude '*.iso' --exclude-caches
  stillpoint snapshot /etc /srv --command shop.sql='pg_dump shop' --tag nightly
  stillpoint snapshot --stdin-filename db.sql --stdin-from-command -- mysqldump --single-transaction shop
  tar c . | stillpoint snapshot --stdin --stdin-filename project.tar

Files that cannot be read are named, the rest is saved, and the exit code is 3. A command that fails fails the \
snapshot: what it printed until then is not kept. An interrupted snapshot leaves nothing behind that counts.")]
pub struct SnapshotArgs {
    #[command(flatten)]
    select: SelectArgs,

    /// Save standard input as a file
    #[arg(long, help_heading = STREAMS, conflicts_with = "stdin_from_command")]
    stdin: bool,

    /// Name of that file
    #[arg(long, value_name = "NAME", default_value = "stdin", help_heading = STREAMS)]
    stdin_filename: String,

    /// Save the output of the command after `--`; the snapshot fails if the command fails
    #[arg(long, help_heading = STREAMS)]
    stdin_from_command: bool,

    /// Save the output of a shell command as the file NAME; may be given several times and together with paths
    #[arg(long, value_name = "NAME=COMMAND", value_parser = values::named_command, help_heading = STREAMS)]
    command: Vec<NamedCommand>,

    /// Take no account of inode numbers (network file systems that change them)
    #[arg(long, help_heading = CHANGES)]
    ignore_inode: bool,

    /// Take no account of ctime, the time of the last change of metadata
    #[arg(long, help_heading = CHANGES)]
    ignore_ctime: bool,

    /// Read every file, whatever its times say
    #[arg(short, long, help_heading = CHANGES)]
    force: bool,

    /// Compare with this snapshot [default: the newest of the same host and paths]
    #[arg(long, value_name = "SNAPSHOT", help_heading = CHANGES)]
    parent: Option<String>,

    /// Take no snapshot when nothing changed since the parent
    #[arg(long)]
    skip_if_unchanged: bool,

    #[command(flatten)]
    record: RecordArgs,

    /// Show what would be saved and how much it would add; change nothing
    #[arg(short = 'n', long, conflicts_with = "protect")]
    dry_run: bool,

    #[command(flatten)]
    write: WriteArgs,

    /// The command of --stdin-from-command, with its arguments
    #[arg(last = true, value_name = "COMMAND", requires = "stdin_from_command")]
    command_line: Vec<std::ffi::OsString>,
}

/// Takes the snapshot.
pub fn run(context: &Context, args: SnapshotArgs) -> Result<Outcome> {
    let roots = args.select.roots()?;
    refuse_contradictions(context, &args, &roots)?;
    let filter = args.select.filter()?;
    let repository = context.open()?;
    let options = options(context, &args, &repository, roots, filter)?;
    let progress = Progress::start(&context.output, &context.cancel, "snapshot");
    let result = backup(&repository, options, &progress);
    progress.finish();
    let report = match result {
        // A command that the same Ctrl-C ended is not what failed.
        Err(_) if context.cancel.is_requested() => return Err(Error::Cancelled.into()),
        // The rules were compiled before: this is about paths and names of streams.
        Err(Error::Invalid(text)) => {
            return Err(Problem::failed(text, "check the paths and names on the command line"));
        }
        other => other?,
    };
    show(context, &args, &report)?;
    Ok(Outcome::unless(report.summary().problems > 0))
}

fn refuse_contradictions(context: &Context, args: &SnapshotArgs, roots: &[PathBuf]) -> Result<()> {
    let has_stream = args.stdin || args.stdin_from_command || !args.command.is_empty();
    if roots.is_empty() && !has_stream {
        return Err(Problem::usage(
            "nothing to save: no path and no command is named",
            "name paths, for instance `stillpoint snapshot ~`, or use --stdin or --command",
        ));
    }
    if args.stdin_from_command && args.command_line.is_empty() {
        return Err(Problem::usage(
            "--stdin-from-command needs a command",
            "write it after two dashes: --stdin-from-command -- pg_dump shop",
        ));
    }
    if args.stdin && context.secret_is_stdin() {
        return Err(Problem::usage(
            "standard input gives the passphrase, so it cannot be saved as well",
            "use another descriptor: --password-fd 3 3<FILE",
        ));
    }
    Ok(())
}

fn options(
    context: &Context,
    args: &SnapshotArgs,
    repository: &Arc<Repository>,
    roots: Vec<PathBuf>,
    filter: FilterOptions,
) -> Result<BackupOptions> {
    let parent = match &args.parent {
        _ if args.force => ParentChoice::Nothing,
        Some(spec) => ParentChoice::Snapshot(repository.find_snapshot(spec)?.id),
        None => ParentChoice::Latest,
    };
    let write = args.write.options(repository, args.dry_run);
    Ok(BackupOptions {
        parent,
        rules: ChangeRules {
            ignore_ctime: args.ignore_ctime,
            ignore_inode: args.ignore_inode,
            force: args.force,
        },
        dry_run: args.dry_run,
        skip_unchanged: args.skip_if_unchanged,
        // Last: what can go wrong with the options goes wrong before a command is started.
        streams: streams(context, args)?,
        ..args.record.options(context, (roots, filter, &args.select), write)
    })
}

fn streams(context: &Context, args: &SnapshotArgs) -> Result<Vec<Box<dyn StreamSource>>> {
    let mut streams: Vec<Box<dyn StreamSource>> = Vec::new();
    if args.stdin {
        let source = Stdin::new(&args.stdin_filename, &context.cancel);
        streams.push(Box::new(source.context("opening standard input")?));
    }
    let mut start = |name: &str, command: &[OsString]| -> Result<()> {
        let source = CommandSource::spawn(name, command)?;
        streams.push(Box::new(Interruptible::new(source, context.cancel.clone())));
        Ok(())
    };
    if args.stdin_from_command {
        start(&args.stdin_filename, &args.command_line)?;
    }
    for NamedCommand { name, command } in &args.command {
        start(name, &["/bin/sh".into(), "-c".into(), command.into()])?;
    }
    Ok(streams)
}

#[derive(Serialize)]
struct Summary<'a> {
    dry_run: bool,
    snapshot_id: Option<String>,
    parent: Option<String>,
    unchanged: bool,
    hostname: &'a str,
    time: String,
    #[serde(flatten)]
    figures: SummaryJson,
}

fn show(context: &Context, args: &SnapshotArgs, report: &BackupReport) -> Result<()> {
    let output = &context.output;
    let (record, figures) = (&report.record, report.summary());
    let is_unchanged = report.snapshot.is_none() && !args.dry_run;
    for (what, new, changed, unmodified) in [
        ("Files", figures.files_new, figures.files_changed, figures.files_unmodified),
        ("Directories", figures.dirs_new, figures.dirs_changed, figures.dirs_unmodified),
    ] {
        let [new, changed, same] = [new, changed, unmodified].map(text::grouped);
        output
            .say(format!("{what:<12} {new:>9} new  {changed:>9} changed  {same:>9} unchanged"))?;
    }
    output.say(format!(
        "{:<12} {} in all, {} read, {} new{}",
        "Data",
        text::size(figures.bytes_total),
        text::size(figures.bytes_read),
        text::size(figures.bytes_added),
        match args.dry_run {
            true => String::new(),
            false => format!(", {} stored", text::size(figures.bytes_stored)),
        },
    ))?;
    if figures.problems > 0 {
        let problems = text::count(figures.problems, "problem", "problems");
        output.say(format!("{problems}: named above, the rest is saved"))?;
    }
    let took = text::duration(Duration::from_nanos(figures.duration_ns));
    match &report.snapshot {
        Some(id) => output.say(format!("snapshot {} saved in {took}", id.short()))?,
        None if is_unchanged => output.say("nothing changed: no snapshot was taken")?,
        None => output.say("dry run: nothing was stored")?,
    }
    let summary = Summary {
        dry_run: args.dry_run,
        snapshot_id: report.snapshot.map(|id| id.to_string()),
        parent: record.parent.map(|id| id.to_string()),
        unchanged: is_unchanged,
        hostname: &record.host,
        time: json::moment(record.time),
        figures: SummaryJson::new(figures),
    };
    output.message("summary", &summary)?;
    Ok(())
}
