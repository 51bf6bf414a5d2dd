//! `stillpoint journal`: a process that keeps what changed, so that later snapshots need no walk.

use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::Problem;
use crate::{json, location, text};
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use stillpoint_archive::path::path_from_key;
use stillpoint_capture::Error;
use stillpoint_capture::journal::audit::Audit;
use stillpoint_capture::journal::baseline::Baseline;
use stillpoint_capture::journal::service::{Client, Service, Status};
use stillpoint_capture::journal::{Options, Position};

/// What the started process prints when it watches.
const READY: &str = "ready";

/// Options of `journal`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A journal listens to what the kernel tells of changed files (fanotify; Linux, root) and keeps it in bounded memory. When it cannot \
be certain, after a restart for one, it says so, and a walk decides.

Examples:
  stillpoint journal start /srv /home
  stillpoint journal status
  stillpoint journal audit           walks, and keeps what it saw; the next time it compares
  stillpoint journal stop")]
pub struct JournalArgs {
    #[command(subcommand)]
    command: JournalCommand,

    /// Directory for what must survive a restart [env: STILLPOINT_STATE_DIR]
    /// [default: $XDG_STATE_HOME/stillpoint or ~/.local/state/stillpoint]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum JournalCommand {
    /// Start a journal that goes on in the background
    Start(WatchArgs),
    /// End it
    Stop,
    /// Show what it watches
    Status,
    /// Compare what it named since the last audit with what a walk finds
    ///
    /// The first audit only walks, and keeps what it saw. A change that the journal did not name is a miss: there must be none
    /// (exit code 1 otherwise). What it named although nothing differs is surplus, which costs a look.
    Audit,
    /// Be the journal
    #[command(hide = true)]
    Run(WatchArgs),
}

#[derive(Debug, Args)]
struct WatchArgs {
    /// Directories to watch, with everything below
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Take no account of other file systems below the given paths
    #[arg(short = 'x', long)]
    one_file_system: bool,
}

/// Why a journal could not be started, from the process that was to be it.
#[derive(Serialize, Deserialize)]
struct Refusal {
    what: String,
    hint: Option<String>,
}

/// Runs the sub-command.
pub fn run(context: &Context, args: JournalArgs) -> Result<Outcome> {
    let state = location::state_dir(args.state_dir.as_deref())?;
    match args.command {
        JournalCommand::Start(watch) => start(context, &state, &watch),
        JournalCommand::Stop => stop(context, &state),
        JournalCommand::Status => status(context, &state),
        JournalCommand::Audit => audit(context, &state),
        JournalCommand::Run(watch) => be(context, &state, &watch),
    }
}

/// An error of the capture library, with its hint.
fn told(error: Error) -> anyhow::Error {
    match error {
        Error::Refused { what, hint } => refused(Refusal { what, hint }),
        other => other.into(),
    }
}

fn refused(refusal: Refusal) -> anyhow::Error {
    let hint = refusal.hint.unwrap_or_else(|| "`stillpoint journal --help` explains it".into());
    Problem::failed(refusal.what, hint)
}

fn not_running() -> anyhow::Error {
    Problem::failed("no journal runs", "start one: `stillpoint journal start PATH`")
}

fn connect(state: &Path) -> Result<Client> {
    Client::connect(state).map_err(told)?.ok_or_else(not_running)
}

fn folder(state: &Path) -> PathBuf {
    state.join("journal")
}

fn start(context: &Context, state: &Path, watch: &WatchArgs) -> Result<Outcome> {
    let folder = folder(state);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.with_context(|| format!("creating {}", folder.display()))?;
    let log = folder.join("log");
    let errors = OpenOptions::new().append(true).create(true).mode(0o600).open(&log);
    let errors = errors.with_context(|| format!("opening {}", log.display()))?;
    let program = std::env::current_exe().context("looking for this program")?;
    let mut command = Command::new(program);
    command.args(["journal", "run", "--state-dir"]).arg(state);
    command.args(watch.one_file_system.then_some("--one-file-system")).arg("--");
    for path in &watch.paths {
        command.arg(std::path::absolute(path)?);
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn();
    let mut child = child.context("starting the journal")?;
    let process = child.id();
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line).context("starting the journal")?;
    }
    if line.trim_end() == READY {
        context.output.say(format!("the journal watches, as process {process}"))?;
        #[derive(Serialize)]
        struct Started {
            process: u32,
        }
        context.output.message("started", &Started { process })?;
        return Ok(Outcome::Complete);
    }
    child.wait().context("waiting for the journal")?;
    Err(serde_json::from_str(&line).map_or_else(
        |_| Problem::failed("the journal ended at once", format!("{} may say why", log.display())),
        refused,
    ))
}

