//! Finding and opening the footer of a stored pack.

use super::footer::{Footer, TRAILER_LEN, TRAILER_MAGIC, context, damaged, limit_bytes};
use super::header::{PACK_HEADER_LEN, check_version};
use super::version::newer_or_damaged;
use crate::backend::Backend;
use crate::crypto::MetadataKey;
use crate::error::{Error, Result};
use crate::id::{ObjectName, PackId, RepositoryId};
use crate::limits::{FOOTER_BYTES_MAX, PACK_BYTES_MAX};

/// First read of a pack's end, bytes: the footer of most packs fits.
const TAIL_BYTES: u64 = 64 << 10;

/// Reads the footer of a pack of `size` bytes; usually one read of the backend.
///
/// # Errors
/// `Missing`, `Damaged`, `Unsupported`, `LimitExceeded`, or what the backend gives.
pub fn read_footer(
    backend: &dyn Backend,
    repository: &RepositoryId,
    pack: &PackId,
    size: u64,
    metadata: &MetadataKey,
) -> Result<Footer> {
    let found = read_and_open(backend, repository, pack, size, metadata);
    found.map_err(|error| newer_or_damaged(backend, ObjectName::Pack(*pack), error))
}

fn read_and_open(
    backend: &dyn Backend,
    repository: &RepositoryId,
    pack: &PackId,
    size: u64,
    metadata: &MetadataKey,
) -> Result<Footer> {
    let name = ObjectName::Pack(*pack);
    let fixed = u64::try_from(PACK_HEADER_LEN + TRAILER_LEN).expect("both are short");
    if size < fixed {
        return Err(Error::damaged(name, format!("only {size} bytes long")));
    }
    limit_bytes(pack, "length", size, PACK_BYTES_MAX)?;
    let tail_start = size.saturating_sub(TAIL_BYTES);
    let tail = backend.read(&name, tail_start..size)?;
    let sealed_len = parse_trailer(pack, &tail)?;
    let end = size
        .checked_sub(fixed)
        .and_then(|room| room.checked_sub(sealed_len))
        .map(|rest| rest + u64::try_from(PACK_HEADER_LEN).expect("the header is short"))
        .ok_or_else(|| damaged(pack, "it is longer than the pack"))?;
    let trailer_len = u64::try_from(TRAILER_LEN).expect("it is short");
    let open = |sealed: &[u8]| {
        let context = context(repository, pack);
        let generation = MetadataKey::generation_of(&context, sealed)?;
        Ok((generation, metadata.open(&context, sealed)?))
    };
    let (generation, plain) = if end >= tail_start {
        let start = usize::try_from(end - tail_start).expect("shorter than the tail");
        let len = usize::try_from(sealed_len).expect("shorter than the tail");
        let within = tail.get(start..).and_then(|rest| rest.get(..len));
        open(within.ok_or_else(|| damaged(pack, "the pack was cut short"))?)?
    } else {
        open(&backend.read(&name, end..size - trailer_len)?)?
    };
    let mut footer = Footer::parse(*pack, &plain, end)?;
    footer.generation = generation;
    Ok(footer)
}

/// The length of the sealed footer, from the last bytes of a pack.
fn parse_trailer(pack: &PackId, tail: &[u8]) -> Result<u64> {
    let damaged = |detail: &str| damaged(pack, detail);
    let trailer =
        tail.last_chunk::<TRAILER_LEN>().ok_or_else(|| damaged("the pack has no trailer"))?;
    let [a, b, c, d, version, z1, z2, z3, magic @ ..] = *trailer;
    if magic != TRAILER_MAGIC {
        return Err(damaged("the pack does not end as a pack"));
    }
    check_version(pack, version)?;
    if [z1, z2, z3] != [0; 3] {
        return Err(damaged("the trailer has impossible values"));
    }
    let len = u64::from(u32::from_le_bytes([a, b, c, d]));
    let max = u64::try_from(FOOTER_BYTES_MAX).expect("64 bits hold any length");
    limit_bytes(pack, "length of the footer", len, max)?;
    Ok(len)
}
