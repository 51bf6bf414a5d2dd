//! Compression: what goes in comes out, and no stored bytes can make it panic or allocate beyond limits.

use super::compress::{self, *};
use crate::error::Error;
use crate::limits::{CHUNK_BYTES_MAX, FRAME_CHUNKS_MAX};
use proptest::prelude::*;
use stillpoint_chunker::{ChunkId, IdKey};

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn ids(chunks: &[Vec<u8>]) -> Vec<ChunkId> {
    chunks.iter().map(|chunk| key().id(chunk)).collect()
}

fn key() -> IdKey {
    IdKey::new([5; 32])
}

fn slices(chunks: &[Vec<u8>]) -> Vec<&[u8]> {
    chunks.iter().map(Vec::as_slice).collect()
}

fn back(frame: &CompressedFrame) -> Option<Vec<u8>> {
    let raw_len = usize::try_from(frame.raw_len).unwrap();
    let mut plain = compress::decompress(frame.codec, &frame.bytes, raw_len)?;
    let (data_len, _) = parse_table(&plain)?;
    plain.truncate(data_len);
    Some(plain)
}

/// Noise is stored as it is, text and hidden patterns are compressed, and storing is storing.
#[test]
fn the_codec_follows_the_content() {
    let text: Vec<u8> = (0..20_000).flat_map(|n| format!("{n},").into_bytes()).collect();
    let counter: Vec<u8> = (0..200_000usize).map(|n| n.to_le_bytes()[0]).collect();
    let half = [noise(100_000), text.clone()].concat();
    for (what, content, level, codec) in [
        ("text", text.clone(), 1, Codec::Zstd),
        ("text, fast", text.clone(), -7, Codec::Zstd),
        ("text, stored", text, 0, Codec::Raw),
        ("noise", noise(300_000), 1, Codec::Raw),
        ("noise, high level", noise(300_000), 19, Codec::Raw),
        ("short noise", noise(500), 3, Codec::Raw),
        ("a pattern as flat as noise", counter, 3, Codec::Zstd),
        ("noise, then text", half, 1, Codec::Zstd),
    ] {
        let frame = compress_frame(&[&content], Level::new(level).unwrap()).unwrap();
        assert_eq!(frame.codec(), codec, "{what}");
        assert_eq!(frame.data_len(), content.len(), "{what}");
        assert_eq!(back(&frame).unwrap(), content, "{what}");
    }
}

/// Frames beyond the limits are refused.
#[test]
fn impossible_frames_are_refused() {
    let long = vec![0u8; CHUNK_BYTES_MAX + 1];
    let most = vec![0u8; CHUNK_BYTES_MAX];
    let empty: &[u8] = &[];
    let many = vec![empty; FRAME_CHUNKS_MAX + 1];
    for (what, chunks) in [
        ("none", vec![]),
        ("a long chunk", vec![long.as_slice()]),
        ("a long frame", vec![most.as_slice(), &most]),
        ("many chunks", many),
    ] {
        let result = compress_frame(&chunks, Level::DEFAULT);
        assert!(matches!(result, Err(Error::Invalid(_))), "{what}: {result:?}");
    }
    for level in [-51, 23, i32::MIN, i32::MAX] {
        assert!(matches!(Level::new(level), Err(Error::Invalid(_))), "{level}");
    }
}

/// A frame that would decompress to more than it says is refused.
#[test]
fn bombs_are_refused() {
    let frame = compress_frame(&[&vec![0u8; 1 << 20]], Level::DEFAULT).unwrap();
    assert!(frame.stored_len() < 1000);
    for raw_len in [0, 1, 1 << 19, usize::try_from(frame.raw_len).unwrap() - 1, 1 << 21] {
        assert_eq!(compress::decompress(Codec::Zstd, &frame.bytes, raw_len), None, "{raw_len}");
    }
}

proptest! {
    /// Any chunks come back at any level, and verify against their ids and no others.
    #[test]
    fn frames_round_trip(
        chunks in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..3000),
                (any::<u8>(), 0..3000usize).prop_map(|(byte, len)| vec![byte; len]),
            ],
            1..20,
        ),
        level in prop::sample::select(vec![-20, -1, 0, 1, 3, 6]),
    ) {
        let frame = compress_frame(&slices(&chunks), Level::new(level).unwrap()).unwrap();
        prop_assert_eq!(back(&frame), Some(chunks.concat()));
        let mut ids = ids(&chunks);
        prop_assert!(verify_frame(&frame, &key(), &ids).is_ok());
        prop_assert!(verify_frame(&frame, &IdKey::new([6; 32]), &ids).is_err());
        let last = ids.pop().unwrap();
        prop_assert!(verify_frame(&frame, &key(), &ids).is_err());
        ids.extend([last, last]);
        prop_assert!(verify_frame(&frame, &key(), &ids).is_err());
    }

    /// A frame with one bit flipped after compression either still decodes to its chunks or is refused.
    #[test]
    fn flips_before_sealing_are_found(seed in any::<usize>(), bit in 0..8u8) {
        let chunks = vec![b"some text, some text, some more text".repeat(20), noise(100)];
        let mut frame = compress_frame(&slices(&chunks), Level::DEFAULT).unwrap();
        let place = seed % frame.bytes.len();
        frame.bytes[place] ^= 1 << bit;
        let same = back(&frame) == Some(chunks.concat());
        prop_assert_eq!(verify_frame(&frame, &key(), &ids(&chunks)).is_ok(), same);
    }

    /// Random bytes as a frame's content or table never panic, and nothing longer than asked for comes out.
    #[test]
    fn random_bytes_are_refused_quietly(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        raw_len in 0..100_000usize,
    ) {
        if let Some(plain) = compress::decompress(Codec::Zstd, &bytes, raw_len) {
            prop_assert_eq!(plain.len(), raw_len);
        }
        if let Some((data_len, lengths)) = parse_table(&bytes) {
            prop_assert!(data_len + 4 * (lengths.len() + 1) == bytes.len());
        }
    }
}
