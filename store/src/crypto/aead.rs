//! The two authenticated ciphers and one key of either.
//!
//! Knows nothing of what is sealed. A nonce is a message number; each key's owner sees to it that none comes twice.

use crate::error::{Error, Result};
use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Length of an authentication tag, bytes.
pub(crate) const TAG_LEN: usize = 16;

/// An authenticated cipher with a 256-bit key; its number is stored beside what it sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Aead {
    /// AES-256-GCM (NIST SP 800-38D): 10 GB/s where the processor has AES instructions.
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305 (RFC 8439): 2 GB/s on any processor.
    ChaCha20Poly1305 = 2,
}

impl Aead {
    /// The faster of the two on this machine.
    pub fn fastest() -> Self {
        #[cfg(target_arch = "x86_64")]
        let hardware =
            std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq");
        #[cfg(target_arch = "aarch64")]
        let hardware = std::arch::is_aarch64_feature_detected!("aes")
            && std::arch::is_aarch64_feature_detected!("pmull");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let hardware = false;
        if hardware { Self::Aes256Gcm } else { Self::ChaCha20Poly1305 }
    }

    /// The number that stands in stored bytes.
    pub const fn as_u8(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    /// The cipher with this number; a new cipher comes with a new format version, so any other number is damage.
    pub(crate) fn from_u8(number: u8, object: impl ToString) -> Result<Self> {
        match number {
            1 => Ok(Self::Aes256Gcm),
            2 => Ok(Self::ChaCha20Poly1305),
            other => Err(Error::damaged(object, format!("there is no cipher number {other}"))),
        }
    }
}

/// The seal does not fit: wrong key, wrong associated data or changed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadSeal;

/// One key, ready for use. The library wipes it when it is dropped.
pub(crate) struct AeadKey(LessSafeKey);

impl AeadKey {
    pub(crate) fn new(aead: Aead, key: &[u8; 32]) -> Self {
        let algorithm = match aead {
            Aead::Aes256Gcm => &AES_256_GCM,
            Aead::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        Self(LessSafeKey::new(UnboundKey::new(algorithm, key).expect("both take 32-byte keys")))
    }

    /// Seals `plaintext` into `sealed`, which is [`TAG_LEN`] bytes longer: ciphertext, then tag.
    pub(crate) fn seal(&self, number: u32, data: &[u8], plaintext: &[u8], sealed: &mut [u8]) {
        let (ciphertext, tag) =
            sealed.split_at_mut_checked(plaintext.len()).expect("room for the tag");
        self.0
            .seal_out_of_place_scatter(
                nonce(number),
                Aad::from(data),
                plaintext,
                ciphertext,
                &[],
                tag,
            )
            .expect("lengths fit and messages are far below the cipher's limit");
    }

    /// Opens ciphertext and tag into `plaintext`, which is [`TAG_LEN`] bytes shorter.
    ///
    /// # Errors
    /// [`BadSeal`], also where the lengths do not fit; the buffer's content then means nothing.
    pub(crate) fn open(
        &self,
        number: u32,
        data: &[u8],
        sealed: &[u8],
        plaintext: &mut [u8],
    ) -> std::result::Result<(), BadSeal> {
        let (ciphertext, tag) = sealed.split_at_checked(plaintext.len()).ok_or(BadSeal)?;
        if tag.len() != TAG_LEN {
            return Err(BadSeal);
        }
        self.0
            .open_separate_gather(nonce(number), Aad::from(data), ciphertext, tag, plaintext)
            .map_err(|_| BadSeal)
    }
}

/// Eight zero bytes, then the message number, most significant byte first.
fn nonce(number: u32) -> Nonce {
    let [a, b, c, d] = number.to_be_bytes();
    Nonce::assume_unique_for_key([0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d])
}
