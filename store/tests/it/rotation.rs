//! Rotation of the keys: what stays, what older keys can no longer do, and who else may be at work meanwhile.

use crate::lab::{self, Files, assert_whole, files, memory, open_with, restore_by_id, snapshot};
use crate::races::{Meddled, Plan};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stillpoint_store::backend::{Backend, MemoryBackend, read_whole};
use stillpoint_store::check::CheckOptions;
use stillpoint_store::crypto::{Generation, KeyRing, MetadataKey, RecordContext, RecordKind};
use stillpoint_store::pack::{PackKey, read_footer};
use stillpoint_store::prune::{MaxUnused, PruneOptions};
use stillpoint_store::record::{Head, KdfCost, KeySlot, NewSlot, Secret};
use stillpoint_store::repository::{KeyState, OtherKeys, Rotation};
use stillpoint_store::{DomainId, Env, Error, ObjectKind, ObjectName, OpenOptions, Repository};
use stillpoint_store::{Result, WriteOptions};

pub fn another() -> Secret {
    Secret::passphrase("another secret")
}

pub fn rotate(repository: &Arc<Repository>, secret: &Secret) -> Result<Rotation> {
    let new = NewSlot { secret, label: "new", cost: KdfCost::LEAST };
    repository.rotate_keys(&new, OtherKeys::Refuse)
}

fn packs(backend: &Arc<dyn Backend>) -> usize {
    backend.list(ObjectKind::Pack).unwrap().len()
}

fn slots(backend: &Arc<dyn Backend>) -> Vec<KeySlot> {
    let names = backend.list(ObjectKind::Key).unwrap();
    let parse = |name: &ObjectName| {
        let ObjectName::Key(id) = name else { panic!("{name} is no slot") };
        KeySlot::parse(*id, &read_whole(&**backend, name, 1 << 20).unwrap()).unwrap()
    };
    names.iter().map(|(name, _)| parse(name)).collect()
}

#[track_caller]
fn assert_stale<T>(result: Result<T>) {
    assert!(matches!(result, Err(Error::StaleSecret { .. })), "{:?}", result.err());
}

#[track_caller]
fn assert_wrong<T>(result: Result<T>) {
    assert!(matches!(result, Err(Error::WrongSecret)), "{:?}", result.err());
}

#[track_caller]
fn assert_rotated<T>(result: Result<T>) {
    assert!(matches!(result, Err(Error::KeysRotated)), "{:?}", result.err());
}

/// After one and after several rotations every snapshot restores, nothing that is known is stored again, and snapshots
/// are taken, forgotten and pruned as before.
#[test]
fn everything_goes_on_after_a_rotation() {
    let (backend, env) = memory();
    let mut repository = lab::create(&backend, &env);
    let expected = files(0..30);
    let mut ids = vec![snapshot(&repository, &expected).unwrap()];
    for generation in 1..4u32 {
        let rotation = rotate(&repository, &lab::secret()).unwrap();
        assert!(rotation.left.is_empty() && rotation.dropped.is_empty());
        assert_eq!(rotation.repository.generation(), Generation(generation));
        let before = packs(&backend);
        for opened in [rotation.repository, lab::open(&backend, &env).unwrap()] {
            assert_eq!(opened.head().unwrap().generation(), Generation(generation));
            ids.push(snapshot(&opened, &expected).unwrap());
            assert_eq!(packs(&backend), before, "an unchanged backup stores nothing");
            repository = opened;
        }
        let step = u64::from(generation) * 10;
        ids.push(snapshot(&repository, &files(step..step + 25)).unwrap());
        assert_eq!(slots(&backend).len(), 1);
        assert_whole(&repository);
    }
    for id in ids.iter().filter(|id| **id != ids[3]) {
        restore_by_id(&repository, *id).unwrap();
    }
    assert_eq!(restore_by_id(&repository, ids[0]).unwrap(), expected);
    repository.forget(&ids[..9]).unwrap();
    let options = PruneOptions {
        grace: Duration::ZERO,
        orphan_grace: Duration::ZERO,
        max_unused: MaxUnused::Bytes(0),
        ..PruneOptions::default()
    };
    repository.prune(&options).unwrap();
    let again = lab::open(&backend, &env).unwrap();
    assert_eq!(restore_by_id(&again, ids[9]).unwrap(), files(30..55));
    assert_whole(&again);
}

