//! Everything that a walk sees below a directory, and what differs between two walks.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use stillpoint_archive::path::{child_key, key_from_path};
use stillpoint_capture::journal::Inode;

/// What is known of one path: numbers, metadata but for the time of access, content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    pub inode: Inode,
    pub facts: Vec<i64>,
    pub content: u64,
}

/// All paths, by key.
pub type Listing = BTreeMap<Vec<u8>, Look>;

/// Walks a directory.
pub fn listing(root: &Path) -> Listing {
    let mut found = Listing::new();
    walk(root, key_from_path(root).unwrap(), &mut found);
    found
}

fn walk(path: &Path, key: Vec<u8>, found: &mut Listing) {
    let stat = fs::symlink_metadata(path).unwrap();
    let content = if stat.is_file() {
        fs::read(path).unwrap()
    } else if stat.is_symlink() {
        fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()
    } else {
        Vec::new()
    };
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    let facts = [
        i64::from(stat.mode()),
        i64::from(stat.uid()),
        i64::from(stat.gid()),
        i64::try_from(stat.nlink()).unwrap(),
        i64::try_from(stat.size()).unwrap(),
        stat.mtime(),
        stat.mtime_nsec(),
        stat.ctime(),
        stat.ctime_nsec(),
    ];
    let inode = Inode { device: stat.dev(), number: stat.ino() };
    if stat.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            let name = entry.unwrap().file_name();
            walk(&path.join(&name), child_key(&key, name.as_bytes()), found);
        }
    }
    found.insert(key, Look { inode, facts: facts.into(), content: hasher.finish() });
}

/// The keys that differ, with the inodes that they had.
pub fn differences(before: &Listing, after: &Listing) -> BTreeMap<Vec<u8>, Vec<Inode>> {
    let mut changed = BTreeMap::new();
    for key in before.keys().chain(after.keys()) {
        let (old, new) = (before.get(key), after.get(key));
        if old != new {
            let inodes = old.iter().chain(new.iter()).map(|look| look.inode).collect();
            changed.insert(key.clone(), inodes);
        }
    }
    changed
}
