//! Holding small files: their bytes.

use rustix::io::Errno;
use std::io;
use stillpoint_archive::held::{HeldContent, Unheld};

/// How often a file is read that changes meanwhile. Under a lock it should not.
pub(super) const READS_MAX: usize = 3;
/// What the snapshot says of a file that would not keep still.
pub(super) const CHANGED: &str = "changed while it was held";

/// Reads the file.
///
/// # Errors
/// Those of the system calls.
pub(super) fn hold(unheld: &mut Unheld) -> io::Result<HeldContent> {
    for _ in 1..READS_MAX {
        let bytes = read(unheld)?;
        if !unheld.look_again()? && is_all(unheld, &bytes) {
            return Ok(HeldContent::Memory(bytes.into()));
        }
    }
    let bytes = read(unheld)?;
    if unheld.look_again()? || !is_all(unheld, &bytes) {
        return Err(io::Error::other(CHANGED));
    }
    Ok(HeldContent::Memory(bytes.into()))
}

fn is_all(unheld: &Unheld, bytes: &[u8]) -> bool {
    u64::try_from(bytes.len()).is_ok_and(|len| len == unheld.size())
}

fn read(unheld: &Unheld) -> io::Result<Vec<u8>> {
    let Some(file) = unheld.file() else { return Ok(Vec::new()) };
    let size = usize::try_from(unheld.size()).map_err(io::Error::other)?;
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let at = u64::try_from(filled).map_err(io::Error::other)?;
        match rustix::io::pread(file, rest, at) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
