//! Prunes in batches: limits, interruptions, full disks, and what others do meanwhile.

use crate::crashes::{Ledger, assert_survives, env};
use crate::lab::{self, Files, assert_whole, files, memory, restore_by_id, snapshot};
use crate::rotation::rotate;
use crate::watched::Watched;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stillpoint_store::backend::{Backend, MemoryBackend};
use stillpoint_store::prune::{Class, MaxUnused, PruneOptions, PruneReport, Stop};
use stillpoint_store::{Env, Error, ObjectKind, ObjectName, Repository, Result, SnapshotId};
use stillpoint_store::{PackId, WriteOptions};
use stillpoint_testkit::{CrashBackend, Fault, FaultBackend, SeededEnv, with_label};

/// One pack at a time, everything at once, nothing tolerated.
fn prune_now() -> PruneOptions {
    PruneOptions {
        keep_forgotten: Duration::ZERO,
        grace: Duration::ZERO,
        orphan_grace: Duration::ZERO,
        max_unused: MaxUnused::Bytes(0),
        batch_bytes: 0,
        write: WriteOptions { threads: 1, ..WriteOptions::default() },
        ..PruneOptions::default()
    }
}

/// Snapshots of six small files each, of which one lives on in a last snapshot; gives that one. All packs of data are
/// then partly needed, and nothing else is.
fn sparse(repository: &Arc<Repository>, count: u64) -> (SnapshotId, Files) {
    let each = (0..count).map(|number| short(number * 6..number * 6 + 6));
    let gone: Vec<SnapshotId> = each.map(|files| snapshot(repository, &files).unwrap()).collect();
    let kept = short((0..count).map(|number| number * 6 + 3));
    let keep = snapshot(repository, &kept).unwrap();
    assert_eq!(repository.forget(&gone).unwrap(), gone);
    (keep, kept)
}

fn short(seeds: impl IntoIterator<Item = u64>) -> Files {
    let mut files = files(seeds);
    files.values_mut().for_each(|bytes| bytes.truncate(20_000));
    files
}

fn pack_bytes(backend: &dyn Backend) -> u64 {
    backend.list(ObjectKind::Pack).unwrap().iter().map(|(_, size)| size).sum()
}

fn shares(report: &PruneReport) -> Vec<(Class, u64)> {
    report.explanation.shares.iter().map(|share| (share.class, share.bytes)).collect()
}

fn class_bytes(report: &PruneReport, class: Class) -> u64 {
    shares(report).into_iter().find(|share| share.0 == class).map_or(0, |share| share.1)
}

/// Each batch is a commit of its own, and all of them together do the whole plan.
#[test]
fn rewriting_goes_on_batch_by_batch() {
    for (batch_bytes, batch_chunks, batches) in
        [(0, u64::MAX, 8), (u64::MAX, u64::MAX, 1), (u64::MAX, 3, 3), (u64::MAX, 0, 8)]
    {
        let (backend, env) = memory();
        let repository = lab::create(&backend, &env);
        let (keep, kept) = sparse(&repository, 8);
        let before = pack_bytes(&*backend);
        let options = PruneOptions { batch_bytes, batch_chunks, ..prune_now() };
        let report = repository.prune(&options).unwrap();
        assert_eq!((report.rewritten, report.batches, report.stop), (8, batches, None));
        assert!(pack_bytes(&*backend) * 2 < before);
        assert_eq!(restore_by_id(&repository, keep).unwrap(), kept);
        assert_whole(&repository);
        let again = repository.prune(&prune_now()).unwrap();
        assert_eq!((again.rewritten, again.deleted, again.plan.drop.len()), (0, 0, 0));
    }
}

