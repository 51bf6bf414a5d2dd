//! How places become keys and values.
//!
//! ```text
//! 00                   -> state: repository id (16), head seq (8, little-endian), head hash (32), catalogue: node id
//!                         (32), level (1), entries (8), bytes (8)
//! chunk id (32)        -> the place that was added last (36)
//! chunk id + pack (48) -> a place before it, in another pack (36)
//! ```
//! All stand in one column family, so that one flush makes places and state durable together, and a chunk's other places
//! lie beside it. (A second family would need atomic flushes of both and costs time at every open.)

use std::collections::BTreeMap;
use stillpoint_store::id::RepositoryId;
use stillpoint_store::index::{IndexState, Location};
use stillpoint_store::tree::Root;
use stillpoint_store::{ChunkId, PackId};

/// Where the state stands.
pub(crate) const STATE_KEY: &[u8] = &[0];
const STATE_LEN: usize = 16 + 8 + 32 + 32 + 1 + 8 + 8;
/// Length of the key of a place that is not the newest.
pub(crate) const OLDER_KEY_LEN: usize = ChunkId::LEN + PackId::LEN;

/// The key of a place that is not the newest.
pub(crate) fn older_key(id: &ChunkId, pack: &PackId) -> [u8; OLDER_KEY_LEN] {
    let mut key = [0; OLDER_KEY_LEN];
    let (front, back) = key.split_at_mut(ChunkId::LEN);
    front.copy_from_slice(id.as_bytes());
    back.copy_from_slice(pack.as_bytes());
    key
}

pub(crate) fn encode_state(state: &IndexState) -> Vec<u8> {
    let Root { id, level, entries, bytes } = &state.catalogue;
    let parts = [
        &state.repository.as_bytes()[..],
        &state.seq.to_le_bytes(),
        &state.head_hash,
        id.as_bytes(),
        &[*level],
        &entries.to_le_bytes(),
        &bytes.to_le_bytes(),
    ];
    parts.concat()
}

pub(crate) fn decode_state(bytes: &[u8]) -> Option<IndexState> {
    let whole = bytes.len() == STATE_LEN;
    let (repository, rest) = bytes.split_first_chunk()?;
    let (seq, rest) = rest.split_first_chunk()?;
    let (head_hash, rest) = rest.split_first_chunk()?;
    let (id, rest) = rest.split_first_chunk()?;
    let (level, rest) = rest.split_first()?;
    let (entries, rest) = rest.split_first_chunk()?;
    let bytes = u64::from_le_bytes(*rest.first_chunk()?);
    let (id, entries) = (ChunkId::from_bytes(*id), u64::from_le_bytes(*entries));
    whole.then(|| IndexState {
        repository: RepositoryId::from_bytes(*repository),
        seq: u64::from_le_bytes(*seq),
        head_hash: *head_hash,
        catalogue: Root { id, level: *level, entries, bytes },
    })
}

/// The places of one chunk that are to be written: the newest under the chunk's own key, the others behind it.
pub(crate) struct Group {
    id: ChunkId,
    before: Option<Location>,
    newest: Option<Location>,
    older: BTreeMap<PackId, Location>,
}

impl Group {
    /// Begins with the newest place known before.
    pub(crate) fn new(id: ChunkId, before: Option<Location>) -> Self {
        Self { id, before, newest: before, older: BTreeMap::new() }
    }

    /// Adds a place, which becomes the newest.
    pub(crate) fn add(&mut self, place: Location) {
        if let Some(former) = self.newest.replace(place)
            && former.pack != place.pack
        {
            self.older.insert(former.pack, former);
        }
        self.older.remove(&place.pack);
    }

    /// Gives what has to be written, in the order of the keys.
    pub(crate) fn write<E>(
        &self,
        mut put: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(newest) = self.newest.filter(|newest| Some(*newest) != self.before) {
            put(self.id.as_bytes(), &newest.encode())?;
        }
        for (pack, place) in &self.older {
            put(&older_key(&self.id, pack), &place.encode())?;
        }
        Ok(())
    }
}
