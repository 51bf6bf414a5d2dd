//! The metadata key: seals small records (head, catalogue nodes, snapshots, footers) one by one.
//!
//! Each message has a key of its own, derived from a random 256-bit salt, so no nonce can ever repeat. Knows nothing
//! of what a record says.

use super::aead::{Aead, AeadKey, TAG_LEN};
use super::keys::{Key, derive};
use super::ring::Generation;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::id::RepositoryId;
use std::collections::BTreeMap;
use std::fmt;
use zeroize::Zeroizing;

const CONTEXT_MESSAGE: &str = "stillpoint format 1: metadata message keys";
const CONTEXT_BOUNDARY: &str = "stillpoint format 1: catalogue node boundaries";
const CONTEXT_CONFIG: &str = "stillpoint format 1: config authentication";

/// Sealed by the first generation.
const VERSION_FIRST: u8 = 1;
/// Sealed by a later generation, which the prefix names.
const VERSION_LATER: u8 = 2;
const SALT_LEN: usize = 32;
/// Greater numbers were never a version: what begins with one is something else.
const VERSION_PLAUSIBLE_MAX: u8 = 15;
/// Version, cipher, salt.
const PREFIX_FIRST_LEN: usize = 2 + SALT_LEN;
/// Version, cipher, generation, salt.
const PREFIX_LATER_LEN: usize = 2 + 4 + SALT_LEN;

/// What kind of record is sealed. A record never opens as another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// The head.
    Head = 1,
    /// A node of the catalogue.
    Catalogue = 2,
    /// A snapshot record.
    Snapshot = 3,
    /// A pack's footer.
    Footer = 4,
    /// Something a client keeps beside the repository, in its own cache.
    Cache = 5,
}

impl RecordKind {
    const fn as_u8(self) -> u8 {
        match self {
            Self::Head => 1,
            Self::Catalogue => 2,
            Self::Snapshot => 3,
            Self::Footer => 4,
            Self::Cache => 5,
        }
    }
}

/// Where a sealed record belongs. It opens nowhere else.
#[derive(Debug, Clone, Copy)]
pub struct RecordContext<'a> {
    /// The repository.
    pub repository: RepositoryId,
    /// The kind of record.
    pub kind: RecordKind,
    /// The record's name: the id in its object name; empty for the head.
    pub name: &'a [u8],
}

impl RecordContext<'_> {
    fn associated_data(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(RepositoryId::LEN + 1 + self.name.len());
        data.extend_from_slice(self.repository.as_bytes());
        data.push(self.kind.as_u8());
        data.extend_from_slice(self.name);
        data
    }
}

impl fmt::Display for RecordContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            RecordKind::Head => "head",
            RecordKind::Catalogue => "catalogue node ",
            RecordKind::Snapshot => "snapshot ",
            RecordKind::Footer => "footer of pack ",
            RecordKind::Cache => "cache entry ",
        })?;
        self.name.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Seals and opens records. Derived from the repository keys; a server may hold it without being able to open content.
pub struct MetadataKey {
    /// The newest generation, which seals.
    generation: Generation,
    message: Key,
    /// Message keys of generations before.
    older: BTreeMap<Generation, Key>,
    /// Of the first generation, for ever.
    config: Key,
    /// Of the first generation, for ever.
    boundary: Key,
}

impl MetadataKey {
    /// The most that stands before the ciphertext of a record, bytes; no record is shorter.
    pub(crate) const PREFIX_MAX: usize = PREFIX_LATER_LEN;

    /// The newest version of a sealed record that is known.
    pub(crate) const NEWEST_VERSION: u32 = VERSION_LATER as u32;

    /// The metadata key of the first generation with these bytes.
    pub fn from_bytes(key: &[u8; 32]) -> Self {
        Self {
            generation: Generation::FIRST,
            message: derive(CONTEXT_MESSAGE, &[key]),
            older: BTreeMap::new(),
            config: derive(CONTEXT_CONFIG, &[key]),
            boundary: derive(CONTEXT_BOUNDARY, &[key]),
        }
    }

    /// Adds the metadata key of a newer generation, which seals from now on.
    pub fn add_generation(&mut self, generation: Generation, key: &[u8; 32]) {
        let message = std::mem::replace(&mut self.message, derive(CONTEXT_MESSAGE, &[key]));
        self.older.insert(std::mem::replace(&mut self.generation, generation), message);
    }

    /// The generation that seals.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// How much longer a record sealed by this generation is than its plaintext, bytes.
    pub fn overhead(generation: Generation) -> usize {
        TAG_LEN + if generation.is_first() { PREFIX_FIRST_LEN } else { PREFIX_LATER_LEN }
    }

    /// The secret that decides where nodes of the catalogue end.
    pub(crate) fn catalogue_boundary_key(&self) -> &[u8; 32] {
        &self.boundary
    }

    /// Seals one record with a fresh salt, the newest generation and the fastest cipher.
    pub fn seal(&self, context: &RecordContext<'_>, plaintext: &[u8], env: &dyn Env) -> Vec<u8> {
        self.seal_with(Aead::fastest(), context, plaintext, env)
    }

