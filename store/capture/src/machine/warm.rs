//! The passes before the lock: everything is saved while the application runs, until little is left to do. Each pass
//! commits a draft, which the next one, or the next capture, builds on.

use super::pending::Pending;
use super::{ChangesMode, Event, Run, Watcher};
use crate::error::{Error, Result};
use crate::journal::Journal;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use stillpoint_archive::backup::{Inodes, backup, backup_changes};
use stillpoint_archive::{BackupOptions, BackupReport, Observer, ParentChoice, root_key};
use stillpoint_store::repository::Snapshot;
use stillpoint_store::{Repository, SnapshotId, WriteOptions};

/// How long the journal may take to tell everything.
pub(super) const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// What the passes work with, and what they left.
pub(super) struct Warm<'a> {
    repository: &'a Arc<Repository>,
    watcher: &'a dyn Watcher,
    /// Options of a draft.
    options: BackupOptions,
    /// Keys of the roots.
    roots: Vec<Vec<u8>>,
    /// The last draft.
    pub base: Snapshot,
    /// All drafts of this capture and those of earlier ones that they replace.
    pub drafts: Vec<SnapshotId>,
    pub journal: Option<Journal>,
    pub pending: Pending,
    /// What the base knows, where there is a journal.
    inodes: Inodes,
    /// Paths that could not be saved so far, or not for certain.
    pub unsaved: BTreeSet<Vec<u8>>,
    pub passes: u32,
}

impl<'a> Run<'a> {
    pub(super) fn warm(&mut self) -> Result<Warm<'a>> {
        let journal = self.start_journal()?;
        let options = self.draft_options()?;
        let (parent, mut drafts) = self.earlier(&options)?;
        let begin = Instant::now();
        let first = BackupOptions { parent, ..copy(&options)? };
        let report = backup(self.repository, first, self.watcher.observer())?;
        let base = draft(&report)?;
        drafts.push(base.id);
        let pending = Pending::default();
        let (repository, watcher) = (self.repository, self.watcher);
        let keys = options.roots.iter().map(|root| root_key(root));
        let roots = keys.collect::<Result<_, stillpoint_store::Error>>()?;
        let mut took = begin.elapsed();
        let inodes = match journal {
            Some(_) => Inodes::of(repository, &base)?,
            None => Inodes::default(),
        };
        let mut warm = Warm {
            repository,
            watcher,
            options,
            roots,
            base,
            drafts,
            journal,
            pending,
            inodes,
            unsaved: unsaved(&report)?,
            passes: 1,
        };
        warm.tell(&report, took);
        while warm.passes < self.options.warm_passes && took > self.options.warm_until {
            match warm.pass(self.watcher.observer())? {
                Some(again) => took = again,
                None => break,
            }
        }
        self.sync();
        Ok(warm)
    }

    /// Whatever the application wrote goes to the disk now rather than under the lock.
    fn sync(&self) {
        for root in &self.options.backup.roots {
            if let Ok(file) = std::fs::File::open(root) {
                // A file system that cannot be synced now only makes the lock longer.
                let _ = rustix::fs::syncfs(&file);
            }
        }
    }

    fn start_journal(&mut self) -> Result<Option<Journal>> {
        if self.options.changes == ChangesMode::Walk {
            return Ok(None);
        }
        match Journal::start(&self.options.backup.roots) {
            Ok(journal) => Ok(Some(journal)),
            Err(error) if self.options.changes == ChangesMode::Journal => Err(error),
            Err(error) => {
                self.note(&format!(
                    "no journal, so the files are walked under the lock, which takes longer: {error}"
                ));
                Ok(None)
            }
        }
    }

    /// The options of a pass.
    fn draft_options(&self) -> Result<BackupOptions> {
        let options = copy(&self.options.backup)?;
        let mut info = self.info.clone();
        (info.draft, info.changes) = (true, "live".into());
        let write = WriteOptions { draft: true, protect: false, ..options.write.clone() };
        let description = "a pass of a capture that was not finished".into();
        Ok(BackupOptions { capture: Some(info), write, description, time: None, ..options })
    }

    /// What the first pass compares with, and the drafts of earlier captures of the same sources. Of drafts and live
    /// snapshots the newest serves.
    fn earlier(&self, options: &BackupOptions) -> Result<(ParentChoice, Vec<SnapshotId>)> {
        let roots = stillpoint_archive::backup::recorded_roots(options)?;
        let is_same = |snapshot: &Snapshot| {
            let paths = snapshot.record.paths.iter().map(|path| path.as_slice());
            let paths = paths.filter(|path| path.first() == Some(&b'/'));
            snapshot.record.host == options.host && paths.eq(roots.iter().map(Vec::as_slice))
        };
        let is_draft =
            |snapshot: &Snapshot| snapshot.record.capture.as_ref().is_some_and(|info| info.draft);
        let drafts = self.repository.forgotten()?.into_iter().map(|one| one.snapshot);
        let drafts: Vec<Snapshot> = drafts.filter(|one| is_draft(one) && is_same(one)).collect();
        let ids = drafts.iter().map(|draft| draft.id).collect();
        let live = self.repository.snapshots()?.into_iter().filter(is_same);
        let newest = live.chain(drafts).max_by_key(|one| one.record.time);
        let parent = newest.map_or(ParentChoice::Nothing, |one| ParentChoice::Snapshot(one.id));
        Ok((parent, ids))
    }
}

