//! Which kind of stream a file is, by its name and its first bytes: dumps and images want smaller chunks.

use stillpoint_chunker::{Chunker, Profile};
use stillpoint_store::Result;

/// How many of the first bytes are looked at.
pub(crate) const HEAD_BYTES: usize = 512;
/// Below this size the kind of a file makes no difference worth its smaller chunks, bytes.
const IMAGE_BYTES_MIN: u64 = 1 << 20;

/// A chunker for each kind of stream.
#[derive(Debug, Clone)]
pub(crate) struct Chunkers {
    general: Chunker,
    dump: Chunker,
    image: Chunker,
}

impl Chunkers {
    /// The chunkers that this function gives.
    ///
    /// # Errors
    /// What the function gives.
    pub(crate) fn new(chunker: impl Fn(Profile) -> Result<Chunker>) -> Result<Self> {
        Ok(Self {
            general: chunker(Profile::General)?,
            dump: chunker(Profile::Dump)?,
            image: chunker(Profile::Image)?,
        })
    }

    /// The one for content with this name, size (where known) and first bytes.
    pub(crate) fn choose(&self, name: &[u8], size: Option<u64>, head: &[u8]) -> &Chunker {
        match profile(name, size, head) {
            Profile::Dump => &self.dump,
            Profile::Image => &self.image,
            Profile::General => &self.general,
        }
    }
}

/// Judges by first bytes, then by name.
fn profile(name: &[u8], size: Option<u64>, head: &[u8]) -> Profile {
    const DUMP_HEADS: [&[u8]; 6] = [
        b"--\n-- PostgreSQL database dump",
        b"-- PostgreSQL database dump",
        b"-- MySQL dump",
        b"-- MariaDB dump",
        b"/*M!999999\\- enable the sandbox mode */",
        b"PRAGMA foreign_keys=OFF;",
    ];
    const IMAGE_HEADS: [&[u8]; 6] =
        [b"QFI\xfb", b"KDMV", b"<<< ", b"conectix", b"vhdxfile", b"SQLite format 3\0"];
    if DUMP_HEADS.iter().any(|start| head.starts_with(start)) {
        return Profile::Dump;
    }
    let is_large = size.is_none_or(|size| size >= IMAGE_BYTES_MIN);
    if is_large && IMAGE_HEADS.iter().any(|start| head.starts_with(start)) {
        return Profile::Image;
    }
    match by_name(name) {
        // A compressed dump has no rows to cut between.
        Profile::Dump if !is_compressed(head) => Profile::Dump,
        Profile::Image if is_large => Profile::Image,
        _ => Profile::General,
    }
}

/// What the name alone says; all that it decides about how content is cut.
pub(crate) fn by_name(name: &[u8]) -> Profile {
    let extension = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    let is = |names: &[&str]| names.iter().any(|n| extension.eq_ignore_ascii_case(n.as_bytes()));
    if is(&["sql", "dump"]) {
        return Profile::Dump;
    }
    if is(&["img", "raw", "qcow2", "qcow", "vmdk", "vdi", "vhd", "vhdx", "ibd"]) {
        return Profile::Image;
    }
    Profile::General
}

fn is_compressed(head: &[u8]) -> bool {
    const HEADS: [&[u8]; 5] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh", b"PGDMP"];
    HEADS.iter().any(|start| head.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    // First bytes decide before names; small and compressed content stays general.
    #[test]
    fn kinds_of_streams() {
        let check = |name: &str, size, head: &[u8], expected| {
            assert_eq!(profile(name.as_bytes(), size, head), expected, "{name} {head:?}");
        };
        check("a.c", Some(100), b"int", Profile::General);
        check("stdin", None, b"--\n-- PostgreSQL database dump\n", Profile::Dump);
        check("x", Some(1 << 30), b"-- MySQL dump 10.13", Profile::Dump);
        check("DB.SQL", Some(100), b"create", Profile::Dump);
        check("db.sql", Some(100), b"\x1f\x8b", Profile::General);
        check("base.dump", Some(1 << 30), b"PGDMP\x01", Profile::General);
        check("disk", Some(1 << 30), b"QFI\xfb", Profile::Image);
        check("disk.vmdk", Some(1 << 30), b"", Profile::Image);
        check("photo.raw", Some(1000), b"", Profile::General);
        check("app.db", Some(1 << 30), b"SQLite format 3\0", Profile::Image);
    }
}