    /// Seals one record with a fresh salt, the newest generation and this cipher.
    pub fn seal_with(
        &self,
        aead: Aead,
        context: &RecordContext<'_>,
        plaintext: &[u8],
        env: &dyn Env,
    ) -> Vec<u8> {
        let overhead = Self::overhead(self.generation);
        let mut sealed = Vec::with_capacity(overhead + plaintext.len());
        if self.generation.is_first() {
            sealed.extend_from_slice(&[VERSION_FIRST, aead.as_u8()]);
        } else {
            sealed.extend_from_slice(&[VERSION_LATER, aead.as_u8()]);
            sealed.extend_from_slice(&self.generation.0.to_le_bytes());
        }
        let mut salt = [0u8; SALT_LEN];
        env.fill_random(&mut salt);
        sealed.extend_from_slice(&salt);
        let key = message_key(&self.message, &sealed);
        let prefix_len = sealed.len();
        sealed.resize(overhead + plaintext.len(), 0);
        let body = sealed.get_mut(prefix_len..).expect("just made longer");
        AeadKey::new(aead, &key).seal(0, &context.associated_data(), plaintext, body);
        sealed
    }

    /// The generation that a record says it was sealed by; nothing of it is verified.
    ///
    /// # Errors
    /// As [`Self::open`], as far as the first bytes tell.
    pub fn generation_of(context: &RecordContext<'_>, sealed: &[u8]) -> Result<Generation> {
        Ok(Prefix::parse(context, sealed)?.generation)
    }

    /// Opens one record of any known generation.
    ///
    /// # Errors
    /// `Unsupported` for a newer version; `Damaged` where the bytes are not those that were sealed for this place.
    pub fn open(&self, context: &RecordContext<'_>, sealed: &[u8]) -> Result<Vec<u8>> {
        let prefix = match Prefix::parse(context, sealed) {
            Err(Error::Unsupported { .. }) if self.opens_as_known(context, sealed) => {
                return Err(Error::damaged(context, "its version was changed"));
            }
            prefix => prefix?,
        };
        let message = if prefix.generation == self.generation {
            &self.message
        } else {
            self.older.get(&prefix.generation).ok_or_else(|| {
                let detail =
                    format!("its keys are of generation {}, which is not known", prefix.generation);
                Error::damaged(context, detail)
            })?
        };
        let aead = Aead::from_u8(prefix.cipher, context)?;
        let Some(len) = prefix.body.len().checked_sub(TAG_LEN) else {
            return Err(Error::damaged(context, format!("only {} bytes long", sealed.len())));
        };
        let mut plaintext = vec![0u8; len];
        AeadKey::new(aead, &message_key(message, prefix.bytes))
            .open(0, &context.associated_data(), prefix.body, &mut plaintext)
            .map_err(|_| Error::damaged(context, "its seal does not fit"))?;
        Ok(plaintext)
    }

    /// Whether a record of a newer version is one of a known version whose first byte was changed.
    fn opens_as_known(&self, context: &RecordContext<'_>, sealed: &[u8]) -> bool {
        [VERSION_FIRST, VERSION_LATER].into_iter().any(|version| {
            let rest = sealed.iter().skip(1).copied();
            let known: Vec<u8> = std::iter::once(version).chain(rest).collect();
            self.open(context, &known).is_ok()
        })
    }

    /// The authentication code of the configuration's bytes.
    pub(crate) fn config_code(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.config, bytes)
    }
}

/// What stands before the ciphertext of a record.
struct Prefix<'a> {
    generation: Generation,
    cipher: u8,
    bytes: &'a [u8],
    /// Ciphertext and tag.
    body: &'a [u8],
}

impl<'a> Prefix<'a> {
    fn parse(context: &RecordContext<'_>, sealed: &'a [u8]) -> Result<Self> {
        let short = || Error::damaged(context, format!("only {} bytes long", sealed.len()));
        let [version, cipher] = *sealed.first_chunk().ok_or_else(short)?;
        let (generation, prefix_len) = match version {
            VERSION_FIRST => (Generation::FIRST, PREFIX_FIRST_LEN),
            VERSION_LATER => {
                let [_, _, number @ ..] = *sealed.first_chunk::<6>().ok_or_else(short)?;
                (Generation(u32::from_le_bytes(number)), PREFIX_LATER_LEN)
            }
            0 => return Err(Error::damaged(context, "there is no version 0")),
            strange if strange > VERSION_PLAUSIBLE_MAX => {
                let detail = format!("its first byte is {strange}: it is no sealed record");
                return Err(Error::damaged(context, detail));
            }
            newer => {
                return Err(Error::Unsupported {
                    object: context.to_string(),
                    found: newer.into(),
                    supported: VERSION_LATER.into(),
                });
            }
        };
        if version == VERSION_LATER && generation.is_first() {
            return Err(Error::damaged(context, "its prefix has impossible values"));
        }
        let (bytes, body) = sealed.split_at_checked(prefix_len).ok_or_else(short)?;
        Ok(Self { generation, cipher, bytes, body })
    }
}

/// The key of one message: keyed BLAKE3 of all that stands before it.
fn message_key(message: &Key, prefix: &[u8]) -> Key {
    Zeroizing::new(*blake3::keyed_hash(message, prefix).as_bytes())
}

impl fmt::Debug for MetadataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetadataKey(redacted)")
    }
}
