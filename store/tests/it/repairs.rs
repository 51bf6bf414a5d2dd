//! Repairs: what is left is kept, what is gone is named, and a repository that is sound is left alone.

use crate::lab::{
    self, Files, LabSchema, assert_whole, create, files, memory, open, restore_by_id, snapshot,
};
use std::sync::Arc;
use stillpoint_store::backend::{Backend, Contents, MemoryBackend};
use stillpoint_store::check::CheckOptions;
use stillpoint_store::parity::ParityOptions;
use stillpoint_store::repair::{Remedy, RepairOptions, RepairReport};
use stillpoint_store::tree::{NodeBytes, node_references};
use stillpoint_store::{
    ChunkId, Env, NodeId, ObjectKind, ObjectName, Repository, Result, SnapshotId,
};

fn references(id: &NodeId, bytes: &NodeBytes) -> Result<Vec<ChunkId>> {
    node_references::<LabSchema>(id, bytes)
}

fn options() -> RepairOptions {
    RepairOptions::new(references)
}

fn repair(repository: &Arc<Repository>, options: &RepairOptions) -> RepairReport {
    repository.repair(options, &|_, _| {}).unwrap()
}

/// Reads everything, mends it, and expects the check afterwards to find nothing.
fn repair_all(repository: &Arc<Repository>) -> RepairReport {
    let report = repair(repository, &RepairOptions { read_all: true, ..options() });
    if let Some(after) = &report.after {
        assert_eq!(after.findings, []);
    }
    assert!(repair(repository, &RepairOptions { read_all: true, ..options() }).plan.is_empty());
    report
}

/// A repository with three snapshots that share some of their files.
struct Scene {
    disk: MemoryBackend,
    env: Arc<dyn Env>,
    snapshots: Vec<(SnapshotId, Files)>,
    whole: Contents,
}

impl Scene {
    fn new() -> Self {
        let disk = MemoryBackend::new();
        let (backend, env): (Arc<dyn Backend>, _) = (Arc::new(disk.clone()), memory().1);
        let repository = create(&backend, &env);
        let contents = [files(0..12), files(6..18), files(30..40)];
        let snapshots = contents.map(|files| (snapshot(&repository, &files).unwrap(), files));
        let whole = disk.contents();
        Self { disk, env, snapshots: snapshots.into(), whole }
    }

    /// A copy of the repository as it was.
    fn copy(&self) -> Self {
        let disk = MemoryBackend::with_contents(self.whole.clone());
        let env = Arc::clone(&self.env);
        Self { disk, env, snapshots: self.snapshots.clone(), whole: self.whole.clone() }
    }

    fn open(&self) -> Arc<Repository> {
        let backend: Arc<dyn Backend> = Arc::new(self.disk.clone());
        open(&backend, &self.env).unwrap()
    }

    fn packs(&self) -> Vec<(ObjectName, usize)> {
        let packs = self.disk.list(ObjectKind::Pack).unwrap();
        packs.into_iter().map(|(name, size)| (name, usize::try_from(size).unwrap())).collect()
    }

    /// How many files of all snapshots restore exactly; none may restore wrong.
    fn restorable(&self, repository: &Arc<Repository>) -> usize {
        let mut exact = 0;
        for (id, files) in &self.snapshots {
            exact += lab::restore_what_is_there(repository, *id, files);
        }
        exact
    }

    fn assert_all_restore(&self, repository: &Arc<Repository>) {
        for (id, files) in &self.snapshots {
            assert_eq!(restore_by_id(repository, *id).unwrap(), *files);
        }
    }
}

/// A sound repository is left as it is, byte for byte.
#[test]
fn a_sound_repository_is_left_alone() {
    let scene = Scene::new();
    let report = repair(&scene.open(), &RepairOptions { read_all: true, ..options() });
    assert!(report.plan.is_empty(), "{:?}", report.plan);
    assert!(report.after.is_none() && report.damage.is_none());
    assert!(scene.disk.contents() == scene.whole, "something was written");
}

