//! What a tree asks about its entries.

use crate::error::Result;
use stillpoint_chunker::ChunkId;

/// The meaning of a tree's entries, as far as the tree needs it.
pub trait Schema: Send + Sync + 'static {
    /// Stands in every node's header and goes into the boundary hash; at most
    /// [`SCHEMA_NAME_BYTES_MAX`](crate::limits::SCHEMA_NAME_BYTES_MAX) bytes.
    const NAME: &'static str;

    /// True: keys are strictly ascending and decide where nodes end. False: a sequence; keys are empty, values decide
    /// where nodes end, and places are byte positions counted by [`Self::weight`].
    const ORDERED: bool;

    /// The bytes that the entry stands for, added up towards the root. Must not panic on any input.
    fn weight(key: &[u8], value: &[u8]) -> u64;

    /// Appends the ids of all chunks and nodes that the entry refers to.
    ///
    /// # Errors
    /// `Damaged` or `Unsupported` when the value does not decode.
    fn references(key: &[u8], value: &[u8], out: &mut Vec<ChunkId>) -> Result<()>;
}
