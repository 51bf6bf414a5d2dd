//! What happened during a restore: outcomes to the observer, numbers and problems to the report.

use crate::observer::{Event, Observer, Outcome, Problem};
use crate::path::push_name;
use crate::plan::RestorePlan;
use crate::target::Warning;
use rustix::io::Errno;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use stillpoint_store::{Error, Result};

/// Most problems kept word for word; further ones are only counted and told to the observer.
pub const PROBLEMS_KEPT_MAX: usize = 10_000;

/// What a restore did.
#[derive(Debug, Clone, Default)]
pub struct RestoreReport {
    /// What was decided for each entry, in numbers.
    pub plan: RestorePlan,
    /// Files of which content was written.
    pub files_written: u64,
    /// Files that were compared and needed nothing written.
    pub files_matched: u64,
    /// Files that were read back and found equal.
    pub files_verified: u64,
    /// Bytes of content written.
    pub bytes_written: u64,
    /// Bytes of existing content that matched and were not written again.
    pub bytes_matched: u64,
    /// Names deleted, those inside deleted directories included.
    pub deleted: u64,
    /// How many problems there were.
    pub problem_count: u64,
    /// The first [`PROBLEMS_KEPT_MAX`] of them; any problem means that the restore is not complete.
    pub problems: Vec<Problem>,
    /// What could not be restored for want of privileges or because the file system does not keep it.
    pub warnings: Vec<Warning>,
}

/// What makes every other file fail as well.
pub(super) const HOPELESS: [Errno; 5] =
    [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::MFILE, Errno::NFILE];

/// Shared between all threads of one restore.
pub(super) struct Ledger<'a> {
    observer: &'a dyn Observer,
    /// What stands before every key of the restored tree in the manifest.
    base: Vec<u8>,
    problems: Mutex<(u64, Vec<Problem>)>,
    fatal: Mutex<Option<Error>>,
    stopped: AtomicBool,
    pub files_written: AtomicU64,
    pub files_matched: AtomicU64,
    pub files_verified: AtomicU64,
    pub bytes_written: AtomicU64,
    pub bytes_matched: AtomicU64,
    pub deleted: AtomicU64,
}

impl<'a> Ledger<'a> {
    pub fn new(observer: &'a dyn Observer, base: Vec<u8>) -> Self {
        Self {
            observer,
            base,
            problems: Mutex::default(),
            fatal: Mutex::default(),
            stopped: AtomicBool::new(false),
            files_written: AtomicU64::new(0),
            files_matched: AtomicU64::new(0),
            files_verified: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            bytes_matched: AtomicU64::new(0),
            deleted: AtomicU64::new(0),
        }
    }

    pub fn event(&self, event: Event<'_>) {
        self.observer.event(event);
    }

    /// Tells what became of the entry with this key (relative to what is restored).
    pub fn outcome(&self, key: &[u8], outcome: Outcome, bytes: u64) {
        if self.base.is_empty() {
            self.observer.event(Event::Entry { key, outcome, bytes });
        } else {
            let mut full = self.base.clone();
            if !key.is_empty() {
                push_name(&mut full, key);
            }
            self.observer.event(Event::Entry { key: &full, outcome, bytes });
        }
    }

    pub fn problem(&self, path: PathBuf, what: impl ToString) {
        let problem = Problem { path, what: what.to_string() };
        self.observer.event(Event::Problem(&problem));
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.0 += 1;
        if problems.1.len() < PROBLEMS_KEPT_MAX {
            problems.1.push(problem);
        }
    }

    /// Names one path's failure; where it means that everything else would fail as well, the restore stops.
    pub fn failed(&self, path: PathBuf, action: &'static str, errno: Errno) {
        if HOPELESS.contains(&errno) {
            self.stop(Error::io(action, path.display(), errno.into()));
        } else {
            self.problem(path, format!("{action}: {}", std::io::Error::from(errno)));
        }
    }

    /// Ends the restore as soon as possible; the first cause counts.
    pub fn stop(&self, cause: Error) {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause);
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether work should end: something hopeless happened, or the caller cancelled.
    pub fn stopped(&self) -> bool {
        if self.observer.cancelled() && !self.stopped.load(Ordering::Relaxed) {
            self.stop(Error::Cancelled);
        }
        self.stopped.load(Ordering::Relaxed)
    }

    /// Fails with what stopped the restore, if anything did.
    pub fn check(&self) -> Result<()> {
        if !self.stopped() {
            return Ok(());
        }
        let cause = self.fatal.lock().unwrap_or_else(PoisonError::into_inner).take();
        Err(cause.unwrap_or(Error::Cancelled))
    }

    pub fn report(self, plan: RestorePlan, warnings: Vec<Warning>) -> RestoreReport {
        let (problem_count, problems) =
            self.problems.into_inner().unwrap_or_else(PoisonError::into_inner);
        RestoreReport {
            plan,
            files_written: self.files_written.into_inner(),
            files_matched: self.files_matched.into_inner(),
            files_verified: self.files_verified.into_inner(),
            bytes_written: self.bytes_written.into_inner(),
            bytes_matched: self.bytes_matched.into_inner(),
            deleted: self.deleted.into_inner(),
            problem_count,
            problems,
            warnings,
        }
    }
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
