//! Lost data comes back with the next backup of the files that hold it, and old snapshots are whole again.

use crate::restore_lab::noise;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stillpoint_archive::path::key_from_path;
use stillpoint_archive::{
    BackupOptions, BackupReport, Changes, ReadClock, RestoreOptions, Silent, backup,
    backup_changes, node_references, restore,
};
use stillpoint_store::backend::{Backend, Contents, MemoryBackend};
use stillpoint_store::check::CheckOptions;
use stillpoint_store::record::{KdfCost, Secret};
use stillpoint_store::repair::{RepairOptions, RepairReport};
use stillpoint_store::repository::CreateOptions;
use stillpoint_store::tree::Root;
use stillpoint_store::{ObjectKind, ObjectName, OpenOptions, Repository, SystemEnv, Timestamp};

/// Long after every file was written: their times can be believed.
const LATE: Timestamp = Timestamp { seconds: 1 << 33, nanos: 0 };

/// Files of every length that matters: in the entry, in one chunk, in several, in a tree of chunks.
fn source(above: &str) -> tempfile::TempDir {
    let source = tempfile::tempdir_in(above).or_else(|_| tempfile::tempdir()).unwrap();
    for (at, len) in [10, 300, 5000, 70_000, 400_000, 6 << 20].into_iter().enumerate() {
        let dir = source.path().join(format!("dir-{at}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("file"), noise(at as u64, len)).unwrap();
        fs::hard_link(dir.join("file"), dir.join("other name")).unwrap();
    }
    for number in 0..400 {
        let text = format!("{number} {}", "some text ".repeat(40 + number));
        fs::write(source.path().join(format!("dir-0/{number:04}")), text).unwrap();
    }
    source
}

fn secret() -> Secret {
    Secret::key_file(&[7; 64])
}

fn create() -> MemoryBackend {
    let disk = MemoryBackend::new();
    let options = CreateOptions { kdf: KdfCost::LEAST, ..CreateOptions::default() };
    let (backend, env) = (Arc::new(disk.clone()), Arc::new(SystemEnv));
    Repository::create(backend, env, &secret(), &options, OpenOptions::in_memory()).unwrap();
    disk
}

fn open(disk: &MemoryBackend) -> Arc<Repository> {
    let backend: Arc<dyn Backend> = Arc::new(disk.clone());
    Repository::open(backend, Arc::new(SystemEnv), &secret(), OpenOptions::in_memory()).unwrap()
}

fn save(repository: &Arc<Repository>, source: &Path) -> BackupReport {
    let options = BackupOptions {
        roots: vec![source.to_owned()],
        clock: ReadClock::Fixed(LATE),
        ..BackupOptions::default()
    };
    backup(repository, options, &Silent).unwrap()
}

fn content(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let found = walkdir::WalkDir::new(dir).into_iter().map(Result::unwrap);
    let name = |path: &Path| path.strip_prefix(dir).unwrap().to_owned();
    found.map(|entry| (name(entry.path()), fs::read(entry.path()).ok())).collect()
}

/// Restores a snapshot; gives its problems. Without any, what is restored is the source.
fn problems(repository: &Arc<Repository>, root: Root, source: &Path) -> u64 {
    let target = tempfile::tempdir().unwrap();
    let subtree = key_from_path(source).unwrap();
    let options = RestoreOptions { subtree, ..RestoreOptions::new(root, target.path()) };
    let report = match restore(repository, &options, &Silent) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("restoring: {error}");
            return u64::MAX;
        }
    };
    if report.problem_count == 0 {
        assert!(content(target.path()) == content(source), "another content is restored");
    }
    report.problem_count
}

fn packs(disk: &MemoryBackend) -> Vec<(ObjectName, usize)> {
    let packs = disk.list(ObjectKind::Pack).unwrap();
    packs.into_iter().map(|(name, size)| (name, usize::try_from(size).unwrap())).collect()
}

fn repair(repository: &Arc<Repository>) -> RepairReport {
    let options = RepairOptions { read_all: true, ..RepairOptions::new(node_references) };
    let report = repository.repair(&options, &|_, _| {}).unwrap();
    if let Some(after) = &report.after {
        assert_eq!(after.findings, []);
    }
    report
}

fn assert_whole(repository: &Arc<Repository>) {
    let report = repository.check(CheckOptions::read_all(), &|_, _| {}).unwrap();
    assert_eq!(report.findings, []);
    assert!(report.known.is_none(), "{:?}", report.known);
}

