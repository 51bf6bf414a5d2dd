//! Puts the pieces of one file together: a short list in the entry, a long one in a tree.

use super::job::Piece;
use crate::entry::{CONTENT_ITEMS_MAX, Content, ContentItem, ContentSchema};
use stillpoint_store::Result;
use stillpoint_store::tree::{Builder, NodeSink, TreeParams};

/// The list of pieces of one file, as it grows.
pub(crate) struct ContentList<'s> {
    items: Vec<ContentItem>,
    size: u64,
    tree: Option<Builder<'s, ContentSchema>>,
    /// Taken when the list grows too long for the entry.
    spill: Option<(&'s TreeParams, &'s mut dyn NodeSink)>,
    encoded: Vec<u8>,
}

impl<'s> ContentList<'s> {
    /// An empty list that goes to this sink when it grows long.
    pub(crate) fn new(params: &'s TreeParams, sink: &'s mut dyn NodeSink) -> Self {
        Self {
            items: Vec::new(),
            size: 0,
            tree: None,
            spill: Some((params, sink)),
            encoded: Vec::new(),
        }
    }

    /// Appends what a piece holds. Its bytes are the caller's business.
    ///
    /// # Errors
    /// Those of the sink.
    pub(crate) fn push(&mut self, piece: &Piece) -> Result<()> {
        match piece {
            Piece::Hole(len) => self.push_item(ContentItem::Hole { len: *len }),
            Piece::Data(batch) => batch.chunks.iter().try_for_each(|chunk| {
                self.push_item(ContentItem::Data { id: chunk.id, len: chunk.len })
            }),
        }
    }

    /// The content and its size in bytes.
    ///
    /// # Errors
    /// Those of the sink.
    pub(crate) fn finish(self) -> Result<(Content, u64)> {
        let content = match self.tree {
            Some(tree) => Content::Tree(tree.finish()?),
            None => Content::Chunks(self.items),
        };
        Ok((content, self.size))
    }

    fn push_item(&mut self, item: ContentItem) -> Result<()> {
        self.size += item.len_bytes();
        if self.tree.is_none() {
            if self.items.len() < CONTENT_ITEMS_MAX {
                self.items.push(item);
                return Ok(());
            }
            let (params, sink) = self.spill.take().expect("there is one tree for one list");
            self.tree = Some(Builder::new(params, sink));
            for item in std::mem::take(&mut self.items) {
                self.append(item)?;
            }
        }
        self.append(item)
    }

    fn append(&mut self, item: ContentItem) -> Result<()> {
        self.encoded.clear();
        item.encode(&mut self.encoded);
        self.tree.as_mut().expect("made before").push(&[], &self.encoded)
    }
}
