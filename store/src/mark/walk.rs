//! The walk over the graph of nodes: from roots along the references that footers list, pack by pack.
//!
//! Each node is visited once. Footers are read when nodes of theirs wait to be visited, several at a time, and
//! forgotten again: what is in memory is bounded, whatever the number of nodes and references.

use super::FOOTERS_AT_ONCE;
use super::nodes::NodeTable;
use super::pack::{FOOTERS_BYTES, PackMark};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::id::{ChunkId, NodeId};
use crate::pack::Footer;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Ids that were given last and need not be given again: a power of two.
const RECENT_IDS: usize = 1 << 16;

/// Reads the footer of a pack by its number.
pub(super) type Load<'a> = &'a (dyn Fn(&PackMark) -> Result<Footer> + Sync);

pub(super) struct Walk<'a> {
    pub packs: &'a [PackMark],
    pub nodes: &'a mut NodeTable,
    pub load: Load<'a>,
    pub cancel: &'a Cancel,
    /// Ordinals of nodes that are to be visited, by pack.
    waiting: BTreeMap<u32, Vec<u32>>,
    recent: Recent,
}

impl<'a> Walk<'a> {
    pub fn new(
        packs: &'a [PackMark],
        nodes: &'a mut NodeTable,
        load: Load<'a>,
        cancel: &'a Cancel,
    ) -> Self {
        Self { packs, nodes, load, cancel, waiting: BTreeMap::new(), recent: Recent::new() }
    }

    /// Gives the roots and everything that is reached from them and was not reached before; most ids once, some
    /// several times. Ids of unknown nodes are ends.
    ///
    /// # Errors
    /// What `load` and `give` give, and `Cancelled`.
    pub fn run(
        &mut self,
        roots: impl IntoIterator<Item = NodeId>,
        mut give: impl FnMut(&ChunkId) -> Result<()>,
    ) -> Result<()> {
        for root in roots {
            self.reach(&root, &mut give)?;
        }
        let mut behind = None;
        while !self.waiting.is_empty() {
            self.cancel.check()?;
            let batch = self.next_batch(&mut behind);
            let footers: Vec<(u32, Result<Footer>)> =
                batch.into_par_iter().map(|(number, pack)| (number, (self.load)(pack))).collect();
            let footers: Vec<(u32, Footer)> = footers
                .into_iter()
                .map(|(number, footer)| Ok((number, footer?)))
                .collect::<Result<_>>()?;
            while self.visit(&footers, &mut give)? {}
        }
        Ok(())
    }

    /// Visits what waits in these packs; false if nothing did.
    fn visit(
        &mut self,
        footers: &[(u32, Footer)],
        give: &mut impl FnMut(&ChunkId) -> Result<()>,
    ) -> Result<bool> {
        let mut visited = false;
        for (number, footer) in footers {
            while let Some(ordinals) = self.waiting.remove(number) {
                visited = true;
                for ordinal in ordinals {
                    let ordinal = usize::try_from(ordinal).expect("32 bits fit");
                    for id in footer.references(ordinal) {
                        self.reach(id, give)?;
                    }
                }
            }
        }
        Ok(visited)
    }

    fn reach(&mut self, id: &ChunkId, give: &mut impl FnMut(&ChunkId) -> Result<()>) -> Result<()> {
        if self.recent.has(id) {
            return Ok(());
        }
        let waiting = &mut self.waiting;
        self.nodes.visit(id, |place| waiting.entry(place.pack).or_default().push(place.ordinal));
        give(id)
    }

    /// The next packs in which nodes wait, round and round in their order.
    fn next_batch(&self, behind: &mut Option<u32>) -> Vec<(u32, &'a PackMark)> {
        let packs = self.packs;
        let after = self
            .waiting
            .range((behind.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
        let mut numbers: Vec<u32> =
            after.map(|(number, _)| *number).take(FOOTERS_AT_ONCE).collect();
        if numbers.is_empty() {
            numbers.extend(self.waiting.keys().take(FOOTERS_AT_ONCE));
        }
        let mut batch: Vec<(u32, &PackMark)> = Vec::new();
        let mut bytes = 0;
        for number in numbers {
            let at = usize::try_from(number).expect("32 bits fit");
            let Some(pack) = packs.get(at) else { continue };
            bytes += pack.footer_bytes_estimate();
            if !batch.is_empty() && bytes > FOOTERS_BYTES {
                break;
            }
            batch.push((number, pack));
        }
        *behind = batch.last().map(|(number, _)| *number);
        batch
    }
}

/// A small memory of ids, so that what neighbouring nodes share is given once.
struct Recent(Vec<Option<ChunkId>>);

impl Recent {
    fn new() -> Self {
        Self(vec![None; RECENT_IDS])
    }

    /// Whether the id was asked for a short while ago; remembers it.
    fn has(&mut self, id: &ChunkId) -> bool {
        let (_, end) = id.as_bytes().split_at(24);
        let bits = end.first_chunk().map_or(0, |bits| u64::from_le_bytes(*bits));
        let slots = u64::try_from(RECENT_IDS).expect("a small constant");
        let at = usize::try_from(bits % slots).expect("smaller than a usize");
        self.0.get_mut(at).is_some_and(|slot| slot.replace(*id) == Some(*id))
    }
}