impl Warm<'_> {
    /// One pass over what changed since the last; how long it took, None where nothing changed or nobody can tell.
    pub(super) fn pass(&mut self, observer: &dyn Observer) -> Result<Option<Duration>> {
        let Some(journal) = &mut self.journal else { return Ok(None) };
        let begin = Instant::now();
        self.pending.add(journal.drain(DRAIN_LIMIT));
        self.settle()?;
        if self.pending.is_idle(&self.roots) {
            return Ok(None);
        }
        // What could not be saved last time may be now.
        self.pending.look_again(self.unsaved.iter().cloned());
        let options = copy(&self.options)?;
        let report = if self.pending.gap().is_some() {
            let parent = ParentChoice::Snapshot(self.base.id);
            backup(self.repository, BackupOptions { parent, ..options }, observer)
        } else {
            let changes = self.pending.clone().into_changes();
            backup_changes(self.repository, &self.base, changes, options, observer)
        }?;
        self.pending = Pending::default();
        self.unsaved = unsaved(&report)?;
        let base = draft(&report)?;
        if self.journal.is_some() {
            self.inodes.follow(self.repository, &self.base, &base)?;
        }
        self.base = base;
        self.drafts.push(self.base.id);
        self.passes += 1;
        let took = begin.elapsed();
        self.tell(&report, took);
        Ok(Some(took))
    }

    /// Finds the names of files that changed under a name of which nothing is saved.
    pub(super) fn settle(&mut self) -> Result<()> {
        let Self { pending, inodes, repository, base, .. } = self;
        Ok(pending.settle(|linked| inodes.names(repository, base, linked))?)
    }

    fn tell(&self, report: &BackupReport, took: Duration) {
        let summary = report.summary();
        let changed = summary.files_new + summary.files_changed;
        let (pass, bytes_read) = (self.passes, summary.bytes_read);
        self.watcher.event(Event::Warmed { pass, took, bytes_read, changed });
    }

    /// Passes go on while the application drains, until `stop`. What a pass had not finished by then is still pending.
    ///
    /// # Errors
    /// Those of a pass, but for being stopped.
    pub(super) fn pass_until(&mut self, stop: &AtomicBool) -> Result<()> {
        let observer = Stopped { inner: self.watcher.observer(), stop };
        while !stop.load(Ordering::Acquire) {
            match self.pass(&observer) {
                Ok(Some(_)) => {}
                // Nothing changed for the moment: the drain is about to end, or hangs on a reader.
                Ok(None) => std::thread::park_timeout(IDLE),
                Err(Error::Store(stillpoint_store::Error::Cancelled)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Between two looks at a journal that had nothing to tell.
const IDLE: Duration = Duration::from_millis(20);

/// An observer that also wants to stop when told to.
struct Stopped<'a> {
    inner: &'a dyn Observer,
    stop: &'a AtomicBool,
}

impl Observer for Stopped<'_> {
    fn event(&self, event: stillpoint_archive::Event<'_>) {
        self.inner.event(event);
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.inner.cancelled()
    }
}

/// The same options once more.
pub(super) fn copy(options: &BackupOptions) -> Result<BackupOptions> {
    options.again().ok_or_else(|| Error::Failed("a capture takes no streams".into()))
}

/// The paths that a pass named as problems.
fn unsaved(report: &BackupReport) -> Result<BTreeSet<Vec<u8>>> {
    let keys = report.problems.iter().map(|problem| root_key(&problem.path));
    Ok(keys.collect::<std::result::Result<_, stillpoint_store::Error>>()?)
}

/// The snapshot that a pass committed.
fn draft(report: &BackupReport) -> Result<Snapshot> {
    let id = report.snapshot.ok_or_else(|| Error::Failed("a pass committed nothing".into()))?;
    let record = report.record.clone();
    Ok(Snapshot { id, committed: record.time, record, protected: false })
}
