//! Key slots: each holds the repository keys, wrapped under one passphrase or key file.
//!
//! A slot commits to its wrapping key: no slot opens under two secrets, and a wrong secret is told from damage. Slots
//! come and go without touching data. A slot of a later generation holds the keys of all generations before, too.

pub use super::secret::{KdfCost, Secret};

use super::{frame, from_cbor, to_cbor, unframe};
use crate::crypto::{
    Aead, AeadKey, Generation, KEY_NAME_LEN, Key, KeyRing, RepositoryKey, TAG_LEN, derive,
};
use crate::env::{Env, Timestamp};
use crate::error::{Error, Result};
use crate::id::{ObjectName, RepositoryId, SlotId};
use argon2::{Algorithm, Argon2, Version};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use std::cmp::Reverse;
use zeroize::Zeroizing;

const MAGIC: [u8; 8] = *b"stillks\0";
/// Holds the key of the first generation alone.
const VERSION_FIRST: u32 = 1;
/// Holds the keys of several generations.
const VERSION_LATER: u32 = 2;
const SALT_LEN: usize = 32;

const CONTEXT_KEY_FILE: &str = "stillpoint format 1: key file";
const CONTEXT_WRAPPING: &str = "stillpoint format 1: key slot wrapping key";
const CONTEXT_COMMITMENT: &str = "stillpoint format 1: key slot commitment";

/// How a slot's secret becomes a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotKind {
    /// Argon2id of a passphrase.
    Passphrase(KdfCost),
    /// BLAKE3 of a key file.
    KeyFile,
}

/// What stands in the clear and is authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Terms {
    kind: SlotKind,
    label: String,
    created_seconds: i64,
    created_nanos: u32,
    salt: ByteArray<SALT_LEN>,
    /// The newest generation in the slot.
    #[serde(default, skip_serializing_if = "Generation::is_first")]
    generation: Generation,
    /// The name of the newest key; always there but in the first generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<ByteArray<KEY_NAME_LEN>>,
    /// See [`KeySlot::replaces`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaces: Option<ByteArray<32>>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    terms: ByteBuf,
    commitment: ByteArray<32>,
    wrapped: ByteBuf,
}

/// What a new slot is made for.
#[derive(Debug, Clone, Copy)]
pub struct NewSlot<'a> {
    /// What opens it.
    pub secret: &'a Secret,
    /// What the user calls it.
    pub label: &'a str,
    /// What one try of a passphrase costs; a key file costs nothing.
    pub cost: KdfCost,
}

/// One wrapped copy of the repository keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySlot {
    id: SlotId,
    terms: Terms,
    /// The terms as they are stored: what is authenticated.
    terms_bytes: Vec<u8>,
    commitment: [u8; 32],
    wrapped: Vec<u8>,
}

impl KeySlot {
    /// Wraps the repository keys under a secret. `replaces` is for a slot that begins a rotation.
    ///
    /// # Errors
    /// `Invalid` for an empty passphrase, a key file that is too short or a cost that Argon2id does not allow;
    /// `LimitExceeded` for a cost that no reader would accept.
    pub fn wrap(
        keys: &KeyRing,
        new: &NewSlot<'_>,
        repository: &RepositoryId,
        replaces: Option<[u8; 32]>,
        env: &dyn Env,
    ) -> Result<Self> {
        new.secret.check_strength()?;
        let id = SlotId::random(env);
        let mut salt = [0u8; SALT_LEN];
        env.fill_random(&mut salt);
        let (now, generation) = (env.now(), keys.generation());
        let terms = Terms {
            kind: match new.secret {
                Secret::Passphrase(_) => SlotKind::Passphrase(new.cost),
                Secret::KeyFile(_) => SlotKind::KeyFile,
            },
            label: new.label.to_owned(),
            created_seconds: now.seconds,
            created_nanos: now.nanos,
            salt: ByteArray::new(salt),
            generation,
            key: (!generation.is_first()).then(|| ByteArray::new(keys.name())),
            replaces: replaces.map(ByteArray::new),
        };
        let terms_bytes = to_cbor(&terms);
        let root = stretch(new.secret, &terms)?;
        let content = match generation {
            Generation::FIRST => Zeroizing::new(keys.newest().expose().to_vec()),
            _ => keys.encode(),
        };
        let mut wrapped = vec![0u8; content.len() + TAG_LEN];
        let data = associated_data(repository, &id, &terms_bytes);
        wrapping_key(&root).seal(0, &data, &content, &mut wrapped);
        Ok(Self { id, terms, terms_bytes, commitment: commitment(&root), wrapped })
    }

