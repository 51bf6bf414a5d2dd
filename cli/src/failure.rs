//! From an error to what a person sees: what failed, what to do next, and the exit code. The only such mapping.

use crate::exit;
use std::io;
use stillpoint_capture::Error as Capture;
use stillpoint_store::Error;

const TARGET_INTERRUPTED: &str =
    "files in the target may be half restored: run the command again, it completes them";
const TARGET_FULL: &str = "the disk of the target is full: free some space there, or choose another target, and run the command again";
/// What [`Error::Io`] says was done when the cache could not be used.
pub const OPENING_CACHE: &str = "opening the cache";

/// An error of the command line itself: it names its hint and its exit code.
#[derive(Debug)]
pub struct Problem {
    message: String,
    hint: Option<String>,
    code: u8,
}

impl Problem {
    /// The command line is wrong, or something it must name is not named (exit 2).
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        Self { message: message.into(), hint: Some(hint.into()), code: exit::USAGE }.into()
    }

    /// Something failed (exit 1).
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        Self { message: message.into(), hint: Some(hint.into()), code: exit::FAILED }.into()
    }
}

/// As the error says it, of the repository that `copy` reads: hints name its own flags.
pub fn in_source(error: anyhow::Error) -> anyhow::Error {
    let hint = match error.downcast_ref::<Error>() {
        Some(Error::WrongSecret) => {
            "check the secret of the repository to copy from (--from-password-file, --from-key-file, $STILLPOINT_FROM_PASSWORD)"
        }
        Some(Error::NoRepository { .. }) => "check the place to copy from (--from-repo)",
        _ => return error.context("opening the repository to copy from"),
    };
    let Failure { message, code, .. } = explain(&error);
    let message = format!("opening the repository to copy from: {message}");
    Problem { message, hint: Some(hint.into()), code }.into()
}

/// As the error says it; but a copy that was interrupted has its own way on.
pub fn in_copy<T>(result: Result<T, Error>) -> anyhow::Result<T> {
    result.map_err(|error| match error {
        Error::Cancelled => Problem {
            message: error.to_string(),
            hint: Some(
                "what was copied stays: run the command again, it goes on with the rest".into(),
            ),
            code: exit::INTERRUPTED,
        }
        .into(),
        other => other.into(),
    })
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

/// An `Invalid` of a command that looks for a path means that the snapshot does not have it: that is not a mistake in
/// the options.
pub fn in_snapshot<T>(result: Result<T, Error>) -> anyhow::Result<T> {
    result.map_err(|error| match error {
        Error::Invalid(text) => {
            Problem::failed(text, "`stillpoint ls SNAPSHOT` lists what the snapshot holds")
        }
        other => other.into(),
    })
}

/// As [`in_snapshot`], for a command that writes below `--target`: what stops it there says nothing about the repository.
pub fn in_target<T>(result: Result<T, Error>) -> anyhow::Result<T> {
    let (hint, code) = match &result {
        Err(Error::Cancelled) => (TARGET_INTERRUPTED, exit::INTERRUPTED),
        Err(Error::Io { source, .. }) if is_full(source) => (TARGET_FULL, exit::FAILED),
        _ => return in_snapshot(result),
    };
    result.map_err(|error| {
        let message = chain(&error.into());
        Problem { message, hint: Some(hint.into()), code }.into()
    })
}

/// An error while a file outside of the repository was written; `what` says which.
pub fn while_writing(error: io::Error, what: &str) -> anyhow::Error {
    if is_full(&error) {
        return Problem::failed(format!("{what}: {error}"), TARGET_FULL);
    }
    anyhow::Error::new(error).context(what.to_owned())
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What a person sees of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What failed.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// The exit code.
    pub code: u8,
}

/// Decides message, hint and exit code of an error.
pub fn explain(error: &anyhow::Error) -> Failure {
    let message = chain(error);
    if let Some(problem) = error.downcast_ref::<Problem>() {
        return Failure { message, hint: problem.hint.clone(), code: problem.code };
    }
    for cause in error.chain() {
        if let Some(error) = store_error(cause) {
            let (hint, code) = advice(error);
            return Failure { message, hint, code };
        }
    }
    if let Some(error) = error.downcast_ref::<Capture>() {
        let (hint, code) = capture_advice(error);
        return Failure { message, hint, code };
    }
    let hint = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).and_then(io_hint);
    Failure { message, hint, code: exit::FAILED }
}

