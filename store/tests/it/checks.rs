//! Checks: which packs are read and when, the ledger of verifications, and what is found in damaged repositories.

use crate::lab::{self, assert_whole, create, files, memory, open, snapshot};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use stillpoint_store::backend::{Backend, MemoryBackend, ObjectBytes, ObjectWriter, Swap};
use stillpoint_store::check::{CheckOptions, CheckReport, DataOptions, Ledger, Share};
use stillpoint_store::prune::{MaxUnused, PruneOptions};
use stillpoint_store::{Env, Error, ObjectKind, ObjectName, PackId, Repository, Result, Timestamp};

/// A clock that takes a step with each look at it.
struct Ticking {
    now: AtomicI64,
    step: AtomicI64,
    random: stillpoint_testkit::SeededEnv,
}

impl Ticking {
    fn new() -> Arc<Self> {
        let random = stillpoint_testkit::SeededEnv::new(5);
        Arc::new(Self { now: AtomicI64::new(1 << 30), step: AtomicI64::new(0), random })
    }
}

impl Env for Ticking {
    fn now(&self) -> Timestamp {
        let seconds = self.now.fetch_add(self.step.load(Relaxed), Relaxed);
        Timestamp { seconds, nanos: 0 }
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        self.random.fill_random(bytes);
    }
}

/// A backend on a device that may be read-only, and that may fail to read a pack for a while.
struct Weak {
    inner: Arc<dyn Backend>,
    read_only: AtomicBool,
    failing_reads: AtomicU64,
}

fn refused(action: &'static str, object: impl ToString, errno: i32) -> Error {
    Error::io(action, object, std::io::Error::from_raw_os_error(errno))
}

impl Backend for Weak {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn initialise(&self) -> Result<()> {
        self.inner.initialise()
    }

    fn create(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        if self.read_only.load(Relaxed) {
            return Err(refused("writing", name, 30));
        }
        self.inner.create(name)
    }

    fn replace(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        self.inner.replace(name)
    }

    fn read(&self, name: &ObjectName, range: Range<u64>) -> Result<ObjectBytes> {
        // Headers and footers are read in small pieces; this is the content.
        if name.kind() == ObjectKind::Pack && range.end - range.start > 70_000 {
            let left = self.failing_reads.load(Relaxed);
            if left > 0 {
                self.failing_reads.store(left - 1, Relaxed);
                return Err(refused("reading", name, 5));
            }
        }
        self.inner.read(name, range)
    }

