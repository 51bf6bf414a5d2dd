//! Moving the head on a full disk: what frees space may use the room that the backend has set aside; and what an
//! attempt that failed leaves behind goes at once.

use super::{Attempt, CatalogueEdit, HeadView, Repository};
use crate::error::Result;
use crate::id::{NodeId, ObjectName};
use std::sync::Arc;

impl Repository {
    /// Like [`Self::attempt`]; where the storage has no room for it, once more with the room set aside. Only for
    /// edits that free space or take back such an edit: a backup must not use it up.
    ///
    /// # Errors
    /// As of [`Self::attempt`].
    pub(crate) fn attempt_with_reserve(
        self: &Arc<Self>,
        base: &HeadView,
        edit: &CatalogueEdit,
    ) -> Result<Attempt> {
        match self.attempt(base, edit) {
            Err(error) if error.is_full() && self.backend.release_reserve()? => {
                self.attempt(base, edit)
            }
            outcome => outcome,
        }
    }

    /// Removes catalogue nodes that nobody can name. Best effort: prune removes what stays behind.
    pub(crate) fn remove_nodes(&self, nodes: &[NodeId]) {
        for node in nodes {
            let _ = self.backend.remove(&ObjectName::Catalogue(*node));
        }
    }
}
