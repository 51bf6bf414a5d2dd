//! Parity in whole repositories: what is lost comes back byte for byte, whatever happens while it is added.

use crate::lab::{self, assert_whole, files, memory, restore_by_id, snapshot};
use crate::races::{Deed, Meddled, Plan};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stillpoint_store::backend::{Backend, Contents, LocalBackend, MemoryBackend, read_whole};
use stillpoint_store::parity::{ParityOptions, ParityRemoval, ParityReport, ParityStatus};
use stillpoint_store::prune::{MaxUnused, PruneOptions};
use stillpoint_store::{
    Env, Error, ObjectKind, ObjectName, PackId, Repository, Result, SnapshotId, SystemEnv,
};
use stillpoint_testkit::{CrashBackend, Fault, FaultBackend, SeededEnv, with_label};

const LIMIT: usize = 64 << 20;

fn options(data: usize, parity: usize) -> ParityOptions {
    ParityOptions { data, parity, ..ParityOptions::default() }
}

fn add(repository: &Arc<Repository>, options: &ParityOptions) -> Result<ParityReport> {
    repository.add_parity(options, &|_, _| {})
}

/// Asserts that every live pack is covered and every parity object is what was committed.
#[track_caller]
fn assert_covered(repository: &Arc<Repository>, losses: u64) -> ParityStatus {
    let status = repository.parity_status().unwrap();
    assert_eq!(status.uncovered, [], "{status:?}");
    for group in &status.groups {
        assert!(group.survives.is_some_and(|survives| survives >= losses), "{group:?}");
    }
    assert_sound(repository);
    status
}

/// Asserts that every parity object of a complete group is what was committed.
#[track_caller]
fn assert_sound(repository: &Arc<Repository>) {
    let check = repository.verify_parity(true, &|_, _| {}).unwrap();
    assert_eq!(check.findings, []);
}

fn names(backend: &Arc<dyn Backend>, kind: ObjectKind) -> Vec<ObjectName> {
    let mut names: Vec<_> = backend.list(kind).unwrap().into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names
}

fn pack_of(name: ObjectName) -> PackId {
    let ObjectName::Pack(id) = name else { panic!("{name} is no pack") };
    id
}

fn bytes(backend: &Arc<dyn Backend>, name: &ObjectName) -> Vec<u8> {
    read_whole(&**backend, name, LIMIT).unwrap().to_vec()
}

/// A repository of some snapshots, each with a pack of data and one of nodes.
fn filled(snapshots: u64) -> (MemoryBackend, Arc<dyn Backend>, Arc<Repository>, Vec<SnapshotId>) {
    let memory = MemoryBackend::new();
    let backend: Arc<dyn Backend> = Arc::new(memory.clone());
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    let repository = lab::create(&backend, &env);
    let ids = (0..snapshots)
        .map(|step| snapshot(&repository, &files(step * 4..step * 4 + 3)).unwrap())
        .collect();
    (memory, backend, repository, ids)
}

