//! Verification: does everything that the head promises exist, and does it say what it should?

use crate::catalogue::PackEntry;
use crate::error::{Error, Finding, Result};
use crate::id::{ChunkKind, ObjectKind, ObjectName, PackId};
use crate::mark::References;
use crate::pack::Footer;
use crate::read::Reader;
use crate::repository::{HeadView, Repository};
use crate::write::IdSet;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Packs that are looked at between two reports of progress.
const PACKS_AT_ONCE: usize = 16;

/// How far a check goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Read every pack whole, compare its hash, open every frame and verify every chunk.
    pub read_data: bool,
}

/// How far a check has come: packs done and packs in all.
pub type CheckProgress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Every damage, each named once. Empty: the repository is whole.
    pub findings: Vec<Finding>,
    /// Live snapshots whose records and manifests were looked at.
    pub snapshots: u64,
    /// Live packs.
    pub packs: u64,
    /// Chunks in live packs.
    pub chunks: u64,
    /// Bytes of packs that were read whole.
    pub bytes_read: u64,
    /// Packs that no head names: left by interrupted runs, or still being written. Not a damage.
    pub orphans: u64,
}

impl Repository {
    /// Checks the repository under its current head.
    ///
    /// # Errors
    /// Only what keeps the check from running at all: no readable head or catalogue, storage errors, `Cancelled`.
    pub fn check(
        self: &Arc<Self>,
        options: CheckOptions,
        progress: CheckProgress<'_>,
    ) -> Result<CheckReport> {
        let view = Arc::new(self.head()?);
        let mut report = CheckReport::default();
        let footers = self.check_packs(&view, &mut report)?;
        self.check_snapshots(&view, &footers, &mut report)?;
        if options.read_data {
            self.check_data(&view, &footers, &mut report, progress)?;
        }
        Ok(report)
    }

