//! Sealing anew what older keys seal: afterwards those open nothing that is live, and everything restores as before.

use crate::lab::{self, assert_whole, files, memory, open_with, restore_by_id, snapshot};
use crate::races::Meddled;
use crate::rotation::{another, rotate};
use std::sync::{Arc, Mutex};
use stillpoint_store::backend::{Backend, MemoryBackend};
use stillpoint_store::prune::PruneOptions;
use stillpoint_store::repository::Outdated;
use stillpoint_store::{Env, Error, ObjectKind, Repository, SnapshotId};
use stillpoint_testkit::{CrashBackend, Fault, FaultBackend, SeededEnv};

/// A repository with two snapshots and a forgotten one, whose keys were rotated.
fn rotated(backend: &Arc<dyn Backend>, env: &Arc<dyn Env>) -> (Arc<Repository>, Vec<SnapshotId>) {
    let repository = lab::create(backend, env);
    let ids = [0, 3, 6].map(|step| snapshot(&repository, &some(step)).unwrap());
    repository.forget(&ids[2..]).unwrap();
    (rotate(&repository, &another()).unwrap().repository, ids.to_vec())
}

fn some(step: u64) -> lab::Files {
    let mut files = files(step..step + 4);
    files.values_mut().for_each(|bytes| bytes.truncate(3000));
    files
}

/// Records and catalogue alone: nothing of them is left to older keys, what is forgotten can still be taken back, the old
/// records are garbage, and doing it again does nothing.
#[test]
fn records_are_sealed_anew() {
    let (backend, env) = memory();
    let (repository, ids) = rotated(&backend, &env);
    // More than one commit seals anew.
    let more: Vec<_> = (0..90).map(|_| snapshot(&repository, &some(0)).unwrap()).collect();
    let repository = rotate(&repository, &another()).unwrap().repository;
    let before = repository.outdated().unwrap();
    assert!(before.packs > 0 && before.pack_bytes > 0 && before.nodes > 0, "{before:?}");
    assert_eq!(before.records, 93);
    assert_eq!(repository.reseal_records().unwrap(), 93);
    let after = repository.outdated().unwrap();
    assert_eq!(after, Outdated { records: 0, nodes: 0, ..before });
    let seq = repository.head().unwrap().seq();
    assert_eq!(repository.reseal_records().unwrap(), 0);
    assert_eq!(repository.head().unwrap().seq(), seq);
    assert_eq!(repository.snapshots().unwrap().len(), 92);
    repository.forget(&more).unwrap();
    for again in [&repository, &open_with(&backend, &env, &another()).unwrap()] {
        assert_eq!(restore_by_id(again, ids[0]).unwrap(), some(0));
        assert!(again.notices().is_empty());
        assert_whole(again);
    }
    assert_eq!(backend.list(ObjectKind::Snapshot).unwrap().len(), 2 * 93);
    repository.prune(&PruneOptions::default()).unwrap();
    assert_eq!(backend.list(ObjectKind::Snapshot).unwrap().len(), 93);
    repository.undelete(&ids[2..]).unwrap();
    assert_eq!(restore_by_id(&repository, ids[2]).unwrap(), some(6));
    assert_whole(&repository);
}

/// A commit in between delays: what was sealed for nothing is removed, and it is done again.
#[test]
fn a_commit_in_between_delays() {
    let (inner, env) = memory();
    rotated(&inner, &env);
    let meddled = Arc::new(Meddled { inner: Arc::clone(&inner), plan: Mutex::default() });
    let backend: Arc<dyn Backend> = Arc::clone(&meddled) as _;
    let repository = open_with(&backend, &env, &another()).unwrap();
    let elsewhere = open_with(&inner, &env, &another()).unwrap();
    meddled.plan.lock().unwrap().before =
        Some(Box::new(move || assert!(snapshot(&elsewhere, &some(9)).is_ok())));
    assert_eq!(repository.reseal_records().unwrap(), 3);
    let after = repository.outdated().unwrap();
    assert_eq!((after.records, after.nodes), (0, 0));
    assert_eq!(inner.list(ObjectKind::Snapshot).unwrap().len(), 7);
    assert_whole(&repository);
}

/// What must hold of every state that a crash or a failing call leaves: all is there, and another try completes it.
fn assert_survives(backend: Arc<dyn Backend>, ids: &[SnapshotId]) {
    let env: Arc<dyn Env> = Arc::new(SeededEnv::new(3));
    let repository = open_with(&backend, &env, &another()).unwrap();
    assert_eq!(repository.snapshots().unwrap().len(), 2);
    assert_whole(&repository);
    repository.reseal_records().unwrap();
    let after = repository.outdated().unwrap();
    assert_eq!((after.records, after.nodes), (0, 0));
    repository.undelete(&ids[2..]).unwrap();
    for (id, step) in ids.iter().zip([0, 3, 6]) {
        assert_eq!(restore_by_id(&repository, *id).unwrap(), some(step));
    }
    assert_whole(&repository);
    assert!(repository.notices().is_empty());
}

/// Every crash image of sealing records anew.
#[test]
fn every_crash_image_of_sealing_anew_is_whole() {
    let start = MemoryBackend::new();
    let shared: Arc<dyn Backend> = Arc::new(start.clone());
    let env: Arc<dyn Env> = Arc::new(SeededEnv::new(1));
    let (_, ids) = rotated(&shared, &env);
    let crash = CrashBackend::new(start.contents());
    let backend: Arc<dyn Backend> = Arc::new(crash.clone());
    let repository = open_with(&backend, &env, &another()).unwrap();
    repository.reseal_records().unwrap();
    let images = crash.images();
    assert!(images.len() > 5, "only {} images", images.len());
    for image in &images {
        stillpoint_testkit::with_label(&image.label, || {
            let late: Arc<dyn Backend> = Arc::new(image.backend());
            image.remove_late(&*late).unwrap();
            assert_survives(late, &ids);
            assert_survives(Arc::new(image.backend()), &ids);
        });
    }
    eprintln!("{} crash images", images.len());
}

/// Every failing call of sealing records anew.
#[test]
fn every_failing_call_of_sealing_anew_is_survived() {
    let start = MemoryBackend::new();
    let shared: Arc<dyn Backend> = Arc::new(start.clone());
    let env: Arc<dyn Env> = Arc::new(SeededEnv::new(1));
    let (_, ids) = rotated(&shared, &env);
    let run = |backend: Arc<dyn Backend>| {
        let env: Arc<dyn Env> = Arc::new(SeededEnv::new(2));
        open_with(&backend, &env, &another())?.reseal_records().map(|_| ())
    };
    let faults = FaultBackend::new(Arc::new(MemoryBackend::with_contents(start.contents())));
    run(Arc::new(faults.clone())).unwrap();
    let calls = faults.counts().total();
    let mut failed = 0;
    for fault in Fault::every(calls) {
        stillpoint_testkit::with_label(format!("{fault:?}"), || {
            let disk = MemoryBackend::with_contents(start.contents());
            let faults = FaultBackend::new(Arc::new(disk.clone()));
            faults.plan(fault);
            if let Err(error) = run(Arc::new(faults)) {
                failed += 1;
                assert!(matches!(error, Error::Io { .. }), "{error}");
            }
            assert_survives(Arc::new(disk), &ids);
        });
    }
    assert!(failed > calls / 2, "{failed} of {calls} calls failed");
    eprintln!("{calls} calls, {failed} failures were told");
}
