//! Whole backups into a repository in memory.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stillpoint_archive::path::path_from_key;
use stillpoint_archive::{
    BackupOptions, BackupReport, Entry, EntryKind, ManifestSchema, ParentChoice, ReadClock,
    ReaderSource, Silent, StreamSource, backup,
};
use stillpoint_store::backend::MemoryBackend;
use stillpoint_store::check::CheckOptions;
use stillpoint_store::record::{KdfCost, Secret};
use stillpoint_store::repository::CreateOptions;
use stillpoint_store::tree::{Root, Tree};
use stillpoint_store::{Error, OpenOptions, Repository, Result, Timestamp, WriteOptions};
use stillpoint_testkit::SeededEnv;
use stillpoint_testkit::tree::{Shape, TreeSpec};

/// So late that no file is racy.
const LATE: Timestamp = Timestamp { seconds: 40_000_000_000, nanos: 0 };

struct Lab {
    backend: Arc<MemoryBackend>,
    repository: Arc<Repository>,
    _temp: tempfile::TempDir,
    /// A directory with a tree of files.
    base: PathBuf,
}

impl Lab {
    fn new(seed: u64) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        TreeSpec::seeded(seed, &Shape::home(200)).materialise(&base).unwrap();
        let (backend, repository) = repository(seed);
        Self { backend, repository, _temp: temp, base }
    }

    fn options(&self) -> BackupOptions {
        BackupOptions { roots: vec![self.base.clone()], ..options() }
    }

    fn backup(&self, options: BackupOptions) -> BackupReport {
        let report = backup(&self.repository, options, &Silent).unwrap();
        self.check();
        report
    }

    /// Nothing is wrong with the repository, whatever was done to it.
    fn check(&self) {
        let options = CheckOptions::read_all();
        let report = self.repository.check(options, &|_, _| {}).unwrap();
        assert_eq!(report.findings, vec![]);
    }

    fn entries(&self, root: Root) -> BTreeMap<PathBuf, Entry> {
        let reader = self.repository.reader().unwrap();
        let mut cursor = Tree::<ManifestSchema>::open(root, &reader).iter().unwrap();
        let mut entries = BTreeMap::new();
        while let Some((key, value)) = cursor.next().unwrap() {
            entries.insert(path_from_key(&key), Entry::decode(&value).unwrap());
        }
        entries
    }
}

fn options() -> BackupOptions {
    let write = WriteOptions { threads: 2, ..WriteOptions::default() };
    BackupOptions {
        clock: ReadClock::Fixed(LATE),
        host: "host".into(),
        write,
        ..Default::default()
    }
}

fn repository(seed: u64) -> (Arc<MemoryBackend>, Arc<Repository>) {
    let backend = Arc::new(MemoryBackend::new());
    let create = CreateOptions { kdf: KdfCost::LEAST, ..CreateOptions::default() };
    let repository = Repository::create(
        backend.clone(),
        Arc::new(SeededEnv::new(seed)),
        &Secret::key_file(&[7; 64]),
        &create,
        OpenOptions::in_memory(),
    );
    (backend, repository.unwrap())
}

fn stream(name: &str, bytes: &[u8]) -> Box<dyn StreamSource> {
    Box::new(ReaderSource::new(name, Cursor::new(bytes.to_vec())))
}

// A first backup saves everything; a second of the same stores and reads nothing; a third reads what changed.
#[test]
fn first_unchanged_changed() {
    let lab = Lab::new(1);
    let first = lab.backup(lab.options());
    assert_eq!(first.problems, vec![]);
    let files = first.summary().files_new;
    assert!(files > 100 && first.summary().bytes_stored > 0);
    assert_eq!(first.summary().bytes_read, first.summary().bytes_total);
    assert_eq!(first.record.parent, None);

    let second = lab.backup(lab.options());
    assert_eq!(second.record.parent, first.snapshot);
    let summary = second.summary();
    assert_eq!((summary.files_unmodified, summary.files_new, summary.files_changed), (files, 0, 0));
    assert_eq!((summary.bytes_read, summary.chunks_new, summary.bytes_added), (0, 0, 0));

    let noise = stillpoint_testkit::Random::new(9).bytes(100_000);
    std::fs::write(lab.base.join("new file"), &noise).unwrap();
    let third = lab.backup(lab.options());
    assert_eq!(third.record.parent, second.snapshot);
    assert_eq!((third.summary().files_new, third.summary().bytes_read), (1, 100_000));
    assert_eq!(third.summary().bytes_added, 100_000);
    let entry = &lab.entries(third.record.root)[&lab.base.join("new file")];
    assert_eq!(entry.size, 100_000);
    assert_eq!(lab.repository.snapshots().unwrap().len(), 3);
}