/// Adding covers what is not covered; adding again changes nothing; packs that come later get groups of their own.
#[test]
fn adding_covers_what_is_new() {
    let (_, backend, repository, ids) = filled(6);
    let plan = add(&repository, &ParityOptions { dry_run: true, ..options(5, 2) }).unwrap().plan;
    assert_eq!(plan.form.len(), 3);
    assert_eq!(names(&backend, ObjectKind::Parity), [], "a dry run writes nothing");
    let seen = Mutex::new(Vec::new());
    let report = repository
        .add_parity(&options(5, 2), &|done, all| seen.lock().unwrap().push((done, all)))
        .unwrap();
    assert_eq!((report.groups, report.packs, report.plan), (3, 12, plan.clone()));
    assert_eq!(*seen.lock().unwrap(), [(5, 12), (10, 12), (12, 12)]);
    assert_eq!(report.parity_bytes, plan.form.iter().map(|group| group.parity_bytes).sum::<u64>());
    let status = assert_covered(&repository, 2);
    assert_eq!(status.covered_packs, 12);
    assert_eq!(names(&backend, ObjectKind::Parity).len(), 6);

    let seq = repository.head().unwrap().seq();
    let again = add(&repository, &options(5, 2)).unwrap();
    assert_eq!((again.groups, again.plan.form.len(), again.dissolved), (0, 0, 0));
    assert_eq!(repository.head().unwrap().seq(), seq, "nothing was committed");

    snapshot(&repository, &files(100..103)).unwrap();
    assert_eq!(repository.parity_status().unwrap().uncovered.len(), 2);
    let more = add(&repository, &options(5, 2)).unwrap();
    assert_eq!((more.groups, more.packs), (1, 2));
    assert_covered(&repository, 2);

    // Twelve packs in groups of 5, 5, 2 and 2 more in a group of their own: two small ones become one.
    let regroup = ParityOptions { regroup: true, ..options(5, 2) };
    let report = add(&repository, &regroup).unwrap();
    assert_eq!((report.groups, report.packs, report.dissolved), (1, 4, 2));
    let status = assert_covered(&repository, 2);
    assert_eq!(status.groups.iter().map(|group| group.packs).sum::<u64>(), 14);
    assert_eq!(names(&backend, ObjectKind::Parity).len(), 6);
    assert_eq!(add(&repository, &regroup).unwrap().groups, 0);
    for (step, id) in (0..).zip(ids) {
        assert_eq!(restore_by_id(&repository, id).unwrap(), files(step * 4..step * 4 + 3));
    }
    assert_whole(&repository);
}

/// Impossible sizes of groups are refused before anything happens.
#[test]
fn impossible_groups_are_refused() {
    let (backend, env) = memory();
    let repository = lab::create(&backend, &env);
    for (data, parity) in [(0, 2), (129, 2), (10, 0), (10, 33)] {
        let error = add(&repository, &options(data, parity)).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error}");
    }
    assert_eq!(add(&repository, &options(128, 32)).unwrap().groups, 0, "an empty repository");
}

/// Every way to lose or damage any two objects of a group of five packs heals byte for byte, through the whole stack.
#[test]
fn any_two_losses_heal() {
    let (memory, backend, repository, _) = filled(2);
    snapshot(&repository, &files([900])).unwrap();
    add(&repository, &options(6, 2)).unwrap();
    let status = assert_covered(&repository, 2);
    let group = status.groups[0].id;
    let good = memory.contents();
    let objects: Vec<_> =
        [names(&backend, ObjectKind::Pack), names(&backend, ObjectKind::Parity)].concat();
    assert_eq!(objects.len(), 8);
    type Damage = (&'static str, fn(&MemoryBackend, &ObjectName));
    let damages: [Damage; 4] = [
        ("lost", |memory, name| memory.remove(name).unwrap()),
        ("flipped", |memory, name| assert!(memory.damage(name, |bytes| bytes[7] ^= 1))),
        ("cut", |memory, name| assert!(memory.damage(name, |bytes| bytes.truncate(9)))),
        ("longer", |memory, name| assert!(memory.damage(name, |bytes| bytes.push(0)))),
    ];
    for (first, one) in objects.iter().enumerate() {
        for two in objects.iter().skip(first) {
            for (what, damage) in &damages {
                with_label(format_args!("{one} and {two} {what}"), || {
                    damage(&memory, one);
                    if one != two {
                        damage(&memory, two);
                    }
                    assert_heals(&repository, [one, two], group);
                    assert!(memory.contents() == good, "byte for byte");
                });
            }
        }
    }
    assert_whole(&repository);
}

#[track_caller]
fn assert_heals(
    repository: &Arc<Repository>,
    objects: [&ObjectName; 2],
    group: stillpoint_store::id::GroupId,
) {
    for name in objects {
        if let ObjectName::Pack(pack) = name {
            let healed = repository.heal_pack(*pack).unwrap().expect("a group covers it");
            assert_eq!(healed.group, group);
        }
    }
    let check = repository.verify_parity(true, &|_, _| {}).unwrap();
    let parities = objects.iter().any(|name| matches!(name, ObjectName::Parity(_)));
    assert_eq!(check.damaged_groups, if parities { vec![group] } else { vec![] });
    repository.heal_parity(group).unwrap();
}

/// One loss too many: the error says what is missing, and nothing is changed. An intact pack is left as it is; a pack
/// that no group covers is nobody's to heal.
#[test]
fn too_many_losses_change_nothing() {
    let (memory, backend, repository, _) = filled(2);
    add(&repository, &options(4, 2)).unwrap();
    let packs = names(&backend, ObjectKind::Pack);
    let intact = repository.heal_pack(pack_of(packs[0])).unwrap().unwrap();
    assert_eq!((intact.computed, intact.is_replaced), (0, false));
    packs[..3].iter().for_each(|name| {
        assert!(memory.damage(name, |bytes| bytes[100] ^= 1));
    });
    let damaged = memory.contents();
    for name in &packs[..3] {
        let error = repository.heal_pack(pack_of(*name)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&name.path()) && text.contains("3 intact parts of 6"), "{text}");
    }
    assert!(memory.contents() == damaged);
    let status = repository.parity_status().unwrap();
    assert_eq!(status.groups[0].survives, Some(2), "flips are not seen without reading");
    packs[..3].iter().for_each(|name| memory.remove(name).unwrap());
    let status = repository.parity_status().unwrap();
    assert_eq!((status.groups[0].survives, status.groups[0].lost.len()), (None, 3));
    assert_eq!(status.covered_packs, 0);
    snapshot(&repository, &files(50..52)).unwrap();
    let new: Vec<_> = names(&backend, ObjectKind::Pack)
        .into_iter()
        .filter(|name| !packs.contains(name))
        .collect();
    memory.remove(&new[0]).unwrap();
    assert_eq!(repository.heal_pack(pack_of(new[0])).unwrap(), None);
    assert_eq!(repository.heal_pack(PackId::from_bytes([1; 16])).unwrap(), None);
}

