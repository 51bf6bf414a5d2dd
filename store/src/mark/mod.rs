//! Mark: which chunks of which packs the snapshots need, from pack footers alone, in bounded memory.
//!
//! No content is opened, so who holds only the metadata key can mark too. A walk over the graph of nodes gives the
//! ids that are needed; a join with what the footers list says which packs hold them. In memory at a time are: 16
//! bytes for each node, one bit for each chunk, about a hundred bytes for each pack, a few footers, and one partition
//! of the join. Small repositories are joined in memory; larger ones in a temporary file; where there is no room for
//! one (a full disk), by going over the footers several times.

mod bits;
mod join;
mod nodes;
mod pack;
mod spill;
mod strays;
mod taint;
#[cfg(test)]
mod tests;
mod walk;

pub(crate) use bits::Bits;
pub(crate) use pack::PackMark;
pub(crate) use strays::find_strays;
pub(crate) use taint::Tainted;

use crate::catalogue::PackEntry;
use crate::error::Result;
use crate::id::{ChunkId, NodeId, PackId};
use crate::pack::Footer;
use crate::repository::Repository;
use join::{IdStream, PLACE_BYTES, Partitions, Place, Table, Tally, part_of};
use nodes::{NodePlace, NodeTable};
use pack::in_groups;
use rayon::prelude::*;
use spill::SpillFile;
use std::collections::BTreeMap;
use std::path::PathBuf;
use walk::Walk;

/// Footers that are read at the same time.
pub(crate) const FOOTERS_AT_ONCE: usize = 32;
/// Memory for the join: 64 MiB, which holds about 1.4 million chunks.
pub(crate) const JOIN_BYTES: usize = 64 << 20;
/// Memory for what waits to be written to the temporary file.
const SPILL_BYTES: usize = 8 << 20;
/// Smallest and largest block that is written to the temporary file.
const BLOCK_BYTES: (usize, usize) = (4 << 10, 64 << 10);
/// Most partitions of the join.
const PARTS_MAX: usize = 1024;

/// Who needs a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// A live snapshot.
    Live,
    /// Only a snapshot that is held, such as a forgotten one that can still be undeleted.
    Held,
}

/// Ids of needed chunks that no readable pack holds, without repetition, in no particular order.
pub(crate) struct Lost(IdStream);

impl Lost {
    /// How many.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// True where nothing is lost.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives each of them.
    ///
    /// # Errors
    /// `Io` when the temporary file cannot be read, and what `visit` gives.
    pub fn each(&self, mut visit: impl FnMut(&ChunkId) -> Result<()>) -> Result<()> {
        self.0.each(|id| visit(&ChunkId::from_bytes(*id)))
    }
}

/// What a mark found.
pub(crate) struct Marked {
    /// The packs in the order of their ids; behind them the guides, and what became known later.
    packs: Vec<PackMark>,
    holders: usize,
    nodes: NodeTable,
    /// Chunks that live snapshots need.
    pub lost: Lost,
    /// Chunks that only held snapshots need.
    pub lost_held: Lost,
}

impl Marked {
    /// What is needed of each pack, in the order of their ids.
    pub fn packs(&self) -> &[PackMark] {
        self.packs.split_at(self.holders).0
    }

    /// What is needed of this pack.
    pub fn pack(&self, id: &PackId) -> Option<&PackMark> {
        let packs = self.packs();
        packs.binary_search_by_key(id, |pack| pack.id).ok().and_then(|at| packs.get(at))
    }

    /// Learns of the nodes in more packs. What these hold is not added to the marks.
    ///
    /// # Errors
    /// Errors of the storage, and damage of these packs.
    pub fn learn(
        &mut self,
        repository: &Repository,
        packs: &BTreeMap<PackId, PackEntry>,
    ) -> Result<()> {
        let mut nodes = Vec::new();
        for (id, entry) in packs.iter().filter(|(_, entry)| entry.node_chunks > 0) {
            repository.cancel().check()?;
            let mut pack = PackMark::of(*id, entry);
            let number = u32::try_from(self.packs.len()).expect("fewer packs than fit into memory");
            pack.take_in(number, &pack.footer(repository)?, &mut nodes, &mut |_| Ok(()))?;
            self.packs.push(pack);
        }
        if !nodes.is_empty() {
            self.nodes.add(nodes);
        }
        Ok(())
    }

