//! Random scenarios against a plain map: backups, sessions that stay open, forgets, undeletes, prunes, crashes, lost
//! indexes, by two processes. After every turn every live snapshot restores to what the map says.
//!
//! `STILLPOINT_SCENARIOS=10000` runs that many instead of a few, `STILLPOINT_SCENARIO=17` runs that one seed.

use crate::lab::{self, Files, assert_whole, restore, secret};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use stillpoint_chunker::Profile;
use stillpoint_store::backend::{Backend, MemoryBackend};
use stillpoint_store::check::CheckOptions;
use stillpoint_store::index::{Index, IndexState, IsLive, Location, MemoryIndex};
use stillpoint_store::prune::{MaxUnused, PruneOptions};
use stillpoint_store::repository::OpenedIndex;
use stillpoint_store::tree::Builder;
use stillpoint_store::{
    Cancel, ChunkId, Env, Error, OpenOptions, Repository, Result, SnapshotId, SnapshotRecord,
    Timestamp, WriteOptions, Writer,
};
use stillpoint_testkit::scenario::{
    self, Backup, Crash, FILES, PROCESSES, Pruning, SESSIONS, Step, Turn,
};
use stillpoint_testkit::{Fault, FaultBackend, Random, Repeat, SeededEnv};

const SCENARIOS: u64 = 60;
const TURNS_MAX: usize = 30;
const DAY: Duration = Duration::from_secs(24 * 3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// An index that outlives the process that opened it.
struct Kept(Arc<MemoryIndex>);

impl Index for Kept {
    fn state(&self) -> Result<Option<IndexState>> {
        self.0.state()
    }

    fn lookup(&self, ids: &[ChunkId], is_live: IsLive<'_>) -> Result<Vec<Option<Location>>> {
        self.0.lookup(ids, is_live)
    }

    fn apply(&self, additions: &[(ChunkId, Location)], state: IndexState) -> Result<()> {
        self.0.apply(additions, state)
    }

    fn rebuild(
        &self,
        entries: &mut dyn Iterator<Item = Result<(ChunkId, Location)>>,
        state: IndexState,
    ) -> Result<()> {
        self.0.rebuild(entries, state)
    }

    fn len_estimate(&self) -> Result<u64> {
        self.0.len_estimate()
    }
}

struct Process {
    repository: Arc<Repository>,
    index: Arc<MemoryIndex>,
    faults: FaultBackend,
}

struct Session {
    process: usize,
    writer: Writer,
    record: SnapshotRecord,
    files: Files,
    /// Deletions that had happened when it began.
    deletions: u32,
}

/// The repository, and the map that says what it must hold.
struct World {
    memory: MemoryBackend,
    clock: Arc<SeededEnv>,
    caches: tempfile::TempDir,
    processes: Vec<Process>,
    sessions: [Option<Session>; SESSIONS as usize],
    live: BTreeMap<SnapshotId, (Files, bool)>,
    forgotten: BTreeMap<SnapshotId, (Files, Timestamp)>,
    gone: Vec<SnapshotId>,
    /// How often packs were deleted: only then may a session that began before fail.
    deletions: u32,
}

/// Files of a few hundred bytes, some of several chunks of which most are the same in each version.
fn content(file: u8, version: u8) -> Vec<u8> {
    let seed = u64::from(file) * 16;
    let len = match file % 4 {
        0 => 0,
        1 => 300 + usize::from(file) * 97,
        2 => 5_000,
        _ => 160_000,
    };
    let mut bytes = Random::new(seed).bytes(len);
    let changed = Random::new(seed + 1 + u64::from(version)).bytes(200.min(len));
    let middle = (len - changed.len()) / 2;
    bytes[middle..middle + changed.len()].copy_from_slice(&changed);
    bytes
}

fn nth<K: Copy, V>(map: &BTreeMap<K, V>, which: u8) -> Option<K> {
    let len = map.len();
    (len > 0).then(|| *map.keys().nth(usize::from(which) % len).unwrap())
}

impl World {
    fn new() -> Self {
        let memory = MemoryBackend::new();
        let clock = Arc::new(SeededEnv::new(5));
        let env: Arc<dyn Env> = clock.clone();
        let backend: Arc<dyn Backend> = Arc::new(memory.clone());
        lab::create(&backend, &env);
        let caches = tempfile::tempdir().unwrap();
        let mut world = Self {
            memory,
            clock,
            caches,
            processes: Vec::new(),
            sessions: Default::default(),
            live: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            gone: Vec::new(),
            deletions: 0,
        };
        for number in 0..usize::from(PROCESSES) {
            let process = world.start(number, Arc::default());
            world.processes.push(process);
        }
        world
    }

    fn start(&self, number: usize, index: Arc<MemoryIndex>) -> Process {
        let faults = FaultBackend::new(Arc::new(self.memory.clone()));
        let kept = Arc::clone(&index);
        let options = OpenOptions {
            cache_dir: Some(self.caches.path().join(number.to_string())),
            index: Arc::new(move |_| {
                let index = Box::new(Kept(Arc::clone(&kept)));
                Ok(OpenedIndex { index, notice: None })
            }),
            cancel: Cancel::new(),
        };
        let (backend, env) = (Arc::new(faults.clone()), self.clock.clone());
        let repository = Repository::open(backend, env, &secret(), options).unwrap();
        Process { repository, index, faults }
    }

    /// A process is gone, its sessions with it, and another one takes its place.
    fn reopen(&mut self, process: usize, loses_index: bool) {
        for session in &mut self.sessions {
            session.take_if(|session| session.process == process);
        }
        let index = match loses_index {
            true => Arc::default(),
            false => Arc::clone(&self.processes[process].index),
        };
        self.processes[process] = self.start(process, index);
    }

    /// What a backup stores, and the snapshot it builds on.
    fn wanted(&self, backup: &Backup) -> (Files, Option<SnapshotId>) {
        let base = backup.base.and_then(|which| nth(&self.live, which));
        let mut files = base.map_or_else(Files::new, |id| self.live[&id].0.clone());
        for edit in &backup.edits {
            let name = format!("file-{:02}", edit.file % FILES).into_bytes();
            match edit.version {
                Some(version) => files.insert(name, content(edit.file, version)),
                None => files.remove(&name),
            };
        }
        (files, base.filter(|_| backup.on_base))
    }

    fn begin(&self, process: usize, backup: &Backup) -> (Files, Result<Session>) {
        let (files, base) = self.wanted(backup);
        let repository = &self.processes[process].repository;
        let filled = self.fill(repository, &files, base);
        let deletions = self.deletions;
        let session = filled.map(|(writer, record)| {
            let files = files.clone();
            Session { process, writer, record, files, deletions }
        });
        (files, session)
    }

    fn fill(
        &self,
        repository: &Arc<Repository>,
        files: &Files,
        base: Option<SnapshotId>,
    ) -> Result<(Writer, SnapshotRecord)> {
        let writer = repository.writer(WriteOptions { threads: 1, ..WriteOptions::default() })?;
        let known = base.map(|id| &self.live[&id].0);
        if let Some(base) = base {
            writer.rely_on_parent(base);
        }
        let chunker = repository.chunker(Profile::General)?;
        let params = repository.tree_params();
        let mut sink = writer.node_sink();
        let mut manifest = Builder::<lab::LabSchema>::new(&params, &mut sink);
        for (name, bytes) in files {
            let batch = chunker.chunk_slice(bytes.clone());
            if known.is_none_or(|known| known.get(name) != Some(bytes)) {
                writer.add_data(&batch)?;
            }
            let value: Vec<u8> =
                batch.chunks.iter().flat_map(|chunk| *chunk.id.as_bytes()).collect();
            manifest.push(name, &value)?;
        }
        let record = SnapshotRecord::new(repository.env().now(), manifest.finish()?);
        Ok((writer, record))
    }

    /// Commits a session; a clear failure is right only where packs were deleted since it began.
    fn commit(&mut self, session: Session) -> Result<()> {
        match session.writer.commit(session.record) {
            Ok((id, _)) => {
                self.live.insert(id, (session.files, false));
                Ok(())
            }
            Err(Error::Conflict { .. }) if self.deletions > session.deletions => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Does a step. An error means that the storage failed; what became of the step is then found out by
    /// [`Self::reconcile`].
    fn act(&mut self, process: usize, step: &Step) -> Result<()> {
        let repository = Arc::clone(&self.processes[process].repository);
        match step {
            Step::Backup(backup) => {
                let session = self.begin(process, backup).1?;
                self.commit(session)?;
            }
            Step::Begin(slot, backup) => {
                let session = self.begin(process, backup).1?;
                self.sessions[usize::from(*slot)] = Some(session);
            }
            Step::Commit(slot) => {
                // A session belongs to its process: a crash of another one is not its own.
                let slot = &mut self.sessions[usize::from(*slot)];
                if let Some(session) = slot.take_if(|session| session.process == process) {
                    self.commit(session)?;
                }
            }
            Step::Abandon(slot) => self.sessions[usize::from(*slot)] = None,
            Step::Forget(which) => self.forget(&repository, *which)?,
            Step::Undelete(which) => self.undelete(&repository, *which)?,
            Step::Protect(which, is_on) => {
                if let Some(id) = nth(&self.live, *which) {
                    let changed = repository.protect(&[id], *is_on)?;
                    let flag = &mut self.live.get_mut(&id).unwrap().1;
                    assert_eq!(changed.is_empty(), *flag == *is_on);
                    *flag = *is_on;
                }
            }
            Step::Prune(pruning) => self.prune(&repository, *pruning)?,
            Step::Check(read_data) => {
                let check = match read_data {
                    true => CheckOptions::read_all(),
                    false => CheckOptions::default(),
                };
                assert_eq!(repository.check(check, &|_, _| {})?.findings, []);
            }
            Step::Reopen(loses_index) => self.reopen(process, *loses_index),
            Step::Wait(hours) => self.clock.advance_seconds(i64::from(*hours) * 3600),
            Step::Crashing(crash, step) => self.crash(process, *crash, step),
        }
        Ok(())
    }

    fn forget(&mut self, repository: &Arc<Repository>, which: u8) -> Result<()> {
        let Some(id) = nth(&self.live, which) else { return Ok(()) };
        match repository.forget(&[id]) {
            Err(Error::Protected { snapshot }) if self.live[&id].1 => assert_eq!(snapshot, id),
            other => {
                assert_eq!(other?, [id]);
                let (files, is_protected) = self.live.remove(&id).unwrap();
                assert!(!is_protected, "a protected snapshot was forgotten");
                self.forgotten.insert(id, (files, self.clock.now()));
            }
        }
        Ok(())
    }

    fn undelete(&mut self, repository: &Arc<Repository>, which: u8) -> Result<()> {
        let all = self.live.keys().chain(self.forgotten.keys()).chain(&self.gone);
        // Mostly one that can be brought back.
        let id = match which % 4 {
            0 => all.copied().max_by_key(|id| id.as_bytes()[usize::from(which) % 16]),
            _ => nth(&self.forgotten, which),
        };
        let Some(id) = id else { return Ok(()) };
        match repository.undelete(&[id]) {
            Err(Error::NoSuchSnapshot { .. }) => assert!(self.gone.contains(&id)),
            other => {
                let back = other?;
                let forgotten = self.forgotten.remove(&id);
                assert_eq!(back.contains(&id), forgotten.is_some());
                if let Some((files, _)) = forgotten {
                    self.live.insert(id, (files, false));
                }
            }
        }
        Ok(())
    }

    /// Forgotten snapshots that a prune with this window may let go.
    fn expired(&self, window: Duration) -> Vec<SnapshotId> {
        let now = self.clock.now().as_nanos();
        let is_over = |forgotten: &Timestamp| {
            now - forgotten.as_nanos() >= i128::try_from(window.as_nanos()).unwrap()
        };
        let over = self.forgotten.iter().filter(|(_, (_, forgotten))| is_over(forgotten));
        over.map(|(id, _)| *id).collect()
    }

    fn prune(&mut self, repository: &Arc<Repository>, pruning: Pruning) -> Result<()> {
        let options = options(pruning);
        let expired = self.expired(options.keep_forgotten);
        let report = repository.prune(&options);
        if !pruning.dry_run {
            // A prune that failed may have deleted some.
            self.deletions += u32::from(report.as_ref().map_or(1, |report| report.deleted) > 0);
            let report = report?;
            assert_eq!(report.expired, u64::try_from(expired.len()).unwrap());
            self.let_go(&expired);
        } else {
            report?;
        }
        Ok(())
    }

    fn let_go(&mut self, ids: &[SnapshotId]) {
        for id in ids {
            self.forgotten.remove(id);
            self.gone.push(*id);
        }
    }

    /// The storage fails in the midst of a step, and the process goes with it.
    fn crash(&mut self, process: usize, crash: Crash, step: &Step) {
        let fault = Fault {
            call: crash.after_calls.into(),
            repeat: Repeat::ForEver,
            effect: crash.effect,
            errno: rustix::io::Errno::IO,
        };
        self.processes[process].faults.plan(fault);
        let attempted = match step {
            Step::Backup(backup) => Some(self.wanted(backup).0),
            Step::Commit(slot) => {
                self.sessions[usize::from(*slot)].as_ref().map(|session| session.files.clone())
            }
            _ => None,
        };
        let may_expire = match step {
            Step::Prune(pruning) if !pruning.dry_run => {
                self.expired(options(*pruning).keep_forgotten)
            }
            _ => Vec::new(),
        };
        let outcome = self.act(process, step);
        let struck = self.processes[process].faults.struck();
        self.reopen(process, false);
        if let Err(error) = outcome {
            assert!(struck, "{step:?} failed although the storage did not: {error}");
            assert!(matches!(error, Error::Io { .. }), "{step:?}: {error}");
            self.reconcile(process, attempted, &may_expire);
        }
    }

    /// Takes note of what a step did that failed without saying so: all of it or nothing.
    fn reconcile(&mut self, process: usize, attempted: Option<Files>, may_expire: &[SnapshotId]) {
        let repository = &self.processes[process].repository;
        let listed = repository.snapshots().unwrap();
        let forgotten: BTreeSet<SnapshotId> =
            repository.forgotten().unwrap().iter().map(|one| one.snapshot.id).collect();
        for snapshot in &listed {
            let id = snapshot.id;
            if let Some((files, _)) = self.forgotten.remove(&id) {
                self.live.insert(id, (files, snapshot.protected));
            } else if let Some((_, is_protected)) = self.live.get_mut(&id) {
                *is_protected = snapshot.protected;
            } else {
                let files = attempted.clone().expect("only a backup adds a snapshot");
                self.live.insert(id, (files, false));
            }
        }
        let is_listed = |id: &SnapshotId| listed.iter().any(|snapshot| snapshot.id == *id);
        let left: Vec<SnapshotId> = self.live.keys().copied().filter(|id| !is_listed(id)).collect();
        for id in left {
            assert!(forgotten.contains(&id), "snapshot {id} is lost");
            let files = self.live.remove(&id).unwrap().0;
            self.forgotten.insert(id, (files, self.clock.now()));
        }
        let gone: Vec<SnapshotId> =
            self.forgotten.keys().copied().filter(|id| !forgotten.contains(id)).collect();
        assert!(gone.iter().all(|id| may_expire.contains(id)), "a forgotten snapshot is lost");
        self.let_go(&gone);
    }

    /// The repository says what the map says.
    fn assert_same(&self, repository: &Arc<Repository>) {
        let listed = repository.snapshots().unwrap();
        let found: BTreeMap<SnapshotId, bool> =
            listed.iter().map(|snapshot| (snapshot.id, snapshot.protected)).collect();
        let flags = self.live.iter().map(|(id, (_, is_protected))| (*id, *is_protected));
        assert_eq!(found, flags.collect(), "other snapshots are live");
        for snapshot in &listed {
            let files = restore(repository, snapshot).unwrap();
            assert!(files == self.live[&snapshot.id].0, "snapshot {} is another", snapshot.id);
        }
        let found: BTreeSet<SnapshotId> =
            repository.forgotten().unwrap().iter().map(|one| one.snapshot.id).collect();
        assert_eq!(found, self.forgotten.keys().copied().collect(), "others are forgotten");
    }
}

#[allow(clippy::needless_update, reason = "it may get more fields")]
fn options(pruning: Pruning) -> PruneOptions {
    let span = |is_kept, span| if is_kept { span } else { Duration::ZERO };
    PruneOptions {
        dry_run: pruning.dry_run,
        max_unused: match pruning.max_unused_percent {
            None => MaxUnused::Unlimited,
            Some(percent) => MaxUnused::Percent(percent.into()),
        },
        keep_forgotten: span(pruning.keeps_forgotten, WEEK),
        grace: span(pruning.has_grace, DAY),
        orphan_grace: span(pruning.spares_orphans, DAY),
        write: WriteOptions { threads: 1, ..WriteOptions::default() },
        ..PruneOptions::default()
    }
}

fn run(turns: &[Turn]) {
    let mut world = World::new();
    for Turn { process, step } in turns {
        let process = usize::from(*process);
        if let Err(error) = world.act(process, step) {
            panic!("{step:?}: {error}");
        }
        world.assert_same(&world.processes[process].repository);
    }
    // Forgotten ones are as whole as live ones: bring them all back.
    let repository = Arc::clone(&world.processes[0].repository);
    let forgotten: Vec<SnapshotId> = world.forgotten.keys().copied().collect();
    assert_eq!(repository.undelete(&forgotten).unwrap(), forgotten);
    for (id, (files, _)) in std::mem::take(&mut world.forgotten) {
        world.live.insert(id, (files, false));
    }
    world.sessions = Default::default();
    for prunes in [false, true] {
        if prunes {
            let harsh = Pruning {
                keeps_forgotten: false,
                has_grace: false,
                spares_orphans: false,
                max_unused_percent: Some(0),
                dry_run: false,
            };
            repository.prune(&options(harsh)).unwrap();
        }
        world.assert_same(&repository);
        assert_whole(&repository);
    }
}

/// Whatever happens in whatever order, the repository holds what a map would.
#[test]
fn a_repository_behaves_like_a_map() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("STILLPOINT_SCENARIO") {
        Some(seed) => scenario::scenarios(seed, 1, TURNS_MAX, run),
        None => {
            let count = number("STILLPOINT_SCENARIOS").unwrap_or(SCENARIOS);
            scenario::scenarios(0, count, TURNS_MAX, run);
        }
    }
}
