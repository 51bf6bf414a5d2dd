//! Small records: what they say, and how those that stand in the clear are framed.
//!
//! Configuration and key slots stand in the clear, because they are read before any key is there; the others are sealed
//! with the metadata key. All are CBOR with named fields: new fields may be added, and a reader skips those it does
//! not know; a change that an old reader must not skip raises the version.

pub mod capture;
pub mod config;
pub mod head;
mod secret;
pub mod slot;
pub mod snapshot;

pub use capture::{CaptureInfo, Consistency};
pub use config::{ChunkSizes, Config, Sizes, UncheckedConfig};
pub use head::Head;
pub use slot::{KdfCost, KeySlot, NewSlot, Secret, SlotKind};
pub use snapshot::{Original, SnapshotRecord, Summary};

#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::limits::RECORD_BYTES_MAX;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Length of the plain BLAKE3 that ends a record in the clear, bytes.
const CHECKSUM_LEN: usize = 32;
/// Deepest nesting of a record.
const DEPTH_MAX: usize = 16;

/// Encodes a record as CBOR; equal values give equal bytes.
pub(crate) fn to_cbor<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("a vector takes any bytes");
    bytes
}

/// Decodes a record from CBOR; nothing may follow it.
///
/// # Errors
/// `Damaged`; `LimitExceeded` beyond [`RECORD_BYTES_MAX`].
pub(crate) fn from_cbor<T: DeserializeOwned>(object: &dyn ToString, bytes: &[u8]) -> Result<T> {
    check_len(object, bytes)?;
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH_MAX)
        .map_err(|error| Error::damaged(object.to_string(), format!("not a record: {error}")))?;
    if !rest.is_empty() {
        return Err(Error::damaged(object.to_string(), "there are bytes behind the record"));
    }
    Ok(value)
}

/// Decodes a sealed record after looking at its version alone, so that a newer one is unsupported, never damaged.
///
/// # Errors
/// `Damaged`, `LimitExceeded`; `Unsupported` for a newer version.
pub(crate) fn decode_versioned<T: DeserializeOwned>(
    object: &dyn ToString,
    plain: &[u8],
    supported: u32,
) -> Result<T> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let versioned: Versioned = from_cbor(object, plain)?;
    if versioned.version > supported {
        let found = versioned.version;
        return Err(Error::Unsupported { object: object.to_string(), found, supported });
    }
    from_cbor(object, plain)
}

/// Frames a record in the clear: magic, version, body, plain BLAKE3 of all that. The checksum tells damage from a wrong
/// secret; it keeps nobody from changing the record.
fn frame(magic: &[u8; 8], version: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = [magic.as_slice(), &version.to_le_bytes(), body].concat();
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    bytes
}

/// Version and body of what [`frame`] made.
///
/// # Errors
/// `Damaged`, `LimitExceeded`; `Unsupported` for a newer version. This framing stays for all versions.
fn unframe<'a>(
    object: &dyn ToString,
    magic: &[u8; 8],
    supported: u32,
    bytes: &'a [u8],
) -> Result<(u32, &'a [u8])> {
    check_len(object, bytes)?;
    let damaged = |detail: &str| Error::damaged(object.to_string(), detail);
    let (content, checksum) =
        bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or_else(|| damaged("it is too short"))?;
    let (found, rest) =
        content.split_first_chunk::<8>().ok_or_else(|| damaged("it is too short"))?;
    if found != magic {
        return Err(damaged("it does not start as such an object"));
    }
    if blake3::hash(content) != *checksum {
        return Err(damaged("its checksum does not fit"));
    }
    let (version, body) =
        rest.split_first_chunk::<4>().ok_or_else(|| damaged("it is too short"))?;
    let version = u32::from_le_bytes(*version);
    if version > supported {
        return Err(Error::Unsupported { object: object.to_string(), found: version, supported });
    }
    if version == 0 {
        return Err(damaged("it names version 0"));
    }
    Ok((version, body))
}

fn check_len(object: &dyn ToString, bytes: &[u8]) -> Result<()> {
    if bytes.len() <= RECORD_BYTES_MAX {
        return Ok(());
    }
    let wide = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
    Err(Error::LimitExceeded {
        object: object.to_string(),
        what: "length",
        found: wide(bytes.len()),
        limit: wide(RECORD_BYTES_MAX),
    })
}
