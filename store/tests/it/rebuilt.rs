//! Head and catalogue, damaged in every way: a repair brings back what was promised, and says what it cannot tell.

use crate::lab;
use crate::rebuilt_scene::{History, open, options, repair, small, snapshot};
use std::sync::Arc;
use stillpoint_store::backend::{Backend, LocalBackend, MemoryBackend};
use stillpoint_store::repair::RepairOptions;
use stillpoint_store::{
    Env, Error, NodeId, ObjectKind, ObjectName, OpenOptions, Repository, SystemEnv,
};
use stillpoint_testkit::{Random, with_label};

/// What can become of an object.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Missing,
    /// Cut to this part of a thousand.
    Cut(usize),
    /// A bit of the byte at this part of a thousand.
    Flip(usize, u8),
    /// The first or the sixth byte: version, generation.
    FlipAt(usize, u8),
    /// Random bytes, or all the same.
    Noise(u64),
    Filled(u8),
}

const HARMS: [Harm; 14] = [
    Harm::Missing,
    Harm::Cut(0),
    Harm::Cut(30),
    Harm::Cut(500),
    Harm::Cut(999),
    Harm::Flip(100, 0),
    Harm::Flip(500, 3),
    Harm::Flip(999, 7),
    Harm::FlipAt(0, 0),
    Harm::FlipAt(0, 1),
    Harm::FlipAt(0, 6),
    Harm::FlipAt(2, 1),
    Harm::Noise(5),
    Harm::Filled(0xff),
];

impl Harm {
    fn done_to(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = bytes.to_vec();
        let at = |thousandth: usize| (bytes.len() * thousandth / 1000).min(bytes.len() - 1);
        match self {
            Self::Missing => return None,
            Self::Cut(part) => bytes.truncate(at(part)),
            Self::Flip(part, bit) => {
                let at = at(part);
                bytes[at] ^= 1 << bit;
            }
            Self::FlipAt(at, bit) => bytes[at] ^= 1 << bit,
            Self::Noise(seed) => Random::new(seed).fill(&mut bytes),
            Self::Filled(byte) => bytes.fill(byte),
        }
        Some(bytes)
    }
}

fn harm_head(disk: &MemoryBackend, harm: Harm) {
    let head = disk.contents().head.unwrap();
    disk.set_head(harm.done_to(&head));
}

fn harm_node(disk: &MemoryBackend, id: NodeId, harm: Harm) {
    let name = ObjectName::Catalogue(id);
    let bytes = Arc::clone(&disk.contents().objects[&name]);
    match harm.done_to(&bytes) {
        None => disk.remove(&name).unwrap(),
        Some(changed) => assert!(disk.damage(&name, |bytes| *bytes = changed)),
    }
}

/// The head in every way: every snapshot comes back, those that were forgotten stay so, and what nobody can tell is told.
#[test]
fn a_head_that_cannot_be_read() {
    for rotates in [false, true] {
        let history = History::new(rotates);
        for harm in HARMS {
            with_label(format!("{harm:?}, rotated: {rotates}"), || {
                let disk = history.disk();
                harm_head(&disk, harm);
                let error = open(&disk).snapshots().unwrap_err();
                assert!(error.is_damage(), "{error}");
                let report = history.assert_repairs(&disk);
                let plan = report.plan.catalogue.unwrap();
                assert!(plan.seq > history.seq() && plan.nodes_lost == 0, "{plan:?}");
                // Of the last commit alone it cannot be told whether it was one.
                assert!(plan.snapshots_found.len() <= 1, "{plan:?}");
                assert!(plan.snapshots_set_aside.is_empty(), "{plan:?}");
                assert!(plan.packs_found.is_empty() && plan.packs_condemned > 0, "{plan:?}");
            });
        }
    }
}

/// A head from before, of the same keys and of older ones. That of the very last commit can only be told from one that is
/// under way by a host that has seen it: see `what_a_host_has_seen`.
#[test]
fn a_head_from_before() {
    for rotates in [false, true] {
        let history = History::new(rotates);
        let older = history.heads.iter().rev().enumerate().skip(2);
        for (age, head) in older.filter(|(age, _)| *age < 16 || *age % 9 == 0) {
            with_label(format!("{age} heads ago, rotated: {rotates}"), || {
                let disk = history.disk();
                disk.set_head(Some(head.clone()));
                let report = history.assert_repairs(&disk);
                let plan = report.plan.catalogue.unwrap();
                assert!(plan.seq > history.seq() && plan.snapshots_found.len() <= 1, "{plan:?}");
            });
        }
    }
}

/// A head of another repository, or of keys that nobody has.
#[test]
fn a_head_of_other_keys() {
    let other = History::new(true);
    for rotates in [false, true] {
        let history = History::new(rotates);
        let disk = history.disk();
        disk.set_head(other.contents.head.clone());
        history.assert_repairs(&disk);
    }
}

