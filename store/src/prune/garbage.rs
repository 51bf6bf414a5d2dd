//! Catalogue nodes and snapshot records that no head names and none can ever name.

use crate::backend;
use crate::catalogue::node_born;
use crate::error::Result;
use crate::id::{ObjectKind, ObjectName, SnapshotId};
use crate::limits::RECORD_BYTES_MAX;
use crate::record::SnapshotRecord;
use crate::repository::Repository;
use crate::tree::NodeSource;
use std::collections::HashSet;
use std::sync::Arc;

/// Heads before the current one whose catalogues are kept, for commands that began under them.
const HEADS_KEPT: u64 = 16;

impl Repository {
    /// Removes them; gives their number. Listed before the head is read: what is written later is not looked at.
    pub(super) fn remove_garbage(self: &Arc<Self>) -> Result<u64> {
        let nodes = self.backend.list(ObjectKind::Catalogue)?;
        let records = self.backend.list(ObjectKind::Snapshot)?;
        let view = self.head()?;
        let mut removed = 0;
        let mut named = HashSet::new();
        let mut open = vec![view.head.catalogue.id];
        let source = view.nodes();
        while let Some(id) = open.pop() {
            if named.insert(id) {
                let bytes = source.load(&id)?;
                open.extend(
                    crate::tree::children(&id, &bytes)?.children.iter().map(|child| child.id),
                );
            }
        }
        for (name, _) in nodes {
            let ObjectName::Catalogue(id) = name else { continue };
            // An attempt that began under an older head can no longer succeed, so its nodes stay unnamed.
            if !named.contains(&id) && node_born(&id) + HEADS_KEPT < view.seq() {
                self.backend.remove(&name)?;
                removed += 1;
            }
        }
        let live = view.snapshots()?.into_iter().map(|(id, entry)| entry.record_name(id));
        let forgotten = view.forgotten()?.into_iter().map(|(id, one)| one.entry.record_name(id));
        let kept: HashSet<SnapshotId> = live.chain(forgotten).collect();
        for (name, _) in records {
            let ObjectName::Snapshot(id) = name else { continue };
            if kept.contains(&id) {
                continue;
            }
            let Ok(bytes) = backend::read_whole(&*self.backend, &name, RECORD_BYTES_MAX) else {
                continue;
            };
            let Ok(record) = SnapshotRecord::open(&bytes, id, self.id(), &self.metadata) else {
                continue;
            };
            if record.base_seq < view.seq() {
                self.backend.remove(&name)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}