/// A rotation to another secret: the new one opens, the old one does not, not even with its slot put back.
#[test]
fn a_rotation_may_change_the_secret() {
    let (backend, env) = memory();
    let repository = lab::create(&backend, &env);
    let old_slot = ObjectName::Key(repository.current_slot());
    let old_bytes = read_whole(&*backend, &old_slot, 1 << 20).unwrap();
    let id = snapshot(&repository, &files(0..5)).unwrap();
    rotate(&repository, &another()).unwrap();
    assert_wrong(lab::open(&backend, &env));
    let opened = open_with(&backend, &env, &another()).unwrap();
    assert_eq!(restore_by_id(&opened, id).unwrap(), files(0..5));
    stillpoint_store::backend::put(&*backend, &old_slot, &old_bytes).unwrap();
    assert_stale(lab::open(&backend, &env));
    assert_wrong(open_with(&backend, &env, &Secret::passphrase("a third")));
    let opened = open_with(&backend, &env, &another()).unwrap();
    let view = opened.head().unwrap();
    let states: Vec<_> = opened
        .key_slots()
        .unwrap()
        .iter()
        .map(|slot| opened.key_state(slot, Some(&view)))
        .collect();
    assert!(states.contains(&KeyState::Outdated) && states.contains(&KeyState::InUse));
    let ObjectName::Key(old) = old_slot else { unreachable!() };
    opened.remove_key(old).unwrap();
    assert_wrong(lab::open(&backend, &env));
    assert!(matches!(opened.remove_key(opened.current_slot()), Err(Error::Invalid(_))));
    assert_whole(&opened);
}

/// Everything sealed after a rotation is closed to whoever has the keys from before: head, catalogue, snapshot records,
/// footers and frames; even where the number of the generation is changed in what is stored.
#[test]
fn older_keys_open_nothing_sealed_later() {
    let (backend, env) = memory();
    let repository = lab::create(&backend, &env);
    snapshot(&repository, &files(0..10)).unwrap();
    let stolen = slots(&backend).remove(0).unwrap(&lab::secret(), &repository.id()).unwrap();
    let before: Vec<ObjectName> = objects(&backend);
    let rotation = rotate(&repository, &lab::secret()).unwrap();
    snapshot(&rotation.repository, &files(5..20)).unwrap();
    let held = slots(&backend).remove(0).unwrap(&lab::secret(), &repository.id()).unwrap();
    let mut tried = [0; 3];
    for name in objects(&backend).into_iter().filter(|name| !before.contains(name)) {
        let bytes = read_whole(&*backend, &name, 1 << 30).unwrap().to_vec();
        let number = match name {
            ObjectName::Catalogue(id) => {
                assert_record_is_closed(
                    &repository,
                    RecordKind::Catalogue,
                    id.as_bytes(),
                    &bytes,
                    &stolen,
                );
                0
            }
            ObjectName::Snapshot(id) => {
                assert_record_is_closed(
                    &repository,
                    RecordKind::Snapshot,
                    id.as_bytes(),
                    &bytes,
                    &stolen,
                );
                1
            }
            ObjectName::Pack(id) => {
                let domain = |keys: &KeyRing| keys.domain(DomainId::default());
                PackKey::open(&id, &bytes, &repository.id(), &domain(&held)).unwrap();
                let mut renumbered = bytes.clone();
                renumbered[16..20].fill(0);
                for bytes in [&bytes, &renumbered] {
                    let opened = PackKey::open(&id, bytes, &repository.id(), &domain(&stolen));
                    assert!(matches!(opened, Err(Error::Damaged { .. })), "{opened:?}");
                }
                let size = bytes.len() as u64;
                let footer = |keys: &KeyRing| {
                    read_footer(&*backend, &repository.id(), &id, size, &keys.metadata())
                };
                assert_eq!(footer(&held).unwrap().generation(), Generation(1));
                assert!(footer(&stolen).is_err());
                2
            }
            _ => continue,
        };
        tried[number] += 1;
    }
    assert!(tried.iter().all(|count| *count > 0), "{tried:?}");
    let head = backend.read_head().unwrap().unwrap();
    assert_record_is_closed(&repository, RecordKind::Head, b"", &head, &stolen);
}

