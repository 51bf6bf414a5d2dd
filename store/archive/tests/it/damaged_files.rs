//! Which files a damage touches: those that need what is lost, in every snapshot that has them, and no others.

use crate::restore_lab::{Draft, Lab, noise};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use stillpoint_archive::damage::{DamageNames, Damaged, DamagedFiles};
use stillpoint_archive::path::path_from_key;
use stillpoint_archive::{Entry, EntryKind, ManifestSchema, write_content};
use stillpoint_store::backend::Backend;
use stillpoint_store::check::{CheckOptions, CheckReport};
use stillpoint_store::tree::{NodeBytes, NodeSource, Root, Tree};
use stillpoint_store::{NodeId, ObjectKind, ObjectName, OpenOptions, Reader, Repository, Result};

/// Counts the nodes that are read.
struct Counting<'a>(&'a Reader, AtomicU64);

impl NodeSource for Counting<'_> {
    fn load(&self, id: &NodeId) -> Result<NodeBytes> {
        self.1.fetch_add(1, Relaxed);
        self.0.load(id)
    }
}

fn reopen(lab: &Lab) -> Arc<Repository> {
    let secret = stillpoint_store::record::Secret::key_file(&[7; 64]);
    let env = Arc::clone(lab.repository.env());
    Repository::open(lab.backend.clone(), env, &secret, OpenOptions::in_memory()).unwrap()
}

fn check(repository: &Arc<Repository>) -> CheckReport {
    repository.check(CheckOptions::read_all(), &|_, _| {}).unwrap()
}

/// Paths that a snapshot has lost, and the names of entries that lie in lost parts of its manifest.
fn named(names: &mut DamageNames<'_>, root: Root, max: u64) -> (BTreeSet<String>, DamagedFiles) {
    let mut files = BTreeSet::new();
    let found = names
        .of(root, max, &mut |damaged| {
            if let Damaged::File { key } = damaged {
                files.insert(path_from_key(key).to_str().unwrap().to_owned());
            }
            Ok(())
        })
        .unwrap();
    (files, found)
}

/// The files that cannot be read, found the long way; None where the manifest itself cannot be read.
fn unreadable(reader: &Reader, root: Root) -> Option<BTreeSet<String>> {
    let tree = Tree::<ManifestSchema>::open(root, reader);
    let mut cursor = tree.iter().ok()?;
    let mut lost = BTreeSet::new();
    while let Some((key, value)) = cursor.peek() {
        let entry = Entry::decode(value).unwrap();
        let is_file = matches!(entry.kind, EntryKind::File(_));
        if is_file && write_content(reader, &entry, &mut std::io::sink()).is_err() {
            lost.insert(path_from_key(key).to_str().unwrap().to_owned());
        }
        cursor.advance().ok()?;
    }
    Some(lost)
}

/// Some directories, with so many files each of so many bytes.
fn draft(files: u64, bytes: usize) -> Draft {
    let mut draft = Draft::default();
    draft.dir("");
    for dir in 0..6 {
        draft.dir(&format!("d{dir}"));
        for file in 0..files {
            draft.file(&format!("d{dir}/f{file:03}"), noise(dir * 1000 + file, bytes));
        }
    }
    // Its list of chunks stands in a tree of its own.
    draft.file("d3/long", noise(9000, 6 << 20));
    draft
}

/// Whatever byte of a pack is flipped, exactly the files are named that cannot be read, in all snapshots alike.
#[test]
fn files_that_cannot_be_read_are_named() {
    let lab = Lab::new();
    let mut draft = draft(25, 20_000);
    let first = draft.commit(&lab);
    draft.file("d1/f003", noise(5000, 30_000));
    let second = draft.commit(&lab);
    let packs = lab.backend.list(ObjectKind::Pack).unwrap();
    let (mut touched, mut with_gaps) = (0, 0);
    for (name, size) in packs {
        for part in 0..4 {
            let at = usize::try_from(size * (2 * part + 1) / 9).unwrap();
            lab.backend.damage(&name, |bytes| bytes[at] ^= 1);
            let repository = reopen(&lab);
            let report = check(&repository);
            assert!(!report.findings.is_empty());
            let reader = repository.reader().unwrap();
            for root in [first, second] {
                let Some(damage) = &report.damage else {
                    assert_eq!(unreadable(&reader, root), Some(BTreeSet::new()));
                    continue;
                };
                let (files, found) = named(&mut DamageNames::new(&reader, damage), root, u64::MAX);
                assert_eq!(found.files, files.len() as u64);
                match unreadable(&reader, root) {
                    Some(expected) => assert_eq!((&files, found.gaps), (&expected, 0)),
                    None => assert!(found.gaps > 0),
                }
                let is_touched = damage.snapshots.iter().any(|one| one.root == root);
                assert_eq!(is_touched, !found.is_none());
                touched += found.files;
                with_gaps += found.gaps;
            }
            lab.backend.damage(&name, |bytes| bytes[at] ^= 1);
        }
    }
    assert!(touched > 20 && with_gaps > 0, "{touched} files, {with_gaps} gaps");
    lab.assert_whole();
}

/// What many snapshots share is gone through once: the second snapshot costs next to nothing, and lists stop in time.
#[test]
fn shared_damage_is_counted_once() {
    let lab = Lab::new();
    let mut draft = draft(500, 300);
    let mut roots = vec![draft.commit(&lab)];
    for seed in 0..8 {
        draft.file("d5/new", noise(7000 + seed, 1000));
        roots.push(draft.commit(&lab));
    }
    let (largest, _) =
        lab.backend.list(ObjectKind::Pack).unwrap().into_iter().max_by_key(|(_, n)| *n).unwrap();
    assert!(matches!(largest, ObjectName::Pack(_)));
    lab.backend.remove(&largest).unwrap();
    let repository = reopen(&lab);
    let report = check(&repository);
    let damage = report.damage.unwrap();
    assert_eq!(damage.snapshots.len(), roots.len());
    let reader = repository.reader().unwrap();
    let counting = Counting(&reader, AtomicU64::new(0));
    let mut names = DamageNames::new(&counting, &damage);
    let (files, found) = named(&mut names, roots[0], 10);
    assert_eq!(files.len(), 10);
    assert_eq!(found.files, 3001);
    let first = counting.1.swap(0, Relaxed);
    for root in &roots[1..] {
        let (files, found) = named(&mut names, *root, 10);
        assert_eq!(files.len(), 10);
        assert_eq!(found.files, 3001);
    }
    let others = counting.1.load(Relaxed);
    assert!(others < 4 * first, "{first} nodes for one snapshot, {others} for the others");
    assert!(first > 10, "{first} nodes are read");
}
