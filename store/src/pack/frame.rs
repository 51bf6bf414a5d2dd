//! Sealed frames and the key of one pack that seals and opens them.
//!
//! A frame is a masked header, ciphertext and tag. The mask hides where frames begin, so the storage sees no lengths;
//! who holds the pack key can still walk from frame to frame without the footer.

use super::compress::{self, Codec, CompressedFrame};
use super::header::{PACK_HEADER_LEN, PackHeader};
use crate::crypto::{AeadKey, DomainKeys, Key, TAG_LEN, derive};
use crate::error::{Error, Result};
use crate::id::{ChunkKind, ObjectName, PackId, RepositoryId};
use crate::limits::FRAME_BYTES_MAX;
use std::cell::RefCell;
use std::fmt;

/// Kind, codec, two zero bytes, length of plaintext, length of ciphertext.
pub(super) const FRAME_HEADER_LEN: usize = 12;
/// How much longer a stored frame is than its compressed bytes.
pub(super) const FRAME_OVERHEAD: usize = FRAME_HEADER_LEN + TAG_LEN;

const CONTEXT_FRAMES: &str = "stillpoint format 1: pack frame key";
const CONTEXT_MASK: &str = "stillpoint format 1: pack frame header mask";

/// Repository, hash of the pack's header, frame number, frame header.
const DATA_LEN: usize = RepositoryId::LEN + 32 + 4 + FRAME_HEADER_LEN;
const KIND_PADDING: u8 = 255;
/// Sealed bytes that a thread keeps room for between frames.
const SCRATCH_KEPT_BYTES: usize = 4 << 20;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameKind {
    Chunks(ChunkKind),
    /// Zeros, there for the pack's length alone; the last frame of every pack.
    Padding,
}

impl FrameKind {
    pub(super) const fn as_u8(self) -> u8 {
        match self {
            Self::Chunks(ChunkKind::Data) => 0,
            Self::Chunks(ChunkKind::Node) => 1,
            Self::Padding => KIND_PADDING,
        }
    }

    const fn from_u8(number: u8) -> Option<Self> {
        match number {
            KIND_PADDING => Some(Self::Padding),
            other => match chunk_kind(other) {
                Some(kind) => Some(Self::Chunks(kind)),
                None => None,
            },
        }
    }
}

/// The kind of chunk with this number.
pub(super) const fn chunk_kind(number: u8) -> Option<ChunkKind> {
    match number {
        0 => Some(ChunkKind::Data),
        1 => Some(ChunkKind::Node),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FrameHeader {
    kind: FrameKind,
    codec: Codec,
    raw_len: u32,
    stored_len: u32,
}

impl FrameHeader {
    fn encode(&self) -> [u8; FRAME_HEADER_LEN] {
        let [a, b, c, d] = self.raw_len.to_le_bytes();
        let [e, f, g, h] = self.stored_len.to_le_bytes();
        [self.kind.as_u8(), self.codec.as_u8(), 0, 0, a, b, c, d, e, f, g, h]
    }

    /// Parses and limits; nothing in it is authenticated yet.
    fn parse(bytes: [u8; FRAME_HEADER_LEN]) -> Option<Self> {
        let [kind, codec, 0, 0, a, b, c, d, e, f, g, h] = bytes else { return None };
        let header = Self {
            kind: FrameKind::from_u8(kind)?,
            codec: Codec::from_u8(codec)?,
            raw_len: u32::from_le_bytes([a, b, c, d]),
            stored_len: u32::from_le_bytes([e, f, g, h]),
        };
        let limited = |len: u32| usize::try_from(len).is_ok_and(|len| len <= FRAME_BYTES_MAX);
        let fits = limited(header.raw_len)
            && limited(header.stored_len)
            && (header.codec != Codec::Raw || header.raw_len == header.stored_len)
            && (header.kind != FrameKind::Padding || header.codec == Codec::Raw);
        fits.then_some(header)
    }
}

/// The opened content of a frame: chunks one behind the other.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    kind: ChunkKind,
    bytes: Vec<u8>,
    lengths: Vec<u32>,
}

impl Frame {
    /// The kind of all its chunks.
    pub fn kind(&self) -> ChunkKind {
        self.kind
    }

    /// The chunks' plaintext, one behind the other; not yet compared with any id.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the plaintext away.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The chunks in order.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        self.lengths.iter().map_while(move |len| {
            let (chunk, behind) = rest.split_at_checked(usize::try_from(*len).ok()?)?;
            rest = behind;
            Some(chunk)
        })
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("kind", &self.kind)
            .field("bytes", &self.bytes.len())
            .field("chunks", &self.lengths.len())
            .finish()
    }
}

