//! Rotation: from now on fresh keys seal what is written; ids and cuts stay, so nothing is stored twice.
//!
//! Three steps. (1) A new slot is durable: it holds the fresh key and all before, and names the head that it is about to
//! replace. (2) The head moves, sealed with the fresh key: the commit. (3) The old slots go. After a crash between (1) and
//! (2) the new slot still opens that one head, and whatever is committed next completes the rotation; or somebody with the
//! old keys commits first, and the new slot means nothing. Only slots that were listed before the head was read are
//! removed: none of them can belong to a rotation that may still succeed.

use super::unlock::Unlocked;
use super::{Attempt, CatalogueEdit, HeadView, Repository};
use crate::backend::{self, Swap};
use crate::crypto::KeyRing;
use crate::error::{Error, Result};
use crate::id::{ObjectKind, ObjectName, SlotId, TransactionId};
use crate::limits::RECORD_BYTES_MAX;
use crate::record::{Head, KeySlot, NewSlot, head};
use std::sync::Arc;

/// How often others may commit first before a rotation gives up.
const ATTEMPTS_MAX: usize = 32;

/// What becomes of slots whose secrets the rotation does not know, so that it cannot wrap the fresh key for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherKeys {
    /// They keep the rotation from being done.
    Refuse,
    /// They are removed; whoever used them needs a new one.
    Drop,
}

/// What a rotation did.
pub struct Rotation {
    /// The repository, opened by the new slot. The one that was rotated cannot be used any more.
    pub repository: Arc<Repository>,
    /// Slots of other secrets that were removed.
    pub dropped: Vec<SlotId>,
    /// Slots that hold older keys only and are still there: added meanwhile, or not to be removed.
    pub left: Vec<SlotId>,
}

/// A slot as it was listed; None where it cannot be read.
type Listed = (SlotId, Option<KeySlot>);

impl Repository {
    /// Draws fresh keys that seal everything from now on, in a slot of their own for a secret, which may be the one that
    /// opened the repository.
    ///
    /// # Errors
    /// `Invalid` when there are slots of other secrets that are not to be dropped; `KeysRotated` when another rotation
    /// was faster; `Conflict` when others keep committing; errors of the storage: then the rotation is completed by
    /// the next commit of whoever opens with the new secret, or never was.
    pub fn rotate_keys(self: &Arc<Self>, new: &NewSlot<'_>, others: OtherKeys) -> Result<Rotation> {
        let keys = self.keys.rotated(&*self.env)?;
        for _ in 0..ATTEMPTS_MAX {
            self.cancel().check()?;
            // In this order: see above.
            let listed = self.listed_slots()?;
            let foreign = self.foreign(&listed);
            if !foreign.is_empty() && others == OtherKeys::Refuse {
                let detail = format!("{} other keys would not open the repository", foreign.len());
                return Err(Error::Invalid(detail));
            }
            let base = self.head()?;
            let slot = KeySlot::wrap(&keys, new, &self.id(), Some(base.hash), &*self.env)?;
            let name = ObjectName::Key(slot.id());
            if let Err(error) = backend::put(&*self.backend, &name, &slot.encode()) {
                // Best effort: it has replaced nothing.
                let _ = self.backend.remove(&name);
                return Err(error);
            }
            if !self.replace_head(&base, &keys)? {
                // Nothing will ever be sealed with the key in it.
                let _ = self.backend.remove(&name);
                continue;
            }
            let unlocked = Unlocked { slot: slot.id(), keys, pending: None, notice: None };
            let repository = Arc::new(self.unlocked_by(unlocked));
            // Remembers that these keys are in use.
            let _ = repository.head();
            let left = repository.remove_replaced(&listed);
            let dropped = foreign.into_iter().filter(|id| !left.contains(id)).collect();
            return Ok(Rotation { repository, dropped, left });
        }
        Err(Error::Conflict { detail: "other processes keep committing".into() })
    }

    /// Other slots whose secrets open the repository as the current one does: a rotation cannot keep them.
    pub fn other_keys(&self) -> Result<Vec<SlotId>> {
        Ok(self.foreign(&self.listed_slots()?))
    }

    fn listed_slots(&self) -> Result<Vec<Listed>> {
        let mut slots = Vec::new();
        for (name, _) in self.backend.list(ObjectKind::Key)? {
            let ObjectName::Key(id) = name else { continue };
            match backend::read_whole(&*self.backend, &name, RECORD_BYTES_MAX) {
                Ok(bytes) => slots.push((id, KeySlot::parse(id, &bytes).ok())),
                // Removed since it was listed.
                Err(Error::Missing { .. }) => {}
                Err(error) if error.is_damage() => slots.push((id, None)),
                Err(error) => return Err(error),
            }
        }
        Ok(slots)
    }

    fn foreign(&self, listed: &[Listed]) -> Vec<SlotId> {
        let is_foreign =
            |slot: &Option<KeySlot>| slot.as_ref().is_none_or(|slot| slot.holds(&self.keys));
        let foreign = listed.iter().filter(|(id, slot)| *id != self.slot && is_foreign(slot));
        foreign.map(|(id, _)| *id).collect()
    }

    /// Moves the head from `base` to the same state under these keys; false where somebody moved it first.
    ///
    /// # Errors
    /// Where the storage's answer does not tell, and the head is the old one: it may still happen.
    fn replace_head(&self, base: &HeadView, keys: &KeyRing) -> Result<bool> {
        let metadata = keys.metadata();
        let transaction = TransactionId::random(&*self.env);
        let next = base.head.next(base.hash, base.head.catalogue, transaction);
        let bytes = next.seal(self.id(), &metadata, &*self.env);
        match self.backend.swap_head(Some(&base.bytes), &bytes) {
            Ok(Swap::Done) => Ok(true),
            Ok(Swap::Lost) => Ok(false),
            Err(error) => {
                let stored = self.backend.read_head()?.ok_or_else(|| Error::missing("head"))?;
                if stored == base.bytes {
                    return Err(error);
                }
                // Nobody else has these keys yet: a head sealed with them is ours, or follows ours.
                let found = head::generation_of(&stored, self.id())?;
                let opened = Head::open(&stored, self.id(), &metadata);
                Ok(found == keys.generation() && opened.is_ok())
            }
        }
    }

    /// Removes these slots; gives those that hold older keys and are still there.
    fn remove_replaced(&self, listed: &[Listed]) -> Vec<SlotId> {
        let mut left = Vec::new();
        for (id, _) in listed {
            if self.backend.remove(&ObjectName::Key(*id)).is_err() {
                left.push(*id);
            }
        }
        // Added since by somebody who has the old keys: they open nothing now. That they are not shown here if this
        // fails harms nobody.
        for (id, slot) in self.listed_slots().unwrap_or_default() {
            let is_older = slot.is_some_and(|slot| slot.generation() < self.generation());
            if is_older && !left.contains(&id) {
                left.push(id);
            }
        }
        left
    }

    /// Completes an interrupted rotation, whose slot opened the repository.
    pub(super) fn settle(self: &Arc<Self>) -> Result<()> {
        while self.pending().is_some() {
            let base = self.head()?;
            if base.generation() == self.generation() {
                break;
            }
            if let Attempt::Committed(_) = self.attempt(&base, &CatalogueEdit::default())? {
                break;
            }
        }
        Ok(())
    }
}
