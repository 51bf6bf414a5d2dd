//! Where each chunk lies: the `Index` trait and an index in memory.
//!
//! An index is a cache that can be deleted at any time. An entry counts only if its pack is live, which the index
//! itself never decides: callers pass the judgement in.

mod memory;

pub use memory::MemoryIndex;

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

    /// The fixed form in an index: the pack's id, then the five numbers in field order, little-endian. It is a cache's
    /// form, not part of the repository format.
    pub fn encode(&self) -> [u8; Self::ENCODED_LEN] {
        let mut bytes = [0; Self::ENCODED_LEN];
        let numbers = [self.frame, self.frame_offset, self.frame_len, self.offset, self.len];
        let fields =
            self.pack.as_bytes().iter().copied().chain(numbers.map(u32::to_le_bytes).concat());
        bytes.iter_mut().zip(fields).for_each(|(slot, byte)| *slot = byte);
        bytes
    }

    /// Parses what [`Self::encode`] gives; None when the length is wrong.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (pack, rest) = bytes.split_first_chunk::<{ PackId::LEN }>()?;
        let (frame, rest) = rest.split_first_chunk()?;
        let (frame_offset, rest) = rest.split_first_chunk()?;
        let (frame_len, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        rest.is_empty().then(|| Self {
            pack: PackId::from_bytes(*pack),
            frame: u32::from_le_bytes(*frame),
            frame_offset: u32::from_le_bytes(*frame_offset),
            frame_len: u32::from_le_bytes(*frame_len),
            offset: u32::from_le_bytes(*offset),
            len: u32::from_le_bytes(*len),
        })
    }
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
    /// The head's catalogue; what changed since is found by comparing it with the current one.
    pub catalogue: crate::tree::Root,
}

/// Judges whether a pack is live in the head under which the caller works.
pub type IsLive<'a> = &'a (dyn Fn(&PackId) -> bool + Sync);

/// A map from chunk ids to places, reflecting one head.
///
/// A chunk may lie in several packs (two writers stored it at the same time): all places are kept, one for each pack,
/// and a look-up gives one whose pack is live. An index that finds itself damaged while it is used gives `Damaged`;
/// `rebuild` makes it whole again.
pub trait Index: Send + Sync {
    /// What the user should hear once about the state in which the index was found, such as that it had to be
    /// dropped and why: one sentence, lower case, no full stop. None when all is well.
    fn notice(&self) -> Option<String> {
        None
    }

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
