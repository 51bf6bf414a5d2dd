//! Finds single paths inside a root, under the same rules as a walk that would come by.
//!
//! Paths are asked for in ascending order, so the directories on the way stay open from one to the next. No link
//! below the root is followed.

use super::listing::{marker_in, pattern_path};
use super::rules::ScanRules;
use super::{OPEN_ANCESTORS_MAX, look_at};
use crate::meta::Stat;
use crate::path;
use crate::source::Dir;
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::ffi::CString;
use std::sync::Arc;
use stillpoint_store::limits::TREE_KEY_BYTES_MAX;

/// The directory that holds a path, the path's name in there, and its stat.
pub(super) type Spot = (Arc<Dir>, CString, Stat);

/// The way to the path that was found last.
#[derive(Debug, Default)]
pub(super) struct Picker {
    levels: Vec<Level>,
}

/// A directory on the way, from the root down.
#[derive(Debug)]
struct Level {
    key: Vec<u8>,
    dir: Arc<Dir>,
    /// The only name that counts in here, because it is a marker.
    only: Option<Vec<u8>>,
}

impl Level {
    fn new(key: Vec<u8>, dir: Arc<Dir>, rules: &ScanRules) -> Self {
        let only = marker_in(&dir, rules).map(<[u8]>::to_vec);
        Self { key, dir, only }
    }

    /// A name in here with its stat; None where it is not there or left out.
    fn look(&self, rules: &ScanRules, key: &[u8]) -> Result<Option<(CString, Stat)>, Errno> {
        let name = path::file_name(key);
        if self.only.as_ref().is_some_and(|only| only != name) {
            return Ok(None);
        }
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let looked = Stat::at(self.dir.fd()?.as_fd(), &name);
        let Some(stat) = unless_gone(looked)? else { return Ok(None) };
        let left_out = (rules.filter.has_patterns()
            && rules.filter.excludes(&pattern_path(key), stat.is_directory()))
            || (stat.is_file() && rules.filter.excludes_size(stat.size));
        Ok((!left_out).then_some((name, stat)))
    }
}

impl Picker {
    /// Looks at a path inside the root whose key has this length; None where it is not there or the rules leave it out.
    /// The root itself must be there.
    pub(super) fn look(
        &mut self,
        rules: &ScanRules,
        key: &[u8],
        root_len: usize,
    ) -> Result<Option<Spot>, Errno> {
        let root = key.get(..root_len).unwrap_or(key);
        let parent = match path::parent_key(key) {
            Some(parent) if key.len() > root_len => parent,
            _ => return look_at(root, false).map(Some),
        };
        if key.len() > TREE_KEY_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        if !self.open(rules, parent, root)? {
            return Ok(None);
        }
        let level = self.levels.last().expect("opened just now");
        let found = level.look(rules, key)?;
        Ok(found.map(|(name, stat)| (Arc::clone(&level.dir), name, stat)))
    }

    /// Opens the directory and all above it up to the root; false where the walk would not come by.
    fn open(&mut self, rules: &ScanRules, directory: &[u8], root: &[u8]) -> Result<bool, Errno> {
        while let Some(done) = self.levels.pop_if(|level| {
            !path::is_within(directory, &level.key) || !path::is_within(&level.key, root)
        }) {
            done.dir.release_if_many();
        }
        if self.levels.is_empty() {
            let Some((dir, name, stat)) = unless_gone(look_at(root, false))? else {
                return Ok(false);
            };
            if !rules.descends(&stat) {
                return Ok(false);
            }
            let Some(dir) = unless_gone(dir.open_child(&name))? else { return Ok(false) };
            self.levels.push(Level::new(root.to_vec(), dir, rules));
        }
        while let Some(level) = self.levels.last().filter(|level| level.key != directory) {
            let rest = directory.get(level.key.len()..).unwrap_or_default();
            let rest = rest.strip_prefix(&[path::SEPARATOR]).unwrap_or(rest);
            let name = rest.split(|byte| *byte == path::SEPARATOR).next().unwrap_or_default();
            let key = path::child_key(&level.key, name);
            let dir = match level.look(rules, &key)? {
                Some((name, stat)) if rules.descends(&stat) => {
                    unless_gone(level.dir.open_child(&name))?
                }
                _ => None,
            };
            let Some(dir) = dir else { return Ok(false) };
            self.levels.push(Level::new(key, dir, rules));
            if let Some(far) = self.levels.len().checked_sub(OPEN_ANCESTORS_MAX)
                && let Some(level) = self.levels.get(far)
            {
                level.dir.release();
            }
        }
        Ok(true)
    }
}

/// None for what is not there (any more), or was replaced by something else.
fn unless_gone<T>(found: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE) => Ok(None),
        Err(errno) => Err(errno),
    }
}
