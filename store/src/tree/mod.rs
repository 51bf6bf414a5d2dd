//! A persistent sorted Merkle tree (prolly tree), the one structure for manifests, content lists and the catalogue.
//!
//! Entries stand in leaf nodes, leaf nodes under branch nodes; a node ends where a keyed hash of a key says so, within
//! a least and a largest size. Equal entries give an equal root, however the tree came to be: so trees share nodes,
//! [`edit()`] writes O(k log n) nodes and [`diff()`] skips equal subtrees by id. Knows nothing of what entries mean (that is
//! the [`Schema`]'s business), of packs or of keys other than the boundary key. Sources verify nodes against their ids.
//! The idea: content-defined Merkle search trees as in Noms and Dolt; the bytes of a node are in FORMAT.md.

mod aggregate;
mod builder;
pub mod codec;
mod cursor;
mod diff;
mod edit;
pub mod memory;
mod node;
mod params;
mod root;
mod schema;
mod visit;
mod walk;

#[cfg(test)]
mod tests;

pub use aggregate::{Aggregate, range_aggregate};
pub use builder::Builder;
pub use cursor::{Cursor, Tree};
pub use diff::{Change, DiffIter, diff};
pub use edit::{Editor, edit};
pub use node::{ChildView, NodeView, children, node_references};
pub use params::TreeParams;
pub use root::Root;
pub use schema::Schema;
pub use visit::{Part, visit};

use crate::backend::ObjectBytes;
use crate::error::Result;
use crate::id::NodeId;
use stillpoint_chunker::ChunkId;

/// The bytes of one node; cheap to clone.
pub type NodeBytes = ObjectBytes;

/// Where nodes are read from.
pub trait NodeSource: Sync {
    /// The node with this id, verified against it.
    ///
    /// # Errors
    /// `Missing` when there is no such node, `Damaged` when its bytes do not give its id, or the storage's error.
    fn load(&self, id: &NodeId) -> Result<NodeBytes>;
}

/// Where nodes are written to.
pub trait NodeSink {
    /// Takes one node and gives its id. A node that is stored already may come again.
    ///
    /// `references` are the ids the node refers to, sorted, each once: child nodes of a branch, what
    /// [`Schema::references`] names for the entries of a leaf.
    ///
    /// # Errors
    /// The storage's error; the tree under construction is abandoned.
    fn store(&mut self, bytes: Vec<u8>, references: &[ChunkId]) -> Result<NodeId>;
}

/// The smallest key greater than every key that starts with `prefix`, or None when there is none.
///
/// With it a prefix is a range: `prefix..after_prefix(prefix)`.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}