/// A prune that is interrupted after some batches keeps them, and the next one does the rest and nothing twice.
#[test]
fn an_interrupted_prune_goes_on_where_it_ended() {
    let (inner, env) = memory();
    let repository = lab::create(&inner, &env);
    let (keep, kept) = sparse(&repository, 8);
    let watched = Watched::new(&inner);
    let backend: Arc<dyn Backend> = Arc::new(watched.clone());
    let interrupted = lab::open(&backend, &env).unwrap();
    let cancel = interrupted.cancel().clone();
    // One swap condemns what needs no rewriting, then one for each batch.
    watched.after_each_swap(move |number| {
        if number == 4 {
            cancel.cancel();
        }
    });
    assert!(matches!(interrupted.prune(&prune_now()), Err(Error::Cancelled)));
    assert_eq!(restore_by_id(&repository, keep).unwrap(), kept);
    assert_whole(&repository);
    let report = repository.prune(&prune_now()).unwrap();
    assert_eq!((report.rewritten, report.orphans), (5, 0));
    assert_eq!(restore_by_id(&repository, keep).unwrap(), kept);
    assert_whole(&repository);
}

/// No batch begins when the time is over; the next prune goes on.
#[test]
fn rewriting_ends_with_its_time() {
    let inner: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
    let clock = Arc::new(SeededEnv::new(1));
    let env: Arc<dyn Env> = clock.clone();
    let watched = Watched::new(&inner);
    let backend: Arc<dyn Backend> = Arc::new(watched.clone());
    let repository = lab::create(&backend, &env);
    let (keep, kept) = sparse(&repository, 6);
    watched.after_each_swap(move |_| clock.advance_seconds(10));
    let options = PruneOptions { max_duration: Some(Duration::from_secs(35)), ..prune_now() };
    let report = repository.prune(&options).unwrap();
    assert_eq!((report.rewritten, report.stop.as_ref()), (3, Some(&Stop::TimeOver)));
    assert!(class_bytes(&report, Class::Postponed) > 0);
    assert!(class_bytes(&report, Class::Rewritten) > 0);
    let rest = repository.prune(&prune_now()).unwrap();
    assert_eq!((rest.rewritten, rest.stop), (3, None));
    assert_eq!(restore_by_id(&repository, keep).unwrap(), kept);
    assert_whole(&repository);
}

/// No more is rewritten than was allowed, and the rest is done by the prunes that follow.
#[test]
fn rewriting_keeps_to_its_size() {
    let (backend, env) = memory();
    let repository = lab::create(&backend, &env);
    let (keep, kept) = sparse(&repository, 5);
    let largest = backend.list(ObjectKind::Pack).unwrap().iter().map(|(_, size)| *size).max();
    let options = PruneOptions { max_repack_bytes: largest, ..prune_now() };
    let mut rewritten = 0;
    for _ in 0..5 {
        let report = repository.prune(&options).unwrap();
        assert!(report.rewritten >= 1 && report.rewritten_bytes <= largest.unwrap());
        rewritten += report.rewritten;
        if report.plan.postpone.is_empty() {
            break;
        }
    }
    assert_eq!(rewritten, 5);
    assert_eq!(restore_by_id(&repository, keep).unwrap(), kept);
    assert_whole(&repository);
}

/// On a full disk a snapshot can be forgotten and taken back and forgotten again, and a prune frees space, all by the
/// room that was set aside; only a backup may not use it.
#[test]
fn a_full_disk_can_be_emptied() {
    let (inner, env) = memory();
    let watched = Watched::new(&inner);
    let backend: Arc<dyn Backend> = Arc::new(watched.clone());
    let repository = lab::create(&backend, &env);
    let gone = snapshot(&repository, &files(0..10)).unwrap();
    let keep = snapshot(&repository, &files(20..30)).unwrap();
    repository.prune(&PruneOptions::default()).unwrap();
    let full = watched.fill();
    assert!(snapshot(&repository, &files(40..41)).unwrap_err().is_full());
    assert!(watched.has_reserve());
    assert_eq!(repository.forget(&[gone]).unwrap(), [gone]);
    assert!(!watched.has_reserve());
    watched.fill();
    assert!(repository.undelete(&[gone]).unwrap_err().is_full());
    watched.set_capacity(full);
    assert_eq!(repository.undelete(&[gone]).unwrap(), [gone]);
    assert_eq!(repository.forget(&[gone]).unwrap(), [gone]);
    let report = repository.prune(&prune_now()).unwrap();
    assert_eq!((report.expired, report.deleted, report.stop), (1, 2, None));
    assert!(watched.has_reserve(), "the next full disk can be emptied, too");
    assert_eq!(restore_by_id(&repository, keep).unwrap(), files(20..30));
    assert_whole(&repository);
}