/// Damaged packs get no parity and are named; all others do. Once they are whole again they are covered like others.
#[test]
fn damaged_packs_are_left_out() {
    let (memory, backend, repository, _) = filled(3);
    let packs = names(&backend, ObjectKind::Pack);
    let good = bytes(&backend, &packs[1]);
    assert!(memory.damage(&packs[1], |bytes| bytes[50] ^= 1));
    let lost = bytes(&backend, &packs[4]);
    memory.remove(&packs[4]).unwrap();
    let report = add(&repository, &options(4, 1)).unwrap();
    let mut named: Vec<_> = report.findings.iter().map(|found| found.object.unwrap()).collect();
    named.sort_unstable();
    assert_eq!(named, [packs[1], packs[4]]);
    assert_eq!(report.packs, 4);
    let status = repository.parity_status().unwrap();
    assert_eq!(status.uncovered, [pack_of(packs[1]), pack_of(packs[4])]);
    assert!(memory.damage(&packs[1], |bytes| *bytes = good));
    stillpoint_store::backend::put(&*backend, &packs[4], &lost).unwrap();
    assert_eq!(add(&repository, &options(4, 1)).unwrap().packs, 2);
    let status = assert_covered(&repository, 1);
    assert_eq!(names(&backend, ObjectKind::Parity).len(), status.groups.len());
}

/// Giving groups up removes their objects; what others hold stays.
#[test]
fn groups_are_given_up() {
    let (_, backend, repository, _) = filled(3);
    add(&repository, &options(2, 2)).unwrap();
    let status = repository.parity_status().unwrap();
    assert_eq!(status.groups.len(), 3);
    let one = ParityRemoval::Groups(vec![status.groups[1].id]);
    let would = repository.remove_parity(&one, true).unwrap();
    assert_eq!(names(&backend, ObjectKind::Parity).len(), 6);
    let done = repository.remove_parity(&one, false).unwrap();
    assert_eq!((done, done.groups, done.objects), (would, 1, 2));
    assert_eq!(done.bytes, status.groups[1].parity_bytes);
    assert_sound(&repository);
    assert_eq!(repository.remove_parity(&ParityRemoval::Spent, false).unwrap().groups, 0);
    assert_eq!(repository.remove_parity(&ParityRemoval::All, false).unwrap().groups, 2);
    assert_eq!(names(&backend, ObjectKind::Parity), []);
    assert_eq!(add(&repository, &options(2, 2)).unwrap().groups, 3);
    assert_covered(&repository, 2);
    assert_whole(&repository);
}

