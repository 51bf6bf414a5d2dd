//! Durability order, damage and failing storage; what every backend promises is in the conformance suite.

use super::durable::{Step, take_steps};
use super::maps::{MAP_BYTES_MIN, OPEN_PACKS_MAX};
use super::*;
use crate::backend::put;
use crate::id::{PackId, SlotId};

fn new_backend(dir: &tempfile::TempDir) -> LocalBackend {
    let backend = LocalBackend::new(dir.path().join("repository"));
    backend.initialise().unwrap();
    backend
}

fn pack(number: u8) -> ObjectName {
    ObjectName::Pack(PackId::from_bytes([number; 16]))
}

/// Bytes are synced before the name appears, the folder after it, and then nothing is left in tmp/.
#[test]
fn an_object_is_synced_before_and_its_folder_after_the_rename() {
    let dir = tempfile::tempdir().unwrap();
    let backend = new_backend(&dir);
    let mut writer = backend.create(&pack(7)).unwrap();
    writer.write(b"bytes").unwrap();
    take_steps();
    writer.finish().unwrap();
    let steps = take_steps();
    let target = backend.path(&pack(7));
    let kinds: Vec<Step> = steps.iter().map(|(step, _)| *step).collect();
    assert_eq!(kinds, [Step::SyncFile, Step::Rename, Step::SyncFolder]);
    assert_eq!(steps[1].1, target);
    assert_eq!(steps[2].1, target.parent().unwrap());
    assert_eq!(fs::read_dir(backend.root.join(TEMP)).unwrap().count(), 0);
}

/// Bytes that are put back go the same way: whoever reads meanwhile, or after a power failure, sees either whole object.
#[test]
fn a_replaced_object_is_synced_before_it_gets_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let backend = new_backend(&dir);
    put(&backend, &pack(7), b"flipped").unwrap();
    let mut writer = backend.replace(&pack(7)).unwrap();
    writer.write(b"healed!").unwrap();
    take_steps();
    writer.finish().unwrap();
    let kinds: Vec<Step> = take_steps().iter().map(|(step, _)| *step).collect();
    assert_eq!(kinds, [Step::SyncFile, Step::Rename, Step::SyncFolder]);
    assert_eq!(&*backend.read(&pack(7), 0..7).unwrap(), b"healed!");
    assert_eq!(fs::read_dir(backend.root.join(TEMP)).unwrap().count(), 0);
}

/// The head goes the same way, and a removal waits for the head that was read before it.
#[test]
fn the_head_is_durable_before_a_removal() {
    let dir = tempfile::tempdir().unwrap();
    let backend = new_backend(&dir);
    put(&backend, &pack(1), b"bytes").unwrap();
    take_steps();
    assert_eq!(backend.swap_head(None, b"one").unwrap(), Swap::Done);
    let kinds: Vec<Step> = take_steps().iter().map(|(step, _)| *step).collect();
    assert_eq!(kinds, [Step::SyncFile, Step::Rename, Step::SyncFolder]);
    backend.read_head().unwrap();
    backend.remove(&pack(1)).unwrap();
    assert_eq!(take_steps(), [(Step::SyncFolder, backend.root.clone())]);
    backend.remove(&pack(1)).unwrap();
    assert_eq!(take_steps(), []);
}

/// A head whose folder could not be synced is written anew before it is believed.
#[test]
fn an_unsettled_head_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let backend = new_backend(&dir);
    backend.swap_head(None, b"one").unwrap();
    backend.head_unsettled.store(true, Ordering::SeqCst);
    take_steps();
    assert_eq!(backend.read_head().unwrap().as_deref(), Some(&b"one"[..]));
    let kinds: Vec<Step> = take_steps().iter().map(|(step, _)| *step).collect();
    assert_eq!(kinds, [Step::SyncFile, Step::Rename, Step::SyncFolder]);
    backend.read_head().unwrap();
    assert_eq!(take_steps(), []);
}

/// Files are private to the owner.
#[test]
fn modes_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let backend = new_backend(&dir);
    put(&backend, &pack(1), b"bytes").unwrap();
    backend.swap_head(None, b"one").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&backend.root), 0o700);
    assert_eq!(mode(&backend.root.join("packs/01")), 0o700);
    for file in [backend.path(&pack(1)), backend.root.join(HEAD), backend.root.join(HEAD_LOCK)] {
        assert_eq!(mode(&file), 0o600);
    }
}

/// A pack that is cut short after it was opened and mapped is damaged; it does not kill the process.
#[test]
fn a_truncated_pack_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let backend = new_backend(&dir);
    let len = MAP_BYTES_MIN as u64 * 4;
    put(&backend, &pack(3), &vec![9; MAP_BYTES_MIN * 4]).unwrap();
    let whole = backend.read(&pack(3), 0..len).unwrap();
    assert!(whole.iter().all(|byte| *byte == 9));
    drop(whole);
    let file = OpenOptions::new().write(true).open(backend.path(&pack(3))).unwrap();
    file.set_len(len / 2).unwrap();
    for range in [0..len, len / 2 - 1..len / 2 + 1] {
        let error = backend.read(&pack(3), range).err().expect("too short");
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
    assert_eq!(backend.read(&pack(3), 0..len / 2).unwrap().len() as u64, len / 2);
}

