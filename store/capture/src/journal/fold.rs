//! Changes that pile up: a set of bounded size, in which many paths of one place become that place as a whole.
//!
//! Pure; knows keys and nothing of where they come from. Folding only ever names more.

use super::{ChangeSet, Gap, Inode};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use stillpoint_archive::path::{child_key, components, is_within, parent_key};

/// Paths and trees that are kept apart before some are folded.
pub const NAMED_MAX: usize = 200_000;
/// Inodes with several names that are kept; beyond this the set says that it is not whole.
pub const LINKED_MAX: usize = 1_000_000;
/// So many named paths in one directory are folded to the directory first.
const SIBLINGS_MAX: usize = 64;

/// A change set that grows.
#[derive(Debug, Clone)]
pub(super) struct Fold {
    set: ChangeSet,
    named_max: usize,
    linked_max: usize,
}

impl Default for Fold {
    fn default() -> Self {
        Self::new(NAMED_MAX, LINKED_MAX)
    }
}

impl Fold {
    /// An empty set with these limits.
    pub(super) fn new(named_max: usize, linked_max: usize) -> Self {
        Self { set: ChangeSet::default(), named_max, linked_max }
    }

    /// Notes a path; `roots` are what folding never goes above.
    pub(super) fn path<'a>(&mut self, key: Vec<u8>, roots: impl Iterator<Item = &'a [u8]>) {
        if self.set.paths.insert(key) {
            self.keep_bounds(roots);
        }
    }

    /// Notes everything below a directory.
    pub(super) fn tree<'a>(&mut self, key: Vec<u8>, roots: impl Iterator<Item = &'a [u8]>) {
        if self.set.trees.insert(key) {
            self.keep_bounds(roots);
        }
    }

    /// Notes an inode that has names which are not known here.
    pub(super) fn linked(&mut self, inode: Inode) {
        self.set.linked.insert(inode);
        if self.set.linked.len() > self.linked_max {
            self.set.linked.clear();
            self.gap(Gap::TooMany);
        }
    }

    /// Notes that something may be missing; the first reason stands.
    pub(super) fn gap(&mut self, gap: Gap) {
        self.set.gap.get_or_insert(gap);
    }

    /// Notes how many processes could not be looked at.
    pub(super) fn opaque(&mut self, processes: u64) {
        self.set.opaque = self.set.opaque.max(processes);
    }

    /// Adds all of another set.
    pub(super) fn add<'a>(&mut self, other: &ChangeSet, roots: impl Iterator<Item = &'a [u8]>) {
        self.set.paths.extend(other.paths.iter().cloned());
        self.set.trees.extend(other.trees.iter().cloned());
        other.linked.iter().for_each(|inode| self.linked(*inode));
        other.gap.iter().for_each(|gap| self.gap(gap.clone()));
        self.opaque(other.opaque);
        self.keep_bounds(roots);
    }

    /// Gives the set, without what its trees cover, and begins anew.
    pub(super) fn take(&mut self) -> ChangeSet {
        let mut set = std::mem::take(&mut self.set);
        absorb(&mut set);
        set
    }

    /// How many paths and trees are kept.
    pub(super) fn len(&self) -> usize {
        self.set.paths.len() + self.set.trees.len()
    }

    fn keep_bounds<'a>(&mut self, roots: impl Iterator<Item = &'a [u8]>) {
        if self.len() <= self.named_max {
            return;
        }
        absorb(&mut self.set);
        fold_siblings(&mut self.set);
        let half = self.named_max / 2;
        if self.len() > half {
            let roots: Vec<&[u8]> = roots.collect();
            fold_depth(&mut self.set, half, &roots);
        }
    }
}

/// Takes out what lies below a tree of the set.
fn absorb(set: &mut ChangeSet) {
    let mut outer: Option<Vec<u8>> = None;
    // Sorted keys: everything below a directory follows right behind it.
    set.trees.retain(|tree| {
        let is_inner = outer.as_ref().is_some_and(|outer| is_within(tree, outer));
        if !is_inner {
            outer = Some(tree.clone());
        }
        !is_inner
    });
    let trees = &set.trees;
    set.paths.retain(|path| !covers(trees, path));
}

/// Whether one of these trees, none of which lies within another, holds the path.
pub(super) fn covers(trees: &BTreeSet<Vec<u8>>, path: &[u8]) -> bool {
    let upto = (Bound::Unbounded, Bound::Included(path));
    let nearest = trees.range::<[u8], _>(upto).next_back();
    nearest.is_some_and(|tree| is_within(path, tree))
}