/// Where there is no room to rewrite, the prune says so, leaves nothing behind, and has done the rest.
#[test]
fn a_full_disk_ends_the_rewriting_alone() {
    let (inner, env) = memory();
    let watched = Watched::new(&inner);
    let backend: Arc<dyn Backend> = Arc::new(watched.clone());
    let repository = lab::create(&backend, &env);
    let (keep, kept) = sparse(&repository, 6);
    // What needs no rewriting goes first, so that the rest is what counts.
    repository.prune(&PruneOptions { max_unused: MaxUnused::Unlimited, ..prune_now() }).unwrap();
    let packs = || {
        let mut packs = inner.list(ObjectKind::Pack).unwrap();
        packs.sort_unstable();
        packs
    };
    let before = packs();
    let full = watched.fill();
    for batch_bytes in [0, u64::MAX] {
        let report = repository.prune(&PruneOptions { batch_bytes, ..prune_now() }).unwrap();
        assert!(matches!(report.stop, Some(Stop::DiskFull(_))), "{:?}", report.stop);
        assert_eq!((report.rewritten, report.plan.rewrite.len()), (0, 6));
        assert!(class_bytes(&report, Class::Postponed) > 0);
        assert_eq!(packs(), before);
    }
    // Room for one pack at a time is enough, although the batch asks for more.
    watched.set_capacity(full + 40_000);
    let report = repository.prune(&PruneOptions { batch_bytes: u64::MAX, ..prune_now() }).unwrap();
    assert_eq!((report.rewritten, report.stop), (6, None));
    assert_eq!(restore_by_id(&repository, keep).unwrap(), kept);
    assert_whole(&repository);
}

/// The classes of an explanation add up to the bytes of all packs, whatever the prune may do.
#[test]
fn every_byte_is_explained() {
    let inner: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
    let clock = Arc::new(SeededEnv::new(1));
    let env: Arc<dyn Env> = clock.clone();
    let repository = lab::create(&inner, &env);
    sparse(&repository, 4);
    let waiting = snapshot(&repository, &files(100..104)).unwrap();
    repository.forget(&[waiting]).unwrap();
    let hour = Duration::from_secs(3600);
    let patient = PruneOptions { grace: hour, max_unused: MaxUnused::Unlimited, ..prune_now() };
    repository.prune(&patient).unwrap();
    let held = snapshot(&repository, &files(200..203)).unwrap();
    repository.forget(&[held]).unwrap();
    let writer = repository.writer(WriteOptions::default()).unwrap();
    lab::fill(&writer, &repository, &files(300..303)).unwrap();
    let all = pack_bytes(&*inner);
    for (options, classes) in [
        (
            PruneOptions { keep_forgotten: hour, ..patient.clone() },
            vec![Class::Needed, Class::Held, Class::Tolerated, Class::Waiting],
        ),
        (
            PruneOptions { grace: hour, ..prune_now() },
            vec![Class::Needed, Class::Rewritten, Class::Unneeded, Class::Waiting],
        ),
        (
            PruneOptions { max_repack_bytes: Some(0), ..prune_now() },
            vec![Class::Needed, Class::Postponed, Class::Unneeded, Class::Deletable],
        ),
    ] {
        let options = PruneOptions { dry_run: true, explain_packs: true, ..options };
        let report = repository.prune(&options).unwrap();
        let shares = shares(&report);
        assert_eq!(shares.iter().map(|share| share.0).collect::<Vec<_>>(), classes);
        assert_eq!(shares.iter().map(|share| share.1).sum::<u64>(), all);
        let lines: u64 = report.explanation.packs.iter().map(|line| line.size_bytes).sum();
        assert_eq!(lines, all);
        assert_eq!(pack_bytes(&*inner), all, "a dry run changes nothing");
    }
}

