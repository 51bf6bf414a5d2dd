//! Opening the index when a look-up is first needed, and bringing it up to the head in use.
//!
//! The index is never believed on what is live; it only says where chunks of live packs lie.

use super::{HeadView, Repository};
use crate::catalogue::{CatalogueSchema, Key, PackEntry, decode_value};
use crate::crypto::Generation;
use crate::error::{Error, Result};
use crate::id::{ObjectName, PackId};
use crate::index::{Index, IndexState, Location, MemoryIndex};
use crate::mark::FOOTERS_AT_ONCE;
use crate::pack::{Footer, read_footer};
use crate::tree;
use rayon::prelude::*;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use stillpoint_chunker::ChunkId;

/// The repository's index, shared by everything that works on it in this process.
pub struct SharedIndex {
    index: Box<dyn Index>,
    /// Held while the index moves to another head.
    moving: Mutex<()>,
    /// Raised once the index was rebuilt because something was missing from it.
    healed: Mutex<bool>,
    /// The user was told on opening why the index is new.
    told: bool,
}

impl SharedIndex {
    /// Places of these chunks in packs that are live under `view`. An index that turns out to be damaged is
    /// rebuilt, once in the life of the process.
    pub fn lookup(
        &self,
        repository: &Arc<Repository>,
        view: &HeadView,
        ids: &[ChunkId],
    ) -> Result<Vec<Option<Location>>> {
        self.lookup_without(repository, view, ids, &HashSet::new())
    }

    /// Like [`Self::lookup`], with some packs counted as not live.
    pub(crate) fn lookup_without(
        &self,
        repository: &Arc<Repository>,
        view: &HeadView,
        ids: &[ChunkId],
        without: &HashSet<PackId>,
    ) -> Result<Vec<Option<Location>>> {
        let packs = view.packs()?;
        if packs.is_empty() {
            return Ok(vec![None; ids.len()]);
        }
        let is_live = |pack: &PackId| packs.contains_key(pack) && !without.contains(pack);
        let look = || self.index.lookup(ids, &is_live);
        match look() {
            Err(error)
                if error.is_damage() && self.heal(repository, view, &error.to_string())? =>
            {
                look()
            }
            other => other,
        }
    }

    /// Rebuilds the index because of `reason`; gives false when that was done before.
    pub(crate) fn heal(
        &self,
        repository: &Arc<Repository>,
        view: &HeadView,
        reason: &str,
    ) -> Result<bool> {
        let mut healed = self.healed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *healed {
            return Ok(false);
        }
        *healed = true;
        let _moving = self.moving();
        repository.note(format!("the index was rebuilt: {reason}"));
        repository.rebuild_newest(&*self.index, view)?;
        Ok(true)
    }

    fn moving(&self) -> MutexGuard<'_, ()> {
        self.moving.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Repository {
    /// The index, brought up to `view`.
    pub fn index(self: &Arc<Self>, view: &HeadView) -> Result<Arc<SharedIndex>> {
        let shared = self.opened_index()?;
        {
            let _moving = shared.moving();
            self.bring_up(&shared, view)?;
        }
        Ok(shared)
    }

    /// Drops what the index says and builds it anew from the footers of the live packs.
    pub(crate) fn rebuild_index(self: &Arc<Self>) -> Result<()> {
        let view = self.head()?;
        let shared = self.opened_index()?;
        let _moving = shared.moving();
        self.rebuild(&*shared.index, &view)
    }

    fn opened_index(&self) -> Result<Arc<SharedIndex>> {
        let mut slot = self.index.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(shared) = &*slot {
            return Ok(Arc::clone(shared));
        }
        let (index, notice) = match &self.options.cache_dir {
            None => (Box::new(MemoryIndex::new()) as Box<dyn Index>, None),
            Some(dir) => {
                let opened = (self.options.index)(&dir.join("index"))?;
                (opened.index, opened.notice)
            }
        };
        let told = notice.is_some();
        notice.into_iter().for_each(|notice| self.note(notice));
        let (moving, healed) = (Mutex::new(()), Mutex::new(false));
        let shared = Arc::new(SharedIndex { index, moving, healed, told });
        *slot = Some(Arc::clone(&shared));
        Ok(shared)
    }

    fn bring_up(self: &Arc<Self>, shared: &SharedIndex, view: &HeadView) -> Result<()> {
        let index = &*shared.index;
        let wanted = view.index_state();
        let state = match index.state() {
            Err(error) if error.is_damage() => {
                self.note(format!("the index was rebuilt: {error}"));
                None
            }
            other => other?,
        };
        match state {
            Some(state) if state == wanted => Ok(()),
            Some(state) if state.repository != self.id() => {
                self.note("the index belonged to another repository and was rebuilt".into());
                self.rebuild_newest(index, view)
            }
            Some(state) if state.seq < wanted.seq => self.follow(index, &state, view),
            Some(state) => {
                // We work under a pinned older head; what it needs stays in the index, or has moved since.
                let now = self.head()?;
                if now.index_state() == state {
                    return Ok(());
                }
                if state.seq < now.seq() {
                    return self.follow(index, &state, &now);
                }
                self.note("the index was ahead of the repository and was rebuilt".into());
                self.rebuild(index, &now)
            }
            None => {
                self.note_missing_index(shared.told);
                self.rebuild_newest(index, view)
            }
        }
    }

    /// Moves the index from an older head to this one.
    fn follow(
        self: &Arc<Self>,
        index: &dyn Index,
        state: &IndexState,
        view: &HeadView,
    ) -> Result<()> {
        match self.catch_up(index, state, view) {
            // The older catalogue is gone (pruned) or the history is another one: start over.
            Err(error) if error.is_damage() => self.rebuild_newest(index, view),
            other => other,
        }
    }

    /// Builds the index anew under the newest head: a prune may have removed packs of an older one meanwhile, and what
    /// was needed of them has moved.
    fn rebuild_newest(self: &Arc<Self>, index: &dyn Index, view: &HeadView) -> Result<()> {
        let now = self.head()?;
        self.rebuild(index, if now.seq() > view.seq() { &now } else { view })
    }

    /// Notes that an index which this host has had is gone. A host that never had one hears nothing.
    fn note_missing_index(&self, told: bool) {
        let Some(dir) = &self.options.cache_dir else { return };
        let had = dir.join("index-made");
        if had.exists() {
            if !told {
                self.note("the index was missing and was rebuilt".into());
            }
            return;
        }
        // A cache that cannot be written only loses this message.
        let _ = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(had, []));
    }

