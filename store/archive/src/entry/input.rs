//! Reading the fields of encoded entries and content items; every length is checked before anything is allocated.

use super::codec::{KindCode, damaged};
use super::{CONTENT_ITEMS_MAX, Content, ContentItem, EntryKind, INLINE_BYTES_MAX};
use stillpoint_store::limits::{CHUNK_BYTES_MAX, TREE_LEVEL_MAX};
use stillpoint_store::tree::Root;
use stillpoint_store::{ChunkId, Result, Timestamp};

/// Most extended attributes of one entry.
pub(super) const XATTRS_MAX: u64 = 1 << 16;

/// What is left to read of one entry or item.
pub(super) struct Input<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub(super) fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| damaged("too short"))?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| damaged("too short"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(<[u8; N]>::try_from(self.take(N)?).expect("took N bytes"))
    }

    /// At most ten bytes, and only the shortest form, so that equal entries have equal bytes.
    pub(super) fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift != 0 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(damaged("malformed number"))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        u32::try_from(self.varint()?).map_err(|_| damaged("number out of range"))
    }

    pub(super) fn count(&mut self, limit: u64) -> Result<usize> {
        let count = self.varint()?;
        if count > limit {
            return Err(damaged("count beyond its limit"));
        }
        usize::try_from(count).map_err(|_| damaged("count beyond its limit"))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = usize::try_from(self.varint()?).map_err(|_| damaged("too short"))?;
        self.take(len)
    }

    pub(super) fn time(&mut self, base: i64) -> Result<Timestamp> {
        let zigzag = self.varint()?;
        let delta = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
        let nanos = u32::from_le_bytes(self.array()?);
        if nanos >= 1_000_000_000 {
            return Err(damaged("a time with too many nanoseconds"));
        }
        Ok(Timestamp { seconds: base.wrapping_add(delta), nanos })
    }

    pub(super) fn xattrs(&mut self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let count = self.count(XATTRS_MAX)?;
        if count == 0 {
            return Err(damaged("an empty list of attributes"));
        }
        let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for _ in 0..count {
            let name = self.bytes()?.to_vec();
            if xattrs.last().is_some_and(|(last, _)| *last >= name) {
                return Err(damaged("attributes out of order"));
            }
            xattrs.push((name, self.bytes()?.to_vec()));
        }
        Ok(xattrs)
    }

    pub(super) fn item(&mut self) -> Result<ContentItem> {
        let number = self.varint()?;
        let (len, is_hole) = (number >> 1, number & 1 == 1);
        if len == 0 {
            return Err(damaged("an empty piece of content"));
        }
        if is_hole {
            return Ok(ContentItem::Hole { len });
        }
        let len = u32::try_from(len).map_err(|_| damaged("a chunk beyond its limit"))?;
        if usize::try_from(len).is_ok_and(|len| len > CHUNK_BYTES_MAX) {
            return Err(damaged("a chunk beyond its limit"));
        }
        Ok(ContentItem::Data { id: ChunkId::from_bytes(self.array()?), len })
    }

    pub(super) fn kind(&mut self, code: KindCode, size: u64) -> Result<EntryKind> {
        Ok(match code {
            KindCode::FileInline => {
                let bytes = self.bytes()?;
                if bytes.len() > INLINE_BYTES_MAX || u64::try_from(bytes.len()) != Ok(size) {
                    return Err(damaged("inline content does not fit its size"));
                }
                EntryKind::File(Content::Inline(bytes.to_vec()))
            }
            KindCode::FileChunks => EntryKind::File(Content::Chunks(self.items(size)?)),
            KindCode::FileTree => EntryKind::File(Content::Tree(self.root(size)?)),
            KindCode::Directory => EntryKind::Directory,
            KindCode::Symlink => EntryKind::Symlink { target: self.bytes()?.to_vec() },
            KindCode::Fifo => EntryKind::Fifo,
            KindCode::Socket => EntryKind::Socket,
            KindCode::CharDevice => {
                EntryKind::CharDevice { major: self.u32()?, minor: self.u32()? }
            }
            KindCode::BlockDevice => {
                EntryKind::BlockDevice { major: self.u32()?, minor: self.u32()? }
            }
        })
    }

    pub(super) fn items(&mut self, size: u64) -> Result<Vec<ContentItem>> {
        let limit = u64::try_from(CONTENT_ITEMS_MAX).expect("a usize fits into 64 bits");
        let mut items = Vec::new();
        let mut total = 0u64;
        for _ in 0..self.count(limit)? {
            let item = self.item()?;
            total = total
                .checked_add(item.len_bytes())
                .ok_or_else(|| damaged("content does not fit its size"))?;
            items.push(item);
        }
        if total != size {
            return Err(damaged("content does not fit its size"));
        }
        Ok(items)
    }

    pub(super) fn root(&mut self, size: u64) -> Result<Root> {
        let root = Root {
            id: ChunkId::from_bytes(self.array()?),
            level: self.byte()?,
            entries: self.varint()?,
            bytes: self.varint()?,
        };
        if root.bytes != size || root.level > TREE_LEVEL_MAX {
            return Err(damaged("content does not fit its size"));
        }
        Ok(root)
    }

    pub(super) fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(damaged("bytes after the end")) }
    }
}
