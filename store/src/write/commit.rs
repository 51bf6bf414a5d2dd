//! The commit: packs durable, then the snapshot record, then the head by compare-and-swap.
//!
//! Before each attempt the head is read again. What this session relied on is looked at once more under that very
//! head, so 'nothing I rely on was condemned' and 'nobody moved the head since I looked' are the same test.

use super::lane::{Lane, LaneStart};
use super::{FinishedPack, IdSet, State, Writer};
use crate::backend;
use crate::catalogue::{ForgottenEntry, Key, PackEntry, SnapshotEntry};
use crate::error::{Error, Result};
use crate::id::{ChunkId, ChunkKind, ObjectName, PackId, SnapshotId};
use crate::index::Location;
use crate::mark::{Mark, find_strays};
use crate::pack::PackSummary;
use crate::record::SnapshotRecord;
use crate::repository::{Attempt, CatalogueEdit, HeadView};
use crate::tree::Root;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rounds of 'look again, store again what was condemned' before the session gives up.
const REPAIR_ROUNDS_MAX: usize = 8;

impl Writer {
    /// Makes the snapshot part of the repository. When this returns Ok, the snapshot is durable and live.
    ///
    /// # Errors
    /// `Conflict` when data that was relied on was removed by another process and can no longer be read;
    /// errors of the storage. After an error the snapshot is not acknowledged.
    pub fn commit(self, mut record: SnapshotRecord) -> Result<(SnapshotId, SnapshotRecord)> {
        if self.options.dry_run {
            return Err(Error::Invalid("a dry run cannot commit".into()));
        }
        let mut state = self.state();
        let state = &mut *state;
        if state.is_poisoned {
            return Err(Error::Invalid("a session that met an error cannot commit".into()));
        }
        state.data.flush()?;
        state.nodes.flush()?;
        let mut repairs = 0;
        loop {
            self.repository.cancel().check()?;
            let base = self.repository.head()?;
            if !self.is_intact(state, &base)? {
                repairs += 1;
                if repairs > REPAIR_ROUNDS_MAX {
                    return Err(Error::Conflict {
                        detail: "other processes keep removing what this run stores".into(),
                    });
                }
                self.repair(state, base, record.root)?;
                continue;
            }
            let stored: u64 =
                self.finished_packs().iter().map(|pack| pack.summary.size_bytes).sum();
            record.summary.bytes_stored = state.stats.bytes_stored + stored;
            if record.original.is_none() {
                let started = record.started.as_nanos();
                let elapsed = self.repository.env.now().as_nanos() - started;
                record.summary.duration_ns = u64::try_from(elapsed.max(0)).unwrap_or(u64::MAX);
            }
            record.base_seq = base.seq();
            if let Some(id) = self.try_commit(&base, &record)? {
                return Ok((id, record));
            }
        }
    }

    /// One attempt; None when somebody else moved the head first.
    fn try_commit(&self, base: &HeadView, record: &SnapshotRecord) -> Result<Option<SnapshotId>> {
        let repository = &self.repository;
        // Each attempt has a record of its own: a pruner may remove a record that no head names.
        let id = SnapshotId::random(&*repository.env);
        let sealed = record.seal(id, repository.id(), &repository.metadata, &*repository.env)?;
        backend::put(&*repository.backend, &ObjectName::Snapshot(id), &sealed)?;
        let is_draft = self.options.draft;
        let key = if is_draft { Key::Forgotten(id) } else { Key::Snapshot(id) };
        let mut edit = CatalogueEdit::witnessed_by(key);
        let packs = self.finished_packs();
        let additions = add_packs(&packs, &mut edit);
        settle_losses(base, &packs, &mut edit)?;
        self.remove_superseded(base, &mut edit)?;
        let entry = SnapshotEntry {
            hash: *blake3::hash(&sealed).as_bytes(),
            root: record.root,
            committed: repository.env.now(),
            protected: self.options.protect,
            record: None,
        };
        if is_draft {
            let (forgotten, seq) = (entry.committed, base.seq() + 1);
            edit.put(key, &ForgottenEntry { entry, forgotten, seq });
        } else {
            edit.put(key, &entry);
        }
        match repository.attempt(base, &edit)? {
            Attempt::Committed(next) => {
                if let Err(error) = repository.advance_index(base, &next, &additions) {
                    // The index is a cache; the next use finds it behind and brings it up.
                    tracing::warn!(%error, "the index was not brought up after the commit");
                }
                Ok(Some(id))
            }
            Attempt::Lost { certain } => {
                if certain {
                    // Nobody can name this record. Best effort: prune removes what stays behind.
                    let _ = repository.backend.remove(&ObjectName::Snapshot(id));
                }
                Ok(None)
            }
        }
    }