    /// Walks on from these roots through nodes that were not visited before; gives the roots and what is reached.
    ///
    /// # Errors
    /// Errors of the storage, `Cancelled`, and damage of a pack that could be read before.
    pub fn walk_on(
        &mut self,
        repository: &Repository,
        roots: impl IntoIterator<Item = NodeId>,
        mut give: impl FnMut(&ChunkId),
    ) -> Result<()> {
        let load = |pack: &PackMark| pack.footer(repository);
        let mut walk = Walk::new(&self.packs, &mut self.nodes, &load, repository.cancel());
        walk.run(roots, |id| {
            give(id);
            Ok(())
        })
    }
}

type LoadFooter<'a> = &'a (dyn Fn(&PackId, &PackEntry) -> Result<Footer> + Sync);

/// A mark that is to be run.
pub(crate) struct Mark<'a> {
    repository: &'a Repository,
    packs: &'a BTreeMap<PackId, PackEntry>,
    guides: &'a [PackId],
    live: Vec<NodeId>,
    held: Vec<NodeId>,
    join_bytes: usize,
    spill_folders: Vec<PathBuf>,
    load: Option<LoadFooter<'a>>,
}

impl<'a> Mark<'a> {
    /// Marks what these packs hold.
    pub fn new(repository: &'a Repository, packs: &'a BTreeMap<PackId, PackEntry>) -> Self {
        let cache = repository.options.cache_dir.clone();
        Self {
            repository,
            packs,
            guides: &[],
            live: Vec::new(),
            held: Vec::new(),
            join_bytes: JOIN_BYTES,
            spill_folders: cache.into_iter().chain([std::env::temp_dir()]).collect(),
            load: None,
        }
    }

    /// Begins at these manifests of live snapshots.
    pub fn live(mut self, roots: impl IntoIterator<Item = NodeId>) -> Self {
        self.live.extend(roots);
        self
    }

    /// Begins at these manifests too, whose snapshots are only held.
    pub fn held(mut self, roots: impl IntoIterator<Item = NodeId>) -> Self {
        self.held.extend(roots);
        self
    }

    /// Finds the way through nodes in these packs too; but what they hold counts as held by nobody.
    pub fn guides(mut self, packs: &'a [PackId]) -> Self {
        self.guides = packs;
        self
    }

    /// Joins in this much memory, bytes; [`JOIN_BYTES`] if nothing is said.
    pub fn join_bytes(mut self, bytes: usize) -> Self {
        self.join_bytes = bytes.max(1);
        self
    }

    /// Reads footers in this way. What it calls damage counts as a pack that holds nothing.
    pub fn load(mut self, load: LoadFooter<'a>) -> Self {
        self.load = Some(load);
        self
    }

    /// Runs it.
    ///
    /// # Errors
    /// Errors of the storage, `Cancelled`, and damage of a pack that could be read a moment before. A pack that
    /// cannot be read is no error: see [`PackMark::damage`] and [`Marked::lost`].
    pub fn run(self) -> Result<Marked> {
        let holders = self.packs.iter().map(|(id, entry)| PackMark::of(*id, entry));
        let guides = self.guides.iter().map(|id| PackMark::guide(*id));
        let mut packs: Vec<PackMark> = holders.chain(guides).collect();
        let chunks: usize = packs.iter().take(self.packs.len()).map(PackMark::chunks).sum();
        let parts = (chunks * PLACE_BYTES).div_ceil(self.join_bytes).clamp(1, PARTS_MAX);
        let mut nodes = NodeTable::default();
        let spilled = match parts {
            1 => None,
            _ => self.spilled(parts, &mut packs, &mut nodes)?,
        };
        let (live, held) = match spilled {
            Some(lost) => lost,
            None => self.in_passes(parts, chunks, &mut packs, &mut nodes)?,
        };
        let (lost, lost_held) = (Lost(live), Lost(held));
        Ok(Marked { packs, holders: self.packs.len(), nodes, lost, lost_held })
    }

