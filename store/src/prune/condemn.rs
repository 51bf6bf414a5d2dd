//! Condemning what nobody needs, and deleting what was condemned long enough ago. Nothing here needs more room
//! than a few catalogue nodes.

use super::explain::{Class, Outsider, later};
use super::verdict::{Expired, Follow, Verdict};
use super::{PackUse, Run, plan};
use crate::catalogue::{Key, Tombstone};
use crate::error::{Error, Result};
use crate::id::{ObjectKind, ObjectName, PackId};
use crate::repository::{CatalogueEdit, HeadView, Repository};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long the name of a deleted pack is remembered, so that writers that began before need not start over
/// because of the fence: 7 days.
const NAMES_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The packs that storage lists, with their lengths in bytes.
pub(super) type Listed = BTreeMap<PackId, u64>;

/// A pack that no catalogue names and that is old enough to be condemned.
struct Orphan {
    id: PackId,
    size_bytes: u64,
    born: u64,
}

impl Repository {
    pub(super) fn listed_packs(&self) -> Result<Listed> {
        let listed = self.backend.list(ObjectKind::Pack)?.into_iter();
        Ok(listed
            .filter_map(|(name, size)| match name {
                ObjectName::Pack(id) => Some((id, size)),
                _ => None,
            })
            .collect())
    }

    /// Does something under the newest head, again where old catalogue nodes were removed meanwhile.
    fn under_head<T>(self: &Arc<Self>, mut work: impl FnMut(&HeadView) -> Result<T>) -> Result<T> {
        loop {
            let view = self.head()?;
            match work(&view) {
                Err(error) if error.is_damage() && self.head()?.hash != view.hash => {}
                outcome => return outcome,
            }
        }
    }
}

