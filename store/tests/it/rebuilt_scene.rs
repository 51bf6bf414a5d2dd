//! A repository with a history, to be damaged: snapshots that were forgotten, expired, taken back and protected, condemned
//! packs, a ledger, parity, an attempt that was never committed, and rotated keys.

use crate::lab::{self, Files, assert_whole, files, restore_by_id};
use crate::rotation::rotate;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use stillpoint_store::backend::{Backend, Contents, MemoryBackend, put};
use stillpoint_store::catalogue::node_born;
use stillpoint_store::check::CheckOptions;
use stillpoint_store::parity::ParityOptions;
use stillpoint_store::prune::PruneOptions;
use stillpoint_store::repair::{RepairOptions, RepairReport};
use stillpoint_store::tree::node_references;
use stillpoint_store::{
    Env, NodeId, ObjectKind, ObjectName, Repository, Result, SnapshotId, SystemEnv, WriteOptions,
};

/// Two small files, one of them shared with the next step.
pub fn small(step: u64) -> Files {
    let mut files = files([100 + step, 101 + step]);
    files.values_mut().for_each(|bytes| bytes.truncate(600));
    files
}

pub fn snapshot(repository: &Arc<Repository>, step: u64) -> Result<SnapshotId> {
    let writer = repository.writer(WriteOptions { threads: 1, ..WriteOptions::default() })?;
    let record = lab::fill(&writer, repository, &small(step))?;
    Ok(writer.commit(record)?.0)
}

pub fn options() -> RepairOptions {
    RepairOptions::new(node_references::<lab::LabSchema>)
}

pub fn repair(repository: &Arc<Repository>) -> RepairReport {
    repository.repair(&options(), &|_, _| {}).unwrap()
}

use stillpoint_testkit::SeededEnv;

/// What a repository holds and what was promised.
pub struct History {
    pub contents: Contents,
    /// Snapshots that are live, by the step whose files they hold.
    pub live: BTreeMap<SnapshotId, u64>,
    pub protected: BTreeSet<SnapshotId>,
    pub forgotten: BTreeSet<SnapshotId>,
    /// Removed for good, or never committed.
    pub gone: BTreeSet<SnapshotId>,
    /// The heads that were, oldest first; the last is the current one.
    pub heads: Vec<Vec<u8>>,
}

/// One on its way.
struct Making {
    disk: MemoryBackend,
    repository: Arc<Repository>,
    history: History,
}

impl Making {
    fn step(&mut self, work: impl FnOnce(&Arc<Repository>, &mut History)) {
        work(&self.repository, &mut self.history);
        self.history.heads.push(self.disk.contents().head.unwrap());
    }

    fn snapshots(&mut self, steps: std::ops::Range<u64>) {
        for step in steps {
            self.step(|repository, history| {
                history.live.insert(snapshot(repository, step).unwrap(), step);
            });
        }
    }

    fn forget(&mut self, steps: &[u64]) {
        self.step(|repository, history| {
            let chosen = history.live.iter().filter(|(_, step)| steps.contains(step));
            let ids: Vec<SnapshotId> = chosen.map(|(id, _)| *id).collect();
            assert_eq!(repository.forget(&ids).unwrap().len(), steps.len());
            history.live.retain(|id, _| !ids.contains(id));
            history.forgotten.extend(ids);
        });
    }

    /// A snapshot whose packs, record and nodes are written, and whose head never is.
    fn attempt(&mut self) {
        let elsewhere = MemoryBackend::with_contents(self.disk.contents());
        let backend: Arc<dyn Backend> = Arc::new(elsewhere.clone());
        let id = snapshot(&lab::open(&backend, self.repository.env()).unwrap(), 900).unwrap();
        let before = self.disk.contents().objects;
        let written = elsewhere.contents().objects.into_iter();
        for (name, bytes) in written.filter(|(name, _)| !before.contains_key(name)) {
            put(&self.disk, &name, &bytes).unwrap();
        }
        self.history.gone.insert(id);
    }
}

