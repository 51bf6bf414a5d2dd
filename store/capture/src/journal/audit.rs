//! The audit: what a journal named, against what a comparison of two walks found.
//!
//! Pure. A miss is a change that the journal did not name: the one number that must be 0.

use super::{ChangeSet, Inode};
use std::collections::BTreeMap;
use std::ops::Bound;
use stillpoint_archive::path::is_within;

/// Missed keys that are kept to be shown.
const SHOWN_MAX: usize = 100;

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audit {
    /// Keys that differ between the two walks.
    pub changed: u64,
    /// Of those, the ones that the journal did not name.
    pub misses: u64,
    /// Some of those.
    pub missed: Vec<Vec<u8>>,
    /// Paths and trees that the journal named although nothing differs there. They cost a look, and are no error.
    pub surplus: u64,
}

impl Audit {
    /// Compares what differs between two walks, with the inodes that were found under each key before and after, with what was
    /// named in between.
    pub fn compare(changed: &BTreeMap<Vec<u8>, Vec<Inode>>, named: &ChangeSet) -> Self {
        let mut audit = Self { changed: count(changed.len()), ..Self::default() };
        for (key, inodes) in changed {
            let is_linked = inodes.iter().any(|inode| named.linked.contains(inode));
            if !is_linked && !named.names(key) {
                audit.misses += 1;
                if audit.missed.len() < SHOWN_MAX {
                    audit.missed.push(key.clone());
                }
            }
        }
        let quiet = named.paths.iter().filter(|path| !changed.contains_key(*path)).count();
        let holds_change = |tree: &Vec<u8>| {
            let from = (Bound::Included(tree.as_slice()), Bound::Unbounded);
            let next = changed.range::<[u8], _>(from).next();
            next.is_some_and(|(key, _)| is_within(key, tree))
        };
        let still = named.trees.iter().filter(|tree| !holds_change(tree)).count();
        audit.surplus = count(quiet + still);
        audit
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).expect("memory is smaller than 2^64")
}

#[cfg(test)]
mod tests {
    use super::super::mounts::key;
    use super::*;

    // Paths, trees and inodes name a change; what names none is surplus.
    #[test]
    fn misses_and_surplus() {
        let inode = |number| Inode { device: 1, number };
        let changed = ["/a", "/t", "/t/x/y", "/t.x", "/link", "/missed"].iter().zip(1..);
        let changed: BTreeMap<_, _> =
            changed.map(|(path, number)| (key(path.as_bytes()), vec![inode(number)])).collect();
        let keys = |paths: &[&str]| paths.iter().map(|path| key(path.as_bytes())).collect();
        let named = ChangeSet {
            paths: keys(&["/a", "/b", "/t.x"]),
            trees: keys(&["/t", "/u"]),
            linked: [inode(5)].into(),
            ..ChangeSet::default()
        };
        let audit = Audit::compare(&changed, &named);
        let missed = vec![key(b"/missed")];
        assert_eq!(audit, Audit { changed: 6, misses: 1, missed, surplus: 2 });
    }
}
