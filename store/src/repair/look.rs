//! Which packs are lost or damaged, and which chunks are therefore nowhere to be found.

use super::RepairOptions;
use crate::catalogue::PackEntry;
use crate::check::{Catalogue, CheckProgress, DataOptions, Footers, Run};
use crate::error::Result;
use crate::id::{ChunkId, ObjectKind, ObjectName, PackId};
use crate::mark::{Mark, Marked};
use crate::read::Reader;
use crate::repository::Repository;
use crate::write::IdSet;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Lost chunks that are looked for in one go; the rest has to wait for the next round. About 25 MiB.
pub(super) const WANTED_MAX: usize = 1 << 19;

/// What a look at the packs found.
pub(super) struct Look {
    /// Live packs that are lost or damaged, and what is wrong with them.
    pub damaged: BTreeMap<PackId, String>,
    /// Packs that may hold what is wanted: damaged, condemned and unnamed ones that are there.
    pub sources: Vec<PackId>,
    /// Chunks that snapshots need and that no sound live pack holds.
    pub wanted: IdSet,
    /// There are more of them.
    pub is_truncated: bool,
    /// Chunks that are listed as lost and are not lost.
    pub back: Vec<ChunkId>,
    pub marked: Arc<Marked>,
}

/// The packs that there are, by what the catalogue says of them.
struct Listed {
    sizes: BTreeMap<PackId, u64>,
}

impl Listed {
    fn read(repository: &Repository) -> Result<Self> {
        let packs = repository.backend.list(ObjectKind::Pack)?;
        let sizes = packs.into_iter().filter_map(|(name, size)| match name {
            ObjectName::Pack(id) => Some((id, size)),
            _ => None,
        });
        Ok(Self { sizes: sizes.collect() })
    }
}

impl Repository {
    /// Looks at the footers of all packs, and reads those whole that the options name.
    pub(super) fn read_whole_packs(
        self: &Arc<Self>,
        state: &Catalogue,
        reader: &Reader,
        options: &RepairOptions,
        progress: CheckProgress<'_>,
    ) -> Result<BTreeMap<PackId, String>> {
        let mut chosen: Vec<PackId> = match options.read_all {
            true => state.packs.keys().copied().collect(),
            false => self.suspects().into_iter().chain(options.packs.iter().copied()).collect(),
        };
        let live = Listed::read(self)?.sizes;
        chosen.retain(|id| state.packs.contains_key(id) && live.contains_key(id));
        chosen.sort();
        chosen.dedup();
        let (began, data) = (self.env.now(), DataOptions::default());
        let run = Run { packs: &state.packs, reader, options: data, began, progress };
        let sum = self.examine_packs(&run, &chosen);
        if let Some(error) = sum.failure {
            return Err(error);
        }
        if !options.dry_run {
            self.update_suspects(sum.findings.keys(), &sum.verified);
        }
        Ok(sum.findings)
    }

    /// Finds what is lost, where packs with these `findings` count as damaged.
    pub(super) fn look(
        &self,
        state: &Catalogue,
        findings: &BTreeMap<PackId, String>,
    ) -> Result<Look> {
        let listed = Listed::read(self)?;
        let footers = Footers::new(self, listed.sizes.clone());
        let load = |id: &PackId, entry: &PackEntry| footers.load(id, entry);
        let mark = Mark::new(self, &state.packs).load(&load);
        let marked = mark.live(state.live_roots()).held(state.held_roots()).run()?;
        let mut damaged = footers.into_damages();
        for (id, detail) in findings.iter().filter(|(id, _)| state.packs.contains_key(id)) {
            damaged.entry(*id).or_insert_with(|| detail.clone());
        }
        let is_sound = damaged.is_empty() && marked.lost.is_empty() && marked.lost_held.is_empty();
        let sources = listed.sources(state, &damaged);
        let marked = match is_sound {
            true => marked,
            false => {
                drop(marked);
                let mut sound = BTreeMap::clone(&state.packs);
                sound.retain(|id, _| !damaged.contains_key(id));
                let mark = Mark::new(self, &sound).guides(&sources);
                mark.live(state.live_roots()).held(state.held_roots()).run()?
            }
        };
        let mut look = Look {
            damaged,
            sources,
            wanted: IdSet::default(),
            is_truncated: false,
            back: Vec::new(),
            marked: Arc::new(marked),
        };
        look.choose_wanted(state)?;
        Ok(look)
    }
}

impl Listed {
    /// Packs that are there and that do not count: damaged ones first, then condemned, then unnamed.
    fn sources(&self, state: &Catalogue, damaged: &BTreeMap<PackId, String>) -> Vec<PackId> {
        let rank = |id: &PackId| match state.packs.contains_key(id) {
            true => damaged.contains_key(id).then_some(0),
            false => Some(if state.tombstones.contains_key(id) { 1 } else { 2 }),
        };
        let mut ranked: Vec<(i32, PackId)> =
            self.sizes.keys().filter_map(|id| Some((rank(id)?, *id))).collect();
        ranked.sort();
        ranked.into_iter().map(|(_, id)| id).collect()
    }
}

impl Look {
    /// True where nothing is lost or damaged.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.wanted.is_empty() && self.back.is_empty()
    }

    /// Takes what is newly lost first, then what was given up before: it may have turned up.
    fn choose_wanted(&mut self, state: &Catalogue) -> Result<()> {
        let marked = Arc::clone(&self.marked);
        let mut known_lost = IdSet::default();
        for takes_known in [false, true] {
            for lost in [&marked.lost, &marked.lost_held] {
                lost.each(|id| {
                    let is_known = state.lost.contains_key(id);
                    if is_known {
                        known_lost.insert(*id);
                    }
                    if is_known != takes_known || self.wanted.contains(id) {
                        return Ok(());
                    }
                    if self.wanted.len() < WANTED_MAX {
                        self.wanted.insert(*id);
                    } else if !is_known {
                        self.is_truncated = true;
                    }
                    Ok(())
                })?;
            }
        }
        self.back = state.lost.keys().filter(|id| !known_lost.contains(id)).copied().collect();
        Ok(())
    }
}
