//! The command line: what every command shares. Each command's own options stand in its module.

use crate::commands;
use clap::{ArgAction, Args, Parser, Subcommand};
use std::path::PathBuf;
use stillpoint_store::{Repository, WriteOptions};

/// Deduplicated, encrypted snapshots of files and command output.
#[derive(Debug, Parser)]
#[command(
    name = "stillpoint",
    version,
    about = "Deduplicated, encrypted snapshots of files and command output",
    long_about = "Stillpoint keeps snapshots of files and of command output in an encrypted repository, stores each piece of data once, and gives back every snapshot byte for byte.\n\nA repository is a directory. Several processes may use it at the same time; no repository ever has to be unlocked.",
    after_long_help = EXIT_CODES,
    propagate_version = false,
    max_term_width = 110,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// Shown below the long help and in the manual.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed; check: damage was found; repair: damage is left
  2    the command line is wrong
  3    done, but some files could not be read or restored, or are lost; each was named
  4    capture: the lock budget was over; the application is unlocked
  5    capture, unlock: an application may still be locked; the message says what to do
  10   no repository at the place
  11   another process was in the way; run the command again
  12   wrong passphrase or key file
  130  interrupted (Ctrl-C); nothing needs cleaning up";

const REPOSITORY: &str = "Repository and secret";
const DISPLAY: &str = "Output";

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
pub struct GlobalArgs {
    /// Repository: a directory [env: STILLPOINT_REPOSITORY]
    #[arg(short, long, global = true, value_name = "PLACE", help_heading = REPOSITORY)]
    pub repo: Option<PathBuf>,

    /// File whose first line names the repository [env: STILLPOINT_REPOSITORY_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = REPOSITORY)]
    pub repository_file: Option<PathBuf>,

    #[command(flatten)]
    pub secret: SecretArgs,

    /// Directory for the chunk index and other things that can be rebuilt at any time
    /// [env: STILLPOINT_CACHE_DIR] [default: $XDG_CACHE_HOME/stillpoint or ~/.cache/stillpoint]
    #[arg(long, global = true, value_name = "DIR", help_heading = REPOSITORY)]
    pub cache_dir: Option<PathBuf>,

    /// Keep nothing on disk outside the repository; the index is rebuilt in memory when it is needed
    #[arg(long, global = true, conflicts_with = "cache_dir", help_heading = REPOSITORY)]
    pub no_cache: bool,

    /// Print JSON lines with `message_type` instead of text
    #[arg(long, global = true, help_heading = DISPLAY)]
    pub json: bool,

    /// Print results and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = DISPLAY)]
    pub quiet: bool,

    /// Name each changed file; twice: each file
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = DISPLAY)]
    pub verbose: u8,
}

/// Where the passphrase or key file comes from. Never an argument: all users can see those.
#[derive(Debug, Clone, Default, Args)]
pub struct SecretArgs {
    /// File whose first line is the passphrase [env: STILLPOINT_PASSWORD_FILE; or the passphrase itself in STILLPOINT_PASSWORD]
    #[arg(short, long, global = true, value_name = "FILE", help_heading = REPOSITORY)]
    pub password_file: Option<PathBuf>,

    /// Shell command that prints the passphrase [env: STILLPOINT_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND", help_heading = REPOSITORY)]
    pub password_command: Option<String>,

    /// Inherited file descriptor that gives the passphrase
    #[arg(long, global = true, value_name = "NUMBER", help_heading = REPOSITORY)]
    pub password_fd: Option<i32>,

    /// File whose whole content is the secret [env: STILLPOINT_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = REPOSITORY)]
    pub key_file: Option<PathBuf>,
}

/// Options of the commands that store data.
#[derive(Debug, Clone, Args)]
pub struct WriteArgs {
    /// Compression: off, fast, auto, max, or a zstd level from -7 to 22
    #[arg(long, value_name = "HOW", default_value = "auto", allow_hyphen_values = true, value_parser = crate::values::compression)]
    pub compression: crate::values::Compression,

    /// Do not decrypt, decompress and compare what was just sealed before it is written. Faster; bad memory then goes unnoticed until `check --read-data`
    #[arg(long)]
    pub no_verify_writes: bool,
}

