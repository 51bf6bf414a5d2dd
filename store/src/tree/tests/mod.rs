//! What the tree promises, against plain maps.

mod counts;
mod damage;
mod model;

use super::memory::MemoryNodes;
use super::{Builder, Root, Schema, Tree, TreeParams};
use crate::error::Result;
use std::collections::BTreeMap;
use stillpoint_chunker::{ChunkId, IdKey};

/// An ordered test schema: an entry weighs its value's first byte and refers to the hash of its value.
pub(super) struct Map;

impl Schema for Map {
    const NAME: &'static str = "test map";
    const ORDERED: bool = true;

    fn weight(_key: &[u8], value: &[u8]) -> u64 {
        value.first().copied().unwrap_or(0).into()
    }

    fn references(_key: &[u8], value: &[u8], out: &mut Vec<ChunkId>) -> Result<()> {
        out.push(reference(value));
        Ok(())
    }
}

/// A sequence: an entry weighs its value's first byte.
pub(super) struct List;

impl Schema for List {
    const NAME: &'static str = "test list";
    const ORDERED: bool = false;

    fn weight(key: &[u8], value: &[u8]) -> u64 {
        Map::weight(key, value)
    }

    fn references(_key: &[u8], _value: &[u8], _out: &mut Vec<ChunkId>) -> Result<()> {
        Ok(())
    }
}

pub(super) type Model = BTreeMap<Vec<u8>, Vec<u8>>;

pub(super) fn reference(value: &[u8]) -> ChunkId {
    IdKey::new([3; 32]).id(value)
}

pub(super) fn nodes() -> MemoryNodes {
    MemoryNodes::new(IdKey::new([1; 32]))
}

/// Nodes so small that a few hundred entries make several levels.
pub(super) fn small() -> TreeParams {
    TreeParams { boundary_key: [2; 32], min_bytes: 64, avg_bytes: 192, max_bytes: 512 }
}

pub(super) fn build<'m, S: Schema>(
    params: &TreeParams,
    nodes: &MemoryNodes,
    entries: impl IntoIterator<Item = (&'m Vec<u8>, &'m Vec<u8>)>,
) -> Root {
    let mut sink = nodes;
    let mut builder = Builder::<S>::new(params, &mut sink);
    for (key, value) in entries {
        builder.push(key, value).unwrap();
    }
    builder.finish().unwrap()
}

pub(super) fn all<S: Schema>(root: Root, nodes: &MemoryNodes) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut cursor = Tree::<S>::open(root, nodes).iter().unwrap();
    let mut out = Vec::new();
    while let Some(entry) = cursor.next().unwrap() {
        out.push(entry);
    }
    out
}

/// A small generator of equal numbers for equal seeds.
pub(super) struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// `count` entries whose keys look like paths.
pub(super) fn paths(count: u64) -> Model {
    let mut numbers = Numbers(7);
    let entry = |index: u64| {
        let (dir, file) = (index / 40, index % 40);
        let key = format!("home\0user\0project-{dir:06}\0src\0file-{file:03}.rs");
        let length = 40 + numbers.below(60);
        let value = (0..length).map(|_| numbers.next().to_le_bytes()[0]).collect();
        (key.into_bytes(), value)
    };
    (0..count).map(entry).collect()
}
