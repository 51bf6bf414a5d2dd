//! Packs by their lengths and footers, snapshots by their records, and whether packs hold all that snapshots need.

use super::catalogue::Catalogue;
use super::{CheckReport, is_finding};
use crate::catalogue::{PackEntry, SnapshotEntry};
use crate::error::{Error, Result};
use crate::id::{ObjectName, PackId, SnapshotId};
use crate::mark::{Mark, Marked};
use crate::pack::Footer;
use crate::repository::{HeadView, Repository};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

impl Repository {
    /// Every live pack exists with its length, its footer verifies, and every record can be read. Gives what
    /// snapshots need of each pack, and what they need that no pack has.
    pub(super) fn check_structure(
        self: &Arc<Self>,
        view: &HeadView,
        catalogue: &Catalogue,
        listed: &[(ObjectName, u64)],
        report: &mut CheckReport,
    ) -> Result<Marked> {
        let mut sizes = BTreeMap::new();
        for (name, size) in listed {
            let ObjectName::Pack(id) = name else { continue };
            sizes.insert(*id, *size);
            if !catalogue.packs.contains_key(id) && !catalogue.tombstones.contains_key(id) {
                report.orphans += 1;
            }
        }
        report.packs = u64::try_from(catalogue.packs.len()).unwrap_or(u64::MAX);
        let damages = Mutex::new(BTreeMap::new());
        let load = |id: &PackId, entry: &PackEntry| {
            let footer = self.listed_footer(id, entry, sizes.get(id).copied());
            footer.map_err(|error| {
                if !is_finding(&error) {
                    return error;
                }
                let detail = super::detail(&error);
                let mut damages = damages.lock().unwrap_or_else(PoisonError::into_inner);
                damages.insert(*id, detail.clone());
                Error::damaged(ObjectName::Pack(*id), detail)
            })
        };
        let live = catalogue.snapshots.values().map(|entry| entry.root.id);
        let held = catalogue.forgotten.values().map(|entry| entry.entry.root.id);
        let marked = Mark::new(self, &catalogue.packs).live(live).held(held).load(&load).run()?;
        for (id, detail) in damages.into_inner().unwrap_or_else(PoisonError::into_inner) {
            report.found(ObjectName::Pack(id), detail);
        }
        for pack in marked.packs().iter().filter(|pack| pack.damage.is_none()) {
            let entry = catalogue.packs.get(&pack.id).expect("the mark looks at live packs");
            report.chunks += u64::from(entry.data_chunks) + u64::from(entry.node_chunks);
        }
        self.check_records(view, catalogue, report)?;
        Ok(marked)
    }

    /// The footer of a live pack whose length was found in a listing.
    fn listed_footer(&self, id: &PackId, entry: &PackEntry, size: Option<u64>) -> Result<Footer> {
        let name = ObjectName::Pack(*id);
        // Made live by a commit after the listing.
        let size = match size {
            Some(size) => Some(size),
            None => self.backend.size_bytes(&name)?,
        };
        match size {
            None => Err(Error::missing(name)),
            Some(size) if size != entry.size_bytes => {
                let detail = format!("it is {size} bytes long instead of {}", entry.size_bytes);
                Err(Error::damaged(name, detail))
            }
            Some(_) => self.live_footer(id, entry.size_bytes, entry.generation),
        }
    }

    fn check_records(
        self: &Arc<Self>,
        view: &HeadView,
        catalogue: &Catalogue,
        report: &mut CheckReport,
    ) -> Result<()> {
        let live = catalogue.snapshots.iter().map(|(id, entry)| (*id, entry));
        let forgotten = catalogue.forgotten.iter().map(|(id, entry)| (*id, &entry.entry));
        for (id, entry) in live.chain(forgotten) {
            self.cancel().check()?;
            if let Some(error) = self.record_damage(view, id, entry)? {
                report.found(ObjectName::Snapshot(id), super::detail(&error));
            }
        }
        report.snapshots = u64::try_from(catalogue.snapshots.len()).unwrap_or(u64::MAX);
        report.forgotten = u64::try_from(catalogue.forgotten.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// What is wrong with the record of a live or forgotten snapshot.
    ///
    /// # Errors
    /// `Unsupported`, and what reading the head gives.
    pub(crate) fn record_damage(
        self: &Arc<Self>,
        view: &HeadView,
        id: SnapshotId,
        entry: &SnapshotEntry,
    ) -> Result<Option<Error>> {
        match self.snapshot_record(id, entry) {
            Ok(record) if record.base_seq >= view.seq() => {
                let detail = format!("it was written under head {}", record.base_seq);
                Ok(Some(Error::damaged(ObjectName::Snapshot(id), detail)))
            }
            Ok(_) => Ok(None),
            Err(error) if is_finding(&error) => {
                // Forgotten and pruned, or sealed anew, since the check began: no damage.
                let now = self.head()?.retained(id)?;
                let is_here = now.is_some_and(|now| now.hash == entry.hash);
                Ok(is_here.then_some(error))
            }
            Err(error) => Err(error),
        }
    }
}
