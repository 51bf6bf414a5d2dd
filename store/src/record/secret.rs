//! What opens a repository: passphrases, key files, and what a passphrase costs whoever tries one.
//!
//! Knows nothing of what a secret opens. Where it comes from is the caller's business.

use crate::crypto::Key;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::limits::{ARGON2_KIB_MAX, ARGON2_LANES_MAX, ARGON2_PASSES_MAX, KEY_FILE_BYTES_MIN};
use argon2::Params;
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

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

    /// Refuses what protects nothing.
    ///
    /// # Errors
    /// `Invalid` for an empty passphrase and a key file that is too short.
    pub(super) fn check_strength(&self) -> Result<()> {
        match self {
            Self::Passphrase(text) if text.is_empty() => {
                Err(Error::Invalid("the passphrase is empty".into()))
            }
            Self::KeyFile(bytes) if bytes.len() < KEY_FILE_BYTES_MIN => {
                Err(Error::Invalid(format!(
                    "the key file holds {} bytes, it needs at least {KEY_FILE_BYTES_MIN}",
                    bytes.len()
                )))
            }
            _ => Ok(()),
        }
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
    pub(super) fn params(&self) -> Result<Params> {
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
