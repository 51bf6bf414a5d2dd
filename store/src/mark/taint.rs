//! Which nodes cannot be read whole, because a chunk that is reachable from them is lost.

use super::Marked;
use super::nodes::NodeSet;
use super::pack::{PackMark, in_groups};
use crate::error::Result;
use crate::id::{ChunkId, ChunkKind, NodeId};
use crate::pack::Footer;
use crate::repository::Repository;
use crate::write::IdSet;
use rayon::prelude::*;
use std::sync::Arc;

/// Lost ids that are compared with the references of all nodes at once; more take another round. 32 MiB.
const LOST_AT_ONCE: usize = 1 << 19;

/// The nodes from which a lost chunk is reachable.
pub(crate) struct Tainted {
    marked: Arc<Marked>,
    nodes: NodeSet,
}

impl Tainted {
    /// Whether a lost chunk is reachable from this node. A node that is lost itself counts only if the lost chunks
    /// were said to include it.
    pub fn contains(&self, id: &NodeId) -> bool {
        self.marked.nodes.contains(&self.nodes, id)
    }
}

impl Marked {
    /// Finds the visited nodes from which any of these chunks is reachable. `each` is called with a receiver of ids
    /// and gives it all of them, in any order, some perhaps several times. Memory is bounded, whatever their number.
    ///
    /// # Errors
    /// Errors of the storage, and `Cancelled`; damaged footers are passed over.
    pub fn tainted(
        self: &Arc<Self>,
        repository: &Repository,
        each: impl FnOnce(&mut dyn FnMut(&ChunkId) -> Result<()>) -> Result<()>,
    ) -> Result<Tainted> {
        let mut nodes = self.nodes.none();
        let mut lost = IdSet::default();
        each(&mut |id| {
            self.nodes.insert(&mut nodes, id);
            lost.insert(*id);
            if lost.len() >= LOST_AT_ONCE {
                self.taint_parents(repository, &mut nodes, &lost)?;
                lost.clear();
            }
            Ok(())
        })?;
        while self.taint_parents(repository, &mut nodes, &lost)? {
            lost.clear();
        }
        Ok(Tainted { marked: Arc::clone(self), nodes })
    }

    /// Adds the nodes that refer to a lost chunk or a tainted node; false when there was none to add.
    fn taint_parents(
        &self,
        repository: &Repository,
        nodes: &mut NodeSet,
        lost: &IdSet,
    ) -> Result<bool> {
        let mut changed = false;
        let holders: Vec<(u32, &PackMark)> =
            (0..).zip(&self.packs).filter(|(_, pack)| pack.node_chunks > 0).collect();
        for group in in_groups(&holders, |(_, pack)| pack) {
            repository.cancel().check()?;
            let footers: Vec<_> =
                group.par_iter().map(|(number, pack)| (*number, pack.footer(repository))).collect();
            for (number, footer) in footers {
                match footer {
                    Ok(footer) => changed |= self.taint_in(number, &footer, nodes, lost),
                    Err(error) if error.is_damage() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(changed)
    }

    fn taint_in(&self, pack: u32, footer: &Footer, nodes: &mut NodeSet, lost: &IdSet) -> bool {
        let mut changed = false;
        for (ordinal, (id, kind, _)) in (0u32..).zip(footer.locations()) {
            if kind != ChunkKind::Node || !self.nodes.is_seen(&id, pack, ordinal) {
                continue;
            }
            let at = usize::try_from(ordinal).expect("32 bits fit");
            let mut references = footer.references(at).iter();
            if references.any(|id| lost.contains(id) || self.nodes.contains(nodes, id)) {
                changed |= self.nodes.insert(nodes, &id);
            }
        }
        changed
    }
}