impl WriteArgs {
    /// The same for the library.
    pub fn options(&self, repository: &Repository, dry_run: bool) -> WriteOptions {
        let level = self.compression.level(repository.config().level);
        let verify = !self.no_verify_writes;
        WriteOptions { level, verify, dry_run, ..WriteOptions::default() }
    }
}

/// Which snapshots a command looks at; several values of one option mean any of them.
#[derive(Debug, Clone, Default, Args)]
pub struct FilterArgs {
    /// Only snapshots of this host
    #[arg(short = 'H', long, value_name = "HOST")]
    pub host: Vec<String>,

    /// Only snapshots that carry all of these tags (TAG[,TAG...])
    #[arg(long, value_name = "TAG[,TAG]")]
    pub tag: Vec<String>,

    /// Only snapshots of this path
    #[arg(long, value_name = "PATH")]
    pub path: Vec<PathBuf>,
}

impl FilterArgs {
    /// True when every snapshot passes.
    pub fn is_empty(&self) -> bool {
        self.host.is_empty() && self.tag.is_empty() && self.path.is_empty()
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a repository
    Init(commands::init::InitArgs),
    /// Take a snapshot of files and command output
    #[command(visible_aliases = ["backup", "create"])]
    Snapshot(Box<commands::snapshot::SnapshotArgs>),
    /// Hold an application still for a moment and take a snapshot of that moment
    Capture(Box<commands::capture::CaptureArgs>),
    /// List the snapshots
    Snapshots(commands::snapshots::SnapshotsArgs),
    /// List the files of a snapshot
    Ls(commands::ls::LsArgs),
    /// Find files by name in all snapshots
    Find(commands::find::FindArgs),
    /// Show what changed between two snapshots
    Diff(commands::diff::DiffArgs),
    /// Write files of a snapshot back to disk
    Restore(Box<commands::restore::RestoreArgs>),
    /// Print a file, or a directory as a tar archive, to standard output
    Dump(commands::dump::DumpArgs),
    /// Verify the repository
    Check(commands::check::CheckArgs),
    /// Remove snapshots by hand or by retention rules; `prune` then frees the space
    Forget(Box<commands::forget::ForgetArgs>),
    /// Bring forgotten snapshots back
    Undelete(commands::undelete::UndeleteArgs),
    /// Protect snapshots from being forgotten
    Protect(commands::protect::ProtectArgs),
    /// Let protected snapshots be forgotten again
    Unprotect(commands::protect::ProtectArgs),
    /// Copy snapshots from another repository into this one
    Copy(Box<commands::copy::CopyArgs>),
    /// Remove data that no snapshot needs any more
    Prune(commands::prune::PruneArgs),
    /// Add, show or give up parity, which heals lost and damaged packs
    Parity(commands::parity::ParityArgs),
    /// Bring a damaged repository back in order
    Repair(commands::repair::RepairArgs),
    /// Show how much is stored, and how well it is deduplicated
    Stats(commands::stats::StatsArgs),
    /// List, add, remove or change passphrases and key files
    Key(commands::key::KeyArgs),
    /// Keep what changes, so that later snapshots need no walk
    Journal(commands::journal::JournalArgs),
    /// Unlock applications that captures left locked
    Unlock(commands::unlock::UnlockArgs),
    /// Give an application's lock back when its capture cannot
    #[command(hide = true)]
    Watchdog(commands::watchdog::WatchdogArgs),
    /// Print a completion script for a shell
    Completions(commands::completions::CompletionsArgs),
    /// Write the man pages
    #[command(hide = true)]
    Man(commands::man::ManArgs),
    /// Print the versions of the program and of the repository format
    Version(commands::version::VersionArgs),
}

impl Command {
    /// True where signals are the command's own affair.
    pub fn minds_signals_itself(&self) -> bool {
        matches!(self, Self::Watchdog(_))
    }

    /// True where a first Ctrl-C lets the command come to an orderly end; elsewhere it ends the process at once.
    pub fn ends_gracefully(&self) -> bool {
        match self {
            Self::Snapshot(_) | Self::Restore(_) | Self::Check(_) => true,
            Self::Forget(_) | Self::Prune(_) | Self::Parity(_) | Self::Repair(_) => true,
            Self::Copy(_) => true,
            Self::Dump(args) => args.writes_a_file(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    // clap finds contradictions in the definitions only when they are built.
    #[test]
    fn definitions_are_sound() {
        Cli::command().debug_assert();
    }
}