/// Each pack of a repository, with a byte changed here and there, or taken away.
fn damages(whole: &Contents) -> Vec<(String, MemoryBackend)> {
    let mut all = Vec::new();
    for (pack, size) in packs(&MemoryBackend::with_contents(whole.clone())) {
        for at in [90, size / 5, size / 2, size - 40, usize::MAX] {
            let disk = MemoryBackend::with_contents(whole.clone());
            match at {
                usize::MAX => disk.remove(&pack).unwrap(),
                at => assert!(disk.damage(&pack, |bytes| bytes[at] ^= 1)),
            }
            all.push((format!("{pack} of {size} at {at}"), disk));
        }
    }
    all
}

/// After a repair the next backup of unchanged files reads those whose content is lost, and no others; then the old
/// snapshot is whole again.
#[test]
fn the_next_backup_brings_lost_data_back() {
    // The directories above are in the manifest, too; in this one nobody else makes or removes anything.
    let (source, disk) = (source("/dev/shm"), create());
    let source = source.path();
    let first = save(&open(&disk), source);
    assert_eq!(save(&open(&disk), source).summary().bytes_read, 0, "nothing changed");
    let (mut lossy, mut partial, mut differing) = (0, 0, 0);
    for (label, disk) in damages(&disk.contents()) {
        stillpoint_testkit::with_label(label, || {
            let report = repair(&open(&disk));
            let repository = open(&disk);
            let lost = report.plan.chunks_given_up;
            let before = problems(&repository, first.record.root, source);
            assert!(before == 0 || lost > 0);
            let again = save(&repository, source);
            let read = again.summary().bytes_read;
            assert!(lost > 0 || read == 0, "{read} bytes were read for nothing");
            lossy += u64::from(lost > 0);
            partial += u64::from(read > 0 && read < again.summary().bytes_total);
            assert_eq!(problems(&repository, again.record.root, source), 0);
            if again.record.root != first.record.root {
                // A directory above was changed: then a lost node that names it does not come again.
                differing += 1;
                return;
            }
            assert_eq!(problems(&repository, first.record.root, source), 0);
            assert!(repository.head().unwrap().lost_chunks().unwrap().is_empty());
            assert_whole(&repository);
            let settled = save(&repository, source);
            assert_eq!(settled.summary().bytes_read, 0, "what was lost is there again");
        });
    }
    assert!(lossy > 5 && partial > 1, "{lossy} lossy damages, {partial} read in part");
    if differing > 0 {
        eprintln!("skipped: {differing} damages, because a directory above the source changes");
    }
}

/// A parent whose manifest cannot be read does not keep a backup from being taken, repaired or not: what cannot be
/// compared is read, and the new snapshot is whole.
#[test]
fn a_damaged_parent_does_not_stop_a_backup() {
    let (source, disk) = (source("/tmp"), create());
    let source = source.path();
    save(&open(&disk), source);
    let mut blind = 0;
    for (label, disk) in damages(&disk.contents()) {
        stillpoint_testkit::with_label(label, || {
            let repository = open(&disk);
            let again = save(&repository, source);
            let is_blind = repository.notices().iter().any(|one| one.contains("parent snapshot"));
            if is_blind {
                blind += 1;
                assert!(again.summary().bytes_read > 0);
                assert_eq!(problems(&open(&disk), again.record.root, source), 0);
            }
        });
    }
    assert!(blind > 2, "the parent was unreadable {blind} times");
}

/// A backup of changes reads files whose content is lost as well, though they did not change. Where the base's manifest
/// itself is lost it says so: then only a full backup helps.
#[test]
fn a_backup_of_changes_brings_lost_data_back() {
    let (source, disk) = (source("/tmp"), create());
    let source = source.path();
    save(&open(&disk), source);
    let (mut healed, mut refused) = (0, 0);
    for (label, disk) in damages(&disk.contents()) {
        stillpoint_testkit::with_label(label, || {
            let lost = repair(&open(&disk)).plan.chunks_given_up;
            let repository = open(&disk);
            let Some(base) = repository.snapshots().unwrap().pop() else { return };
            let options = BackupOptions {
                roots: vec![source.to_owned()],
                clock: ReadClock::Fixed(LATE),
                ..BackupOptions::default()
            };
            match backup_changes(&repository, &base, Changes::default(), options, &Silent) {
                Ok(report) => {
                    assert_eq!(problems(&repository, report.record.root, source), 0);
                    assert!(lost > 0 || report.summary().bytes_read == 0);
                    healed += u64::from(report.summary().bytes_read > 0);
                }
                Err(error) => {
                    assert!(lost > 0 && error.is_damage(), "{error}");
                    refused += 1;
                }
            }
        });
    }
    assert!(healed > 1 && refused > 1, "{healed} healed, {refused} refused");
}
