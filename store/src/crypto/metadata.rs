//! The metadata key: seals small records (head, catalogue nodes, snapshots, footers) one by one.
//!
//! Each message has a key of its own, derived from a random 256-bit salt, so no nonce can ever repeat. Knows nothing
//! of what a record says.

use super::aead::{Aead, AeadKey, TAG_LEN};
use super::keys::{Key, derive};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::id::RepositoryId;
use std::fmt;
use zeroize::Zeroizing;

const CONTEXT_MESSAGE: &str = "stillpoint format 1: metadata message keys";
const CONTEXT_BOUNDARY: &str = "stillpoint format 1: catalogue node boundaries";
const CONTEXT_CONFIG: &str = "stillpoint format 1: config authentication";

const VERSION: u8 = 1;
const SALT_LEN: usize = 32;
/// Version, cipher, salt.
const PREFIX_LEN: usize = 2 + SALT_LEN;

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

/// Seals and opens records. Derived from the repository key; a server may hold it without being able to open content.
pub struct MetadataKey {
    message: Key,
    config: Key,
    boundary: Key,
}

impl MetadataKey {
    /// How much longer a sealed record is than its plaintext, bytes.
    pub const OVERHEAD: usize = PREFIX_LEN + TAG_LEN;

    /// The metadata key with these bytes.
    pub fn from_bytes(key: &[u8; 32]) -> Self {
        Self {
            message: derive(CONTEXT_MESSAGE, &[key]),
            config: derive(CONTEXT_CONFIG, &[key]),
            boundary: derive(CONTEXT_BOUNDARY, &[key]),
        }
    }

    /// The secret that decides where nodes of the catalogue end.
    pub(crate) fn catalogue_boundary_key(&self) -> &[u8; 32] {
        &self.boundary
    }

    /// Seals one record with a fresh salt and the fastest cipher.
    pub fn seal(&self, context: &RecordContext<'_>, plaintext: &[u8], env: &dyn Env) -> Vec<u8> {
        self.seal_with(Aead::fastest(), context, plaintext, env)
    }

    /// Seals one record with a fresh salt and this cipher.
    pub fn seal_with(
        &self,
        aead: Aead,
        context: &RecordContext<'_>,
        plaintext: &[u8],
        env: &dyn Env,
    ) -> Vec<u8> {
        let mut prefix = [0u8; PREFIX_LEN];
        env.fill_random(prefix.last_chunk_mut::<SALT_LEN>().expect("the prefix ends in the salt"));
        if let Some(fixed) = prefix.first_chunk_mut::<2>() {
            *fixed = [VERSION, aead.as_u8()];
        }
        let mut sealed = vec![0u8; Self::OVERHEAD + plaintext.len()];
        let (head, body) = sealed.split_at_mut(PREFIX_LEN);
        head.copy_from_slice(&prefix);
        let key = self.message_key(&prefix);
        AeadKey::new(aead, &key).seal(0, &context.associated_data(), plaintext, body);
        sealed
    }

    /// Opens one record.
    ///
    /// # Errors
    /// `Unsupported` for a newer version; `Damaged` where the bytes are not those that were sealed for this place.
    pub fn open(&self, context: &RecordContext<'_>, sealed: &[u8]) -> Result<Vec<u8>> {
        let Some((prefix, body)) = sealed.split_first_chunk::<PREFIX_LEN>() else {
            return Err(Error::damaged(context, format!("only {} bytes long", sealed.len())));
        };
        let [version, cipher, ..] = *prefix;
        if version > VERSION {
            return Err(Error::Unsupported {
                object: context.to_string(),
                found: version.into(),
                supported: VERSION.into(),
            });
        }
        if version != VERSION {
            return Err(Error::damaged(context, format!("there is no version {version}")));
        }
        let aead = Aead::from_u8(cipher, context)?;
        let Some(len) = body.len().checked_sub(TAG_LEN) else {
            return Err(Error::damaged(context, format!("only {} bytes long", sealed.len())));
        };
        let mut plaintext = vec![0u8; len];
        AeadKey::new(aead, &self.message_key(prefix))
            .open(0, &context.associated_data(), body, &mut plaintext)
            .map_err(|_| Error::damaged(context, "its seal does not fit"))?;
        Ok(plaintext)
    }

    /// The authentication code of the configuration's bytes.
    pub(crate) fn config_code(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.config, bytes)
    }

    /// The key of one message: keyed BLAKE3 of version, cipher and salt.
    fn message_key(&self, prefix: &[u8; PREFIX_LEN]) -> Key {
        Zeroizing::new(*blake3::keyed_hash(&self.message, prefix).as_bytes())
    }
}

impl fmt::Debug for MetadataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetadataKey(redacted)")
    }
}
