//! What the groups cover, and what each of them would survive now, by the sizes of objects alone.

use crate::error::Result;
use crate::id::{GroupId, ObjectKind, ObjectName, PackId};
use crate::repository::Repository;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// Its name.
    pub id: GroupId,
    /// Packs that it was formed of.
    pub packs: u64,
    /// Those among them that are live.
    pub live_packs: u64,
    /// Bytes of its live packs.
    pub data_bytes: u64,
    /// Parity objects that it has.
    pub parity: u64,
    /// Their bytes.
    pub parity_bytes: u64,
    /// False while its parity is being written, or was left unfinished.
    pub is_complete: bool,
    /// Objects of the group that are missing or have the wrong length.
    pub lost: Vec<ObjectName>,
    /// How many more of its objects can be lost; None where it cannot heal what is lost already.
    pub survives: Option<u64>,
}

/// All groups, and what they cover.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParityStatus {
    /// The groups.
    pub groups: Vec<GroupStatus>,
    /// Live packs that a complete group covers.
    pub covered_packs: u64,
    /// Their bytes.
    pub covered_bytes: u64,
    /// Live packs that no complete group covers.
    pub uncovered: Vec<PackId>,
    /// Their bytes.
    pub uncovered_bytes: u64,
}

impl Repository {
    /// Looks at all groups: lists objects, reads none.
    pub fn parity_status(self: &Arc<Self>) -> Result<ParityStatus> {
        let view = self.head()?;
        let (packs, groups) = (view.packs()?, view.parity_groups()?);
        let mut sizes: BTreeMap<ObjectName, u64> = BTreeMap::new();
        if !groups.is_empty() {
            sizes.extend(self.backend.list(ObjectKind::Pack)?);
            sizes.extend(self.backend.list(ObjectKind::Parity)?);
        }
        let count = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        let mut status = ParityStatus::default();
        let mut covered: BTreeSet<PackId> = BTreeSet::new();
        for (id, entry) in groups {
            let mut lost = Vec::new();
            for pack in &entry.members {
                let name = ObjectName::Pack(*pack);
                let is_there = match packs.get(pack) {
                    Some(live) => sizes.get(&name) == Some(&live.size_bytes),
                    None => sizes.contains_key(&name),
                };
                lost.extend((!is_there).then_some(name));
            }
            if let Some(objects) = &entry.objects {
                let names = entry.parities.iter().map(|id| ObjectName::Parity(*id));
                lost.extend(names.filter(|name| sizes.get(name) != Some(&objects.size_bytes)));
            }
            let live = entry.members.iter().filter_map(|pack| Some((pack, packs.get(pack)?)));
            let survives = entry.parities.len().checked_sub(lost.len());
            let survives = survives.filter(|_| entry.is_complete()).map(count);
            if survives.is_some() {
                covered.extend(live.clone().map(|(pack, _)| *pack));
            }
            status.groups.push(GroupStatus {
                id,
                packs: count(entry.members.len()),
                live_packs: count(live.clone().count()),
                data_bytes: live.map(|(_, entry)| entry.size_bytes).sum(),
                parity: count(entry.parities.len()),
                parity_bytes: entry.parity_bytes(),
                is_complete: entry.is_complete(),
                lost,
                survives,
            });
        }
        for (pack, entry) in packs.iter() {
            if covered.contains(pack) {
                status.covered_packs += 1;
                status.covered_bytes += entry.size_bytes;
            } else {
                status.uncovered.push(*pack);
                status.uncovered_bytes += entry.size_bytes;
            }
        }
        Ok(status)
    }
}
