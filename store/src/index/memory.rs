//! An index in memory: for tests, small repositories, and what a process adds while another one holds the database.
//!
//! Owns two maps; knows nothing of files.

use super::{Index, IndexState, IsLive, Location};
use crate::error::Result;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use stillpoint_chunker::ChunkId;

/// An index in memory.
#[derive(Debug, Default)]
pub struct MemoryIndex {
    places: RwLock<Places>,
}

#[derive(Debug, Default)]
struct Places {
    state: Option<IndexState>,
    /// The place that was added last.
    newest: HashMap<ChunkId, Location>,
    /// The places before it, in other packs.
    older: HashMap<ChunkId, Vec<Location>>,
}

impl MemoryIndex {
    /// An empty index without a state.
    pub fn new() -> Self {
        Self::default()
    }

    // A panic of the caller's `is_live` or iterator cannot leave the maps half changed.
    fn read(&self) -> RwLockReadGuard<'_, Places> {
        self.places.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Places> {
        self.places.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn add(&mut self, id: ChunkId, place: Location) {
        let Some(before) = self.newest.insert(id, place) else { return };
        let older = self.older.entry(id).or_default();
        older.retain(|known| known.pack != place.pack);
        if before.pack != place.pack {
            older.push(before);
        }
        if older.is_empty() {
            self.older.remove(&id);
        }
    }

    fn find(&self, id: &ChunkId, is_live: IsLive<'_>) -> Option<Location> {
        let newest = self.newest.get(id)?;
        let older = || self.older.get(id).into_iter().flatten();
        let live = |place: &&Location| is_live(&place.pack);
        Some(newest).filter(live).or_else(|| older().find(live)).copied()
    }
}

impl Index for MemoryIndex {
    fn state(&self) -> Result<Option<IndexState>> {
        Ok(self.read().state)
    }

    fn lookup(&self, ids: &[ChunkId], is_live: IsLive<'_>) -> Result<Vec<Option<Location>>> {
        let places = self.read();
        Ok(ids.iter().map(|id| places.find(id, is_live)).collect())
    }

    fn apply(&self, additions: &[(ChunkId, Location)], state: IndexState) -> Result<()> {
        let mut places = self.write();
        additions.iter().for_each(|(id, place)| places.add(*id, *place));
        places.state = Some(state);
        Ok(())
    }

    fn rebuild(
        &self,
        entries: &mut dyn Iterator<Item = Result<(ChunkId, Location)>>,
        state: IndexState,
    ) -> Result<()> {
        *self.write() = Places::default();
        let mut fresh = Places::default();
        for entry in entries {
            let (id, place) = entry?;
            fresh.add(id, place);
        }
        fresh.state = Some(state);
        *self.write() = fresh;
        Ok(())
    }

    fn len_estimate(&self) -> Result<u64> {
        Ok(self.read().newest.len() as u64)
    }
}