thread_local! {
    static OPENED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The key of one pack: opens its frames on any thread.
pub struct PackKey {
    pack: PackId,
    aead: AeadKey,
    mask: Key,
    data: [u8; DATA_LEN],
}

impl PackKey {
    /// Opens the key in a pack's header, the first [`PACK_HEADER_LEN`] bytes of the pack.
    ///
    /// # Errors
    /// `Damaged`, `Unsupported`; `Invalid` where the keys can only write.
    pub fn open(
        pack: &PackId,
        header: &[u8],
        repository: &RepositoryId,
        keys: &DomainKeys,
    ) -> Result<Self> {
        let header = PackHeader::parse(pack, header)?;
        let secret = header.open_key(pack, repository, keys)?;
        Ok(Self::new(*pack, &header, repository, &secret))
    }

    pub(super) fn new(
        pack: PackId,
        header: &PackHeader,
        repository: &RepositoryId,
        secret: &Key,
    ) -> Self {
        let hash = blake3::hash(&header.bytes);
        let mut data = [0u8; DATA_LEN];
        let parts = repository.as_bytes().iter().chain(hash.as_bytes());
        data.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
        Self {
            pack,
            aead: AeadKey::new(header.aead, &derive(CONTEXT_FRAMES, &[secret.as_ref()])),
            mask: derive(CONTEXT_MASK, &[secret.as_ref()]),
            data,
        }
    }

    /// The pack that the key belongs to.
    pub fn pack(&self) -> &PackId {
        &self.pack
    }

    /// Opens and decompresses frame `number`; `stored` is the whole frame as it lies in the pack. The caller compares
    /// chunks with their ids.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn open_frame(&self, number: u32, stored: &[u8]) -> Result<Frame> {
        let (header, sealed) = self.split(number, stored)?;
        let FrameKind::Chunks(kind) = header.kind else {
            return Err(self.damaged(number, "it is padding"));
        };
        let mut plain = self.open_and_decode(number, &header, sealed)?;
        let (data_len, lengths) = compress::parse_table(&plain)
            .ok_or_else(|| self.damaged(number, "its table does not fit its content"))?;
        plain.truncate(data_len);
        Ok(Frame { kind, bytes: plain, lengths })
    }

    /// Opens frame `number` without decompressing it, so that a rewriter can seal it into another pack as it is.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn open_compressed(
        &self,
        number: u32,
        stored: &[u8],
        chunk_count: u32,
    ) -> Result<CompressedFrame> {
        let (header, sealed) = self.split(number, stored)?;
        if header.kind == FrameKind::Padding {
            return Err(self.damaged(number, "it is padding"));
        }
        let mut bytes = vec![0u8; sealed.len().saturating_sub(TAG_LEN)];
        self.open_into(number, &header, sealed, &mut bytes)?;
        Ok(CompressedFrame { codec: header.codec, raw_len: header.raw_len, chunk_count, bytes })
    }

    /// Walks over a whole pack (or its beginning) by the frames' own headers, without the footer, and gives the chunks'
    /// frames with their numbers. Ends at the padding; for packs whose footer is lost.
    ///
    /// # Errors
    /// `Damaged` at the first frame that does not open; the frames before it have been given.
    pub fn walk(&self, pack: &[u8]) -> impl Iterator<Item = Result<(u32, Frame)>> {
        let mut offset = PACK_HEADER_LEN;
        let mut numbers = 0u32..;
        let mut done = false;
        std::iter::from_fn(move || {
            if done {
                return None;
            }
            let number = numbers.next()?;
            let rest = pack.get(offset..).unwrap_or_default();
            let step = self.walk_step(number, rest);
            done = !matches!(step, Ok(Some(_)));
            let (frame, len) = step
                .transpose()?
                .map_or_else(|error| (Err(error), 0), |(frame, len)| (Ok((number, frame)), len));
            offset += len;
            Some(frame)
        })
    }

    /// The frame at the start of `rest` and its stored length; None at the padding, which is checked.
    fn walk_step(&self, number: u32, rest: &[u8]) -> Result<Option<(Frame, usize)>> {
        let header = self.unmask(number, rest)?;
        let stored_len = usize::try_from(header.stored_len).expect("32 bits fit");
        let len = FRAME_OVERHEAD + stored_len;
        let stored = rest
            .get(..len)
            .ok_or_else(|| self.damaged(number, "it reaches beyond the end of the pack"))?;
        if header.kind == FrameKind::Padding {
            self.open_padding(number, stored)?;
            return Ok(None);
        }
        Ok(Some((self.open_frame(number, stored)?, len)))
    }

    /// Checks the padding, which is the frame behind the last one of the footer, up to the footer.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn open_padding(&self, number: u32, stored: &[u8]) -> Result<()> {
        let (header, sealed) = self.split(number, stored)?;
        if header.kind != FrameKind::Padding {
            return Err(self.damaged(number, "it should be padding"));
        }
        let mut plain = vec![0u8; sealed.len().saturating_sub(TAG_LEN)];
        self.open_into(number, &header, sealed, &mut plain)
    }

    /// Seals a frame into `stored`, replacing its content.
    pub(super) fn seal_frame(
        &self,
        number: u32,
        kind: ChunkKind,
        frame: &CompressedFrame,
        stored: &mut Vec<u8>,
    ) {
        let header = FrameHeader {
            kind: FrameKind::Chunks(kind),
            codec: frame.codec,
            raw_len: frame.raw_len,
            stored_len: u32::try_from(frame.bytes.len()).expect("frames are limited to 16 MiB"),
        };
        self.seal(number, &header, &frame.bytes, stored);
    }

    /// Seals padding of `len` zeros into `stored`, replacing its content.
    pub(super) fn seal_padding(&self, number: u32, len: u32, stored: &mut Vec<u8>) {
        let header = FrameHeader {
            kind: FrameKind::Padding,
            codec: Codec::Raw,
            raw_len: len,
            stored_len: len,
        };
        let zeros = vec![0u8; usize::try_from(len).expect("32 bits fit")];
        self.seal(number, &header, &zeros, stored);
    }

    fn seal(&self, number: u32, header: &FrameHeader, plain: &[u8], stored: &mut Vec<u8>) {
        stored.resize(FRAME_OVERHEAD + plain.len(), 0);
        let (masked, sealed) = stored.split_at_mut(FRAME_HEADER_LEN);
        masked.copy_from_slice(&self.apply_mask(number, header.encode()));
        self.aead.seal(number, &self.associated_data(number, header), plain, sealed);
    }

    /// Compares a sealed frame with what should be in it: finds a fault of the cipher or of memory.
    ///
    /// # Errors
    /// `Damaged`.
    pub(super) fn verify_sealed(
        &self,
        number: u32,
        stored: &[u8],
        frame: &CompressedFrame,
    ) -> Result<()> {
        let (header, sealed) = self.split(number, stored)?;
        let same = self.with_opened(number, &header, sealed, |opened| opened == frame.bytes)?;
        if same && header.codec == frame.codec && header.raw_len == frame.raw_len {
            return Ok(());
        }
        Err(self.damaged(number, "it does not open to what was sealed"))
    }

    fn open_and_decode(&self, number: u32, header: &FrameHeader, sealed: &[u8]) -> Result<Vec<u8>> {
        let raw_len = usize::try_from(header.raw_len).expect("32 bits fit");
        match header.codec {
            Codec::Raw => {
                let mut plain = vec![0u8; raw_len];
                self.open_into(number, header, sealed, &mut plain)?;
                Ok(plain)
            }
            Codec::Zstd => self
                .with_opened(number, header, sealed, |packed| {
                    compress::decompress(Codec::Zstd, packed, raw_len)
                })?
                .ok_or_else(|| self.damaged(number, "it does not decompress")),
        }
    }

    /// Opens into the thread's scratch and lets `look` see it.
    fn with_opened<T>(
        &self,
        number: u32,
        header: &FrameHeader,
        sealed: &[u8],
        look: impl FnOnce(&[u8]) -> T,
    ) -> Result<T> {
        OPENED.with_borrow_mut(|opened| {
            let len = sealed.len().saturating_sub(TAG_LEN);
            if opened.len() < len {
                opened.resize(len, 0);
            }
            let room = opened.get_mut(..len).expect("just made long enough");
            let seen = self.open_into(number, header, sealed, room).map(|()| look(room));
            if opened.capacity() > SCRATCH_KEPT_BYTES {
                *opened = Vec::new();
            }
            seen
        })
    }

    fn open_into(
        &self,
        number: u32,
        header: &FrameHeader,
        sealed: &[u8],
        plain: &mut [u8],
    ) -> Result<()> {
        self.aead
            .open(number, &self.associated_data(number, header), sealed, plain)
            .map_err(|_| self.damaged(number, "its seal does not fit"))
    }

    /// The header and the sealed rest of a stored frame, whose lengths agree.
    fn split<'a>(&self, number: u32, stored: &'a [u8]) -> Result<(FrameHeader, &'a [u8])> {
        let header = self.unmask(number, stored)?;
        let sealed = stored.get(FRAME_HEADER_LEN..).unwrap_or_default();
        let ciphertext_len = sealed.len().checked_sub(TAG_LEN);
        if ciphertext_len != usize::try_from(header.stored_len).ok() {
            return Err(self.damaged(number, "its length is not the one in its header"));
        }
        Ok((header, sealed))
    }

    fn unmask(&self, number: u32, stored: &[u8]) -> Result<FrameHeader> {
        let masked = stored
            .first_chunk::<FRAME_HEADER_LEN>()
            .ok_or_else(|| self.damaged(number, "it is shorter than its header"))?;
        FrameHeader::parse(self.apply_mask(number, *masked))
            .ok_or_else(|| self.damaged(number, "its header has impossible values"))
    }

    /// XOR with keyed BLAKE3 of the frame's number. Each number is used once, and the seal covers the header.
    fn apply_mask(
        &self,
        number: u32,
        mut header: [u8; FRAME_HEADER_LEN],
    ) -> [u8; FRAME_HEADER_LEN] {
        let mask = blake3::keyed_hash(&self.mask, &number.to_le_bytes());
        header.iter_mut().zip(mask.as_bytes()).for_each(|(byte, mask)| *byte ^= *mask);
        header
    }

    fn associated_data(&self, number: u32, header: &FrameHeader) -> [u8; DATA_LEN] {
        let mut data = self.data;
        let number = number.to_le_bytes();
        let header = header.encode();
        let tail = data.iter_mut().skip(RepositoryId::LEN + 32);
        tail.zip(number.iter().chain(&header)).for_each(|(to, from)| *to = *from);
        data
    }

    fn damaged(&self, number: u32, detail: &str) -> Error {
        Error::damaged(ObjectName::Pack(self.pack), format!("frame {number}: {detail}"))
    }
}

impl fmt::Debug for PackKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackKey({}, redacted)", self.pack)
    }
}