// What is moved or copied is not stored twice.
#[test]
fn copies_store_nothing() {
    let lab = Lab::new(2);
    lab.backup(lab.options());
    let noise = stillpoint_testkit::Random::new(9).bytes(3 << 20);
    std::fs::write(lab.base.join("a"), &noise).unwrap();
    lab.backup(lab.options());
    std::fs::write(lab.base.join("b"), &noise).unwrap();
    std::fs::rename(lab.base.join("a"), lab.base.join("c")).unwrap();
    let report = lab.backup(lab.options());
    assert_eq!((report.summary().chunks_new, report.summary().files_new), (0, 2));
}

// The parent is the latest snapshot of the same host and paths, or the one asked for, or none.
#[test]
fn choice_of_the_parent() {
    let lab = Lab::new(3);
    let first = lab.backup(lab.options());
    let elsewhere = lab.backup(BackupOptions { host: "other".into(), ..lab.options() });
    assert_eq!(elsewhere.record.parent, None);
    let mut more = lab.options();
    more.roots.push("/proc/self/comm".into());
    assert_eq!(lab.backup(more).record.parent, None);
    let chosen = ParentChoice::Snapshot(elsewhere.snapshot.unwrap());
    let chosen = lab.backup(BackupOptions { parent: chosen, ..lab.options() });
    assert_eq!(chosen.record.parent, elsewhere.snapshot);
    assert_eq!(chosen.summary().bytes_read, 0);
    let fresh = lab.backup(BackupOptions { parent: ParentChoice::Nothing, ..lab.options() });
    assert_eq!(fresh.record.parent, None);
    assert_eq!(fresh.summary().bytes_read, first.summary().bytes_read);
    let lost = ParentChoice::Snapshot(stillpoint_store::SnapshotId::from_bytes([9; 16]));
    let lost = backup(&lab.repository, BackupOptions { parent: lost, ..lab.options() }, &Silent);
    assert!(matches!(lost, Err(Error::NoSuchSnapshot { .. })));
}

// A dry run counts what a real one would do, and leaves no trace.
#[test]
fn dry_runs_store_nothing() {
    let lab = Lab::new(4);
    let before = lab.backend.contents();
    let dry = lab.backup(BackupOptions { dry_run: true, ..lab.options() });
    assert_eq!(dry.snapshot, None);
    assert!(lab.backend.contents() == before);
    let real = lab.backup(lab.options());
    assert_eq!(dry.summary().bytes_added, real.summary().bytes_added);
    assert_eq!(dry.summary().files_new, real.summary().files_new);
}

// A path that is missing is named and the rest is saved; when all are, there is nothing to save.
#[test]
fn missing_paths() {
    let lab = Lab::new(5);
    let mut options = lab.options();
    options.roots.push(lab.base.join("no/such/path"));
    options.roots.push("/no-such-root".into());
    let report = lab.backup(options);
    let named: Vec<&Path> = report.problems.iter().map(|problem| &*problem.path).collect();
    assert_eq!(named, [Path::new("/no-such-root")], "a root below another one is part of it");
    assert_eq!(report.summary().problems, 1);
    assert!(report.summary().files_new > 100);
    for roots in [vec![], vec!["/no-such-root".into()]] {
        let none = BackupOptions { roots, ..lab.options() };
        let none = backup(&lab.repository, none, &Silent);
        assert!(matches!(none, Err(Error::Invalid(_))));
    }
    assert_eq!(lab.repository.snapshots().unwrap().len(), 1);
}

// Streams stand beside paths; their names must be free.
#[test]
fn streams_beside_paths() {
    let lab = Lab::new(6);
    let dump = b"-- PostgreSQL database dump\n".repeat(1000);
    let mut options = lab.options();
    options.streams = vec![stream("db/main.sql", &dump), stream("zz", b"")];
    let report = lab.backup(options);
    let entries = lab.entries(report.record.root);
    assert_eq!(entries[Path::new("/db/main.sql")].size, 28_000);
    assert!(matches!(entries[Path::new("/db")].kind, EntryKind::Directory));
    assert!(entries.contains_key(&lab.base));
    for names in [["a", "a"], ["a", "a/b"], ["a/b", "a"]] {
        let streams = names.iter().map(|name| stream(name, b"x")).collect();
        let report = backup(&lab.repository, BackupOptions { streams, ..lab.options() }, &Silent);
        assert!(matches!(report, Err(Error::Invalid(_))), "{names:?}");
    }
    for name in ["", "/", "../x"] {
        let streams = vec![stream(name, b"x")];
        let report = backup(&lab.repository, BackupOptions { streams, ..lab.options() }, &Silent);
        assert!(matches!(report, Err(Error::Invalid(_))), "{name:?}");
    }
}

