//! One backup: from options to a committed snapshot.
//!
//! Puts scan, parent, pipeline and write session together. Decides what is saved and under which parent; how is the
//! business of the modules it calls.

mod delta;
mod inodes;
mod plan;
mod since;
mod summary;

use crate::change::ChangeRules;
use crate::change::parent::Parent;
use crate::filter::FilterOptions;
use crate::meta::Names;
use crate::observer::{Event, Observer, Problem, Totals};
use crate::pipeline::{self, Anew, Built, Changed, Chunkers, Input, Manifest, Readers, Sinks};
use crate::scan::{self, Scan};
use crate::source::{ReadClock, StreamSource};
pub use delta::Changes;
use delta::{Base, Delta};
pub use inodes::Inodes;
use plan::Plan;
pub(crate) use plan::devices;
pub use since::changed_since;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use stillpoint_store::cancel::Cancel;
use stillpoint_store::record::{CaptureInfo, SnapshotRecord, Summary};
use stillpoint_store::repository::{HeadView, Repository, Snapshot};
use stillpoint_store::write::{WriteOptions, Writer};
use stillpoint_store::{ChunkId, Error, Result, SnapshotId, Timestamp};

/// How often a backup is tried while others remove what it relies on.
const ATTEMPTS_MAX: u32 = 4;

/// What to save, and how.
#[derive(Default)]
pub struct BackupOptions {
    /// Files and directories to save with everything below them. Relative ones start at the working directory.
    pub roots: Vec<PathBuf>,
    /// Streams to save as files at the top.
    pub streams: Vec<Box<dyn StreamSource>>,
    /// What to leave out.
    pub filter: FilterOptions,
    /// Stay on the file systems that the roots lie on.
    pub one_file_system: bool,
    /// What to compare with.
    pub parent: ParentChoice,
    /// Which differences count.
    pub rules: ChangeRules,
    /// The clock that judges file times.
    pub clock: ReadClock,
    /// The snapshot's moment; None: now.
    pub time: Option<Timestamp>,
    /// Name of this host.
    pub host: String,
    /// Name of the user.
    pub user: String,
    /// Labels.
    pub tags: Vec<String>,
    /// A sentence about the snapshot.
    pub description: String,
    /// The program and its version.
    pub program: String,
    /// What the record says of the capture that this is part of.
    pub capture: Option<CaptureInfo>,
    /// Count without storing; there will be no snapshot.
    pub dry_run: bool,
    /// Make no snapshot if nothing differs from the parent.
    pub skip_unchanged: bool,
    /// Make no snapshot if anything of it could not be saved: an error then, instead of problems in the report.
    pub all_or_nothing: bool,
    /// Count what there is beside a first backup, so that progress can be judged. Costs a second walk.
    pub estimate: bool,
    /// How data is written; `threads` also is the number of threads that read.
    pub write: WriteOptions,
}

impl BackupOptions {
    /// The same once more; None where there are streams, which nobody can read twice.
    pub fn again(&self) -> Option<Self> {
        self.streams.is_empty().then(|| Self {
            roots: self.roots.clone(),
            streams: Vec::new(),
            filter: self.filter.clone(),
            host: self.host.clone(),
            user: self.user.clone(),
            tags: self.tags.clone(),
            description: self.description.clone(),
            program: self.program.clone(),
            capture: self.capture.clone(),
            write: self.write.clone(),
            ..*self
        })
    }
}

/// Which snapshot a backup compares with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ParentChoice {
    /// The latest one of the same host and the same paths, if there is one.
    #[default]
    Latest,
    /// This one, whatever it is of.
    Snapshot(SnapshotId),
    /// None: everything is read.
    Nothing,
}

/// What came of a backup.
#[derive(Debug, Clone)]
pub struct BackupReport {
    /// The snapshot; None after a dry run, and where nothing had changed and none was wanted.
    pub snapshot: Option<SnapshotId>,
    /// Its record, or what would have been.
    pub record: SnapshotRecord,
    /// What could not be saved, or not for certain, at most [`crate::PROBLEMS_LISTED_MAX`] of it.
    pub problems: Vec<Problem>,
}

impl BackupReport {
    /// The figures.
    pub fn summary(&self) -> &Summary {
        &self.record.summary
    }
}

/// Saves what the options say and commits a snapshot of it.
///
/// # Errors
/// `Invalid` when there is nothing to save or a path or name is unusable, `NoSuchSnapshot` for a parent that is not
/// there, `Cancelled`, what streams and the repository give. What goes wrong with single files is listed in the report
/// instead. Where another process removes for good what the backup relies on while it runs, it is begun again, a few
/// times; `Conflict` if that does not help, or if there are streams, which nobody can read twice.
pub fn backup(
    repository: &Arc<Repository>,
    mut options: BackupOptions,
    observer: &dyn Observer,
) -> Result<BackupReport> {
    for _ in 1..ATTEMPTS_MAX {
        let Some(again) = options.again() else { break };
        match attempt(repository, options, None, observer) {
            Err(Error::Conflict { .. }) => options = again,
            outcome => return outcome,
        }
    }
    attempt(repository, options, None, observer)
}