    /// Every live pack exists with its length, and its footer verifies.
    fn check_packs(
        &self,
        view: &HeadView,
        report: &mut CheckReport,
    ) -> Result<BTreeMap<PackId, Footer>> {
        let packs = view.packs()?;
        let tombstones = view.tombstones()?;
        let mut sizes = BTreeMap::new();
        for (name, size) in self.backend.list(ObjectKind::Pack)? {
            if let ObjectName::Pack(id) = name {
                sizes.insert(id, size);
                match (packs.contains_key(&id), tombstones.contains_key(&id)) {
                    (false, false) => report.orphans += 1,
                    (true, true) => report.findings.push(Finding {
                        object: Some(name),
                        snapshot: None,
                        detail: "the catalogue says that it is live and that it is condemned"
                            .into(),
                    }),
                    _ => {}
                }
            }
        }
        report.packs = u64::try_from(packs.len()).unwrap_or(u64::MAX);
        let footers: Vec<_> = packs
            .par_iter()
            .map(|(id, entry)| (*id, self.check_footer(id, entry, sizes.get(id).copied())))
            .collect();
        let mut readable = BTreeMap::new();
        for (id, footer) in footers {
            match footer {
                Ok(footer) => {
                    report.chunks += u64::try_from(footer.chunks().len()).unwrap_or(u64::MAX);
                    readable.insert(id, footer);
                }
                Err(error) if error.is_damage() || matches!(error, Error::Io { .. }) => {
                    report.findings.push(finding(ObjectName::Pack(id), &error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(readable)
    }

    fn check_footer(&self, id: &PackId, entry: &PackEntry, size: Option<u64>) -> Result<Footer> {
        self.cancel().check()?;
        let name = ObjectName::Pack(*id);
        match size {
            None => return Err(Error::missing(name)),
            Some(size) if size != entry.size_bytes => {
                let detail = format!("it is {size} bytes long instead of {}", entry.size_bytes);
                return Err(Error::damaged(name, detail));
            }
            Some(_) => {}
        }
        self.live_footer(id, entry.size_bytes, entry.generation)
    }

    /// Every live snapshot has its record, and everything its manifest needs is in a readable live pack.
    fn check_snapshots(
        self: &Arc<Self>,
        view: &HeadView,
        footers: &BTreeMap<PackId, Footer>,
        report: &mut CheckReport,
    ) -> Result<()> {
        let mut references = References::default();
        let mut present = IdSet::default();
        for footer in footers.values() {
            references.add_footer(footer);
            present.extend(footer.locations().map(|(id, _, _)| id));
        }
        for (id, entry) in view.snapshots()? {
            self.cancel().check()?;
            report.snapshots += 1;
            let name = ObjectName::Snapshot(id);
            if let Err(error) = self.snapshot_record(id, &entry)
                // Forgotten and pruned since the check began: no damage.
                && self.head()?.snapshot(id)?.is_some()
            {
                report.findings.push(finding(name, &error));
            }
            let lost = match references.reachable([entry.root.id]) {
                Ok(needed) => needed.iter().filter(|id| !present.contains(id)).count(),
                Err(_) => 1,
            };
            if lost > 0 {
                report.findings.push(Finding {
                    object: Some(name),
                    snapshot: Some(id),
                    detail: format!("{lost} of the chunks that it needs are in no readable pack"),
                });
            }
        }
        Ok(())
    }

    fn check_data(
        self: &Arc<Self>,
        view: &Arc<HeadView>,
        footers: &BTreeMap<PackId, Footer>,
        report: &mut CheckReport,
        progress: CheckProgress<'_>,
    ) -> Result<()> {
        let reader = self.reader_of(Arc::clone(view));
        let packs = view.packs()?;
        let named: HashSet<PackId> = footers.keys().copied().collect();
        let order: Vec<_> = packs.iter().filter(|(id, _)| named.contains(id)).collect();
        let (done, all) = (AtomicU64::new(0), u64::try_from(order.len()).unwrap_or(u64::MAX));
        for group in order.chunks(PACKS_AT_ONCE) {
            self.cancel().check()?;
            let outcomes: Vec<_> = group
                .par_iter()
                .map(|(id, entry)| {
                    let outcome = self.check_pack_data(&reader, id, entry, footers.get(id));
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1, all);
                    (**id, entry.size_bytes, outcome)
                })
                .collect();
            for (id, size, outcome) in outcomes {
                report.bytes_read += size;
                match outcome {
                    Ok(details) => report.findings.extend(details.into_iter().map(|detail| {
                        Finding { object: Some(ObjectName::Pack(id)), snapshot: None, detail }
                    })),
                    Err(Error::Cancelled) => return Err(Error::Cancelled),
                    Err(error) => report.findings.push(finding(ObjectName::Pack(id), &error)),
                }
            }
        }
        Ok(())
    }

    /// Reads one pack whole: its hash, every frame, every chunk. Gives a sentence for each damage.
    fn check_pack_data(
        &self,
        reader: &Reader,
        id: &PackId,
        entry: &PackEntry,
        footer: Option<&Footer>,
    ) -> Result<Vec<String>> {
        let name = ObjectName::Pack(*id);
        let bytes = self.backend.read(&name, 0..entry.size_bytes)?;
        let mut details = Vec::new();
        if blake3::hash(&bytes).as_bytes() != &entry.hash {
            details.push("its bytes are not those that were committed".to_string());
        }
        let Some(footer) = footer else { return Ok(details) };
        let mut open: Option<(u32, ChunkKind, Result<Vec<u8>>)> = None;
        for (chunk, kind, place) in footer.locations() {
            if open.as_ref().is_none_or(|(frame, ..)| *frame != place.frame) {
                open = Some((place.frame, kind, reader.read_frame(&place, kind)));
                if let Some((_, _, Err(error))) = &open {
                    details.push(format!("frame {}: {error}", place.frame));
                }
            }
            if let Some((_, _, Ok(frame))) = &open
                && let Err(error) = reader.chunk_in(frame, &place, &chunk, kind)
            {
                details.push(error.to_string());
            }
        }
        Ok(details)
    }
}

fn finding(object: ObjectName, error: &Error) -> Finding {
    Finding { object: Some(object), snapshot: None, detail: error.to_string() }
}
