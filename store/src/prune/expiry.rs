//! Forgotten snapshots whose time to be taken back is over.

use super::PruneOptions;
use crate::catalogue::Key;
use crate::error::Result;
use crate::repository::{Attempt, CatalogueEdit, HeadView, Repository};
use crate::tree::Root;
use std::sync::Arc;

impl Repository {
    /// The manifests that must stay whole. Whoever is still in the catalogue can be taken back and counts, however
    /// long ago it was forgotten; a dry run looks ahead to what would have been removed by then.
    pub(super) fn roots(&self, base: &HeadView, options: &PruneOptions) -> Result<Vec<Root>> {
        if !options.dry_run {
            return base.roots();
        }
        let live = base.snapshots()?.into_values().map(|entry| entry.root);
        let forgotten = base.forgotten()?.into_values();
        let kept = forgotten.filter(|one| !self.is_older(one.forgotten, options.keep_forgotten));
        Ok(live.chain(kept.map(|one| one.entry.root)).collect())
    }

    /// Removes them from the catalogue; gives their number. From then on nobody can bring them back, and what only
    /// they needed is condemned by the verdict that follows.
    pub(super) fn expire_forgotten(self: &Arc<Self>, options: &PruneOptions) -> Result<u64> {
        loop {
            self.cancel().check()?;
            let base = self.head()?;
            let mut edit = CatalogueEdit::default();
            let mut expired = 0;
            for (id, entry) in base.forgotten()? {
                if self.is_older(entry.forgotten, options.keep_forgotten) {
                    edit.remove(Key::Forgotten(id));
                    expired += 1;
                }
            }
            if expired == 0 || options.dry_run {
                return Ok(expired);
            }
            if let Attempt::Committed(_) = self.attempt(&base, &edit)? {
                return Ok(expired);
            }
        }
    }
}
