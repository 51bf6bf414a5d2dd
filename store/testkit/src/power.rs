//! Power cuts: what a file system may hold after one, given the system calls that a program made.
//!
//! The model is harsher than any one file system. Bytes that were not fsynced may be there, gone, cut anywhere or read
//! as zeros, each file for itself. An entry of a folder (a file that was created, renamed, linked or removed) counts as durable
//! once that folder was fsynced; before that it may be there or not, each entry for itself. An fsync covers what
//! had returned before it began, and counts once it has returned itself. Sources: fsync(2), rename(2), "All File Systems
//! Are Not Created Equal" (Pillai et al., OSDI 2014).

mod content;
mod images;
mod trace;

pub use images::{Images, PowerImage};
pub use trace::{STRACE_CALLS, parse};

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files and folders below a root, by relative path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// Every folder below the root.
    pub folders: BTreeSet<PathBuf>,
    /// Every file with its content.
    pub files: BTreeMap<PathBuf, Arc<Vec<u8>>>,
}

impl Files {
    /// Reads what lies below a folder.
    pub fn load(root: &Path) -> io::Result<Self> {
        let mut found = Self::default();
        let mut open = vec![PathBuf::new()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(root.join(&folder))? {
                let entry = entry?;
                let path = folder.join(entry.file_name());
                if entry.file_type()?.is_dir() {
                    found.folders.insert(path.clone());
                    open.push(path);
                } else {
                    found.files.insert(path, Arc::new(fs::read(entry.path())?));
                }
            }
        }
        Ok(found)
    }

    /// Writes them below a folder, which is made.
    pub fn store(&self, root: &Path) -> io::Result<()> {
        fs::create_dir_all(root)?;
        for folder in &self.folders {
            fs::create_dir(root.join(folder))?;
        }
        self.files.iter().try_for_each(|(path, bytes)| fs::write(root.join(path), &**bytes))
    }

    /// What lies below one of the folders, by path relative to it.
    pub fn below(&self, folder: &Path) -> Self {
        let inside = |path: &PathBuf| path.strip_prefix(folder).ok().map(Path::to_path_buf);
        Self {
            folders: self
                .folders
                .iter()
                .filter_map(inside)
                .filter(|p| *p != Path::new(""))
                .collect(),
            files: self
                .files
                .iter()
                .filter_map(|(path, bytes)| Some((inside(path)?, Arc::clone(bytes))))
                .collect(),
        }
    }
}

/// One thing that a program did to files and folders below the root, or said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Made a folder.
    MakeFolder(PathBuf),
    /// Made an empty file under a name that was free.
    Create(PathBuf),
    /// Wrote bytes at an offset of a file.
    Write(FileId, u64, Vec<u8>),
    /// Cut or extended a file.
    SetLen(FileId, u64),
    /// Gave a file another name; what had that name has none any more.
    Rename(PathBuf, PathBuf),
    /// Gave a file one more name.
    Link(PathBuf, PathBuf),
    /// Took a name away.
    Unlink(PathBuf),
    /// Removed a folder.
    RemoveFolder(PathBuf),
    /// Synced a file's bytes.
    SyncFile(FileId),
    /// Synced a folder's entries.
    SyncFolder(PathBuf),
    /// Wrote to standard output.
    Say(String),
}

/// A file, whatever its names: numbered in the order in which the files were met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub usize);

/// An action that succeeded, and the moments at which it began and returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What was done.
    pub action: Action,
    /// The moment of the call.
    pub begun: usize,
    /// The moment at which it returned.
    pub ended: usize,
}

/// What a program did, in the order in which its calls returned.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// What was there before, all of it durable.
    pub start: Files,
    /// The files that were there before: file `FileId(n)` is the n-th. Later ones are numbered as they are created.
    pub known: Vec<PathBuf>,
    /// What was done.
    pub operations: Vec<Operation>,
}

impl Recording {
    /// The same program with a bug: one of its syncs is left out. None when there are fewer syncs.
    pub fn without_sync(&self, number: usize) -> Option<(Self, Action)> {
        let is_sync = |operation: &Operation| {
            matches!(operation.action, Action::SyncFile(_) | Action::SyncFolder(_))
        };
        let mut syncs =
            self.operations.iter().enumerate().filter(|(_, operation)| is_sync(operation));
        let (at, _) = syncs.nth(number)?;
        let mut mutant = self.clone();
        let left_out = mutant.operations.remove(at).action;
        Some((mutant, left_out))
    }
}

#[cfg(test)]
mod tests;
