//! What the journal is about: the roots, where they really lie, and the way to them.
//!
//! Turns real keys into the keys under which a manifest holds them. The directories on the way to a root are in the manifest
//! too; they are few, so they are looked at with every drain instead of listened to.

use crate::error::{Error, Result};
use rustix::fs::Stat;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use stillpoint_archive::path::{child_key, file_name, is_within, key_from_path, parent_key};
use stillpoint_archive::path::{components, path_from_key};

/// A root.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Root {
    /// Its key in the manifest: as it was named.
    named: Vec<u8>,
    /// Its key without links on the way.
    real: Vec<u8>,
}

/// The roots and the way to them.
#[derive(Debug)]
pub(super) struct Scope {
    roots: Vec<Root>,
    /// The directories above the roots, as they were last seen.
    ways: BTreeMap<Vec<u8>, Option<Seen>>,
}

/// What a look at a directory above a root shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What happened on the way to the roots.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct WayChanges {
    /// Directories above roots that changed.
    pub(super) paths: BTreeSet<Vec<u8>>,
    /// A root lies elsewhere now, or something else lies in its place.
    pub(super) moved: bool,
}

impl Scope {
    /// The scope of these roots.
    ///
    /// # Errors
    /// `Refused` without roots or for a root that leads nowhere.
    pub(super) fn new(roots: &[PathBuf]) -> Result<Self> {
        let mut found = Vec::new();
        for root in roots {
            let named = stillpoint_archive::root_key(root)?;
            let Some(real) = real_key(&named) else {
                return Err(Error::Refused {
                    what: format!("there is no {}", root.display()),
                    hint: Some("a journal needs directories that exist: check the path".into()),
                });
            };
            found.push(Root { named, real });
        }
        if found.is_empty() {
            return Err(Error::Refused {
                what: "a journal needs at least one directory".into(),
                hint: None,
            });
        }
        let above = found.iter().flat_map(|root| ways(&root.named));
        let ways = above.map(|way| (way.clone(), look(&way))).collect();
        Ok(Self { roots: found, ways })
    }

    /// Where the roots really lie.
    pub(super) fn real_roots(&self) -> Vec<Vec<u8>> {
        self.roots.iter().map(|root| root.real.clone()).collect()
    }

    /// The keys of the roots in the manifest.
    pub(super) fn roots(&self) -> impl Iterator<Item = &[u8]> {
        self.roots.iter().map(|root| root.named.as_slice())
    }

    /// Whether something below this real directory, or it itself, may be inside a root.
    pub(super) fn is_near(&self, real: &[u8]) -> bool {
        self.roots.iter().any(|root| is_within(real, &root.real) || is_within(&root.real, real))
    }

    /// The manifest's keys of a real path: none outside the roots, several where roots lead to the same place.
    pub(super) fn keys(&self, real: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        let inside = self.roots.iter().filter(|root| is_within(real, &root.real));
        inside.map(|root| rebased(real, &root.real, &root.named))
    }

    /// Looks at the way to the roots again. `now` is a moment of the file systems' clock: what changed shortly before it may
    /// change once more without looking different, so it counts as changed the next time, too.
    pub(super) fn look_again(&mut self, now: (i64, i64)) -> WayChanges {
        let mut changes = WayChanges::default();
        for (way, before) in &mut self.ways {
            let seen = look(way);
            if seen != *before {
                changes.paths.insert(way.clone());
            }
            let settled = |seen: &Seen| seen.changed.0 + 1 < now.0;
            changes.moved |= match (&seen, &before) {
                (Some(seen), Some(before)) => seen.inode != before.inode,
                (None, _) => true,
                (Some(_), None) => false,
            };
            // An inode is remembered in any case: it never changes unnoticed.
            *before = seen.map(|seen| Seen {
                changed: if settled(&seen) { seen.changed } else { (0, 0) },
                ..seen
            });
        }
        for root in &mut self.roots {
            let real = real_key(&root.named).unwrap_or_else(|| root.real.clone());
            changes.moved |= real != root.real;
            root.real = real;
        }
        changes
    }
}

