//! The content of one file as a stream, in order.

use crate::entry::{Content, ContentItem, ContentSchema, Entry, EntryKind};
use crate::restore::for_each;
use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use stillpoint_store::index::Location;
use stillpoint_store::tree::Tree;
use stillpoint_store::{ChunkKind, Error, PackId, Reader, Result};

/// Most content that is read ahead, bytes; a single chunk may exceed it.
const AHEAD_BYTES_MAX: u64 = 16 << 20;
/// Most content items that are read ahead.
const AHEAD_ITEMS_MAX: usize = 1024;

/// Writes a file's content; holes come as zeros. Gives the number of bytes.
///
/// # Errors
/// `Missing` or `Damaged` when a chunk cannot be read: what was written until then is right; `Io` when `out` fails.
pub fn write_content(reader: &Reader, entry: &Entry, out: &mut dyn Write) -> Result<u64> {
    let EntryKind::File(content) = &entry.kind else {
        return Err(Error::Invalid("only files have content".into()));
    };
    let mut ahead = Ahead { reader, items: Vec::new(), bytes: 0, written: 0, out };
    match content {
        Content::Inline(bytes) => ahead.put(bytes)?,
        Content::Chunks(items) => {
            for item in items {
                ahead.push(*item)?;
            }
        }
        Content::Tree(root) => {
            let tree = Tree::<ContentSchema>::open(*root, reader);
            let mut cursor = tree.iter()?;
            while let Some((_, value)) = cursor.peek() {
                ahead.push(ContentItem::decode(value)?)?;
                cursor.advance()?;
            }
        }
    }
    ahead.flush()?;
    if ahead.written == entry.size {
        Ok(ahead.written)
    } else {
        Err(Error::damaged("manifest", "a content list does not give its file's size"))
    }
}

struct Ahead<'a> {
    reader: &'a Reader,
    items: Vec<ContentItem>,
    bytes: u64,
    written: u64,
    out: &'a mut dyn Write,
}

impl Ahead<'_> {
    fn push(&mut self, item: ContentItem) -> Result<()> {
        if let ContentItem::Data { len, .. } = item {
            self.bytes += u64::from(len);
        }
        self.items.push(item);
        if self.bytes >= AHEAD_BYTES_MAX || self.items.len() >= AHEAD_ITEMS_MAX {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|error| Error::io("writing", "output", error))?;
        self.written += u64::try_from(bytes.len()).expect("a usize fits into 64 bits");
        Ok(())
    }

    fn put_zeros(&mut self, mut count: u64) -> Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        while count > 0 {
            let step = usize::try_from(count).unwrap_or(usize::MAX).min(ZEROS.len());
            let zeros = ZEROS.get(..step).unwrap_or(&ZEROS);
            self.put(zeros)?;
            count -= u64::try_from(step).expect("a usize fits into 64 bits");
        }
        Ok(())
    }

    /// Decodes the frames of what was collected, each once and on all cores, and writes it in order.
    fn flush(&mut self) -> Result<()> {
        self.bytes = 0;
        let items = std::mem::take(&mut self.items);
        let ids: Vec<_> = items
            .iter()
            .filter_map(|item| match item {
                ContentItem::Data { id, .. } => Some(*id),
                ContentItem::Hole { .. } => None,
            })
            .collect();
        let places = self.reader.locate(&ids)?;
        let frames = self.frames(&places);
        let mut places = places.into_iter();
        for item in items {
            match item {
                ContentItem::Hole { len } => self.put_zeros(len)?,
                ContentItem::Data { id, .. } => {
                    let place = places.next().flatten();
                    let place = place.ok_or_else(|| Error::missing(format!("chunk {id}")))?;
                    let frame = frames.get(&(place.pack, place.frame));
                    let chunk = frame
                        .map(|frame| self.reader.chunk_in(frame, &place, &id, ChunkKind::Data));
                    match chunk {
                        Some(Ok(bytes)) => self.put(bytes)?,
                        // Once more, and from wherever else it lies.
                        _ => self.put(&self.reader.chunk(&id)?)?,
                    }
                }
            }
        }
        Ok(())
    }

    fn frames(&self, places: &[Option<Location>]) -> HashMap<(PackId, u32), Vec<u8>> {
        let mut wanted: Vec<Location> = places.iter().flatten().copied().collect();
        wanted.sort_by_key(|place| (place.pack, place.frame));
        wanted.dedup_by_key(|place| (place.pack, place.frame));
        let frames = Mutex::new(HashMap::new());
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        for_each(threads, &wanted, |place| {
            if let Ok(frame) = self.reader.read_frame(place, ChunkKind::Data) {
                let mut frames = frames.lock().unwrap_or_else(PoisonError::into_inner);
                frames.insert((place.pack, place.frame), frame);
            }
        });
        frames.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
