//! Giving groups up, and removing parity objects that no head names.

use super::add::removing;
use super::entry::Groups;
use super::plan::spent;
use crate::error::Result;
use crate::id::{GroupId, ObjectKind, ObjectName, PackId, ParityId};
use crate::repository::{Attempt, HeadView, Repository};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// When an announcement that was never completed counts as abandoned: 7 days. `parity add` does not wait for that.
const ABANDONED_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// What was tidied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tidied {
    /// Groups that were taken out of the catalogue.
    pub groups: u64,
    /// Parity objects that were removed.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Which groups are given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParityRemoval {
    /// All of them.
    All,
    /// Those that heal nothing any more, and abandoned announcements.
    Spent,
    /// These, if they are there.
    Groups(Vec<GroupId>),
}

impl Repository {
    /// The groups that protect nothing any more under this head: no live pack is left in them, or as many of their
    /// packs are gone as they have parity. Condemned packs count as there while their objects are. Announcements that
    /// nobody completed within a week count too.
    pub fn spent_parity(&self, view: &HeadView) -> Result<Vec<GroupId>> {
        let (groups, packs) = (view.parity_groups()?, view.packs()?);
        let mut there: BTreeSet<PackId> = BTreeSet::new();
        for pack in groups.values().flat_map(|entry| &entry.members) {
            let is_live = packs.contains_key(pack);
            if is_live || self.backend.size_bytes(&ObjectName::Pack(*pack))?.is_some() {
                there.insert(*pack);
            }
        }
        let mut gone: BTreeSet<GroupId> =
            spent(&groups, |pack| there.contains(pack)).into_iter().collect();
        let limit = i128::try_from(ABANDONED_AFTER.as_nanos()).expect("a week fits");
        let now = self.env.now().as_nanos();
        for (id, entry) in &groups {
            let is_abandoned = !entry.is_complete() && now - entry.announced.as_nanos() >= limit;
            let is_dead = !entry.members.iter().any(|pack| packs.contains_key(pack));
            if is_abandoned || is_dead {
                gone.insert(*id);
            }
        }
        Ok(gone.into_iter().collect())
    }

    /// Gives up spent groups and removes parity objects that no head names. Prune calls this after it deleted packs.
    pub fn tidy_parity(self: &Arc<Self>) -> Result<Tidied> {
        self.remove_parity(&ParityRemoval::Spent, false)
    }

    /// Gives groups up and removes their objects. With `dry_run` it only counts them.
    ///
    /// # Errors
    /// Errors of the storage.
    pub fn remove_parity(self: &Arc<Self>, which: &ParityRemoval, dry_run: bool) -> Result<Tidied> {
        let gone = loop {
            self.cancel().check()?;
            let base = self.head()?;
            let groups = base.parity_groups()?;
            let gone: BTreeSet<GroupId> = match which {
                ParityRemoval::All => groups.keys().copied().collect(),
                ParityRemoval::Spent => self.spent_parity(&base)?.into_iter().collect(),
                ParityRemoval::Groups(ids) => {
                    ids.iter().copied().filter(|id| groups.contains_key(id)).collect()
                }
            };
            if dry_run {
                return self.count_unnamed(&groups, &gone);
            }
            if gone.is_empty() {
                break gone;
            }
            match self.attempt(&base, &removing(&gone))? {
                Attempt::Committed(_) => break gone,
                Attempt::Lost { .. } => {}
            }
        };
        let tidied = self.remove_unnamed_parity()?;
        Ok(Tidied { groups: u64::try_from(gone.len()).unwrap_or(u64::MAX), ..tidied })
    }

    /// Removes the parity objects that the head does not name. They are listed before it is read: whatever was written
    /// by then and is not named can never be named.
    pub(super) fn remove_unnamed_parity(self: &Arc<Self>) -> Result<Tidied> {
        let listed = self.backend.list(ObjectKind::Parity)?;
        let mut tidied = Tidied::default();
        if listed.is_empty() {
            return Ok(tidied);
        }
        let named = named(&self.head()?.parity_groups()?, &BTreeSet::new());
        for (name, size) in listed {
            let ObjectName::Parity(id) = name else { continue };
            if !named.contains(&id) {
                self.backend.remove(&name)?;
                tidied.objects += 1;
                tidied.bytes += size;
            }
        }
        Ok(tidied)
    }

    /// What would be removed if these groups were given up.
    fn count_unnamed(&self, groups: &Groups, gone: &BTreeSet<GroupId>) -> Result<Tidied> {
        let named = named(groups, gone);
        let groups = u64::try_from(gone.len()).unwrap_or(u64::MAX);
        let mut tidied = Tidied { groups, ..Tidied::default() };
        for (name, size) in self.backend.list(ObjectKind::Parity)? {
            if !matches!(name, ObjectName::Parity(id) if named.contains(&id)) {
                tidied.objects += 1;
                tidied.bytes += size;
            }
        }
        Ok(tidied)
    }
}

/// The parity objects of the groups that are not `gone`.
fn named(groups: &Groups, gone: &BTreeSet<GroupId>) -> BTreeSet<ParityId> {
    let kept = groups.iter().filter(|(id, _)| !gone.contains(id));
    kept.flat_map(|(_, entry)| entry.parities.iter().copied()).collect()
}