    /// The slot's name.
    pub fn id(&self) -> SlotId {
        self.id
    }

    /// What the user called it.
    pub fn label(&self) -> &str {
        &self.terms.label
    }

    /// When it was added.
    pub fn created(&self) -> Timestamp {
        Timestamp { seconds: self.terms.created_seconds, nanos: self.terms.created_nanos }
    }

    /// How its secret becomes a key.
    pub fn kind(&self) -> SlotKind {
        self.terms.kind
    }

    /// The newest generation of the keys that it holds.
    pub fn generation(&self) -> Generation {
        self.terms.generation
    }

    /// True if the newest key that it holds is the newest of this ring.
    pub fn holds(&self, keys: &KeyRing) -> bool {
        let name = ByteArray::new(keys.name());
        self.generation() == keys.generation() && self.terms.key.is_none_or(|key| key == name)
    }

    /// For the slot that begins a rotation: BLAKE3 of the stored head that the rotation is about to replace. As long as
    /// that very head stands, the rotation has not been completed, and the head counts although older keys seal it.
    pub fn replaces(&self) -> Option<[u8; 32]> {
        self.terms.replaces.map(ByteArray::into_array)
    }

    /// The object's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let wire = Wire {
            terms: ByteBuf::from(self.terms_bytes.clone()),
            commitment: ByteArray::new(self.commitment),
            wrapped: ByteBuf::from(self.wrapped.clone()),
        };
        let is_first = self.generation().is_first();
        let version = if is_first { VERSION_FIRST } else { VERSION_LATER };
        frame(&MAGIC, version, &to_cbor(&wire))
    }

    /// Parses the object's bytes.
    ///
    /// # Errors
    /// `Damaged`; `LimitExceeded`, also where the cost is beyond the caps; `Unsupported` for a newer version.
    pub fn parse(id: SlotId, bytes: &[u8]) -> Result<Self> {
        let object = ObjectName::Key(id);
        let (version, body) = unframe(&object, &MAGIC, VERSION_LATER, bytes)?;
        let wire: Wire = from_cbor(&object, body)?;
        let terms: Terms = from_cbor(&object, &wire.terms)?;
        let is_later = version == VERSION_LATER;
        if is_later == terms.generation.is_first()
            || is_later != terms.key.is_some()
            || (terms.replaces.is_some() && !is_later)
        {
            return Err(Error::damaged(object, "its version is not that of its keys"));
        }
        if terms.created_nanos >= 1_000_000_000 {
            return Err(Error::damaged(object, "its time of creation is impossible"));
        }
        if let SlotKind::Passphrase(cost) = terms.kind {
            cost.params().map_err(|error| match error {
                Error::Invalid(detail) => Error::damaged(object, detail),
                other => other,
            })?;
        }
        Ok(Self {
            id,
            terms,
            terms_bytes: wire.terms.into_vec(),
            commitment: wire.commitment.into_array(),
            wrapped: wire.wrapped.into_vec(),
        })
    }

    /// True if a secret of this kind may open the slot.
    fn takes(&self, secret: &Secret) -> bool {
        matches!(
            (self.terms.kind, secret),
            (SlotKind::Passphrase(_), Secret::Passphrase(_))
                | (SlotKind::KeyFile, Secret::KeyFile(_))
        )
    }

    /// Unwraps the repository keys.
    ///
    /// # Errors
    /// `WrongSecret`; `Damaged` where the secret is right and the rest does not fit, or the slot belongs to another
    /// repository.
    pub fn unwrap(&self, secret: &Secret, repository: &RepositoryId) -> Result<KeyRing> {
        if !self.takes(secret) {
            return Err(Error::WrongSecret);
        }
        let root = stretch(secret, &self.terms)?;
        // `blake3::Hash` compares in constant time.
        if blake3::Hash::from_bytes(commitment(&root)) != self.commitment {
            return Err(Error::WrongSecret);
        }
        let damaged = |detail: &str| Error::damaged(ObjectName::Key(self.id), detail);
        let unfit = || damaged("the secret is right but its seal does not fit");
        let len = self.wrapped.len().checked_sub(TAG_LEN).ok_or_else(unfit)?;
        let mut content = Zeroizing::new(vec![0u8; len]);
        let data = associated_data(repository, &self.id, &self.terms_bytes);
        wrapping_key(&root).open(0, &data, &self.wrapped, &mut content).map_err(|_| unfit())?;
        let keys = if self.generation().is_first() {
            let key = content.as_slice().try_into().ok();
            key.map(|key| KeyRing::new(RepositoryKey::from_bytes(key)))
        } else {
            KeyRing::decode(&content)
        };
        keys.filter(|keys| self.holds(keys))
            .ok_or_else(|| damaged("it holds other keys than it says"))
    }
}

