//! Repairs of head and catalogue that die, that fail, and that others work beside.

use crate::lab::{self, assert_whole, restore_by_id};
use crate::races::{Meddled, Plan};
use crate::rebuilt_scene::{History, open, options, repair, small, snapshot};
use std::sync::{Arc, Mutex};
use stillpoint_store::backend::{Backend, Contents, MemoryBackend};
use stillpoint_store::{Env, Error, ObjectName, SystemEnv, WriteOptions};
use stillpoint_testkit::{CrashBackend, Fault, FaultBackend, SeededEnv, with_label};

fn env() -> Arc<dyn Env> {
    Arc::new(SystemEnv)
}

/// Damaged repositories: without a head; without the root of the catalogue, without some leaf; without any node.
fn damaged(history: &History) -> Vec<(&'static str, Contents)> {
    let (current, others) = history.nodes();
    let without = |nodes: &[stillpoint_store::NodeId], head: bool| {
        let mut contents = history.contents.clone();
        contents
            .objects
            .retain(|name, _| !nodes.iter().any(|id| *name == ObjectName::Catalogue(*id)));
        if !head {
            contents.head = None;
        }
        contents
    };
    let all: Vec<_> = current.iter().chain(&others).copied().collect();
    vec![
        ("no head", without(&[], false)),
        ("first node", without(&current[..1], true)),
        ("last node", without(&current[current.len() - 1..], true)),
        ("nothing", without(&all, false)),
    ]
}

/// In every image that a crash can leave at any moment of a repair, another one completes it.
#[test]
fn every_crash_image_of_a_repair() {
    let history = History::new(true);
    let mut count = 0;
    for (label, contents) in damaged(&history) {
        let crash = CrashBackend::new(contents);
        let backend: Arc<dyn Backend> = Arc::new(crash.clone());
        let seeded: Arc<dyn Env> = Arc::new(SeededEnv::new(5));
        let report = repair(&lab::open(&backend, &seeded).unwrap());
        assert!(report.plan.catalogue.is_some());
        for image in crash.images() {
            with_label(format!("{label}: {}", image.label), || {
                let disk = image.backend();
                let mut again = repair(&open(&disk));
                // What the first one has written counts for the second, which does not tell it once more.
                let told = report.plan.catalogue.clone().unwrap();
                match &mut again.plan.catalogue {
                    Some(plan) => plan.snapshots_found.extend(told.snapshots_found),
                    None => again.plan.catalogue = Some(told),
                }
                history.assert_kept(&open(&disk), &again);
                assert!(repair(&open(&disk)).plan.is_empty());
            });
            count += 1;
        }
    }
    assert!(count > 20, "{count} images");
}

/// Whatever call of a repair fails, once or for ever, with its effect or without: the error is told or the repair is done,
/// and another repair completes it.
#[test]
fn every_failing_call_of_a_repair() {
    let history = History::new(false);
    for (label, contents) in damaged(&history).into_iter().take(2) {
        let faults = FaultBackend::new(Arc::new(MemoryBackend::with_contents(contents.clone())));
        let backend: Arc<dyn Backend> = Arc::new(faults.clone());
        let opened = lab::open(&backend, &env()).unwrap();
        faults.take_counts();
        repair(&opened);
        let calls = faults.counts().total();
        // Every twenty-third call is enough: the calls of each step are alike.
        for fault in Fault::every(calls) {
            let disk = MemoryBackend::with_contents(contents.clone());
            let faults = FaultBackend::new(Arc::new(disk.clone()));
            let backend: Arc<dyn Backend> = Arc::new(faults.clone());
            if fault.call % 23 != 0 {
                continue;
            }
            with_label(format!("{label}: {fault:?}"), || {
                let opened = lab::open(&backend, &env()).unwrap();
                faults.plan(fault);
                let outcome = opened.repair(&options(), &|_, _| {});
                faults.heal();
                let mut again = repair(&open(&disk));
                let done = outcome.ok().and_then(|report| report.plan.catalogue);
                again.plan.catalogue = again.plan.catalogue.or(done);
                if again.plan.catalogue.is_some() {
                    history.assert_kept(&open(&disk), &again);
                }
                assert!(repair(&open(&disk)).plan.is_empty());
            });
        }
    }
}

/// A session that began before the damage commits after the repair, or says clearly that it cannot; what it says is done
/// restores.
#[test]
fn sessions_from_before() {
    for rotates in [false, true] {
        let history = History::new(rotates);
        for (label, contents) in damaged(&history) {
            with_label(label, || {
                let disk = history.disk();
                let session = open(&disk);
                let write = WriteOptions { threads: 1, ..WriteOptions::default() };
                let writer = session.writer(write.clone()).unwrap();
                let record = lab::fill(&writer, &session, &small(500)).unwrap();
                let second = session.writer(write).unwrap();
                let late = lab::fill(&second, &session, &small(600)).unwrap();
                // The damage happens now, to what was there before.
                for name in history.contents.objects.keys() {
                    if !contents.objects.contains_key(name) {
                        disk.remove(name).unwrap();
                    }
                }
                disk.set_head(contents.head.clone());
                if contents.head.is_none() {
                    assert!(matches!(writer.commit(record), Err(Error::Missing { .. })));
                } else {
                    drop((writer, record));
                }
                let report = repair(&open(&disk));
                let committed = second.commit(late);
                let (id, _) = committed.unwrap();
                let repository = open(&disk);
                assert_eq!(restore_by_id(&repository, id).unwrap(), small(600));
                let expired = repository.head().unwrap();
                assert!(expired.snapshot(id).unwrap().is_some());
                history.assert_restores(&repository);
                assert!(report.plan.catalogue.is_some());
                assert_whole(&repository);
            });
        }
    }
}

