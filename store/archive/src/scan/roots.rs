//! The way from `/` to the roots: which directories are recorded, which paths are walked.
//!
//! Decides on paths only; opens nothing.

use crate::path::{self, key_from_path};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use stillpoint_store::{Error, Result};

/// One stop of the walk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Station {
    /// The key of the path.
    pub(crate) key: Vec<u8>,
    /// How much of it is wanted.
    pub(crate) reach: Reach,
}

/// How much of a station is wanted, and how it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// A directory on the way to a root, recorded alone. Links on the way are followed.
    Way,
    /// A root, walked with everything below it.
    Root,
    /// A path inside a root whose key has this length, recorded alone. No link below the root is followed, and it is
    /// not there where the rules of the scan leave it out.
    Alone {
        /// Length of the root's key.
        root_len: usize,
    },
    /// The same, walked with everything below it.
    Whole {
        /// Length of the root's key.
        root_len: usize,
    },
}

/// All stops of a walk over several roots, by ascending key. A root below another root is part of it. The root
/// directory is always among them, unless there are no roots at all.
pub(crate) fn stations(roots: &[Vec<u8>]) -> Vec<Station> {
    let mut stations = BTreeSet::new();
    for root in outer_roots(roots) {
        for key in above(root) {
            stations.insert(Station { key: key.to_vec(), reach: Reach::Way });
        }
        stations.insert(Station { key: root.clone(), reach: Reach::Root });
    }
    stations.into_iter().collect()
}

/// The stops of a walk over parts of these roots: single paths, and trees with everything below them. What lies
/// neither in a root nor on the way to one is no stop; of a tree above roots, the roots are.
pub(crate) fn stations_within(
    roots: &[Vec<u8>],
    paths: &BTreeSet<Vec<u8>>,
    trees: &BTreeSet<Vec<u8>>,
) -> Vec<Station> {
    let roots = outer_roots(roots);
    let ways: BTreeSet<&[u8]> = roots.iter().flat_map(|root| above(root)).collect();
    let mut stations: BTreeMap<Vec<u8>, Reach> = BTreeMap::new();
    for key in paths {
        if let Some(root) = root_of(&roots, key) {
            stations.insert(key.clone(), Reach::Alone { root_len: root.len() });
        } else if ways.contains(key.as_slice()) {
            stations.insert(key.clone(), Reach::Way);
        }
    }
    for key in trees {
        if let Some(root) = root_of(&roots, key) {
            stations.insert(key.clone(), Reach::Whole { root_len: root.len() });
            continue;
        }
        for root in roots.iter().filter(|root| path::is_within(root, key)) {
            stations.insert((*root).clone(), Reach::Root);
            for way in above(root).filter(|way| path::is_within(way, key)) {
                stations.insert(way.to_vec(), Reach::Way);
            }
        }
    }
    stations.into_iter().map(|(key, reach)| Station { key, reach }).collect()
}

/// The roots that lie in no other one, by ascending key.
pub(crate) fn outer_roots(roots: &[Vec<u8>]) -> Vec<&Vec<u8>> {
    let mut outer: Vec<&Vec<u8>> = Vec::new();
    let sorted: BTreeSet<&Vec<u8>> = roots.iter().collect();
    // A root's descendants need not follow it directly ("a", "a.b", "a\0c" sort as a, a\0c, a.b: they do).
    for root in sorted {
        if !outer.last().is_some_and(|last| path::is_within(root, last)) {
            outer.push(root);
        }
    }
    outer
}

/// The outer root that this key lies in, or is.
pub(crate) fn root_of<'r>(outer: &[&'r Vec<u8>], key: &[u8]) -> Option<&'r Vec<u8>> {
    // Keys between a root and what lies in it lie in it too, so it is the last one that is not greater.
    let next = outer.partition_point(|root| root.as_slice() <= key);
    let root = outer.get(next.checked_sub(1)?)?;
    path::is_within(key, root).then_some(*root)
}

/// The directories above a key, nearest first.
pub(crate) fn above(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(path::parent_key(key), |key| path::parent_key(key))
}

/// The key of a root as the user named it: made absolute, `..` resolved through links, a last link kept.
///
/// # Errors
/// `Invalid` when the path does not lead anywhere.
pub fn root_key(root: &Path) -> Result<Vec<u8>> {
    let invalid = |error| Error::Invalid(format!("path {}: {error}", root.to_string_lossy()));
    let absolute = std::path::absolute(root).map_err(invalid)?;
    if !absolute.components().any(|component| component == Component::ParentDir) {
        return key_from_path(&absolute);
    }
    let resolved = match (absolute.parent(), absolute.components().next_back()) {
        (Some(parent), Some(Component::Normal(name))) => {
            parent.canonicalize().map_err(invalid)?.join(name)
        }
        _ => absolute.canonicalize().map_err(invalid)?,
    };
    key_from_path(&resolved)
}

/// The keys of all roots; see [`root_key`].
///
/// # Errors
/// As [`root_key`].
pub(crate) fn root_keys(roots: &[PathBuf]) -> Result<Vec<Vec<u8>>> {
    roots.iter().map(|root| root_key(root)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(roots: &[&str], expected: &[(&str, bool)]) {
        let roots: Vec<_> = roots.iter().map(|r| key_from_path(Path::new(r)).unwrap()).collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(p, is_root)| Station {
                key: key_from_path(Path::new(p)).unwrap(),
                reach: if *is_root { Reach::Root } else { Reach::Way },
            })
            .collect();
        assert_eq!(stations(&roots), expected);
    }

    // Roots merge: each parent once, nested roots vanish, order is key order.
    #[test]
    fn stations_of_roots() {
        check(&[], &[]);
        check(&["/"], &[("/", true)]);
        check(&["/", "/home"], &[("/", true)]);
        check(&["/a/b"], &[("/", false), ("/a", false), ("/a/b", true)]);
        check(
            &["/a/b/c", "/a/b.d", "/a/b", "/z", "/a/b"],
            &[("/", false), ("/a", false), ("/a/b", true), ("/a/b.d", true), ("/z", true)],
        );
    }

    // What leads up is resolved as the kernel would, what leads nowhere is refused.
    #[test]
    fn parent_components_follow_links() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("x/y")).unwrap();
        std::fs::write(base.join("x/f"), b"").unwrap();
        std::os::unix::fs::symlink("x/y", base.join("link")).unwrap();
        let key = |path: PathBuf| root_key(&path).unwrap();
        assert_eq!(key(base.join("link/../f")), key(base.join("x/f")));
        assert_eq!(key(base.join("x/y/..")), key(base.join("x")));
        assert_eq!(key(base.join("link")), key_from_path(&base.join("link")).unwrap());
        assert!(root_key(&base.join("no/../x/../f")).is_err());
        assert!(root_key(Path::new(".")).is_ok());
    }
}