fn objects(backend: &Arc<dyn Backend>) -> Vec<ObjectName> {
    let kinds = [ObjectKind::Catalogue, ObjectKind::Snapshot, ObjectKind::Pack];
    let list = |kind| backend.list(kind).unwrap().into_iter().map(|(name, _)| name);
    kinds.into_iter().flat_map(list).collect()
}

fn assert_record_is_closed(
    repository: &Repository,
    kind: RecordKind,
    name: &[u8],
    bytes: &[u8],
    stolen: &KeyRing,
) {
    let context = RecordContext { repository: repository.id(), kind, name };
    assert_eq!(MetadataKey::generation_of(&context, bytes).unwrap(), Generation(1));
    let as_first = [&[1, bytes[1]], &bytes[6..]].concat();
    for bytes in [bytes, &as_first] {
        let opened = stolen.metadata().open(&context, bytes);
        assert!(matches!(opened, Err(Error::Damaged { .. })), "{opened:?}");
    }
}

/// What an attacker makes who has the first keys and may write: a head that follows any other.
fn forged_head(stored: &[u8], stolen: &KeyRing, repository: &Repository, env: &dyn Env) -> Vec<u8> {
    let head = Head::open(stored, repository.id(), &stolen.metadata()).unwrap();
    Head { seq: head.seq + 100, ..head }.seal(repository.id(), &stolen.metadata(), env)
}

/// A footer that older keys seal is not believed for a pack that was committed after the rotation, although those keys
/// are known.
#[test]
fn footers_of_older_keys_are_refused() {
    let store = MemoryBackend::new();
    let (backend, env): (Arc<dyn Backend>, _) = (Arc::new(store.clone()), memory().1);
    let repository = lab::create(&backend, &env);
    snapshot(&repository, &files(0..5)).unwrap();
    let stolen = slots(&backend).remove(0).unwrap(&lab::secret(), &repository.id()).unwrap();
    let rotated = rotate(&repository, &lab::secret()).unwrap().repository;
    let id = snapshot(&rotated, &files(5..10)).unwrap();
    let view = rotated.head().unwrap();
    let packs = view.packs().unwrap();
    assert!(packs.values().any(|entry| rotated.is_outdated(entry)));
    let (pack, entry) = packs.iter().find(|(_, entry)| !rotated.is_outdated(entry)).unwrap();
    assert_eq!(entry.generation, Generation(1));
    // The same footer, sealed anew by whoever has the old keys; the record is four bytes shorter.
    let held = slots(&backend).remove(0).unwrap(&lab::secret(), &repository.id()).unwrap();
    let place = RecordContext {
        repository: repository.id(),
        kind: RecordKind::Footer,
        name: pack.as_bytes(),
    };
    assert!(store.damage(&ObjectName::Pack(*pack), |bytes| {
        let trailer = bytes.split_off(bytes.len() - 16);
        let len = u32::from_le_bytes(trailer[..4].try_into().unwrap());
        let sealed = bytes.split_off(bytes.len() - usize::try_from(len).unwrap());
        let plain = held.metadata().open(&place, &sealed).unwrap();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&stolen.metadata().seal(&place, &plain, &*env));
        bytes.extend_from_slice(&(len - 4).to_le_bytes());
        bytes.extend_from_slice(&trailer[4..]);
    }));
    let report = rotated.check(CheckOptions::default(), &|_, _| {}).unwrap();
    let told =
        report.findings.iter().any(|finding| finding.detail.contains("generation 0 instead of 1"));
    assert!(told, "{:?}", report.findings);
    assert!(restore_by_id(&lab::open(&backend, &env).unwrap(), id).is_err());
}

