//! What one mark found, and how it stays true while others move the head.
//!
//! A verdict holds under one head. When the head has moved, only what changed is looked at: new roots are walked
//! through nodes not visited yet, and what relied on packs that others condemned is resolved again. A pack that turns out
//! to be needed after all is taken off the list; nothing is ever added to it.

use super::PruneOptions;
use super::plan::{PackUse, PrunePlan};
use crate::catalogue::decode_value;
use crate::catalogue::{CatalogueSchema, ForgottenEntry, Key, LostEntry, PackEntry, SnapshotEntry};
use crate::env::Timestamp;
use crate::error::{Error, Result};
use crate::id::{ChunkId, NodeId, PackId, SnapshotId};
use crate::mark::{Mark, Marked, PackMark};
use crate::repository::{HeadView, Repository};
use crate::tree::{self, Change};
use crate::write::IdSet;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// Chunks that may have become needed since the mark before it is cheaper to mark anew.
const NEWLY_NEEDED_MAX: usize = 1 << 19;

/// What becomes of forgotten snapshots whose time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// What only they need may go: the commit that condemns the first of it removes them, too.
    Remove,
    /// They are kept as if their time were not over.
    Hold,
}

/// Whether a verdict could follow the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    /// It holds under the new head.
    Holds,
    /// Too much changed, or what it relied on can no longer be read: form a new one.
    StartOver,
}

/// A verdict and the head under which it holds.
pub(super) struct Verdict {
    repository: Arc<Repository>,
    pub view: HeadView,
    /// The live packs when the mark was made.
    packs: Arc<BTreeMap<PackId, PackEntry>>,
    /// The condemned packs then.
    condemned: BTreeSet<PackId>,
    marked: Marked,
    roots: HashSet<NodeId>,
    /// Packs that may be condemned.
    doomed: BTreeSet<PackId>,
    /// Forgotten snapshots whose time is over.
    expired: Vec<SnapshotId>,
    /// When the time of the other forgotten snapshots is over.
    pub expiries: Vec<Timestamp>,
}

impl Verdict {
    /// Marks what snapshots need under the newest head.
    ///
    /// # Errors
    /// `Missing` when data of live snapshots is lost that no repair has given up; errors of the storage.
    pub fn form(
        repository: &Arc<Repository>,
        options: &PruneOptions,
        expired: Expired,
    ) -> Result<Self> {
        loop {
            let view = repository.head()?;
            let hash = view.hash;
            match Self::form_under(repository, view, options, expired) {
                // Another prune may have deleted what was read; then its head says so.
                Err(error) if error.is_damage() && repository.head()?.hash != hash => {}
                outcome => return outcome,
            }
        }
    }

    fn form_under(
        repository: &Arc<Repository>,
        view: HeadView,
        options: &PruneOptions,
        mode: Expired,
    ) -> Result<Self> {
        let live: Vec<NodeId> = view.snapshots()?.values().map(|entry| entry.root.id).collect();
        let (mut held, mut expired, mut expiries) = (Vec::new(), Vec::new(), Vec::new());
        for (id, entry) in view.forgotten()? {
            let is_over = repository.is_older(entry.forgotten, options.keep_forgotten);
            if is_over && mode == Expired::Remove {
                expired.push(id);
            } else {
                held.push(entry.entry.root.id);
                expiries.push(super::explain::later(entry.forgotten, options.keep_forgotten));
            }
        }
        // All that is asked of the head is read before the mark, which may take long: old catalogue nodes go.
        let (packs, given_up) = (Arc::clone(view.packs()?), view.lost_chunks()?);
        let condemned = view.tombstones()?.into_keys().collect();
        let roots = live.iter().chain(&held).copied().collect();
        let mark = Mark::new(repository, &packs).live(live).held(held);
        let marked = mark.join_bytes(options.join_bytes).run()?;
        refuse_losses(&given_up, &marked)?;
        Ok(Self {
            repository: Arc::clone(repository),
            view,
            packs,
            condemned,
            marked,
            roots,
            doomed: BTreeSet::new(),
            expired,
            expiries,
        })
    }

