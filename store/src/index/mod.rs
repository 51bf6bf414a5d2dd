//! Where each chunk lies: the `Index` trait and an index in memory.
//!
//! An index is a cache that can be deleted at any time. An entry counts only if its pack is live, which the index
//! itself never decides: callers pass the judgement in.

use crate::error::Result;
use crate::id::{PackId, RepositoryId};
use stillpoint_chunker::ChunkId;

/// The place of a chunk: which pack, which frame, and where in the frame's plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// The pack.
    pub pack: PackId,
    /// The frame's number in the pack, from 0; it is the nonce.
    pub frame: u32,
    /// Offset of the frame's header in the pack, bytes.
    pub frame_offset: u32,
    /// Length of the frame as stored, header and tag included, bytes.
    pub frame_len: u32,
    /// Offset of the chunk in the frame's plaintext, bytes.
    pub offset: u32,
    /// Length of the chunk's plaintext, bytes.
    pub len: u32,
}

impl Location {
    /// Length of the encoded form, bytes.
    pub const ENCODED_LEN: usize = 36;
}

/// Which head an index reflects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexState {
    /// The repository it belongs to.
    pub repository: RepositoryId,
    /// The head's sequence number.
    pub seq: u64,
    /// BLAKE3 of the head's bytes.
    pub head_hash: [u8; 32],
}

/// Judges whether a pack is live in the head under which the caller works.
pub type IsLive<'a> = &'a (dyn Fn(&PackId) -> bool + Sync);

/// A map from chunk ids to places, reflecting one head.
///
/// A chunk may lie in several packs (two writers stored it at the same time): all places are kept, and a look-up
/// gives one whose pack is live.
pub trait Index: Send + Sync {
    /// The head that the index reflects; None when it is new and empty.
    fn state(&self) -> Result<Option<IndexState>>;

    /// A place in a live pack for each id, in the order asked; None where there is none.
    fn lookup(&self, ids: &[ChunkId], is_live: IsLive<'_>) -> Result<Vec<Option<Location>>>;

    /// Adds places and moves to a new state, atomically. Adding what is there already changes nothing.
    fn apply(&self, additions: &[(ChunkId, Location)], state: IndexState) -> Result<()>;

    /// Empties the index and fills it anew from all the places that the iterator gives (any order, duplicates of an
    /// id allowed), ending in `state`. An interrupted rebuild leaves an index without a state.
    fn rebuild(
        &self,
        entries: &mut dyn Iterator<Item = Result<(ChunkId, Location)>>,
        state: IndexState,
    ) -> Result<()>;

    /// Number of chunk entries, approximately.
    fn len_estimate(&self) -> Result<u64>;
}