/// A prune that loses its race to a snapshot of data that it was about to drop keeps that data, and looks at what
/// changed alone: packs that are kept are not read again.
#[test]
fn a_lost_race_looks_at_what_changed() {
    let (inner, env) = memory();
    let watched = Watched::new(&inner);
    let backend: Arc<dyn Backend> = Arc::new(watched.clone());
    let repository = lab::create(&backend, &env);
    for number in 0..30 {
        snapshot(&repository, &short(number * 3..number * 3 + 3)).unwrap();
    }
    let (gone, other) = (short(500..505), short(510..515));
    let ids = [snapshot(&repository, &gone).unwrap(), snapshot(&repository, &other).unwrap()];
    // Another session has found the data before it was forgotten.
    let session = lab::open(&inner, &env).unwrap();
    let writer = session.writer(WriteOptions::default()).unwrap();
    let record = lab::fill(&writer, &session, &gone).unwrap();
    repository.forget(&ids).unwrap();
    let back = Arc::new(Mutex::new(None));
    let (slot, counts) = (Arc::clone(&back), watched.clone());
    watched.before_next_swap(move || {
        *slot.lock().unwrap() = Some(writer.commit(record).unwrap().0);
        counts.take_pack_reads();
    });
    let report = repository.prune(&prune_now()).unwrap();
    let read = watched.take_pack_reads();
    assert_eq!(report.plan.drop.len(), 4);
    assert_eq!(report.deleted, 2, "the packs of one snapshot are needed again");
    assert!(read.len() <= 6, "{} packs were read again", read.len());
    let back = back.lock().unwrap().expect("the other session committed");
    assert_eq!(restore_by_id(&repository, back).unwrap(), gone);
    assert_eq!(repository.snapshots().unwrap().len(), 31);
    assert_whole(&repository);
}

/// Two prunes with different views of who should hold a chunk: the one that comes second does not drop the copy on
/// which the first relies now.
#[test]
fn prunes_agree_on_who_holds_a_chunk() {
    for grace in [Duration::ZERO, Duration::from_secs(3600)] {
        let (inner, env) = memory();
        let watched = Watched::new(&inner);
        let backend: Arc<dyn Backend> = Arc::new(watched.clone());
        let repository = lab::create(&backend, &env);
        let shared = short([7]);
        let mut many = short(100..120);
        let mut few = short(200..203);
        many.extend(shared.clone());
        few.extend(shared.clone());
        // Both sessions store the shared chunk, because neither sees the other.
        let sessions = [lab::open(&inner, &env).unwrap(), lab::open(&inner, &env).unwrap()];
        let writers = sessions.each_ref().map(|one| one.writer(WriteOptions::default()).unwrap());
        let records = [(0, &many), (1, &few)]
            .map(|(at, files)| lab::fill(&writers[at], &sessions[at], files).unwrap());
        let ids: Vec<SnapshotId> = writers
            .into_iter()
            .zip(records)
            .map(|(writer, record)| writer.commit(record).unwrap().0)
            .collect();
        let keep = snapshot(&repository, &shared).unwrap();
        repository.forget(&ids[1..]).unwrap();
        let other = lab::open(&inner, &env).unwrap();
        watched.before_next_swap(move || {
            other.forget(&ids[..1]).unwrap();
            // The small pack stays, because now it is fuller of what is needed than the large one.
            let max_unused = MaxUnused::Unlimited;
            let options = PruneOptions { grace, max_unused, ..prune_now() };
            let plan = other.prune(&options).unwrap().plan;
            assert_eq!((plan.drop.len(), plan.tolerate.len()), (3, 1));
        });
        repository.prune(&PruneOptions { grace, ..prune_now() }).unwrap();
        assert_eq!(restore_by_id(&repository, keep).unwrap(), shared);
        assert_whole(&repository);
        repository.prune(&prune_now()).unwrap();
        assert_whole(&repository);
        assert_eq!(restore_by_id(&lab::open(&inner, &env).unwrap(), keep).unwrap(), shared);
    }
}

