//! The repository key and everything derived from it.
//!
//! Derivation is BLAKE3 `derive_key` with one named context for each purpose; the names are part of the format.

use super::metadata::MetadataKey;
use crate::env::Env;
use crate::id::{ChunkKind, DomainId};
use hpke::Serializable;
use hpke::kem::{Kem, X25519HkdfSha256};
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

/// The root of all keys of one repository: 256 random bits, never derived, kept only in wrapped form (key slots).
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
        MetadataKey::from_bytes(&derive(CONTEXT_METADATA, &[self.expose()]))
    }

    /// All keys of one domain.
    pub fn domain(&self, domain: DomainId) -> DomainKeys {
        let number = domain.0.to_le_bytes();
        let key = |context| derive(context, &[self.expose(), &number]);
        let (secret, public) = X25519HkdfSha256::derive_keypair(key(CONTEXT_X25519).as_ref());
        DomainKeys {
            domain,
            id_data: IdKey::new(*key(CONTEXT_ID_DATA)),
            id_node: IdKey::new(*key(CONTEXT_ID_NODE)),
            gear_secret: key(CONTEXT_GEAR),
            boundary_key: key(CONTEXT_BOUNDARY),
            psk: key(CONTEXT_PSK),
            public,
            secret: Some(secret),
        }
    }
}

impl fmt::Debug for RepositoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RepositoryKey(redacted)")
    }
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
    pub(super) psk: Key,
    pub(super) public: <X25519HkdfSha256 as Kem>::PublicKey,
    pub(super) secret: Option<<X25519HkdfSha256 as Kem>::PrivateKey>,
}

impl DomainKeys {
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
        self.secret.is_some()
    }

    /// The public half of the domain's X25519 pair.
    pub fn public_bytes(&self) -> [u8; 32] {
        self.public.to_bytes().into()
    }

    /// The same keys without the X25519 secret.
    pub fn write_only(&self) -> Self {
        Self { secret: None, ..self.clone() }
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
