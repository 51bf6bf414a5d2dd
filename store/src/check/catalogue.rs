//! The head, the nodes of the catalogue, and whether what they say fits together.

use super::{CheckReport, is_finding};
use crate::catalogue::{
    ForgottenEntry, LostEntry, PackEntry, SnapshotEntry, Tombstone, history_begun, node_born,
};
use crate::error::Result;
use crate::id::{ChunkId, NodeId, ObjectName, PackId, SnapshotId};
use crate::repository::{HeadView, Repository};
use crate::tree::{self, NodeSource};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// What to do about a head or a catalogue that cannot be read.
const REPAIR: &str = "`repair` builds it anew from what is left";

/// Everything that the catalogue says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalogue {
    pub packs: Arc<BTreeMap<PackId, PackEntry>>,
    pub tombstones: BTreeMap<PackId, Tombstone>,
    pub snapshots: BTreeMap<SnapshotId, SnapshotEntry>,
    pub forgotten: BTreeMap<SnapshotId, ForgottenEntry>,
    pub lost: BTreeMap<ChunkId, LostEntry>,
}

impl Catalogue {
    /// What the catalogue of this head says.
    pub fn read(view: &HeadView) -> Result<Self> {
        Ok(Self {
            packs: Arc::clone(view.packs()?),
            tombstones: view.tombstones()?,
            snapshots: view.snapshots()?,
            forgotten: view.forgotten()?,
            lost: view.lost_chunks()?,
        })
    }

    /// The manifests of live snapshots.
    pub fn live_roots(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.snapshots.values().map(|entry| entry.root.id)
    }

    /// The manifests of forgotten snapshots that can still be taken back.
    pub fn held_roots(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.forgotten.values().map(|entry| entry.entry.root.id)
    }

    /// Records of live and forgotten snapshots, with whether they are forgotten.
    pub fn records(&self) -> impl Iterator<Item = (SnapshotId, &SnapshotEntry, bool)> + '_ {
        let live = self.snapshots.iter().map(|(id, entry)| (*id, entry, false));
        live.chain(self.forgotten.iter().map(|(id, entry)| (*id, &entry.entry, true)))
    }
}

impl Repository {
    /// The head, if it can be read and nothing that was listed before is newer than it.
    pub(super) fn check_head(
        self: &Arc<Self>,
        nodes: &[(ObjectName, u64)],
        report: &mut CheckReport,
    ) -> Result<Option<HeadView>> {
        // Reading the head makes this host remember that one.
        let seen = self.remembered_head();
        let view = match self.head() {
            Ok(view) => view,
            Err(error) if is_finding(&error) => {
                // What this host has seen of newer keys is no matter for a repair.
                let advice = match self.refuse_older_keys(self.generation()) {
                    Ok(()) => format!("; {REPAIR}"),
                    Err(_) => String::new(),
                };
                report.found(None, format!("{error}{advice}"));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let seq = view.seq();
        if let Some((seen, hash)) = seen
            && (seen > seq || (seen == seq && hash != ChunkId::from_bytes(view.hash).to_string()))
        {
            let detail = format!(
                "the head is number {seq}, and this host has seen another number {seen}: the storage was rolled \
                 back or replaced"
            );
            report.found(None, detail);
        }
        let newest = nodes.iter().filter_map(|(name, _)| match name {
            // What a repair wrote that did not come to its end says nothing.
            ObjectName::Catalogue(id) => history_begun(id).is_none().then(|| node_born(id)),
            _ => None,
        });
        if let Some(born) = newest.max().filter(|born| *born > seq) {
            let detail = format!(
                "the head is number {seq}, but a part of the catalogue was written under number {born}: the head \
                 was rolled back; {REPAIR}"
            );
            report.found(None, detail);
        }
        Ok(Some(view))
    }

    /// Reads every node of the catalogue and everything it says; None where some of it cannot be read.
    pub(super) fn check_catalogue(
        &self,
        view: &HeadView,
        report: &mut CheckReport,
    ) -> Result<Option<Catalogue>> {
        let mut is_whole = true;
        let mut seen = HashSet::new();
        let mut open: Vec<NodeId> = vec![view.head.catalogue.id];
        let source = view.nodes();
        while let Some(id) = open.pop() {
            self.cancel().check()?;
            if !seen.insert(id) {
                continue;
            }
            match source.load(&id).and_then(|bytes| tree::children(&id, &bytes)) {
                Ok(node) => open.extend(node.children.iter().map(|child| child.id)),
                Err(error) if is_finding(&error) => {
                    is_whole = false;
                    let detail = format!("{}; {REPAIR}", super::detail(&error));
                    report.found(ObjectName::Catalogue(id), detail);
                }
                Err(error) => return Err(error),
            }
        }
        if !is_whole {
            return Ok(None);
        }
        let catalogue = match Catalogue::read(view) {
            Ok(catalogue) => catalogue,
            Err(error) if is_finding(&error) => {
                report.found(None, format!("{error}; {REPAIR}"));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        check_contradictions(view, &catalogue, report);
        Ok(Some(catalogue))
    }
}

/// Nothing is both live and dead, and nothing names a head that has not been.
fn check_contradictions(view: &HeadView, catalogue: &Catalogue, report: &mut CheckReport) {
    for (id, pack) in catalogue.packs.iter() {
        let name = ObjectName::Pack(*id);
        if catalogue.tombstones.contains_key(id) {
            report.found(name, "the catalogue says that it is live and that it is condemned");
        }
        if pack.born >= view.seq() {
            report.found(name, format!("it is live and born under head {}", pack.born));
        }
    }
    for (id, tombstone) in &catalogue.tombstones {
        if tombstone.seq > view.seq() {
            let detail = format!("it was condemned by head {}", tombstone.seq);
            report.found(ObjectName::Pack(*id), detail);
        }
    }
    for (id, forgotten) in &catalogue.forgotten {
        let name = ObjectName::Snapshot(*id);
        if catalogue.snapshots.contains_key(id) {
            report.found(name, "the catalogue says that it is live and that it was forgotten");
        }
        if forgotten.seq > view.seq() {
            report.found(name, format!("it was forgotten by head {}", forgotten.seq));
        }
    }
}
