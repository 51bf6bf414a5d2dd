//! From the request for the lock to its release: the part that an application waits for.

use super::warm::{DRAIN_LIMIT, Warm};
use super::{CaptureOptions, Event, OnBudget, Run, consistency};
use crate::error::{Error, Result};
use crate::freeze::{FreezeOptions, Freezer, Frozen};
use crate::lock::wait_until_drained;
use crate::phase::Phase;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use stillpoint_archive::backup::changed_since;
use stillpoint_store::Timestamp;
use stillpoint_store::record::Consistency;

/// What was held when the application stood still.
pub(super) struct Instantaneous {
    pub frozen: Frozen,
    /// The moment that the checkpoint shows, by the host's clock.
    pub moment: Timestamp,
}

/// What the locked phases gave.
pub(super) enum Outcome {
    /// One instant was held, and the lock with it.
    Held(Instantaneous),
    /// The budget was over; the checkpoint is to be made live.
    TooSlow,
}

impl Run<'_> {
    /// Locks, drains, freezes and releases. The lock is given back whatever happens.
    ///
    /// # Errors
    /// `StillLocked` when it could not be given back, else what went wrong under it.
    pub(super) fn hold(&mut self, warm: &mut Warm<'_>) -> Result<Outcome> {
        self.check_cancelled()?;
        let freezer = self.freezer()?;
        let requested = Instant::now();
        let outcome = self.under_lock(warm, &freezer, requested);
        let releasing = Instant::now();
        let released = self.phase_unchecked(Phase::Release, |run| run.lock.unlock());
        let info = &mut self.info;
        info.release_ns = nanos(releasing.elapsed());
        info.locked_ns = Some(nanos(requested.elapsed()));
        info.warm_passes = warm.passes;
        self.watcher.event(Event::Released(&self.info));
        released?;
        // The watchdog may have been first.
        let outcome = match outcome {
            Err(Error::Lost(_)) if requested.elapsed() >= self.options.lock_budget => {
                let limit = self.options.lock_budget;
                Err(Error::OverBudget { what: "holding the lock", limit })
            }
            other => other,
        };
        let held = match outcome {
            Err(Error::OverBudget { what, limit })
                if self.options.on_budget == OnBudget::Degrade =>
            {
                let error = Error::OverBudget { what, limit };
                self.note(&format!("{error}; the checkpoint shows the running application"));
                self.info.level = Consistency::None;
                return Ok(Outcome::TooSlow);
            }
            other => other?,
        };
        self.info.level = consistency(self.lock.level());
        Ok(Outcome::Held(held))
    }

    /// What holds files, ready before anything is locked.
    fn freezer(&self) -> Result<Freezer> {
        let mut spool: Vec<_> = self.options.spool.clone();
        if spool.is_empty() {
            spool.push(std::env::temp_dir());
        }
        Freezer::new(&self.options.backup, FreezeOptions { spool, ..FreezeOptions::default() })
    }

    fn under_lock(
        &mut self,
        warm: &mut Warm<'_>,
        freezer: &Freezer,
        requested: Instant,
    ) -> Result<Instantaneous> {
        self.phase_unchecked(Phase::Lock, |run| run.lock.lock())?;
        self.info.request_ns = nanos(requested.elapsed());
        let draining = Instant::now();
        let left = self.budget_left(requested)?;
        let drained = self.phase_unchecked(Phase::Drain, |run| run.drain(warm, left));
        self.info.drain_ns = nanos(draining.elapsed());
        drained?;
        let freezing = Instant::now();
        let held = self.phase_unchecked(Phase::Freeze, |run| {
            let held = run.freeze(warm, freezer, requested)?;
            run.lock.complete()?;
            Ok(held)
        });
        self.info.freeze_ns = nanos(freezing.elapsed());
        held
    }

    /// Waits until the application is drained; warm passes go on beside.
    fn drain(&mut self, warm: &mut Warm<'_>, limit: Duration) -> Result<()> {
        let stop = AtomicBool::new(false);
        let (repository, watcher) = (self.repository, self.watcher);
        let cancelled = || repository.cancel().is_cancelled() || watcher.observer().cancelled();
        let lock = self.lock.as_mut();
        std::thread::scope(|scope| {
            let passes = scope.spawn(|| warm.pass_until(&stop));
            let drained = wait_until_drained(lock, limit, &cancelled);
            stop.store(true, Ordering::Release);
            passes.thread().unpark();
            let passes = passes.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            drained?;
            passes
        })
    }

    /// Holds one instant: databases first, because they cost least, then what changed since the last pass.
    fn freeze(
        &mut self,
        warm: &mut Warm<'_>,
        freezer: &Freezer,
        requested: Instant,
    ) -> Result<Instantaneous> {
        let moment = self.repository.env().now();
        if let Some(view) = self.lock.hold()?.first() {
            // Not reachable by the command line yet.
            let what = format!("files below {} cannot be read elsewhere", view.of.display());
            return Err(Error::Failed(what));
        }
        for database in &mut self.databases {
            let _left = over_budget(&self.options, requested)?;
            database.pin()?;
        }
        let frozen = self.freeze_files(warm, freezer, requested)?;
        self.info.residual_files = u64::try_from(frozen.held.len()).unwrap_or(u64::MAX);
        self.info.residual_bytes = frozen.figures.files().bytes;
        self.budget_left(requested)?;
        self.check_cancelled()?;
        Ok(Instantaneous { frozen, moment })
    }

    fn freeze_files(
        &mut self,
        warm: &mut Warm<'_>,
        freezer: &Freezer,
        requested: Instant,
    ) -> Result<Frozen> {
        if let Some(journal) = &mut warm.journal {
            let limit = DRAIN_LIMIT.min(self.budget_left(requested)?);
            warm.pending.add(journal.drain(limit));
            warm.settle()?;
        }
        let is_told = warm.journal.is_some() && warm.pending.gap().is_none();
        let (paths, trees) = if is_told {
            self.info.changes = "journal".into();
            std::mem::take(&mut warm.pending).into_sets()
        } else {
            if let Some(gap) = warm.pending.gap() {
                self.note(&format!("the files are walked under the lock: {gap}"));
            }
            self.info.changes = "walk".into();
            let options = &self.options.backup;
            let observer = self.watcher.observer();
            let changes = changed_since(self.repository, &warm.base, options, observer)?;
            (changes.paths, changes.trees)
        };
        let frozen = freezer.freeze(&paths, &trees)?;
        // What could not be held is not of this instant, and nothing is to claim that it is.
        match frozen.problems.first() {
            None => Ok(frozen),
            Some(problem) => Err(Error::Failed(format!(
                "{} of the changed files could not be held: {}: {}",
                frozen.problems.len(),
                problem.path.display(),
                problem.what
            ))),
        }
    }

    /// What is left of the lock's budget.
    ///
    /// # Errors
    /// `OverBudget` when nothing is.
    fn budget_left(&self, requested: Instant) -> Result<Duration> {
        over_budget(&self.options, requested)
    }
}

fn over_budget(options: &CaptureOptions, requested: Instant) -> Result<Duration> {
    let limit = options.lock_budget;
    let left = limit.checked_sub(requested.elapsed()).filter(|left| !left.is_zero());
    left.ok_or(Error::OverBudget { what: "holding the lock", limit })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
