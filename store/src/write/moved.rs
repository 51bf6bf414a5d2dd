//! What prune needs of a session that moves chunks: packs become live without a snapshot, by an edit of its own.

use super::Writer;
use super::commit::{put_packs, settle_losses, void_among};
use crate::catalogue::Key;
use crate::error::Result;
use crate::id::{ChunkId, ChunkKind, ObjectName};
use crate::repository::{CatalogueEdit, HeadView};

impl Writer {
    /// Stores a chunk that lies in another live pack too.
    pub(crate) fn store_moved(
        &self,
        id: ChunkId,
        kind: ChunkKind,
        bytes: &[u8],
        references: Vec<ChunkId>,
    ) -> Result<()> {
        let mut state = self.state();
        match kind {
            ChunkKind::Data => state.data.push(id, bytes, references),
            ChunkKind::Node => state.nodes.push(id, bytes, references),
        }
    }

    /// Closes the open packs and waits until they are durable.
    pub(crate) fn make_durable(&self) -> Result<()> {
        let mut state = self.state();
        state.data.flush()?;
        state.nodes.flush()
    }

    /// Whether a pack of the session can no longer become live.
    pub(crate) fn has_void_packs(&self, base: &HeadView) -> Result<bool> {
        Ok(!void_among(&self.finished_packs(), base)?.is_empty())
    }

    /// An edit that makes the session's packs live on top of this head.
    pub(crate) fn edit_with_packs(&self, base: &HeadView) -> Result<CatalogueEdit> {
        let packs = self.finished_packs();
        let mut edit = match packs.first() {
            Some(first) => CatalogueEdit::witnessed_by(Key::Pack(first.summary.id)),
            None => CatalogueEdit::default(),
        };
        put_packs(&packs, &mut edit);
        settle_losses(base, &packs, &mut edit)?;
        Ok(edit)
    }

    /// The session's packs became live: brings the index up.
    pub(crate) fn packs_are_live(&self, base: &HeadView, next: &HeadView) -> Result<()> {
        if !self.repository.has_index() {
            return Ok(());
        }
        let packs = self.finished_packs();
        let additions: Vec<_> = packs.iter().flat_map(|pack| pack.places.iter().copied()).collect();
        self.repository.advance_index(base, next, &additions)
    }

    /// Ends the session and removes what it wrote, as far as that is possible; prune finds the rest. Only for a
    /// session whose packs no head names and none ever will: each attempt to name them was refused.
    pub(crate) fn discard(self) {
        let Self { repository, state, finished, pool, .. } = self;
        // Joins the threads that may still close packs.
        drop((state, pool));
        for pack in finished.lock().expect("no panic while listed").iter() {
            let _ = repository.backend.remove(&ObjectName::Pack(pack.summary.id));
        }
    }
}
