//! What a fuzzer does with its bytes: every parser of bytes from outside, with the properties that must hold.
//!
//! A body never panics on any input unless a property is broken. It tells whether the input was accepted, so that the
//! test which replays the committed corpus knows that its seeds still reach the inside of the parser. Sealed objects
//! are sealed here with a fixed key, because a fuzzer cannot guess a seal.

mod journal;
mod mutate;
mod parity;
mod seeds;

pub use journal::journal;
pub use mutate::{Fuzzed, fuzz};
pub use parity::parity;
pub use seeds::seeds;

use crate::SeededEnv;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::LazyLock;
use stillpoint_archive::entry::{ContentSchema, ManifestSchema};
use stillpoint_archive::{Entry, path};
use stillpoint_store::backend::{MemoryBackend, ObjectBytes, put};
use stillpoint_store::catalogue::{
    ForgottenEntry, Key, LostEntry, PackEntry, SnapshotEntry, Tombstone, VerifiedEntry,
    decode_value, encode_value,
};
use stillpoint_store::crypto::{MetadataKey, RecordContext, RecordKind, RepositoryKey};
use stillpoint_store::limits::PACK_BYTES_MAX;
use stillpoint_store::pack::{Footer, PACK_HEADER_LEN, PackKey, read_footer};
use stillpoint_store::parity::ParityEntry;
use stillpoint_store::record::config::UncheckedConfig;
use stillpoint_store::record::head::Head;
use stillpoint_store::record::slot::KeySlot;
use stillpoint_store::record::snapshot::SnapshotRecord;
use stillpoint_store::tree::{children, node_references};
use stillpoint_store::{DomainId, NodeId, ObjectName, PackId, RepositoryId};

/// One target: bytes in, whether they were accepted out.
pub type Target = fn(&[u8]) -> bool;

/// Every target by name; `fuzz/fuzz_targets/NAME.rs` calls it and `fuzz/corpus/NAME/` holds its corpus.
pub const TARGETS: [(&str, Target); 11] = [
    ("footer", footer),
    ("pack", pack),
    ("node", node),
    ("entry", entry),
    ("config", config),
    ("slot", slot),
    ("head", head),
    ("snapshot", snapshot),
    ("catalogue", catalogue),
    ("parity", parity),
    ("journal", journal),
];

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([7; RepositoryId::LEN]);
const PACK: PackId = PackId::from_bytes([9; PackId::LEN]);
/// What stands behind the sealed footer, but for its length: version, zeros, magic (FORMAT.md).
const TRAILER_REST: &[u8; 12] = b"\x01\0\0\0\0end.spk";

fn repository_key() -> RepositoryKey {
    RepositoryKey::from_bytes(&[5; 32])
}

fn metadata_key() -> MetadataKey {
    repository_key().metadata()
}

fn seal(kind: RecordKind, name: &[u8], plain: &[u8]) -> Vec<u8> {
    let context = RecordContext { repository: REPOSITORY, kind, name };
    metadata_key().seal(&context, plain, &SeededEnv::new(1))
}

