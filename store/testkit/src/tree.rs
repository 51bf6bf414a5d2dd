//! Directory trees as plain values: generated from a seed or by proptest, written to disk, edited and compared.
//!
//! Knows file systems, not backups: `materialise` makes the real thing, `compare_trees` reads two real things and says
//! what differs, so that a backup and its restore can be judged by neither of them.

mod compare;
mod content;
mod edit;
mod generate;
mod materialise;
mod strategy;

pub use compare::{CompareOptions, Difference, compare_trees, compare_trees_with};
pub use content::{Content, Filling, Segment};
pub use generate::Shape;
pub use strategy::tree_spec;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use stillpoint_store::Timestamp;

/// The components of a path below the tree's root; each is 1 to 255 bytes without `/` and NUL.
pub type SpecPath = Vec<Vec<u8>>;

/// A tree without its root directory: everything below it by path, so that parents come before their children.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeSpec {
    /// The entries.
    pub nodes: BTreeMap<SpecPath, SpecNode>,
}

/// One file, directory or other entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecNode {
    /// What it is.
    pub kind: SpecKind,
    /// Its metadata; that of a hard link is its target's.
    pub meta: SpecMeta,
}

/// Metadata that can be set from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecMeta {
    /// Permission bits, 0 to 07777. Ignored for symbolic links.
    pub mode: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// User and group; None leaves those of the process.
    pub owner: Option<(u32, u32)>,
    /// Extended attributes, by full name; only regular files and directories carry any.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpecKind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link to these bytes.
    Symlink(Vec<u8>),
    /// One more name of the regular file at this path.
    HardLink(SpecPath),
    /// A FIFO.
    Fifo,
}

impl TreeSpec {
    /// Bytes of content of all regular files, holes included.
    pub fn content_bytes(&self) -> u64 {
        let files = self.nodes.values().filter_map(|node| match &node.kind {
            SpecKind::File(content) => Some(content.len()),
            _ => None,
        });
        files.sum()
    }

    /// Paths of all regular files, links to them not included.
    pub fn files(&self) -> Vec<&SpecPath> {
        let files = self.nodes.iter().filter(|(_, node)| matches!(node.kind, SpecKind::File(_)));
        files.map(|(path, _)| path).collect()
    }

    /// Removes entries whose parent is no directory and links whose target is no regular file.
    fn normalise(&mut self) {
        let mut kept: BTreeMap<SpecPath, SpecNode> = BTreeMap::new();
        for (path, node) in std::mem::take(&mut self.nodes) {
            let Some((_, parent)) = path.split_last() else { continue };
            let below_directory = parent.is_empty()
                || kept.get(parent).is_some_and(|node| node.kind == SpecKind::Directory);
            if below_directory {
                kept.insert(path, node);
            }
        }
        let is_file = |path: &SpecPath| {
            kept.get(path).is_some_and(|node| matches!(node.kind, SpecKind::File(_)))
        };
        let dangling: Vec<SpecPath> = kept
            .iter()
            .filter(|(_, node)| matches!(&node.kind, SpecKind::HardLink(to) if !is_file(to)))
            .map(|(path, _)| path.clone())
            .collect();
        dangling.iter().for_each(|path| drop(kept.remove(path)));
        self.nodes = kept;
    }
}

/// The place of a tree's path below `dir`.
pub fn join(dir: &Path, path: &[Vec<u8>]) -> PathBuf {
    path.iter().fold(dir.to_path_buf(), |folder, name| folder.join(OsStr::from_bytes(name)))
}