/// Each node of the catalogue in every way, with the head there. Nodes of earlier catalogues are nobody's damage.
#[test]
fn nodes_that_cannot_be_read() {
    for rotates in [false, true] {
        let history = History::new(rotates);
        let (current, others) = history.nodes();
        for (number, id) in current.iter().enumerate() {
            for harm in HARMS {
                with_label(format!("node {number} {harm:?}, rotated: {rotates}"), || {
                    let disk = history.disk();
                    harm_node(&disk, *id, harm);
                    let plan = history.assert_repairs(&disk).plan.catalogue.unwrap();
                    assert_eq!((plan.seq, plan.nodes_lost), (history.seq() + 1, 1), "{plan:?}");
                });
            }
            for other in current.iter().take(2).chain(others.iter().rev().take(2)) {
                if other == id {
                    continue;
                }
                with_label(format!("node {number} swapped, rotated: {rotates}"), || {
                    let disk = history.disk();
                    swap(&disk, *id, *other);
                    assert!(history.assert_repairs(&disk).plan.catalogue.is_some());
                });
            }
        }
        for id in others {
            let disk = history.disk();
            harm_node(&disk, id, Harm::Missing);
            assert!(repair(&open(&disk)).plan.is_empty());
        }
    }
}

fn swap(disk: &MemoryBackend, one: NodeId, other: NodeId) {
    let (one, other) = (ObjectName::Catalogue(one), ObjectName::Catalogue(other));
    let objects = disk.contents().objects;
    disk.damage(&one, |bytes| bytes.clone_from(&objects[&other]));
    disk.damage(&other, |bytes| bytes.clone_from(&objects[&one]));
}

/// The head and one node, the head and all of the newest nodes, all nodes, everything.
#[test]
fn head_and_nodes_together() {
    for rotates in [false, true] {
        let history = History::new(rotates);
        let (current, others) = history.nodes();
        let check = |label: &str, head: bool, lost: &[NodeId]| {
            with_label(format!("{label}, rotated: {rotates}"), || {
                let disk = history.disk();
                lost.iter().for_each(|id| harm_node(&disk, *id, Harm::Missing));
                if head {
                    disk.set_head(None);
                }
                let plan = history.assert_repairs(&disk).plan.catalogue.unwrap();
                assert!(plan.seq > history.seq(), "{plan:?}");
            });
        };
        for id in current.iter().chain(others.iter().step_by(3)) {
            check(&format!("the head and node {id}"), true, &[*id]);
        }
        check("the current catalogue", false, &current);
        check("head and current catalogue", true, &current);
        let all: Vec<NodeId> = current.iter().chain(&others).copied().collect();
        check("all nodes", false, &all);
        check("head and all nodes", true, &all);
        for seed in 0..12 {
            let mut random = Random::new(seed);
            let lost: Vec<NodeId> = all.iter().filter(|_| random.below(2) == 0).copied().collect();
            check(&format!("head and half of the nodes, seed {seed}"), true, &lost);
        }
    }
}

/// With the records of snapshots lost as well, what the nodes say is enough.
#[test]
fn head_and_records() {
    let history = History::new(false);
    let disk = history.disk();
    disk.set_head(None);
    for (name, _) in disk.list(ObjectKind::Snapshot).unwrap() {
        disk.remove(&name).unwrap();
    }
    let repository = open(&disk);
    let report = repair(&repository);
    assert!(!report.plan.records.is_empty());
    history.assert_kept(&repository, &report);
    assert!(repair(&repository).plan.is_empty());
}

/// A pack that no surviving node names is read whole before it counts; one that is damaged does not, and what can be read
/// of it is stored again.
#[test]
fn packs_that_nobody_names_are_verified() {
    let history = History::new(false);
    let disk = history.disk();
    disk.set_head(None);
    for (name, _) in disk.list(ObjectKind::Catalogue).unwrap() {
        disk.remove(&name).unwrap();
    }
    let repository = open(&history.disk());
    let view = repository.head().unwrap();
    let packs = view.packs().unwrap();
    let (damaged, entry) = packs.iter().find(|(_, entry)| entry.data_chunks > 1).unwrap();
    let at = usize::try_from(entry.size_bytes / 2).unwrap();
    let mut changed = 0;
    for at in [80, at] {
        let disk = MemoryBackend::with_contents(disk.contents());
        disk.damage(&ObjectName::Pack(*damaged), |bytes| bytes[at] ^= 1);
        let report = repair(&open(&disk));
        let plan = report.plan.catalogue.unwrap();
        assert!(!plan.packs_found.is_empty(), "{plan:?}");
        let is_listed = plan.packs_found.contains(damaged);
        changed += usize::from(!is_listed);
        lab::assert_whole(&open(&disk));
        assert!(repair(&open(&disk)).plan.is_empty());
        for step in 0..40 {
            snapshot(&open(&disk), step).unwrap();
        }
        lab::assert_whole(&open(&disk));
    }
    assert!(changed > 0, "no damage was noticed");
}