/// The error and its causes in one line; a cause that its error quotes already is not repeated.
fn chain(error: &anyhow::Error) -> String {
    let mut out = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if out.is_empty() {
            out = text;
        } else if !out.contains(&text) {
            out = format!("{out}: {text}");
        }
    }
    out.replace('\n', " ")
}

fn advice(error: &Error) -> (Option<String>, u8) {
    let hint = |text: &str| Some(text.to_string());
    match error {
        Error::NoRepository { .. } => (
            hint("check the location (-r), or create a repository there with `stillpoint init`"),
            exit::NO_REPOSITORY,
        ),
        Error::AlreadyExists { .. } => (
            hint("use it as it is, or choose another place with -r; init changes nothing here"),
            exit::FAILED,
        ),
        Error::WrongSecret => (
            hint(
                "check which passphrase or key file belongs to this repository (-p, --key-file, $STILLPOINT_PASSWORD)",
            ),
            exit::WRONG_SECRET,
        ),
        Error::Unsupported { .. } => (
            hint("nothing is damaged: use a newer version of stillpoint for this repository"),
            exit::FAILED,
        ),
        Error::Damaged { object, .. }
        | Error::Missing { object }
        | Error::LimitExceeded { object, .. }
            if is_of_catalogue(object) =>
        {
            (
                hint(
                    "no data is lost by that: `stillpoint repair` builds head and catalogue anew from what is left (with --dry-run it says how)",
                ),
                exit::FAILED,
            )
        }
        Error::Damaged { .. } | Error::Missing { .. } | Error::LimitExceeded { .. } => (
            hint(
                "`stillpoint check` says which snapshots and files are affected, `stillpoint repair --dry-run` what can be done",
            ),
            exit::FAILED,
        ),
        Error::NoSuchSnapshot { .. } => {
            (hint("`stillpoint snapshots` lists what there is"), exit::FAILED)
        }
        Error::Protected { snapshot } => (
            Some(format!(
                "nothing was forgotten: leave it out, or run `stillpoint unprotect {}` first",
                snapshot.short()
            )),
            exit::FAILED,
        ),
        Error::Conflict { .. } | Error::KeysRotated => {
            (hint("nothing is lost: run the command again"), exit::CONFLICT)
        }
        Error::StaleSecret { .. } => (
            hint(
                "use the passphrase or key file that is in use now; `stillpoint key list` shows them",
            ),
            exit::WRONG_SECRET,
        ),
        Error::Invalid(_) => (hint("`--help` explains the options"), exit::USAGE),
        Error::Io { action, .. }
            if *action == OPENING_CACHE || stillpoint_rocks::ACTIONS.contains(action) =>
        {
            (
                hint(
                    "choose another directory with --cache-dir, or do without a cache: --no-cache",
                ),
                exit::FAILED,
            )
        }
        Error::Io { source, .. } => (io_hint(source), exit::FAILED),
        Error::Cancelled => (
            hint("nothing was committed and nothing needs cleaning up; run the command again"),
            exit::INTERRUPTED,
        ),
    }
}

/// An error of the store, or of a capture that the store stopped.
fn store_error<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    match cause.downcast_ref::<Capture>() {
        Some(Capture::Store(error)) => Some(error),
        _ => cause.downcast_ref::<Error>(),
    }
}

fn capture_advice(error: &Capture) -> (Option<String>, u8) {
    let (hint, code) = match error {
        Capture::Refused { hint, .. } => return (hint.clone(), exit::FAILED),
        Capture::StillLocked { manual, .. } => return (Some(manual.clone()), exit::STILL_LOCKED),
        Capture::Store(error) => return advice(error),
        Capture::Occupied { .. } => {
            ("nothing was touched: run the capture again when that is over", exit::CONFLICT)
        }
        Capture::Lost(_) => (
            "the application is unlocked and there is no snapshot: find out who took the lock away, and run the capture again",
            exit::FAILED,
        ),
        Capture::OverBudget { .. } => (
            "the application is unlocked and there is no snapshot: try at a quieter time, or with a larger --lock-budget",
            exit::DEGRADED,
        ),
        Capture::Failed(_) => ("nothing is locked and there is no snapshot", exit::FAILED),
        Capture::Cancelled => {
            ("nothing is locked and there is no snapshot; run the command again", exit::INTERRUPTED)
        }
    };
    (Some(hint.into()), code)
}

