//! Sealing anew what older keys seal: snapshot records and the catalogue. Packs are rewritten by prune.
//!
//! Objects are never changed: a record that is sealed anew lies under a name of its own, which its entry in the catalogue
//! tells; the old one is garbage then. What is stored stays readable at every moment, for everybody who has the newest keys.

use super::{Attempt, CatalogueEdit, HeadView, Repository};
use crate::backend;
use crate::catalogue::{CatalogueSchema, ForgottenEntry, Key, SnapshotEntry};
use crate::crypto::{Generation, MetadataKey, RecordContext, RecordKind};
use crate::error::{Error, Result};
use crate::id::{ObjectName, SnapshotId};
use crate::tree::{Builder, NodeSink, NodeSource, Root, Tree, TreeParams, children};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Records that are sealed anew in one commit.
const RECORDS_AT_ONCE: usize = 64;
/// How often others may commit first before this gives up.
const ATTEMPTS_MAX: usize = 32;

/// What older keys still seal. Packs that are condemned do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outdated {
    /// Live packs.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Records of snapshots that are live or can be taken back.
    pub records: u64,
    /// Nodes of the catalogue.
    pub nodes: u64,
}

/// A snapshot whose record older keys seal, and where its entry stands.
struct OldRecord {
    id: SnapshotId,
    entry: SnapshotEntry,
    forgotten: Option<ForgottenEntry>,
}

impl Repository {
    /// Counts what older keys still seal.
    pub fn outdated(self: &Arc<Self>) -> Result<Outdated> {
        let view = self.head()?;
        let mut outdated = Outdated::default();
        for entry in view.packs()?.values().filter(|entry| self.is_outdated(entry)) {
            outdated.packs += 1;
            outdated.pack_bytes += entry.size_bytes;
        }
        let records = self.old_records(&view, &mut BTreeSet::new(), usize::MAX)?;
        outdated.records = u64::try_from(records.len()).unwrap_or(u64::MAX);
        outdated.nodes = self.old_nodes(&view, u64::MAX)?;
        Ok(outdated)
    }

    /// Seals with the newest keys what older ones seal: records of snapshots, and the catalogue. Gives the number of
    /// records. What cannot be read stays as it is.
    ///
    /// # Errors
    /// `Conflict` when others keep committing; `KeysRotated`; errors of the storage. What was sealed until then stays.
    pub fn reseal_records(self: &Arc<Self>) -> Result<u64> {
        let (mut done, mut seen, mut lost) = (0, BTreeSet::new(), 0);
        while lost < ATTEMPTS_MAX {
            self.cancel().check()?;
            let base = self.head()?;
            let mut passed = seen.clone();
            let old = self.old_records(&base, &mut passed, RECORDS_AT_ONCE)?;
            if old.is_empty() && self.old_nodes(&base, 1)? == 0 {
                return Ok(done);
            }
            let mut edit = match old.is_empty() {
                true => CatalogueEdit::anew(),
                false => CatalogueEdit::default(),
            };
            let names = self.seal_anew(&base, &old, &mut edit)?;
            let count = u64::try_from(names.len()).unwrap_or(u64::MAX);
            if names.is_empty() && !old.is_empty() {
                // None of them can be read.
                seen = passed;
                continue;
            }
            match self.attempt(&base, &edit)? {
                Attempt::Committed(_) => {
                    done += count;
                    seen = passed;
                }
                Attempt::Lost { certain } => {
                    lost += 1;
                    // Nobody can name these. Best effort: prune removes what stays behind.
                    for name in names.iter().filter(|_| certain) {
                        let _ = self.backend.remove(name);
                    }
                }
            }
        }
        Err(Error::Conflict { detail: "other processes keep committing".into() })
    }