/// Directories with many named children become trees.
fn fold_siblings(set: &mut ChangeSet) {
    let mut children: BTreeMap<&[u8], usize> = BTreeMap::new();
    for parent in set.paths.iter().filter_map(|path| parent_key(path)) {
        *children.entry(parent).or_default() += 1;
    }
    let full = children.into_iter().filter(|(_, count)| *count > SIBLINGS_MAX);
    let full: Vec<Vec<u8>> = full.map(|(parent, _)| parent.to_vec()).collect();
    set.trees.extend(full);
    absorb(set);
}

/// Everything below the deepest level at which at most `most` places are named becomes part of the place above it. Roots
/// are the last level.
fn fold_depth(set: &mut ChangeSet, most: usize, roots: &[&[u8]]) {
    let depth = |key: &[u8]| components(key).count();
    let all = || set.paths.iter().chain(&set.trees);
    let mut level = all().map(|key| depth(key)).max().unwrap_or_default();
    loop {
        level = level.saturating_sub(1);
        let mut folded = ChangeSet::default();
        for key in all() {
            let above = roots.iter().filter(|root| is_within(key, root)).map(|root| depth(root));
            let keep = above.max().map_or(usize::MAX, |root| root.max(level));
            if depth(key) <= keep && set.paths.contains(key) {
                folded.paths.insert(key.clone());
            } else {
                let names = components(key).take(keep);
                folded.trees.insert(names.fold(Vec::new(), |key, name| child_key(&key, name)));
            }
        }
        absorb(&mut folded);
        if level == 0 || folded.paths.len() + folded.trees.len() <= most {
            set.paths = folded.paths;
            set.trees = folded.trees;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mounts::key;
    use super::*;

    fn keys(paths: &[&str]) -> BTreeSet<Vec<u8>> {
        paths.iter().map(|path| key(path.as_bytes())).collect()
    }

    fn roots() -> impl Iterator<Item = &'static [u8]> {
        [&b"r"[..], b"s\0t"].into_iter()
    }

    // What a tree holds is not named again; names that only begin alike are.
    #[test]
    fn trees_absorb() {
        let mut fold = Fold::default();
        for path in ["/r/a/b", "/r/a", "/r/a.b", "/r/ab", "/r"] {
            fold.path(key(path.as_bytes()), roots());
        }
        for tree in ["/r/a", "/r/a/x", "/r/c"] {
            fold.tree(key(tree.as_bytes()), roots());
        }
        let set = fold.take();
        assert_eq!(
            (set.trees, set.paths),
            (keys(&["/r/a", "/r/c"]), keys(&["/r", "/r/a.b", "/r/ab"]))
        );
        assert_eq!(fold.take(), ChangeSet::default());
    }

    // Beyond the limit a crowded directory is folded, and what lies elsewhere stays as it is.
    #[test]
    fn crowded_directories_fold_first() {
        let mut fold = Fold::new(100, 10);
        for number in 0..=99 {
            fold.path(key(format!("/r/d/{number}").as_bytes()), roots());
        }
        assert_eq!(fold.len(), 100);
        fold.path(key(b"/r/other"), roots());
        let set = fold.take();
        assert_eq!((set.trees, set.paths), (keys(&["/r/d"]), keys(&["/r/other"])));
    }

    // Whatever is noted, the set stays within its limit and covers everything that was noted; it never rises above a root.
    #[test]
    fn bounds_hold_and_nothing_is_forgotten() {
        for spread in [1, 3, 50] {
            let mut fold = Fold::new(60, 10);
            let mut noted = Vec::new();
            for number in 0..5000u32 {
                let (a, b) = (number % spread, number / 7);
                let root = if number % 2 == 0 { "r" } else { "s/t" };
                let path = key(format!("/{root}/{a}/{b}/{number}/x").as_bytes());
                noted.push(path.clone());
                if number % 11 == 0 {
                    fold.tree(path, roots())
                } else {
                    fold.path(path, roots())
                }
                assert!(fold.len() <= 60);
            }
            let set = fold.take();
            for path in &noted {
                assert!(set.paths.contains(path) || covers(&set.trees, path), "{path:?}");
            }
            let inside = |tree: &Vec<u8>| roots().any(|root| is_within(tree, root));
            assert!(set.trees.iter().all(inside), "{:?}", set.trees);
        }
    }

    // Too many inodes are a gap, and the first reason for a gap stands.
    #[test]
    fn too_many_inodes() {
        let mut fold = Fold::new(10, 3);
        (0..4).for_each(|number| fold.linked(Inode { device: 1, number }));
        fold.gap(Gap::Overflow);
        let set = fold.take();
        assert_eq!((set.gap, set.linked.len()), (Some(Gap::TooMany), 0));
    }
}
