//! Rotations that die at any call: the repository opens, nothing is lost, and another rotation completes what was begun.

use crate::lab::{self, assert_whole, files, open_with, restore_by_id};
use crate::rotation::{another, rotate};
use std::sync::Arc;
use stillpoint_store::backend::{Backend, Contents, MemoryBackend};
use stillpoint_store::record::Secret;
use stillpoint_store::{Env, Error, Repository, Result, SnapshotId, WriteOptions};
use stillpoint_testkit::{CrashBackend, Fault, FaultBackend, SeededEnv};

fn env(seed: u64) -> Arc<dyn Env> {
    Arc::new(SeededEnv::new(seed))
}

fn small(step: u64) -> lab::Files {
    let mut files = files([2 + step, 4]);
    files.values_mut().for_each(|bytes| bytes.truncate(2000));
    files
}

fn snapshot(repository: &Arc<Repository>, step: u64) -> Result<SnapshotId> {
    let writer = repository.writer(WriteOptions { threads: 1, ..WriteOptions::default() })?;
    let record = lab::fill(&writer, repository, &small(step))?;
    Ok(writer.commit(record)?.0)
}

/// A repository with one snapshot, never rotated or rotated once.
fn start(rotations: usize) -> (Contents, SnapshotId) {
    let store = MemoryBackend::new();
    let backend: Arc<dyn Backend> = Arc::new(store.clone());
    let mut repository = lab::create(&backend, &env(1));
    let id = snapshot(&repository, 0).unwrap();
    for _ in 0..rotations {
        repository = rotate(&repository, &lab::secret()).unwrap().repository;
    }
    (store.contents(), id)
}

/// Opens with either secret, restores the snapshot from before, takes another, and rotates again.
fn assert_survives(
    backend: Arc<dyn Backend>,
    secrets: [&Secret; 2],
    done: bool,
    first: SnapshotId,
) {
    let env = env(3);
    let [old, new] = secrets;
    let opened = match (open_with(&backend, &env, new), done) {
        (Ok(opened), _) => opened,
        (Err(error), true) => {
            panic!("the rotation was acknowledged, and its secret fails: {error}")
        }
        (Err(_), false) => open_with(&backend, &env, old).expect("the old secret still opens"),
    };
    assert_eq!(restore_by_id(&opened, first).unwrap(), small(0));
    let second = snapshot(&opened, 7).expect("another snapshot is taken");
    let rotated = rotate(&opened, new).expect("another rotation succeeds").repository;
    for id in [first, second] {
        restore_by_id(&rotated, id).unwrap();
    }
    let again = open_with(&backend, &env, new).expect("its secret opens");
    assert_eq!(again.notices(), [""; 0]);
    snapshot(&again, 8).unwrap();
    assert_whole(&again);
    assert_eq!(again.key_slots().unwrap().len(), 1, "nothing stays behind");
}

/// In every image that a crash can leave at any moment of a rotation.
#[test]
fn every_crash_image_of_a_rotation_opens() {
    let mut count = 0;
    for (rotations, secret) in
        [(0, lab::secret()), (0, another()), (1, lab::secret()), (1, another())]
    {
        let (start, first) = start(rotations);
        let crash = CrashBackend::new(start);
        let backend: Arc<dyn Backend> = Arc::new(crash.clone());
        let repository = lab::open(&backend, &env(2)).unwrap();
        rotate(&repository, &secret).unwrap();
        crash.mark("done");
        let images = crash.images();
        assert!(images.len() > 5, "only {} images", images.len());
        for image in images {
            stillpoint_testkit::with_label(&image.label, || {
                let done = !image.marks.is_empty();
                let secrets = [&lab::secret(), &secret];
                let late: Arc<dyn Backend> = Arc::new(image.backend());
                image.remove_late(&*late).expect("memory removes");
                assert_survives(late, secrets, done, first);
                assert_survives(Arc::new(image.backend()), secrets, done, first);
            });
            count += 1;
        }
    }
    eprintln!("{count} crash images");
}

/// Whatever call of a rotation fails, once or for ever, with its effect or without: the storage's error is told or the
/// rotation is done.
#[test]
fn every_failing_call_of_a_rotation_is_survived() {
    let mut failed = 0;
    for secret in [lab::secret(), another()] {
        let (start, first) = start(0);
        let run = |backend: Arc<dyn Backend>| {
            let repository = lab::open(&backend, &env(2))?;
            rotate(&repository, &secret)
        };
        let faults = FaultBackend::new(Arc::new(MemoryBackend::with_contents(start.clone())));
        run(Arc::new(faults.clone())).unwrap();
        let calls = faults.counts().total();
        for fault in Fault::every(calls) {
            stillpoint_testkit::with_label(format!("{fault:?}"), || {
                let disk = MemoryBackend::with_contents(start.clone());
                let faults = FaultBackend::new(Arc::new(disk.clone()));
                faults.plan(fault);
                let outcome = run(Arc::new(faults));
                let done = outcome.is_ok();
                if let Err(error) = outcome {
                    failed += 1;
                    assert!(matches!(error, Error::Io { .. }), "{error}");
                }
                assert_survives(Arc::new(disk), [&lab::secret(), &secret], done, first);
            });
        }
        assert!(failed > calls, "{failed} of {calls} calls failed the rotation");
    }
    eprintln!("{failed} failures were told");
}