fn prune(grace: Duration) -> PruneOptions {
    PruneOptions {
        keep_forgotten: Duration::ZERO,
        grace,
        orphan_grace: Duration::ZERO,
        max_unused: MaxUnused::Bytes(0),
        ..PruneOptions::default()
    }
}

/// A condemned pack still helps to heal; a deleted one is a loss; a group that can heal nothing any more goes.
#[test]
fn groups_follow_a_prune() {
    let (memory, backend, repository, ids) = filled(4);
    add(&repository, &options(4, 2)).unwrap();
    assert_eq!(repository.parity_status().unwrap().groups.len(), 2);
    repository.forget(&ids[..2]).unwrap();
    repository.prune(&prune(Duration::from_secs(3600))).unwrap();
    let condemned = repository.head().unwrap().tombstones().unwrap().len();
    assert!(condemned >= 4, "{condemned} packs are condemned");
    let live: Vec<PackId> = repository.head().unwrap().packs().unwrap().keys().copied().collect();
    let covered: Vec<PackId> = live
        .iter()
        .copied()
        .filter(|pack| !repository.parity_status().unwrap().uncovered.contains(pack))
        .collect();
    assert!(!covered.is_empty());
    for pack in &covered {
        let name = ObjectName::Pack(*pack);
        let good = bytes(&backend, &name);
        memory.remove(&name).unwrap();
        assert!(repository.heal_pack(*pack).unwrap().unwrap().is_replaced);
        assert!(bytes(&backend, &name) == good);
    }
    repository.prune(&prune(Duration::ZERO)).unwrap();
    assert_eq!(repository.spent_parity(&repository.head().unwrap()).unwrap(), []);
    for group in repository.parity_status().unwrap().groups {
        assert!(group.survives.is_some_and(|survives| survives > 0), "{group:?}");
    }
    let named = 2 * repository.parity_status().unwrap().groups.len();
    assert_eq!(names(&backend, ObjectKind::Parity).len(), named);
    let regroup = ParityOptions { regroup: true, ..options(4, 2) };
    add(&repository, &regroup).unwrap();
    assert_covered(&repository, 2);
    assert_whole(&repository);
}

/// Another run begins while one is at work: it takes over what is not complete, both end, and everything is covered
/// once. The same with a run that gives everything up meanwhile.
#[test]
fn runs_beside_each_other() {
    for interference in ["add", "remove", "tidy", "snapshot", "prune"] {
        with_label(interference, || {
            let (_, backend, repository, ids) = filled(5);
            let other = lab::open(&backend, &(Arc::new(SystemEnv) as Arc<dyn Env>)).unwrap();
            let once = AtomicBool::new(false);
            let meddle = |_, _| {
                if once.swap(true, Ordering::SeqCst) {
                    return;
                }
                match interference {
                    "add" => assert!(add(&other, &options(2, 1)).unwrap().groups > 0),
                    "remove" => {
                        other.remove_parity(&ParityRemoval::All, false).unwrap();
                    }
                    "tidy" => assert_eq!(other.tidy_parity().unwrap().groups, 0),
                    "snapshot" => {
                        snapshot(&other, &files(70..73)).unwrap();
                    }
                    _ => {
                        other.forget(&ids[..2]).unwrap();
                        other.prune(&prune(Duration::ZERO)).unwrap();
                    }
                }
            };
            let report = repository.add_parity(&options(2, 1), &meddle).unwrap();
            assert_eq!(
                report.overtaken > 0,
                matches!(interference, "add" | "remove"),
                "{report:?}"
            );
            let status = repository.parity_status().unwrap();
            assert_eq!(status.uncovered, [], "{interference}: {status:?}");
            assert_covered(&repository, 1);
            let members: u64 = status.groups.iter().map(|group| group.live_packs).sum();
            assert_eq!(members, status.covered_packs, "no pack is covered twice");
            assert_eq!(names(&backend, ObjectKind::Parity).len(), status.groups.len());
            assert_whole(&repository);
        });
    }
}

