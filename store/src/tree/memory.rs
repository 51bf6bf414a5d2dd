//! Nodes in memory, with counters: for tests, and for trees that are built to be compared and thrown away.

use super::{NodeBytes, NodeSink, NodeSource};
use crate::error::{Error, Result};
use crate::id::NodeId;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use stillpoint_chunker::{ChunkId, IdKey};

/// A store of nodes in memory. `&MemoryNodes` is a [`NodeSink`], so that one store can be read and written at once.
pub struct MemoryNodes {
    key: IdKey,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    nodes: HashMap<NodeId, (NodeBytes, Vec<ChunkId>)>,
    loads: u64,
    stores: u64,
}

impl MemoryNodes {
    /// An empty store whose ids are made with `key`.
    pub fn new(key: IdKey) -> Self {
        Self { key, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no thread panics while it holds this lock")
    }

    /// Nodes loaded since the last [`Self::reset_counts`].
    pub fn loads(&self) -> u64 {
        self.inner().loads
    }

    /// Nodes stored since the last [`Self::reset_counts`], nodes that were there already included.
    pub fn stores(&self) -> u64 {
        self.inner().stores
    }

    /// Sets both counters to zero.
    pub fn reset_counts(&self) {
        let mut inner = self.inner();
        (inner.loads, inner.stores) = (0, 0);
    }

    /// Number of different nodes.
    pub fn len(&self) -> usize {
        self.inner().nodes.len()
    }

    /// True when there is no node.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ids of all nodes, sorted.
    pub fn ids(&self) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> = self.inner().nodes.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// The references that came with a node.
    pub fn references(&self, id: &NodeId) -> Option<Vec<ChunkId>> {
        self.inner().nodes.get(id).map(|(_, references)| references.clone())
    }

    /// Puts any bytes under an id, as damage would.
    pub fn replace(&self, id: NodeId, bytes: Vec<u8>) {
        self.inner().nodes.insert(id, (bytes.into(), Vec::new()));
    }

    /// Loses a node.
    pub fn remove(&self, id: &NodeId) {
        self.inner().nodes.remove(id);
    }
}

impl NodeSource for MemoryNodes {
    /// The node's bytes; not verified, so that tests can show damage to the layers above.
    fn load(&self, id: &NodeId) -> Result<NodeBytes> {
        let mut inner = self.inner();
        inner.loads += 1;
        let found = inner.nodes.get(id).map(|(bytes, _)| bytes.clone());
        found.ok_or_else(|| Error::missing(format!("tree node {id}")))
    }
}

impl NodeSink for &MemoryNodes {
    fn store(&mut self, bytes: Vec<u8>, references: &[ChunkId]) -> Result<NodeId> {
        let id = self.key.id(&bytes);
        let mut inner = self.inner();
        inner.stores += 1;
        inner.nodes.entry(id).or_insert_with(|| (bytes.into(), references.to_vec()));
        Ok(id)
    }
}

impl NodeSink for MemoryNodes {
    fn store(&mut self, bytes: Vec<u8>, references: &[ChunkId]) -> Result<NodeId> {
        let mut shared: &Self = self;
        shared.store(bytes, references)
    }
}
