//! One pack's key, sealed to its domain's public key.
//!
//! HPKE (RFC 9180): DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, mode PSK. Whoever holds the public half
//! and the pre-shared key can seal; only the holder of the X25519 secret can open.

use super::keys::{DomainKeys, Key};
use super::ring::Generation;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::id::DomainId;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem, X25519HkdfSha256};
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, OpModeR, OpModeS, PskBundle, Serializable};
use std::convert::Infallible;
use zeroize::Zeroizing;

/// Length of the encapsulated X25519 key, bytes.
pub(crate) const ENCAPSULATED_LEN: usize = 32;
/// Length of a sealed pack key, bytes: key and tag.
pub(crate) const SEALED_PACK_KEY_LEN: usize = 32 + super::TAG_LEN;

/// Lets `hpke` draw from [`Env`], so that equal environments give equal bytes.
struct EnvRng<'a>(&'a dyn Env);

impl TryRng for EnvRng<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> std::result::Result<u32, Infallible> {
        let mut bytes = [0u8; 4];
        self.0.fill_random(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> std::result::Result<u64, Infallible> {
        let mut bytes = [0u8; 8];
        self.0.fill_random(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> std::result::Result<(), Infallible> {
        self.0.fill_random(bytes);
        Ok(())
    }
}

impl TryCryptoRng for EnvRng<'_> {}

/// A pack key as it stands in the pack's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SealedPackKey {
    pub(crate) encapsulated: [u8; ENCAPSULATED_LEN],
    pub(crate) sealed: [u8; SEALED_PACK_KEY_LEN],
}

impl SealedPackKey {
    /// Seals a pack key with the newest generation; `info` (repository and header) must be the same to open it.
    pub(crate) fn seal(key: &Key, keys: &DomainKeys, info: &[u8], env: &dyn Env) -> Self {
        let psk_id = psk_id(keys.domain());
        let sealing = keys.sealing();
        let bundle = PskBundle::new(sealing.psk.as_ref(), &psk_id).expect("both are given");
        let (encapsulated, sealed) =
            hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
                &OpModeS::Psk(bundle),
                &sealing.public,
                info,
                key.as_ref(),
                &[],
                &mut EnvRng(env),
            )
            .expect("a derived public key is a point of full order, and the message is short");
        Self {
            encapsulated: encapsulated.to_bytes().into(),
            sealed: sealed.try_into().expect("32 bytes and a tag"),
        }
    }

    /// Opens a pack key that this generation sealed.
    ///
    /// # Errors
    /// `Invalid` where the keys can only write; `Damaged` where the header is not what was written.
    pub(crate) fn open(
        &self,
        keys: &DomainKeys,
        generation: Generation,
        info: &[u8],
        object: &str,
    ) -> Result<Key> {
        if !keys.can_open() {
            return Err(Error::Invalid("these keys can write packs but open none".into()));
        }
        let unknown = || {
            let detail = format!("its keys are of generation {generation}, which is not known");
            Error::damaged(object, detail)
        };
        let opening = keys.of_generation(generation).ok_or_else(unknown)?;
        let secret = opening.secret.as_ref().ok_or_else(unknown)?;
        let bad = |_| Error::damaged(object, "its header does not open");
        let psk_id = psk_id(keys.domain());
        let bundle = PskBundle::new(opening.psk.as_ref(), &psk_id).expect("both are given");
        let encapsulated =
            <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&self.encapsulated).map_err(bad)?;
        let opened = Zeroizing::new(
            hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
                &OpModeR::Psk(bundle),
                secret,
                &encapsulated,
                info,
                &self.sealed,
                &[],
            )
            .map_err(bad)?,
        );
        let mut key = Key::default();
        key.copy_from_slice(&opened);
        Ok(key)
    }
}

/// The name of a domain's pre-shared key.
fn psk_id(domain: DomainId) -> Vec<u8> {
    [b"stillpoint domain ".as_slice(), &domain.0.to_le_bytes()].concat()
}