    fn size_bytes(&self, name: &ObjectName) -> Result<Option<u64>> {
        self.inner.size_bytes(name)
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(ObjectName, u64)>> {
        self.inner.list(kind)
    }

    fn remove(&self, name: &ObjectName) -> Result<()> {
        self.inner.remove(name)
    }

    fn read_head(&self) -> Result<Option<Vec<u8>>> {
        self.inner.read_head()
    }

    fn swap_head(&self, expected: Option<&[u8]>, new: &[u8]) -> Result<Swap> {
        self.inner.swap_head(expected, new)
    }
}

/// A repository of many packs on a ticking clock.
fn many_packs() -> (Arc<MemoryBackend>, Arc<Ticking>, Arc<Repository>) {
    let (disk, clock) = (Arc::new(MemoryBackend::new()), Ticking::new());
    let (backend, env): (Arc<dyn Backend>, Arc<dyn Env>) = (disk.clone(), clock.clone());
    let repository = create(&backend, &env);
    for seed in 0..8 {
        snapshot(&repository, &files([10 * seed + 3, 10 * seed + 4])).unwrap();
    }
    (disk, clock, repository)
}

fn check(repository: &Arc<Repository>, data: DataOptions) -> CheckReport {
    repository.check(CheckOptions { data: Some(data) }, &|_, _| {}).unwrap()
}

fn entered(repository: &Arc<Repository>) -> BTreeSet<PackId> {
    repository.head().unwrap().verified().unwrap().into_keys().collect()
}

fn flip(disk: &MemoryBackend, name: &ObjectName, at: usize) {
    assert!(disk.damage(name, |bytes| bytes[at] ^= 1));
}

/// Parts of the data are verified run by run, the longest unverified first, until all were; then it begins anew.
#[test]
fn shares_go_round_by_the_ledger() {
    let (_, clock, repository) = many_packs();
    let share = DataOptions { share: Share::Hundredths(3400), ..DataOptions::default() };
    let mut all = BTreeSet::new();
    for round in 0..3 {
        clock.now.fetch_add(1000, Relaxed);
        let report = check(&repository, share);
        assert_eq!(report.findings, []);
        let data = report.data.unwrap();
        assert_eq!((data.read, data.verified), (data.chosen, data.chosen));
        assert_eq!(data.ledger, Ledger::Written(data.verified));
        let now = entered(&repository);
        let new = now.difference(&all).count() as u64;
        assert!(new == data.verified || round == 2, "packs are verified twice in a round");
        assert_eq!(data.never, report.packs - now.len() as u64);
        all = now;
    }
    assert_eq!(all.len() as u64, check(&repository, share).packs);
    let slices = (1..=4).map(|number| {
        let share = Share::Slice { number, of: 4 };
        check(&repository, DataOptions { share, ..DataOptions::default() }).data.unwrap().read
    });
    assert_eq!(slices.sum::<u64>(), all.len() as u64);
    let tiny = DataOptions { share: Share::Bytes(1), ..DataOptions::default() };
    assert_eq!(check(&repository, tiny).data.unwrap().read, 1);
    assert_whole(&repository);
}

/// A check ends in time, says how far it came, and the next one goes on there; what is verified recently is left out.
#[test]
fn a_check_ends_in_time_and_goes_on() {
    let (_, clock, repository) = many_packs();
    let packs = repository.head().unwrap().packs().unwrap().len() as u64;
    let limited = DataOptions {
        max_duration: Some(Duration::from_secs(40)),
        max_age: Some(Duration::from_secs(100_000)),
        ..DataOptions::default()
    };
    clock.step.store(5, Relaxed);
    let mut rounds = 0;
    while (entered(&repository).len() as u64) < packs {
        let before = entered(&repository);
        let data = check(&repository, limited).data.unwrap();
        assert_eq!(data.chosen, packs - before.len() as u64);
        assert!(data.read > 0 && data.read == data.verified, "{data:?}");
        rounds += 1;
    }
    assert!(rounds > 2, "all packs were read in {rounds} rounds");
    clock.step.store(0, Relaxed);
    assert_eq!(check(&repository, limited).data.unwrap().chosen, 0);
    clock.now.fetch_add(100_001, Relaxed);
    assert_eq!(check(&repository, limited).data.unwrap().chosen, packs);
}

/// In a long run the ledger is written now and then, not only at the end.
#[test]
fn a_long_check_writes_the_ledger_on_its_way() {
    let (_, clock, repository) = many_packs();
    let before = repository.head().unwrap().seq();
    clock.step.store(200, Relaxed);
    check(&repository, DataOptions::default());
    let written = repository.head().unwrap().seq() - before;
    assert!(written > 2, "the ledger was written {written} times");
    let never = DataOptions { ledger: false, ..DataOptions::default() };
    assert_eq!(check(&repository, never).data.unwrap().ledger, Ledger::Untouched);
    assert_eq!(repository.head().unwrap().seq() - before, written);
}

/// What cannot be written can still be checked; what cannot be read at first may be read at the second attempt.
#[test]
fn weak_devices_are_checked_too() {
    let (disk, _) = memory();
    let env = memory().1;
    snapshot(&create(&disk, &env), &files(0..30)).unwrap();
    let weak = Arc::new(Weak {
        inner: disk,
        read_only: AtomicBool::new(true),
        failing_reads: AtomicU64::new(1),
    });
    let backend: Arc<dyn Backend> = weak.clone();
    let repository = open(&backend, &env).unwrap();
    let report = check(&repository, DataOptions::default());
    assert_eq!(report.findings, []);
    let data = report.data.unwrap();
    assert_eq!(data.verified, report.packs);
    assert!(matches!(data.ledger, Ledger::Failed(why) if why.contains("Read-only")));
    let notices = repository.notices();
    assert!(notices.iter().any(|notice| notice.contains("second attempt")), "{notices:?}");

    weak.read_only.store(false, Relaxed);
    weak.failing_reads.store(1000, Relaxed);
    let report = check(&repository, DataOptions::default());
    let data = report.data.unwrap();
    let found = |text: &str| report.findings.iter().any(|finding| finding.detail.contains(text));
    assert!(found("Input/output error"), "{:?}", report.findings);
    assert_eq!(data.ledger, Ledger::Written(report.packs - 1));
    assert_eq!(entered(&repository).len() as u64, report.packs - 1);
}

/// A damaged pack is not entered, its chunks count as lost where no other pack has them, and the ledger of packs that
/// are pruned goes with them.
#[test]
fn damage_keeps_a_pack_out_of_the_ledger() {
    let (disk, _, repository) = many_packs();
    let (largest, size) =
        disk.list(ObjectKind::Pack).unwrap().into_iter().max_by_key(|(_, n)| *n).unwrap();
    let ObjectName::Pack(hurt) = largest else { panic!("a pack") };
    let len = usize::try_from(size).unwrap();
    for (at, is_content) in [(len / 3, true), (200, true), (len - 30, false)] {
        flip(&disk, &largest, at);
        let report = check(&repository, DataOptions::default());
        assert_eq!(report.findings[0].object, Some(largest), "{:?}", report.findings);
        assert!(!entered(&repository).contains(&hurt) || !is_content);
        let damage = report.damage.expect("the chunks are lost");
        assert_eq!(damage.snapshots.len(), 1, "{damage:?}");
        assert!(!damage.is_truncated() && damage.lost_count() > 0);
        flip(&disk, &largest, at);
    }
    assert_whole(&repository);
    assert!(entered(&repository).contains(&hurt));
    let ids: Vec<_> = repository.snapshots().unwrap().iter().map(|one| one.id).collect();
    repository.forget(&ids[..4]).unwrap();
    let options = PruneOptions {
        keep_forgotten: Duration::ZERO,
        max_unused: MaxUnused::Bytes(0),
        ..PruneOptions::default()
    };
    assert!(repository.prune(&options).unwrap().plan.drop.len() > 1);
    let live: BTreeSet<PackId> =
        repository.head().unwrap().packs().unwrap().keys().copied().collect();
    assert!(entered(&repository).is_subset(&live));
    assert_whole(&repository);
}

/// What is lost in one pack and stored in another touches nothing.
#[test]
fn what_another_pack_holds_is_not_lost() {
    let (disk, _) = memory();
    let env = memory().1;
    let memory: Arc<MemoryBackend> = Arc::new(MemoryBackend::new());
    drop(disk);
    let backend: Arc<dyn Backend> = memory.clone();
    create(&backend, &env);
    // Two sessions that do not know of each other store the same.
    let sessions = [open(&backend, &env).unwrap(), open(&backend, &env).unwrap()];
    let writers = sessions.each_ref().map(|one| one.writer(Default::default()).unwrap());
    let content = files(20..26);
    let records: Vec<_> = writers
        .iter()
        .zip(&sessions)
        .map(|(writer, session)| lab::fill(writer, session, &content).unwrap())
        .collect();
    for (writer, record) in writers.into_iter().zip(records) {
        writer.commit(record).unwrap();
    }
    let (largest, size) =
        memory.list(ObjectKind::Pack).unwrap().into_iter().max_by_key(|(_, n)| *n).unwrap();
    flip(&memory, &largest, usize::try_from(size / 2).unwrap());
    let report = check(&open(&backend, &env).unwrap(), DataOptions::default());
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    assert!(report.damage.is_none());
    memory.remove(&largest).unwrap();
    let report = check(&open(&backend, &env).unwrap(), DataOptions::default());
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    assert!(report.damage.is_none());
}

/// A head or a node of the catalogue that cannot be read is a finding that says what to do.
#[test]
fn a_broken_catalogue_is_a_finding() {
    let (disk, _, repository) = many_packs();
    let contents = disk.contents();
    let head = contents.head.clone().unwrap();
    let found = |disk: &MemoryBackend| {
        let backend: Arc<dyn Backend> = Arc::new(disk.clone());
        let report = check(&open(&backend, repository.env()).unwrap(), DataOptions::default());
        assert!(report.data.is_none());
        assert!(report.findings.iter().all(|one| one.detail.contains("`repair`")), "{report:?}");
        report.findings.len()
    };
    let copy = || MemoryBackend::with_contents(contents.clone());
    for bytes in [None, Some(Vec::new()), Some(head[..40].to_vec())] {
        let disk = copy();
        disk.set_head(bytes);
        assert_eq!(found(&disk), 1);
    }
    let nodes = contents.objects.keys().filter(|name| name.kind() == ObjectKind::Catalogue);
    let mut broken = 0;
    for name in nodes {
        let disk = copy();
        flip(&disk, name, 50);
        let backend: Arc<dyn Backend> = Arc::new(disk.clone());
        let is_used = open(&backend, repository.env()).unwrap().head().unwrap().packs().is_err();
        if is_used {
            broken += found(&disk);
        }
    }
    assert!(broken > 0);
    // An older head: parts of the catalogue are newer than it.
    let disk = copy();
    let old = disk.contents().head;
    let backend: Arc<dyn Backend> = Arc::new(disk.clone());
    let later = open(&backend, repository.env()).unwrap();
    snapshot(&later, &files([1])).unwrap();
    snapshot(&later, &files([2])).unwrap();
    disk.set_head(old);
    let report = check(&open(&backend, repository.env()).unwrap(), DataOptions::default());
    assert!(report.findings.iter().any(|one| one.detail.contains("rolled back")), "{report:?}");
}
