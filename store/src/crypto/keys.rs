//! The repository key and everything derived from it.
//!
//! Derivation is BLAKE3 `derive_key` with one named context for each purpose; the names are part of the format.

use super::metadata::MetadataKey;
use super::ring::Generation;
use crate::env::Env;
use crate::id::{ChunkKind, DomainId};
use hpke::Serializable;
use hpke::kem::{Kem, X25519HkdfSha256};
use std::collections::BTreeMap;
use std::fmt;
use stillpoint_chunker::{ChunkId, IdKey};
use zeroize::{Zeroize, Zeroizing};

/// 32 secret bytes, wiped when dropped.
pub(crate) type Key = Zeroizing<[u8; 32]>;

const CONTEXT_METADATA: &str = "stillpoint format 1: metadata key";
const CONTEXT_ID_DATA: &str = "stillpoint format 1: domain id key, data";
const CONTEXT_ID_NODE: &str = "stillpoint format 1: domain id key, node";
const CONTEXT_GEAR: &str = "stillpoint format 1: domain chunker key";
const CONTEXT_BOUNDARY: &str = "stillpoint format 1: domain tree boundary key";
const CONTEXT_PSK: &str = "stillpoint format 1: domain pre-shared key";
const CONTEXT_X25519: &str = "stillpoint format 1: domain x25519 seed";

/// BLAKE3 in its key derivation mode over the concatenated parts.
pub(crate) fn derive(context: &str, parts: &[&[u8]]) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    let mut output = hasher.finalize();
    let key = Zeroizing::new(*output.as_bytes());
    output.zeroize();
    hasher.zeroize();
    key
}

/// The root of all keys of one generation: 256 random bits, never derived, kept only in wrapped form (key slots).
#[derive(Clone)]
pub struct RepositoryKey(Key);

impl RepositoryKey {
    /// Draws a fresh key.
    pub fn generate(env: &dyn Env) -> Self {
        let mut key = Key::default();
        env.fill_random(key.as_mut());
        Self(key)
    }

    /// The key with these bytes (unwrapped from a slot, or restored from an emergency copy).
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// The secret bytes, to be wrapped.
    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key that seals records and footers. It opens no content.
    pub fn metadata(&self) -> MetadataKey {
        MetadataKey::from_bytes(&self.metadata_bytes())
    }

    pub(super) fn metadata_bytes(&self) -> Key {
        derive(CONTEXT_METADATA, &[self.expose()])
    }

    /// All keys of one domain, where this is the key of the first generation.
    pub fn domain(&self, domain: DomainId) -> DomainKeys {
        let key = |context| self.domain_key(context, domain);
        DomainKeys {
            domain,
            id_data: IdKey::new(*key(CONTEXT_ID_DATA)),
            id_node: IdKey::new(*key(CONTEXT_ID_NODE)),
            gear_secret: key(CONTEXT_GEAR),
            boundary_key: key(CONTEXT_BOUNDARY),
            generation: Generation::FIRST,
            sealing: self.seal_keys(domain),
            older: BTreeMap::new(),
        }
    }

    fn domain_key(&self, context: &str, domain: DomainId) -> Key {
        derive(context, &[self.expose(), &domain.0.to_le_bytes()])
    }

    /// What seals and opens the pack keys of a domain in this generation.
    fn seal_keys(&self, domain: DomainId) -> SealKeys {
        let seed = self.domain_key(CONTEXT_X25519, domain);
        let (secret, public) = X25519HkdfSha256::derive_keypair(seed.as_ref());
        SealKeys { psk: self.domain_key(CONTEXT_PSK, domain), public, secret: Some(secret) }
    }
}

impl fmt::Debug for RepositoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RepositoryKey(redacted)")
    }
}

/// What seals the pack keys of one domain and one generation and, with the secret, opens them.
#[derive(Clone)]
pub(super) struct SealKeys {
    pub(super) psk: Key,
    pub(super) public: <X25519HkdfSha256 as Kem>::PublicKey,
    pub(super) secret: Option<<X25519HkdfSha256 as Kem>::PrivateKey>,
}

/// What a holder needs to cut, name and seal chunks of one domain and, with the X25519 secret, to open packs.
///
/// A host that may only write holds [`DomainKeys::write_only`]: it finds duplicates and seals packs, and can open
/// nothing that was stored before.
#[derive(Clone)]
pub struct DomainKeys {
    domain: DomainId,
    id_data: IdKey,
    id_node: IdKey,
    gear_secret: Key,
    boundary_key: Key,
    /// The newest generation, which seals.
    generation: Generation,
    sealing: SealKeys,
    /// What opens packs of generations before.
    older: BTreeMap<Generation, SealKeys>,
}

impl DomainKeys {
    /// Adds a newer generation, which seals from now on; ids and cuts stay.
    pub(super) fn add_generation(&mut self, generation: Generation, key: &RepositoryKey) {
        let before = std::mem::replace(&mut self.sealing, key.seal_keys(self.domain));
        self.older.insert(std::mem::replace(&mut self.generation, generation), before);
    }

    /// The generation that seals new packs.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    pub(super) fn sealing(&self) -> &SealKeys {
        &self.sealing
    }

    /// What opens packs of this generation; None where it is not known.
    pub(super) fn of_generation(&self, generation: Generation) -> Option<&SealKeys> {
        if generation == self.generation {
            return Some(&self.sealing);
        }
        self.older.get(&generation)
    }

    /// The domain that these keys belong to.
    pub fn domain(&self) -> DomainId {
        self.domain
    }

    /// The key that names chunks of a kind.
    pub fn id_key(&self, kind: ChunkKind) -> &IdKey {
        match kind {
            ChunkKind::Data => &self.id_data,
            ChunkKind::Node => &self.id_node,
        }
    }

    /// True if `bytes` are the plaintext of the chunk with this id and kind.
    pub fn verify_chunk(&self, kind: ChunkKind, id: &ChunkId, bytes: &[u8]) -> bool {
        self.id_key(kind).id(bytes) == *id
    }

    /// The secret from which the chunker's gear table is made.
    pub fn gear_secret(&self) -> &[u8; 32] {
        &self.gear_secret
    }

    /// The key of the hash that chooses boundaries between tree nodes.
    pub fn boundary_key(&self) -> &[u8; 32] {
        &self.boundary_key
    }

    /// True if packs of the domain can be opened with these keys.
    pub fn can_open(&self) -> bool {
        self.sealing.secret.is_some()
    }

    /// The public half of the domain's X25519 pair of the newest generation.
    pub fn public_bytes(&self) -> [u8; 32] {
        self.sealing.public.to_bytes().into()
    }

    /// The same keys without any X25519 secret.
    pub fn write_only(&self) -> Self {
        let sealing = SealKeys { secret: None, ..self.sealing.clone() };
        Self { sealing, older: BTreeMap::new(), ..self.clone() }
    }
}

impl fmt::Debug for DomainKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DomainKeys")
            .field("domain", &self.domain)
            .field("can_open", &self.can_open())
            .finish_non_exhaustive()
    }
}
