//! Finding the keys that are current: which of the slots that a secret opens belongs to the head, and whether a head may
//! be believed.
//!
//! A head counts only if the newest keys of the slot that opened the repository seal it. There is one exception: the very
//! head that a rotation is about to replace, which the slot of that rotation names. So whoever holds older keys can put
//! back no more than that one head. Nothing here is decided by a clock.

use super::{HeadView, Repository};
use crate::backend::{self, Backend, ObjectBytes};
use crate::crypto::{Generation, KeyRing};
use crate::error::{Error, Result};
use crate::id::{ObjectKind, ObjectName, RepositoryId, SlotId};
use crate::limits::{KEY_SLOTS_MAX, RECORD_BYTES_MAX};
use crate::record::slot::openings;
use crate::record::{Head, KeySlot, Secret, head};
use std::sync::Arc;

const INTERRUPTED: &str = "a rotation of the keys was interrupted; rotate them again";
const RESUMED: &str =
    "a rotation of the keys was interrupted; the next command that writes completes it";
const NOT_COMPLETED: &str =
    "it belongs to a rotation of the keys that was not completed; the one from before opens";

/// What opened a repository.
pub(super) struct Unlocked {
    pub slot: SlotId,
    pub keys: KeyRing,
    /// The head that the slot's rotation has not replaced yet.
    pub pending: Option<[u8; 32]>,
    /// A sentence for the user.
    pub notice: Option<&'static str>,
}

/// How a slot and the stored head go together.
enum Fit {
    Current,
    /// The slot's rotation has not replaced the head with this hash yet.
    Pending([u8; 32]),
    /// The slot belongs to a key that is not in use.
    Stale(&'static str),
    /// The head tells nothing: it is not there or damaged.
    Unknown,
}

/// Finds the slot that a secret opens. Where the keys were never rotated, the first that opens is the one, and the head
/// is not read.
///
/// # Errors
/// `WrongSecret`; `StaleSecret` where the secret opens only keys that are not in use; errors of slots that cannot be
/// read where no other opens; errors of the storage.
pub(super) fn unlock(
    backend: &dyn Backend,
    secret: &Secret,
    repository: &RepositoryId,
) -> Result<Unlocked> {
    let slots = read_slots(backend)?;
    let parsed = parse(&slots);
    let newest = parsed.iter().map(KeySlot::generation).max().unwrap_or_default();
    let head = if newest.is_first() { None } else { backend.read_head()? };
    let borrowed = slots.iter().map(|(id, bytes)| (*id, &**bytes));
    let (mut first_error, mut stale) = (None, None);
    let mut undecided: Option<(SlotId, KeyRing)> = None;
    for opened in openings(borrowed, secret, repository) {
        let (slot, keys) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                first_error.get_or_insert(error);
                continue;
            }
        };
        let slot_id = slot.id();
        let found = |keys, pending, notice| Ok(Unlocked { slot: slot_id, keys, pending, notice });
        if newest.is_first() {
            return found(keys, None, None);
        }
        match fit(&slot, &keys, head.as_deref(), *repository, &parsed) {
            Fit::Current => return found(keys, None, stale.map(|_| INTERRUPTED)),
            Fit::Pending(hash) => return found(keys, Some(hash), Some(RESUMED)),
            Fit::Stale(why) => stale = Some(why),
            // Opened all the same if no other slot is better, so that the damage can be looked at and repaired: then the
            // newest keys are what whoever rotated them wanted to be in use.
            Fit::Unknown => {
                let newest = undecided.as_ref().map(|(_, best)| best.generation());
                if newest.is_none_or(|newest| keys.generation() > newest) {
                    undecided = Some((slot_id, keys));
                }
            }
        }
    }
    if let Some((slot, keys)) = undecided {
        return Ok(Unlocked { slot, keys, pending: None, notice: None });
    }
    match stale {
        Some(detail) => Err(Error::StaleSecret { detail: detail.into() }),
        None => Err(first_error.unwrap_or(Error::WrongSecret)),
    }
}

fn fit(
    slot: &KeySlot,
    keys: &KeyRing,
    stored: Option<&[u8]>,
    repository: RepositoryId,
    slots: &[KeySlot],
) -> Fit {
    let Some(stored) = stored else { return Fit::Unknown };
    let Ok(found) = head::generation_of(stored, repository) else { return Fit::Unknown };
    if found > keys.generation() && has_others(slots, found, keys) {
        return Fit::Stale("it belongs to keys that were replaced by a rotation");
    }
    if Head::open(stored, repository, &keys.metadata()).is_err() {
        // Two rotations that race draw two keys of one generation, and one of them wins.
        let is_beaten = found == keys.generation() && has_others(slots, found, keys);
        return if is_beaten { Fit::Stale(NOT_COMPLETED) } else { Fit::Unknown };
    }
    if found == keys.generation() {
        return Fit::Current;
    }
    let hash = *blake3::hash(stored).as_bytes();
    if slot.replaces() == Some(hash) {
        return Fit::Pending(hash);
    }
    // Where nobody has other keys, the rotation was completed, and an older head was put back.
    if has_others(slots, found, keys) { Fit::Stale(NOT_COMPLETED) } else { Fit::Unknown }
}

