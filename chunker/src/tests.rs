//! What the chunker promises: the crate's cuts, cuts independent of reads, ids of the bytes.

use super::*;
use fastcdc::v2020::{FastCDC, Normalization};
use proptest::prelude::*;
use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Arc;

/// Equal bytes for equal seeds; about a third of them are runs, as in real files.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let key = *blake3::hash(&seed.to_le_bytes()).as_bytes();
    blake3::Hasher::new_keyed(&key).finalize_xof().fill(&mut bytes);
    let run = 3000 + usize::try_from(seed % 5000).unwrap();
    for part in bytes.chunks_mut(run * 3) {
        let end = part.len().min(run);
        part[..end].fill(b'=');
    }
    bytes
}

fn chunker(params: Params) -> Chunker {
    Chunker::new(Arc::new(Gear::keyed(&[5; 32])), params, IdKey::new([6; 32]))
}

fn published(params: Params) -> Chunker {
    Chunker::new(Arc::new(Gear::published()), params, IdKey::new([6; 32]))
}

fn small() -> Params {
    Params::new(256, 1024, 4096).unwrap()
}

/// A reader that gives its bytes in odd portions and is interrupted now and then, and may fail at the end.
struct Odd<'a> {
    rest: &'a [u8],
    portions: Vec<usize>,
    turn: usize,
    fails: bool,
}

impl<'a> Odd<'a> {
    fn new(rest: &'a [u8], portions: Vec<usize>) -> Self {
        Self { rest, portions, turn: 0, fails: false }
    }
}

impl Read for Odd<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.turn += 1;
        if self.turn.is_multiple_of(7) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if self.rest.is_empty() && self.fails {
            return Err(io::Error::other("the disk is gone"));
        }
        let portion = self.portions[self.turn % self.portions.len()];
        let count = portion.min(out.len()).min(self.rest.len());
        out[..count].copy_from_slice(&self.rest[..count]);
        self.rest = &self.rest[count..];
        Ok(count)
    }
}

/// Ids and lengths of all chunks of a stream, whose batches must cover their bytes and join up to `whole`.
fn collect<R: Read>(stream: ChunkStream<R>, whole: &[u8]) -> Vec<(ChunkId, u32)> {
    let mut rest = whole;
    let mut out = Vec::new();
    for batch in stream {
        let batch = batch.unwrap();
        assert!(!batch.chunks.is_empty());
        assert_eq!(batch.bytes.as_slice(), &rest[..batch.bytes.len()]);
        rest = &rest[batch.bytes.len()..];
        let mut offset = 0;
        for chunk in &batch.chunks {
            assert_eq!(chunk.offset, offset);
            offset += chunk.len;
            out.push((chunk.id, chunk.len));
        }
        assert_eq!(usize::try_from(offset).unwrap(), batch.bytes.len());
    }
    assert!(rest.is_empty(), "{} bytes are missing", rest.len());
    out
}