/// A head that older keys seal is refused, by whoever opens anew and by a process that runs. The very head that the
/// rotation replaced is the exception, until a later one was seen.
#[test]
fn heads_of_older_keys_are_refused() {
    let store = MemoryBackend::new();
    let (backend, env): (Arc<dyn Backend>, _) = (Arc::new(store.clone()), memory().1);
    let repository = lab::create(&backend, &env);
    snapshot(&repository, &files(0..5)).unwrap();
    let stolen = slots(&backend).remove(0).unwrap(&lab::secret(), &repository.id()).unwrap();
    let earlier = backend.read_head().unwrap().unwrap();
    snapshot(&repository, &files(0..6)).unwrap();
    let replaced = backend.read_head().unwrap().unwrap();
    let running = rotate(&repository, &another()).unwrap().repository;
    let current = backend.read_head().unwrap().unwrap();
    let forged = forged_head(&replaced, &stolen, &repository, &*env);
    for wrong in [&forged, &earlier] {
        store.set_head(Some(wrong.clone()));
        // Nobody has other keys, so it opens, and can be repaired.
        for opened in [&open_with(&backend, &env, &another()).unwrap(), &running] {
            let error = opened.head().map(|_| ()).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{error}");
        }
    }
    store.set_head(Some(replaced));
    assert!(running.head().is_err(), "this process has seen the rotated head");
    let opened = open_with(&backend, &env, &another()).unwrap();
    assert_eq!(opened.head().unwrap().generation(), Generation(0));
    let notices = opened.notices();
    assert!(notices.iter().any(|notice| notice.contains("interrupted")), "{notices:?}");
    // What is written on top of it is sealed with the new keys all the same.
    snapshot(&opened, &files(0..3)).unwrap();
    assert_eq!(opened.head().unwrap().generation(), Generation(1));
    store.set_head(Some(current));
    assert_whole(&running);
}

/// A host that has seen rotated keys in use never goes back, even where somebody puts back the old slot and a forged
/// head, and the secret stayed the same.
#[test]
fn a_host_remembers_the_generation() {
    let store = MemoryBackend::new();
    let (backend, env): (Arc<dyn Backend>, _) = (Arc::new(store.clone()), memory().1);
    let repository = lab::create(&backend, &env);
    snapshot(&repository, &files(0..5)).unwrap();
    let before = store.contents();
    let stolen = slots(&backend).remove(0).unwrap(&lab::secret(), &repository.id()).unwrap();
    let forged = forged_head(before.head.as_ref().unwrap(), &stolen, &repository, &*env);
    let cache = tempfile::tempdir().unwrap();
    let open = || {
        let options =
            OpenOptions { cache_dir: Some(cache.path().to_owned()), ..OpenOptions::in_memory() };
        let (backend, env) = (Arc::clone(&backend), Arc::clone(&env));
        Repository::open(backend, env, &lab::secret(), options).unwrap()
    };
    let line = || {
        let dir = cache.path().join(repository.id().to_string());
        std::fs::read_to_string(dir.join("last-head")).unwrap()
    };
    open().head().unwrap();
    assert_eq!(line().split_whitespace().count(), 2, "as it was before there was a rotation");
    rotate(&open(), &lab::secret()).unwrap();
    assert!(line().ends_with(" 1\n"), "{}", line());
    for head in [before.head.clone(), Some(forged)] {
        let rolled = MemoryBackend::with_contents(before.clone());
        rolled.set_head(head);
        let options =
            OpenOptions { cache_dir: Some(cache.path().to_owned()), ..OpenOptions::in_memory() };
        let opened =
            Repository::open(Arc::new(rolled), Arc::clone(&env), &lab::secret(), options).unwrap();
        let error = opened.head().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("generation 1 in use") && error.contains("last-head"), "{error}");
        assert!(line().ends_with(" 1\n"), "{}", line());
    }
    open().head().unwrap();
}