/// Reads all key slots.
fn read_slots(backend: &dyn Backend) -> Result<Vec<(SlotId, ObjectBytes)>> {
    let names = backend.list(ObjectKind::Key)?;
    if names.len() > KEY_SLOTS_MAX {
        let found = u64::try_from(names.len()).unwrap_or(u64::MAX);
        let limit = u64::try_from(KEY_SLOTS_MAX).unwrap_or(u64::MAX);
        return Err(Error::LimitExceeded { object: "keys".into(), what: "count", found, limit });
    }
    let mut slots = Vec::new();
    for (name, _) in names {
        let ObjectName::Key(id) = name else { continue };
        match backend::read_whole(backend, &name, RECORD_BYTES_MAX) {
            Ok(bytes) => slots.push((id, bytes)),
            // Removed since it was listed.
            Err(Error::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(slots)
}

/// The slots that can be read.
fn parse(slots: &[(SlotId, ObjectBytes)]) -> Vec<KeySlot> {
    slots.iter().filter_map(|(id, bytes)| KeySlot::parse(*id, bytes).ok()).collect()
}

/// Whether a slot holds other keys than these that are not older than `found`.
fn has_others(slots: &[KeySlot], found: Generation, keys: &KeyRing) -> bool {
    slots.iter().any(|slot| slot.generation() >= found && !slot.holds(keys))
}

impl Repository {
    /// Reads and verifies the current head.
    ///
    /// # Errors
    /// `Missing` when there is none, `Damaged` or `Unsupported` when it cannot be read or should not be believed;
    /// `KeysRotated` when another process rotated the keys since this one opened the repository.
    pub fn head(self: &Arc<Self>) -> Result<HeadView> {
        let mut bytes = self.backend.read_head()?.ok_or_else(|| Error::missing("head"))?;
        loop {
            let generation = self.believe(&bytes)?;
            let view = self.view(bytes, generation)?;
            let Err(error) = self.remember_head(&view) else { return Ok(view) };
            // Another process of this host may have rotated the keys since the head was read.
            bytes = self.backend.read_head()?.ok_or_else(|| Error::missing("head"))?;
            if bytes == view.bytes {
                return Err(error);
            }
        }
    }

    pub(super) fn view(
        self: &Arc<Self>,
        bytes: Vec<u8>,
        generation: Generation,
    ) -> Result<HeadView> {
        let head = match Head::open(&bytes, self.id(), &self.metadata) {
            // Two rotations that race draw two keys of one generation.
            Err(error) if error.is_damage() && self.was_rotated(generation)? => {
                return Err(Error::KeysRotated);
            }
            other => other?,
        };
        if generation == self.generation() {
            // From now on the head that the rotation replaced counts no more.
            *self.pending() = None;
        }
        Ok(HeadView::new(Arc::clone(self), bytes, head, generation))
    }

    /// The generation of a stored head, if a head of that generation may be believed.
    pub(super) fn believe(&self, stored: &[u8]) -> Result<Generation> {
        let found = match head::generation_of(stored, self.id()) {
            Err(error @ Error::Unsupported { .. }) => {
                // Perhaps one of ours whose first byte was changed.
                Head::open(stored, self.id(), &self.metadata)?;
                return Err(error);
            }
            found => found?,
        };
        let ours = self.generation();
        if found == ours {
            return Ok(found);
        }
        let pending = *self.pending();
        if found < ours && pending == Some(*blake3::hash(stored).as_bytes()) {
            return Ok(found);
        }
        // Somebody committed with the keys from before while our rotation was under way.
        if found < ours && pending.is_some() {
            return Err(Error::KeysRotated);
        }
        if found > ours && self.was_rotated(found)? {
            return Err(Error::KeysRotated);
        }
        let detail = format!(
            "its keys are of generation {found}, the repository's are of generation {ours}"
        );
        Err(Error::damaged("head", detail))
    }

    /// Whether the slots show that keys of the generation `found` or a later one are in use which are not ours.
    pub(crate) fn was_rotated(&self, found: Generation) -> Result<bool> {
        Ok(has_others(&parse(&read_slots(&*self.backend)?), found, &self.keys))
    }
}
