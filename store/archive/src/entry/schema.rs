//! How the generic tree sees manifests and long content lists.

use super::{ContentItem, EntryHead, codec};
use stillpoint_store::tree::{self, NodeBytes, Schema};
use stillpoint_store::{ChunkId, NodeId, Result};

/// The manifest: path keys (see [`crate::path`]) to entries.
#[derive(Debug, Clone, Copy)]
pub struct ManifestSchema;

impl Schema for ManifestSchema {
    const NAME: &'static str = "manifest";
    const ORDERED: bool = true;

    /// Logical size; 0 for what does not decode (reading the entry reports it).
    fn weight(_: &[u8], value: &[u8]) -> u64 {
        EntryHead::decode(value).map_or(0, |head| head.size)
    }

    fn references(_: &[u8], value: &[u8], out: &mut Vec<ChunkId>) -> Result<()> {
        codec::references(value, out)
    }
}

/// A long content list: a sequence of [`ContentItem`]s, addressed by byte position through the aggregates.
#[derive(Debug, Clone, Copy)]
pub struct ContentSchema;

impl Schema for ContentSchema {
    const NAME: &'static str = "content";
    const ORDERED: bool = false;

    fn weight(_: &[u8], value: &[u8]) -> u64 {
        ContentItem::decode(value).map_or(0, |item| item.len_bytes())
    }

    fn references(_: &[u8], value: &[u8], out: &mut Vec<ChunkId>) -> Result<()> {
        if let ContentItem::Data { id, .. } = ContentItem::decode(value)? {
            out.push(id);
        }
        Ok(())
    }
}

/// What a node of a manifest or of a content list refers to, from the node itself.
///
/// # Errors
/// `Damaged` or `LimitExceeded` for bytes that are no such node, `Unsupported` for a newer layout.
pub fn node_references(id: &NodeId, bytes: &NodeBytes) -> Result<Vec<ChunkId>> {
    if tree::children(id, bytes)?.schema == ContentSchema::NAME {
        return tree::node_references::<ContentSchema>(id, bytes);
    }
    tree::node_references::<ManifestSchema>(id, bytes)
}
