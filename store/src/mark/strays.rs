//! Chunks in packs that are not live (void or condemned) and may be gone already.

use crate::id::{ChunkId, ChunkKind, PackId};
use crate::index::Location;
use crate::repository::Repository;
use std::collections::HashMap;

/// A chunk found in a pack that is not live.
pub(crate) struct Stray {
    pub place: Location,
    pub kind: ChunkKind,
    pub references: Vec<ChunkId>,
}

/// Finds wanted chunks in these packs; those that cannot be read are passed over.
pub(crate) fn find_strays<'p>(
    repository: &Repository,
    packs: impl Iterator<Item = &'p PackId>,
    is_wanted: impl Fn(&ChunkId) -> bool,
) -> HashMap<ChunkId, Stray> {
    let mut strays = HashMap::new();
    for pack in packs {
        let Ok(footer) = repository.footer_of(*pack) else { continue };
        for (ordinal, (id, kind, place)) in footer.locations().enumerate() {
            if is_wanted(&id) {
                let references = footer.references(ordinal).to_vec();
                strays.insert(id, Stray { place, kind, references });
            }
        }
    }
    strays
}
