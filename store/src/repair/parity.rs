//! What parity can put back: packs first, then its own objects.

use super::RepairOptions;
use super::plan::{PackPlan, Remedy, RepairPlan};
use crate::error::Result;
use crate::id::PackId;
use crate::parity::ParityRemoval;
use crate::repository::Repository;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Repository {
    /// Puts back those of these packs that parity covers, or only says which, in a dry run. Gives what was, or would be,
    /// put back, and takes it out of the list. No pack is tried twice.
    pub(super) fn heal_packs(
        self: &Arc<Self>,
        damaged: &mut BTreeMap<PackId, String>,
        tried: &mut BTreeSet<PackId>,
        is_dry: bool,
    ) -> Result<Vec<PackPlan>> {
        if damaged.is_empty() {
            return Ok(Vec::new());
        }
        let mut healed = Vec::new();
        let coverable = self.coverable()?;
        for (pack, reason) in damaged.iter().filter(|(pack, _)| coverable.contains(pack)) {
            self.cancel().check()?;
            if !tried.insert(*pack) {
                continue;
            }
            let is_healed = is_dry
                || match self.heal_pack(*pack) {
                    Ok(done) => done.is_some(),
                    // Its groups have lost too much.
                    Err(error) if error.is_damage() => false,
                    Err(error) => return Err(error),
                };
            if is_healed {
                let (pack, reason) = (*pack, reason.clone());
                healed.push(PackPlan { pack, reason, remedy: Remedy::Heal });
            }
        }
        for plan in &healed {
            damaged.remove(&plan.pack);
        }
        Ok(healed)
    }

    /// The packs of groups that have not lost more than they have parity, by the lengths of objects alone.
    fn coverable(self: &Arc<Self>) -> Result<BTreeSet<PackId>> {
        let groups = self.head()?.parity_groups()?;
        if groups.is_empty() {
            return Ok(BTreeSet::new());
        }
        let status = self.parity_status()?;
        let alive = status.groups.iter().filter(|group| group.survives.is_some());
        let members = alive.filter_map(|group| groups.get(&group.id)).flat_map(|one| &one.members);
        Ok(members.copied().collect())
    }

    /// Puts parity objects back, and gives up the groups that cannot be helped.
    pub(super) fn repair_parity(
        self: &Arc<Self>,
        options: &RepairOptions,
        plan: &mut RepairPlan,
    ) -> Result<()> {
        let found = self.verify_parity(options.read_all, &|_, _| {})?;
        for group in found.damaged_groups {
            if options.dry_run {
                plan.parity_healed.push(group);
                continue;
            }
            match self.heal_parity(group) {
                Ok(healed) if healed.is_empty() => {}
                Ok(_) => plan.parity_healed.push(group),
                Err(error) if error.is_damage() => plan.parity_given_up.push(group),
                Err(error) => return Err(error),
            }
        }
        if !plan.parity_given_up.is_empty() {
            self.remove_parity(&ParityRemoval::Groups(plan.parity_given_up.clone()), false)?;
        }
        Ok(())
    }
}
