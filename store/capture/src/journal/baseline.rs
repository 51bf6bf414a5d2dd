//! A walk that is kept, to compare a later one with: what an audit of a running journal needs.
//!
//! Reads no content: what differs is what `stat` shows, the time of the last change of the inode included.

use super::Inode;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use stillpoint_archive::path::{child_key, path_from_key};

/// What was there at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// The journal's position before the walk.
    pub position: String,
    /// Each path with what it was.
    entries: Vec<(ByteBuf, Inode, u64)>,
}

impl Baseline {
    /// Walks everything below these keys, or only what is on the same file systems. What cannot be read counts as not there.
    pub fn walk(position: String, roots: &[Vec<u8>], crosses_mounts: bool) -> Self {
        let mut found = BTreeMap::new();
        for root in roots {
            let Some((inode, mark, _)) = look(root) else { continue };
            let mut waiting = vec![root.clone()];
            found.insert(root.clone(), (inode, mark));
            while let Some(directory) = waiting.pop() {
                let Ok(names) = std::fs::read_dir(path_from_key(&directory)) else { continue };
                for name in names.flatten() {
                    let key = child_key(&directory, name.file_name().as_bytes());
                    let Some((entry, mark, is_directory)) = look(&key) else { continue };
                    found.insert(key.clone(), (entry, mark));
                    if is_directory && (crosses_mounts || entry.device == inode.device) {
                        waiting.push(key);
                    }
                }
            }
        }
        let entries = found.into_iter().map(|(key, (inode, mark))| (key.into(), inode, mark));
        Self { position, entries: entries.collect() }
    }

    /// How many paths it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without any path.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The keys that differ in another walk, with the inodes that they had.
    pub fn differences(&self, other: &Self) -> BTreeMap<Vec<u8>, Vec<Inode>> {
        let of = |walk: &Self| -> BTreeMap<Vec<u8>, (Inode, u64)> {
            let entries = walk.entries.iter();
            entries.map(|(key, inode, mark)| (key.to_vec(), (*inode, *mark))).collect()
        };
        let (before, after) = (of(self), of(other));
        let mut changed: BTreeMap<Vec<u8>, Vec<Inode>> = BTreeMap::new();
        for (walk, there) in [(&before, &after), (&after, &before)] {
            for (key, found) in walk.iter().filter(|(key, found)| there.get(*key) != Some(*found)) {
                changed.entry(key.clone()).or_default().push(found.0);
            }
        }
        changed
    }

    /// Keeps it in a file, in place of the one before.
    ///
    /// # Errors
    /// Whatever writing gives.
    pub fn save(&self, path: &Path) -> Result<()> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::Failed(format!("writing {}: {error}", path.display()))
        };
        let draft = path.with_extension("new");
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&draft).map_err(|error| failed(&error))?;
        let mut writer = BufWriter::new(file);
        ciborium::into_writer(self, &mut writer).map_err(|error| failed(&error))?;
        writer.flush().map_err(|error| failed(&error))?;
        std::fs::rename(&draft, path).map_err(|error| failed(&error))
    }

    /// The one that was kept; None when there is none, or none that can be read.
    pub fn load(path: &Path) -> Option<Self> {
        ciborium::from_reader(BufReader::new(File::open(path).ok()?)).ok()
    }
}

/// The inode, a hash of what `stat` shows but for the time of access, and whether it is a directory.
fn look(key: &[u8]) -> Option<(Inode, u64, bool)> {
    let stat = std::fs::symlink_metadata(path_from_key(key)).ok()?;
    let facts = [
        u64::from(stat.mode()),
        u64::from(stat.uid()),
        u64::from(stat.gid()),
        stat.nlink(),
        stat.rdev(),
        stat.size(),
        stat.mtime().cast_unsigned(),
        stat.mtime_nsec().cast_unsigned(),
        stat.ctime().cast_unsigned(),
        stat.ctime_nsec().cast_unsigned(),
    ];
    // FNV-1a: nobody gains from a collision here.
    let bytes = facts.iter().flat_map(|fact| fact.to_le_bytes());
    let mark = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Some((Inode { device: stat.dev(), number: stat.ino() }, mark, stat.is_dir()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stillpoint_archive::path::key_from_path;

    // A walk that is kept is the same when it is read again, and shows what differs later.
    #[test]
    fn kept_and_compared() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        std::fs::create_dir_all(root.join("d/e")).unwrap();
        std::fs::write(root.join("d/e/f"), b"1").unwrap();
        std::fs::write(root.join("same"), b"1").unwrap();
        let key = |path: &str| key_from_path(&root.join(path)).unwrap();
        let roots = [key("")];
        let before = Baseline::walk("a.1".into(), &roots, true);
        let file = temp.path().join("kept");
        assert_eq!(Baseline::load(&file), None);
        before.save(&file).unwrap();
        assert_eq!(Baseline::load(&file), Some(before.clone()));
        assert_eq!(before.len(), 5);
        std::fs::write(root.join("d/e/f"), b"longer").unwrap();
        std::fs::write(root.join("d/new"), b"").unwrap();
        let after = Baseline::walk("a.2".into(), &roots, true);
        let changed: Vec<_> = before.differences(&after).into_keys().collect();
        assert_eq!(changed, [key("d"), key("d/e/f"), key("d/new")]);
        assert!(after.differences(&after).is_empty());
    }
}