/// Saves what changed since the snapshot `base` and commits a snapshot of everything: the same as [`backup`] would
/// give if the changes are all that changed, without a walk. k changes read and write O(k log n) nodes of the manifest.
/// What the changes do not name is as it was in the base, whatever happened to it.
///
/// The paths and what is left out must be those of the base; streams may differ, and `parent` counts for nothing. Other
/// names of changed files are found by themselves; that reads the base's manifest as a whole where the changes do not
/// name all of them.
///
/// # Errors
/// As [`backup`]; `Invalid` also for a base of other paths or rules and for changes that contradict each other, and
/// damage of the base's manifest where it has to be read: then a full backup helps. `Conflict` at once where there are
/// streams or something was held.
pub fn backup_changes(
    repository: &Arc<Repository>,
    base: &Snapshot,
    mut changes: Changes,
    options: BackupOptions,
    observer: &dyn Observer,
) -> Result<BackupReport> {
    let mut options = BackupOptions { parent: ParentChoice::Snapshot(base.id), ..options };
    for _ in 1..ATTEMPTS_MAX {
        let Some(again) = options.again().filter(|_| changes.held.is_empty()) else { break };
        match attempt(repository, options, Some(changes.clone()), observer) {
            Err(Error::Conflict { .. }) => options = again,
            outcome => return outcome,
        }
    }
    attempt(repository, options, Some(std::mem::take(&mut changes)), observer)
}

fn attempt(
    repository: &Arc<Repository>,
    options: BackupOptions,
    changes: Option<Changes>,
    observer: &dyn Observer,
) -> Result<BackupReport> {
    let BackupOptions { rules, clock, dry_run, skip_unchanged, all_or_nothing, estimate, .. } =
        options;
    let threads = options.write.threads;
    let writer = repository.writer(WriteOptions {
        dry_run: dry_run || options.write.dry_run,
        ..options.write.clone()
    })?;
    let started = clock.now();
    let time = options.time.unwrap_or_else(|| repository.env().now());
    let mut plan = Plan::new(options)?;
    let parent = plan.parent(&candidates(repository, &writer.view(), plan.parent)?)?;
    let observer = Watched { observer, cancel: repository.cancel() };

    let run = Run { repository, writer: &writer, rules, clock, threads, time };
    let lost: HashSet<ChunkId> = writer.view().lost_chunks()?.into_keys().collect();
    let delta = match (&parent, changes) {
        (Some(base), Some(changes)) => {
            let reader = repository.reader_of(writer.view());
            let base = Base { record: &base.record, source: &reader };
            Some(Delta::new(&base, &mut plan, changes, &lost)?)
        }
        _ => None,
    };
    let mut record = plan.record;
    let before = Before { parent: parent.as_ref(), delta, lost };
    let built = run.build(plan.source, before, estimate, &observer)?;
    if let Some(problem) = built.problems.first().filter(|_| all_or_nothing) {
        return Err(refused(problem, built.counts.problems));
    }
    record.time = time;
    record.started = started;
    record.root = built.root;
    record.parent = parent.as_ref().map(|parent| parent.id);
    let base = parent.as_ref().map(|parent| &parent.record.summary);
    record.summary = summary::of(&built, base, &writer);
    let is_unchanged = parent.is_some_and(|parent| parent.record.root == built.root);
    if dry_run || (skip_unchanged && is_unchanged) {
        return Ok(BackupReport { snapshot: None, record, problems: built.problems });
    }
    let (id, record) = writer.commit(record)?;
    Ok(BackupReport { snapshot: Some(id), record, problems: built.problems })
}

/// What is known before anything is read.
struct Before<'a> {
    parent: Option<&'a Snapshot>,
    /// Only this is looked at.
    delta: Option<Delta>,
    lost: HashSet<ChunkId>,
}

/// The paths that the record of such a backup names, sorted, without its streams.
///
/// # Errors
/// `Invalid` for paths that cannot be saved.
pub fn recorded_roots(options: &BackupOptions) -> Result<Vec<Vec<u8>>> {
    let mut roots = plan::paths_of(&crate::scan::root_keys(&options.roots)?);
    roots.sort_unstable();
    Ok(roots)
}

