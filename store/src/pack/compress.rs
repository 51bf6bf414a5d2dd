//! Frames before they are sealed: chunks put together and compressed, and back.
//!
//! Pure computing on any thread; contexts and buffers are kept for each thread. Knows nothing of keys and packs.

use crate::error::{Error, Result};
use crate::limits::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX, FRAME_CHUNKS_MAX};
use std::cell::RefCell;
use std::io;
use stillpoint_chunker::{ChunkId, IdKey};
use zstd::bulk::{Compressor, Decompressor};

/// Plaintext shorter than this is compressed without a test first, bytes.
const SAMPLE_FROM_BYTES: usize = 32 << 10;
/// Length of one sample for the histogram, bytes.
const HISTOGRAM_BYTES: usize = 4 << 10;
/// Length of one sample for the trial compression, bytes.
const TRIAL_BYTES: usize = 16 << 10;
/// Level of the trial compression.
const TRIAL_LEVEL: i32 = -3;
/// Compression that saves less than one part in this many is not worth decoding.
const WORTH_ONE_PART_IN: usize = 128;
/// Scratch that a thread keeps between frames, bytes; beyond it the memory is given back.
const SCRATCH_KEPT_BYTES: usize = 4 << 20;

/// How a frame's plaintext is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    Raw = 0,
    /// One Zstandard frame (RFC 8878) without a dictionary.
    Zstd = 1,
}

impl Codec {
    pub(super) const fn as_u8(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }

    pub(super) const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// A Zstandard level; 0 stores without compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Level(i32);

impl Level {
    /// No compression.
    pub const STORE: Self = Self(0);
    /// The level that is used where nobody asks for another.
    pub const DEFAULT: Self = Self(1);
    /// The lowest (fastest) level.
    pub const MIN: i32 = -50;
    /// The highest level.
    pub const MAX: i32 = 22;

    /// A level from -50 (fastest) to 22 (smallest); 0 is [`Level::STORE`].
    ///
    /// # Errors
    /// `Invalid` beyond that range.
    pub fn new(level: i32) -> Result<Self> {
        if (Self::MIN..=Self::MAX).contains(&level) {
            return Ok(Self(level));
        }
        Err(Error::Invalid(format!(
            "compression level {level} is not between {} and {}",
            Self::MIN,
            Self::MAX
        )))
    }

    /// The number.
    pub const fn as_i32(self) -> i32 {
        self.0
    }
}

impl Default for Level {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Several chunks, compressed together; not yet sealed, in no pack yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompressedFrame {
    pub(super) codec: Codec,
    /// Length of the plaintext: the chunks' bytes, then their table.
    pub(super) raw_len: u32,
    pub(super) chunk_count: u32,
    pub(super) bytes: Vec<u8>,
}

impl CompressedFrame {
    /// A frame that was compressed elsewhere; nothing about it has been checked.
    #[cfg(test)]
    pub(crate) fn from_parts(codec: Codec, raw_len: u32, chunk_count: u32, bytes: Vec<u8>) -> Self {
        Self { codec, raw_len, chunk_count, bytes }
    }

    /// How the bytes are stored.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Length of the chunks' plaintext, bytes.
    pub fn data_len(&self) -> usize {
        let raw = usize::try_from(self.raw_len).expect("32 bits fit");
        raw.saturating_sub(table_len(usize::try_from(self.chunk_count).expect("32 bits fit")))
    }

    /// Length as compressed, bytes.
    pub fn stored_len(&self) -> usize {
        self.bytes.len()
    }