/// Others act when the objects of a group are written and it is not complete yet; its own answer may be lost as well.
#[test]
fn others_act_before_a_group_is_complete() {
    for (interference, answer_lost) in ["nothing", "tidy", "remove", "add", "snapshot"]
        .into_iter()
        .flat_map(|i| [(i, false), (i, true)])
    {
        with_label(format_args!("{interference}, answer lost: {answer_lost}"), || {
            let (_, inner, repository, _) = filled(3);
            let meddled = Arc::new(Meddled { inner: inner.clone(), plan: Mutex::default() });
            let backend: Arc<dyn Backend> = meddled.clone();
            let env: Arc<dyn Env> = Arc::new(SystemEnv);
            let mine = lab::open(&backend, &env).unwrap();
            let (other, listing) = (Arc::clone(&repository), inner.clone());
            let deed: Deed = Box::new(move || {
                let written = names(&listing, ObjectKind::Parity).len();
                assert_eq!(written, 2, "the first group is written");
                match interference {
                    "tidy" => assert_eq!(other.tidy_parity().unwrap().objects, 0),
                    "remove" => {
                        let removed = other.remove_parity(&ParityRemoval::All, false).unwrap();
                        assert_eq!((removed.groups, removed.objects), (2, 2));
                    }
                    "add" => assert_eq!(add(&other, &options(3, 1)).unwrap().groups, 2),
                    "snapshot" => drop(snapshot(&other, &files(30..32)).unwrap()),
                    _ => {}
                }
            });
            let second = meddled.clone();
            *meddled.plan.lock().unwrap() = Plan {
                before: Some(Box::new(move || {
                    *second.plan.lock().unwrap() =
                        Plan { before: Some(deed), answer_lost, ..Plan::default() };
                })),
                ..Plan::default()
            };
            let report = add(&mine, &options(3, 2)).unwrap();
            let taken = matches!(interference, "remove" | "add");
            assert_eq!(report.overtaken, if taken { 2 } else { 0 }, "{report:?}");
            assert_eq!(
                report.packs,
                match interference {
                    "add" => 0,
                    "snapshot" => 8,
                    _ => 6,
                }
            );
            let status = assert_covered(&repository, 1);
            let named: u64 = status.groups.iter().map(|group| group.parity).sum();
            assert_eq!(names(&inner, ObjectKind::Parity).len() as u64, named);
            assert_whole(&repository);
        });
    }
}

/// Adders, backups, prunes and removals at once, in threads: nobody fails, and whatever is complete is sound.
#[test]
fn everybody_at_once() {
    let (_, backend, repository, _) = filled(3);
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    std::thread::scope(|scope| {
        for worker in 0..4u64 {
            let mine = lab::open(&backend, &env).unwrap();
            scope.spawn(move || {
                for round in 0..6 {
                    match worker {
                        0 => drop(add(&mine, &options(2, 1)).unwrap()),
                        1 => {
                            let seed = 1000 + worker * 100 + round * 3;
                            match snapshot(&mine, &files(seed..seed + 2)) {
                                Ok(id) if round % 2 == 0 => drop(mine.forget(&[id]).unwrap()),
                                // A prune without grace may take what a backup relies on, and says so.
                                Ok(_) | Err(Error::Conflict { .. }) => {}
                                Err(error) => panic!("{error}"),
                            }
                        }
                        2 => {
                            mine.prune(&prune(Duration::ZERO)).unwrap();
                        }
                        _ => {
                            let regroup = ParityOptions { regroup: true, ..options(3, 1) };
                            add(&mine, &regroup).unwrap();
                        }
                    }
                }
            });
        }
    });
    assert_sound(&repository);
    add(&repository, &options(3, 1)).unwrap();
    repository.tidy_parity().unwrap();
    let status = assert_covered(&repository, 1);
    assert_eq!(names(&backend, ObjectKind::Parity).len(), status.groups.len());
    assert_whole(&repository);
}

