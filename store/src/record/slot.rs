//! Key slots: each holds the repository key, wrapped under one passphrase or key file.
//!
//! A slot commits to its wrapping key: no slot opens under two secrets, and a wrong secret is told from damage. Slots
//! come and go without touching data.

use super::{frame, from_cbor, to_cbor, unframe};
use crate::crypto::{Aead, AeadKey, Key, RepositoryKey, TAG_LEN, derive};
use crate::env::{Env, Timestamp};
use crate::error::{Error, Result};
use crate::id::{ObjectName, RepositoryId, SlotId};
use crate::limits::{ARGON2_KIB_MAX, ARGON2_LANES_MAX, ARGON2_PASSES_MAX, KEY_FILE_BYTES_MIN};
use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use std::fmt;
use zeroize::Zeroizing;

const MAGIC: [u8; 8] = *b"stillks\0";
const VERSION: u32 = 1;
const SALT_LEN: usize = 32;
const WRAPPED_LEN: usize = 32 + TAG_LEN;

const CONTEXT_KEY_FILE: &str = "stillpoint format 1: key file";
const CONTEXT_WRAPPING: &str = "stillpoint format 1: key slot wrapping key";
const CONTEXT_COMMITMENT: &str = "stillpoint format 1: key slot commitment";

/// What opens a repository. `Debug` shows nothing of it; it is wiped when dropped.
#[derive(Clone)]
pub enum Secret {
    /// Something a person remembers; stretched by Argon2id. Compared byte for byte, without Unicode normalisation.
    Passphrase(Zeroizing<String>),
    /// A file's content with at least 256 bits of randomness; costs nothing to use.
    KeyFile(Zeroizing<Vec<u8>>),
}

impl Secret {
    /// A passphrase.
    pub fn passphrase(text: &str) -> Self {
        Self::Passphrase(Zeroizing::new(text.to_owned()))
    }

    /// The content of a key file.
    pub fn key_file(bytes: &[u8]) -> Self {
        Self::KeyFile(Zeroizing::new(bytes.to_vec()))
    }

    /// The content of a new key file: one line of 64 hexadecimal digits.
    pub fn generate_key_file(env: &dyn Env) -> Zeroizing<Vec<u8>> {
        let mut key = Key::default();
        env.fill_random(key.as_mut());
        let mut line = Zeroizing::new(Vec::with_capacity(65));
        for byte in key.iter() {
            for digit in [byte >> 4, byte & 15] {
                line.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
            }
        }
        line.push(b'\n');
        line
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passphrase(_) => "Passphrase(redacted)",
            Self::KeyFile(_) => "KeyFile(redacted)",
        })
    }
}

/// What Argon2id (RFC 9106) costs for one passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KdfCost {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes; computed one behind the other.
    pub lanes: u32,
}

impl Default for KdfCost {
    /// 64 MiB and three passes: 0.2 s of one core.
    fn default() -> Self {
        Self { memory_kib: 64 << 10, passes: 3, lanes: 1 }
    }
}

impl KdfCost {
    /// The least that Argon2id allows: for tests, where a passphrase protects nothing.
    pub const LEAST: Self = Self { memory_kib: 8, passes: 1, lanes: 1 };

    /// Argon2id's parameters.
    ///
    /// # Errors
    /// `LimitExceeded` before any memory is taken; `Invalid` where Argon2id allows no such parameters.
    fn params(&self) -> Result<Params> {
        for (what, found, limit) in [
            ("memory for the passphrase in KiB", self.memory_kib, ARGON2_KIB_MAX),
            ("passes over the passphrase", self.passes, ARGON2_PASSES_MAX),
            ("lanes for the passphrase", self.lanes, ARGON2_LANES_MAX),
        ] {
            if found > limit {
                let (found, limit) = (found.into(), limit.into());
                return Err(Error::LimitExceeded { object: "key slot".into(), what, found, limit });
            }
        }
        Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
            .map_err(|error| Error::Invalid(format!("cost of the passphrase: {error}")))
    }
}

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
}

#[derive(Serialize, Deserialize)]
struct Wire {
    terms: ByteBuf,
    commitment: ByteArray<32>,
    wrapped: ByteArray<WRAPPED_LEN>,
}

/// One wrapped copy of the repository key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySlot {
    id: SlotId,
    terms: Terms,
    /// The terms as they are stored: what is authenticated.
    terms_bytes: Vec<u8>,
    commitment: [u8; 32],
    wrapped: [u8; WRAPPED_LEN],
}