impl History {
    /// Makes one; with `rotates`, keys are rotated on the way.
    pub fn new(rotates: bool) -> Self {
        Self::seeded(1, rotates)
    }

    /// The same with other names and hence another catalogue.
    pub fn seeded(seed: u64, rotates: bool) -> Self {
        let disk = MemoryBackend::new();
        let (backend, env): (Arc<dyn Backend>, Arc<dyn Env>) =
            (Arc::new(disk.clone()), Arc::new(SeededEnv::new(seed)));
        let repository = lab::create(&backend, &env);
        let history = Self {
            contents: Contents::default(),
            live: BTreeMap::new(),
            protected: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            gone: BTreeSet::new(),
            heads: Vec::new(),
        };
        let mut making = Making { disk, repository, history };
        making.snapshots(0..32);
        making.forget(&[3, 8, 9]);
        making.step(|repository, history| {
            repository.prune(&lab::prune_now()).unwrap();
            let gone = std::mem::take(&mut history.forgotten);
            history.gone.extend(gone);
        });
        making.snapshots(32..38);
        making.forget(&[1, 5, 12, 13]);
        making.step(|repository, history| {
            let back: Vec<SnapshotId> = history.forgotten.iter().take(2).copied().collect();
            repository.undelete(&back).unwrap();
            let restored = |id: &SnapshotId| {
                let files = restore_by_id(repository, *id).unwrap();
                (0..50).find(|step| small(*step) == files).unwrap()
            };
            history.live.extend(back.iter().map(|id| (*id, restored(id))));
            history.forgotten.retain(|id| !back.contains(id));
        });
        making.step(|repository, history| {
            let ids: Vec<SnapshotId> = history.live.keys().take(3).copied().collect();
            repository.protect(&ids, true).unwrap();
            history.protected.extend(ids);
        });
        making.step(|repository, _| {
            let options = PruneOptions { keep_forgotten: Duration::MAX, ..lab::prune_now() };
            // Condemned packs stay a while.
            let options = PruneOptions { grace: Duration::from_secs(99_999), ..options };
            repository.prune(&options).unwrap();
        });
        if rotates {
            let repository = rotate(&making.repository, &lab::secret()).unwrap().repository;
            making.repository = repository;
            making.step(|_, _| {});
        }
        making.attempt();
        making.step(|repository, _| {
            repository.check(CheckOptions::read_all(), &|_, _| {}).unwrap();
        });
        let parity = ParityOptions { data: 8, parity: 1, ..ParityOptions::default() };
        making.step(|repository, _| {
            repository.add_parity(&parity, &|_, _| {}).unwrap();
        });
        making.snapshots(38..41);
        making.forget(&[39]);
        making.snapshots(41..42);
        let Making { disk, repository, history, .. } = making;
        let contents = disk.contents();
        assert!(history.heads.last() == contents.head.as_ref());
        assert_whole(&repository);
        Self { contents, ..history }
    }

    pub fn disk(&self) -> MemoryBackend {
        MemoryBackend::with_contents(self.contents.clone())
    }

    /// The nodes of the current catalogue, and all others.
    pub fn nodes(&self) -> (Vec<NodeId>, Vec<NodeId>) {
        let repository = open(&self.disk());
        let root = repository.head().unwrap().index_state().catalogue;
        let mut current = BTreeSet::new();
        for name in self.contents.objects.keys() {
            let ObjectName::Catalogue(id) = name else { continue };
            let disk = self.disk();
            disk.remove(name).unwrap();
            let report = open(&disk).check(CheckOptions::default(), &|_, _| {}).unwrap();
            if report.findings.iter().any(|one| one.object == Some(*name)) {
                current.insert(*id);
            }
        }
        assert!(current.contains(&root.id) && current.len() > 2, "{} nodes", current.len());
        let all = self.contents.objects.keys().filter_map(|name| match name {
            ObjectName::Catalogue(id) => Some(*id),
            _ => None,
        });
        let others = all.filter(|id| !current.contains(id)).collect();
        (current.into_iter().collect(), others)
    }

    /// The number of the last head.
    pub fn seq(&self) -> u64 {
        open(&self.disk()).head().unwrap().seq()
    }