/// Other keys keep a rotation from being done unless they are to be dropped; then they open nothing.
#[test]
fn other_keys_are_dropped_only_when_asked() {
    let (backend, env) = memory();
    let repository = lab::create(&backend, &env);
    let id = snapshot(&repository, &files(0..5)).unwrap();
    let other = repository.add_key(&another(), "other", KdfCost::LEAST).unwrap();
    assert_eq!(repository.other_keys().unwrap(), [other]);
    let before = backend.read_head().unwrap();
    let refused = rotate(&repository, &lab::secret());
    assert!(matches!(refused.map(|_| ()), Err(Error::Invalid(_))));
    assert_eq!(backend.read_head().unwrap(), before);
    assert_eq!(slots(&backend).len(), 2);
    open_with(&backend, &env, &another()).unwrap();
    let secret = lab::secret();
    let new = NewSlot { secret: &secret, label: "new", cost: KdfCost::LEAST };
    let rotation = repository.rotate_keys(&new, OtherKeys::Drop).unwrap();
    assert_eq!((rotation.dropped, slots(&backend).len()), (vec![other], 1));
    assert_wrong(open_with(&backend, &env, &another()));
    let opened = lab::open(&backend, &env).unwrap();
    opened.add_key(&another(), "other", KdfCost::LEAST).unwrap();
    let by_other = open_with(&backend, &env, &another()).unwrap();
    assert_eq!(by_other.generation(), Generation(1));
    assert_eq!(restore_by_id(&by_other, id).unwrap(), files(0..5));
    assert_whole(&by_other);
}

/// A process that opened before the rotation can neither commit nor change keys after it: it says that the keys were
/// rotated, and harms nothing.
#[test]
fn a_session_from_before_fails_clearly() {
    let (backend, env) = memory();
    let repository = lab::create(&backend, &env);
    let id = snapshot(&repository, &files(0..5)).unwrap();
    let before = lab::open(&backend, &env).unwrap();
    let writer = before.writer(WriteOptions { threads: 1, ..WriteOptions::default() }).unwrap();
    let record = lab::fill(&writer, &before, &files(3..20)).unwrap();
    let rotated = rotate(&repository, &lab::secret()).unwrap().repository;
    assert_rotated(writer.commit(record).map(|_| ()));
    assert_rotated(before.forget(&[id]));
    assert_rotated(before.prune(&PruneOptions::default()).map(|_| ()));
    assert_rotated(before.add_key(&another(), "late", KdfCost::LEAST));
    assert_rotated(rotate(&before, &another()).map(|_| ()));
    assert_rotated(repository.head().map(|_| ()));
    assert_eq!(slots(&backend).len(), 1, "the late key was taken back");
    assert_whole(&rotated);
    let again = lab::open(&backend, &env).unwrap();
    snapshot(&again, &files(3..20)).unwrap();
    assert_eq!(restore_by_id(&again, id).unwrap(), files(0..5));
}

/// Somebody commits with the old keys between the new slot and the new head: the rotation looks again and succeeds.
#[test]
fn a_commit_in_between_only_delays() {
    let (inner, env) = memory();
    lab::create(&inner, &env);
    let meddled = Arc::new(Meddled { inner: Arc::clone(&inner), plan: Mutex::default() });
    let backend: Arc<dyn Backend> = Arc::clone(&meddled) as _;
    let repository = lab::open(&backend, &env).unwrap();
    let id = Arc::new(Mutex::new(None));
    let (elsewhere, taken) = (lab::open(&inner, &env).unwrap(), Arc::clone(&id));
    meddled.plan.lock().unwrap().before =
        Some(Box::new(move || *taken.lock().unwrap() = snapshot(&elsewhere, &files(0..4)).ok()));
    let rotated = rotate(&repository, &another()).unwrap().repository;
    let id = id.lock().unwrap().unwrap();
    assert_eq!(restore_by_id(&rotated, id).unwrap(), files(0..4));
    assert_eq!(slots(&inner).len(), 1);
    assert_wrong(lab::open(&inner, &env));
    assert_whole(&open_with(&inner, &env, &another()).unwrap());
}

/// The answer to the swap is lost: whether it happened, and whether somebody built on it, is found out.
#[test]
fn a_lost_answer_is_looked_up() {
    for followed in [false, true] {
        let (inner, env) = memory();
        lab::create(&inner, &env);
        let meddled = Arc::new(Meddled { inner: Arc::clone(&inner), plan: Mutex::default() });
        let backend: Arc<dyn Backend> = Arc::clone(&meddled) as _;
        let repository = lab::open(&backend, &env).unwrap();
        let mut plan = Plan { answer_lost: true, ..Plan::default() };
        if followed {
            let (inner, env) = (Arc::clone(&inner), Arc::clone(&env));
            plan.after = Some(Box::new(move || {
                let follower = open_with(&inner, &env, &another()).unwrap();
                snapshot(&follower, &files(0..4)).unwrap();
            }));
        }
        *meddled.plan.lock().unwrap() = plan;
        let rotated = rotate(&repository, &another()).unwrap().repository;
        assert_eq!(rotated.snapshots().unwrap().len(), usize::from(followed));
        assert_eq!(slots(&inner).len(), 1);
        assert_whole(&rotated);
    }
}