    /// Takes the drafts that this commit replaces off the list of forgotten snapshots, as far as they still are there.
    fn remove_superseded(&self, base: &HeadView, edit: &mut CatalogueEdit) -> Result<()> {
        if self.options.supersedes.is_empty() {
            return Ok(());
        }
        let forgotten = base.forgotten()?;
        for id in self.options.supersedes.iter().filter(|id| forgotten.contains_key(id)) {
            edit.remove(Key::Forgotten(*id));
        }
        Ok(())
    }

    pub(super) fn finished_packs(&self) -> Vec<FinishedPack> {
        self.finished.lock().expect("no panic while listed").clone()
    }

    /// Makes the packs that are finished so far live, without a snapshot: a session that ends without a commit then
    /// leaves its work to the next one, until a prune finds that no snapshot needs it.
    ///
    /// # Errors
    /// Errors of the storage; nothing is lost that was not lost before.
    pub fn checkpoint(&self) -> Result<()> {
        if self.options.dry_run { Ok(()) } else { self.make_packs_live(&mut self.state()) }
    }

    /// Makes the packs that are durable so far live, without a snapshot, and forgets their chunks here.
    pub(super) fn make_packs_live(&self, state: &mut State) -> Result<()> {
        loop {
            let base = self.repository.head()?;
            // Packs are being closed meanwhile: what is made live is exactly what was looked at.
            let packs = self.finished_packs();
            if !void_among(&packs, &base)?.is_empty() {
                self.drop_void_packs(state, &base)?;
                continue;
            }
            let Some(first) = packs.first() else { return Ok(()) };
            let mut edit = CatalogueEdit::witnessed_by(Key::Pack(first.summary.id));
            let additions = add_packs(&packs, &mut edit);
            settle_losses(&base, &packs, &mut edit)?;
            let Attempt::Committed(next) = self.repository.attempt(&base, &edit)? else { continue };
            // From now on these chunks are found through the index.
            let shared = self.repository.index(&base)?;
            if let Err(error) = self.repository.advance_index(&base, &next, &additions) {
                shared.heal(&self.repository, &next, &error.to_string())?;
            }
            for (id, _) in &additions {
                state.own.remove(id);
            }
            for pack in &packs {
                state.relied.insert(pack.summary.id);
                state.stats.bytes_stored += pack.summary.size_bytes;
            }
            let live: Vec<PackId> = packs.iter().map(|pack| pack.summary.id).collect();
            let mut finished = self.finished.lock().expect("no panic while listed");
            finished.retain(|pack| !live.contains(&pack.summary.id));
            drop(finished);
            state.index = Some(shared);
            state.view = Arc::new(next);
            return Ok(());
        }
    }

    /// Whether everything that the session relies on still stands under `base`.
    fn is_intact(&self, state: &State, base: &HeadView) -> Result<bool> {
        let packs = base.packs()?;
        if state.relied.iter().any(|pack| !packs.contains_key(pack)) {
            return Ok(false);
        }
        if let Some(parent) = state.parent
            && !base.is_retained(parent)?
        {
            return Ok(false);
        }
        Ok(void_among(&self.finished_packs(), base)?.is_empty())
    }