    /// Number of chunks.
    pub fn chunk_count(&self) -> u32 {
        self.chunk_count
    }
}

/// What each thread keeps between frames.
#[derive(Default)]
struct Scratch {
    compressor: Option<(i32, Compressor<'static>)>,
    decompressor: Option<Decompressor<'static>>,
    plain: Vec<u8>,
    packed: Vec<u8>,
}

impl Scratch {
    fn trim(&mut self) {
        for buffer in [&mut self.plain, &mut self.packed] {
            if buffer.capacity() > SCRATCH_KEPT_BYTES {
                *buffer = Vec::new();
            }
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Puts chunks together and compresses them, unless a sample says that it is not worth the time.
///
/// # Errors
/// `Invalid` for no chunk at all, or lengths beyond [`crate::limits`]; `Io` where Zstandard gets no memory.
pub fn compress_frame(chunks: &[&[u8]], level: Level) -> Result<CompressedFrame> {
    let (raw_len, chunk_count) = checked_lengths(chunks)?;
    SCRATCH.with_borrow_mut(|scratch| {
        let mut plain = std::mem::take(&mut scratch.plain);
        plain.clear();
        plain.reserve_exact(raw_len);
        chunks.iter().for_each(|chunk| plain.extend_from_slice(chunk));
        let data_len = plain.len();
        for chunk in chunks {
            let len = u32::try_from(chunk.len()).expect("a chunk is shorter than 4 GiB");
            plain.extend_from_slice(&len.to_le_bytes());
        }
        plain.extend_from_slice(&chunk_count.to_le_bytes());
        let sample = plain.get(..data_len).expect("just written");
        let packed = scratch.pack(sample, &plain, level);
        let frame = packed.map(|packed| CompressedFrame {
            codec: if packed.is_some() { Codec::Zstd } else { Codec::Raw },
            raw_len: u32::try_from(raw_len).expect("limited to 16 MiB"),
            chunk_count,
            bytes: packed.unwrap_or_else(|| plain.clone()),
        });
        scratch.plain = plain;
        scratch.trim();
        frame
    })
}

/// Checks all lengths of a frame to be; gives the plaintext's length with the table, and the number of chunks.
fn checked_lengths(chunks: &[&[u8]]) -> Result<(usize, u32)> {
    if chunks.is_empty() || chunks.len() > FRAME_CHUNKS_MAX {
        return Err(Error::Invalid(format!("a frame of {} chunks", chunks.len())));
    }
    if let Some(chunk) = chunks.iter().find(|chunk| chunk.len() > CHUNK_BYTES_MAX) {
        return Err(Error::Invalid(format!("a chunk of {} bytes", chunk.len())));
    }
    let raw_len = chunks.iter().map(|chunk| chunk.len()).sum::<usize>() + table_len(chunks.len());
    if raw_len > FRAME_BYTES_MAX {
        return Err(Error::Invalid(format!("a frame of {raw_len} bytes")));
    }
    Ok((raw_len, u32::try_from(chunks.len()).expect("limited to 65,536")))
}

/// Length of the table behind the chunks: a length for each, then their number.
const fn table_len(chunk_count: usize) -> usize {
    (chunk_count + 1) * 4
}

impl Scratch {
    /// The compressed plaintext, or None where it is not worth it. `sample` is the part to judge by.
    fn pack(&mut self, sample: &[u8], plain: &[u8], level: Level) -> Result<Option<Vec<u8>>> {
        if level == Level::STORE || self.looks_incompressible(sample)? {
            return Ok(None);
        }
        let len = self.compress(plain, level.0)?;
        let worth = plain.len() - plain.len() / WORTH_ONE_PART_IN;
        Ok((len < worth).then(|| self.packed.clone()))
    }

    /// Compresses into `packed` and gives the length.
    fn compress(&mut self, plain: &[u8], level: i32) -> Result<usize> {
        if self.compressor.as_ref().is_none_or(|(current, _)| *current != level) {
            let compressor = match self.compressor.take() {
                Some((_, mut compressor)) => {
                    compressor.set_compression_level(level).map_err(compressing)?;
                    compressor
                }
                None => Compressor::new(level).map_err(compressing)?,
            };
            self.compressor = Some((level, compressor));
        }
        let (_, compressor) = self.compressor.as_mut().expect("just made");
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        compressor.compress_to_buffer(plain, &mut self.packed).map_err(compressing)
    }

    /// Looks at samples: byte histograms as flat as noise, and then nothing that a fast trial can shorten.
    fn looks_incompressible(&mut self, plain: &[u8]) -> Result<bool> {
        if plain.len() < SAMPLE_FROM_BYTES || !samples::<4>(plain, HISTOGRAM_BYTES).all(is_flat) {
            return Ok(false);
        }
        for sample in samples::<2>(plain, TRIAL_BYTES) {
            if self.compress(sample, TRIAL_LEVEL)? < sample.len() - sample.len() / 64 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Decompresses into a buffer that holds exactly `raw_len` bytes afterwards; None where it does not decode to that.
    fn decompress(&mut self, packed: &[u8], raw_len: usize, plain: &mut Vec<u8>) -> Option<()> {
        if self.decompressor.is_none() {
            self.decompressor = Some(Decompressor::new().ok()?);
        }
        let decompressor = self.decompressor.as_mut()?;
        plain.clear();
        plain.reserve_exact(raw_len);
        // The capacity may be larger than asked for; what the frame declares may not.
        if zstd::zstd_safe::get_frame_content_size(packed).ok()?? != u64::try_from(raw_len).ok()? {
            return None;
        }
        let len = decompressor.decompress_to_buffer(packed, plain).ok()?;
        (len == raw_len).then_some(())
    }
}

/// `N` windows of `len` bytes, evenly spread.
fn samples<const N: usize>(plain: &[u8], len: usize) -> impl Iterator<Item = &[u8]> {
    let stride = plain.len() / N;
    (0..N).filter_map(move |number| plain.get(number * stride..)?.get(..len.min(stride)))
}

/// True where all byte values are about equally frequent, as in noise: by the sum of squares of their counts, which for
/// noise is `n + n(n-1)/256` on average. Texts lie at several times that.
fn is_flat(sample: &[u8]) -> bool {
    let mut counts = [0u64; 256];
    for byte in sample {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    let n = u64::try_from(sample.len()).expect("64 bits hold any length");
    let noise = n + n * n.saturating_sub(1) / 256;
    squares <= noise + noise / 16
}

fn compressing(source: io::Error) -> Error {
    Error::io("compressing", "a frame", source)
}

/// The plaintext of a frame's stored bytes, table included; allocates exactly `raw_len` bytes, which the caller limited.
pub(super) fn decompress(codec: Codec, packed: &[u8], raw_len: usize) -> Option<Vec<u8>> {
    match codec {
        Codec::Raw => (packed.len() == raw_len).then(|| packed.to_vec()),
        Codec::Zstd => SCRATCH.with_borrow_mut(|scratch| {
            let mut plain = Vec::new();
            scratch.decompress(packed, raw_len, &mut plain).map(|()| plain)
        }),
    }
}

/// Splits a frame's plaintext: the length of the chunks' bytes and the lengths of the chunks, which cover it.
pub(super) fn parse_table(plain: &[u8]) -> Option<(usize, Vec<u32>)> {
    let (rest, count) = plain.split_last_chunk::<4>()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    if count == 0 || count > FRAME_CHUNKS_MAX {
        return None;
    }
    let data_len = rest.len().checked_sub(count * 4)?;
    let (_, table) = rest.split_at_checked(data_len)?;
    let (lengths, _) = table.as_chunks::<4>();
    let lengths: Vec<u32> = lengths.iter().map(|len| u32::from_le_bytes(*len)).collect();
    let sum: u64 = lengths.iter().map(|len| u64::from(*len)).sum();
    (sum == u64::try_from(data_len).ok()?).then_some((data_len, lengths))
}

/// Decompresses a frame and compares every chunk with its id: finds bad memory and encoder faults before the frame
/// leaves the machine. Runs on any thread.
///
/// # Errors
/// `Damaged` where the frame does not decode to chunks with these ids.
pub fn verify_frame(frame: &CompressedFrame, id_key: &IdKey, ids: &[ChunkId]) -> Result<()> {
    let raw_len = usize::try_from(frame.raw_len).expect("32 bits fit");
    let matches = |plain: &[u8]| {
        let (_, lengths) = parse_table(plain)?;
        let mut rest = plain;
        for (len, id) in lengths.iter().zip(ids) {
            let (chunk, behind) = rest.split_at_checked(usize::try_from(*len).ok()?)?;
            if id_key.id(chunk) != *id {
                return None;
            }
            rest = behind;
        }
        (lengths.len() == ids.len()).then_some(())
    };
    let verdict = match frame.codec {
        Codec::Raw => matches(&frame.bytes),
        Codec::Zstd => SCRATCH.with_borrow_mut(|scratch| {
            let mut plain = std::mem::take(&mut scratch.plain);
            let decoded = scratch.decompress(&frame.bytes, raw_len, &mut plain);
            let verdict = decoded.and_then(|()| matches(&plain));
            scratch.plain = plain;
            scratch.trim();
            verdict
        }),
    };
    verdict.ok_or_else(|| {
        Error::damaged("a frame about to be written", "it does not decode to its chunks")
    })
}
