//! Second chances: a chunk whose pack is gone or damaged may lie in another live pack, or has moved since.
//!
//! A prune moves chunks out of sparse packs while readers go on under the head they began with. What they no
//! longer find there stands in the newest head, as long as a live snapshot needs it.

use super::Reader;
use crate::backend::ObjectBytes;
use crate::error::{Error, Result};
use crate::id::{ChunkId, ChunkKind, PackId};
use crate::index::Location;
use crate::repository::HeadView;
use std::collections::HashSet;
use std::sync::Arc;

/// True where another pack may serve although this one failed: it is lost or damaged, or the device cannot read it.
fn is_local(error: &Error) -> bool {
    error.is_damage() || matches!(error, Error::Io { .. })
}

/// Packs that are tried for one chunk before it counts as lost.
const PLACES_TRIED_MAX: usize = 8;

impl Reader {
    /// The content of a chunk that could not be read where it was found, verified, from wherever else it lies. Gives
    /// `failure`, the error of the first place, when there is no other.
    ///
    /// # Errors
    /// `failure`; errors of the storage.
    pub fn recover(
        &self,
        id: &ChunkId,
        kind: ChunkKind,
        failed: PackId,
        failure: Error,
    ) -> Result<ObjectBytes> {
        if !is_local(&failure) {
            return Err(failure);
        }
        let mut without = HashSet::from([failed]);
        while without.len() <= PLACES_TRIED_MAX {
            let Some(place) = self.locate_without(id, &without)? else { break };
            match self.chunk_at(&place, id, kind) {
                Ok(bytes) => {
                    self.note_recovery(failed, &failure);
                    return Ok(bytes);
                }
                Err(error) if is_local(&error) => without.insert(place.pack),
                Err(error) => return Err(error),
            };
        }
        Err(failure)
    }

    /// One chunk out of the frame at this place, verified.
    pub(super) fn chunk_at(
        &self,
        place: &Location,
        id: &ChunkId,
        kind: ChunkKind,
    ) -> Result<ObjectBytes> {
        let frame = self.frame(place, kind)?;
        let len = self.chunk_in(&frame, place, id, kind)?.len();
        let start = usize::try_from(place.offset).expect("checked by chunk_in");
        Ok(ObjectBytes::window(frame, start..start + len).expect("checked by chunk_in"))
    }

    /// A place in another pack: under the pinned head, or under the newest one.
    fn locate_without(&self, id: &ChunkId, without: &HashSet<PackId>) -> Result<Option<Location>> {
        let look = |view: &HeadView| -> Result<Option<Location>> {
            let index = self.repository.index(view)?;
            let places = index.lookup_without(&self.repository, view, &[*id], without)?;
            Ok(places.into_iter().next().flatten())
        };
        if let Some(place) = look(&self.view)? {
            return Ok(Some(place));
        }
        look(&*self.newest(without)?)
    }

    /// Looks under the newest head for the chunks whose places are missing, if there is a newer one than the pinned one.
    pub(super) fn locate_moved(
        &self,
        ids: &[ChunkId],
        places: &mut [Option<Location>],
    ) -> Result<()> {
        let mut known = self.known_newest();
        for _ in 0..2 {
            let lost: Vec<usize> = (0..places.len()).filter(|at| places[*at].is_none()).collect();
            if lost.is_empty() {
                return Ok(());
            }
            let wanted: Vec<ChunkId> = lost.iter().map(|at| ids[*at]).collect();
            // What was the newest head a moment ago mostly still says it.
            let view = match known.take() {
                Some(view) => view,
                None => self.refresh_newest()?,
            };
            if view.seq() == self.view.seq() {
                continue;
            }
            let index = self.repository.index(&view)?;
            let found = index.lookup(&self.repository, &view, &wanted)?;
            for (at, place) in lost.into_iter().zip(found) {
                places[at] = place;
            }
        }
        Ok(())
    }

    fn known_newest(&self) -> Option<Arc<HeadView>> {
        let newest = self.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        newest.as_ref().map(|(view, _)| Arc::clone(view))
    }

    /// Reads the head; keeps it for those who come next.
    fn refresh_newest(&self) -> Result<Arc<HeadView>> {
        let view = self.repository.head()?;
        let mut newest = self.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*newest {
            Some((known, _)) if known.seq() >= view.seq() => Ok(Arc::clone(known)),
            _ => {
                let view = Arc::new(view);
                *newest = Some((Arc::clone(&view), HashSet::new()));
                Ok(view)
            }
        }
    }

    /// The newest head, read once for each pack that failed.
    fn newest(&self, failed: &HashSet<PackId>) -> Result<Arc<HeadView>> {
        let mut newest = self.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((view, known)) = &*newest
            && failed.is_subset(known)
        {
            return Ok(Arc::clone(view));
        }
        let view = Arc::new(self.repository.head()?);
        let mut known = newest.take().map(|(_, known)| known).unwrap_or_default();
        known.extend(failed);
        *newest = Some((Arc::clone(&view), known));
        Ok(view)
    }

    /// Says once for each pack that it was damaged and that another one served. A pack that a prune removed
    /// meanwhile is no damage.
    fn note_recovery(&self, pack: PackId, failure: &Error) {
        let mut noted = self.recovered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if noted.insert(pack) && !matches!(failure, Error::Missing { .. }) {
            self.repository
                .note(format!("{failure}; what was needed of it was read from another pack"));
        }
    }
}