impl KeySlot {
    /// Wraps the repository key under a secret in a new slot. `cost` counts for passphrases alone.
    ///
    /// # Errors
    /// `Invalid` for an empty passphrase, a key file that is too short or a cost that Argon2id does not allow;
    /// `LimitExceeded` for a cost that no reader would accept.
    pub fn wrap(
        key: &RepositoryKey,
        secret: &Secret,
        repository: &RepositoryId,
        label: &str,
        cost: KdfCost,
        env: &dyn Env,
    ) -> Result<Self> {
        check_strength(secret)?;
        let id = SlotId::random(env);
        let mut salt = [0u8; SALT_LEN];
        env.fill_random(&mut salt);
        let now = env.now();
        let terms = Terms {
            kind: match secret {
                Secret::Passphrase(_) => SlotKind::Passphrase(cost),
                Secret::KeyFile(_) => SlotKind::KeyFile,
            },
            label: label.to_owned(),
            created_seconds: now.seconds,
            created_nanos: now.nanos,
            salt: ByteArray::new(salt),
        };
        let terms_bytes = to_cbor(&terms);
        let root = stretch(secret, &terms)?;
        let mut wrapped = [0u8; WRAPPED_LEN];
        wrapping_key(&root).seal(
            0,
            &associated_data(repository, &id, &terms_bytes),
            key.expose(),
            &mut wrapped,
        );
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

    /// The object's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let wire = Wire {
            terms: ByteBuf::from(self.terms_bytes.clone()),
            commitment: ByteArray::new(self.commitment),
            wrapped: ByteArray::new(self.wrapped),
        };
        frame(&MAGIC, VERSION, &to_cbor(&wire))
    }

    /// Parses the object's bytes.
    ///
    /// # Errors
    /// `Damaged`; `LimitExceeded`, also where the cost is beyond the caps; `Unsupported` for a newer version.
    pub fn parse(id: SlotId, bytes: &[u8]) -> Result<Self> {
        let object = ObjectName::Key(id);
        let wire: Wire = from_cbor(&object, unframe(&object, &MAGIC, VERSION, bytes)?)?;
        let terms: Terms = from_cbor(&object, &wire.terms)?;
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
            wrapped: wire.wrapped.into_array(),
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

    /// Unwraps the repository key.
    ///
    /// # Errors
    /// `WrongSecret`; `Damaged` where the secret is right and the rest does not fit, or the slot belongs to another
    /// repository.
    pub fn unwrap(&self, secret: &Secret, repository: &RepositoryId) -> Result<RepositoryKey> {
        if !self.takes(secret) {
            return Err(Error::WrongSecret);
        }
        let root = stretch(secret, &self.terms)?;
        // `blake3::Hash` compares in constant time.
        if blake3::Hash::from_bytes(commitment(&root)) != self.commitment {
            return Err(Error::WrongSecret);
        }
        let mut key = Key::default();
        let data = associated_data(repository, &self.id, &self.terms_bytes);
        wrapping_key(&root).open(0, &data, &self.wrapped, key.as_mut()).map_err(|_| {
            Error::damaged(
                ObjectName::Key(self.id),
                "the secret is right but its seal does not fit",
            )
        })?;
        Ok(RepositoryKey::from_bytes(&key))
    }
}

/// Tries a secret on all slots of its kind. A slot that does not parse is passed over if another one opens.
///
/// # Errors
/// `WrongSecret` where all slots were readable and none opens; otherwise the error of the first that was not.
pub fn unlock<'a>(
    slots: impl IntoIterator<Item = (SlotId, &'a [u8])>,
    secret: &Secret,
    repository: &RepositoryId,
) -> Result<(SlotId, RepositoryKey)> {
    let mut first_error = None;
    for (id, bytes) in slots {
        match KeySlot::parse(id, bytes).and_then(|slot| slot.unwrap(secret, repository)) {
            Ok(key) => return Ok((id, key)),
            Err(Error::WrongSecret) => {}
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.unwrap_or(Error::WrongSecret))
}

fn check_strength(secret: &Secret) -> Result<()> {
    match secret {
        Secret::Passphrase(text) if text.is_empty() => {
            Err(Error::Invalid("the passphrase is empty".into()))
        }
        Secret::KeyFile(bytes) if bytes.len() < KEY_FILE_BYTES_MIN => Err(Error::Invalid(format!(
            "the key file holds {} bytes, it needs at least {KEY_FILE_BYTES_MIN}",
            bytes.len()
        ))),
        _ => Ok(()),
    }
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
