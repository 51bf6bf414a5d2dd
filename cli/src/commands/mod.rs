//! One module for each command: its options, what it asks of the libraries, and how it shows the answer.

pub mod capture;
pub mod check;
pub mod completions;
pub mod copy;
pub mod diff;
pub mod dump;
pub mod find;
pub mod forget;
pub mod init;
pub mod journal;
pub mod key;
pub mod ls;
pub mod man;
pub mod parity;
pub mod protect;
pub mod prune;
pub mod repair;
pub mod restore;
pub mod snapshot;
pub mod snapshots;
pub mod stats;
pub mod undelete;
pub mod unlock;
pub mod version;
pub mod watchdog;

use crate::args::Command;
use crate::context::Context;
use crate::exit::Outcome;
use anyhow::Result;

/// Runs the command.
///
/// # Errors
/// Whatever stopped it; [`crate::failure::explain`] turns it into words.
pub fn run(context: &Context, command: Command) -> Result<Outcome> {
    match command {
        Command::Init(args) => init::run(context, &args),
        Command::Snapshot(args) => snapshot::run(context, *args),
        Command::Capture(args) => capture::run(context, &args),
        Command::Snapshots(args) => snapshots::run(context, &args),
        Command::Ls(args) => ls::run(context, &args),
        Command::Find(args) => find::run(context, &args),
        Command::Diff(args) => diff::run(context, &args),
        Command::Restore(args) => restore::run(context, *args),
        Command::Dump(args) => dump::run(context, &args),
        Command::Check(args) => check::run(context, &args),
        Command::Forget(args) => forget::run(context, *args),
        Command::Undelete(args) => undelete::run(context, &args),
        Command::Protect(args) => protect::run(context, &args, true),
        Command::Unprotect(args) => protect::run(context, &args, false),
        Command::Copy(args) => copy::run(context, &args),
        Command::Prune(args) => prune::run(context, &args),
        Command::Parity(args) => parity::run(context, &args),
        Command::Repair(args) => repair::run(context, &args),
        Command::Stats(args) => stats::run(context, &args),
        Command::Key(args) => key::run(context, args),
        Command::Journal(args) => journal::run(context, args),
        Command::Unlock(args) => unlock::run(context, &args),
        Command::Watchdog(_) => watchdog::run(context),
        Command::Completions(args) => completions::run(context, &args),
        Command::Man(args) => man::run(context, &args),
        Command::Version(_) => version::run(context),
    }
}