/// Another repair is faster: the second finds nothing to do. The same where the answer of the storage is lost.
#[test]
fn two_repairs() {
    let history = History::new(false);
    // Where nothing is left but records, what the first one has written tells the second that nothing is in doubt.
    for (label, contents) in damaged(&history).into_iter().take(3) {
        for answer_lost in [false, true] {
            with_label(label, || {
                let disk = MemoryBackend::with_contents(contents.clone());
                let inner: Arc<dyn Backend> = Arc::new(disk.clone());
                let meddled = Arc::new(Meddled { inner, plan: Mutex::default() });
                let backend: Arc<dyn Backend> = Arc::clone(&meddled) as _;
                let repository = lab::open(&backend, &env()).unwrap();
                let elsewhere = disk.clone();
                let first = Arc::new(Mutex::new(None));
                let told = Arc::clone(&first);
                let deed = move || *told.lock().unwrap() = Some(repair(&open(&elsewhere)));
                let mut plan = Plan { answer_lost, ..Plan::default() };
                match answer_lost {
                    false => plan.before = Some(Box::new(deed)),
                    true => {
                        let follower = disk.clone();
                        plan.after = Some(Box::new(move || {
                            snapshot(&open(&follower), 800).unwrap();
                        }));
                    }
                }
                *meddled.plan.lock().unwrap() = plan;
                let second = repair(&repository);
                assert_eq!(second.plan.catalogue.is_some(), answer_lost);
                let first = first.lock().unwrap().take();
                if let Some(first) = first {
                    history.assert_kept(&repository, &first);
                }
                assert!(repair(&open(&disk)).plan.is_empty());
                assert_whole(&open(&disk));
            });
        }
    }
}

/// A commit between the look and the swap counts: the repair looks again.
#[test]
fn a_commit_in_between_counts() {
    let history = History::new(false);
    let (current, _) = history.nodes();
    let mut commits = 0;
    for id in current {
        let disk = history.disk();
        disk.remove(&ObjectName::Catalogue(id)).unwrap();
        let inner: Arc<dyn Backend> = Arc::new(disk.clone());
        let meddled = Arc::new(Meddled { inner, plan: Mutex::default() });
        let backend: Arc<dyn Backend> = Arc::clone(&meddled) as _;
        let repository = lab::open(&backend, &env()).unwrap();
        let (elsewhere, taken) = (disk.clone(), Arc::new(Mutex::new(None)));
        let told = Arc::clone(&taken);
        // Most of them cannot, because of the damage.
        let deed = move || *told.lock().unwrap() = snapshot(&open(&elsewhere), 555).ok();
        *meddled.plan.lock().unwrap() = Plan { before: Some(Box::new(deed)), ..Plan::default() };
        let report = repair(&repository);
        assert!(report.plan.catalogue.is_some());
        let repository = open(&disk);
        let taken = taken.lock().unwrap().take();
        if let Some(id) = taken {
            commits += 1;
            assert_eq!(restore_by_id(&repository, id).unwrap(), small(555));
        }
        history.assert_restores(&repository);
        assert_whole(&repository);
    }
    eprintln!("{commits} commits got in between");
}

/// A repair dies before its head is there, and the old head turns up again: what it wrote counts for nothing, neither now
/// nor when the head is lost once more.
#[test]
fn a_repair_that_came_to_nothing() {
    let history = History::new(false);
    let (_, contents) = damaged(&history).remove(0);
    let elsewhere = MemoryBackend::with_contents(contents.clone());
    repair(&open(&elsewhere));
    let mut again = history.contents.clone();
    again.objects.extend(elsewhere.contents().objects);
    assert!(again.objects.len() > history.contents.objects.len());
    let disk = MemoryBackend::with_contents(again);
    let ids = [600, 601].map(|step| (snapshot(&open(&disk), step).unwrap(), step));
    assert_whole(&open(&disk));
    assert!(repair(&open(&disk)).plan.is_empty());
    disk.set_head(None);
    let report = repair(&open(&disk));
    history.assert_kept(&open(&disk), &{
        let mut report = report.clone();
        let plan = report.plan.catalogue.as_mut().unwrap();
        assert!(plan.snapshots_found.len() <= 1, "{plan:?}");
        plan.snapshots_found.extend(ids.map(|(id, _)| id));
        report
    });
    for (id, step) in ids {
        assert_eq!(restore_by_id(&open(&disk), id).unwrap(), small(step));
    }
    assert!(repair(&open(&disk)).plan.is_empty());
}
