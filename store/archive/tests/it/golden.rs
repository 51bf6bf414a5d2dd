//! Golden repositories: one of every released format is kept here, and stays restorable for ever.
//!
//! `STILLPOINT_BLESS_GOLDEN=1` writes the repository of the current format anew; only for a new format.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stillpoint_archive::{BackupOptions, Silent, backup, restore};
use stillpoint_store::backend::{Backend, LocalBackend};
use stillpoint_store::check::CheckOptions;
use stillpoint_store::record::{KdfCost, NewSlot, Secret};
use stillpoint_store::repository::{CreateOptions, OtherKeys};
use stillpoint_store::{OpenOptions, Repository, SystemEnv};
use stillpoint_testkit::SeededEnv;
use stillpoint_testkit::tree::{Shape, TreeSpec};

const PASSPHRASE: &str = "golden";

fn golden(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/format-{format}"))
}

/// One line for each entry below `dir`: type, mode, time, length, target or hash of the content, name in hexadecimal.
fn listing(dir: &Path) -> String {
    let mut lines = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(folder) = open.pop() {
        for item in fs::read_dir(&folder).unwrap() {
            let path = item.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let kind = meta.file_type();
            let detail = if kind.is_symlink() {
                hex(fs::read_link(&path).unwrap().as_os_str().as_bytes())
            } else if kind.is_file() {
                blake3::hash(&fs::read(&path).unwrap()).to_hex().to_string()
            } else {
                String::from("-")
            };
            let len = if kind.is_file() { meta.len() } else { 0 };
            let name = hex(path.strip_prefix(dir).unwrap().as_os_str().as_bytes());
            lines.push(format!(
                "{name} {:o} {}.{:09} {len} {detail}\n",
                meta.mode(),
                meta.mtime(),
                meta.mtime_nsec()
            ));
            if kind.is_dir() {
                open.push(path);
            }
        }
    }
    lines.sort();
    lines.concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy_tree(&item.path(), &target);
        } else {
            fs::copy(item.path(), target).unwrap();
        }
    }
}

fn bless(format: u32) {
    let dir = golden(format);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    let source = tempfile::tempdir().unwrap();
    let base = source.path().canonicalize().unwrap();
    let spec = TreeSpec::seeded(1, &Shape::home(60));
    spec.materialise(&base).unwrap();
    let repository = Repository::create(
        Arc::new(LocalBackend::new(dir.join("repository"))),
        Arc::new(SeededEnv::new(1)),
        &Secret::passphrase(PASSPHRASE),
        &CreateOptions { kdf: KdfCost::LEAST, ..CreateOptions::default() },
        OpenOptions::in_memory(),
    )
    .unwrap();
    for round in 0..2u64 {
        let options = BackupOptions { roots: vec![base.clone()], ..BackupOptions::default() };
        let report = backup(&repository, options, &Silent).unwrap();
        assert_eq!(report.problems.len(), 0);
        fs::write(dir.join(format!("snapshot-{round}.txt")), listing(&base)).unwrap();
        fs::write(base.join("added"), format!("round {round}")).unwrap();
    }
    fs::write(dir.join("base.txt"), base.as_os_str().as_bytes()).unwrap();
}

/// A copy of the golden repository below `work`.
fn copy(format: u32, work: &Path) -> Arc<dyn Backend> {
    copy_tree(&golden(format).join("repository"), &work.join("repository"));
    Arc::new(LocalBackend::new(work.join("repository")))
}

fn open(backend: &Arc<dyn Backend>) -> Arc<Repository> {
    let secret = Secret::passphrase(PASSPHRASE);
    let env = Arc::new(SystemEnv);
    Repository::open(Arc::clone(backend), env, &secret, OpenOptions::in_memory()).unwrap()
}

/// Restores the first two snapshots below `into` and compares them with what was saved; gives where the first lies.
fn assert_restores(repository: &Arc<Repository>, format: u32, into: &Path) -> PathBuf {
    let dir = golden(format);
    let base = PathBuf::from(fs::read_to_string(dir.join("base.txt")).unwrap());
    let target = |round: usize| into.join(format!("restored-{round}"));
    for (round, snapshot) in repository.snapshots().unwrap().iter().take(2).enumerate() {
        let mut options = restore::RestoreOptions::new(snapshot.record.root, target(round));
        options.subtree = stillpoint_archive::path::key_from_path(&base).unwrap();
        let report = restore::restore(repository, &options, &Silent).unwrap();
        assert_eq!(report.problem_count, 0, "{:?}", report.problems);
        let expected = fs::read_to_string(dir.join(format!("snapshot-{round}.txt"))).unwrap();
        assert_eq!(listing(&target(round)), expected, "snapshot {round}");
    }
    target(0)
}

fn assert_takes_another(repository: &Arc<Repository>, root: PathBuf) {
    let options = BackupOptions { roots: vec![root], ..Default::default() };
    backup(repository, options, &Silent).unwrap();
    let report = repository.check(CheckOptions::read_all(), &|_, _| {}).unwrap();
    assert_eq!(report.findings, []);
}

/// The golden repository of format 1 opens, lists, restores both snapshots exactly, checks clean, and takes another.
#[test]
fn format_1_stays_restorable() {
    if std::env::var_os("STILLPOINT_BLESS_GOLDEN").is_some() {
        bless(1);
    }
    let work = tempfile::tempdir().unwrap();
    let repository = open(&copy(1, work.path()));
    assert_eq!(repository.snapshots().unwrap().len(), 2);
    let restored = assert_restores(&repository, 1, work.path());
    assert_takes_another(&repository, restored);
}

/// The keys of the golden repository of format 1 are rotated, twice: both snapshots restore exactly, and it takes others.
#[test]
fn format_1_rotates_its_keys() {
    let work = tempfile::tempdir().unwrap();
    let backend = copy(1, work.path());
    for round in 1..=2 {
        let secret = Secret::passphrase(PASSPHRASE);
        let new = NewSlot { secret: &secret, label: "rotated", cost: KdfCost::LEAST };
        let rotated = open(&backend).rotate_keys(&new, OtherKeys::Refuse).unwrap();
        assert!(rotated.left.is_empty());
        let repository = open(&backend);
        assert_eq!(repository.generation().0, round);
        let into = work.path().join(format!("round-{round}"));
        fs::create_dir(&into).unwrap();
        let restored = assert_restores(&repository, 1, &into);
        assert_takes_another(&repository, restored);
    }
}
