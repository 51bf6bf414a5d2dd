//! Keys and seals: which key is derived from which, and how bytes are sealed under them.
//!
//! Owns every cryptographic decision of the repository; the primitives come from `aws-lc-rs`, `blake3`, `hpke` and
//! `argon2`. Knows nothing of backends, packs' inner layout or what the records mean. FORMAT.md holds the bytes.

mod aead;
mod envelope;
mod keys;
mod metadata;
mod ring;

pub use aead::Aead;
pub use keys::{DomainKeys, RepositoryKey};
pub use metadata::{MetadataKey, RecordContext, RecordKind};
pub use ring::{Generation, KeyRing};

pub(crate) use aead::{AeadKey, TAG_LEN};
pub(crate) use envelope::{ENCAPSULATED_LEN, SEALED_PACK_KEY_LEN, SealedPackKey};
pub(crate) use keys::{Key, derive};
pub(crate) use ring::KEY_NAME_LEN;

#[cfg(test)]
pub(crate) mod test_env;
#[cfg(test)]
mod tests;