/// A repository in memory with deterministic bytes, for crashes and faults.
fn start() -> Contents {
    let memory = MemoryBackend::new();
    let backend: Arc<dyn Backend> = Arc::new(memory.clone());
    let repository = lab::create(&backend, &env(1));
    for step in 0..3 {
        let mut files = files([2 + step, 4]);
        files.values_mut().for_each(|bytes| bytes.truncate(3000));
        snapshot(&repository, &files).unwrap();
    }
    memory.contents()
}

fn env(seed: u64) -> Arc<dyn Env> {
    Arc::new(SeededEnv::new(seed))
}

/// Adds parity to half of the packs, gives a group up, heals a lost pack, and adds the rest.
fn scenario(backend: &Arc<dyn Backend>, mut note: impl FnMut(&str)) -> Result<()> {
    let repository = lab::open(backend, &env(2))?;
    let report = add(&repository, &options(2, 2))?;
    note("added");
    if let Some(found) = report.findings.first() {
        // A read that fails is a pack that cannot be covered now; the others are.
        return Err(Error::damaged("pack", &found.detail));
    }
    let status = repository.parity_status()?;
    let gone = ParityRemoval::Groups(vec![status.groups[0].id]);
    repository.remove_parity(&gone, false)?;
    note("removed");
    let kept = status.groups[1].id;
    let pack = repository.head()?.parity_group(kept)?.expect("it was not given up").members[0];
    backend.remove(&ObjectName::Pack(pack))?;
    repository.heal_pack(pack)?.expect("a group covers it");
    note("healed");
    add(&repository, &options(3, 1))?;
    note("all");
    Ok(())
}

/// Whatever state is found: complete groups are sound, another run covers everything, and then any pack heals.
fn assert_survives(memory: &MemoryBackend, packs: &BTreeMap<ObjectName, Vec<u8>>) {
    let backend: Arc<dyn Backend> = Arc::new(memory.clone());
    let repository = lab::open(&backend, &env(3)).unwrap();
    assert_sound(&repository);
    // The pack that the scenario loses may be lost in this image: then its group gives it back.
    for name in packs.keys().filter(|name| backend.size_bytes(name).unwrap().is_none()) {
        repository.heal_pack(pack_of(*name)).unwrap().expect("its group is complete");
    }
    let report = add(&repository, &options(2, 1)).unwrap();
    assert_eq!(report.findings, []);
    let status = assert_covered(&repository, 1);
    let named: u64 = status.groups.iter().map(|group| group.parity).sum();
    assert_eq!(names(&backend, ObjectKind::Parity).len() as u64, named, "nothing is left behind");
    for (name, good) in packs {
        assert!(bytes(&backend, name) == *good, "{name} is what it always was");
    }
    let (name, good) = packs.iter().next().unwrap();
    memory.remove(name).unwrap();
    repository.heal_pack(pack_of(*name)).unwrap().expect("it is covered");
    assert!(bytes(&backend, name) == *good);
    assert_whole(&repository);
}

fn packs_of(start: &Contents) -> BTreeMap<ObjectName, Vec<u8>> {
    let packs = start.objects.iter().filter(|(name, _)| name.kind() == ObjectKind::Pack);
    packs.map(|(name, bytes)| (*name, bytes.to_vec())).collect()
}

/// In every image that a crash could leave, complete groups are sound and the next run covers everything; removals
/// that arrive late change nothing.
#[test]
fn every_crash_image_is_sound() {
    let start = start();
    let packs = packs_of(&start);
    let crash = CrashBackend::new(start);
    let backend: Arc<dyn Backend> = Arc::new(crash.clone());
    scenario(&backend, |text| crash.mark(text)).unwrap();
    let images = crash.images();
    assert!(images.len() > 50, "only {} images", images.len());
    for image in &images {
        with_label(&image.label, || {
            assert_survives(&image.backend(), &packs);
            // The scenario's own removal of a pack is damage, not something that is still to come.
            let late = image.backend();
            for name in image.late_removals.iter().filter(|n| n.kind() != ObjectKind::Pack) {
                late.remove(name).unwrap();
            }
            assert_survives(&late, &packs);
        });
    }
    eprintln!("{} crash images", images.len());
}

