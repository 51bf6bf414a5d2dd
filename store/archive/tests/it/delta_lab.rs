//! A repository in memory and a directory, for backups of changes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stillpoint_archive::held::{HeldContent, Looked, Looker};
use stillpoint_archive::path::{is_within, key_from_path, parent_key};
use stillpoint_archive::{
    BackupOptions, BackupReport, Changes, Entry, ManifestSchema, ParentChoice, ReadClock,
    ReaderSource, Silent, StreamSource, backup, backup_changes, changed_since,
};
use stillpoint_store::tree::{Builder, Root, Tree, diff};
use stillpoint_store::{Error, Repository, Snapshot, Timestamp, WriteOptions};
use stillpoint_testkit::Random;

/// So late that no file is racy.
pub const LATE: Timestamp = Timestamp { seconds: 40_000_000_000, nanos: 0 };

pub struct DeltaLab {
    lab: crate::restore_lab::Lab,
    pub repository: Arc<Repository>,
    pub base: PathBuf,
}

/// How the exact changes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// Each changed path.
    Exact,
    /// As a journal would tell them.
    Journal,
    /// As a journal would tell them, and held.
    Held,
    /// As a walk finds them.
    Walk,
}

pub fn stream(name: &str, bytes: &[u8]) -> Box<dyn StreamSource> {
    Box::new(ReaderSource::new(name, Cursor::new(bytes.to_vec())))
}

/// Waits until the clock of file times has moved on, so that what happens now differs from what was.
pub fn file_clock_step(scratch: &Path) {
    use std::os::unix::fs::MetadataExt;
    let stamp = || {
        std::fs::write(scratch, b"x").unwrap();
        let metadata = scratch.metadata().unwrap();
        (metadata.ctime(), metadata.ctime_nsec())
    };
    let first = stamp();
    while stamp() == first {}
}

impl DeltaLab {
    pub fn new() -> Self {
        let lab = crate::restore_lab::Lab::new();
        let base = lab.base.path().canonicalize().unwrap();
        Self::with(lab, &base)
    }

    /// With the source in this directory.
    pub fn at(dir: &Path) -> Self {
        Self::with(crate::restore_lab::Lab::new(), dir)
    }

    fn with(lab: crate::restore_lab::Lab, dir: &Path) -> Self {
        let base = dir.canonicalize().unwrap().join("source");
        std::fs::create_dir(&base).unwrap();
        Self { repository: Arc::clone(&lab.repository), lab, base }
    }

    /// A file beside the source.
    pub fn scratch(&self) -> PathBuf {
        self.lab.base.path().join("scratch")
    }

    pub fn options(&self) -> BackupOptions {
        BackupOptions {
            roots: vec![self.base.clone()],
            clock: ReadClock::Fixed(LATE),
            parent: ParentChoice::Nothing,
            host: "host".into(),
            write: WriteOptions { threads: 2, ..WriteOptions::default() },
            ..Default::default()
        }
    }

    /// A backup of everything, beside nothing.
    pub fn full(&self, options: BackupOptions) -> Snapshot {
        self.committed(backup(&self.repository, options, &Silent).unwrap())
    }

    pub fn delta(&self, base: &Snapshot, changes: Changes, options: BackupOptions) -> Snapshot {
        let report = backup_changes(&self.repository, base, changes, options, &Silent).unwrap();
        assert_eq!(report.problems, []);
        self.committed(report)
    }

    pub fn committed(&self, report: BackupReport) -> Snapshot {
        assert_eq!(report.problems, []);
        let id = report.snapshot.unwrap();
        self.repository.snapshots().unwrap().into_iter().find(|found| found.id == id).unwrap()
    }

