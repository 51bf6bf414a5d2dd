//! Reachability: which chunks the live snapshots need, from the references in pack footers alone.
//!
//! No content is opened, so who holds only the metadata key can mark too.

use crate::error::{Error, Result};
use crate::id::{ChunkId, ChunkKind, NodeId};
use crate::pack::Footer;
use crate::write::IdSet;
use std::collections::HashMap;

/// What tree nodes refer to, gathered from the footers of packs that hold nodes.
#[derive(Default)]
pub(crate) struct References {
    nodes: HashMap<NodeId, Box<[ChunkId]>>,
}

impl References {
    /// Adds the nodes of one pack.
    pub fn add_footer(&mut self, footer: &Footer) {
        for (ordinal, (id, kind, _)) in footer.locations().enumerate() {
            if kind == ChunkKind::Node {
                self.nodes.insert(id, footer.references(ordinal).into());
            }
        }
    }

    /// Everything that can be reached from these roots, the roots included. Ids of unknown nodes are simply
    /// ends; whether they exist is the caller's question.
    pub fn reachable(&self, roots: impl IntoIterator<Item = NodeId>) -> Result<IdSet> {
        let mut seen = IdSet::default();
        let mut open: Vec<NodeId> = Vec::new();
        for root in roots {
            if !self.nodes.contains_key(&root) {
                return Err(Error::missing(format!("manifest {root}")));
            }
            if seen.insert(root) {
                open.push(root);
            }
        }
        while let Some(node) = open.pop() {
            for id in self.nodes.get(&node).into_iter().flatten() {
                if seen.insert(*id) && self.nodes.contains_key(id) {
                    open.push(*id);
                }
            }
        }
        Ok(seen)
    }
}
