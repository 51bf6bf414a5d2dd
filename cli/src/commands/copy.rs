//! `stillpoint copy`: copies snapshots from one repository into another.

use crate::args::{FilterArgs, GlobalArgs, SecretArgs, WriteArgs};
use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::in_copy;
use crate::json;
use crate::progress::Progress;
use crate::selection;
use crate::text;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;
use stillpoint_archive::copy::{Copied, Copier, CopyFigures, CopyStep};
use stillpoint_archive::{Observer, Problem};
use stillpoint_store::{Snapshot, SnapshotId, SnapshotRecord};

const SOURCE: &str = "Repository to copy from";

/// Options of `copy`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The repository to copy into is the usual one (-r, -p, --key-file). What it has already, from earlier copies or \
from snapshots of its own, is not stored again; a snapshot that was copied before is left alone, so that the command can \
be repeated. Data is read, verified, and encrypted anew with the keys of the other repository.

A snapshot that cannot be read whole is not copied: the file that is damaged is named, the others are copied, and the exit code \
is 3.

Examples:
  stillpoint copy --from-repo /srv/backup --from-password-file /etc/secret -r /mnt/usb/backup
  stillpoint copy --from-repo /srv/backup --from-key-file key --host web1 latest
  stillpoint copy --from-repo /srv/backup --dry-run")]
pub struct CopyArgs {
    /// Only these snapshots [default: all that --host, --tag and --path let through]
    #[arg(value_name = "SNAPSHOT")]
    ids: Vec<String>,

    /// All snapshots, as without this option
    #[arg(long, conflicts_with = "ids")]
    all: bool,

    #[command(flatten)]
    filter: FilterArgs,

    #[command(flatten)]
    from: FromArgs,

    /// Only show what would be copied
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    write: WriteArgs,
}

/// The repository to copy from, and its secret, in restic's spelling.
#[derive(Debug, Args)]
struct FromArgs {
    /// Repository to copy from: a directory [env: STILLPOINT_FROM_REPOSITORY]
    #[arg(long, value_name = "PLACE", help_heading = SOURCE)]
    from_repo: Option<PathBuf>,

    /// File whose first line names it [env: STILLPOINT_FROM_REPOSITORY_FILE]
    #[arg(long, value_name = "FILE", help_heading = SOURCE)]
    from_repository_file: Option<PathBuf>,

    /// File whose first line is its passphrase [env: STILLPOINT_FROM_PASSWORD_FILE; or the passphrase itself in STILLPOINT_FROM_PASSWORD]
    #[arg(long, value_name = "FILE", help_heading = SOURCE)]
    from_password_file: Option<PathBuf>,

    /// Shell command that prints its passphrase [env: STILLPOINT_FROM_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND", help_heading = SOURCE)]
    from_password_command: Option<String>,

    /// Inherited file descriptor that gives its passphrase
    #[arg(long, value_name = "NUMBER", help_heading = SOURCE)]
    from_password_fd: Option<i32>,

    /// File whose whole content is its secret [env: STILLPOINT_FROM_KEY_FILE]
    #[arg(long, value_name = "FILE", help_heading = SOURCE)]
    from_key_file: Option<PathBuf>,
}

impl FromArgs {
    fn global(&self) -> GlobalArgs {
        let secret = SecretArgs {
            password_file: self.from_password_file.clone(),
            password_command: self.from_password_command.clone(),
            password_fd: self.from_password_fd,
            key_file: self.from_key_file.clone(),
        };
        GlobalArgs {
            repo: self.from_repo.clone(),
            repository_file: self.from_repository_file.clone(),
            secret,
            ..GlobalArgs::default()
        }
    }
}

/// Copies what is named.
pub fn run(context: &Context, args: &CopyArgs) -> Result<Outcome> {
    let (source, destination) = context.open_both(&args.from.global())?;
    let mut copier = Copier::new(&source, &destination, args.write.options(&destination, false))?;
    let chosen = if args.ids.is_empty() {
        copier.snapshots().to_vec()
    } else {
        args.ids.iter().map(|spec| source.find_snapshot(spec)).collect::<Result<_, _>>()?
    };
    let chosen = selection::select(&args.filter, chosen);
    let mut totals = Totals::default();
    if args.dry_run {
        for (snapshot, step) in chosen.iter().zip(copier.plan(&chosen)) {
            match step {
                CopyStep::Copy => would_copy(context, snapshot, &mut totals)?,
                CopyStep::There { id } => there(context, snapshot, id, &mut totals)?,
            }
        }
        return finish(context, args, &totals, Duration::ZERO);
    }
    let progress = Progress::start(&context.output, &context.cancel, "copy");
    for snapshot in &chosen {
        if progress.cancelled() {
            in_copy(Err(stillpoint_store::Error::Cancelled))?;
        }
        match in_copy(copier.copy(snapshot, &progress))? {
            Copied::Done { id, record, figures } => {
                done(context, snapshot, (id, &record), &figures, &mut totals)?;
            }
            Copied::There { id } => there(context, snapshot, id, &mut totals)?,
            Copied::Refused { problem } => refused(context, snapshot, &problem, &mut totals)?,
        }
    }
    let duration = progress.finish();
    finish(context, args, &totals, duration)
}

