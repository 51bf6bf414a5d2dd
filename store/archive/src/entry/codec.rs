//! The byte form of entries and content items, version 1.
//!
//! Hand-written because a manifest has millions of entries: what change detection compares stands first, so that
//! [`EntryHead::decode`] looks at some forty bytes and allocates nothing. FORMAT.md has the table.

use super::input::{Input, XATTRS_MAX};
use super::{Content, ContentItem, ENTRY_BYTES_MAX, Entry, EntryKind};
use stillpoint_store::{ChunkId, Error, Result, Timestamp};

/// The newest version of the byte form, and the only one so far.
const VERSION: u8 = 1;
const RACY: u8 = 0x10;
const HAS_BTIME: u8 = 0x20;
const HAS_XATTRS: u8 = 0x40;
const HAS_FLAGS: u8 = 0x80;

/// The kind of an entry without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum KindCode {
    /// A file whose content stands in the entry.
    FileInline = 0,
    /// A file with a short list of pieces.
    FileChunks = 1,
    /// A file with a tree of pieces.
    FileTree = 2,
    /// A directory.
    Directory = 3,
    /// A symbolic link.
    Symlink = 4,
    /// A named pipe.
    Fifo = 5,
    /// A Unix socket.
    Socket = 6,
    /// A character device.
    CharDevice = 7,
    /// A block device.
    BlockDevice = 8,
}

impl KindCode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::FileInline,
            1 => Self::FileChunks,
            2 => Self::FileTree,
            3 => Self::Directory,
            4 => Self::Symlink,
            5 => Self::Fifo,
            6 => Self::Socket,
            7 => Self::CharDevice,
            8 => Self::BlockDevice,
            _ => return None,
        })
    }

    /// True for the three forms of regular files.
    pub fn is_file(self) -> bool {
        matches!(self, Self::FileInline | Self::FileChunks | Self::FileTree)
    }
}

/// The part of an entry that change detection looks at; decoding it allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryHead {
    /// What it is.
    pub kind: KindCode,
    /// See [`Entry::racy`].
    pub racy: bool,
    /// See [`Entry::size`].
    pub size: u64,
    /// See [`Entry::mtime`].
    pub mtime: Timestamp,
    /// See [`Entry::ctime`].
    pub ctime: Timestamp,
    /// See [`Entry::inode`].
    pub inode: u64,
    /// See [`Entry::device`].
    pub device: u64,
}

impl EntryHead {
    /// Reads the head of an encoded entry.
    ///
    /// # Errors
    /// `Damaged`, or `Unsupported` for a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Ok(read_head(&mut Input { rest: bytes })?.0)
    }
}

impl Entry {
    /// Appends the byte form to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut flags = kind_code(&self.kind) as u8;
        for (set, bit) in [
            (self.racy, RACY),
            (self.btime.is_some(), HAS_BTIME),
            (!self.xattrs.is_empty(), HAS_XATTRS),
            (self.flags != 0, HAS_FLAGS),
        ] {
            flags |= if set { bit } else { 0 };
        }
        out.extend_from_slice(&[VERSION, flags]);
        put_varint(out, self.size);
        put_time(out, self.mtime, 0);
        put_time(out, self.ctime, self.mtime.seconds);
        put_varint(out, self.inode);
        put_varint(out, self.device);
        for number in [self.mode, self.uid, self.gid, self.nlink] {
            put_varint(out, number.into());
        }
        put_bytes(out, &self.user);
        put_bytes(out, &self.group);
        if let Some(btime) = self.btime {
            put_time(out, btime, self.mtime.seconds);
        }
        if self.flags != 0 {
            put_varint(out, self.flags.into());
        }
        if !self.xattrs.is_empty() {
            put_len(out, self.xattrs.len());
            for (name, value) in &self.xattrs {
                put_bytes(out, name);
                put_bytes(out, value);
            }
        }
        put_kind(out, &self.kind);
    }

    /// The byte form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        self.encode(&mut out);
        out
    }

    /// Parses the byte form; every length is checked before anything is allocated.
    ///
    /// # Errors
    /// `Damaged`; `Unsupported` for a newer version; `LimitExceeded` beyond [`ENTRY_BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(Error::LimitExceeded {
                object: "manifest entry".into(),
                what: "length",
                found: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
                limit: u64::try_from(ENTRY_BYTES_MAX).unwrap_or(u64::MAX),
            });
        }
        let mut input = Input { rest: bytes };
        let (head, flags) = read_head(&mut input)?;
        let mut entry = Self {
            mode: input.u32()?,
            uid: input.u32()?,
            gid: input.u32()?,
            nlink: input.u32()?,
            user: input.bytes()?.to_vec(),
            group: input.bytes()?.to_vec(),
            mtime: head.mtime,
            ctime: head.ctime,
            inode: head.inode,
            device: head.device,
            size: head.size,
            racy: head.racy,
            ..Self::default()
        };
        if flags & HAS_BTIME != 0 {
            entry.btime = Some(input.time(head.mtime.seconds)?);
        }
        if flags & HAS_FLAGS != 0 {
            entry.flags = input.u32()?;
        }
        if flags & HAS_XATTRS != 0 {
            entry.xattrs = input.xattrs()?;
        }
        entry.kind = input.kind(head.kind, head.size)?;
        input.end()?;
        Ok(entry)
    }
}

