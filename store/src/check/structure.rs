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

/// Reads the footers of live packs whose lengths were listed, and remembers what is wrong with them.
pub(crate) struct Footers<'a> {
    repository: &'a Repository,
    sizes: BTreeMap<PackId, u64>,
    damages: Mutex<BTreeMap<PackId, String>>,
}

impl<'a> Footers<'a> {
    /// Footers of packs of these lengths.
    pub fn new(repository: &'a Repository, sizes: BTreeMap<PackId, u64>) -> Self {
        Self { repository, sizes, damages: Mutex::default() }
    }

    /// The footer of a live pack. Whatever is wrong with it, or with the device, comes as damage.
    ///
    /// # Errors
    /// `Damaged`; `Unsupported`.
    pub fn load(&self, id: &PackId, entry: &PackEntry) -> Result<Footer> {
        // A device may fail once.
        let footer = match self.read(id, entry) {
            Err(error) if is_finding(&error) => self.read(id, entry),
            other => other,
        };
        footer.map_err(|error| {
            if !is_finding(&error) {
                return error;
            }
            let detail = super::detail(&error);
            let mut damages = self.damages.lock().unwrap_or_else(PoisonError::into_inner);
            damages.insert(*id, detail.clone());
            Error::damaged(ObjectName::Pack(*id), detail)
        })
    }

    /// What was wrong with which pack.
    pub fn into_damages(self) -> BTreeMap<PackId, String> {
        self.damages.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, id: &PackId, entry: &PackEntry) -> Result<Footer> {
        let name = ObjectName::Pack(*id);
        // A pack that is not listed was made live by a commit after the listing, or is lost.
        let size = match self.sizes.get(id) {
            Some(size) => Some(*size),
            None => self.repository.backend.size_bytes(&name)?,
        };
        match size {
            None => Err(Error::missing(name)),
            Some(size) if size != entry.size_bytes => {
                let detail = format!("it is {size} bytes long instead of {}", entry.size_bytes);
                Err(Error::damaged(name, detail))
            }
            Some(_) => self.repository.live_footer(id, entry.size_bytes, entry.generation),
        }
    }
}

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
        let footers = Footers::new(self, sizes);
        let load = |id: &PackId, entry: &PackEntry| footers.load(id, entry);
        let mark = Mark::new(self, &catalogue.packs).load(&load);
        let marked = mark.live(catalogue.live_roots()).held(catalogue.held_roots()).run()?;
        for (id, detail) in footers.into_damages() {
            report.found(ObjectName::Pack(id), detail);
        }
        for pack in marked.packs().iter().filter(|pack| pack.damage.is_none()) {
            let entry = catalogue.packs.get(&pack.id).expect("the mark looks at live packs");
            report.chunks += u64::from(entry.data_chunks) + u64::from(entry.node_chunks);
        }
        self.check_records(view, catalogue, report)?;
        Ok(marked)
    }

    fn check_records(
        self: &Arc<Self>,
        view: &HeadView,
        catalogue: &Catalogue,
        report: &mut CheckReport,
    ) -> Result<()> {
        for (id, entry, _) in catalogue.records() {
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
