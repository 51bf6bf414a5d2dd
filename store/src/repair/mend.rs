//! Rescuing what can be rescued, and one edit of the catalogue: damaged packs are condemned, new ones become live, what is
//! nowhere is listed as lost.

use super::look::Look;
use super::plan::{PackPlan, Remedy, RepairPlan};
use super::salvage::{Rescued, Salvage};
use super::{RepairOptions, Scene};
use crate::catalogue::{Key, LostEntry, Tombstone};
use crate::check::Catalogue;
use crate::error::{Error, Result};
use crate::id::{ChunkId, PackId};
use crate::repository::{Attempt, CatalogueEdit, HeadView, Repository};
use crate::write::{IdSet, Writer};
use std::sync::Arc;

/// Times that one round of a repair is tried again because somebody else was faster.
const ATTEMPTS_MAX: usize = 16;

/// What one round came to.
pub(super) struct Round {
    pub plan: RepairPlan,
    /// What is nowhere, known before or not.
    pub gone: IdSet,
}

impl Repository {
    /// Looks for what is wanted, and stores it again unless `writer` is None. Gives what is to be done.
    pub(super) fn rescue(
        self: &Arc<Self>,
        scene: &Scene<'_>,
        look: &mut Look,
        options: &RepairOptions,
        writer: Option<&Writer>,
    ) -> Result<Round> {
        let mut wanted = std::mem::take(&mut look.wanted);
        let mut take = |chunk: Rescued<'_>| match writer {
            Some(writer) => writer.store_moved(chunk.id, chunk.kind, chunk.bytes, chunk.references),
            None => Ok(()),
        };
        let mut salvage = Salvage {
            repository: self,
            reader: scene.reader,
            references: options.references,
            wanted: &mut wanted,
            take: &mut take,
            found: (0, 0),
            found_stray_nodes: false,
        };
        salvage.run(&look.sources)?;
        let (found, found_stray_nodes) = (salvage.found, salvage.found_stray_nodes);
        let plan = decide(scene.state, look, &wanted, found, found_stray_nodes);
        Ok(Round { plan, gone: wanted })
    }

    /// Puts a round into the catalogue. False if others were faster all the time, or have condemned what was rescued: then
    /// it has to be looked at again.
    pub(super) fn mend(
        self: &Arc<Self>,
        view: &HeadView,
        look: &Look,
        round: &Round,
        writer: &Writer,
    ) -> Result<bool> {
        writer.make_durable()?;
        for _ in 0..ATTEMPTS_MAX {
            self.cancel().check()?;
            let base = self.head()?;
            if writer.has_void_packs(&base)? {
                return Ok(false);
            }
            let edit = self.mending(view, &base, look, round, writer)?;
            if edit.is_empty() {
                return Ok(true);
            }
            if let Attempt::Committed(next) = self.attempt(&base, &edit)? {
                if let Err(error) = writer.packs_are_live(&base, &next) {
                    // The index is a cache; the next use finds it behind and brings it up.
                    tracing::warn!(%error, "the index was not brought up after the repair");
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn mending(
        &self,
        view: &HeadView,
        base: &HeadView,
        look: &Look,
        round: &Round,
        writer: &Writer,
    ) -> Result<CatalogueEdit> {
        let mut edit = writer.edit_with_packs(base)?;
        let live = base.packs()?;
        let now = self.env.now();
        for id in look.damaged.keys() {
            // Another repair or prune may have been here.
            let Some(entry) = live.get(id) else { continue };
            let tombstone = Tombstone {
                size_bytes: entry.size_bytes,
                condemned: now,
                seq: base.seq() + 1,
                born: entry.born,
            };
            edit.condemn(*id, &tombstone);
        }
        let supplied = self.supplied_since(view, base)?;
        let listed = base.lost_chunks()?;
        let is_lost = |id: &ChunkId| round.gone.contains(id) && !supplied.contains(id);
        for id in round.gone.iter().filter(|id| !listed.contains_key(id) && is_lost(id)) {
            edit.put(Key::Lost(*id), &LostEntry { noticed: now });
        }
        for id in look.back.iter().filter(|id| listed.contains_key(id)) {
            edit.remove(Key::Lost(*id));
        }
        Ok(edit)
    }

    /// Chunks in packs that became live since the look.
    fn supplied_since(&self, view: &HeadView, base: &HeadView) -> Result<IdSet> {
        let before = view.packs()?;
        let mut ids = IdSet::default();
        for (id, entry) in base.packs()?.iter().filter(|(id, _)| !before.contains_key(id)) {
            match self.live_footer(id, entry.size_bytes, entry.generation) {
                Ok(footer) => ids.extend(footer.chunks().iter().map(|(id, _)| *id)),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(ids)
    }
}

/// What is known of a round before packs are healed: which others are condemned, and that there will be more to say.
pub(super) fn condemned_alone(look: &Look) -> RepairPlan {
    RepairPlan { packs: condemned(look), is_first_part: true, ..RepairPlan::default() }
}

fn condemned(look: &Look) -> Vec<PackPlan> {
    let plan = |(pack, reason): (&PackId, &String)| PackPlan {
        pack: *pack,
        reason: reason.clone(),
        remedy: Remedy::Replace,
    };
    look.damaged.iter().map(plan).collect()
}

/// What is done about what was found.
fn decide(
    state: &Catalogue,
    look: &Look,
    gone: &IdSet,
    found: (u64, u64),
    found_stray_nodes: bool,
) -> RepairPlan {
    let count = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
    RepairPlan {
        packs: condemned(look),
        chunks_rescued: found.0,
        bytes_rescued: found.1,
        chunks_given_up: count(gone.iter().filter(|id| !state.lost.contains_key(id)).count()),
        chunks_back: count(look.back.len()),
        is_first_part: look.is_truncated || found_stray_nodes,
        ..RepairPlan::default()
    }
}

/// The error of a repair that never got its turn.
pub(super) fn crowded_out() -> Error {
    Error::Conflict { detail: "other processes keep changing the repository".into() }
}