/// A host that has seen a newer head repairs one that was rolled back by a single commit; and the new head does not look
/// rolled back to any host.
#[test]
fn what_a_host_has_seen() {
    for rotates in [false, true] {
        let history = History::new(rotates);
        let disk = history.disk();
        let cache = tempfile::tempdir().unwrap();
        let host = || {
            let cache_dir = Some(cache.path().to_owned());
            let options = OpenOptions { cache_dir, ..OpenOptions::in_memory() };
            let index: stillpoint_store::repository::IndexProvider = Arc::new(|_| {
                let index = Box::new(stillpoint_store::index::MemoryIndex::new());
                Ok(stillpoint_store::repository::OpenedIndex { index, notice: None })
            });
            let options = OpenOptions { index, ..options };
            let (backend, env): (Arc<dyn Backend>, Arc<dyn Env>) =
                (Arc::new(disk.clone()), Arc::new(SystemEnv));
            Repository::open(backend, env, &lab::secret(), options).unwrap()
        };
        host().head().unwrap();
        disk.set_head(history.heads.iter().rev().nth(1).cloned());
        let report = repair(&host());
        let plan = report.plan.catalogue.clone().unwrap();
        assert!(plan.reason.contains("this host has seen"), "{plan:?}");
        history.assert_kept(&host(), &report);
        let opened = host();
        opened.head().unwrap();
        assert_eq!(opened.notices().iter().filter(|one| one.contains("older")).count(), 0);
        disk.set_head(None);
        repair(&host());
        let opened = host();
        opened.head().unwrap();
        assert_eq!(opened.notices(), [""; 0]);
        // Put back whole, by hand: the host notes it, and there is nothing to repair.
        let before = history.disk();
        let (backend, env): (Arc<dyn Backend>, Arc<dyn Env>) =
            (Arc::new(before.clone()), Arc::new(SystemEnv));
        let cache_dir = Some(cache.path().to_owned());
        let options_of = OpenOptions { cache_dir, ..OpenOptions::in_memory() };
        let old = Repository::open(backend, env, &lab::secret(), options_of).unwrap();
        let parts = stillpoint_store::repair::Parts {
            packs: false,
            snapshots: false,
            ..stillpoint_store::repair::Parts::default()
        };
        let only = RepairOptions { parts, ..options() };
        let plan = old.repair(&only, &|_, _| {}).unwrap().plan;
        assert!(plan.is_empty(), "{plan:?}");
    }
}

/// Objects of a newer program are not taken for damage, where more than one says so; nor are those of newer keys.
#[test]
fn newer_programs_are_not_repaired_away() {
    let history = History::new(false);
    let disk = history.disk();
    let newer = |bytes: &mut Vec<u8>| {
        bytes[0] = 3;
        bytes[50] ^= 1;
    };
    let mut head = disk.contents().head.unwrap();
    newer(&mut head);
    disk.set_head(Some(head));
    let (current, _) = history.nodes();
    disk.damage(&ObjectName::Catalogue(current[0]), newer);
    let before = disk.contents();
    let error = open(&disk).repair(&options(), &|_, _| {}).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { found: 3, .. }), "{error}");
    assert!(disk.contents() == before);
}

/// On a local directory: no head, an empty one, one that is far too long, no folder of nodes.
#[test]
fn a_local_repository() {
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    for case in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("repository");
        let local = || -> Arc<dyn Backend> { Arc::new(LocalBackend::new(root.clone())) };
        let repository = lab::create(&local(), &env);
        let ids: Vec<_> = (0..5).map(|step| snapshot(&repository, step).unwrap()).collect();
        drop(repository);
        let head = root.join("head");
        match case {
            0 => std::fs::remove_file(&head).unwrap(),
            1 => std::fs::write(&head, b"").unwrap(),
            2 => std::fs::write(&head, vec![7; 3 << 20]).unwrap(),
            3 => std::fs::remove_dir_all(root.join("catalogue")).unwrap(),
            _ => {
                std::fs::remove_file(&head).unwrap();
                std::fs::remove_dir_all(root.join("catalogue")).unwrap();
            }
        }
        let repository = lab::open(&local(), &env).unwrap();
        assert!(repair(&repository).plan.catalogue.is_some(), "case {case}");
        let repository = lab::open(&local(), &env).unwrap();
        for (step, id) in (0..).zip(ids) {
            assert_eq!(lab::restore_by_id(&repository, id).unwrap(), small(step));
        }
        lab::assert_whole(&repository);
        assert!(repair(&repository).plan.is_empty());
    }
}

/// In other histories, where nodes end elsewhere, head and one node are lost together.
#[test]
fn other_histories() {
    for seed in 2..6 {
        for rotates in [false, true] {
            let history = History::seeded(seed, rotates);
            let (current, _) = history.nodes();
            for id in current {
                with_label(format!("seed {seed} node {id}, rotated: {rotates}"), || {
                    let disk = history.disk();
                    harm_node(&disk, id, Harm::Missing);
                    disk.set_head(None);
                    let report = repair(&open(&disk));
                    history.assert_kept(&open(&disk), &report);
                });
            }
        }
    }
}