/// A footer's plaintext behind four bytes that say how long the pack's frames are.
pub fn footer(data: &[u8]) -> bool {
    let Some((frames, plain)) = data.split_first_chunk::<4>() else { return false };
    let frames = usize::try_from(u32::from_le_bytes(*frames) % (1 << 20)).expect("below 1 MiB");
    let mut bytes = vec![0; PACK_HEADER_LEN.max(frames)];
    let sealed = seal(RecordKind::Footer, PACK.as_bytes(), plain);
    bytes.extend_from_slice(&sealed);
    bytes.extend_from_slice(&u32::try_from(sealed.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(TRAILER_REST);
    let size = u64::try_from(bytes.len()).expect("memory is smaller than 2^64");
    if size > PACK_BYTES_MAX {
        return false;
    }
    let backend = MemoryBackend::new();
    put(&backend, &ObjectName::Pack(PACK), &bytes).expect("memory takes everything");
    let Ok(footer) = read_footer(&backend, &REPOSITORY, &PACK, size, &metadata_key()) else {
        return false;
    };
    walk_footer(&footer);
    true
}

/// Every chunk has a place inside its frame, every place a frame, and nothing lies beyond the frames.
fn walk_footer(footer: &Footer) {
    let end = footer.frames_end();
    let mut chunks = 0;
    for (ordinal, (_, kind, place)) in footer.locations().enumerate() {
        let frame =
            usize::try_from(place.frame).ok().and_then(|number| footer.frames().get(number));
        let frame = frame.expect("a place names a frame of its pack");
        assert_eq!(
            (frame.kind, frame.offset, frame.stored_len),
            (kind, place.frame_offset, place.frame_len)
        );
        assert!(place.frame_offset + place.frame_len <= end, "a frame lies behind the frames' end");
        let _ = footer.references(ordinal);
        chunks += 1;
    }
    assert_eq!(chunks, footer.chunks().len(), "a chunk has no place");
}

/// A real pack that is damaged: five bytes an edit, a place and a value. What still opens must be what was written.
pub fn pack(data: &[u8]) -> bool {
    static REAL_PACK: LazyLock<(PackId, Vec<u8>)> = LazyLock::new(seeds::real_pack);
    let real = &REAL_PACK.1;
    let mut bytes = real.clone();
    let keys = repository_key().domain(DomainId::default());
    let id = REAL_PACK.0;
    let original = PackKey::open(&id, real, &REPOSITORY, &keys).expect("the real pack opens");
    for edit in data.chunks_exact(5) {
        let [a, b, c, d, value] = *edit else { continue };
        let place =
            usize::try_from(u32::from_le_bytes([a, b, c, d])).expect("32 bits fit") % bytes.len();
        if let Some(byte) = bytes.get_mut(place) {
            *byte = value;
        }
    }
    let whole = bytes == *real;
    let Ok(key) = PackKey::open(&id, &bytes, &REPOSITORY, &keys) else {
        assert!(!whole, "the real pack does not open");
        return false;
    };
    let mut frames = 0;
    for (found, expected) in key.walk(&bytes).zip(original.walk(real)) {
        let (_, expected) = expected.expect("the real pack is whole");
        match found {
            Ok((_, frame)) => assert!(frame.bytes() == expected.bytes(), "a damaged frame opened"),
            Err(_) => assert!(!whole, "a whole frame did not open"),
        }
        frames += 1;
    }
    let backend = MemoryBackend::new();
    put(&backend, &ObjectName::Pack(id), &bytes).expect("memory takes everything");
    let size = u64::try_from(bytes.len()).expect("memory is smaller than 2^64");
    let footer = read_footer(&backend, &REPOSITORY, &id, size, &metadata_key());
    footer.iter().for_each(walk_footer);
    whole && frames > 0 && footer.is_ok()
}

/// A tree node of any schema.
pub fn node(data: &[u8]) -> bool {
    let id = NodeId::from_bytes([3; 32]);
    let bytes = ObjectBytes::from(data.to_vec());
    let _ = node_references::<ManifestSchema>(&id, &bytes);
    let _ = node_references::<ContentSchema>(&id, &bytes);
    let Ok(view) = children(&id, &bytes) else { return false };
    drop(view);
    true
}

/// A manifest entry and a manifest key.
pub fn entry(data: &[u8]) -> bool {
    if path::check_key(data).is_ok() {
        let again = path::key_from_path(&path::path_from_key(data));
        assert_eq!(
            again.ok().as_deref(),
            Some(data),
            "a valid key does not come back from its path"
        );
    }
    let Ok(entry) = Entry::decode(data) else { return false };
    let again = entry.to_bytes();
    assert_eq!(
        Entry::decode(&again).as_ref().ok(),
        Some(&entry),
        "an entry changed on its way through bytes"
    );
    assert!(again == data, "an entry has two byte forms");
    true
}

/// A record in the clear ends in a checksum that a fuzzer cannot guess.
fn with_checksum(data: &[u8]) -> Vec<u8> {
    [data, blake3::hash(data).as_bytes()].concat()
}

/// The configuration without its checksum.
pub fn config(data: &[u8]) -> bool {
    let Ok(unchecked) = UncheckedConfig::parse(&with_checksum(data)) else { return false };
    let metadata = metadata_key();
    if let Ok(config) = unchecked.check(&metadata) {
        let again =
            UncheckedConfig::parse(&config.encode(&metadata)).map(|again| again.check(&metadata));
        let again = again.expect("what was encoded parses").expect("and carries its code");
        assert!(again == config, "a configuration changed on its way through bytes");
    }
    true
}

/// A key slot without its checksum; never unwrapped, because Argon2id at its limits takes minutes.
pub fn slot(data: &[u8]) -> bool {
    let id = seeds::SLOT;
    let Ok(slot) = KeySlot::parse(id, &with_checksum(data)) else { return false };
    assert!(
        KeySlot::parse(id, &slot.encode()).is_ok_and(|again| again == slot),
        "a slot changed on its way"
    );
    true
}

/// The plaintext of the head.
pub fn head(data: &[u8]) -> bool {
    let key = metadata_key();
    let Ok(head) = Head::open(&seal(RecordKind::Head, b"", data), REPOSITORY, &key) else {
        return false;
    };
    let again = Head::open(&head.seal(REPOSITORY, &key, &SeededEnv::new(1)), REPOSITORY, &key);
    assert!(again.is_ok_and(|again| again == head), "a head changed on its way through bytes");
    true
}

/// The plaintext of a snapshot record.
pub fn snapshot(data: &[u8]) -> bool {
    let (id, key) = (seeds::SNAPSHOT, metadata_key());
    let sealed = seal(RecordKind::Snapshot, id.as_bytes(), data);
    let Ok(record) = SnapshotRecord::open(&sealed, id, REPOSITORY, &key) else { return false };
    let Ok(sealed) = record.seal(id, REPOSITORY, &key, &SeededEnv::new(1)) else { return false };
    let again = SnapshotRecord::open(&sealed, id, REPOSITORY, &key);
    assert!(
        again.is_ok_and(|again| again == record),
        "a snapshot changed on its way through bytes"
    );
    true
}

/// A key of the catalogue behind its length (1 byte), and a value behind that.
pub fn catalogue(data: &[u8]) -> bool {
    let Some((len, rest)) = data.split_first() else { return false };
    let Some((key, value)) = rest.split_at_checked(usize::from(*len)) else { return false };
    let Ok(decoded) = Key::decode(key) else { return false };
    assert!(decoded.encode() == key, "a key changed on its way through bytes");
    match decoded {
        Key::Forgotten(_) => entry_of::<ForgottenEntry>(value),
        Key::Lost(_) => entry_of::<LostEntry>(value),
        Key::Pack(_) => entry_of::<PackEntry>(value),
        Key::Parity(_) => entry_of::<ParityEntry>(value),
        Key::Snapshot(_) => entry_of::<SnapshotEntry>(value),
        Key::Tombstone(_) => entry_of::<Tombstone>(value),
        Key::Verified(_) => entry_of::<VerifiedEntry>(value),
    }
}

fn entry_of<T: Serialize + DeserializeOwned + PartialEq>(value: &[u8]) -> bool {
    let Ok(entry) = decode_value::<T>(value) else { return false };
    let again = decode_value::<T>(&encode_value(&entry));
    assert!(again.is_ok_and(|again| again == entry), "an entry changed on its way through bytes");
    true
}