    /// Repairs, and expects everything that was promised, and nothing else that is not reported.
    pub fn assert_repairs(&self, disk: &MemoryBackend) -> RepairReport {
        let before = disk.contents();
        let dry = RepairOptions { dry_run: true, ..options() };
        let planned = open(disk).repair(&dry, &|_, _| {}).unwrap();
        assert!(disk.contents() == before, "a dry run has changed something");
        let repository = open(disk);
        let report = repair(&repository);
        if let (Some(planned), Some(done)) = (&planned.plan.catalogue, &report.plan.catalogue) {
            assert_eq!(planned, done);
        }
        assert_eq!(planned.plan.catalogue.is_some(), report.plan.catalogue.is_some());
        assert!(report.after.as_ref().is_none_or(|after| after.finding_count() == 0));
        assert_eq!(report.plan.chunks_given_up, 0, "{:?}", report.plan);
        self.assert_kept(&open(disk), &report);
        self.assert_goes_on(disk, &report);
        report
    }

    pub fn assert_kept(&self, repository: &Arc<Repository>, report: &RepairReport) {
        let view = repository.head().unwrap();
        let (live, forgotten) = (view.snapshots().unwrap(), view.forgotten().unwrap());
        let plan = report.plan.catalogue.clone().unwrap_or_default();
        self.assert_restores(repository);
        for id in self.live.keys() {
            let is_forgotten = forgotten.contains_key(id);
            let what = || format!("{id} is not live, forgotten: {is_forgotten}, {plan:?}");
            let entry = live.get(id).unwrap_or_else(|| panic!("{}", what()));
            let is_doubtful = plan.snapshots_found.contains(id);
            assert!(entry.protected == self.protected.contains(id) || is_doubtful, "{plan:?}");
        }
        for id in &self.forgotten {
            let told = plan.snapshots_found.contains(id) || plan.snapshots_set_aside.contains(id);
            assert!(forgotten.contains_key(id) || told, "{} was not told: {plan:?}", id.short());
        }
        for id in live.keys().filter(|id| !self.live.contains_key(id)) {
            assert!(plan.snapshots_found.contains(id), "{} was not told: {plan:?}", id.short());
        }
        for id in self.gone.iter().filter(|id| forgotten.contains_key(id)) {
            assert!(plan.snapshots_set_aside.contains(id), "{}: {plan:?}", id.short());
        }
        assert_whole(repository);
    }

    /// Every live snapshot that is there restores byte for byte.
    pub fn assert_restores(&self, repository: &Arc<Repository>) {
        let reader = repository.reader().unwrap();
        let live = reader.view().snapshots().unwrap();
        for (id, entry) in live {
            let Some(step) = self.live.get(&id) else { continue };
            assert_eq!(lab::restore_with(&reader, entry.root).unwrap(), small(*step));
        }
    }

    /// A second repair finds nothing, and backups, prunes and restores work.
    fn assert_goes_on(&self, disk: &MemoryBackend, report: &RepairReport) {
        let repository = open(disk);
        let again = repair(&repository);
        assert!(again.plan.is_empty(), "{:?} after {:?}", again.plan, report.plan);
        let id = snapshot(&repository, 700).unwrap();
        repository.prune(&PruneOptions::default()).unwrap();
        let repository = open(disk);
        assert_eq!(restore_by_id(&repository, id).unwrap(), small(700));
        self.assert_restores(&repository);
        assert_whole(&repository);
        let newest = disk.list(ObjectKind::Catalogue).unwrap().into_iter();
        let born = newest.filter_map(|(name, _)| match name {
            ObjectName::Catalogue(id) => Some(node_born(&id)),
            _ => None,
        });
        assert!(born.max().unwrap() < repository.head().unwrap().seq());
    }
}

pub fn open(disk: &MemoryBackend) -> Arc<Repository> {
    let (backend, env): (Arc<dyn Backend>, Arc<dyn Env>) =
        (Arc::new(disk.clone()), Arc::new(SystemEnv));
    lab::open(&backend, &env).unwrap()
}
