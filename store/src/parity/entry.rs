//! What the catalogue says of a group, and what follows from it alone: pure.

use crate::env::Timestamp;
use crate::error::{Error, Result};
use crate::id::{GroupId, PackId, ParityId};
use crate::limits::{PARITY_DATA_MAX, PARITY_OBJECTS_MAX};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All groups of a catalogue.
pub type Groups = BTreeMap<GroupId, ParityEntry>;

/// What the catalogue says of a group of packs and their parity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParityEntry {
    /// The packs, in the order in which they stand in the code.
    #[serde(rename = "m")]
    pub members: Vec<PackId>,
    /// Its parity objects by number. They are named before they are written: see the module's documentation.
    #[serde(rename = "p")]
    pub parities: Vec<ParityId>,
    /// When it was announced, by the clock of who did. Only decides when it counts as abandoned.
    #[serde(rename = "c")]
    pub announced: Timestamp,
    /// What the objects are, once all of them are durable; None while they are being written.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<ParityObjects>,
}

/// The parity objects of a complete group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParityObjects {
    /// Length of each, bytes; all are equally long.
    #[serde(rename = "n")]
    pub size_bytes: u64,
    /// BLAKE3 of each, by number.
    #[serde(rename = "h")]
    pub hashes: Vec<serde_bytes::ByteArray<32>>,
}

impl ParityEntry {
    /// # Errors
    /// `Damaged` or `LimitExceeded` when it is not what a catalogue can say.
    pub(crate) fn check(&self, id: GroupId) -> Result<()> {
        let object = || format!("parity group {id}");
        let limits = [
            ("number of packs", self.members.len(), PARITY_DATA_MAX),
            ("number of parity objects", self.parities.len(), PARITY_OBJECTS_MAX),
        ];
        for (what, found, limit) in limits {
            if found > limit {
                let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
                let (found, limit) = (wide(found), wide(limit));
                return Err(Error::LimitExceeded { object: object(), what, found, limit });
            }
        }
        let hashes = self.objects.as_ref().map_or(self.parities.len(), |o| o.hashes.len());
        if self.members.is_empty() || self.parities.is_empty() || hashes != self.parities.len() {
            return Err(Error::damaged(object(), "the catalogue's entry has impossible values"));
        }
        Ok(())
    }

    /// True once all its parity objects are durable.
    pub fn is_complete(&self) -> bool {
        self.objects.is_some()
    }

    /// How many more of its packs and parity objects can be lost before something is lost for good, counting those
    /// packs as lost that are not `there`; None where that is already so, where it is not complete, or where no pack
    /// is there that could need it.
    pub fn survives(&self, there: impl Fn(&PackId) -> bool) -> Option<usize> {
        let present = self.members.iter().filter(|pack| there(pack)).count();
        let lost = self.members.len() - present;
        if present == 0 || !self.is_complete() {
            return None;
        }
        self.parities.len().checked_sub(lost)
    }

    /// The bytes of its parity objects; 0 while it is not complete.
    pub fn parity_bytes(&self) -> u64 {
        let count = u64::try_from(self.parities.len()).unwrap_or(u64::MAX);
        self.objects.as_ref().map_or(0, |objects| objects.size_bytes.saturating_mul(count))
    }
}