/// One snapshot in JSON.
#[derive(Serialize)]
struct Message<'a> {
    action: &'a str,
    source: String,
    snapshot_id: Option<String>,
    hostname: &'a str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    figures: Option<FiguresJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

#[derive(Serialize)]
struct FiguresJson {
    entries_changed: u64,
    files_read: u64,
    bytes_read: u64,
    data_blobs: u64,
    data_added: u64,
    data_added_packed: u64,
}

impl<'a> Message<'a> {
    fn new(action: &'a str, snapshot: &'a Snapshot, id: Option<SnapshotId>) -> Self {
        Self {
            action,
            source: snapshot.id.to_string(),
            snapshot_id: id.map(|id| id.to_string()),
            hostname: &snapshot.record.host,
            time: json::moment(snapshot.record.time),
            figures: None,
            message: None,
        }
    }
}

fn named(snapshot: &Snapshot) -> String {
    let (id, time) = (snapshot.id.short(), text::time(snapshot.record.time));
    format!("snapshot {id} of {time} on {}", text::safe(&snapshot.record.host))
}

fn would_copy(context: &Context, snapshot: &Snapshot, totals: &mut Totals) -> Result<()> {
    totals.copied += 1;
    totals.bytes_read += snapshot.record.root.bytes;
    let size = text::size(snapshot.record.root.bytes);
    context.output.line(format!("{} would be copied ({size} in all)", named(snapshot)))?;
    context.output.message("copy", &Message::new("would_copy", snapshot, None))?;
    Ok(())
}

fn there(
    context: &Context,
    snapshot: &Snapshot,
    id: SnapshotId,
    totals: &mut Totals,
) -> Result<()> {
    totals.there += 1;
    context.output.say(format!("{} is there already: {}", named(snapshot), id.short()))?;
    context.output.message("copy", &Message::new("there", snapshot, Some(id)))?;
    Ok(())
}

fn done(
    context: &Context,
    snapshot: &Snapshot,
    (id, record): (SnapshotId, &SnapshotRecord),
    figures: &CopyFigures,
    totals: &mut Totals,
) -> Result<()> {
    let summary = &record.summary;
    totals.copied += 1;
    totals.bytes_read += figures.bytes_read;
    totals.added += summary.bytes_added;
    totals.stored += summary.bytes_stored;
    context.output.line(format!(
        "{} copied as {}: {} read, {} new, {} stored",
        named(snapshot),
        id.short(),
        text::size(figures.bytes_read),
        text::size(summary.bytes_added),
        text::size(summary.bytes_stored),
    ))?;
    let figures = FiguresJson {
        entries_changed: figures.entries,
        files_read: figures.files_read,
        bytes_read: figures.bytes_read,
        data_blobs: summary.chunks_new,
        data_added: summary.bytes_added,
        data_added_packed: summary.bytes_stored,
    };
    let message = Message { figures: Some(figures), ..Message::new("copied", snapshot, Some(id)) };
    context.output.message_now("copy", &message)?;
    Ok(())
}

fn refused(
    context: &Context,
    snapshot: &Snapshot,
    problem: &Problem,
    totals: &mut Totals,
) -> Result<()> {
    totals.refused += 1;
    context.output.line(format!("{} was not copied: the source is damaged", named(snapshot)))?;
    let message =
        Message { message: Some(&problem.what), ..Message::new("refused", snapshot, None) };
    context.output.message_now("copy", &message)?;
    Ok(())
}

#[derive(Default)]
struct Totals {
    copied: u64,
    there: u64,
    refused: u64,
    bytes_read: u64,
    added: u64,
    stored: u64,
}

fn finish(
    context: &Context,
    args: &CopyArgs,
    totals: &Totals,
    duration: Duration,
) -> Result<Outcome> {
    #[derive(Serialize)]
    struct Summary {
        dry_run: bool,
        snapshots_copied: u64,
        snapshots_there: u64,
        snapshots_refused: u64,
        bytes_read: u64,
        data_added: u64,
        data_added_packed: u64,
        total_duration: f64,
    }
    let output = &context.output;
    let snapshots = |count| text::count(count, "snapshot", "snapshots");
    output.say(match (args.dry_run, totals.copied) {
        (true, 0) => "nothing to copy".to_owned(),
        (true, count) => {
            format!("would copy {} (dry run: nothing was changed)", snapshots(count))
        }
        (false, 0) => "nothing was copied".to_owned(),
        (false, count) => format!(
            "copied {} in {}: {} read, {} new, {} stored",
            snapshots(count),
            text::duration(duration),
            text::size(totals.bytes_read),
            text::size(totals.added),
            text::size(totals.stored),
        ),
    })?;
    if totals.refused > 0 {
        output.say(format!(
            "{} of damaged data not copied: `stillpoint check --read-data` of the source says more",
            snapshots(totals.refused)
        ))?;
    }
    let summary = Summary {
        dry_run: args.dry_run,
        snapshots_copied: totals.copied,
        snapshots_there: totals.there,
        snapshots_refused: totals.refused,
        bytes_read: totals.bytes_read,
        data_added: totals.added,
        data_added_packed: totals.stored,
        total_duration: duration.as_secs_f64(),
    };
    output.message("summary", &summary)?;
    Ok(Outcome::unless(totals.refused > 0))
}