/// Two rotations at once: one wins, the other says so; whatever the winner's secret opens is whole. Also where one wins
/// between the slot and the head of the other.
#[test]
fn rotations_race() {
    for round in 0..16 {
        let (inner, env) = memory();
        let first = lab::create(&inner, &env);
        let expected = files(0..3);
        let id = snapshot(&first, &expected).unwrap();
        let secrets = [Secret::passphrase("one"), Secret::passphrase("two")];
        let outcomes: Vec<_> = if round == 0 {
            let meddled = Arc::new(Meddled { inner: Arc::clone(&inner), plan: Mutex::default() });
            let backend: Arc<dyn Backend> = Arc::clone(&meddled) as _;
            let slow = lab::open(&backend, &env).unwrap();
            let (fast, secret) = (lab::open(&inner, &env).unwrap(), secrets[1].clone());
            meddled.plan.lock().unwrap().before =
                Some(Box::new(move || assert!(rotate(&fast, &secret).is_ok())));
            vec![rotate(&slow, &secrets[0]).map(|_| ()), Ok(())]
        } else {
            // Both are open before either begins: the old secret opens nothing afterwards.
            let opened = secrets.each_ref().map(|_| lab::open(&inner, &env).unwrap());
            std::thread::scope(|scope| {
                let pairs = secrets.each_ref().into_iter().zip(&opened);
                let threads: Vec<_> = pairs
                    .map(|(secret, opened)| scope.spawn(move || rotate(opened, secret).map(|_| ())))
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            })
        };
        let winners = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(winners, 1, "round {round}: {outcomes:?}");
        for (secret, outcome) in secrets.iter().zip(outcomes) {
            let opened = open_with(&inner, &env, secret);
            if outcome.is_err() {
                assert_rotated(outcome);
                assert_wrong(opened);
                continue;
            }
            let opened = opened.unwrap();
            assert_eq!(restore_by_id(&opened, id).unwrap(), expected);
            assert_whole(&opened);
        }
        assert_eq!(slots(&inner).len(), 1);
    }
}

/// The storage after a rotation that died between slot and head, to another or to the same secret.
fn interrupted(secret: &Secret) -> (MemoryBackend, Arc<dyn Backend>, Arc<dyn Env>, Files) {
    let store = MemoryBackend::new();
    let (backend, env): (Arc<dyn Backend>, _) = (Arc::new(store.clone()), memory().1);
    let repository = lab::create(&backend, &env);
    let expected = files(0..4);
    snapshot(&repository, &expected).unwrap();
    let before = store.contents();
    rotate(&repository, secret).unwrap();
    let mut contents = store.contents();
    contents.objects.extend(before.objects);
    contents.head = before.head;
    let store = MemoryBackend::with_contents(contents);
    (store.clone(), Arc::new(store), env, expected)
}

/// An interrupted rotation is completed by the next commit, by a change of keys, or by another rotation, with the same
/// secret and with another one.
#[test]
fn an_interrupted_rotation_is_completed() {
    type Step = fn(&Arc<Repository>);
    let steps: [Step; 4] = [
        |repository| {
            snapshot(repository, &files(0..9)).unwrap();
        },
        |repository| drop(repository.forget(&[repository.snapshots().unwrap()[0].id]).unwrap()),
        |repository| {
            let third = Secret::passphrase("a third");
            repository.add_key(&third, "third", KdfCost::LEAST).unwrap();
        },
        |repository| drop(rotate(repository, &another()).unwrap()),
    ];
    for secret in [lab::secret(), another()] {
        for (number, step) in steps.into_iter().enumerate() {
            let (_, backend, env, expected) = interrupted(&secret);
            let opened = open_with(&backend, &env, &secret).unwrap();
            assert_eq!(opened.head().unwrap().generation(), Generation(0));
            let listed = opened.snapshots().unwrap();
            assert_eq!(lab::restore(&opened, &listed[0]).unwrap(), expected);
            step(&opened);
            let secret = if number == 3 { another() } else { secret.clone() };
            let again = open_with(&backend, &env, &secret).unwrap();
            assert_ne!(again.head().unwrap().generation(), Generation(0), "step {number}");
            assert!(again.notices().is_empty(), "{:?}", again.notices());
            assert_whole(&again);
        }
    }
}