/// A pack that was removed by somebody else is missing, even while it is still open here.
#[test]
fn a_removed_pack_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let backend = new_backend(&dir);
    put(&backend, &pack(3), &vec![9; MAP_BYTES_MIN]).unwrap();
    let held = backend.read(&pack(3), 0..MAP_BYTES_MIN as u64).unwrap();
    fs::remove_file(backend.path(&pack(3))).unwrap();
    assert!(matches!(backend.read(&pack(3), 0..1), Err(Error::Missing { .. })));
    assert!(held.iter().all(|byte| *byte == 9), "a window in use stays readable");
}

/// The number of open packs is bounded, and forgotten ones are opened again.
#[test]
fn open_packs_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let backend = new_backend(&dir);
    let packs: Vec<_> = (0..u8::try_from(OPEN_PACKS_MAX).unwrap() + 3).map(pack).collect();
    for name in &packs {
        put(&backend, name, &vec![1; MAP_BYTES_MIN]).unwrap();
    }
    for _ in 0..2 {
        for name in &packs {
            assert_eq!(backend.read(name, 0..MAP_BYTES_MIN as u64).unwrap().len(), MAP_BYTES_MIN);
        }
    }
    assert_eq!(backend.packs.count(), OPEN_PACKS_MAX);
}

/// Folders lost in a copy (empty ones often are) come back when something is written.
#[test]
fn missing_folders_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let backend = new_backend(&dir);
    for folder in ["packs/05", "keys", TEMP] {
        fs::remove_dir_all(backend.root.join(folder)).unwrap();
    }
    let again = LocalBackend::new(&backend.root);
    put(&again, &pack(5), b"bytes").unwrap();
    put(&again, &ObjectName::Key(SlotId::from_bytes([1; 16])), b"slot").unwrap();
    assert_eq!(&*again.read(&pack(5), 0..5).unwrap(), b"bytes");
}

/// Nothing is created where there is no repository (a disk that is not mounted), or where other files lie.
#[test]
fn other_folders_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let backend = LocalBackend::new(dir.path());
    assert!(matches!(backend.create(&pack(1)), Err(Error::NoRepository { .. })));
    assert!(matches!(backend.swap_head(None, b"x"), Err(Error::NoRepository { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    fs::write(dir.path().join("thesis.txt"), b"").unwrap();
    let error = backend.initialise().unwrap_err();
    assert!(error.to_string().contains("thesis.txt"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// An initialisation that was cut short can be run again.
#[test]
fn initialise_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let backend = new_backend(&dir);
    fs::remove_dir(backend.root.join("packs/ff")).unwrap();
    backend.initialise().unwrap();
    put(&backend, &ObjectName::Config, b"config").unwrap();
    assert!(matches!(backend.initialise(), Err(Error::AlreadyExists { .. })));
}

/// Two processes that create a repository at one place do not take each other's beginnings for remains.
#[test]
fn one_creates_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = new_backend(&dir);
    let second = LocalBackend::new(&first.root);
    assert!(matches!(second.initialise(), Err(Error::AlreadyExists { .. })));
    first.swap_head(None, b"head").unwrap();
    first.initialise().unwrap();
    drop(first);
    second.initialise().unwrap();
}

/// Foreign files and folders are neither listed nor followed, and a missing folder is an error, not an empty list.
#[test]
fn listing_skips_foreign_names_and_reports_failures() {
    let dir = tempfile::tempdir().unwrap();
    let backend = new_backend(&dir);
    put(&backend, &pack(1), b"bytes").unwrap();
    fs::write(backend.root.join("packs/01/README"), b"").unwrap();
    fs::write(backend.root.join("packs/stray"), b"").unwrap();
    fs::create_dir(backend.root.join(pack(2).path())).unwrap();
    fs::copy(backend.path(&pack(1)), backend.root.join("packs/02").join("01".repeat(16))).unwrap();
    assert_eq!(backend.list(ObjectKind::Pack).unwrap(), [(pack(1), 5)]);
    fs::remove_dir(backend.root.join("parity")).unwrap();
    assert_eq!(backend.list(ObjectKind::Parity).unwrap(), [], "a repository without parity");
    fs::remove_dir(backend.root.join("snapshots")).unwrap();
    assert_eq!(backend.list(ObjectKind::Snapshot).unwrap(), [], "a repair makes it again");
    fs::remove_dir_all(backend.root.join("packs")).unwrap();
    for kind in [ObjectKind::Parity, ObjectKind::Snapshot] {
        assert!(matches!(backend.list(kind), Err(Error::Io { .. })), "no repository");
    }
}

/// A name that is a folder or a FIFO is damage, and reading it does not hang.
#[test]
fn odd_file_types_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let backend = new_backend(&dir);
    fs::create_dir(backend.path(&pack(1))).unwrap();
    let fifo = backend.path(&pack(2));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    for name in [pack(1), pack(2)] {
        assert!(matches!(backend.read(&name, 0..1), Err(Error::Damaged { .. })));
        assert!(matches!(backend.size_bytes(&name), Err(Error::Damaged { .. })));
    }
}

/// Of a head longer than the limit no more is read than shows that, and it can be replaced.
#[test]
fn an_oversize_head_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let backend = new_backend(&dir);
    let head = File::create(backend.root.join(HEAD)).unwrap();
    head.set_len(RECORD_BYTES_MAX as u64 + 99).unwrap();
    let found = backend.read_head().unwrap().unwrap();
    assert_eq!(found.len(), RECORD_BYTES_MAX + 1);
    assert_eq!(backend.swap_head(Some(&found), b"another").unwrap(), Swap::Done);
    assert_eq!(backend.read_head().unwrap().as_deref(), Some(&b"another"[..]));
}
