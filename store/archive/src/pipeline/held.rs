//! Saving what is held: nothing is looked at any more, only content is read from whoever has it.

use super::job::{Body, Failure, Piece, Report, Saved};
use super::reading::{Emit, Readers, failed, head, is_long, len_u64, read_range};
use crate::entry::{Content, EntryKind, INLINE_BYTES_MAX};
use crate::held::{Held, HeldContent, HeldFile, HeldKind};
use crate::meta;

impl Readers {
    /// Saves one path as it is held. Pieces of a long file go to `emit`.
    pub(super) fn save_held(&self, name: &[u8], held: &Held, emit: Emit<'_>) -> Report {
        let (kind, body, size) = match &held.kind {
            HeldKind::File(content) => {
                let body = self.held_content(name, held, content, emit)?;
                (EntryKind::File(Content::Inline(Vec::new())), body, held.stat.size)
            }
            HeldKind::Symlink(target) => {
                (EntryKind::Symlink { target: target.clone() }, Body::Nothing, 0)
            }
            HeldKind::Other => {
                let kind = meta::plain_kind(&held.stat).ok_or("is of an unknown kind")?;
                (kind, Body::Nothing, 0)
            }
        };
        let mut entry = meta::entry_from(&held.stat, kind, &self.names);
        entry.size = size;
        entry.racy = held.racy;
        entry.xattrs.clone_from(&held.xattrs);
        entry.flags = held.flags;
        Ok(Saved { entry, body, note: held.note.clone() })
    }

    fn held_content(
        &self,
        name: &[u8],
        held: &Held,
        content: &HeldContent,
        emit: Emit<'_>,
    ) -> Result<Body, Failure> {
        let size = held.stat.size;
        match content {
            HeldContent::Memory(bytes) => self.held_bytes(name, bytes, size, emit),
            HeldContent::File(file) => {
                let body = self.held_file(name, held, &**file, emit)?;
                file.settle().map_err(failed)?;
                Ok(body)
            }
        }
    }

    fn held_bytes(
        &self,
        name: &[u8],
        bytes: &[u8],
        size: u64,
        emit: Emit<'_>,
    ) -> Result<Body, Failure> {
        if len_u64(bytes.len()) != size {
            return Err(INCOMPLETE.into());
        }
        if bytes.len() <= INLINE_BYTES_MAX {
            return Ok(Body::Inline(bytes.to_vec()));
        }
        let chunker = self.chunkers.choose(name, Some(size), head(bytes));
        let piece = Piece::Data(chunker.chunk_slice(bytes.to_vec()));
        if size > super::reading::SMALL_FILE_BYTES_MAX {
            return if emit(piece) { Ok(Body::Streamed) } else { Err("stopped".into()) };
        }
        Ok(Body::Pieces(vec![piece]))
    }

    fn held_file(
        &self,
        name: &[u8],
        held: &Held,
        file: &dyn HeldFile,
        emit: Emit<'_>,
    ) -> Result<Body, Failure> {
        let size = held.stat.size;
        let mut pieces = Vec::new();
        let (body, found) = if is_long(&held.stat) {
            (Body::Streamed, self.read_segments(file, name, size, emit)?)
        } else if held.stat.may_have_holes() && size > len_u64(INLINE_BYTES_MAX) {
            let found = self.read_segments(file, name, size, &mut |piece| {
                pieces.push(piece);
                true
            })?;
            (Body::Pieces(pieces), found)
        } else {
            let len = usize::try_from(size).map_err(|_| "is too large")?;
            let bytes = read_range(file, 0, len).map_err(failed)?;
            return self.held_bytes(name, &bytes, size, emit);
        };
        if found == size { Ok(body) } else { Err(INCOMPLETE.into()) }
    }
}

/// Problem text for content that is not as long as it was when it was held.
const INCOMPLETE: &str = "was not held to its end";