    /// Joins through a temporary file; None where there is no room for one.
    fn spilled(
        &self,
        parts: usize,
        packs: &mut Vec<PackMark>,
        nodes: &mut NodeTable,
    ) -> Result<Option<(IdStream, IdStream)>> {
        let Some(file) = SpillFile::create(self.spill_folders.iter().cloned()) else {
            return Ok(None);
        };
        let (least, most) = BLOCK_BYTES;
        let block = (SPILL_BYTES / (3 * parts)).clamp(least, most);
        let mut partitions = Partitions::new(parts, &file, block);
        let cancel = self.repository.cancel();
        let outcome = (|| {
            nodes.add(self.scan(packs, |place| partitions.add(&place))?);
            self.walk(packs, nodes, |id, by| partitions.need(id, by))?;
            let mut tally = Tally::new(packs.len(), Some(&file), block);
            partitions.join(&mut tally, packs, || cancel.check())?;
            tally.finish(packs)
        })();
        match outcome {
            Err(_) if file.has_failed() => {
                *nodes = NodeTable::default();
                let fresh = |pack: &PackMark| match pack.size_bytes {
                    Some(_) => self.packs.get(&pack.id).map(|entry| PackMark::of(pack.id, entry)),
                    None => Some(PackMark::guide(pack.id)),
                };
                *packs = packs.iter().filter_map(fresh).collect();
                Ok(None)
            }
            outcome => outcome.map(Some),
        }
    }

    /// Goes over footers and nodes once for each partition: slower, but nothing is written anywhere.
    fn in_passes(
        &self,
        parts: usize,
        chunks: usize,
        packs: &mut [PackMark],
        nodes: &mut NodeTable,
    ) -> Result<(IdStream, IdStream)> {
        let mut table = Table::with_capacity(chunks.div_ceil(parts));
        let mut tally = Tally::new(packs.len(), None, 0);
        for part in 0..parts {
            let is_mine = |id: &ChunkId| parts == 1 || part_of(id, parts) == part;
            let found = self.scan(packs, |place| {
                if is_mine(&place.id) {
                    table.add(place);
                }
                Ok(())
            })?;
            match part {
                0 => nodes.add(found),
                _ => nodes.forget_visits(),
            }
            table.seal();
            self.walk(packs, nodes, |id, by| {
                if is_mine(id) {
                    table.need(id, by);
                }
                Ok(())
            })?;
            table.settle(&mut tally, packs)?;
        }
        tally.finish(packs)
    }

    /// Reads all footers: gives the places of chunks to `add`, sums up the packs, and gives the nodes.
    fn scan(
        &self,
        packs: &mut [PackMark],
        mut add: impl FnMut(Place) -> Result<()>,
    ) -> Result<Vec<NodePlace>> {
        let holders = packs.iter().filter(|pack| pack.size_bytes.is_some());
        let expected = holders.map(|pack| usize::try_from(pack.node_chunks).unwrap_or(0)).sum();
        let mut nodes = Vec::with_capacity(expected);
        let mut footers = Vec::new();
        let mut from = 0;
        while from < packs.len() {
            self.repository.cancel().check()?;
            let rest = packs.get(from..).unwrap_or_default();
            let group = in_groups(rest, |pack| pack).next().unwrap_or_default();
            let count = group.len();
            group.par_iter().map(|pack| self.footer(pack)).collect_into_vec(&mut footers);
            let group = packs.iter_mut().skip(from).take(count);
            for ((number, pack), footer) in (from..).zip(group).zip(footers.drain(..)) {
                let number = u32::try_from(number).expect("fewer packs than fit into memory");
                match footer {
                    Ok(footer) => pack.take_in(number, &footer, &mut nodes, &mut add)?,
                    // A pack that could be read a moment before is a failure, not a finding.
                    Err(error) if error.is_damage() && pack.used.is_empty() => {
                        pack.damage = Some(error.to_string());
                    }
                    Err(error) => return Err(error),
                }
            }
            from += count;
        }
        Ok(nodes)
    }

    fn walk(
        &self,
        packs: &[PackMark],
        nodes: &mut NodeTable,
        mut need: impl FnMut(&ChunkId, Use) -> Result<()>,
    ) -> Result<()> {
        let load = |pack: &PackMark| self.footer(pack);
        let mut walk = Walk::new(packs, nodes, &load, self.repository.cancel());
        walk.run(self.live.iter().copied(), |id| need(id, Use::Live))?;
        walk.run(self.held.iter().copied(), |id| need(id, Use::Held))
    }

    fn footer(&self, pack: &PackMark) -> Result<Footer> {
        match (self.load, self.packs.get(&pack.id)) {
            (Some(load), Some(entry)) if pack.size_bytes.is_some() => load(&pack.id, entry),
            _ => pack.footer(self.repository),
        }
    }
}
