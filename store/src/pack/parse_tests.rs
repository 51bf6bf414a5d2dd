//! Whatever bytes a pack's parsers are given, they answer and never panic; what they accept is within its limits.

use super::footer::*;
use super::header::PackHeader;
use super::*;
use crate::crypto::test_env::SeededEnv;
use crate::crypto::{Aead, RepositoryKey};
use crate::error::Error;
use crate::id::{ChunkKind, DomainId, PackId, RepositoryId};
use crate::limits::FRAME_BYTES_MAX;
use proptest::prelude::*;
use stillpoint_chunker::ChunkId;

const PACK: PackId = PackId::from_bytes([9; 16]);
/// Where the footer begins in the pack, in these tests.
const END: u64 = 1 << 20;

fn footer() -> Footer {
    let id = |byte| ChunkId::from_bytes([byte; 32]);
    let mut footer = Footer::new(PACK, DomainId(3), 77, -5);
    footer.push_frame(ChunkKind::Node, 500, 2);
    footer.push_chunk(id(1), 100, &[id(10), id(11)]);
    footer.push_chunk(id(2), 200, &[]);
    footer.push_frame(ChunkKind::Data, 60, 1);
    footer.push_chunk(id(3), 4000, &[]);
    footer.push_frame(ChunkKind::Node, 90, 1);
    footer.push_chunk(id(4), 50, &[id(12)]);
    footer
}

fn key() -> PackKey {
    let env = SeededEnv::new(1);
    let keys = RepositoryKey::generate(&env).domain(DomainId(0));
    let repository = RepositoryId::random(&env);
    let (header, _) = PackHeader::create(&PACK, Aead::Aes256Gcm, &repository, &keys, &env);
    PackKey::open(&PACK, &header.bytes, &repository, &keys).unwrap()
}

/// A parsed footer says only what its limits allow, and gives the same bytes again.
fn check(bytes: &[u8]) -> std::result::Result<(), TestCaseError> {
    let Ok(footer) = Footer::parse(PACK, bytes, END) else { return Ok(()) };
    let mut ordinals = 0;
    for (_, _, place) in footer.locations() {
        prop_assert!(u64::from(place.frame_offset) + u64::from(place.frame_len) <= END);
        let end = usize::try_from(place.offset).unwrap() + usize::try_from(place.len).unwrap();
        prop_assert!(end <= FRAME_BYTES_MAX);
        ordinals += 1;
    }
    prop_assert_eq!(ordinals, footer.chunks().len());
    let references: usize = (0..ordinals + 3).map(|at| footer.references(at).len()).sum();
    prop_assert!(references * 32 <= bytes.len());
    let again = footer.encode();
    let shorter = again.len().min(bytes.len());
    prop_assert_eq!(&again[..shorter], &bytes[..shorter]);
    Ok(())
}

/// A footer comes back as it went in, with places, kinds and references.
#[test]
fn footers_round_trip() {
    let footer = footer();
    let bytes = footer.encode();
    let parsed = Footer::parse(PACK, &bytes, END).unwrap();
    assert_eq!(parsed, footer);
    check(&bytes).unwrap();
    let references: Vec<usize> = (0..5).map(|at| parsed.references(at).len()).collect();
    assert_eq!(references, [2, 0, 0, 1, 0]);
    assert_eq!((parsed.born(), parsed.created().seconds), (77, -5));
    let places: Vec<_> = parsed
        .locations()
        .map(|(_, kind, place)| (kind, place.frame, place.frame_offset, place.offset, place.len))
        .collect();
    let start = u32::try_from(PACK_HEADER_LEN).unwrap();
    let (node, data) = (ChunkKind::Node, ChunkKind::Data);
    let expected = [
        (node, 0, start, 0, 100),
        (node, 0, start, 100, 200),
        (data, 1, start + 500, 0, 4000),
        (node, 2, start + 560, 0, 50),
    ];
    assert_eq!(places, expected);
}

