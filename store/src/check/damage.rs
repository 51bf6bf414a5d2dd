//! Which chunks are lost, and which nodes of manifests cannot be read whole because of it.
//!
//! Paths are not known here: who knows them walks the manifests of touched snapshots, entering only nodes that
//! [`Damage::touches`].

use super::CheckReport;
use super::catalogue::Catalogue;
use super::pack::BadChunks;
use crate::catalogue::PackEntry;
use crate::error::{Error, Finding, Result};
use crate::id::{ChunkId, NodeId, ObjectName, PackId, SnapshotId};
use crate::mark::{Marked, Tainted};
use crate::repository::Repository;
use crate::tree::Root;
use crate::write::IdSet;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Most lost chunks of which a check names the files; more are only counted. They take about 25 MiB.
pub const LOST_NAMED_MAX: usize = 1 << 19;

/// A snapshot that needs lost chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched {
    /// Its name.
    pub id: SnapshotId,
    /// Its manifest.
    pub root: Root,
    /// It was forgotten, and can be taken back.
    pub is_forgotten: bool,
}

/// Lost chunks and what they touch.
pub struct Damage {
    lost: IdSet,
    lost_count: u64,
    tainted: Tainted,
    /// The snapshots that need any of them.
    pub snapshots: Vec<Touched>,
}

impl Damage {
    /// Number of lost chunks.
    pub fn lost_count(&self) -> u64 {
        self.lost_count
    }

    /// True where more chunks are lost than are followed: then more is touched than [`Self::touches`] says.
    pub fn is_truncated(&self) -> bool {
        self.lost_count > u64::try_from(self.lost.len()).unwrap_or(u64::MAX)
    }

    /// Whether this very chunk or node is lost.
    pub fn is_lost(&self, id: &ChunkId) -> bool {
        self.lost.contains(id)
    }

    /// Whether this node is lost, or anything that can be reached from it.
    pub fn touches(&self, id: &NodeId) -> bool {
        self.is_lost(id) || self.tainted.contains(id)
    }
}

impl fmt::Debug for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost: Vec<&ChunkId> = self.lost.iter().take(8).collect();
        f.debug_struct("Damage")
            .field("lost_count", &self.lost_count)
            .field("lost", &lost)
            .field("snapshots", &self.snapshots)
            .finish_non_exhaustive()
    }
}

/// Lost chunks, as many as are followed, and how many there are.
#[derive(Default)]
struct Losses {
    ids: IdSet,
    count: u64,
}

impl Losses {
    fn add(&mut self, id: &ChunkId) {
        if self.ids.contains(id) {
            return;
        }
        self.count += 1;
        if self.ids.len() < LOST_NAMED_MAX {
            self.ids.insert(*id);
        }
    }
}

impl Repository {
    /// Puts together what is lost and which snapshots need it.
    pub(super) fn find_touched(
        &self,
        catalogue: &Catalogue,
        marked: Arc<Marked>,
        unreadable: &BadChunks,
        report: &mut CheckReport,
    ) -> Result<()> {
        let (mut new, mut known) = (Losses::default(), Losses::default());
        for lost in [&marked.lost, &marked.lost_held] {
            lost.each(|id| {
                let losses = if catalogue.lost.contains_key(id) { &mut known } else { &mut new };
                losses.add(id);
                Ok(())
            })?;
        }
        self.add_unreadable(&catalogue.packs, unreadable, &mut new)?;
        report.damage = self.damage_of(catalogue, &marked, new)?;
        report.known = self.damage_of(catalogue, &marked, known)?;
        let touched = report.damage.iter().flat_map(|damage| damage.snapshots.clone());
        for one in touched.collect::<Vec<_>>() {
            report.add(Finding {
                object: Some(ObjectName::Snapshot(one.id)),
                snapshot: Some(one.id),
                detail: "some of what it needs is lost or damaged".into(),
            });
        }
        Ok(())
    }

    /// What is touched where these chunks are lost.
    pub(crate) fn damage_by(
        &self,
        catalogue: &Catalogue,
        marked: &Arc<Marked>,
        ids: IdSet,
    ) -> Result<Option<Arc<Damage>>> {
        let count = u64::try_from(ids.len()).unwrap_or(u64::MAX);
        self.damage_of(catalogue, marked, Losses { ids, count })
    }

    fn damage_of(
        &self,
        catalogue: &Catalogue,
        marked: &Arc<Marked>,
        losses: Losses,
    ) -> Result<Option<Arc<Damage>>> {
        if losses.count == 0 {
            return Ok(None);
        }
        let tainted = marked.tainted(self, |give| losses.ids.iter().try_for_each(give))?;
        let mut damage =
            Damage { lost: losses.ids, lost_count: losses.count, tainted, snapshots: Vec::new() };
        let touched = |id: &SnapshotId, root: &Root, is_forgotten| {
            damage.touches(&root.id).then_some(Touched { id: *id, root: *root, is_forgotten })
        };
        let live = catalogue.snapshots.iter();
        let forgotten = catalogue.forgotten.iter();
        let snapshots = live
            .filter_map(|(id, entry)| touched(id, &entry.root, false))
            .chain(forgotten.filter_map(|(id, entry)| touched(id, &entry.entry.root, true)))
            .collect();
        damage.snapshots = snapshots;
        Ok(Some(Arc::new(damage)))
    }

    /// Adds the chunks that cannot be read in these packs and that no other pack holds.
    fn add_unreadable(
        &self,
        packs: &BTreeMap<PackId, PackEntry>,
        unreadable: &BadChunks,
        losses: &mut Losses,
    ) -> Result<()> {
        let mut ids = IdSet::default();
        let mut beyond = 0u64;
        self.each_chunk(
            packs.iter().filter(|(id, _)| unreadable.contains_key(id)),
            |pack, at, id| {
                if unreadable.get(pack).is_some_and(|bad| bad.get(at)) {
                    match ids.len() < LOST_NAMED_MAX {
                        true => drop(ids.insert(*id)),
                        false => beyond += 1,
                    }
                }
            },
        )?;
        if ids.is_empty() {
            return Ok(());
        }
        self.each_chunk(packs.iter(), |pack, at, id| {
            if !unreadable.get(pack).is_some_and(|bad| bad.get(at)) {
                ids.remove(id);
            }
        })?;
        ids.iter().for_each(|id| losses.add(id));
        losses.count += beyond;
        Ok(())
    }

    /// Gives every chunk that the footers of these packs list, with its ordinal; packs that cannot be read are
    /// passed over.
    fn each_chunk<'p>(
        &self,
        packs: impl Iterator<Item = (&'p PackId, &'p PackEntry)>,
        mut visit: impl FnMut(&PackId, usize, &ChunkId),
    ) -> Result<()> {
        for (id, entry) in packs {
            self.cancel().check()?;
            match self.live_footer(id, entry.size_bytes, entry.generation) {
                Ok(footer) => {
                    let chunks = footer.chunks().iter().enumerate();
                    chunks.for_each(|(at, (chunk, _))| visit(id, at, chunk));
                }
                Err(error) if super::is_finding(&error) => {}
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
