//! Key slots of an open repository: listing, adding, removing.

use super::Repository;
use crate::backend;
use crate::error::{Error, Result};
use crate::id::{ObjectKind, ObjectName, SlotId};
use crate::limits::RECORD_BYTES_MAX;
use crate::record::{KdfCost, KeySlot, Secret};

impl Repository {
    /// The slot whose secret opened the repository.
    pub fn current_slot(&self) -> SlotId {
        self.slot
    }

    /// All key slots, oldest first.
    pub fn key_slots(&self) -> Result<Vec<KeySlot>> {
        let mut slots = Vec::new();
        for (name, _) in self.backend.list(ObjectKind::Key)? {
            let ObjectName::Key(id) = name else { continue };
            let bytes = backend::read_whole(&*self.backend, &name, RECORD_BYTES_MAX)?;
            slots.push(KeySlot::parse(id, &bytes)?);
        }
        slots.sort_by_key(KeySlot::created);
        Ok(slots)
    }

    /// Adds a slot that opens with `secret`; the others stay. `cost` counts for passphrases alone.
    pub fn add_key(&self, secret: &Secret, label: &str, cost: KdfCost) -> Result<SlotId> {
        let slot = KeySlot::wrap(&self.key, secret, &self.id(), label, cost, &*self.env)?;
        backend::put(&*self.backend, &ObjectName::Key(slot.id()), &slot.encode())?;
        Ok(slot.id())
    }

    /// Removes a slot.
    ///
    /// # Errors
    /// `Invalid` for the last slot, which would make the repository unreadable for ever, and for one that is not there.
    pub fn remove_key(&self, id: SlotId) -> Result<()> {
        let slots = self.key_slots()?;
        if !slots.iter().any(|slot| slot.id() == id) {
            return Err(Error::Invalid(format!("there is no key {id}")));
        }
        if slots.len() == 1 {
            return Err(Error::Invalid(
                "this is the only key: without it nobody could ever read the repository".into(),
            ));
        }
        self.backend.remove(&ObjectName::Key(id))
    }
}
