//! Building head and catalogue anew where they cannot be read, or where the head was rolled back.
//!
//! Looks at everything that is left (nodes of this and earlier catalogues, sealed records, footers of packs), decides what
//! counts, and puts a new head above all that ever were. Whoever works under an older one loses its next compare-and-swap
//! and looks again; packs begun under an older one do not count as anybody's own any more. Removes nothing.

mod coverage;
mod nodes;
mod records;
mod rule;
mod stock;
mod survivors;
mod trouble;

use super::plan::CataloguePlan;
use super::{RepairOptions, mend};
use crate::catalogue::{
    CatalogueNodes, CatalogueSchema, HISTORY_STEP, Key, decode_value, encode_value, node_born,
};
use crate::check::CheckProgress;
use crate::error::Result;
use crate::id::{ObjectKind, ObjectName, TransactionId};
use crate::parity::ParityEntry;
use crate::record::Head;
use crate::repository::{Repository, StoredHead};
use crate::tree::Builder;
use records::Records;
use rule::{Outcome, Ruling};
use std::collections::BTreeMap;
use std::sync::Arc;
use stock::{Needs, Stock};
use survivors::{Age, Survivors};
use trouble::Trouble;

/// Times that it is done again because somebody else was faster.
const ATTEMPTS_MAX: usize = 16;

/// A catalogue that is to be.
struct Rebuilt {
    plan: CataloguePlan,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The last head still counts, and the new one follows it.
    follows: bool,
}

/// What was there when it was looked at.
struct Evidence {
    nodes: Vec<(ObjectName, u64)>,
    records: Records,
    stored: StoredHead,
    trouble: Trouble,
}

impl Repository {
    /// Builds head and catalogue anew if that is needed; gives what was, or would be, done.
    ///
    /// # Errors
    /// `Conflict` where other processes are faster all the time; `StaleSecret` and `KeysRotated` where other keys are in
    /// use; `Unsupported` where a newer program was here; `Damaged` where this host has seen newer keys; errors of the
    /// storage, `Cancelled`.
    pub(super) fn repair_catalogue(
        self: &Arc<Self>,
        options: &RepairOptions,
        progress: CheckProgress<'_>,
    ) -> Result<Option<CataloguePlan>> {
        for _ in 0..ATTEMPTS_MAX {
            self.cancel().check()?;
            // A device may fail once, and a prune may have removed what an older head named.
            if self.evidence()?.is_none() {
                return Ok(None);
            }
            let Some(evidence) = self.evidence()? else { return Ok(None) };
            self.refuse_older_keys(self.generation())?;
            let rebuilt = self.rebuild_catalogue(&evidence, options, progress)?;
            if options.dry_run || self.put_catalogue(&evidence.stored, &rebuilt)? {
                return Ok(Some(rebuilt.plan));
            }
        }
        Err(mend::crowded_out())
    }

    /// Everything that decides whether there is something to do; None where there is not.
    fn evidence(self: &Arc<Self>) -> Result<Option<Evidence>> {
        // Listed before the head is read: what is newer than that head shows that it is not the newest.
        let nodes = self.backend.list(ObjectKind::Catalogue)?;
        let records = self.backend.list(ObjectKind::Snapshot)?;
        let stored = self.stored_head()?;
        let records = Records::read(self, &records)?;
        let trouble = self.trouble(&stored, &nodes, &records)?;
        Ok(trouble.map(|trouble| Evidence { nodes, records, stored, trouble }))
    }

    fn rebuild_catalogue(
        self: &Arc<Self>,
        evidence: &Evidence,
        options: &RepairOptions,
        progress: CheckProgress<'_>,
    ) -> Result<Rebuilt> {
        let Evidence { nodes, records, stored, trouble } = evidence;
        let current = trouble.current.and(stored.opened.as_ref());
        let nodes = committed_perhaps(nodes, current.map(|head| head.seq));
        let mut heads = records.heads();
        heads.extend(stored.opened.as_ref().map(|head| head.seq));
        let newer = stored.newer_version;
        let survivors = Survivors::read(self, &nodes, trouble.current, newer, &heads)?;
        let ruling = rule::decide(&survivors, records);
        let is_live_for_nobody = |id: &_| survivors.known(Key::Pack(*id)) == Some(Age::Current);
        let mut stock = Stock::read(self, &ruling, |id| !is_live_for_nobody(id))?;
        let needs = stock.needs(self, &ruling, options.dry_run, progress)?;
        let seen = [
            survivors.last_head,
            records.heads().last().copied().unwrap_or(0),
            stock.last_head(),
            stored.opened.as_ref().map_or(0, |head| head.seq),
            self.remembered_head().map_or(0, |(seq, _)| seq),
        ];
        let last = seen.into_iter().max().unwrap_or(0);
        let follows = current.is_some_and(|head| last <= head.seq.saturating_add(1));
        let seq = match current.filter(|_| follows) {
            Some(head) => head.seq.saturating_add(1),
            // There may have been heads of which no trace is left, and no host may take the new one for one of those.
            None => (last / HISTORY_STEP + 1).saturating_mul(HISTORY_STEP),
        };
        let plan = CataloguePlan {
            reason: trouble.reason.clone(),
            seq,
            nodes_read: survivors.nodes_read,
            nodes_lost: survivors.nodes_lost,
            ..CataloguePlan::default()
        };
        let mut rebuilt = Rebuilt { plan, entries: BTreeMap::new(), follows };
        rebuilt.put_packs(&ruling, &stock, &needs);
        self.put_snapshots(&ruling, &needs, &mut rebuilt);
        self.put_others(&survivors, &ruling, &mut rebuilt)?;
        Ok(rebuilt)
    }

