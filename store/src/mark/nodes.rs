//! Where the nodes lie, and which of them were visited: 16 bytes and one bit for each node.
//!
//! Nodes are known by the first 64 bits of their id. Two chunks that share them (which nobody meets by chance) are
//! taken for one another here; that can only make a walk visit too much, because ids are compared whole where it
//! counts: in the join.

use super::bits::Bits;
use crate::id::ChunkId;
use std::ops::Range;

/// The first 64 bits of an id, most significant byte first: ids are sorted as these are.
pub(super) fn prefix(id: &ChunkId) -> u64 {
    id.as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// Finds the range of a sorted list in which a prefix can lie, by its first bits.
#[derive(Default)]
pub(super) struct Directory {
    /// Where each bucket begins, and the end.
    starts: Vec<u32>,
    bits: u32,
}

impl Directory {
    /// The directory of a list with these prefixes, ascending. About four entries share a bucket.
    pub fn new(len: usize, prefixes: impl Iterator<Item = u64>) -> Self {
        let bits = usize::BITS - (len / 4).leading_zeros();
        let buckets = 1usize << bits;
        let mut starts = Vec::with_capacity(buckets + 1);
        for (at, prefix) in (0u32..).zip(prefixes) {
            let bucket = Self::bucket(prefix, bits);
            while starts.len() <= bucket {
                starts.push(at);
            }
        }
        starts.resize(buckets + 1, u32::try_from(len).expect("lists are bounded by the memory"));
        Self { starts, bits }
    }

    fn bucket(prefix: u64, bits: u32) -> usize {
        let top = prefix.checked_shr(u64::BITS - bits).unwrap_or(0);
        usize::try_from(top).expect("no more bits than a list has entries")
    }

    /// Where entries with this prefix are found, if there are any.
    pub fn range(&self, prefix: u64) -> Range<usize> {
        let bucket = Self::bucket(prefix, self.bits);
        let at = |bucket: usize| {
            let start = self.starts.get(bucket).copied().unwrap_or(0);
            usize::try_from(start).expect("32 bits fit")
        };
        at(bucket)..at(bucket + 1)
    }
}

/// Where one node lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodePlace {
    pub prefix: u64,
    /// Number of the pack in the order of the mark.
    pub pack: u32,
    /// The chunk's ordinal in the pack.
    pub ordinal: u32,
}

/// Nodes that became known together.
#[derive(Default)]
struct Run {
    places: Vec<NodePlace>,
    directory: Directory,
    seen: Bits,
}

impl Run {
    fn new(mut places: Vec<NodePlace>) -> Self {
        places.sort_unstable();
        let directory = Directory::new(places.len(), places.iter().map(|place| place.prefix));
        let seen = Bits::new(places.len());
        Self { places, directory, seen }
    }

    /// The places with this prefix and their numbers.
    fn with_prefix(&self, prefix: u64) -> impl Iterator<Item = (usize, NodePlace)> {
        let range = self.directory.range(prefix);
        let bucket = self.places.get(range.clone()).unwrap_or_default();
        range.zip(bucket).filter(move |(_, place)| place.prefix == prefix).map(|(at, p)| (at, *p))
    }
}

/// All nodes of the packs that were looked at.
#[derive(Default)]
pub(super) struct NodeTable {
    runs: Vec<Run>,
}

impl NodeTable {
    /// Adds nodes.
    pub fn add(&mut self, places: Vec<NodePlace>) {
        self.runs.push(Run::new(places));
    }

    /// Marks the nodes with this id's prefix; gives those that were not marked before.
    pub fn visit(&mut self, id: &ChunkId, mut fresh: impl FnMut(NodePlace)) {
        let prefix = prefix(id);
        for run in &mut self.runs {
            let range = run.directory.range(prefix);
            let bucket = run.places.get(range.clone()).unwrap_or_default();
            for (at, place) in range.zip(bucket) {
                if place.prefix == prefix && run.seen.set(at) {
                    fresh(*place);
                }
            }
        }
    }

    /// How many places of nodes were visited; a node that lies in two packs counts twice.
    #[cfg(test)]
    pub fn seen(&self) -> u64 {
        self.runs.iter().map(|run| run.seen.count()).sum()
    }