/// Whatever part of a pack is damaged: what can be read is rescued, the rest is listed as lost, checks and prunes work
/// again, and the next snapshots of the same files make the old ones whole.
#[test]
fn what_can_be_read_of_a_pack_is_rescued() {
    let scene = Scene::new();
    let (mut rescued, mut lost, mut supplied) = (0, 0, 0);
    for (pack, size) in scene.packs() {
        for at in [4, 100, size / 4, size / 2, size - 200, size - 3, usize::MAX] {
            stillpoint_testkit::with_label(format!("{pack} at {at} of {size}"), || {
                let scene = scene.copy();
                match at {
                    usize::MAX => scene.disk.remove(&pack).unwrap(),
                    at => assert!(scene.disk.damage(&pack, |bytes| bytes[at] ^= 1)),
                }
                let before = scene.restorable(&scene.open());
                let dry = RepairOptions { read_all: true, dry_run: true, ..options() };
                let planned = repair(&scene.open(), &dry);
                let report = repair_all(&scene.open());
                assert_eq!(planned.plan.packs, report.plan.packs);
                assert_eq!(report.plan.packs.len(), 1, "{:?}", report.plan);
                if !planned.plan.is_first_part {
                    assert_eq!(planned.plan, report.plan);
                    let gone = planned.damage.map_or(0, |damage| damage.lost_count());
                    assert_eq!(gone, report.plan.chunks_given_up);
                }
                let repository = scene.open();
                assert!(scene.restorable(&repository) >= before);
                rescued += report.plan.chunks_rescued;
                lost += report.plan.chunks_given_up;
                if report.plan.chunks_given_up == 0 {
                    scene.assert_all_restore(&repository);
                    assert_whole(&repository);
                }
                let known = repository.check(CheckOptions::read_all(), &|_, _| {}).unwrap();
                assert_eq!(known.findings, []);
                let known = known.known.map_or(0, |damage| damage.lost_count());
                assert_eq!(known, report.plan.chunks_given_up);
                repository.prune(&lab::prune_now()).unwrap();
                for (_, files) in &scene.snapshots {
                    snapshot(&repository, files).unwrap();
                }
                scene.assert_all_restore(&repository);
                supplied += u64::from(known > 0);
                assert!(repository.head().unwrap().lost_chunks().unwrap().is_empty());
                assert_whole(&repository);
                assert!(repair(&repository, &options()).plan.is_empty());
            });
        }
    }
    assert!(rescued > 20 && lost > 20 && supplied > 5, "{rescued} {lost} {supplied}");
}

/// What was given up is found again when the pack turns up: it is condemned, but still there.
#[test]
fn what_was_given_up_may_turn_up() {
    let scene = Scene::new();
    let (largest, _) = scene.packs().into_iter().max_by_key(|(_, size)| *size).unwrap();
    let bytes = Arc::clone(&scene.whole.objects[&largest]);
    scene.disk.remove(&largest).unwrap();
    let first = repair_all(&scene.open());
    assert!(first.plan.chunks_given_up > 0);
    stillpoint_store::backend::put(&scene.disk, &largest, &bytes).unwrap();
    let second = repair_all(&scene.open());
    assert_eq!(second.plan.chunks_rescued, first.plan.chunks_given_up);
    assert!(second.plan.packs.is_empty(), "a condemned name never lives again");
    let repository = scene.open();
    scene.assert_all_restore(&repository);
    assert_whole(&repository);
}

/// A record that is lost is made anew; the snapshot keeps its id, and stays protected or forgotten.
#[test]
fn lost_records_are_made_anew() {
    for damage in [None, Some(5usize), Some(60)] {
        let scene = Scene::new();
        let repository = scene.open();
        let ids: Vec<SnapshotId> = scene.snapshots.iter().map(|(id, _)| *id).collect();
        repository.protect(&ids[..1], true).unwrap();
        repository.forget(&ids[1..2]).unwrap();
        for id in &ids {
            let name = ObjectName::Snapshot(*id);
            match damage {
                None => scene.disk.remove(&name).unwrap(),
                Some(at) => assert!(scene.disk.damage(&name, |bytes| bytes[at] ^= 1)),
            }
        }
        let dry = repair(&scene.open(), &RepairOptions { dry_run: true, ..options() });
        assert_eq!(dry.plan.records.len(), 3);
        let report = repair_all(&scene.open());
        let repository = scene.open();
        for (id, files) in &scene.snapshots {
            let renewed = report.plan.records.iter().find(|one| one.snapshot == *id).unwrap();
            assert_eq!(renewed.is_forgotten, *id == ids[1]);
            if renewed.is_forgotten {
                repository.undelete(&[*id]).unwrap();
            }
            assert_eq!(restore_by_id(&repository, *id).unwrap(), *files);
            let found = repository.find_snapshot(&id.to_string()).unwrap();
            assert_eq!(found.protected, *id == ids[0]);
            assert!(found.record.description.contains("lost"));
        }
        assert_whole(&repository);
    }
}