/// Somebody with the old keys commits after the interruption: the new slot means nothing then, says so, and goes with the
/// next rotation.
#[test]
fn an_interrupted_rotation_may_come_to_nothing() {
    for secret in [lab::secret(), another()] {
        let (store, backend, env, expected) = interrupted(&secret);
        let pending = open_with(&backend, &env, &secret).unwrap();
        // Opened before the rotation: its slot is the only one it knew.
        let old = MemoryBackend::with_contents(store.contents());
        let old: Arc<dyn Backend> = Arc::new(old);
        let newest = slots(&old).into_iter().find(|slot| slot.generation() == Generation(1));
        old.remove(&ObjectName::Key(newest.unwrap().id())).unwrap();
        let before = lab::open(&old, &env).unwrap();
        let id = snapshot(&before, &files(2..6)).unwrap();
        let mut contents = store.contents();
        contents.objects.extend(objects_of(&old));
        contents.head = old.read_head().unwrap();
        let store = MemoryBackend::with_contents(contents);
        let backend: Arc<dyn Backend> = Arc::new(store);
        drop(pending);
        if secret_is(&secret, &another()) {
            assert_stale(open_with(&backend, &env, &secret));
        }
        let opened = lab::open(&backend, &env).unwrap();
        assert_eq!(opened.generation(), Generation(0));
        let interrupted = opened.notices().iter().any(|notice| notice.contains("interrupted"));
        assert_eq!(interrupted, !secret_is(&secret, &another()));
        assert_eq!(restore_by_id(&opened, id).unwrap(), files(2..6));
        assert_eq!(lab::restore(&opened, &opened.snapshots().unwrap()[0]).unwrap(), expected);
        let rotated = rotate(&opened, &secret).unwrap();
        assert!(rotated.dropped.is_empty() && rotated.left.is_empty());
        assert_eq!(slots(&backend).len(), 1);
        assert_whole(&open_with(&backend, &env, &secret).unwrap());
    }
}

fn secret_is(secret: &Secret, other: &Secret) -> bool {
    match (secret, other) {
        (Secret::Passphrase(a), Secret::Passphrase(b)) => a == b,
        (Secret::KeyFile(a), Secret::KeyFile(b)) => a == b,
        _ => false,
    }
}

fn objects_of(backend: &Arc<dyn Backend>) -> Vec<(ObjectName, Arc<Vec<u8>>)> {
    let read = |name: ObjectName| {
        let bytes = read_whole(&**backend, &name, 1 << 30).unwrap().to_vec();
        (name, Arc::new(bytes))
    };
    objects(backend).into_iter().map(read).collect()
}

/// A head that was damaged after a rotation is told as damage, and the repository opens, so that one can look at it.
#[test]
fn a_damaged_head_is_damage() {
    let store = MemoryBackend::new();
    let (backend, env): (Arc<dyn Backend>, _) = (Arc::new(store.clone()), memory().1);
    rotate(&lab::create(&backend, &env), &lab::secret()).unwrap();
    let whole = backend.read_head().unwrap().unwrap();
    for byte in 0..whole.len() {
        for bit in [0, 3, 7] {
            let mut changed = whole.clone();
            changed[byte] ^= 1 << bit;
            store.set_head(Some(changed));
            let opened = lab::open(&backend, &env).unwrap();
            let error = opened.head().map(|_| ()).unwrap_err();
            assert!(error.is_damage(), "byte {byte} bit {bit}: {error}");
        }
    }
    store.set_head(None);
    let error = lab::open(&backend, &env).unwrap().head().map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}
