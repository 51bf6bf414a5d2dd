//! Reachability: which chunks the live snapshots need, from the references in pack footers alone.
//!
//! No content is opened, so who holds only the metadata key can mark too.

use crate::catalogue::PackEntry;
use crate::error::{Error, Result};
use crate::id::{ChunkId, ChunkKind, NodeId, PackId};
use crate::index::Location;
use crate::pack::Footer;
use crate::repository::Repository;
use crate::write::IdSet;
use rayon::prelude::*;
use std::collections::HashMap;

/// Footers that are read at the same time.
pub(crate) const FOOTERS_AT_ONCE: usize = 32;

/// What tree nodes refer to, gathered from the footers of packs that hold nodes.
pub(crate) struct References<'a> {
    repository: &'a Repository,
    nodes: HashMap<NodeId, Box<[ChunkId]>>,
}

/// A chunk found in a pack that is not live.
pub(crate) struct Stray {
    pub place: Location,
    pub kind: ChunkKind,
    pub references: Vec<ChunkId>,
}

impl<'a> References<'a> {
    pub fn new(repository: &'a Repository) -> Self {
        Self { repository, nodes: HashMap::new() }
    }

    /// Adds the nodes of these packs, but for those that are lost or damaged.
    ///
    /// # Errors
    /// Errors of the storage.
    pub fn add<'p>(
        &mut self,
        packs: impl Iterator<Item = (&'p PackId, &'p PackEntry)>,
    ) -> Result<()> {
        let packs: Vec<_> = packs.filter(|(_, entry)| entry.node_chunks > 0).collect();
        for group in packs.chunks(FOOTERS_AT_ONCE) {
            let footers: Vec<Result<Footer>> = group
                .par_iter()
                .map(|(id, entry)| self.repository.footer(id, entry.size_bytes))
                .collect();
            for footer in footers {
                match footer {
                    Ok(footer) => self.add_footer(&footer),
                    // What only this pack holds is then found to be lost by whoever looks for it.
                    Err(error) if error.is_damage() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

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

/// Finds chunks in packs that are not live (void or condemned) and may be gone already.
pub(crate) fn find_strays<'p>(
    repository: &Repository,
    packs: impl Iterator<Item = &'p PackId>,
    is_wanted: impl Fn(&ChunkId) -> bool,
) -> HashMap<ChunkId, Stray> {
    let mut strays = HashMap::new();
    for pack in packs {
        let Ok(footer) = repository.footer_of(*pack) else { continue };
        for (ordinal, (id, kind, place)) in footer.locations().enumerate() {
            if is_wanted(&id) {
                let references = footer.references(ordinal).to_vec();
                strays.insert(id, Stray { place, kind, references });
            }
        }
    }
    strays
}
