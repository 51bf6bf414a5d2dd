//! The content of one file of the source as a stream: data for a chunker, holes in between.

use super::fetch::{Chunks, chunk_of, fetch};
use crate::entry::{Content, ContentItem, ContentSchema, Entry, EntryKind};
use crate::pipeline::HEAD_BYTES;
use std::collections::VecDeque;
use std::io::{self, Read};
use stillpoint_store::tree::{Cursor, Tree};
use stillpoint_store::{Error, Reader, Result};

/// Content that is read ahead, bytes.
const AHEAD_BYTES: u64 = 16 << 20;
/// Pieces that are read ahead.
const AHEAD_ITEMS: usize = 4096;

/// The pieces of a content list, in order.
pub(super) enum Items<'a> {
    List(std::vec::IntoIter<ContentItem>),
    Tree(Cursor<'a, ContentSchema>),
}

impl<'a> Items<'a> {
    /// The pieces of this file; None where the content stands in the entry itself.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub(super) fn of(entry: &Entry, reader: &'a Reader) -> Result<Option<Self>> {
        let EntryKind::File(content) = &entry.kind else { return Ok(None) };
        Ok(match content {
            Content::Inline(_) => None,
            Content::Chunks(items) => Some(Self::List(items.clone().into_iter())),
            Content::Tree(root) => {
                Some(Self::Tree(Tree::<ContentSchema>::open(*root, reader).iter()?))
            }
        })
    }

    /// The next piece.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<ContentItem>> {
        match self {
            Self::List(items) => Ok(items.next()),
            Self::Tree(cursor) => match cursor.peek() {
                None => Ok(None),
                Some((_, value)) => {
                    let item = ContentItem::decode(value)?;
                    cursor.advance()?;
                    Ok(Some(item))
                }
            },
        }
    }
}

/// A long file on its way. As a [`Read`] it gives data up to the next hole or the end.
pub(super) struct Stream<'a> {
    reader: &'a Reader,
    threads: usize,
    items: Items<'a>,
    /// Pieces that were taken from the list, whose chunks were read.
    ahead: VecDeque<ContentItem>,
    chunks: Chunks,
    /// The chunk that is being given, and how much of it was.
    current: Vec<u8>,
    given: usize,
    /// Why a read failed.
    failure: Option<Error>,
}

impl<'a> Stream<'a> {
    pub(super) fn new(reader: &'a Reader, items: Items<'a>, threads: usize) -> Self {
        Self {
            reader,
            threads,
            items,
            ahead: VecDeque::new(),
            chunks: Chunks::new(),
            current: Vec::new(),
            given: 0,
            failure: None,
        }
    }

    /// The first bytes of the content; nothing is taken out.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn head(&mut self) -> Result<Vec<u8>> {
        self.look_ahead()?;
        head(self.ahead.iter(), &self.chunks)
    }

    /// Length of the hole that comes next; 0 where data comes. None at the end.
    ///
    /// # Errors
    /// When what comes cannot be read, or a read of the data before it failed.
    pub(super) fn hole(&mut self) -> Result<Option<u64>> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        self.look_ahead()?;
        match self.ahead.front() {
            None => Ok(None),
            Some(ContentItem::Data { .. }) => Ok(Some(0)),
            Some(ContentItem::Hole { len }) => {
                let len = *len;
                self.ahead.pop_front();
                Ok(Some(len))
            }
        }
    }

    /// Makes sure that the next piece is there, if there is one.
    fn look_ahead(&mut self) -> Result<()> {
        if !self.ahead.is_empty() {
            return Ok(());
        }
        let (mut bytes, mut ids) = (0, Vec::new());
        while bytes < AHEAD_BYTES && self.ahead.len() < AHEAD_ITEMS {
            let Some(item) = self.items.next()? else { break };
            if let ContentItem::Data { id, len } = item {
                bytes += u64::from(len);
                ids.push(id);
            }
            self.ahead.push_back(item);
        }
        self.chunks = fetch(self.reader, ids, self.threads)?;
        Ok(())
    }

    fn give(&mut self, buffer: &mut [u8]) -> Result<usize> {
        while self.given == self.current.len() {
            self.look_ahead()?;
            let Some(ContentItem::Data { id, len }) = self.ahead.front() else { return Ok(0) };
            let chunk = chunk_of(&self.chunks, id, *len)?;
            self.current.clear();
            self.current.extend_from_slice(chunk);
            self.given = 0;
            self.ahead.pop_front();
        }
        let mut rest = self.current.get(self.given..).unwrap_or_default();
        let count = rest.read(buffer).expect("memory can be read");
        self.given += count;
        Ok(count)
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.give(buffer).map_err(|error| {
            self.failure = Some(error);
            io::Error::other("the source cannot be read")
        })
    }
}

/// The first bytes of what these pieces give, as a backup looks at them: holes are zeros.
pub(super) fn head<'i>(
    items: impl Iterator<Item = &'i ContentItem>,
    chunks: &Chunks,
) -> Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    for item in items {
        let room = HEAD_BYTES - head.len();
        match item {
            _ if room == 0 => break,
            ContentItem::Data { id, len } => {
                let chunk = chunk_of(chunks, id, *len)?;
                head.extend_from_slice(chunk.get(..room).unwrap_or(chunk));
            }
            ContentItem::Hole { len } => {
                let len = usize::try_from(*len).unwrap_or(usize::MAX).min(room);
                head.resize(head.len() + len, 0);
            }
        }
    }
    Ok(head)
}