/// After a rotation of the keys everything that older keys seal is written anew, if that is asked for.
#[test]
fn resealing_rewrites_what_older_keys_seal() {
    let (backend, env) = memory();
    let old = lab::create(&backend, &env);
    let ids = [0, 10, 20].map(|first| snapshot(&old, &short(first..first + 10)).unwrap());
    let repository = rotate(&old, &lab::secret()).unwrap().repository;
    let outdated = || {
        let view = repository.head().unwrap();
        view.packs().unwrap().values().filter(|entry| repository.is_outdated(entry)).count()
    };
    assert_eq!((outdated(), repository.prune(&prune_now()).unwrap().rewritten), (6, 0));
    let limited = PruneOptions { reseal: true, max_repack_bytes: Some(150_000), ..prune_now() };
    let some = repository.prune(&limited).unwrap().rewritten;
    assert!(some > 0 && some < 6, "{some} of 6 packs");
    repository.prune(&PruneOptions { reseal: true, ..prune_now() }).unwrap();
    assert_eq!(outdated(), 0);
    for (id, first) in ids.into_iter().zip([0, 10, 20]) {
        assert_eq!(restore_by_id(&repository, id).unwrap(), short(first..first + 10));
    }
    assert_whole(&lab::open(&backend, &env).unwrap());
}

/// A pack that cannot be read is not rewritten and stays; the others are, and the damage is named.
#[test]
fn a_damaged_pack_is_left_alone() {
    let disk = MemoryBackend::new();
    let (backend, env): (Arc<dyn Backend>, _) = (Arc::new(disk.clone()), memory().1);
    let repository = lab::create(&backend, &env);
    sparse(&repository, 5);
    let plan = repository.prune(&PruneOptions { dry_run: true, ..prune_now() }).unwrap().plan;
    let hurt: PackId = plan.rewrite[2];
    assert!(disk.damage(&ObjectName::Pack(hurt), |bytes| bytes[200..60_000].fill(0)));
    let report = repository.prune(&prune_now()).unwrap();
    assert_eq!((report.rewritten, report.damaged.len()), (4, 1));
    assert!(report.damaged[0].contains(&hurt.to_string()), "{:?}", report.damaged);
    assert!(repository.head().unwrap().packs().unwrap().contains_key(&hurt));
}

/// Prunes, writers, a forgetter and readers at once: nobody fails, and what is live restores.
#[test]
fn prunes_beside_everybody() {
    let (backend, env) = memory();
    lab::create(&backend, &env);
    let options = PruneOptions { orphan_grace: Duration::from_secs(3600), ..prune_now() };
    let done = AtomicBool::new(false);
    let kept: Vec<(SnapshotId, Files)> = std::thread::scope(|scope| {
        let open = || lab::open(&backend, &env).unwrap();
        for _ in 0..2 {
            let (repository, options, done) = (open(), &options, &done);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    repository.prune(options).unwrap();
                }
            });
        }
        let writers: Vec<_> = (0..3u64)
            .map(|number| {
                let repository = open();
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for round in 0..8u64 {
                        let first = number * 100 + round * 2;
                        let expected = short(first..first + 9);
                        match snapshot(&repository, &expected) {
                            Ok(id) if round % 3 == 0 => kept.push((id, expected)),
                            Ok(id) => {
                                assert_eq!(restore_by_id(&repository, id).unwrap(), expected);
                                repository.forget(&[id]).unwrap();
                            }
                            // Without any grace what it relied on may be gone; then it says so.
                            Err(error) => {
                                assert!(matches!(error, Error::Conflict { .. }), "{error}")
                            }
                        }
                    }
                    kept
                })
            })
            .collect();
        let kept = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        done.store(true, Ordering::SeqCst);
        kept
    });
    assert!(!kept.is_empty());
    let repository = lab::open(&backend, &env).unwrap();
    for (id, expected) in &kept {
        assert_eq!(restore_by_id(&repository, *id).unwrap(), *expected);
    }
    assert_whole(&repository);
    assert_eq!(repository.snapshots().unwrap().len(), kept.len());
}