/// Whether an error speaks of the head or of the catalogue.
fn is_of_catalogue(object: &str) -> bool {
    object == "head" || object.starts_with("catalogue")
}

fn io_hint(error: &io::Error) -> Option<String> {
    let text = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full: all earlier snapshots are whole; free some space (`stillpoint forget --prune` helps) and run the command again"
        }
        io::ErrorKind::PermissionDenied => {
            "check owner and mode of that path, or run as a user who may use it"
        }
        io::ErrorKind::ReadOnlyFilesystem => "the file system is mounted read-only",
        io::ErrorKind::NotFound => "check that the path exists and is spelt correctly",
        _ if error.raw_os_error() == Some(libc::EMFILE) => {
            "too many open files: raise the limit (`ulimit -n`)"
        }
        _ if error.raw_os_error() == Some(libc::EIO) => {
            "the device reports an error: look at the kernel log (dmesg) and check the disk"
        }
        _ => return None,
    };
    Some(text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    // Each kind of error has its exit code, also under context, and a hint.
    #[test]
    fn errors_have_codes_and_hints() {
        let check = |error: Error, code: u8, part: &str| {
            let failure = explain(&Err::<(), _>(error).context("doing it").unwrap_err());
            assert_eq!(failure.code, code, "{failure:?}");
            assert!(failure.hint.as_deref().unwrap_or("").contains(part), "{failure:?}");
            assert!(failure.message.starts_with("doing it: "), "{failure:?}");
        };
        check(Error::NoRepository { location: "/x".into() }, 10, "init");
        check(Error::WrongSecret, 12, "passphrase");
        check(Error::Conflict { detail: "pack".into() }, 11, "again");
        check(Error::KeysRotated, 11, "again");
        check(Error::StaleSecret { detail: "replaced".into() }, 12, "in use now");
        check(Error::Cancelled, 130, "nothing was committed");
        check(Error::Invalid("no".into()), 2, "--help");
        check(Error::damaged("pack", "short"), 1, "check");
        check(Error::damaged("head", "short"), 1, "stillpoint repair");
        check(Error::missing("catalogue/00"), 1, "stillpoint repair");
        check(Error::io("writing", "pack", io::ErrorKind::StorageFull.into()), 1, "full");
        for action in stillpoint_rocks::ACTIONS {
            check(Error::io(action, "index", io::ErrorKind::StorageFull.into()), 1, "--no-cache");
        }
        let newer = Error::Unsupported { object: "config".into(), found: 9, supported: 1 };
        check(newer, 1, "newer version");
    }

    // What stops a restore is told of the target, not of the repository, and keeps its code.
    #[test]
    fn targets_have_hints_of_their_own() {
        let check = |error: Error, code: u8, part: &str| {
            let failure = explain(&in_target::<()>(Err(error)).unwrap_err());
            assert_eq!(failure.code, code, "{failure:?}");
            assert!(failure.hint.as_deref().unwrap_or("").contains(part), "{failure:?}");
        };
        check(Error::Cancelled, 130, "half restored");
        let full = io::ErrorKind::StorageFull;
        check(Error::io("writing", "a", full.into()), 1, "disk of the target");
        check(Error::Invalid("no such path".into()), 1, "stillpoint ls");
        check(Error::WrongSecret, 12, "passphrase");
        let failure = explain(&while_writing(full.into(), "writing a"));
        assert!(failure.hint.unwrap().contains("disk of the target"));
    }

    // A cause that is quoted already does not appear twice.
    #[test]
    fn causes_appear_once() {
        let error = Error::io("writing", "packs/x", io::Error::other("no space"));
        assert_eq!(explain(&error.into()).message, "writing packs/x: no space");
    }
}
