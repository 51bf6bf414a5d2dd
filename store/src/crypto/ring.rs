//! The repository keys of all generations: what whoever opens a repository holds.
//!
//! The first generation names and cuts chunks for ever, so that rotation costs no deduplication; the newest seals what is
//! written; all of them open what was written before. Knows nothing of slots and heads.

use super::keys::{DomainKeys, Key, RepositoryKey, derive};
use super::metadata::MetadataKey;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::id::DomainId;
use crate::limits::KEY_GENERATIONS_MAX;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use zeroize::Zeroizing;

const CONTEXT_NAME: &str = "stillpoint format 1: repository key name";

/// One generation as it is wrapped: number, key.
const ENTRY_LEN: usize = 4 + 32;
/// Length of the name of a repository key, bytes.
pub(crate) const KEY_NAME_LEN: usize = 16;

/// Which repository key sealed something: 0 for the one drawn with the repository, then one more with each rotation.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// The one that a repository is created with.
    pub const FIRST: Self = Self(0);

    /// True for the one that a repository is created with.
    pub fn is_first(&self) -> bool {
        *self == Self::FIRST
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The repository keys of all generations up to the newest. Always holds the first.
#[derive(Debug, Clone)]
pub struct KeyRing {
    first: RepositoryKey,
    later: BTreeMap<Generation, RepositoryKey>,
}

impl KeyRing {
    /// The ring of a repository whose keys were never rotated.
    pub fn new(first: RepositoryKey) -> Self {
        Self { first, later: BTreeMap::new() }
    }

    /// The same ring with a fresh key on top, which seals from now on.
    ///
    /// # Errors
    /// `LimitExceeded` after [`KEY_GENERATIONS_MAX`] rotations.
    pub fn rotated(&self, env: &dyn Env) -> Result<Self> {
        let (found, limit) = (self.later.len() + 2, KEY_GENERATIONS_MAX);
        let next = self.generation().0.checked_add(1).filter(|_| found <= limit);
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let next = next.ok_or_else(|| Error::LimitExceeded {
            object: "keys".into(),
            what: "number of generations",
            found: wide(found),
            limit: wide(limit),
        })?;
        let mut ring = self.clone();
        ring.later.insert(Generation(next), RepositoryKey::generate(env));
        Ok(ring)
    }

    /// The newest generation: the one that seals.
    pub fn generation(&self) -> Generation {
        self.later.last_key_value().map_or(Generation::FIRST, |(generation, _)| *generation)
    }

    /// The newest key.
    pub(crate) fn newest(&self) -> &RepositoryKey {
        self.later.last_key_value().map_or(&self.first, |(_, key)| key)
    }

    /// What tells the newest key from any other without giving anything of it away: two rotations that race draw two
    /// keys of one generation.
    pub(crate) fn name(&self) -> [u8; KEY_NAME_LEN] {
        let name = derive(CONTEXT_NAME, &[self.newest().expose()]);
        *name.first_chunk().expect("shorter than a key")
    }

    /// The metadata key: seals with the newest generation, opens all.
    pub fn metadata(&self) -> MetadataKey {
        let mut metadata = self.first.metadata();
        for (generation, key) in &self.later {
            metadata.add_generation(*generation, &key.metadata_bytes());
        }
        metadata
    }

    /// All keys of one domain: names and cuts as the first generation, seals with the newest, opens all.
    pub fn domain(&self, domain: DomainId) -> DomainKeys {
        let mut keys = self.first.domain(domain);
        for (generation, key) in &self.later {
            keys.add_generation(*generation, key);
        }
        keys
    }

    /// The ring as it is wrapped: number and key of each generation, newest first.
    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(ENTRY_LEN * (self.later.len() + 1)));
        let first = (&Generation::FIRST, &self.first);
        for (generation, key) in self.later.iter().rev().chain([first]) {
            bytes.extend_from_slice(&generation.0.to_le_bytes());
            bytes.extend_from_slice(key.expose());
        }
        bytes
    }

    /// The ring that [`Self::encode`] gave; None for anything else.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (entries, rest) = bytes.as_chunks::<ENTRY_LEN>();
        let ((last, earlier), true) = (entries.split_last()?, rest.is_empty()) else { return None };
        if entries.len() > KEY_GENERATIONS_MAX {
            return None;
        }
        let parse = |entry: &[u8; ENTRY_LEN]| {
            let (number, key) = entry.split_first_chunk::<4>()?;
            let mut copy = Key::default();
            copy.copy_from_slice(key);
            Some((Generation(u32::from_le_bytes(*number)), RepositoryKey::from_bytes(&copy)))
        };
        let (number, first) = parse(last)?;
        if !number.is_first() {
            return None;
        }
        let mut ring = Self::new(first);
        for entry in earlier.iter().rev() {
            let (generation, key) = parse(entry)?;
            if generation <= ring.generation() {
                return None;
            }
            ring.later.insert(generation, key);
        }
        Some(ring)
    }
}