    /// Whether the node at this place was visited.
    pub fn is_seen(&self, id: &ChunkId, pack: u32, ordinal: u32) -> bool {
        let wanted = NodePlace { prefix: prefix(id), pack, ordinal };
        let mut found = self.runs.iter().flat_map(|run| {
            let places = run.with_prefix(wanted.prefix);
            places.map(|(at, place)| place == wanted && run.seen.get(at))
        });
        found.any(|seen| seen)
    }

    /// Forgets all visits.
    pub fn forget_visits(&mut self) {
        self.runs.iter_mut().for_each(|run| run.seen.clear());
    }

    /// A set of nodes of this table, empty.
    pub fn none(&self) -> NodeSet {
        NodeSet(self.runs.iter().map(|run| Bits::new(run.places.len())).collect())
    }

    /// Adds a node to a set of this table; true if a place of it was not there.
    pub fn insert(&self, set: &mut NodeSet, id: &ChunkId) -> bool {
        let prefix = prefix(id);
        let mut is_new = false;
        for (run, bits) in self.runs.iter().zip(&mut set.0) {
            for (at, _) in run.with_prefix(prefix) {
                is_new |= bits.set(at);
            }
        }
        is_new
    }

    /// Whether a set of this table has the node.
    pub fn contains(&self, set: &NodeSet, id: &ChunkId) -> bool {
        let prefix = prefix(id);
        let mut sets = self.runs.iter().zip(&set.0);
        sets.any(|(run, bits)| run.with_prefix(prefix).any(|(at, _)| bits.get(at)))
    }
}

/// Some of the nodes of a table: one bit for each of its places.
pub(crate) struct NodeSet(Vec<Bits>);

#[cfg(test)]
mod tests {
    use super::*;
    use stillpoint_testkit::Random;

    fn id(random: &mut Random) -> ChunkId {
        ChunkId::from_bytes(random.bytes(32).try_into().unwrap())
    }

    /// A node is found by its id whatever the size of the table, each place is given once, and unknown ids find nothing.
    #[test]
    fn nodes_are_found() {
        for count in [0u32, 1, 2, 3, 4, 5, 64, 1000] {
            let mut random = Random::new(u64::from(count));
            let ids: Vec<ChunkId> = (0..count).map(|_| id(&mut random)).collect();
            let places = |pack: u32| -> Vec<NodePlace> {
                let numbered = (0u32..).zip(&ids);
                numbered
                    .map(|(ordinal, id)| NodePlace { prefix: prefix(id), pack, ordinal })
                    .collect()
            };
            let mut table = NodeTable::default();
            table.add(places(7));
            table.add(places(9));
            for (ordinal, id) in (0u32..).zip(&ids) {
                let mut found = Vec::new();
                table.visit(id, |place| found.push((place.pack, place.ordinal)));
                assert_eq!(found, [(7, ordinal), (9, ordinal)]);
                table.visit(id, |_| panic!("visited twice"));
                assert!(table.is_seen(id, 9, ordinal) && !table.is_seen(id, 8, ordinal));
            }
            table.visit(&id(&mut random), |_| panic!("unknown"));
            assert_eq!(table.seen(), 2 * u64::from(count));
            let mut set = table.none();
            for id in ids.iter().step_by(2) {
                assert!(table.insert(&mut set, id) && !table.insert(&mut set, id));
            }
            for (at, id) in ids.iter().enumerate() {
                assert_eq!(table.contains(&set, id), at % 2 == 0);
            }
        }
    }

    /// A directory finds entries whose prefixes are as uneven as can be.
    #[test]
    fn a_directory_bears_uneven_prefixes() {
        for prefixes in [vec![0; 9], vec![u64::MAX; 9], vec![0, 0, 1, 2, 3, u64::MAX - 1, u64::MAX]]
        {
            let directory = Directory::new(prefixes.len(), prefixes.iter().copied());
            for (at, prefix) in prefixes.iter().enumerate() {
                assert!(directory.range(*prefix).contains(&at), "{prefix} of {prefixes:?}");
            }
        }
    }
}
