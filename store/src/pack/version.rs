//! Whether an object that names a newer version is of a newer program or damaged: packs and parity objects alike.

use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::id::ObjectName;

/// Where the version stands: so far from the beginning, behind the magic.
const FROM_START: u64 = 8;
/// And so far from the end, in the trailer.
const FROM_END: u64 = 12;

/// Judges an error of reading an object that begins and ends with its version. A newer object names its version at both
/// ends; one that names it at one end only, or inside alone, was damaged. Other errors stay what they are.
pub(crate) fn newer_or_damaged(backend: &dyn Backend, name: ObjectName, error: Error) -> Error {
    let Error::Unsupported { found, .. } = &error else { return error };
    let found = *found;
    match versions(backend, name) {
        Ok((first, last)) if u32::from(first) == found && u32::from(last) == found => error,
        Ok((first, last)) => Error::damaged(
            name,
            format!("it names version {found}, but {first} at its beginning and {last} at its end"),
        ),
        Err(other) => other,
    }
}

fn versions(backend: &dyn Backend, name: ObjectName) -> Result<(u8, u8)> {
    let size = backend.size_bytes(&name)?.ok_or_else(|| Error::missing(name))?;
    let short = || Error::damaged(name, format!("only {size} bytes long"));
    let last = size.checked_sub(FROM_END).filter(|last| *last > FROM_START).ok_or_else(short)?;
    let byte = |at: u64| -> Result<u8> {
        backend.read(&name, at..at + 1)?.first().copied().ok_or_else(short)
    };
    Ok((byte(FROM_START)?, byte(last)?))
}