    /// Adds what the catalogue of `view` has and the one that the index reflects had not.
    fn catch_up(&self, index: &dyn Index, state: &IndexState, view: &HeadView) -> Result<()> {
        let nodes = view.nodes();
        let mut added = Vec::new();
        let changes =
            tree::diff::<CatalogueSchema>(state.catalogue, view.head.catalogue, &nodes, &nodes);
        for change in changes {
            let change = change?;
            if let (Key::Pack(id), None, Some(value)) =
                (Key::decode(&change.key)?, &change.old, &change.new)
            {
                added.push((id, decode_value::<PackEntry>(value)?));
            }
        }
        let mut additions = Vec::new();
        for (id, entry) in &added {
            additions.extend(self.pack_places(id, entry)?);
        }
        index.apply(&additions, view.index_state())
    }

    fn rebuild(&self, index: &dyn Index, view: &HeadView) -> Result<()> {
        let packs: Vec<(PackId, PackEntry)> =
            view.packs()?.iter().map(|(id, entry)| (*id, *entry)).collect();
        let mut groups = packs.chunks(FOOTERS_AT_ONCE).flat_map(|group| {
            let footers: Vec<Result<Vec<(ChunkId, Location)>>> =
                group.par_iter().map(|(id, entry)| self.pack_places(id, entry)).collect();
            footers.into_iter().flat_map(|places| match places {
                Ok(places) => places.into_iter().map(Ok).collect::<Vec<_>>(),
                // A damaged footer must not keep the other packs from being used.
                Err(error) if error.is_damage() => {
                    self.note(format!("{error}; what only this pack holds cannot be read"));
                    Vec::new()
                }
                Err(error) => vec![Err(error)],
            })
        });
        index.rebuild(&mut groups, view.index_state())
    }

    /// Where the chunks of one live pack lie, from its footer.
    fn pack_places(&self, id: &PackId, entry: &PackEntry) -> Result<Vec<(ChunkId, Location)>> {
        let footer = self.live_footer(id, entry.size_bytes, entry.generation)?;
        Ok(footer.locations().map(|(chunk, _kind, location)| (chunk, location)).collect())
    }

    /// Reads and verifies the footer of a live pack of this length. One that other keys seal than those the catalogue
    /// names is not the one that was committed.
    pub(crate) fn live_footer(
        &self,
        id: &PackId,
        size_bytes: u64,
        generation: Generation,
    ) -> Result<Footer> {
        let footer = self.footer(id, size_bytes)?;
        let found = footer.generation();
        if found == generation {
            return Ok(footer);
        }
        let detail = format!("footer: its keys are of generation {found} instead of {generation}");
        Err(Error::damaged(ObjectName::Pack(*id), detail))
    }

    /// Reads and verifies the footer of a pack of this length, whoever of the known keys sealed it.
    pub(crate) fn footer(&self, id: &PackId, size_bytes: u64) -> Result<Footer> {
        read_footer(&*self.backend, &self.id(), id, size_bytes, &self.metadata)
    }

    /// Reads and verifies the footer of a pack that no catalogue lists as live.
    pub(crate) fn footer_of(&self, id: PackId) -> Result<Footer> {
        let name = ObjectName::Pack(id);
        let size = self.backend.size_bytes(&name)?.ok_or_else(|| Error::missing(name))?;
        self.footer(&id, size)
    }

    /// Whether somebody in this process has needed the index.
    pub(crate) fn has_index(&self) -> bool {
        self.index.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_some()
    }

    /// Moves the index from `base` to `next`, whose only new packs hold `additions`. If another process moved it
    /// first, nothing is done: the next use catches up.
    pub(crate) fn advance_index(
        self: &Arc<Self>,
        base: &HeadView,
        next: &HeadView,
        additions: &[(ChunkId, Location)],
    ) -> Result<()> {
        let opened = self.index.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let Some(shared) = opened else { return Ok(()) };
        let _moving = shared.moving();
        if shared.index.state()? == Some(base.index_state()) {
            shared.index.apply(additions, next.index_state())?;
        }
        Ok(())
    }
}

/// A chunk that a live snapshot needs is in no live pack.
pub(crate) fn lost_chunk(id: &ChunkId) -> Error {
    Error::missing(format!("chunk {id}"))
}
