//! The way from `/` to the roots: which directories are recorded, which paths are walked.
//!
//! Decides on paths only; opens nothing.

use crate::path::{self, key_from_path};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use stillpoint_store::{Error, Result};

/// One stop of the walk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Station {
    /// The key of the path.
    pub(crate) key: Vec<u8>,
    /// A root, walked with everything below it; otherwise a directory on the way to one, recorded alone.
    pub(crate) is_root: bool,
}

/// All stops of a walk over several roots, by ascending key. A root below another root is part of it. The root
/// directory is always among them, unless there are no roots at all.
pub(crate) fn stations(roots: &[Vec<u8>]) -> Vec<Station> {
    let mut outer: Vec<&Vec<u8>> = Vec::new();
    let sorted: BTreeSet<&Vec<u8>> = roots.iter().collect();
    // A root's descendants need not follow it directly ("a", "a.b", "a\0c" sort as a, a\0c, a.b: they do).
    for root in sorted {
        if !outer.last().is_some_and(|last| path::is_within(root, last)) {
            outer.push(root);
        }
    }
    let mut stations = BTreeSet::new();
    for root in outer {
        let mut above = path::parent_key(root);
        while let Some(key) = above {
            stations.insert(Station { key: key.to_vec(), is_root: false });
            above = path::parent_key(key);
        }
        stations.insert(Station { key: root.clone(), is_root: true });
    }
    stations.into_iter().collect()
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
                is_root: *is_root,
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