    /// How much of each live pack is needed.
    pub fn uses(&self) -> Vec<PackUse> {
        let current = self.repository.generation();
        self.marked.packs().iter().map(|pack| PackUse::of(pack, current)).collect()
    }

    /// From now on what the plan drops or rewrites may be condemned.
    pub fn doom(&mut self, plan: &PrunePlan) {
        self.doomed = plan.drop.iter().chain(&plan.rewrite).copied().collect();
    }

    /// Those of these packs that may be condemned, with what the catalogue says of them.
    pub fn doomed_among(&self, packs: &[PackId]) -> Vec<(PackId, PackEntry)> {
        let doomed = packs.iter().filter(|id| self.doomed.contains(id));
        doomed.filter_map(|id| Some((*id, *self.packs.get(id)?))).collect()
    }

    /// What is needed of a pack.
    pub fn mark_of(&self, id: &PackId) -> Option<&PackMark> {
        self.marked.pack(id)
    }

    /// Takes a pack off the list, because it cannot be rewritten.
    pub fn spare(&mut self, id: &PackId) {
        self.doomed.remove(id);
    }

    /// Whether the catalogue named this pack when the mark was made.
    pub fn is_named(&self, id: &PackId) -> bool {
        self.packs.contains_key(id) || self.condemned.contains(id)
    }

    /// Forgotten snapshots whose time is over and that nobody has removed or brought back.
    pub fn expired(&self) -> &[SnapshotId] {
        &self.expired
    }

    /// This prune moved the head itself: these packs are condemned.
    pub fn committed(&mut self, next: HeadView, condemned: &[(PackId, PackEntry)]) {
        for (id, _) in condemned {
            self.doomed.remove(id);
        }
        self.view = next;
    }

    /// Makes the verdict hold under a later head.
    ///
    /// # Errors
    /// Errors of the storage, and `Cancelled`.
    pub fn follow(&mut self, now: HeadView) -> Result<Follow> {
        if now.hash == self.view.hash {
            return Ok(Follow::Holds);
        }
        match self.look_again(&now) {
            Ok(true) => {
                self.view = now;
                Ok(Follow::Holds)
            }
            Ok(false) => Ok(Follow::StartOver),
            // Catalogue nodes or packs are gone since: others have been at work for long.
            Err(error) if error.is_damage() => Ok(Follow::StartOver),
            Err(error) => Err(error),
        }
    }

    /// False where too much became needed.
    fn look_again(&mut self, now: &HeadView) -> Result<bool> {
        let repository = Arc::clone(&self.repository);
        let changed = Changed::between(&self.view, now)?;
        let mut needed = Needed::default();
        for id in &changed.gone {
            self.doomed.remove(id);
            self.needed_of_gone(*id, &mut needed)?;
        }
        self.marked.learn(&repository, &changed.added)?;
        let new: Vec<NodeId> =
            changed.roots.into_iter().filter(|root| self.roots.insert(*root)).collect();
        // A node that was lost and is stored again leads on from where the walk ended.
        let again = changed.found_again.into_iter();
        self.marked.walk_on(&repository, new.into_iter().chain(again), |id| needed.add(*id))?;
        if needed.is_too_much {
            return Ok(false);
        }
        self.spare_needed(&needed.ids)?;
        if !self.expired.is_empty() {
            let there = now.forgotten()?;
            // One that was brought back and forgotten again has its time before it.
            let again = &changed.forgotten;
            self.expired.retain(|id| there.contains_key(id) && !again.contains(id));
        }
        Ok(true)
    }

    /// What this verdict took for held by a pack that others have condemned.
    fn needed_of_gone(&self, id: PackId, needed: &mut Needed) -> Result<()> {
        let mark = self.marked.pack(&id);
        if mark.is_some_and(|mark| mark.used_bytes == 0) {
            return Ok(());
        }
        let footer = self.repository.footer_of(id)?;
        for (ordinal, (chunk, _)) in footer.chunks().iter().enumerate() {
            // Of a pack that came after the mark everything may be needed.
            if mark.is_none_or(|mark| mark.used.get(ordinal)) {
                needed.add(*chunk);
            }
        }
        Ok(())
    }

