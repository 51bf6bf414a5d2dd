//! What a tree holds: the `Schema` of its entries and the `Root` that names one.

use crate::error::Result;
use crate::id::NodeId;
use serde::{Deserialize, Serialize};
use stillpoint_chunker::ChunkId;

/// How entries of one kind of tree are weighed and what they refer to.
pub trait Schema: Send + Sync + 'static {
    /// Stands in each node's header and in the boundary hash, so that nodes of different trees never mix.
    const NAME: &'static str;
    /// True: keys strictly ascend and boundaries follow keys. False: a sequence; keys are empty, boundaries follow
    /// values, and positions come from aggregates.
    const ORDERED: bool;
    /// Bytes that an entry stands for; aggregated upwards.
    fn weight(key: &[u8], value: &[u8]) -> u64;
    /// Appends the chunks that an entry refers to.
    ///
    /// # Errors
    /// `Damaged` or `Unsupported` when the value does not decode.
    fn references(key: &[u8], value: &[u8], out: &mut Vec<ChunkId>) -> Result<()>;
}

/// Names one tree. An empty tree is an empty leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The topmost node.
    #[serde(with = "node_id")]
    pub id: NodeId,
    /// Its level; 0 is a leaf.
    pub level: u8,
    /// Number of entries in the whole tree.
    pub entries: u64,
    /// Sum of their weights.
    pub bytes: u64,
}

/// Node ids in records: 32 bytes.
mod node_id {
    use super::NodeId;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &NodeId, out: S) -> Result<S::Ok, S::Error> {
        serde_bytes::serialize(id.as_bytes().as_slice(), out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<NodeId, D::Error> {
        let bytes: serde_bytes::ByteArray<32> = serde::Deserialize::deserialize(input)?;
        Ok(NodeId::from_bytes(bytes.into_array()))
    }
}
