//! Where a pipeline's entries go: into a new manifest, or as changes into that of an earlier snapshot.
//!
//! Both take entries in ascending order of keys and give the same bytes for the same entries.

use crate::change::parent::advance_to;
use crate::entry::{EntryHead, KindCode, ManifestSchema};
use crate::path;
use std::collections::BTreeMap;
use stillpoint_store::Result;
use stillpoint_store::tree::{
    Builder, Cursor, Editor, NodeSink, NodeSource, Root, Tree, TreeParams,
};

/// Takes entries in ascending order of keys.
pub(crate) trait Manifest {
    /// A path and its entry.
    ///
    /// # Errors
    /// Those of the store.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;

    /// A path that is not in the manifest because something went wrong; what lies below it says so itself.
    ///
    /// # Errors
    /// Those of the store.
    fn leave_out(&mut self, key: &[u8]) -> Result<()>;

    /// A path that is not there any more, nor anything below it.
    ///
    /// # Errors
    /// Those of the store.
    fn gone(&mut self, key: &[u8]) -> Result<()>;

    /// Says what will be true of a path that has not come yet.
    fn announce(&mut self, key: &[u8], mark: Mark);

    /// The manifest, and by how much it has grown where it was made from another one.
    ///
    /// # Errors
    /// Those of the store.
    fn finish(self: Box<Self>) -> Result<(Root, Option<Grown>)>;
}

/// What is known of a path beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Everything below it will come; what does not come is not there.
    Tree,
    /// It is not there, nor anything below it.
    Gone,
}

/// How many entries of each kind were added, less those that were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Grown {
    pub(crate) files: i64,
    pub(crate) directories: i64,
    pub(crate) others: i64,
}

impl Grown {
    fn count(&mut self, kind: KindCode, by: i64) {
        match kind {
            kind if kind.is_file() => self.files += by,
            KindCode::Directory => self.directories += by,
            _ => self.others += by,
        }
    }
}

/// A manifest from nothing.
pub(crate) struct Anew<'a>(Builder<'a, ManifestSchema>);

impl<'a> Anew<'a> {
    /// A manifest whose nodes go to this sink.
    pub(crate) fn new(params: &TreeParams, sink: &'a mut dyn NodeSink) -> Self {
        Self(Builder::new(params, sink))
    }
}

impl Manifest for Anew<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.0.push(key, value)
    }

    fn leave_out(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn gone(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn announce(&mut self, _: &[u8], _: Mark) {}

    fn finish(self: Box<Self>) -> Result<(Root, Option<Grown>)> {
        Ok((self.0.finish()?, None))
    }
}

/// Changes to the manifest of an earlier snapshot: k of them read and write O(k log n) nodes.
pub(crate) struct Changed<'a> {
    editor: Editor<'a, ManifestSchema>,
    /// Stands behind everything that is settled.
    base: Cursor<'a, ManifestSchema>,
    /// What was announced and has not come yet.
    marks: BTreeMap<Vec<u8>, Mark>,
    /// Up to this key (None: to the end) everything of the base goes that is not put again.
    clearing: Option<Option<Vec<u8>>>,
    grown: Grown,
}

impl<'a> Changed<'a> {
    /// Changes to the manifest `base`, which `source` has; new nodes go to `sink`.
    ///
    /// # Errors
    /// Those of the source.
    pub(crate) fn new(
        base: Root,
        source: &'a dyn NodeSource,
        params: &TreeParams,
        sink: &'a mut dyn NodeSink,
    ) -> Result<Self> {
        let mut cursor = Tree::<ManifestSchema>::open(base, source).cursor();
        cursor.seek(b"")?;
        Ok(Self {
            editor: Editor::new(base, params, source, sink),
            base: cursor,
            marks: BTreeMap::new(),
            clearing: None,
            grown: Grown::default(),
        })
    }

    /// Settles everything before `key`.
    fn advance(&mut self, key: Option<&[u8]>) -> Result<()> {
        loop {
            let due = self.marks.first_entry().filter(|first| {
                let at: &[u8] = first.key();
                key.is_none_or(|key| at < key)
            });
            let Some((at, mark)) = due.map(|due| due.remove_entry()) else { break };
            self.clear_until(Some(&at))?;
            if mark == Mark::Gone {
                self.remove(&at)?;
            }
            self.clear_below(&at)?;
        }
        self.clear_until(key)
    }

    /// Removes what is being cleared and comes before `key`.
    fn clear_until(&mut self, key: Option<&[u8]>) -> Result<()> {
        let Some(end) = &self.clearing else { return Ok(()) };
        let is_before = |at: &[u8]| {
            end.as_ref().is_none_or(|end| at < end.as_slice()) && key.is_none_or(|key| at < key)
        };
        while let Some((at, value)) = self.base.peek()
            && is_before(at)
        {
            self.grown.count(EntryHead::decode(value)?.kind, -1);
            self.editor.remove(at)?;
            self.base.advance()?;
        }
        let is_over = match (key, end) {
            (None, _) => true,
            (Some(key), Some(end)) => key >= end.as_slice(),
            (Some(_), None) => false,
        };
        if is_over {
            self.clearing = None;
        }
        Ok(())
    }

    /// Removes one key, which everything that came was before.
    fn remove(&mut self, key: &[u8]) -> Result<()> {
        advance_to(&mut self.base, key)?;
        if let Some((_, value)) = self.base.peek().filter(|(found, _)| *found == key) {
            self.grown.count(EntryHead::decode(value)?.kind, -1);
            self.editor.remove(key)?;
            self.base.advance()?;
        }
        Ok(())
    }

    /// From now on clears what lies below `key`, which is settled itself.
    fn clear_below(&mut self, key: &[u8]) -> Result<()> {
        // What lies in what is being cleared is being cleared.
        if self.clearing.is_none() {
            let (start, end) = path::below(key);
            advance_to(&mut self.base, &start)?;
            self.clearing = Some(end);
        }
        Ok(())
    }
}

impl Manifest for Changed<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.advance(Some(key))?;
        advance_to(&mut self.base, key)?;
        let kind = EntryHead::decode(value)?.kind;
        let before = self.base.peek().filter(|(found, _)| *found == key);
        if let Some((_, old)) = before {
            if old != value {
                self.grown.count(EntryHead::decode(old)?.kind, -1);
                self.grown.count(kind, 1);
                self.editor.put(key, value)?;
            }
            self.base.advance()?;
        } else {
            self.grown.count(kind, 1);
            self.editor.put(key, value)?;
        }
        if self.marks.remove(key).is_some() || kind != KindCode::Directory {
            self.clear_below(key)?;
        }
        Ok(())
    }

    fn leave_out(&mut self, key: &[u8]) -> Result<()> {
        self.advance(Some(key))?;
        self.remove(key)?;
        if self.marks.remove(key).is_some() {
            self.clear_below(key)?;
        }
        Ok(())
    }

    fn gone(&mut self, key: &[u8]) -> Result<()> {
        self.marks.remove(key);
        self.advance(Some(key))?;
        self.remove(key)?;
        self.clear_below(key)
    }

    fn announce(&mut self, key: &[u8], mark: Mark) {
        self.marks.insert(key.to_vec(), mark);
    }

    fn finish(mut self: Box<Self>) -> Result<(Root, Option<Grown>)> {
        self.advance(None)?;
        Ok((self.editor.finish()?, Some(self.grown)))
    }
}