/// The process that goes on: it has a session of its own, so that no terminal ends it.
fn be(context: &Context, state: &Path, watch: &WatchArgs) -> Result<Outcome> {
    // Fails only where it leads a session already.
    let _ = rustix::process::setsid();
    let mut name = [0; 16];
    context.env().fill_random(&mut name);
    let options = Options { crosses_mounts: !watch.one_file_system, ..Options::default() };
    let service = match Service::start(state, json::hex(&name), &watch.paths, &options) {
        Ok(service) => service,
        Err(error) => {
            let (what, hint) = match error {
                Error::Refused { what, hint } => (what, hint),
                other => (other.to_string(), None),
            };
            context.output.line(serde_json::to_string(&Refusal { what, hint })?)?;
            return Ok(Outcome::Negative);
        }
    };
    context.output.line(READY)?;
    context.output.flush()?;
    std::env::set_current_dir("/")?;
    rustix::stdio::dup2_stdout(File::open("/dev/null")?)?;
    service.run(&|what| context.output.warn(what)).map_err(told)?;
    Ok(Outcome::Complete)
}

fn stop(context: &Context, state: &Path) -> Result<Outcome> {
    match Client::connect(state).map_err(told)? {
        Some(client) => {
            client.stop().map_err(told)?;
            context.output.say("the journal has ended")?;
        }
        None => context.output.say("no journal runs")?,
    }
    Ok(Outcome::Complete)
}

fn shown(key: &[u8]) -> String {
    text::name(path_from_key(key).as_os_str().as_bytes())
}

fn status(context: &Context, state: &Path) -> Result<Outcome> {
    #[derive(Serialize)]
    struct Message {
        process: u32,
        paths: Vec<String>,
        one_file_system: bool,
        position: String,
        named: u64,
        gap: Option<String>,
        hidden_processes: u64,
    }
    let Status { process, roots, crosses_mounts, position, named, gap, opaque } =
        connect(state)?.status().map_err(told)?;
    let paths: Vec<String> = roots.iter().map(|root| shown(root)).collect();
    context.output.line(format!("process {process} watches {}", paths.join(", ")))?;
    if !crosses_mounts {
        context.output.line("without other file systems below")?;
    }
    let kept = text::count(named, "path or tree", "paths and trees");
    context.output.line(format!("keeps {kept}; position {position}"))?;
    if opaque > 0 {
        let hidden = text::count(opaque, "process hides", "processes hide");
        context.output.line(format!("{hidden} what they have mapped"))?;
    }
    let gap = gap.map(|gap| gap.to_string());
    gap.iter().try_for_each(|gap| context.output.line(format!("has a gap: {gap}")))?;
    let message = Message {
        process,
        paths,
        one_file_system: !crosses_mounts,
        position,
        named,
        gap,
        hidden_processes: opaque,
    };
    context.output.message("status", &message)?;
    Ok(Outcome::Complete)
}

#[derive(Serialize)]
struct AuditMessage {
    entries: usize,
    compared: bool,
    changed: u64,
    misses: u64,
    surplus: u64,
    gap: Option<String>,
}

fn audit(context: &Context, state: &Path) -> Result<Outcome> {
    let status = connect(state)?.status().map_err(told)?;
    let roots: Vec<Vec<u8>> = status.roots.iter().map(|root| root.to_vec()).collect();
    let file = folder(state).join("baseline");
    let before = Baseline::load(&file);
    // The position first: what changes during the walk is named the next time.
    let after = Baseline::walk(status.position, &roots, status.crosses_mounts);
    let mut message = AuditMessage {
        entries: after.len(),
        compared: false,
        changed: 0,
        misses: 0,
        surplus: 0,
        gap: None,
    };
    let base = before.and_then(|before| Some((before.position.parse::<Position>().ok()?, before)));
    if let Some((position, before)) = base {
        let report = connect(state)?.changes(Some(&position), &roots).map_err(told)?;
        let audit = Audit::compare(&before.differences(&after), &report.changes);
        message.gap = report.changes.gap.map(|gap| gap.to_string());
        message.compared = message.gap.is_none();
        (message.changed, message.misses, message.surplus) =
            (audit.changed, audit.misses, audit.surplus);
        if message.compared {
            let missed = audit.missed.iter().map(|key| format!("missed {}", shown(key)));
            context.output.lines(missed)?;
        }
    }
    after.save(&file).map_err(told)?;
    tell_audit(context, &message)?;
    Ok(if message.compared && message.misses > 0 { Outcome::Negative } else { Outcome::Complete })
}

fn tell_audit(context: &Context, message: &AuditMessage) -> Result<()> {
    let entries = text::grouped(u64::try_from(message.entries)?);
    if message.compared {
        let [changed, misses, surplus] =
            [message.changed, message.misses, message.surplus].map(text::grouped);
        context.output.line(format!(
            "{entries} entries, {changed} changed, {misses} missed, {surplus} named that did not differ"
        ))?;
    } else {
        if let Some(gap) = &message.gap {
            context.output.line(format!("nothing to compare: {gap}"))?;
        }
        context
            .output
            .line(format!("{entries} entries kept: the next audit compares with them"))?;
    }
    context.output.message("audit", message)?;
    Ok(())
}