    /// Takes packs off the list that hold what became needed and would not be moved out of them.
    fn spare_needed(&mut self, needed: &IdSet) -> Result<()> {
        if needed.is_empty() {
            return Ok(());
        }
        let mut spared = Vec::new();
        for id in &self.doomed {
            self.repository.cancel().check()?;
            let Some(mark) = self.marked.pack(id) else { continue };
            let footer = match mark.footer(&self.repository) {
                Ok(footer) => footer,
                // It was lost before, and nobody can need it.
                Err(error) if error.is_damage() && mark.damage.is_some() => continue,
                Err(error) => return Err(error),
            };
            let mut chunks = footer.chunks().iter().enumerate();
            if chunks.any(|(at, (chunk, _))| needed.contains(chunk) && !mark.used.get(at)) {
                spared.push(*id);
            }
        }
        for id in spared {
            self.doomed.remove(&id);
        }
        Ok(())
    }
}

/// Nothing is condemned while data of live snapshots is missing that no repair has given up.
fn refuse_losses(given_up: &BTreeMap<ChunkId, LostEntry>, marked: &Marked) -> Result<()> {
    if marked.lost.is_empty() {
        return Ok(());
    }
    let (mut count, mut example) = (0u64, None);
    marked.lost.each(|id| {
        if !given_up.contains_key(id) {
            count += 1;
            example.get_or_insert(*id);
        }
        Ok(())
    })?;
    match example {
        None => Ok(()),
        Some(id) => {
            let what = format!("data of live snapshots ({count} chunks, {id} among them)");
            Err(Error::missing(what))
        }
    }
}

/// Chunks that became needed.
#[derive(Default)]
struct Needed {
    ids: IdSet,
    is_too_much: bool,
}

impl Needed {
    fn add(&mut self, id: ChunkId) {
        if self.ids.len() < NEWLY_NEEDED_MAX {
            self.ids.insert(id);
        } else {
            self.is_too_much = true;
        }
    }
}

/// What others changed between two heads, as far as it matters here.
#[derive(Default)]
struct Changed {
    /// Manifests that are live or held now.
    roots: Vec<NodeId>,
    /// Snapshots that were forgotten.
    forgotten: Vec<SnapshotId>,
    /// Packs that became live.
    added: BTreeMap<PackId, PackEntry>,
    /// Packs that are live no longer.
    gone: Vec<PackId>,
    /// Chunks that were given up and are no longer.
    found_again: Vec<ChunkId>,
}

impl Changed {
    fn between(old: &HeadView, new: &HeadView) -> Result<Self> {
        let mut changed = Self::default();
        let (old_nodes, new_nodes) = (old.nodes(), new.nodes());
        let changes = tree::diff::<CatalogueSchema>(
            old.head.catalogue,
            new.head.catalogue,
            &old_nodes,
            &new_nodes,
        );
        changes.into_iter().try_for_each(|change| changed.add(&change?))?;
        Ok(changed)
    }

    fn add(&mut self, change: &Change) -> Result<()> {
        let root = match (Key::decode(&change.key)?, &change.old, &change.new) {
            (Key::Snapshot(_), _, Some(entry)) => decode_value::<SnapshotEntry>(entry)?.root,
            (Key::Forgotten(id), _, Some(entry)) => {
                self.forgotten.push(id);
                decode_value::<ForgottenEntry>(entry)?.entry.root
            }
            (Key::Pack(id), None, Some(entry)) => {
                self.added.insert(id, decode_value(entry)?);
                return Ok(());
            }
            (Key::Pack(id), Some(_), None) => {
                self.gone.push(id);
                return Ok(());
            }
            (Key::Lost(id), Some(_), None) => {
                self.found_again.push(id);
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.roots.push(root.id);
        Ok(())
    }
}