/// The slots that a secret opens and their keys, newest generation first; each is tried when it is asked for. Slots of
/// other secrets are left out; one that cannot be read is an error in the place where it would stand.
pub fn openings<'a>(
    slots: impl IntoIterator<Item = (SlotId, &'a [u8])>,
    secret: &Secret,
    repository: &RepositoryId,
) -> impl Iterator<Item = Result<(KeySlot, KeyRing)>> {
    let parse = |(id, bytes)| KeySlot::parse(id, bytes);
    let mut parsed: Vec<Result<KeySlot>> = slots.into_iter().map(parse).collect();
    // A stable sort: within a generation they stay as they were listed.
    parsed.sort_by_key(|slot| Reverse(slot.as_ref().ok().map(KeySlot::generation)));
    parsed.into_iter().filter_map(|slot| {
        let opened = slot.and_then(|slot| Ok((slot.unwrap(secret, repository)?, slot)));
        match opened {
            Ok((keys, slot)) => Some(Ok((slot, keys))),
            Err(Error::WrongSecret) => None,
            Err(error) => Some(Err(error)),
        }
    })
}

/// The newest keys that a secret opens. A slot that cannot be read is passed over if another one opens.
///
/// # Errors
/// `WrongSecret` where all slots were readable and none opens; otherwise the error of the first that was not.
pub fn unlock<'a>(
    slots: impl IntoIterator<Item = (SlotId, &'a [u8])>,
    secret: &Secret,
    repository: &RepositoryId,
) -> Result<(SlotId, KeyRing)> {
    let mut first_error = None;
    for opened in openings(slots, secret, repository) {
        match opened {
            Ok((slot, keys)) => return Ok((slot.id(), keys)),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.unwrap_or(Error::WrongSecret))
}

/// The root of a slot's two keys: slow for a passphrase, at once for a key file.
fn stretch(secret: &Secret, terms: &Terms) -> Result<Key> {
    match (secret, terms.kind) {
        (Secret::Passphrase(text), SlotKind::Passphrase(cost)) => {
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, cost.params()?);
            let mut root = Key::default();
            argon2
                .hash_password_into(text.as_bytes(), terms.salt.as_slice(), root.as_mut())
                .map_err(|error| Error::Invalid(format!("stretching the passphrase: {error}")))?;
            Ok(root)
        }
        (Secret::KeyFile(bytes), SlotKind::KeyFile) => {
            Ok(derive(CONTEXT_KEY_FILE, &[terms.salt.as_slice(), bytes]))
        }
        _ => Err(Error::WrongSecret),
    }
}

/// Fresh for each slot, because the salt is; so the only message has number 0.
fn wrapping_key(root: &Key) -> AeadKey {
    AeadKey::new(Aead::ChaCha20Poly1305, &derive(CONTEXT_WRAPPING, &[root.as_ref()]))
}

fn commitment(root: &Key) -> [u8; 32] {
    *derive(CONTEXT_COMMITMENT, &[root.as_ref()])
}

fn associated_data(repository: &RepositoryId, slot: &SlotId, terms: &[u8]) -> Vec<u8> {
    [repository.as_bytes().as_slice(), slot.as_bytes(), terms].concat()
}