    fn put_snapshots(&self, ruling: &Ruling, needs: &Needs, rebuilt: &mut Rebuilt) {
        for (id, entry) in &ruling.live {
            rebuilt.put(Key::Snapshot(*id), encode_value(entry));
        }
        for (id, one) in &ruling.forgotten {
            rebuilt.put(Key::Forgotten(*id), encode_value(one));
        }
        rebuilt.plan.snapshots_listed = count(ruling.live.len() + ruling.forgotten.len());
        let (now, seq) = (self.env.now(), rebuilt.plan.seq);
        for (id, doubt) in &ruling.doubtful {
            match rule::settle(*doubt, !needs.torn.contains(id), now, seq) {
                Outcome::Live(entry) => {
                    rebuilt.put(Key::Snapshot(*id), encode_value(&entry));
                    rebuilt.plan.snapshots_found.push(*id);
                }
                Outcome::Forgotten(one) => {
                    rebuilt.put(Key::Forgotten(*id), encode_value(&one));
                    rebuilt.plan.snapshots_listed += 1;
                }
                Outcome::SetAside(one) => {
                    rebuilt.put(Key::Forgotten(*id), encode_value(&one));
                    rebuilt.plan.snapshots_set_aside.push(*id);
                }
                Outcome::Gone => {}
            }
        }
    }

    /// Chunks that were given up, verifications of live packs, and parity: a group that only older nodes name counts only
    /// if its objects are there, because it may have been given up since.
    fn put_others(
        &self,
        survivors: &Survivors,
        ruling: &Ruling,
        rebuilt: &mut Rebuilt,
    ) -> Result<()> {
        for (key, value) in &ruling.others {
            let is_kept = match key {
                Key::Verified(id) => rebuilt.entries.contains_key(&Key::Pack(*id).encode()),
                Key::Parity(_) => {
                    let age = survivors.entries.get(key).map(|(age, _)| *age);
                    let is_certain = age.is_some_and(|age| survivors.is_certain(age));
                    is_certain || self.has_parity_objects(value)?
                }
                _ => true,
            };
            if is_kept {
                rebuilt.put(*key, value.clone());
            }
        }
        Ok(())
    }

    fn has_parity_objects(&self, value: &[u8]) -> Result<bool> {
        let Ok(entry) = decode_value::<ParityEntry>(value) else { return Ok(false) };
        let Some(objects) = &entry.objects else { return Ok(false) };
        for parity in &entry.parities {
            let size = self.backend.size_bytes(&ObjectName::Parity(*parity))?;
            if size != Some(objects.size_bytes) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes the nodes and the head; false if somebody else has changed the head meanwhile.
    fn put_catalogue(self: &Arc<Self>, stored: &StoredHead, rebuilt: &Rebuilt) -> Result<bool> {
        match self.try_put_catalogue(stored, rebuilt) {
            Err(error) if error.is_full() && self.backend.release_reserve()? => {
                self.try_put_catalogue(stored, rebuilt)
            }
            outcome => outcome,
        }
    }

    fn try_put_catalogue(self: &Arc<Self>, stored: &StoredHead, rebuilt: &Rebuilt) -> Result<bool> {
        let seq = rebuilt.plan.seq;
        let (backend, env) = (&*self.backend, &*self.env);
        let mut sink =
            CatalogueNodes::new(backend, self.id(), &self.metadata, env, seq.saturating_sub(1));
        let written = rebuilt.write(&self.catalogue_params(), &mut sink);
        let root = match written {
            Ok(root) => root,
            Err(error) => {
                self.remove_nodes(sink.written());
                return Err(error);
            }
        };
        let transaction = TransactionId::random(env);
        let hash = stored.bytes.as_ref().map(|bytes| *blake3::hash(bytes).as_bytes());
        let mut head = match stored.opened.as_ref().filter(|_| rebuilt.follows) {
            Some(head) => head.next(hash.unwrap_or_default(), root, transaction),
            None => Head::anew(seq, hash.unwrap_or_default(), root, transaction),
        };
        // Of some packs it may be forgotten that they were condemned: none that was begun before becomes live by a commit.
        head.fence = seq;
        let is_done = self.put_head(stored, &head)?;
        if !is_done {
            self.remove_nodes(sink.written());
        }
        Ok(is_done)
    }
}

impl Rebuilt {
    fn put(&mut self, key: Key, value: Vec<u8>) {
        self.entries.insert(key.encode(), value);
    }

    fn put_packs(&mut self, ruling: &Ruling, stock: &Stock, needs: &Needs) {
        for (id, entry) in stock.listed.iter().chain(&needs.packs) {
            self.put(Key::Pack(*id), encode_value(entry));
        }
        for (id, tombstone) in &ruling.tombstones {
            self.put(Key::Tombstone(*id), encode_value(tombstone));
        }
        self.plan.packs_listed = count(stock.listed.len());
        self.plan.packs_found = needs.packs.keys().copied().collect();
        self.plan.packs_condemned = count(ruling.tombstones.len());
    }

    fn write(
        &self,
        params: &crate::tree::TreeParams,
        sink: &mut CatalogueNodes<'_>,
    ) -> Result<crate::tree::Root> {
        let mut builder = Builder::<CatalogueSchema>::new(params, sink);
        for (key, value) in &self.entries {
            builder.push(key, value)?;
        }
        builder.finish()
    }
}

/// What was written on top of a head that counts, or later, is part of no head: attempts under way, and repairs that died.
fn committed_perhaps(nodes: &[(ObjectName, u64)], head: Option<u64>) -> Vec<(ObjectName, u64)> {
    let is_part = |name: &ObjectName| match (name, head) {
        (ObjectName::Catalogue(id), Some(seq)) => node_born(id) < seq,
        _ => true,
    };
    nodes.iter().filter(|(name, _)| is_part(name)).copied().collect()
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