fn ids_and_lengths(chunks: &[Chunk]) -> Vec<(ChunkId, u32)> {
    chunks.iter().map(|chunk| (chunk.id, chunk.len)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Reads of any size, interruptions, guesses at the length and windows never change a cut or an id.
    #[test]
    fn a_stream_is_cut_as_the_whole_is(
        length in prop_oneof![0usize..5_000, 500_000usize..600_000, 4_000_000usize..9_000_000],
        seed in any::<u64>(),
        portions in proptest::collection::vec(1usize..300_000, 1..6),
        guess in proptest::option::of(0u64..10_000_000),
        large in any::<bool>(),
    ) {
        let params = if large { Params::new(16 << 10, 64 << 10, 4 << 20).unwrap() } else { small() };
        let (whole, chunker) = (content(length, seed), chunker(params));
        let expected = ids_and_lengths(&chunker.chunks_of(&whole));
        let reader = Odd::new(&whole, portions);
        let stream = match guess {
            Some(guess) => chunker.stream_sized(reader, guess),
            None => chunker.stream(reader),
        };
        prop_assert_eq!(collect(stream, &whole), expected);
    }

    /// With the published table and any sizes the cuts are those of the crate's own iterator.
    #[test]
    fn cuts_are_those_of_the_crate(
        length in 0usize..400_000,
        seed in any::<u64>(),
        bits in 8u32..18,
        less in 1u32..4,
        more in 1u32..4,
    ) {
        let (min, avg, max) = ((1u32 << bits >> less).max(64), 1u32 << bits, 1u32 << (bits + more));
        let params = Params::new(min, avg, max.max(1024)).unwrap();
        let whole = content(length, seed);
        prop_assume!(whole.len() > 1 << bits);
        let [min, avg, max] = [min, avg, max.max(1024)].map(|bytes| usize::try_from(bytes).unwrap());
        let theirs: Vec<_> = FastCDC::with_level(&whole, min, avg, max, Normalization::Level2)
            .map(|chunk| (chunk.offset, chunk.length))
            .collect();
        let number = |number: u32| usize::try_from(number).unwrap();
        let ours: Vec<_> = published(params)
            .chunks_of(&whole)
            .iter()
            .map(|chunk| (number(chunk.offset), number(chunk.len)))
            .collect();
        prop_assert_eq!(ours, theirs);
    }
}

/// Content up to the average is one chunk, in memory as in a stream; one byte more is cut by its content.
#[test]
fn small_content_is_one_chunk() {
    let chunker = chunker(small());
    let whole = content(40_000, 3);
    // Somewhere in this content a piece of average length would be cut.
    let cut = (0..38_000).step_by(17).find(|start| {
        chunker
            .chunks_of(&whole[*start..*start + 1025])
            .first()
            .is_some_and(|first| first.len < 900)
    });
    let start = cut.expect("some piece is cut before its end");
    let piece = &whole[start..start + 1024];
    let batch = chunker.chunk_slice(piece.to_vec());
    assert_eq!(batch.chunks.len(), 1);
    assert_eq!(batch.slice(&batch.chunks[0]), piece);
    assert_eq!(batch.chunks[0].id, IdKey::new([6; 32]).id(piece));
    assert_eq!(collect(chunker.stream(piece), piece).len(), 1);
    assert_eq!(
        collect(chunker.stream(&whole[start..start + 1025]), &whole[start..start + 1025]).len(),
        2
    );
    assert!(chunker.chunk_slice(Vec::new()).chunks.is_empty());
    assert!(chunker.stream(io::empty()).next().is_none());
}

/// Chunks keep within their sizes, are near the average, and their ids are those of their bytes, hashed on all cores
/// or on one.
#[test]
fn sizes_and_ids_hold() {
    for profile in Profile::ALL {
        let (params, chunker) = (profile.params(), chunker(profile.params()));
        let mut whole = vec![0; 24 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut whole);
        let batch = chunker.chunk_slice(whole);
        let (last, others) = batch.chunks.split_last().unwrap();
        assert!(last.len <= params.max_bytes());
        for chunk in others {
            assert!((params.min_bytes()..=params.max_bytes()).contains(&chunk.len), "{chunk:?}");
        }
        for chunk in &batch.chunks {
            assert_eq!(chunk.id, chunker.id(batch.slice(chunk)));
        }
        let average = batch.bytes.len() / batch.chunks.len();
        let wanted = usize::try_from(params.avg_bytes()).unwrap();
        assert!((wanted * 8 / 10..wanted * 14 / 10).contains(&average), "{profile}: {average}");
    }
}

/// An insertion changes the chunks around it and no others.
#[test]
fn chunks_behind_an_insertion_stay() {
    let chunker = chunker(small());
    let whole = content(2_000_000, 11);
    let before: HashSet<ChunkId> = chunker.chunks_of(&whole).iter().map(|chunk| chunk.id).collect();
    let mut longer = whole;
    longer.splice(1_000_000..1_000_000, *b"inserted");
    let after = chunker.chunks_of(&longer);
    let new = after.iter().filter(|chunk| !before.contains(&chunk.id)).count();
    assert!((1..=4).contains(&new), "{new} new chunks of {}", after.len());
}

/// Another secret gives other cuts and another id key other ids.
#[test]
fn cuts_and_ids_depend_on_their_secrets() {
    let whole = content(300_000, 1);
    let other = Chunker::new(Arc::new(Gear::keyed(&[9; 32])), small(), IdKey::new([6; 32]));
    let cuts = |chunker: &Chunker| -> Vec<u32> {
        chunker.chunks_of(&whole).iter().map(|chunk| chunk.offset).collect()
    };
    assert_ne!(cuts(&chunker(small())), cuts(&other));
    let renamed = Chunker::new(Arc::new(Gear::keyed(&[9; 32])), small(), IdKey::new([7; 32]));
    assert_eq!(cuts(&renamed), cuts(&other));
    assert_ne!(renamed.chunks_of(&whole)[0].id, other.chunks_of(&whole)[0].id);
}

/// An error of the reader is given once, then the stream is over; batches before it are whole.
#[test]
fn an_error_ends_the_stream() {
    let whole = content(10 << 20, 2);
    let mut reader = Odd::new(&whole, vec![100_000]);
    reader.fails = true;
    let mut stream = chunker(small()).stream(reader);
    let first = stream.next().unwrap().unwrap();
    assert_eq!(first.bytes.as_slice(), &whole[..first.bytes.len()]);
    let error = stream.find_map(Result::err).expect("the error is given");
    assert_eq!(error.to_string(), "the disk is gone");
    assert!(stream.next().is_none());
    assert_eq!(stream.read_bytes(), whole.len() as u64);
}

/// Buffers are used again once their batch is dropped, and never while it is held.
#[test]
fn buffers_are_recycled_when_free() {
    let whole = content(40 << 20, 4);
    let chunker = chunker(Profile::General.params());
    let held: Vec<_> = chunker.stream(whole.as_slice()).map(Result::unwrap).collect();
    let joined: Vec<u8> = held.iter().flat_map(|batch| batch.bytes.iter().copied()).collect();
    assert!(joined == whole, "held batches keep their bytes");
    let dropped: HashSet<*const u8> = chunker
        .stream(whole.as_slice())
        .skip(1)
        .map(|batch| batch.unwrap().bytes.as_ptr())
        .collect();
    assert!(dropped.len() <= 4, "{} buffers for {} batches", dropped.len(), held.len());
}

/// How fast it goes, printed and not judged: seconds belong in the benchmarks. On a busy
/// machine only the ratios mean something.
#[test]
fn throughput() {
    let length: usize = 64 << 20;
    let mut whole = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut whole);
    for profile in Profile::ALL {
        let chunker = chunker(profile.params());
        let rate = |begin: std::time::Instant| length as f64 / begin.elapsed().as_secs_f64() / 1e9;
        let begin = std::time::Instant::now();
        let mut lengths = Vec::new();
        assert_eq!(chunker.cut(&whole, true, &mut lengths), length);
        let cut = rate(begin);
        let begin = std::time::Instant::now();
        for part in whole.chunks(chunker.params().avg_bytes().try_into().unwrap()) {
            std::hint::black_box(chunker.id(part));
        }
        let hash = rate(begin);
        let begin = std::time::Instant::now();
        let found: usize =
            chunker.stream(whole.as_slice()).map(|batch| batch.unwrap().chunks.len()).sum();
        let streamed = rate(begin);
        assert_eq!(found, lengths.len());
        eprintln!(
            "{profile}: cut {cut:.2} GB/s, hash {hash:.2} GB/s (one core), stream {streamed:.2} GB/s, {found} chunks"
        );
    }
}