/// What may serve as parent: live snapshots, and a draft if it is asked for.
fn candidates(
    repository: &Repository,
    view: &HeadView,
    choice: ParentChoice,
) -> Result<Vec<Snapshot>> {
    let mut snapshots = repository.snapshots_of(view)?;
    if let ParentChoice::Snapshot(id) = choice
        && snapshots.iter().all(|snapshot| snapshot.id != id)
    {
        snapshots.extend(repository.forgotten_of(view, id)?);
    }
    Ok(snapshots)
}

struct Run<'a> {
    repository: &'a Arc<Repository>,
    writer: &'a Writer,
    rules: ChangeRules,
    clock: ReadClock,
    threads: usize,
    time: Timestamp,
}

impl Run<'_> {
    /// Saves all content and builds the manifest.
    fn build(
        &self,
        source: plan::Source,
        before: Before<'_>,
        estimate: bool,
        observer: &Watched<'_>,
    ) -> Result<Built> {
        let reader = self.repository.reader_of(self.writer.view());
        let Before { parent, delta, lost } = before;
        let (stations, changed, places, marks) = match delta {
            Some(Delta { stations, changed, places, marks }) => {
                (stations, Some(changed), Some(places), marks)
            }
            None => (scan::stations(&source.roots), None, None, Vec::new()),
        };
        let beside = match parent {
            Some(parent) => {
                self.writer.rely_on_parent(parent.id);
                let root = parent.record.root;
                let totals = Totals { entries: root.entries, bytes: root.bytes };
                observer.event(Event::Expected { totals, last: true });
                let beside = Parent::open(root, &reader, parent.record.started, self.rules)?;
                let beside = beside.without(lost);
                Some(match places {
                    Some(places) => beside.with_old_places(places),
                    None => beside,
                })
            }
            None => None,
        };
        let count = (estimate && parent.is_none()).then(|| source.clone_for_count()).transpose()?;
        let scan = Scan::new(stations, source.rules);
        let readers = Readers {
            chunkers: Chunkers::new(|profile| self.repository.chunker(profile))?,
            names: Names::default(),
            clock: self.clock,
        };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if let Some((roots, rules)) = &count {
                scope.spawn(|| tell_estimate(roots, rules, observer, &done));
            }
            let input = Input {
                scan: &scan,
                parent: beside,
                changed: changed.as_ref(),
                extras: source.extras,
                time: self.time,
                readers: &readers,
                observer,
                know_node: &mut |id| self.writer.know_node(id),
                lose_parent: &mut |error| {
                    self.writer.distrust(reader.failed_packs());
                    self.repository.note(format!(
                        "the parent snapshot cannot be read to its end ({error}); what comes behind is read again"
                    ));
                },
                threads: self.threads,
            };
            let params = self.repository.tree_params();
            let (mut manifest_nodes, mut content_nodes) =
                (self.writer.node_sink(), self.writer.node_sink());
            let mut data = |batch: &_| self.writer.add_data(batch);
            let sinks =
                Sinks { params: &params, data: &mut data, content_nodes: &mut content_nodes };
            let manifest: Result<Box<dyn Manifest>> = match parent.filter(|_| changed.is_some()) {
                Some(base) => {
                    let root = base.record.root;
                    Changed::new(root, &reader, &params, &mut manifest_nodes).map(|mut manifest| {
                        marks.iter().for_each(|(key, mark)| manifest.announce(key, *mark));
                        Box::new(manifest) as Box<dyn Manifest>
                    })
                }
                None => Ok(Box::new(Anew::new(&params, &mut manifest_nodes))),
            };
            let built = manifest.and_then(|manifest| pipeline::run(input, manifest, sinks));
            done.store(true, Ordering::Relaxed);
            built
        })
    }
}

/// Why a backup of everything or nothing is nothing.
fn refused(problem: &Problem, count: u64) -> Error {
    let Problem { path, what } = problem;
    let error = std::io::Error::other(format!("{}: {what} ({count} in all)", path.display()));
    Error::io("saving everything of", "the source", error)
}

/// Counts beside the backup and tells what was found, until the backup is done.
fn tell_estimate(
    roots: &[Vec<u8>],
    rules: &scan::ScanRules,
    observer: &Watched<'_>,
    done: &AtomicBool,
) {
    let go_on = |totals| {
        observer.event(Event::Expected { totals, last: false });
        !done.load(Ordering::Relaxed) && !observer.cancelled()
    };
    if let Some(totals) = scan::estimate(roots, rules, &go_on) {
        observer.event(Event::Expected { totals, last: true });
    }
}

/// The caller's observer, which also wants to stop when the repository was told to.
struct Watched<'a> {
    observer: &'a dyn Observer,
    cancel: &'a Cancel,
}

impl Observer for Watched<'_> {
    fn event(&self, event: Event<'_>) {
        self.observer.event(event);
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled() || self.observer.cancelled()
    }
}