/// Whatever call fails, once or for ever, with its effect or without: the error reaches the caller or the work
/// succeeds, complete groups are sound, and the next run covers everything.
#[test]
fn every_failing_call_is_survived() {
    let start = start();
    let packs = packs_of(&start);
    let calls = {
        let faults = FaultBackend::new(Arc::new(MemoryBackend::with_contents(start.clone())));
        let backend: Arc<dyn Backend> = Arc::new(faults.clone());
        scenario(&backend, |_| {}).unwrap();
        faults.counts().total()
    };
    let mut failed = 0;
    for fault in Fault::every(calls) {
        with_label(format!("{fault:?}"), || {
            let disk = MemoryBackend::with_contents(start.clone());
            let faults = FaultBackend::new(Arc::new(disk.clone()));
            faults.plan(fault);
            let backend: Arc<dyn Backend> = Arc::new(faults);
            if let Err(error) = scenario(&backend, |_| {}) {
                failed += 1;
                let expected = matches!(error, Error::Io { .. } | Error::Damaged { .. });
                assert!(expected, "the storage's error reaches the caller, found: {error}");
            }
            assert_survives(&disk, &packs);
        });
    }
    assert!(failed > calls, "{failed} of {calls} calls failed the scenario");
    eprintln!("{calls} calls, {failed} failures reached the caller");
}

/// On a local disk: a pack that was flipped behind a reader's back is put back under it, in the same process.
#[test]
fn a_local_pack_is_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let backend: Arc<dyn Backend> = Arc::new(LocalBackend::new(dir.path()));
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    let repository = lab::create(&backend, &env);
    let id = snapshot(&repository, &files(0..12)).unwrap();
    add(&repository, &ParityOptions::default()).unwrap();
    assert_eq!(restore_by_id(&repository, id).unwrap(), files(0..12));
    for name in names(&backend, ObjectKind::Pack) {
        let path = dir.path().join(name.path());
        let good = std::fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped.iter_mut().step_by(200_000).for_each(|byte| *byte ^= 0x10);
        std::fs::write(&path, &flipped).unwrap();
        let healed = repository.heal_pack(pack_of(name)).unwrap().unwrap();
        assert!(healed.is_replaced && healed.computed > 0);
        assert!(std::fs::read(&path).unwrap() == good);
    }
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    assert_eq!(restore_by_id(&repository, id).unwrap(), files(0..12));
    assert_whole(&repository);
}

/// With the catalogue lost, lost packs come back from the parity objects alone, because they open as packs.
#[test]
fn packs_heal_without_a_catalogue() {
    let (memory, backend, repository, _) = filled(3);
    add(&repository, &options(3, 2)).unwrap();
    let packs = names(&backend, ObjectKind::Pack);
    let good = memory.contents();
    for name in names(&backend, ObjectKind::Catalogue) {
        memory.remove(&name).unwrap();
    }
    memory.set_head(None);
    let known = repository.packs_known_to_parity().unwrap();
    assert!(packs.iter().all(|name| known.contains(&pack_of(*name))));
    for name in &packs {
        memory.remove(name).unwrap();
        let healed = repository.heal_pack_without_catalogue(pack_of(*name)).unwrap().unwrap();
        assert!(healed.is_replaced);
        assert!(good.objects[name].as_slice() == bytes(&backend, name));
    }
    let unknown = PackId::from_bytes([1; 16]);
    assert_eq!(repository.heal_pack_without_catalogue(unknown).unwrap(), None);
    // The parity of another repository is not taken.
    let (other, ..) = filled(1);
    for (name, object) in good.objects.iter().filter(|(n, _)| n.kind() == ObjectKind::Parity) {
        stillpoint_store::backend::put(&other, name, object).unwrap();
    }
    let other: Arc<dyn Backend> = Arc::new(other);
    let other = lab::open(&other, &(Arc::new(SystemEnv) as Arc<dyn Env>)).unwrap();
    assert!(other.packs_known_to_parity().unwrap().is_empty());
}
