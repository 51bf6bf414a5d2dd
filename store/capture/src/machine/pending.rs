//! What changed since the last pass that was saved.

use crate::journal::ChangeSet;
use std::collections::BTreeSet;
use stillpoint_archive::backup::Changes;

/// Changes that no pass has saved yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending {
    paths: BTreeSet<Vec<u8>>,
    trees: BTreeSet<Vec<u8>>,
    /// Inodes that changed, perhaps under names that are not among the paths.
    linked: BTreeSet<u64>,
    /// Why only a walk can tell what changed.
    gap: Option<String>,
}

impl Pending {
    /// Adds what a journal tells.
    pub fn add(&mut self, changes: ChangeSet) {
        if let Some(gap) = changes.gap {
            self.gap.get_or_insert(gap.to_string());
        }
        self.trees.extend(changes.trees);
        self.paths.extend(changes.paths);
        self.linked.extend(changes.linked.iter().map(|inode| inode.number));
    }

    /// Replaces inodes by the names that `names` knows for them.
    ///
    /// # Errors
    /// Those of `names`; the inodes stay then.
    pub fn settle<E>(
        &mut self,
        names: impl FnOnce(&BTreeSet<u64>) -> Result<BTreeSet<Vec<u8>>, E>,
    ) -> Result<(), E> {
        if !self.linked.is_empty() {
            self.paths.extend(names(&self.linked)?);
            self.linked.clear();
        }
        Ok(())
    }

    /// Why only a walk can tell what changed; None where the changes are all.
    pub fn gap(&self) -> Option<&str> {
        self.gap.as_deref()
    }

    /// True when nothing changed but directories above the roots, whose own attributes are saved: no reason for a pass.
    pub fn is_idle(&self, roots: &[Vec<u8>]) -> bool {
        let is_way = |key: &Vec<u8>| {
            roots.iter().any(|root| stillpoint_archive::path::is_within(root, key) && root != key)
        };
        self.gap.is_none() && self.trees.is_empty() && self.paths.iter().all(is_way)
    }

    /// The paths by themselves and the trees, none of them within another.
    pub fn into_sets(self) -> (BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>) {
        let within = |key: &[u8], trees: &BTreeSet<Vec<u8>>| {
            std::iter::successors(stillpoint_archive::path::parent_key(key), |key| {
                stillpoint_archive::path::parent_key(key)
            })
            .any(|above| trees.contains(above))
        };
        let trees: BTreeSet<Vec<u8>> =
            self.trees.iter().filter(|key| !within(key, &self.trees)).cloned().collect();
        let outside = |key: &Vec<u8>| !trees.contains(key) && !within(key, &trees);
        let paths = self.paths.into_iter().filter(outside).collect();
        (paths, trees)
    }

    /// As changes that are looked at live. Paths within trees stay: they are read whatever their times say.
    pub fn into_changes(self) -> Changes {
        Changes { paths: self.paths, trees: self.trees, ..Changes::default() }
    }

    /// Adds paths to look at again.
    pub fn look_again(&mut self, paths: impl IntoIterator<Item = Vec<u8>>) {
        self.paths.extend(paths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(texts: &[&str]) -> BTreeSet<Vec<u8>> {
        texts.iter().map(|text| text.replace('/', "\0").into_bytes()).collect()
    }

    // What lies above the roots is no reason for a pass; the roots and what is below are.
    #[test]
    fn ways_alone_are_idle() {
        let roots = [b"a\0b\0c".to_vec()];
        for (path, is_idle) in
            [("a", true), ("a/b", true), ("", true), ("a/b/c", false), ("a/b/c/d", false)]
        {
            let mut pending = Pending::default();
            pending.add(ChangeSet { paths: keys(&[path]), ..ChangeSet::default() });
            assert_eq!(pending.is_idle(&roots), is_idle, "{path}");
        }
    }

    // Trees swallow what lies within them; several drains add up.
    #[test]
    fn what_lies_within_a_tree_is_named_once() {
        let mut pending = Pending::default();
        let set = |paths: &[&str], trees: &[&str]| ChangeSet {
            paths: keys(paths),
            trees: keys(trees),
            ..ChangeSet::default()
        };
        pending.add(set(&["a/b/c", "x"], &["q/r/s"]));
        pending.add(set(&["y", "q/r"], &["a/b", "q"]));
        assert!(
            pending.gap().is_none()
                && !pending.is_idle(&keys(&["q"]).into_iter().collect::<Vec<_>>())
        );
        assert_eq!(pending.into_sets(), (keys(&["x", "y"]), keys(&["a/b", "q"])));
    }
}