impl ContentItem {
    /// Appends the byte form: a varint with the length and, in its lowest bit, 1 for a hole; then the id of data.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Data { id, len } => {
                put_varint(out, u64::from(*len) << 1);
                out.extend_from_slice(id.as_bytes());
            }
            Self::Hole { len } => put_varint(out, len << 1 | 1),
        }
    }

    /// Parses one item that fills `bytes`.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut input = Input { rest: bytes };
        let item = input.item()?;
        input.end()?;
        Ok(item)
    }
}

/// What an encoded entry refers to, without building the entry: chunks of its content and the root of its tree.
pub(super) fn references(bytes: &[u8], out: &mut Vec<ChunkId>) -> Result<()> {
    let mut input = Input { rest: bytes };
    let (head, flags) = read_head(&mut input)?;
    if !matches!(head.kind, KindCode::FileChunks | KindCode::FileTree) {
        return Ok(());
    }
    for _ in 0..4 {
        input.u32()?;
    }
    input.bytes()?;
    input.bytes()?;
    if flags & HAS_BTIME != 0 {
        input.time(0)?;
    }
    if flags & HAS_FLAGS != 0 {
        input.u32()?;
    }
    if flags & HAS_XATTRS != 0 {
        for _ in 0..input.count(XATTRS_MAX)? {
            input.bytes()?;
            input.bytes()?;
        }
    }
    match input.kind(head.kind, head.size)? {
        EntryKind::File(Content::Chunks(items)) => {
            out.extend(items.iter().filter_map(|item| match item {
                ContentItem::Data { id, .. } => Some(*id),
                ContentItem::Hole { .. } => None,
            }));
        }
        EntryKind::File(Content::Tree(root)) => out.push(root.id),
        _ => {}
    }
    Ok(())
}

fn kind_code(kind: &EntryKind) -> KindCode {
    match kind {
        EntryKind::File(Content::Inline(_)) => KindCode::FileInline,
        EntryKind::File(Content::Chunks(_)) => KindCode::FileChunks,
        EntryKind::File(Content::Tree(_)) => KindCode::FileTree,
        EntryKind::Directory => KindCode::Directory,
        EntryKind::Symlink { .. } => KindCode::Symlink,
        EntryKind::Fifo => KindCode::Fifo,
        EntryKind::Socket => KindCode::Socket,
        EntryKind::CharDevice { .. } => KindCode::CharDevice,
        EntryKind::BlockDevice { .. } => KindCode::BlockDevice,
    }
}

fn put_kind(out: &mut Vec<u8>, kind: &EntryKind) {
    match kind {
        EntryKind::File(Content::Inline(bytes)) => put_bytes(out, bytes),
        EntryKind::File(Content::Chunks(items)) => {
            put_len(out, items.len());
            items.iter().for_each(|item| item.encode(out));
        }
        EntryKind::File(Content::Tree(root)) => {
            out.extend_from_slice(root.id.as_bytes());
            out.push(root.level);
            put_varint(out, root.entries);
            put_varint(out, root.bytes);
        }
        EntryKind::Symlink { target } => put_bytes(out, target),
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            put_varint(out, u64::from(*major));
            put_varint(out, u64::from(*minor));
        }
        EntryKind::Directory | EntryKind::Fifo | EntryKind::Socket => {}
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).expect("seven bits"));
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    put_varint(out, u64::try_from(len).expect("a usize fits into 64 bits"));
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Seconds as a zigzag varint of the wrapping difference to `base`; nanoseconds as four bytes, little endian.
fn put_time(out: &mut Vec<u8>, time: Timestamp, base: i64) {
    let delta = time.seconds.wrapping_sub(base);
    put_varint(out, (delta << 1 ^ delta >> 63).cast_unsigned());
    out.extend_from_slice(&time.nanos.to_le_bytes());
}

pub(super) fn damaged(detail: &str) -> Error {
    Error::damaged("manifest entry", detail)
}

fn read_head(input: &mut Input<'_>) -> Result<(EntryHead, u8)> {
    let version = input.byte()?;
    if version != VERSION {
        return Err(Error::Unsupported {
            object: "manifest entry".into(),
            found: version.into(),
            supported: VERSION.into(),
        });
    }
    let flags = input.byte()?;
    let kind = KindCode::from_bits(flags & 0x0f).ok_or_else(|| damaged("unknown kind"))?;
    let size = input.varint()?;
    let mtime = input.time(0)?;
    let ctime = input.time(mtime.seconds)?;
    let (inode, device) = (input.varint()?, input.varint()?);
    let racy = flags & RACY != 0;
    if !kind.is_file() && size != 0 {
        return Err(damaged("a size where there is no content"));
    }
    Ok((EntryHead { kind, racy, size, mtime, ctime, inode, device }, flags))
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