/// A repair beside a session that relied on the damaged pack: the session's snapshot is whole, or the next repair makes
/// it so.
#[test]
fn sessions_beside_a_repair() {
    let scene = Scene::new();
    let session = scene.open();
    let writer = session.writer(Default::default()).unwrap();
    let mut content = scene.snapshots[0].1.clone();
    content.extend(files(50..53));
    let record = lab::fill(&writer, &session, &content).unwrap();
    let (largest, size) = scene.packs().into_iter().max_by_key(|(_, size)| *size).unwrap();
    scene.disk.damage(&largest, |bytes| bytes[size / 2] ^= 1);
    let report = repair_all(&scene.open());
    assert!(report.plan.chunks_rescued > 0);
    match writer.commit(record) {
        Ok((id, _)) => {
            let whole = restore_by_id(&scene.open(), id).is_ok_and(|files| files == content);
            assert!(whole || report.plan.chunks_given_up > 0);
        }
        Err(error) => {
            assert!(matches!(error, stillpoint_store::Error::Conflict { .. }), "{error}");
        }
    }
    repair_all(&scene.open());
}

/// What parity covers comes back byte for byte; parity objects are computed again; a group that cannot be helped is given
/// up, and what its packs held is rescued like without parity.
#[test]
fn parity_is_asked_first() {
    let scene = Scene::new();
    let options = ParityOptions { data: 4, parity: 1, ..ParityOptions::default() };
    scene.open().add_parity(&options, &|_, _| {}).unwrap();
    let whole = scene.disk.contents();
    let scene = Scene { whole: whole.clone(), ..scene };
    for (pack, size) in scene.packs() {
        for at in [7, 100, size / 2, usize::MAX] {
            let scene = scene.copy();
            match at {
                usize::MAX => scene.disk.remove(&pack).unwrap(),
                at => assert!(scene.disk.damage(&pack, |bytes| bytes[at] ^= 1)),
            }
            let dry = RepairOptions { read_all: true, dry_run: true, ..self::options() };
            let remedies = |report: &RepairReport| -> Vec<Remedy> {
                report.plan.packs.iter().map(|pack| pack.remedy).collect()
            };
            assert_eq!(remedies(&repair(&scene.open(), &dry)), [Remedy::Heal]);
            assert_eq!(remedies(&repair_all(&scene.open())), [Remedy::Heal]);
            assert!(scene.disk.contents() == whole, "the pack is what it was");
        }
    }
    let parity: Vec<ObjectName> = {
        let listed = scene.disk.list(ObjectKind::Parity).unwrap();
        listed.into_iter().map(|(name, _)| name).collect()
    };
    for name in &parity {
        let copy = scene.copy();
        copy.disk.damage(name, |bytes| bytes[200] ^= 1);
        let report = copy.open().check(CheckOptions::read_all(), &|_, _| {}).unwrap();
        assert_eq!(report.findings[0].object, Some(*name), "{:?}", report.findings);
        assert_eq!(repair_all(&copy.open()).plan.parity_healed.len(), 1);
        assert_eq!(copy.disk.contents().objects[name], whole.objects[name]);
    }
    let copy = scene.copy();
    let removed = copy.packs().into_iter().map(|(name, _)| name).chain(parity);
    removed.for_each(|name| copy.disk.remove(&name).unwrap());
    let report = repair_all(&copy.open());
    assert!(!report.plan.parity_given_up.is_empty() && report.plan.chunks_given_up > 0);
    let repository = copy.open();
    for (_, files) in &copy.snapshots {
        snapshot(&repository, files).unwrap();
    }
    copy.assert_all_restore(&repository);
    assert_whole(&repository);
}
