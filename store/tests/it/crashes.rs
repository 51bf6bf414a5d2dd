//! Crashes and failing calls in whole sessions: what was acknowledged holds in every image, and nothing damaged is
//! ever left behind.

use crate::lab::{self, Files, assert_whole, files};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use stillpoint_store::backend::{Backend, MemoryBackend};
use stillpoint_store::prune::{MaxUnused, PruneOptions};
use stillpoint_store::{Env, Error, Repository, Result, SnapshotId, WriteOptions};
use stillpoint_testkit::{CrashBackend, Fault, FaultBackend, SeededEnv};

/// What the scenario was told is done.
#[derive(Default)]
pub struct Ledger {
    /// Snapshots whose commit was acknowledged, and what they hold.
    pub acknowledged: BTreeMap<String, Files>,
    /// Snapshots that somebody asked to forget: they may be there or not.
    pub forgotten: Vec<String>,
}

pub fn env(seed: u64) -> Arc<dyn Env> {
    Arc::new(SeededEnv::new(seed))
}

fn prune_now() -> PruneOptions {
    PruneOptions {
        keep_forgotten: Duration::ZERO,
        grace: Duration::ZERO,
        orphan_grace: Duration::ZERO,
        max_unused: MaxUnused::Bytes(0),
        write: WriteOptions { threads: 1, ..WriteOptions::default() },
        ..PruneOptions::default()
    }
}

fn contents(step: u64) -> Files {
    let mut files = files([2 + step, 4, 6]);
    files.retain(|_, bytes| {
        bytes.truncate(3000);
        true
    });
    files
}

fn snapshot(repository: &Arc<Repository>, files: &Files) -> Result<SnapshotId> {
    let writer = repository.writer(WriteOptions { threads: 1, ..WriteOptions::default() })?;
    let record = lab::fill(&writer, repository, files)?;
    Ok(writer.commit(record)?.0)
}

/// Two snapshots, one forgotten, a prune that drops and rewrites, a third snapshot. `note` hears what is done.
fn scenario(
    backend: &Arc<dyn Backend>,
    ledger: &mut Ledger,
    mut note: impl FnMut(&str),
) -> Result<()> {
    let env = env(2);
    let repository = lab::open(backend, &env)?;
    let mut first = None;
    for step in 0..2 {
        let id = snapshot(&repository, &contents(step))?;
        ledger.acknowledged.insert(id.to_string(), contents(step));
        note(&format!("snapshot {id}"));
        first.get_or_insert(id);
    }
    let gone = first.expect("two snapshots were taken");
    ledger.forgotten.push(gone.to_string());
    note(&format!("forget {gone}"));
    repository.forget(&[gone])?;
    repository.prune(&prune_now())?;
    let id = snapshot(&repository, &contents(2))?;
    ledger.acknowledged.insert(id.to_string(), contents(2));
    note(&format!("snapshot {id}"));
    Ok(())
}

/// Everything acknowledged (and not forgotten) restores, everything listed restores, a check finds nothing, and the
/// repository takes another snapshot and another prune.
pub fn assert_survives(
    backend: Arc<dyn Backend>,
    acknowledged: &BTreeMap<String, Files>,
    forgotten: &[String],
) {
    let env = env(3);
    let repository = lab::open(&backend, &env).expect("the repository opens");
    let listed = repository.snapshots().expect("the snapshots are listed");
    for snapshot in &listed {
        let files = lab::restore(&repository, snapshot).expect("what is listed restores");
        if let Some(expected) = acknowledged.get(&snapshot.id.to_string()) {
            assert!(files == *expected, "snapshot {} restores to something else", snapshot.id);
        }
    }
    for id in acknowledged.keys().filter(|id| !forgotten.contains(id)) {
        assert!(listed.iter().any(|s| s.id.to_string() == **id), "snapshot {id} is lost");
    }
    assert_whole(&repository);
    let id = snapshot(&repository, &contents(9)).expect("another snapshot is taken");
    repository.prune(&prune_now()).expect("another prune runs");
    assert_eq!(lab::restore_by_id(&repository, id).expect("it restores"), contents(9));
    assert_whole(&repository);
}

/// In every image that a crash could leave, at every moment of the scenario, what was acknowledged restores; late
/// removals that arrive after the crash change nothing.
#[test]
fn every_crash_image_keeps_what_was_acknowledged() {
    let start = MemoryBackend::new();
    let shared: Arc<dyn Backend> = Arc::new(start.clone());
    lab::create(&shared, &env(1));
    let crash = CrashBackend::new(start.contents());
    let backend: Arc<dyn Backend> = Arc::new(crash.clone());
    let mut ledger = Ledger::default();
    scenario(&backend, &mut ledger, |text| crash.mark(text)).expect("nothing fails here");
    let images = crash.images();
    assert!(images.len() > 50, "only {} images", images.len());
    for image in &images {
        stillpoint_testkit::with_label(&image.label, || {
            let marked = |verb: &str| -> Vec<String> {
                let texts = image.marks.iter().filter_map(|mark| mark.strip_prefix(verb));
                texts.map(str::to_owned).collect()
            };
            let mut acknowledged = ledger.acknowledged.clone();
            let done = marked("snapshot ");
            acknowledged.retain(|id, _| done.contains(id));
            let forgotten = marked("forget ");
            let survivor: Arc<dyn Backend> = Arc::new(image.backend());
            image.remove_late(&*survivor).expect("memory removes");
            assert_survives(survivor, &acknowledged, &forgotten);
            assert_survives(Arc::new(image.backend()), &acknowledged, &forgotten);
        });
    }
    eprintln!("{} crash images", images.len());
}

/// Whatever call fails, once or for ever, with its effect or without: the error reaches the caller or the work
/// succeeds, and what was acknowledged restores.
#[test]
fn every_failing_call_keeps_what_was_acknowledged() {
    let start = MemoryBackend::new();
    let shared: Arc<dyn Backend> = Arc::new(start.clone());
    lab::create(&shared, &env(1));
    let calls = {
        let faults = FaultBackend::new(Arc::new(MemoryBackend::with_contents(start.contents())));
        let backend: Arc<dyn Backend> = Arc::new(faults.clone());
        scenario(&backend, &mut Ledger::default(), |_| {}).expect("nothing fails here");
        faults.counts().total()
    };
    let mut failed = 0;
    for fault in Fault::every(calls) {
        stillpoint_testkit::with_label(format!("{fault:?}"), || {
            let disk = MemoryBackend::with_contents(start.contents());
            let faults = FaultBackend::new(Arc::new(disk.clone()));
            faults.plan(fault);
            let backend: Arc<dyn Backend> = Arc::new(faults);
            let mut ledger = Ledger::default();
            if let Err(error) = scenario(&backend, &mut ledger, |_| {}) {
                failed += 1;
                let expected = matches!(error, Error::Io { .. });
                assert!(expected, "the storage's error reaches the caller, found: {error}");
            }
            assert_survives(Arc::new(disk), &ledger.acknowledged, &ledger.forgotten);
        });
    }
    assert!(failed > calls, "{failed} of {calls} calls failed the scenario");
    eprintln!("{calls} calls, {failed} failures reached the caller");
}
