//! Whole sessions: snapshots written, read back, forgotten and pruned, by one and by several at once.

use crate::lab::{self, Files, assert_whole, files, memory, restore_by_id, snapshot};
use std::sync::Arc;
use std::time::Duration;
use stillpoint_store::backend::{Backend, MemoryBackend};
use stillpoint_store::check::CheckOptions;
use stillpoint_store::prune::{MaxUnused, PruneOptions};
use stillpoint_store::{Error, ObjectKind, ObjectName, Repository, WriteOptions};

fn prune_now() -> PruneOptions {
    PruneOptions {
        keep_forgotten: Duration::ZERO,
        grace: Duration::ZERO,
        orphan_grace: Duration::ZERO,
        max_unused: MaxUnused::Bytes(0),
        ..PruneOptions::default()
    }
}

fn packs(repository: &Arc<Repository>) -> usize {
    repository.backend().list(ObjectKind::Pack).unwrap().len()
}

/// What was committed comes back the same, in this process and in another that opens the repository anew.
#[test]
fn a_snapshot_comes_back() {
    let (backend, env) = memory();
    let repository = lab::create(&backend, &env);
    let cases: [Files; 4] = [
        Files::new(),
        [(b"empty".to_vec(), Vec::new())].into(),
        files(0..40),
        [(b"one".to_vec(), vec![0u8; 3 << 20])].into(),
    ];
    for expected in cases {
        let id = snapshot(&repository, &expected).unwrap();
        assert_eq!(restore_by_id(&repository, id).unwrap(), expected);
        let again = lab::open(&backend, &env).unwrap();
        assert_eq!(restore_by_id(&again, id).unwrap(), expected);
    }
    assert_whole(&repository);
}

/// A second snapshot of the same files stores no data and no nodes.
#[test]
fn equal_files_are_stored_once() {
    let (backend, env) = memory();
    let repository = lab::create(&backend, &env);
    let expected = files(0..60);
    snapshot(&repository, &expected).unwrap();
    let before = packs(&repository);
    snapshot(&repository, &expected).unwrap();
    assert_eq!(packs(&repository), before);
    let again = lab::open(&backend, &env).unwrap();
    snapshot(&again, &expected).unwrap();
    assert_eq!(packs(&again), before);
    assert_eq!(again.snapshots().unwrap().len(), 3);
    assert_whole(&again);
}

/// Sessions that overlap both commit; whoever comes second looks again.
#[test]
fn overlapping_sessions_both_commit() {
    let (backend, env) = memory();
    let repository = lab::create(&backend, &env);
    let other = lab::open(&backend, &env).unwrap();
    let (first, second) = (files(0..30), files(20..50));
    let a = repository.writer(WriteOptions::default()).unwrap();
    let b = other.writer(WriteOptions::default()).unwrap();
    let record_a = lab::fill(&a, &repository, &first).unwrap();
    let record_b = lab::fill(&b, &other, &second).unwrap();
    let id_a = a.commit(record_a).unwrap().0;
    let id_b = b.commit(record_b).unwrap().0;
    for repository in [&repository, &other] {
        assert_eq!(restore_by_id(repository, id_a).unwrap(), first);
        assert_eq!(restore_by_id(repository, id_b).unwrap(), second);
        assert_whole(repository);
    }
}

