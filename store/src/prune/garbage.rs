//! Catalogue nodes and snapshot records that no head names and none can ever name.

use crate::backend;
use crate::catalogue::node_born;
use crate::error::Result;
use crate::id::{NodeId, ObjectKind, ObjectName, SnapshotId};
use crate::limits::RECORD_BYTES_MAX;
use crate::record::SnapshotRecord;
use crate::repository::{HeadView, Repository};
use crate::tree::NodeSource;
use std::collections::HashSet;
use std::sync::Arc;

impl Repository {
    /// Removes them; gives their number. Listed before the head is read: what is written later is not looked at.
    /// Where the head moves on so far meanwhile that its own catalogue goes, another prune does this work.
    pub(super) fn remove_garbage(self: &Arc<Self>) -> Result<u64> {
        let nodes = self.backend.list(ObjectKind::Catalogue)?;
        let records = self.backend.list(ObjectKind::Snapshot)?;
        let view = self.head()?;
        match self.remove_unnamed(nodes, records, &view) {
            Err(error) if error.is_damage() && self.head()?.hash != view.hash => Ok(0),
            removed => removed,
        }
    }

    fn remove_unnamed(
        &self,
        nodes: Vec<(ObjectName, u64)>,
        records: Vec<(ObjectName, u64)>,
        view: &HeadView,
    ) -> Result<u64> {
        let mut removed = 0;
        let mut named = HashSet::new();
        name_nodes(view, view.head.catalogue.id, &mut named)?;
        for older in view.head.catalogues.iter().rev() {
            match name_nodes(view, NodeId::from_bytes(**older), &mut named) {
                // Of the oldest ones some nodes may be gone.
                Err(error) if error.is_damage() => {}
                other => other?,
            }
        }
        for (name, _) in nodes {
            let ObjectName::Catalogue(id) = name else { continue };
            // An attempt that began under an older head can no longer succeed, so its nodes stay unnamed.
            if !named.contains(&id) && node_born(&id) < view.seq() {
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

/// Adds the nodes of one catalogue.
fn name_nodes(view: &HeadView, root: NodeId, named: &mut HashSet<NodeId>) -> Result<()> {
    let source = view.nodes();
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        if named.insert(id) {
            let bytes = source.load(&id)?;
            let children = crate::tree::children(&id, &bytes)?.children;
            open.extend(children.iter().map(|child| child.id));
        }
    }
    Ok(())
}