    /// Stores the records under new names and puts these into the edit.
    fn seal_anew(
        &self,
        base: &HeadView,
        old: &[OldRecord],
        edit: &mut CatalogueEdit,
    ) -> Result<Vec<ObjectName>> {
        let mut names = Vec::new();
        for OldRecord { id, entry, forgotten } in old {
            let mut record = match self.snapshot_record(*id, entry) {
                Err(error) if error.is_damage() => continue,
                other => other?,
            };
            let object = SnapshotId::random(&*self.env);
            record.snapshot = Some(*id);
            record.base_seq = base.seq();
            let sealed = record.seal(object, self.id(), &self.metadata, &*self.env)?;
            let name = ObjectName::Snapshot(object);
            backend::put(&*self.backend, &name, &sealed)?;
            names.push(name);
            let hash = *blake3::hash(&sealed).as_bytes();
            let entry = SnapshotEntry { hash, record: Some(object), ..*entry };
            match forgotten {
                None => edit.put(Key::Snapshot(*id), &entry),
                Some(one) => edit.put(Key::Forgotten(*id), &ForgottenEntry { entry, ..*one }),
            }
        }
        Ok(names)
    }

    /// At most `limit` records that older keys seal, of snapshots that were not passed before.
    fn old_records(
        &self,
        view: &HeadView,
        passed: &mut BTreeSet<SnapshotId>,
        limit: usize,
    ) -> Result<Vec<OldRecord>> {
        let live = view.snapshots()?.into_iter().map(|(id, entry)| (id, entry, None));
        let forgotten = view.forgotten()?.into_iter().map(|(id, one)| (id, one.entry, Some(one)));
        let mut old = Vec::new();
        for (id, entry, forgotten) in live.chain(forgotten) {
            if old.len() == limit {
                break;
            }
            let object = entry.record_name(id);
            let is_new = passed.insert(id);
            if is_new
                && self.is_old(
                    ObjectName::Snapshot(object),
                    RecordKind::Snapshot,
                    object.as_bytes(),
                )?
            {
                old.push(OldRecord { id, entry, forgotten });
            }
        }
        Ok(old)
    }

    /// The number of nodes of the catalogue that older keys seal, as far as `limit`.
    fn old_nodes(&self, view: &HeadView, limit: u64) -> Result<u64> {
        let source = view.nodes();
        let (mut found, mut open) = (0, vec![view.head.catalogue.id]);
        while let Some(id) = open.pop() {
            self.cancel().check()?;
            found += u64::from(self.is_old(
                ObjectName::Catalogue(id),
                RecordKind::Catalogue,
                id.as_bytes(),
            )?);
            if found >= limit {
                break;
            }
            open.extend(children(&id, &source.load(&id)?)?.children.iter().map(|child| child.id));
        }
        Ok(found)
    }

    /// Whether older keys seal an object; what is lost or damaged is not for us.
    fn is_old(&self, object: ObjectName, kind: RecordKind, name: &[u8]) -> Result<bool> {
        if self.generation() == Generation::FIRST {
            return Ok(false);
        }
        let context = RecordContext { repository: self.id(), kind, name };
        let len = u64::try_from(MetadataKey::PREFIX_MAX).expect("it is short");
        let prefix = self.backend.read(&object, 0..len);
        match prefix.and_then(|prefix| MetadataKey::generation_of(&context, &prefix)) {
            Ok(generation) => Ok(generation < self.generation()),
            Err(error) if error.is_damage() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Writes every node of the catalogue again; its entries stay as they are.
pub(super) fn write_anew(
    root: Root,
    params: &TreeParams,
    source: &dyn NodeSource,
    sink: &mut dyn NodeSink,
) -> Result<Root> {
    let tree = Tree::<CatalogueSchema>::open(root, source);
    let mut cursor = tree.iter()?;
    let mut builder = Builder::<CatalogueSchema>::new(params, sink);
    while let Some((key, value)) = cursor.peek() {
        builder.push(key, value)?;
        cursor.advance()?;
    }
    builder.finish()
}