    /// All entries of a snapshot, as bytes.
    pub fn entries(&self, root: Root) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let reader = self.repository.reader().unwrap();
        let mut cursor = Tree::<ManifestSchema>::open(root, &reader).iter().unwrap();
        let mut entries = BTreeMap::new();
        while let Some((key, value)) = cursor.next().unwrap() {
            entries.insert(key, value);
        }
        entries
    }

    /// Below the source both say the same, byte for byte, and the delta is the tree that its entries make.
    pub fn assert_same(&self, delta: &Snapshot, full: &Snapshot) {
        let base = key_from_path(&self.base).unwrap();
        let below = |snapshot: &Snapshot| {
            let mut entries = self.entries(snapshot.record.root);
            // Directories above are others' business, and their times change.
            entries.retain(|key, _| is_within(key, &base));
            entries
        };
        self.assert_equal(&below(delta), &below(full));
        self.assert_canonical(delta.record.root);
    }

    /// As [`Self::assert_same`], for everything but the times of directories above the source.
    pub fn assert_same_everywhere(&self, delta: &Snapshot, full: &Snapshot) {
        let base = key_from_path(&self.base).unwrap();
        let all = |snapshot: &Snapshot| {
            let mut entries = self.entries(snapshot.record.root);
            entries.retain(|key, _| !is_within(&base, key) || *key == base);
            entries
        };
        self.assert_equal(&all(delta), &all(full));
        self.assert_canonical(delta.record.root);
    }

    fn assert_equal(&self, delta: &BTreeMap<Vec<u8>, Vec<u8>>, full: &BTreeMap<Vec<u8>, Vec<u8>>) {
        let keys: BTreeSet<&Vec<u8>> = delta.keys().chain(full.keys()).collect();
        for key in keys {
            let decode = |value: Option<&Vec<u8>>| value.map(|value| Entry::decode(value).unwrap());
            let name = stillpoint_archive::path::path_from_key(key);
            assert_eq!(decode(delta.get(key)), decode(full.get(key)), "{}", name.display());
        }
        assert!(delta == full);
    }

    fn assert_canonical(&self, root: Root) {
        let write = WriteOptions { dry_run: true, ..WriteOptions::default() };
        let writer = self.repository.writer(write).unwrap();
        let params = self.repository.tree_params();
        let mut sink = writer.node_sink();
        let mut builder = Builder::<ManifestSchema>::new(&params, &mut sink);
        for (key, value) in self.entries(root) {
            builder.push(&key, &value).unwrap();
        }
        assert_eq!(builder.finish().unwrap(), root);
    }

    pub fn assert_whole(&self) {
        self.lab.assert_whole();
    }

    pub fn changed_since(&self, base: &Snapshot) -> Changes {
        changed_since(&self.repository, base, &self.options(), &Silent).unwrap()
    }

    /// Holds what changed instead of having it looked at later.
    pub fn hold(&self, changes: &Changes) -> Changes {
        let looker = Looker::new(&self.options()).unwrap();
        let mut held = BTreeMap::new();
        let held_trees =
            looker.look::<Error>(&changes.paths, &changes.trees, &mut |key, looked| {
                let one = match looked {
                    Looked::Gone => None,
                    Looked::Failed(why) => panic!("{why}"),
                    Looked::There(mut unheld) => {
                        let file = unheld.take_file();
                        Some(unheld.hold(file.map(|file| HeldContent::File(Arc::new(file)))))
                    }
                };
                held.insert(key.to_vec(), one);
                Ok(())
            });
        Changes { held, held_trees: held_trees.unwrap(), ..Changes::default() }
    }

    /// What changed below the source from one snapshot to another.
    pub fn changes_between(
        &self,
        old: &Snapshot,
        new: &Snapshot,
        reduction: Reduction,
        random: &mut Random,
    ) -> Changes {
        let base = key_from_path(&self.base).unwrap();
        let reader = self.repository.reader().unwrap();
        let (before, after) = (self.entries(old.record.root), self.entries(new.record.root));
        let all = diff::<ManifestSchema>(old.record.root, new.record.root, &reader, &reader);
        let mut paths: BTreeSet<Vec<u8>> =
            all.map(|change| change.unwrap().key).filter(|key| is_within(key, &base)).collect();
        if reduction == Reduction::Exact {
            return Changes { paths, ..Changes::default() };
        }
        let is_directory = |entries: &BTreeMap<Vec<u8>, Vec<u8>>, key: &[u8]| {
            let value = entries.get(key);
            value.is_some_and(|value| Entry::decode(value).unwrap().is_directory())
        };
        // A new directory is told as a tree, a vanished one by its own name.
        let is_replaced = |key: &&Vec<u8>| {
            let inode = |entries: &BTreeMap<Vec<u8>, Vec<u8>>| {
                entries.get(*key).map(|value| Entry::decode(value).unwrap().inode)
            };
            inode(&before) != inode(&after)
                && (is_directory(&before, key) || is_directory(&after, key))
        };
        let mut replaced: BTreeSet<Vec<u8>> = paths.iter().filter(is_replaced).cloned().collect();
        let inside = |key: &[u8], trees: &BTreeSet<Vec<u8>>| {
            std::iter::successors(parent_key(key), |key| parent_key(key))
                .any(|above| trees.contains(above))
        };
        let outer = replaced.clone();
        replaced.retain(|key| !inside(key, &outer));
        let content = |entries: &BTreeMap<Vec<u8>, Vec<u8>>, key: &[u8]| {
            entries.get(key).map(|value| Entry::decode(value).unwrap().kind)
        };
        // What a moved directory holds may have changed too: a journal tells that by the new path.
        let same_content: BTreeSet<_> = after
            .keys()
            .filter(|key| {
                before.values().any(|value| {
                    Entry::decode(value).unwrap().kind == content(&after, key).unwrap()
                })
            })
            .cloned()
            .collect();
        paths.retain(|key| !inside(key, &replaced) || !same_content.contains(key));
        // One name of each changed file.
        let mut seen = BTreeSet::new();
        paths.retain(|key| {
            let link = |entries: &BTreeMap<Vec<u8>, Vec<u8>>| {
                entries.get(key).and_then(|value| Entry::decode(value).unwrap().link_id())
            };
            match (link(&before), link(&after)) {
                (Some(then), Some(now)) if then == now => seen.insert(now),
                _ => true,
            }
        });
        // Something that did not change.
        let others: Vec<_> = after.keys().filter(|key| is_within(key, &base)).collect();
        paths.insert((*random.pick(&others)).clone());
        let trees = replaced.into_iter().filter(|key| is_directory(&after, key)).collect();
        Changes { paths, trees, ..Changes::default() }
    }
}