/// Forgotten snapshots expire, packs are dropped, others are rewritten one by one.
fn scenario(backend: &Arc<dyn Backend>) -> Result<PruneReport> {
    lab::open(backend, &env(2))?.prune(&prune_now())
}

/// A repository for [`scenario`], what must survive it, and what may go.
fn ready() -> (MemoryBackend, Ledger) {
    let start = MemoryBackend::new();
    let shared: Arc<dyn Backend> = Arc::new(start.clone());
    let repository = lab::create(&shared, &env(1));
    let tiny = |seeds: &[u64]| {
        let mut files = files(seeds.iter().copied());
        files.values_mut().for_each(|bytes| bytes.truncate(500));
        files
    };
    let mut ledger = Ledger::default();
    let mut gone = Vec::new();
    for seeds in [[2, 4], [6, 8], [10, 12]] {
        gone.push(snapshot(&repository, &tiny(&seeds)).unwrap());
    }
    let kept = tiny(&[2, 6]);
    let keep = snapshot(&repository, &kept).unwrap();
    ledger.acknowledged.insert(keep.to_string(), kept);
    repository.forget(&gone).unwrap();
    (start, ledger)
}

/// In every image that a crash could leave of a prune in several batches, what is live restores and the next prune
/// ends what this one began; removals that arrive late change nothing.
#[test]
fn every_crash_image_of_a_prune_is_whole() {
    let (start, ledger) = ready();
    let crash = CrashBackend::new(start.contents());
    let backend: Arc<dyn Backend> = Arc::new(crash.clone());
    let report = scenario(&backend).unwrap();
    assert_eq!((report.expired, report.batches), (3, 2));
    let images = crash.images();
    assert!(images.len() > 60, "only {} images", images.len());
    for image in &images {
        with_label(&image.label, || {
            let survivor: Arc<dyn Backend> = Arc::new(image.backend());
            image.remove_late(&*survivor).unwrap();
            assert_survives(survivor, &ledger.acknowledged, &[]);
            assert_survives(Arc::new(image.backend()), &ledger.acknowledged, &[]);
        });
    }
    eprintln!("{} crash images", images.len());
}

/// Whatever call of the storage fails, once or for ever, with its effect or without: the prune says so or does its
/// work, and what is live restores.
#[test]
fn every_failing_call_of_a_prune_is_survived() {
    let (start, ledger) = ready();
    let calls = {
        let faults = FaultBackend::new(Arc::new(MemoryBackend::with_contents(start.contents())));
        let backend: Arc<dyn Backend> = Arc::new(faults.clone());
        scenario(&backend).unwrap();
        faults.counts().total()
    };
    let mut failed = 0;
    for fault in Fault::every(calls) {
        with_label(format!("{fault:?}"), || {
            let disk = MemoryBackend::with_contents(start.contents());
            let faults = FaultBackend::new(Arc::new(disk.clone()));
            faults.plan(fault);
            let backend: Arc<dyn Backend> = Arc::new(faults);
            if let Err(error) = scenario(&backend) {
                failed += 1;
                assert!(matches!(error, Error::Io { .. }), "found: {error}");
            }
            assert_survives(Arc::new(disk), &ledger.acknowledged, &[]);
        });
    }
    assert!(failed > calls, "{failed} of {calls} calls failed the prune");
    eprintln!("{calls} calls, {failed} failures reached the caller");
}