/// A stream that ends badly.
struct Broken(Cursor<Vec<u8>>);

impl std::io::Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl StreamSource for Broken {
    fn name(&self) -> &str {
        "broken"
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Err(Error::Invalid("exit status 1".into()))
    }
}

// A stream that ends badly leaves no snapshot, however much of it was stored.
#[test]
fn broken_streams_leave_no_snapshot() {
    let lab = Lab::new(7);
    let bytes = stillpoint_testkit::Random::new(1).bytes(5 << 20);
    let mut options = lab.options();
    options.streams = vec![Box::new(Broken(Cursor::new(bytes)))];
    let error = backup(&lab.repository, options, &Silent).unwrap_err();
    assert_eq!(error.to_string(), "exit status 1");
    assert!(lab.repository.snapshots().unwrap().is_empty());
    lab.check();
}

// When nothing differs and no snapshot is wanted for that, there is none.
#[test]
fn unchanged_can_be_skipped() {
    let lab = Lab::new(8);
    let run = |bytes: &[u8]| {
        lab.backup(BackupOptions {
            streams: vec![stream("data", bytes)],
            time: Some(LATE),
            skip_unchanged: true,
            ..options()
        })
    };
    assert!(run(b"one").snapshot.is_some());
    assert!(run(b"one").snapshot.is_none());
    assert!(run(b"two").snapshot.is_some());
    assert_eq!(lab.repository.snapshots().unwrap().len(), 2);
}

// Once the repository is told to stop, a backup ends without a snapshot.
#[test]
fn stopping_leaves_no_snapshot() {
    let lab = Lab::new(9);
    lab.repository.cancel().cancel();
    assert!(matches!(backup(&lab.repository, lab.options(), &Silent), Err(Error::Cancelled)));
}

// The same tree and the same environment give the same objects, byte for byte, for any number of threads.
#[test]
fn threads_do_not_show() {
    // A place of its own: directories on the way to a root are saved too.
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("threads_do_not_show");
    if base.exists() {
        std::fs::remove_dir_all(&base).unwrap();
    }
    std::fs::create_dir_all(&base).unwrap();
    TreeSpec::seeded(10, &Shape::odd(300)).materialise(&base).unwrap();
    let noise = stillpoint_testkit::Random::new(9).bytes(20 << 20);
    std::fs::write(base.join("long"), &noise).unwrap();
    let contents: Vec<_> = [1, 2, 5]
        .into_iter()
        .map(|threads| {
            let (backend, repository) = repository(10);
            let write = WriteOptions { threads, ..WriteOptions::default() };
            let options = BackupOptions { roots: vec![base.clone()], write, ..options() };
            backup(&repository, options, &Silent).unwrap();
            backend.contents()
        })
        .collect();
    assert!(contents[0] == contents[1] && contents[0] == contents[2]);
    std::fs::remove_dir_all(&base).unwrap();
}

/// Everything or nothing: a root that is not there is a problem of a snapshot otherwise, and no snapshot then.
#[test]
fn all_or_nothing() {
    let lab = Lab::new(77);
    let elsewhere = tempfile::tempdir().unwrap();
    let missing = elsewhere.path().join("there is no such file");
    let roots = vec![lab.base.clone(), missing.clone()];
    let options = || BackupOptions { roots: roots.clone(), ..lab.options() };
    let error =
        backup(&lab.repository, BackupOptions { all_or_nothing: true, ..options() }, &Silent);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("no such file") && error.contains("1 in all"), "{error}");
    assert!(lab.repository.snapshots().unwrap().is_empty());
    let report = lab.backup(options());
    assert_eq!((report.problems.len(), lab.repository.snapshots().unwrap().len()), (1, 1));
    std::fs::write(&missing, "now").unwrap();
    let whole = lab.backup(BackupOptions { all_or_nothing: true, ..options() });
    assert!(whole.snapshot.is_some() && whole.problems.is_empty());
}