    /// Takes void packs out of the list and stores their chunks again, read back from them.
    fn drop_void_packs(&self, state: &mut State, base: &HeadView) -> Result<()> {
        let void = void_among(&self.finished_packs(), base)?;
        if void.is_empty() {
            return Ok(());
        }
        let mut finished = self.finished.lock().expect("no panic while listed");
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut *finished)
            .into_iter()
            .partition(|pack| void.contains(&pack.summary.id));
        *finished = kept;
        drop(finished);
        let mut lost: IdSet = gone.iter().flat_map(FinishedPack::ids).collect();
        for id in &lost {
            state.own.remove(id);
        }
        // New packs are born under the newest head, so that the fence does not void them again.
        self.restart_lanes(state)?;
        self.store_again(state, &mut lost, &void)
    }

    /// Makes the new manifest whole under the newest head. When that head moves meanwhile and what was looked at is
    /// gone, nothing is said: the caller looks again.
    fn repair(&self, state: &mut State, base: HeadView, root: Root) -> Result<()> {
        self.drop_void_packs(state, &base)?;
        state.data.flush()?;
        state.nodes.flush()?;
        let view = Arc::new(self.repository.head()?);
        let hash = view.hash;
        match self.repair_under(state, view, root) {
            Err(error)
                if (error.is_damage() || matches!(error, Error::Conflict { .. }))
                    && self.repository.head()?.hash != hash =>
            {
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Finds every chunk that the new manifest needs and that no live pack holds, and stores it again from the
    /// condemned pack, as long as that can still be read.
    fn repair_under(&self, state: &mut State, view: Arc<HeadView>, root: Root) -> Result<()> {
        let index = self.repository.index(&view)?;
        let condemned: Vec<PackId> = view.tombstones()?.into_keys().collect();
        let own = self.finished_packs();
        let mut holders = BTreeMap::clone(view.packs()?);
        holders.extend(own.iter().map(|pack| (pack.summary.id, pack_entry(&pack.summary))));
        let mark = Mark::new(&self.repository, &holders).guides(&condemned).live([root.id]);
        let marked = mark.run()?;
        let mut lost = IdSet::default();
        marked.lost.each(|id| {
            lost.insert(*id);
            Ok(())
        })?;
        let relied = marked.packs().iter().filter(|pack| pack.used_bytes > 0).map(|pack| pack.id);
        let is_live = |id: &PackId| view.packs().is_ok_and(|live| live.contains_key(id));
        let relied = relied.filter(is_live).collect();
        state.view = view;
        state.index = Some(index);
        self.store_again(state, &mut lost, &condemned)?;
        state.data.flush()?;
        state.nodes.flush()?;
        // From now on nothing is taken for granted but what was just seen.
        state.relied = relied;
        state.parent = None;
        Ok(())
    }

    /// Starts new lanes whose packs are born under the newest head.
    fn restart_lanes(&self, state: &mut State) -> Result<()> {
        let born = self.repository.head()?.seq();
        let start = LaneStart::draw(&self.repository, &self.options, born);
        let lane = |kind| Lane::start(&self.repository, kind, start, &self.pool, &self.finished);
        state.data.flush()?;
        state.nodes.flush()?;
        state.data = lane(ChunkKind::Data);
        state.nodes = lane(ChunkKind::Node);
        Ok(())
    }

    /// Reads lost chunks from packs that are not live but may still exist, and stores them in new packs.
    fn store_again(&self, state: &mut State, lost: &mut IdSet, from: &[PackId]) -> Result<()> {
        let gone = |error: Error| Error::Conflict { detail: error.to_string() };
        let strays = find_strays(&self.repository, from.iter(), |id| lost.contains(id));
        let mut order: Vec<_> = strays.into_iter().collect();
        order.sort_by_key(|(_, stray)| (stray.place.pack, stray.place.frame, stray.place.offset));
        let reader = self.repository.reader_of(Arc::clone(&state.view));
        for (id, stray) in order {
            let frame = reader.frame(&stray.place, stray.kind).map_err(gone)?;
            let bytes = reader.chunk_in(&frame, &stray.place, &id, stray.kind).map_err(gone)?;
            match stray.kind {
                ChunkKind::Data => state.data.push(id, bytes, Vec::new())?,
                ChunkKind::Node => state.nodes.push(id, bytes, stray.references)?,
            }
            state.own.insert(id);
            lost.remove(&id);
        }
        match lost.iter().next() {
            None => Ok(()),
            Some(id) => Err(Error::Conflict {
                detail: format!("{} chunks, the first of them {id}, are in no pack", lost.len()),
            }),
        }
    }
}

/// What the catalogue will say of a pack.
fn pack_entry(summary: &PackSummary) -> PackEntry {
    let PackSummary { size_bytes, hash, born, data_chunks, node_chunks, generation, .. } = *summary;
    PackEntry { size_bytes, hash, born, data_chunks, node_chunks, generation }
}

/// Puts packs into an edit.
pub(super) fn put_packs(packs: &[FinishedPack], edit: &mut CatalogueEdit) {
    for pack in packs {
        edit.put(Key::Pack(pack.summary.id), &pack_entry(&pack.summary));
    }
}

/// Puts packs into an edit; gives the places of their chunks.
fn add_packs(packs: &[FinishedPack], edit: &mut CatalogueEdit) -> Vec<(ChunkId, Location)> {
    put_packs(packs, edit);
    packs.iter().flat_map(|pack| pack.places.iter().copied()).collect()
}

/// Takes what these packs hold off the list of lost chunks.
pub(super) fn settle_losses(
    base: &HeadView,
    packs: &[FinishedPack],
    edit: &mut CatalogueEdit,
) -> Result<()> {
    let lost = base.lost_chunks()?;
    if lost.is_empty() {
        return Ok(());
    }
    for id in packs.iter().flat_map(FinishedPack::ids).filter(|id| lost.contains_key(id)) {
        edit.remove(Key::Lost(id));
    }
    Ok(())
}

/// Packs that can no longer become live: condemned as orphans, or born before the fence.
pub(super) fn void_among(packs: &[FinishedPack], base: &HeadView) -> Result<Vec<PackId>> {
    if packs.is_empty() {
        return Ok(Vec::new());
    }
    let condemned = base.tombstones()?;
    let void = packs
        .iter()
        .map(|pack| &pack.summary)
        .filter(|pack| condemned.contains_key(&pack.id) || pack.born < base.fence());
    Ok(void.map(|pack| pack.id).collect())
}

impl FinishedPack {
    fn ids(&self) -> impl Iterator<Item = ChunkId> + '_ {
        self.places.iter().map(|(id, _)| *id)
    }
}