/// Eight writers at once, each with snapshots of its own: all are there at the end.
#[test]
fn many_writers_at_once() {
    let (backend, env) = memory();
    lab::create(&backend, &env);
    let written: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..8u64)
            .map(|number| {
                let (backend, env) = (Arc::clone(&backend), Arc::clone(&env));
                scope.spawn(move || {
                    let repository = lab::open(&backend, &env).unwrap();
                    (0..4u64)
                        .map(|round| {
                            let expected = files(number * 3 + round..number * 3 + round + 9);
                            (snapshot(&repository, &expected).unwrap(), expected)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        handles.into_iter().flat_map(|handle| handle.join().unwrap()).collect()
    });
    let repository = lab::open(&backend, &env).unwrap();
    assert_eq!(repository.snapshots().unwrap().len(), 32);
    for (id, expected) in written {
        assert_eq!(restore_by_id(&repository, id).unwrap(), expected);
    }
    assert_whole(&repository);
}

/// Forgotten snapshots are gone at once; prune gives their space back and leaves the others whole.
#[test]
fn prune_reclaims_what_nobody_needs() {
    let (backend, env) = memory();
    let repository = lab::create(&backend, &env);
    let kept = files((0..80).filter(|seed| seed % 3 == 0));
    let gone = snapshot(&repository, &files(0..80)).unwrap();
    let keep = snapshot(&repository, &kept).unwrap();
    let bytes = |repository: &Arc<Repository>| -> u64 {
        repository.backend().list(ObjectKind::Pack).unwrap().iter().map(|(_, size)| size).sum()
    };
    let before = bytes(&repository);
    assert_eq!(repository.forget(&[gone]).unwrap(), [gone]);
    assert_eq!(repository.forget(&[gone]).unwrap(), []);
    assert!(matches!(restore_by_id(&repository, gone), Err(Error::NoSuchSnapshot { .. })));

    let dry = repository.prune(&PruneOptions { dry_run: true, ..prune_now() }).unwrap();
    assert!(dry.plan.reclaim_bytes > 0);
    assert_eq!(bytes(&repository), before);

    let report = repository.prune(&prune_now()).unwrap();
    assert!(report.deleted > 0);
    assert!(bytes(&repository) * 2 < before, "{} of {before} bytes are left", bytes(&repository));
    assert_eq!(restore_by_id(&repository, keep).unwrap(), kept);
    assert_whole(&repository);
    let other = lab::open(&backend, &env).unwrap();
    assert_eq!(restore_by_id(&other, keep).unwrap(), kept);
    let again = repository.prune(&prune_now()).unwrap();
    assert_eq!((again.deleted, again.plan.drop.len(), again.plan.rewrite.len()), (0, 0, 0));
}

/// With a grace, condemned packs stay until it is over.
#[test]
fn condemned_packs_wait_for_their_grace() {
    let backend = memory().0;
    let clock = Arc::new(stillpoint_testkit::SeededEnv::new(1));
    let env: Arc<dyn stillpoint_store::Env> = clock.clone();
    let repository = lab::create(&backend, &env);
    let id = snapshot(&repository, &files(0..20)).unwrap();
    repository.forget(&[id]).unwrap();
    let before = packs(&repository);
    let options = PruneOptions { grace: Duration::from_secs(3600), ..prune_now() };
    let report = repository.prune(&options).unwrap();
    assert_eq!((report.deleted, report.waiting), (0, u64::try_from(before).unwrap()));
    clock.advance_seconds(3599);
    assert_eq!(repository.prune(&options).unwrap().deleted, 0);
    clock.advance_seconds(1);
    assert_eq!(repository.prune(&options).unwrap().deleted, u64::try_from(before).unwrap());
    assert_eq!(packs(&repository), 0);
    // Eight days later the names are forgotten too, and the fence has risen.
    clock.advance_seconds(8 * 24 * 3600);
    repository.prune(&options).unwrap();
    assert!(repository.head().unwrap().tombstones().unwrap().is_empty());
    assert!(repository.head().unwrap().fence() > 0);
    let id = snapshot(&repository, &files(0..20)).unwrap();
    assert_eq!(restore_by_id(&repository, id).unwrap(), files(0..20));
    assert_whole(&repository);
}

/// A session whose parent's data is forgotten, condemned and even deleted before its commit either commits
/// something whole or fails clearly; never anything else.
#[test]
fn prune_between_look_up_and_commit() {
    for grace in [Duration::ZERO, Duration::from_secs(3600)] {
        let (backend, env) = memory();
        let repository = lab::create(&backend, &env);
        let expected = files(0..40);
        let parent = snapshot(&repository, &expected).unwrap();
        let session = lab::open(&backend, &env).unwrap();
        let writer = session.writer(WriteOptions::default()).unwrap();
        let mut more = expected.clone();
        more.extend(files(100..110));
        let record = lab::fill(&writer, &session, &more).unwrap();
        repository.forget(&[parent]).unwrap();
        repository.prune(&PruneOptions { grace, ..prune_now() }).unwrap();
        match writer.commit(record) {
            Ok((id, _)) => assert_eq!(restore_by_id(&session, id).unwrap(), more),
            Err(error) => {
                assert_eq!(grace, Duration::ZERO, "{error}");
                assert!(matches!(error, Error::Conflict { .. }), "{error}");
            }
        }
        assert_whole(&repository);
    }
}

/// A writer whose own packs were condemned as orphans before it could commit stores them again.
#[test]
fn own_packs_condemned_as_orphans() {
    let (backend, env) = memory();
    let repository = lab::create(&backend, &env);
    let session = lab::open(&backend, &env).unwrap();
    let writer = session.writer(WriteOptions::default()).unwrap();
    // More than a pack of data that does not compress, so that durable packs exist before the commit.
    let expected: Files = (0..5u64)
        .map(|seed| {
            let mut bytes = vec![0u8; 16 << 20];
            stillpoint_testkit::Random::new(seed).fill(&mut bytes);
            (vec![u8::try_from(seed).unwrap()], bytes)
        })
        .collect();
    let record = lab::fill(&writer, &session, &expected).unwrap();
    let options = PruneOptions { grace: Duration::from_secs(3600), ..prune_now() };
    let report = repository.prune(&options).unwrap();
    assert!(report.orphans > 0, "the session has durable packs");
    let id = writer.commit(record).unwrap().0;
    assert_eq!(restore_by_id(&repository, id).unwrap(), expected);
    assert_whole(&repository);
}

/// Damage of each kind is found by a check and named.
#[test]
fn check_names_damage() {
    let (backend, env) = memory();
    let repository = lab::create(&backend, &env);
    let id = snapshot(&repository, &files(0..30)).unwrap();
    let packs = backend.list(ObjectKind::Pack).unwrap();
    let (name, size) = packs[0];
    let whole = backend.read(&name, 0..size).unwrap().to_vec();
    let replace = |bytes: Option<&[u8]>| {
        backend.remove(&name).unwrap();
        if let Some(bytes) = bytes {
            stillpoint_store::backend::put(&*backend, &name, bytes).unwrap();
        }
    };
    let damages: [(&str, Option<Vec<u8>>); 4] = [
        ("removed", None),
        ("cut", Some(whole[..whole.len() - 1].to_vec())),
        (
            "flipped",
            Some(whole.iter().enumerate().map(|(at, b)| b ^ u8::from(at == 4000)).collect()),
        ),
        ("swapped", Some(backend.read(&packs[1].0, 0..packs[1].1).unwrap().to_vec())),
    ];
    for (what, bytes) in damages {
        replace(bytes.as_deref());
        let fresh = lab::open(&backend, &env).unwrap();
        let check = CheckOptions::read_all();
        let report = fresh.check(check, &|_, _| {}).unwrap();
        assert!(report.findings.iter().any(|f| f.object == Some(name)), "{what}: {report:?}");
        let restored = restore_by_id(&fresh, id);
        assert!(restored.is_err() || restored.unwrap() == files(0..30), "{what}");
    }
    replace(Some(&whole));
    assert_whole(&lab::open(&backend, &env).unwrap());
    let snapshot = ObjectName::Snapshot(id);
    backend.remove(&snapshot).unwrap();
    let report = repository.check(CheckOptions::default(), &|_, _| {}).unwrap();
    assert!(report.findings.iter().any(|finding| finding.object == Some(snapshot)));
}

/// The same input, parameters and environment give the same bytes, for any number of threads.
#[test]
fn bytes_do_not_depend_on_threads() {
    let contents = |threads: usize| {
        let backend = memory().0;
        let env: Arc<dyn stillpoint_store::Env> = Arc::new(stillpoint_testkit::SeededEnv::new(9));
        let repository = lab::create(&backend, &env);
        let writer =
            repository.writer(WriteOptions { threads, ..WriteOptions::default() }).unwrap();
        let record = lab::fill(&writer, &repository, &files(0..200)).unwrap();
        writer.commit(record).unwrap();
        let mut objects: Vec<_> = [ObjectKind::Pack, ObjectKind::Snapshot, ObjectKind::Catalogue]
            .into_iter()
            .flat_map(|kind| backend.list(kind).unwrap())
            .map(|(name, size)| (name, backend.read(&name, 0..size).unwrap().to_vec()))
            .collect();
        objects.sort();
        objects
    };
    let one = contents(1);
    for threads in [2, 3, 8] {
        assert!(contents(threads) == one, "{threads} threads give other bytes than one");
    }
}

/// What does not exist, or exists several times, is an error that names the candidates.
#[test]
fn finding_snapshots() {
    let (backend, env) = memory();
    let repository = lab::create(&backend, &env);
    assert!(repository.find_snapshot("latest").is_err());
    let ids: Vec<_> = (0..40).map(|seed| snapshot(&repository, &files([seed])).unwrap()).collect();
    assert_eq!(repository.find_snapshot("latest").unwrap().id, ids[39]);
    assert_eq!(repository.find_snapshot("latest~3").unwrap().id, ids[36]);
    assert_eq!(repository.find_snapshot(&ids[5].short()).unwrap().id, ids[5]);
    for wrong in ["", "latest~40", "latest~x", "latestx", "zz", "0123456789abcdef0123"] {
        assert!(matches!(repository.find_snapshot(wrong), Err(Error::NoSuchSnapshot { .. })));
    }
    let first = |id: &stillpoint_store::SnapshotId| id.to_string().remove(0);
    let shared =
        ids.iter().map(first).find(|c| ids.iter().filter(|id| first(id) == *c).count() > 1);
    let error = repository.find_snapshot(&shared.unwrap().to_string()).unwrap_err();
    assert!(error.to_string().contains("ambiguous"), "{error}");
}

/// A wrong key file, no repository, and a second create are each told apart.
#[test]
fn opening_errors() {
    let (backend, env) = memory();
    assert!(matches!(lab::open(&backend, &env), Err(Error::NoRepository { .. })));
    lab::create(&backend, &env);
    let wrong = stillpoint_store::record::Secret::key_file(&[8; 64]);
    let options = stillpoint_store::OpenOptions::in_memory();
    let opened = Repository::open(Arc::clone(&backend), Arc::clone(&env), &wrong, options.clone());
    assert!(matches!(opened, Err(Error::WrongSecret)));
    let again = Repository::create(
        backend,
        env,
        &wrong,
        &stillpoint_store::repository::CreateOptions::default(),
        options,
    );
    assert!(matches!(again, Err(Error::AlreadyExists { .. })));
}

/// A lost pack is noticed by the next session, which stores again what it is given; the new snapshot is whole.
#[test]
fn what_a_lost_pack_held_is_stored_again() {
    for reopen in [false, true] {
        let (backend, env) = memory();
        let mut repository = lab::create(&backend, &env);
        let expected = files(0..30);
        let old = snapshot(&repository, &expected).unwrap();
        let again = snapshot(&repository, &expected).unwrap();
        assert_eq!(restore_by_id(&repository, again).unwrap(), expected);
        let largest = backend.list(ObjectKind::Pack).unwrap().into_iter().max_by_key(|(_, n)| *n);
        let (lost, _) = largest.unwrap();
        backend.remove(&lost).unwrap();
        if reopen {
            repository = lab::open(&backend, &env).unwrap();
        }
        let healed = snapshot(&repository, &expected).unwrap();
        let notices = repository.notices();
        assert!(notices.iter().any(|notice| notice.contains(&lost.to_string())), "{notices:?}");
        for id in [healed, old] {
            assert_eq!(restore_by_id(&repository, id).unwrap(), expected);
        }
        let fresh = lab::open(&backend, &env).unwrap();
        assert_eq!(restore_by_id(&fresh, healed).unwrap(), expected);
        // Now that nothing needs it any more, prune retires the lost pack and the repository is whole again.
        fresh.prune(&prune_now()).unwrap();
        assert_eq!(restore_by_id(&fresh, old).unwrap(), expected);
        assert_whole(&fresh);
    }
}

/// While something is lost that a live snapshot needs, prune does nothing at all.
#[test]
fn prune_leaves_a_wounded_repository_alone() {
    let disk = MemoryBackend::new();
    let (backend, env): (Arc<dyn Backend>, _) = (Arc::new(disk.clone()), memory().1);
    let repository = lab::create(&backend, &env);
    let gone = snapshot(&repository, &files(0..10)).unwrap();
    snapshot(&repository, &files(20..30)).unwrap();
    repository.forget(&[gone]).unwrap();
    let mut refused = 0;
    for (lost, _) in backend.list(ObjectKind::Pack).unwrap() {
        let copy: Arc<dyn Backend> = Arc::new(MemoryBackend::with_contents(disk.contents()));
        copy.remove(&lost).unwrap();
        let before = copy.list(ObjectKind::Pack).unwrap();
        let fresh = lab::open(&copy, &env).unwrap();
        match fresh.prune(&prune_now()) {
            Err(error) => {
                assert!(error.is_damage(), "{error}");
                assert_eq!(copy.list(ObjectKind::Pack).unwrap(), before);
                refused += 1;
            }
            // It was one that only the forgotten snapshot needed.
            Ok(_) => assert_whole(&fresh),
        }
    }
    assert_eq!(refused, 2, "the data and the nodes of the snapshot that is left");
}

/// A lost or damaged record hides no other snapshot, and its own can still be restored and forgotten.
#[test]
fn a_lost_record_locks_nothing() {
    for removed in [true, false] {
        let (backend, env) = memory();
        let repository = lab::create(&backend, &env);
        let (hurt, other) =
            (snapshot(&repository, &files(0..5)), snapshot(&repository, &files(5..9)));
        let (hurt, other) = (hurt.unwrap(), other.unwrap());
        backend.remove(&ObjectName::Snapshot(hurt)).unwrap();
        if !removed {
            stillpoint_store::backend::put(&*backend, &ObjectName::Snapshot(hurt), b"torn")
                .unwrap();
        }
        assert_eq!(repository.snapshots().unwrap().len(), 2);
        assert!(repository.notices().iter().any(|notice| notice.contains(&hurt.to_string())));
        assert_eq!(restore_by_id(&repository, other).unwrap(), files(5..9));
        assert_eq!(restore_by_id(&repository, hurt).unwrap(), files(0..5));
        snapshot(&repository, &files(9..11)).unwrap();
        assert_eq!(repository.forget(&[hurt]).unwrap(), [hurt]);
        repository.notices();
        assert_eq!(repository.snapshots().unwrap().len(), 2);
        assert_eq!(repository.notices(), Vec::<String>::new());
        // It could still be taken back.
        let report = repository.check(CheckOptions::default(), &|_, _| {}).unwrap();
        assert_eq!(report.findings[0].object, Some(ObjectName::Snapshot(hurt)));
        repository.prune(&prune_now()).unwrap();
        assert_whole(&repository);
    }
}
