//! What one must keep to find a tree again.

use crate::id::NodeId;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

/// The root of a tree. Equal trees (same schema, parameters and entries) have equal roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Root {
    /// The root node. An empty tree has a leaf without entries.
    #[serde(serialize_with = "write_id", deserialize_with = "read_id")]
    pub id: NodeId,
    /// Levels above the leaves: 0 when the root is a leaf.
    pub level: u8,
    /// Entries in the whole tree.
    pub entries: u64,
    /// Sum of the entries' weights.
    pub bytes: u64,
}

fn write_id<S: serde::Serializer>(id: &NodeId, serializer: S) -> Result<S::Ok, S::Error> {
    ByteArray::new(*id.as_bytes()).serialize(serializer)
}

fn read_id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<NodeId, D::Error> {
    let bytes = ByteArray::<32>::deserialize(deserializer)?;
    Ok(NodeId::from_bytes(bytes.into_array()))
}
