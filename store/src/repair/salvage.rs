//! Reading wanted chunks out of packs that do not count: damaged, condemned or unnamed ones.
//!
//! Frame by frame: what opens and gives its id is as good as from anywhere else. What becomes of it is the caller's
//! business.

use super::NodeReferences;
use crate::check::is_finding;
use crate::error::Result;
use crate::id::{ChunkId, ChunkKind, ObjectName, PackId};
use crate::limits::PACK_BYTES_MAX;
use crate::pack::Footer;
use crate::read::Reader;
use crate::repository::Repository;
use crate::tree::NodeBytes;
use crate::write::IdSet;

/// A chunk that was found, verified against its id.
pub(super) struct Rescued<'c> {
    pub id: ChunkId,
    pub kind: ChunkKind,
    pub bytes: &'c [u8],
    /// What a node refers to.
    pub references: Vec<ChunkId>,
}

/// Looks for wanted chunks.
pub(super) struct Salvage<'a> {
    pub repository: &'a Repository,
    pub reader: &'a Reader,
    /// How to tell what a node refers to where no footer says it.
    pub references: NodeReferences,
    /// What is still wanted; what was found is taken out.
    pub wanted: &'a mut IdSet,
    /// Takes what was found.
    pub take: &'a mut dyn FnMut(Rescued<'_>) -> Result<()>,
    /// Chunks found, and their bytes.
    pub found: (u64, u64),
    /// A node was found in a pack without a footer: what it refers to has not been looked for.
    pub found_stray_nodes: bool,
}

impl Salvage<'_> {
    /// Looks through these packs until everything is found.
    ///
    /// # Errors
    /// What `take` gives, `Cancelled`; packs that cannot be read are passed over.
    pub fn run(&mut self, sources: &[PackId]) -> Result<()> {
        for pack in sources {
            if self.wanted.is_empty() {
                break;
            }
            self.repository.cancel().check()?;
            match self.repository.footer_of(*pack) {
                Ok(footer) => self.by_footer(&footer)?,
                Err(error) if is_finding(&error) => self.by_walk(*pack)?,
                // Of a newer program.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn by_footer(&mut self, footer: &Footer) -> Result<()> {
        let mut frame: Option<(u32, Option<Vec<u8>>)> = None;
        for (ordinal, (id, kind, place)) in footer.locations().enumerate() {
            if !self.wanted.contains(&id) {
                continue;
            }
            if frame.as_ref().is_none_or(|(number, _)| *number != place.frame) {
                let opened = self.reader.read_frame(&place, kind);
                frame = Some((place.frame, tolerate(opened)?));
            }
            let Some((_, Some(plain))) = &frame else { continue };
            let chunk = self.reader.chunk_in(plain, &place, &id, kind);
            if let Some(bytes) = tolerate(chunk)? {
                let references = footer.references(ordinal).to_vec();
                self.give(Rescued { id, kind, bytes, references })?;
            }
        }
        Ok(())
    }

    /// Goes over the frames of a pack whose footer is lost, up to the first that does not open.
    fn by_walk(&mut self, pack: PackId) -> Result<()> {
        let backend = &self.repository.backend;
        let name = ObjectName::Pack(pack);
        let Some(Some(size)) = tolerate(backend.size_bytes(&name))? else { return Ok(()) };
        let whole = tolerate(backend.read(&name, 0..size.min(PACK_BYTES_MAX)))?;
        let key = tolerate(self.reader.pack_key(pack))?;
        let (Some(whole), Some(key)) = (whole, key) else { return Ok(()) };
        for frame in key.walk(&whole) {
            let Some((_, frame)) = tolerate(frame)? else { break };
            let ids = self.repository.domain.id_key(frame.kind());
            for bytes in frame.chunks() {
                let id = ids.id(bytes);
                if !self.wanted.contains(&id) {
                    continue;
                }
                let references = match frame.kind() {
                    ChunkKind::Data => Vec::new(),
                    ChunkKind::Node => {
                        let node = NodeBytes::from(bytes.to_vec());
                        let Some(found) = tolerate((self.references)(&id, &node))? else {
                            continue;
                        };
                        self.found_stray_nodes = true;
                        found
                    }
                };
                self.give(Rescued { id, kind: frame.kind(), bytes, references })?;
            }
        }
        Ok(())
    }

    fn give(&mut self, chunk: Rescued<'_>) -> Result<()> {
        self.wanted.remove(&chunk.id);
        self.found.0 += 1;
        self.found.1 += u64::try_from(chunk.bytes.len()).unwrap_or(u64::MAX);
        (self.take)(chunk)
    }
}

/// None for what is damaged or cannot be read.
fn tolerate<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_finding(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
