//! A capture: sources, a lock and databases become one checkpoint that shows one instant.
//!
//! Drives the phases in their order, measures the lock and sees to it that it is given back. What a lock, a journal or a
//! database is stands elsewhere; here stands when each of them is asked.

mod event;
mod finish;
mod locked;
mod pending;
mod warm;

pub use event::{Event, Watcher};

use crate::database::DatabaseSource;
use crate::error::{Error, Result};
use crate::lock::{Level, LockAdapter};
use crate::phase::Phase;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stillpoint_archive::{BackupOptions, BackupReport};
use stillpoint_store::Repository;
use stillpoint_store::record::{CaptureInfo, Consistency};

/// How changes of the last moment are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChangesMode {
    /// By the journal where there can be one, else by a walk.
    #[default]
    Auto,
    /// By the journal, or not at all.
    Journal,
    /// By a walk that compares times and sizes.
    Walk,
}

/// What happens when the lock was held for as long as it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBudget {
    /// The lock is given back; there is no checkpoint.
    #[default]
    Abort,
    /// The lock is given back; the checkpoint is made from the running application, and says so.
    Degrade,
}

/// What is captured, and how.
pub struct CaptureOptions {
    /// Paths and rules, and what the checkpoint's record says. Streams must be empty: databases have their own place.
    pub backup: BackupOptions,
    /// How changes of the last moment are found.
    pub changes: ChangesMode,
    /// The longest that the lock may be held, from its request to its release.
    pub lock_budget: Duration,
    /// What happens then.
    pub on_budget: OnBudget,
    /// Passes before the lock, at most; at least one is made.
    pub warm_passes: u32,
    /// A pass that took no longer than this is the last one before the lock.
    pub warm_until: Duration,
    /// Where large changed files are kept between freeze and finish when nothing better can be done: best one directory
    /// on each file system of the sources. None: the system's temporary directory.
    pub spool: Vec<PathBuf>,
}

/// How a capture ended that made a checkpoint, or would have in a dry run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// It shows what it claims to show.
    Complete,
    /// The lock's budget was over: it shows less than was asked for.
    Degraded,
}

/// What came of a capture.
#[derive(Debug)]
pub struct CaptureReport {
    /// The checkpoint, its record and what could not be saved.
    pub backup: BackupReport,
    /// How it ended.
    pub ending: Ending,
    /// Paths that the passes before the lock could not save; the observer was told of each.
    pub unsaved: usize,
}

impl CaptureReport {
    /// What the record says of the capture.
    pub fn info(&self) -> CaptureInfo {
        self.backup.record.capture.clone().unwrap_or_default()
    }
}

/// Everything that one capture works with.
struct Run<'a> {
    repository: &'a Arc<Repository>,
    options: CaptureOptions,
    lock: Box<dyn LockAdapter>,
    databases: Vec<Box<dyn DatabaseSource>>,
    watcher: &'a dyn Watcher,
    info: CaptureInfo,
}

/// Captures: rehearses, warms, locks, drains, freezes, releases and finishes. The lock is given back in every ending.
///
/// # Errors
/// Those of the phases, see [`Error`]. When the application may still be locked it is `StillLocked`, whatever else
/// happened. No checkpoint is committed then; the drafts of the warm passes stay for the next capture.
pub fn capture(
    repository: &Arc<Repository>,
    options: CaptureOptions,
    lock: (String, Box<dyn LockAdapter>),
    databases: Vec<Box<dyn DatabaseSource>>,
    watcher: &dyn Watcher,
) -> Result<CaptureReport> {
    let (name, lock) = lock;
    let info = CaptureInfo { lock: name, ..CaptureInfo::default() };
    let mut run = Run { repository, options, lock, databases, watcher, info };
    run.phase(Phase::Rehearse, Run::rehearse)?;
    let mut warm = run.phase(Phase::Warm, Run::warm)?;
    let outcome =
        run.hold(&mut warm).and_then(|held| run.phase(Phase::Finish, |run| run.finish(warm, held)));
    let dismissed = run.lock.dismiss();
    let report = outcome?;
    dismissed?;
    Ok(report)
}

impl Run<'_> {
    /// Does a phase and tells of it.
    fn phase<T>(&mut self, phase: Phase, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.check_cancelled()?;
        self.phase_unchecked(phase, act)
    }

    /// The same where a request to stop must not keep it from being done.
    fn phase_unchecked<T>(
        &mut self,
        phase: Phase,
        act: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        self.watcher.event(Event::Began { phase });
        let begin = Instant::now();
        let outcome = act(self);
        let failure = outcome.as_ref().err().map(ToString::to_string);
        let took = begin.elapsed();
        self.watcher.event(Event::Ended { phase, took, failure: failure.as_deref() });
        outcome
    }

    fn check_cancelled(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn is_cancelled(&self) -> bool {
        self.repository.cancel().is_cancelled() || self.watcher.observer().cancelled()
    }

    /// Tries everything that can fail before anything is locked.
    fn rehearse(&mut self) -> Result<()> {
        if !self.options.backup.streams.is_empty() {
            let what = "a capture takes databases, not streams".to_owned();
            return Err(Error::Refused { what, hint: None });
        }
        let rehearsal = self.lock.rehearse()?;
        self.note(&format!("application: {}", rehearsal.application));
        rehearsal.notes.iter().for_each(|note| self.note(note));
        let excludes = self.anchored(&rehearsal.excludes);
        self.options.backup.filter.excludes.extend(excludes);
        for database in &mut self.databases {
            database.rehearse()?;
            // Its dump stands for them; opening them here would take locks away from it.
            let files = database.files().into_iter();
            let files = files.map(|path| escaped(&path.to_string_lossy()));
            self.options.backup.filter.excludes.extend(files);
        }
        self.info.databases = self.databases.iter().map(|database| database.title()).collect();
        self.info.databases.iter().for_each(|title| self.note(&format!("database: {title}")));
        // The key must be able to write before an application waits for it.
        let mut options = self.options.backup.write.clone();
        options.dry_run |= self.options.backup.dry_run;
        drop(self.repository.writer(options)?);
        Ok(())
    }

    /// Patterns of an application's home, for each root.
    fn anchored(&self, patterns: &[String]) -> Vec<String> {
        let roots = self.options.backup.roots.iter().map(|root| {
            let root = std::path::absolute(root).unwrap_or_else(|_| root.clone());
            escaped(&root.to_string_lossy())
        });
        roots
            .flat_map(|root| {
                patterns.iter().map(move |pattern| match pattern.strip_prefix('/') {
                    Some(rest) => format!("{}/{rest}", root.trim_end_matches('/')),
                    None => pattern.clone(),
                })
            })
            .collect()
    }

    fn note(&self, text: &str) {
        self.watcher.event(Event::Note(text));
    }
}

/// A path as a pattern that means this path alone.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '!' | '#') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// What a lock of this level lets a record claim.
fn consistency(level: Level) -> Consistency {
    match level {
        Level::None => Consistency::None,
        Level::Filesystem => Consistency::Filesystem,
        Level::Application => Consistency::Application,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A home with characters of patterns in its name stays one home.
    #[test]
    fn homes_are_escaped() {
        assert_eq!(escaped("/srv/a [1]*"), "/srv/a \\[1\\]\\*");
    }
}
