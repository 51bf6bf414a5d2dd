//! What is needed of one pack, and reading footers in groups that fit into memory.

use super::FOOTERS_AT_ONCE;
use super::bits::Bits;
use super::join::Place;
use super::nodes::{NodePlace, prefix};
use crate::catalogue::PackEntry;
use crate::crypto::Generation;
use crate::error::Result;
use crate::id::{ChunkKind, PackId};
use crate::limits::{FOOTER_BYTES_MAX, PACK_CHUNKS_MAX};
use crate::pack::Footer;
use crate::repository::Repository;

/// What the references of one node take in memory, as a guess.
const REFERENCES_BYTES_GUESS: usize = 8 << 10;
/// Memory for footers that are read at the same time, unless one alone takes more: 32 MiB.
pub(super) const FOOTERS_BYTES: usize = 32 << 20;

/// What is needed of one pack.
#[derive(Debug)]
pub(crate) struct PackMark {
    /// The pack.
    pub id: PackId,
    /// Its length in bytes; None for a guide, whose length nobody has written down.
    pub(super) size_bytes: Option<u64>,
    pub(super) generation: Generation,
    pub(super) data_chunks: u32,
    pub(super) node_chunks: u32,
    /// For each of its chunks whether it is needed from this pack. A chunk that several packs hold is needed from
    /// one of them only.
    pub used: Bits,
    /// Plaintext bytes of the chunks that are needed from it; an empty chunk counts as one byte.
    pub used_bytes: u64,
    /// How many of these bytes only held snapshots need.
    pub held_bytes: u64,
    /// Plaintext bytes of all its chunks, counted alike.
    pub total_bytes: u64,
    /// Why its footer could not be read, if it could not: then nothing is known of what it holds.
    pub damage: Option<String>,
}

impl PackMark {
    pub(super) fn of(id: PackId, entry: &PackEntry) -> Self {
        let PackEntry { size_bytes, data_chunks, node_chunks, generation, .. } = *entry;
        let size_bytes = Some(size_bytes);
        Self { size_bytes, generation, data_chunks, node_chunks, ..Self::guide(id) }
    }

    pub(super) fn guide(id: PackId) -> Self {
        Self {
            id,
            size_bytes: None,
            generation: Generation::FIRST,
            data_chunks: 0,
            node_chunks: u32::MAX,
            used: Bits::default(),
            used_bytes: 0,
            held_bytes: 0,
            total_bytes: 0,
            damage: None,
        }
    }

    /// The pack's length, bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes.unwrap_or(0)
    }

    /// The generation of the keys that seal it.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    pub(super) fn chunks(&self) -> usize {
        let chunks = u64::from(self.data_chunks) + u64::from(self.node_chunks);
        usize::try_from(chunks).unwrap_or(usize::MAX).min(PACK_CHUNKS_MAX)
    }

    /// The footer, read again.
    ///
    /// # Errors
    /// As of [`crate::pack::read_footer`].
    pub fn footer(&self, repository: &Repository) -> Result<Footer> {
        match self.size_bytes {
            Some(size_bytes) => repository.live_footer(&self.id, size_bytes, self.generation),
            None => repository.footer_of(self.id),
        }
    }

    /// Sums up the footer and gives away what it lists. Doing it again changes nothing.
    pub(super) fn take_in(
        &mut self,
        number: u32,
        footer: &Footer,
        nodes: &mut Vec<NodePlace>,
        add: &mut impl FnMut(Place) -> Result<()>,
    ) -> Result<()> {
        let is_guide = self.size_bytes.is_none();
        if !is_guide && self.used.is_empty() {
            self.used = Bits::new(footer.chunks().len());
            let weights = footer.chunks().iter().map(|(_, len)| u64::from(*len).max(1));
            self.total_bytes = weights.sum();
        }
        for (ordinal, (id, kind, place)) in (0u32..).zip(footer.locations()) {
            if kind == ChunkKind::Node {
                nodes.push(NodePlace { prefix: prefix(&id), pack: number, ordinal });
            }
            if !is_guide {
                add(Place { id, pack: number, ordinal, len: place.len })?;
            }
        }
        Ok(())
    }

    /// Memory that the decoded footer takes, guessed from the catalogue, bytes.
    pub(super) fn footer_bytes_estimate(&self) -> usize {
        let nodes = usize::try_from(self.node_chunks).unwrap_or(usize::MAX);
        let references = nodes.min(PACK_CHUNKS_MAX) * REFERENCES_BYTES_GUESS;
        let size = self.size_bytes.and_then(|size| usize::try_from(size).ok());
        // A footer is no longer than its pack; it is there twice while it is decoded.
        let most = size.unwrap_or(FOOTER_BYTES_MAX).min(FOOTER_BYTES_MAX);
        (self.chunks() * 40 + references).min(most) * 2
    }
}

/// Cuts a list of packs into groups whose footers fit into memory at the same time.
pub(super) fn in_groups<T>(
    mut packs: &[T],
    pack: impl Fn(&T) -> &PackMark,
) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |item: &&T| {
            bytes += pack(item).footer_bytes_estimate();
            bytes <= FOOTERS_BYTES
        };
        let count = packs.iter().take(FOOTERS_AT_ONCE).take_while(fits).count().max(1);
        let (group, rest) = packs.split_at_checked(count)?;
        packs = rest;
        Some(group)
    })
}