/// `key`, which lies within `from`, as if that were `to`.
pub(super) fn rebased(key: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let rest = key.get(from.len()..).unwrap_or_default();
    components(rest.strip_prefix(b"\0").unwrap_or(rest))
        .fold(to.to_vec(), |base, name| child_key(&base, name))
}

/// The key with all links on the way resolved, but not a last one.
fn real_key(named: &[u8]) -> Option<Vec<u8>> {
    let path = path_from_key(named);
    std::fs::symlink_metadata(&path).ok()?;
    let Some(parent) = parent_key(named) else { return Some(Vec::new()) };
    let parent = key_from_path(&path_from_key(parent).canonicalize().ok()?).ok()?;
    Some(child_key(&parent, file_name(named)))
}

fn ways(root: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    std::iter::successors(parent_key(root), |key| parent_key(key)).map(<[u8]>::to_vec)
}

fn look(way: &[u8]) -> Option<Seen> {
    let stat: Stat = rustix::fs::lstat(path_from_key(way)).ok()?;
    let nanos = |nanos: u64| i64::try_from(nanos).unwrap_or_default();
    Some(Seen {
        inode: (stat.st_dev, stat.st_ino),
        modified: (stat.st_mtime, nanos(stat.st_mtime_nsec)),
        changed: (stat.st_ctime, nanos(stat.st_ctime_nsec)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn key(path: &Path) -> Vec<u8> {
        key_from_path(path).unwrap()
    }

    // A root that is reached through a link has real keys and named ones; what lies beside it has none.
    #[test]
    fn links_on_the_way() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("data/home")).unwrap();
        std::os::unix::fs::symlink("data", base.join("link")).unwrap();
        let scope = Scope::new(&[base.join("link/home")]).unwrap();
        let keys = |path: &str| scope.keys(&key(&base.join(path))).collect::<Vec<_>>();
        assert_eq!(keys("data/home/x/y"), [key(&base.join("link/home/x/y"))]);
        assert_eq!(keys("data/home"), [key(&base.join("link/home"))]);
        assert!(keys("data/homes").is_empty() && keys("data").is_empty());
        assert!(scope.is_near(&key(&base.join("data"))) && scope.is_near(b""));
        assert!(!scope.is_near(&key(&base.join("data/homes"))));
    }

    // No roots and roots that are not there are refused.
    #[test]
    fn bad_roots() {
        assert!(Scope::new(&[]).is_err());
        let error = Scope::new(&["/no/such/place".into()]).unwrap_err().to_string();
        assert!(error.contains("/no/such/place"), "{error}");
    }

    // A file beside the root changes the directory above it; another directory in its place moves the root.
    #[test]
    fn changes_on_the_way() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("a/root")).unwrap();
        let mut scope = Scope::new(&[base.join("a/root")]).unwrap();
        let later = (i64::MAX, 0);
        fs::write(base.join("a/beside"), b"").unwrap();
        let changes = scope.look_again(later);
        assert!(changes.paths.contains(&key(&base.join("a"))) && !changes.moved, "{changes:?}");
        assert_eq!(scope.look_again(later), WayChanges::default());
        fs::rename(base.join("a"), base.join("b")).unwrap();
        assert!(scope.look_again(later).moved);
        fs::create_dir_all(base.join("a/root")).unwrap();
        assert!(scope.look_again(later).paths.contains(&key(&base.join("a"))));
    }

    // What changed a moment ago is named again the next time, because a second change may look the same.
    #[test]
    fn fresh_changes_count_twice() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("root")).unwrap();
        let mut scope = Scope::new(&[temp.path().join("root")]).unwrap();
        fs::write(temp.path().join("beside"), b"").unwrap();
        let way = key(&temp.path().canonicalize().unwrap());
        assert!(scope.look_again((0, 0)).paths.contains(&way));
        assert!(scope.look_again((i64::MAX, 0)).paths.contains(&way));
        assert!(!scope.look_again((i64::MAX, 0)).paths.contains(&way));
    }
}