impl Run<'_> {
    /// Puts the part of the verdict that needs no rewriting on the head, again and again until nobody was faster.
    /// `listed` was read before the head of the verdict.
    pub(super) fn condemn(
        &mut self,
        verdict: &mut Verdict,
        listed: &Listed,
        uses: &mut Vec<PackUse>,
    ) -> Result<()> {
        let mut orphans = self.orphans(listed, verdict)?;
        loop {
            self.repository.cancel().check()?;
            match self.try_condemn(verdict, &orphans) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if self.is_overtaken(&verdict.view, &error) => {}
                Err(error) => return Err(error),
            }
            if verdict.follow(self.repository.head()?)? == Follow::StartOver {
                *verdict = Verdict::form(self.repository, self.options, Expired::Remove)?;
                *uses = verdict.uses();
                self.report.plan = plan(uses, &self.options.limits());
                verdict.doom(&self.report.plan);
            }
            // Their writer may have committed them, or another prune was faster.
            let (live, condemned) = self
                .repository
                .under_head(|view| Ok((Arc::clone(view.packs()?), view.tombstones()?)))?;
            orphans.retain(|one| !live.contains_key(&one.id) && !condemned.contains_key(&one.id));
            self.note_orphans(&orphans);
        }
    }

    /// One attempt; false when somebody was faster.
    fn try_condemn(&mut self, verdict: &mut Verdict, orphans: &[Orphan]) -> Result<bool> {
        let drop = verdict.doomed_among(&self.report.plan.drop);
        let mut edit = CatalogueEdit::default();
        verdict.expired().iter().for_each(|id| edit.remove(Key::Forgotten(*id)));
        self.report.expired = u64::try_from(verdict.expired().len()).unwrap_or(u64::MAX);
        self.condemn_in(&mut edit, &verdict.view, &drop);
        self.condemn_orphans(&mut edit, &verdict.view, orphans);
        if self.options.dry_run || edit.is_empty() {
            return Ok(true);
        }
        let Some(next) = self.attempt(&verdict.view, &edit)? else { return Ok(false) };
        verdict.committed(next, &drop);
        self.dropped.extend(drop.iter().map(|(id, _)| *id));
        self.dropped.extend(orphans.iter().map(|orphan| orphan.id));
        Ok(true)
    }

    /// Packs that no catalogue names and that are old enough. The young ones are noted as such.
    fn orphans(&mut self, listed: &Listed, verdict: &Verdict) -> Result<Vec<Orphan>> {
        let mut orphans = Vec::new();
        for (id, size_bytes) in listed.iter().filter(|(id, _)| !verdict.is_named(id)) {
            let (id, size_bytes) = (*id, *size_bytes);
            // A footer that cannot be read says nothing of its age: condemned like the others, by the head's number.
            let (born, created) = match self.repository.footer(&id, size_bytes) {
                Ok(footer) => (footer.born(), Some(footer.created())),
                Err(error) if error.is_damage() => (verdict.view.seq(), None),
                Err(error) => return Err(error),
            };
            let span = self.options.orphan_grace;
            match created.filter(|created| !self.repository.is_older(*created, span)) {
                None => orphans.push(Orphan { id, size_bytes, born }),
                Some(created) => {
                    let when = later(later(created, span), self.options.grace);
                    self.report.young_orphans += 1;
                    self.report.young_bytes += size_bytes;
                    self.outsiders.push(Outsider { id, size_bytes, class: Class::Young, when });
                }
            }
        }
        self.note_orphans(&orphans);
        Ok(orphans)
    }

    /// Whether an error only says that the head has moved on so far that old catalogue nodes are gone.
    pub(super) fn is_overtaken(&self, view: &HeadView, error: &Error) -> bool {
        let has_moved = || self.repository.head().is_ok_and(|now| now.hash != view.hash);
        error.is_damage() && has_moved()
    }

    fn note_orphans(&mut self, orphans: &[Orphan]) {
        self.report.orphans = u64::try_from(orphans.len()).unwrap_or(u64::MAX);
        self.report.orphan_bytes = orphans.iter().map(|orphan| orphan.size_bytes).sum();
        let when = later(self.started, self.options.grace);
        self.outsiders.retain(|one| one.class != Class::Orphaned);
        self.outsiders.extend(orphans.iter().map(|orphan| {
            let Orphan { id, size_bytes, .. } = *orphan;
            Outsider { id, size_bytes, class: Class::Orphaned, when }
        }));
    }

    fn condemn_orphans(&self, edit: &mut CatalogueEdit, base: &HeadView, orphans: &[Orphan]) {
        let (condemned, seq) = (self.repository.env.now(), base.seq() + 1);
        for Orphan { id, size_bytes, born } in orphans {
            let (size_bytes, born) = (*size_bytes, *born);
            edit.put(Key::Tombstone(*id), &Tombstone { size_bytes, condemned, seq, born });
        }
    }

    /// Deletes condemned packs whose grace is over.
    pub(super) fn delete_condemned(&mut self, listed: &Listed) -> Result<()> {
        let grace = self.options.grace;
        let (live, tombstones) = self
            .repository
            .under_head(|view| Ok((Arc::clone(view.packs()?), view.tombstones()?)))?;
        for (id, tombstone) in tombstones {
            let Some(size) = listed.get(&id).filter(|_| !live.contains_key(&id)) else { continue };
            let size_bytes = *size;
            let is_over = self.repository.is_older(tombstone.condemned, grace);
            if !self.dropped.contains(&id) {
                let class = if is_over { Class::Deletable } else { Class::Waiting };
                let when = later(tombstone.condemned, grace);
                self.outsiders.push(Outsider { id, size_bytes, class, when });
            }
            if !is_over {
                self.report.waiting += 1;
                self.report.waiting_bytes += size_bytes;
                continue;
            }
            self.report.deleted += 1;
            self.report.deleted_bytes += size_bytes;
            if !self.options.dry_run {
                self.repository.cancel().check()?;
                self.repository.backend.remove(&ObjectName::Pack(id))?;
            }
        }
        Ok(())
    }

    /// Drops tombstones of packs that are gone, together with a fence, so that a put that arrives late can
    /// never become live. Lost races are left to the next prune.
    pub(super) fn forget_names(&self) -> Result<()> {
        let repository: &Arc<Repository> = self.repository;
        let base = repository.head()?;
        let tombstones = match base.tombstones() {
            Err(error) if self.is_overtaken(&base, &error) => return Ok(()),
            tombstones => tombstones?,
        };
        let mut edit = CatalogueEdit::default();
        for (id, tombstone) in tombstones {
            let is_old = repository.is_older(tombstone.condemned, NAMES_KEPT);
            if is_old && repository.backend.size_bytes(&ObjectName::Pack(id))?.is_none() {
                edit.remove(Key::Tombstone(id));
                edit.fence = edit.fence.max(tombstone.born + 1);
            }
        }
        if !edit.is_empty() {
            self.attempt(&base, &edit)?;
        }
        Ok(())
    }
}
