//! Key slots of an open repository: listing, adding, removing.

use super::{HeadView, Repository};
use crate::backend;
use crate::error::{Error, Result};
use crate::id::{ObjectKind, ObjectName, SlotId};
use crate::limits::RECORD_BYTES_MAX;
use crate::record::{KdfCost, KeySlot, NewSlot, Secret};
use std::sync::Arc;

/// What a slot is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Its secret opens the repository.
    InUse,
    /// It belongs to a rotation that is under way, or was interrupted and can still be completed.
    Pending,
    /// It holds keys that are not in use: a rotation replaced them, or the one that brought them came to nothing.
    Outdated,
}

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

    /// What a slot is good for under this head; where the head cannot be read, none counts as pending.
    pub fn key_state(&self, slot: &KeySlot, view: Option<&HeadView>) -> KeyState {
        if slot.holds(&self.keys) {
            KeyState::InUse
        } else if view.is_some_and(|view| slot.replaces() == Some(view.hash)) {
            KeyState::Pending
        } else {
            KeyState::Outdated
        }
    }

    /// Adds a slot that opens with `secret`; the others stay. `cost` counts for passphrases alone.
    ///
    /// # Errors
    /// `KeysRotated` when that happened meanwhile: then the slot is removed again.
    pub fn add_key(
        self: &Arc<Self>,
        secret: &Secret,
        label: &str,
        cost: KdfCost,
    ) -> Result<SlotId> {
        self.settle()?;
        let new = NewSlot { secret, label, cost };
        let slot = KeySlot::wrap(&self.keys, &new, &self.id(), None, &*self.env)?;
        let name = ObjectName::Key(slot.id());
        backend::put(&*self.backend, &name, &slot.encode())?;
        if let Err(Error::KeysRotated) = self.head() {
            self.backend.remove(&name)?;
            return Err(Error::KeysRotated);
        }
        Ok(slot.id())
    }

    /// Removes a slot.
    ///
    /// # Errors
    /// `Invalid` for the last slot in use, which would make the repository unreadable for ever, for one of a rotation
    /// that is under way, and for one that is not there.
    pub fn remove_key(self: &Arc<Self>, id: SlotId) -> Result<()> {
        self.settle()?;
        let slots = self.key_slots()?;
        let Some(slot) = slots.iter().find(|slot| slot.id() == id) else {
            return Err(Error::Invalid(format!("there is no key {id}")));
        };
        if slot.holds(&self.keys) {
            if slots.iter().filter(|slot| slot.holds(&self.keys)).count() == 1 {
                return Err(Error::Invalid(
                    "this is the only key: without it nobody could ever read the repository".into(),
                ));
            }
        } else if self.key_state(slot, Some(&self.head()?)) == KeyState::Pending {
            return Err(Error::Invalid(
                "a rotation of the keys needs it, which is under way or was interrupted; another rotation ends that"
                    .into(),
            ));
        }
        self.backend.remove(&ObjectName::Key(id))
    }
}
