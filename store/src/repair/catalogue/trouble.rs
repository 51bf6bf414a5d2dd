//! Whether head and catalogue have to be built anew, and why.

use super::nodes::{Found, Nodes};
use super::records::Records;
use crate::catalogue::{
    CatalogueSchema, ForgottenEntry, Key, LostEntry, PackEntry, SnapshotEntry, Tombstone,
    VerifiedEntry, decode_value, history_begun, node_born,
};
use crate::error::{Error, Result};
use crate::id::{NodeId, ObjectName};
use crate::parity::ParityEntry;
use crate::repository::{HeadView, Repository, StoredHead};
use crate::tree::{self, Part, Root};

/// What is wrong with head or catalogue.
pub(super) struct Trouble {
    /// One sentence.
    pub reason: String,
    /// The catalogue of the head, where the head counts and only parts of it cannot be read.
    pub current: Option<Root>,
}

impl Repository {
    /// What is wrong with this head and its catalogue, if anything. Nodes and records were listed before it was read.
    ///
    /// # Errors
    /// Errors of the storage; `Cancelled`.
    pub(super) fn trouble(
        &self,
        stored: &StoredHead,
        listed: &[(ObjectName, u64)],
        records: &Records,
    ) -> Result<Option<Trouble>> {
        let view = match &stored.view {
            Ok(view) => view,
            Err(error) => return Ok(Some(Trouble { reason: error.to_string(), current: None })),
        };
        if let Some(reason) = self.roll_back(view, listed, records)? {
            return Ok(Some(Trouble { reason, current: None }));
        }
        let damage = self.catalogue_damage(view)?;
        let current = Some(view.head.catalogue);
        Ok(damage.map(|error| Trouble { reason: error.to_string(), current }))
    }

    /// Whether something shows that there has been a newer head. That this host has seen one does not count alone: then
    /// the whole repository was put back, and there is nothing newer to go back to.
    fn roll_back(
        &self,
        view: &HeadView,
        listed: &[(ObjectName, u64)],
        records: &Records,
    ) -> Result<Option<String>> {
        let seq = view.seq();
        let rolled_back = |what: &str, newer: u64| {
            format!("the head is number {seq}, but {what} number {newer}: the head was rolled back")
        };
        let newest = records.heads().last().copied().unwrap_or(0);
        if newest > seq {
            return Ok(Some(rolled_back("the record of a snapshot was written under", newest)));
        }
        let seen = self.remembered_head().map_or(0, |(seq, _)| seq);
        let least = if seen > seq { seq } else { seq.saturating_add(1) };
        let ids = listed.iter().filter_map(|(name, _)| match name {
            ObjectName::Catalogue(id) => Some(*id),
            _ => None,
        });
        // What a repair wrote that did not come to its end says nothing.
        let ids = ids.filter(|id| history_begun(id).is_none());
        let mut newer: Vec<NodeId> = ids.filter(|id| node_born(id) >= least).collect();
        newer.sort_by_key(|id| std::cmp::Reverse(node_born(id)));
        let nodes = Nodes::new(self);
        for id in newer {
            self.cancel().check()?;
            // Anybody can make up a name.
            if let Found::Node { .. } = nodes.top(&id)? {
                return Ok(Some(match node_born(&id) {
                    born if born > seq => {
                        rolled_back("a part of the catalogue was written under", born)
                    }
                    _ => rolled_back("this host has seen", seen),
                }));
            }
        }
        Ok(None)
    }

    /// The first thing in the catalogue of this head that cannot be read.
    fn catalogue_damage(&self, view: &HeadView) -> Result<Option<Error>> {
        let nodes = Nodes::new(self);
        let mut first = None;
        tree::visit::<CatalogueSchema>(view.head.catalogue, &nodes, &mut |part| {
            self.cancel().check()?;
            match part {
                Part::Subtree { failure: None, .. } => return Ok(first.is_none()),
                Part::Subtree { failure: Some(error), .. } => first = first.take().or(Some(error)),
                Part::Entry { key, value } => match check_entry(key, value) {
                    Err(error) if error.is_damage() => first = first.take().or(Some(error)),
                    other => other?,
                },
            }
            Ok(false)
        })?;
        Ok(first)
    }
}

/// Whether an entry can be decoded.
fn check_entry(key: &[u8], value: &[u8]) -> Result<()> {
    match Key::decode(key)? {
        Key::Forgotten(_) => decode_value::<ForgottenEntry>(value).map(drop),
        Key::Lost(_) => decode_value::<LostEntry>(value).map(drop),
        Key::Pack(_) => decode_value::<PackEntry>(value).map(drop),
        Key::Parity(id) => decode_value::<ParityEntry>(value)?.check(id),
        Key::Snapshot(_) => decode_value::<SnapshotEntry>(value).map(drop),
        Key::Tombstone(_) => decode_value::<Tombstone>(value).map(drop),
        Key::Verified(_) => decode_value::<VerifiedEntry>(value).map(drop),
    }
}