/// A footer with one field out of its range is refused, each time for its own reason.
#[test]
fn impossible_footers_are_refused() {
    let whole = footer().encode();
    let frames = 40;
    let lengths = frames + 3 * 12 + 4 * 32;
    let refused = |what: &str, place: usize, value: u32, end: u64| {
        let mut bytes = whole.clone();
        bytes[place..place + 4].copy_from_slice(&value.to_le_bytes());
        Footer::parse(PACK, &bytes, end).map(|_| what.to_owned()).unwrap_err()
    };
    for (what, place, value) in [
        ("version 0", 0, 0),
        ("more frames", 24, 4),
        ("fewer frames", 24, 2),
        ("more chunks", 28, 5),
        ("as many references as fit in memory", 36, u32::MAX),
        ("more nodes", 32, 4),
        ("fewer references", 36, 2),
        ("a kind of chunk that is not", frames, 2),
        ("an empty frame", frames + 4, 28),
        ("a frame without chunks", frames + 8, 0),
        ("a frame with a chunk of the next", frames + 8, 3),
        ("references of another node", lengths + 16, 1),
    ] {
        let error = refused(what, place, value, END);
        assert!(matches!(error, Error::Damaged { .. }), "{what}: {error}");
    }
    for (what, place, value) in [
        ("chunks beyond the limit", 28, u32::MAX),
        ("a frame beyond the limit", frames + 4, u32::MAX),
        ("chunks in a frame beyond the limit", frames + 8, u32::MAX),
        ("a chunk beyond the limit", lengths, (8 << 20) + 1),
        ("a longer chunk beyond the limit", lengths, u32::MAX),
    ] {
        let error = refused(what, place, value, END);
        assert!(matches!(error, Error::LimitExceeded { .. }), "{what}: {error}");
    }
    let least = u64::from(footer().frames_end()) + 28;
    assert!(Footer::parse(PACK, &whole, least).is_ok());
    assert!(Footer::parse(PACK, &whole, least - 1).is_err(), "no room for the padding");
}

/// Padmé lengths: at or above the length, at most 12 % more, and fixed points of themselves.
#[test]
fn padme_lengths() {
    let known = [(0, 0), (1, 1), (9, 10), (100, 104), (1000, 1024), (10_000, 10_240)];
    for (len, padded) in known {
        assert_eq!(padme(len), padded, "{len}");
    }
    for len in (0..100_000).chain((0..40).map(|bits| (1 << bits) + 1)) {
        let padded = padme(len);
        assert!(padded >= len && padded - len <= len / 8 && padme(padded) == padded, "{len}");
    }
    assert_eq!(padme(u64::MAX), !((1 << 57) - 1));
}

proptest! {
    /// Random bytes as a footer.
    #[test]
    fn random_footers(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check(&bytes)?;
    }

    /// A footer with some of its bytes replaced by small or extreme values.
    #[test]
    fn mutated_footers(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let mut bytes = footer().encode();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        check(&bytes)?;
    }

    /// Random bytes as a header, with and without a valid beginning.
    #[test]
    fn random_headers(mut bytes in prop::collection::vec(any::<u8>(), 0..200), valid in any::<bool>()) {
        let env = SeededEnv::new(1);
        let keys = RepositoryKey::generate(&env).domain(DomainId(0));
        if valid && bytes.len() >= 36 {
            bytes[..12].copy_from_slice(b"stillpk\0\x01\x01\x01\0");
            bytes[12..20].copy_from_slice(&[0; 8]);
            bytes[20..36].copy_from_slice(PACK.as_bytes());
        }
        let repository = RepositoryId::random(&env);
        prop_assert!(PackKey::open(&PACK, &bytes, &repository, &keys).is_err());
    }

    /// Random bytes as frames, and as whole packs to be walked.
    #[test]
    fn random_frames(bytes in prop::collection::vec(any::<u8>(), 0..300), number in any::<u32>()) {
        let key = key();
        prop_assert!(key.open_frame(number, &bytes).is_err());
        prop_assert!(key.open_compressed(number, &bytes, 1).is_err());
        prop_assert!(key.open_padding(number, &bytes).is_err());
        prop_assert!(key.walk(&bytes).all(|step| step.is_err()));
    }
}
