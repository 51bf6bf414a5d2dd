//! Which inodes a manifest knows, and by which names: for changes of a file that came under none of its saved names.

use crate::entry::{Entry, EntryHead, KindCode, ManifestSchema};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use stillpoint_store::repository::{Repository, Snapshot};
use stillpoint_store::tree::{self, Tree};
use stillpoint_store::{Reader, Result};

/// The inodes of a manifest. Devices count for nothing, since their numbers change when a machine starts anew: an inode of
/// another file system may seem to be known, which costs a look. Eight bytes a file, and the names of those with several.
#[derive(Debug, Default, Clone)]
pub struct Inodes {
    known: HashSet<u64>,
    /// Names of files that have several.
    several: HashMap<u64, BTreeSet<Vec<u8>>>,
}

impl Inodes {
    /// Those of a snapshot; reads its whole manifest.
    ///
    /// # Errors
    /// Damage of the manifest.
    pub fn of(repository: &Arc<Repository>, snapshot: &Snapshot) -> Result<Self> {
        let reader = repository.reader()?;
        let mut inodes = Self::default();
        let mut cursor = Tree::<ManifestSchema>::open(snapshot.record.root, &reader).iter()?;
        while let Some((key, value)) = cursor.peek() {
            inodes.add(key, value)?;
            cursor.advance()?;
        }
        Ok(inodes)
    }

    /// Adds what `to` has and `from` has not; reads what differs.
    ///
    /// # Errors
    /// Damage of the manifests.
    pub fn follow(
        &mut self,
        repository: &Arc<Repository>,
        from: &Snapshot,
        to: &Snapshot,
    ) -> Result<()> {
        let reader: Reader = repository.reader()?;
        let (from, to) = (from.record.root, to.record.root);
        for change in tree::diff::<ManifestSchema>(from, to, &reader, &reader) {
            let change = change?;
            if let Some(value) = &change.new {
                self.add(&change.key, value)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let head = EntryHead::decode(value)?;
        if head.kind == KindCode::Directory {
            return Ok(());
        }
        self.known.insert(head.inode);
        if Entry::decode(value)?.link_id().is_some() {
            self.several.entry(head.inode).or_default().insert(key.to_vec());
        }
        Ok(())
    }

    /// The names that the manifest `base` has for these inodes; some that it had for them before may be among these. Reads the whole manifest
    /// only for a known file that had one name.
    ///
    /// # Errors
    /// Damage of the manifest.
    pub fn names(
        &self,
        repository: &Arc<Repository>,
        base: &Snapshot,
        inodes: &BTreeSet<u64>,
    ) -> Result<BTreeSet<Vec<u8>>> {
        let mut names = BTreeSet::new();
        let mut single = HashSet::new();
        for inode in inodes.iter().filter(|inode| self.known.contains(inode)) {
            match self.several.get(inode) {
                Some(several) => names.extend(several.iter().cloned()),
                None => drop(single.insert(*inode)),
            }
        }
        if single.is_empty() {
            return Ok(names);
        }
        let reader = repository.reader()?;
        let mut cursor = Tree::<ManifestSchema>::open(base.record.root, &reader).iter()?;
        while let Some((key, value)) = cursor.peek() {
            if single.contains(&EntryHead::decode(value)?.inode) {
                names.insert(key.to_vec());
            }
            cursor.advance()?;
        }
        Ok(names)
    }
}
