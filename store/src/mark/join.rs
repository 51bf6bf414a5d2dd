//! The join of needed ids with the places that footers list: in memory where they fit, else partition by partition
//! (a Grace hash join; Kitsuregawa, Tanaka, Moto-oka: "Application of Hash to Data Base Machine", 1983).
//!
//! Knows nothing of trees and footers. The verdict does not depend on the number of partitions.

use super::Use;
use super::nodes::{Directory, prefix};
use super::pack::PackMark;
use super::spill::{SpillFile, Stream};
use crate::error::Result;
use crate::id::ChunkId;
use crate::write::IdSet;
use rayon::prelude::*;
use std::sync::Arc;

/// Where one chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub id: ChunkId,
    /// Number of the pack in the order of the mark.
    pub pack: u32,
    /// The chunk's ordinal in the pack.
    pub ordinal: u32,
    /// Length of the plaintext, bytes; below 2^24.
    pub len: u32,
}

/// Needed by a live snapshot. Stands in the length of the first place of an id, as the next one does.
const LIVE: u32 = 1 << 31;
/// Needed by a snapshot that is only held.
const HELD: u32 = 1 << 30;
/// First of the places that share an id.
const FIRST: u32 = 1 << 29;
const LEN_MASK: u32 = (1 << 24) - 1;

impl Place {
    const RECORD_LEN: usize = ChunkId::LEN + 12;

    fn record(&self) -> [u8; Self::RECORD_LEN] {
        let mut record = [0; Self::RECORD_LEN];
        let numbers = [self.pack, self.ordinal, self.len].map(u32::to_le_bytes);
        let fields = self.id.as_bytes().iter().chain(numbers.as_flattened());
        record.iter_mut().zip(fields).for_each(|(slot, byte)| *slot = *byte);
        record
    }

    fn parse(record: &[u8; Self::RECORD_LEN]) -> Self {
        let (id, rest) = record.split_first_chunk().expect("a record begins with an id");
        let (pack, rest) = rest.split_first_chunk().expect("three numbers follow");
        let (ordinal, rest) = rest.split_first_chunk().expect("two numbers follow");
        let (len, _) = rest.split_first_chunk().expect("one number follows");
        Self {
            id: ChunkId::from_bytes(*id),
            pack: u32::from_le_bytes(*pack),
            ordinal: u32::from_le_bytes(*ordinal),
            len: u32::from_le_bytes(*len),
        }
    }

    fn weight(&self) -> u64 {
        // An empty chunk still needs its pack.
        u64::from(self.len & LEN_MASK).max(1)
    }
}

/// Memory that a place takes in a [`Table`], its share of the directory included, bytes.
pub(super) const PLACE_BYTES: usize = size_of::<Place>() + 4;

/// Which of the partitions an id belongs to. Not by the id's first bits: a partition's ids must have all of them.
pub(super) fn part_of(id: &ChunkId, parts: usize) -> usize {
    let (_, behind) = id.as_bytes().split_at(8);
    let bits = behind.first_chunk().map_or(0, |bits| u64::from_le_bytes(*bits));
    let parts = u128::try_from(parts).expect("128 bits hold any number");
    usize::try_from((u128::from(bits) * parts) >> 64).expect("smaller than the number of parts")
}

/// The places of one partition, and who needs them.
#[derive(Default)]
pub(super) struct Table {
    places: Vec<Place>,
    directory: Directory,
    /// Needed ids that have no place.
    lost_live: IdSet,
    lost_held: IdSet,
}

impl Table {
    pub fn with_capacity(places: usize) -> Self {
        Self { places: Vec::with_capacity(places), ..Self::default() }
    }

    pub fn add(&mut self, place: Place) {
        self.places.push(place);
    }

    /// All places are there: from now on needs are looked up.
    pub fn seal(&mut self) {
        self.places.par_sort_unstable();
        let prefixes = self.places.iter().map(|place| prefix(&place.id));
        self.directory = Directory::new(self.places.len(), prefixes);
    }

    /// Says that somebody needs this id.
    pub fn need(&mut self, id: &ChunkId, by: Use) {
        let range = self.directory.range(prefix(id));
        let bucket = self.places.get_mut(range).unwrap_or_default();
        let at = bucket.partition_point(|place| place.id < *id);
        match (bucket.get_mut(at).filter(|place| place.id == *id), by) {
            (Some(place), Use::Live) => place.len |= LIVE,
            (Some(place), Use::Held) => place.len |= HELD,
            (None, Use::Live) => drop(self.lost_live.insert(*id)),
            (None, Use::Held) => drop(self.lost_held.insert(*id)),
        }
    }

    /// Writes down who needs what and empties the table.
    pub fn settle(&mut self, tally: &mut Tally, packs: &mut [PackMark]) -> Result<()> {
        for group in self.places.chunk_by(|a, b| a.id == b.id) {
            match group {
                [first, ..] if first.len & (LIVE | HELD) == 0 => {}
                [only] => claim(packs, only, only.len & LIVE == 0),
                several => tally.share(several)?,
            }
        }
        self.places.clear();
        for id in &self.lost_live {
            self.lost_held.remove(id);
        }
        for (set, stream) in [
            (&mut self.lost_live, &mut tally.lost_live),
            (&mut self.lost_held, &mut tally.lost_held),
        ] {
            let mut ids: Vec<ChunkId> = set.drain().collect();
            ids.sort_unstable();
            ids.iter().try_for_each(|id| stream.push(id.as_bytes()))?;
        }
        Ok(())
    }
}

/// A stream of ids.
pub(super) type IdStream = Stream<{ ChunkId::LEN }>;
const SHARED_RECORD_LEN: usize = 12;

/// What is known so far beside the packs themselves.
pub(super) struct Tally {
    /// Bytes of needed chunks that the pack holds and others hold as well.
    shared_bytes: Vec<u64>,
    /// Needed chunks that several packs hold, with all their places.
    shared: Stream<SHARED_RECORD_LEN>,
    pub lost_live: IdStream,
    pub lost_held: IdStream,
}

/// Notes that a chunk is needed from its pack.
fn claim(packs: &mut [PackMark], place: &Place, is_held: bool) {
    let Some(pack) = packs.get_mut(index(place.pack)) else { return };
    if pack.used.set(index(place.ordinal)) {
        pack.used_bytes += place.weight();
        pack.held_bytes += if is_held { place.weight() } else { 0 };
    }
}

impl Tally {
    /// A tally of as many packs; `block` bytes of each of its streams stay in memory if there is a file.
    pub fn new(packs: usize, file: Option<&Arc<SpillFile>>, block: usize) -> Self {
        Self {
            shared_bytes: vec![0; packs],
            shared: Stream::new(file.cloned(), block),
            lost_live: Stream::new(file.cloned(), block),
            lost_held: Stream::new(file.cloned(), block),
        }
    }

    fn share(&mut self, places: &[Place]) -> Result<()> {
        let mut flags = FIRST | places.first().map_or(0, |first| first.len & LIVE);
        for place in places {
            if let Some(shared) = self.shared_bytes.get_mut(index(place.pack)) {
                *shared += place.weight();
            }
            let len = place.len & LEN_MASK | flags;
            let numbers = [place.pack, place.ordinal, len].map(u32::to_le_bytes);
            let record = numbers.as_flattened().first_chunk().expect("three numbers");
            self.shared.push(record)?;
            flags = 0;
        }
        Ok(())
    }

    /// Lets the pack that is fullest of needed data claim what several packs hold, so that the sparse one can go.
    pub fn finish(self, packs: &mut [PackMark]) -> Result<(IdStream, IdStream)> {
        let scores: Vec<u64> =
            packs.iter().zip(&self.shared_bytes).map(|(pack, b)| score(pack, *b)).collect();
        let score_of = |place: &Place| scores.get(index(place.pack)).copied().unwrap_or(0);
        let mut best: Option<Place> = None;
        self.shared.each(|record| {
            let place = shared_place(record);
            if place.len & FIRST != 0 {
                if let Some(done) = best.replace(place) {
                    claim(packs, &done, done.len & LIVE == 0);
                }
            } else if let Some(best) = &mut best
                && score_of(&place) > score_of(best)
            {
                let live = best.len & LIVE;
                *best = Place { len: place.len | live, ..place };
            }
            Ok(())
        })?;
        if let Some(last) = best {
            claim(packs, &last, last.len & LIVE == 0);
        }
        Ok((self.lost_live, self.lost_held))
    }
}

/// A place without its id, which no longer counts.
fn shared_place(record: &[u8; SHARED_RECORD_LEN]) -> Place {
    let mut numbers = record.as_chunks::<4>().0.iter().map(|number| u32::from_le_bytes(*number));
    let mut next = || numbers.next().expect("three numbers");
    let id = ChunkId::from_bytes([0; ChunkId::LEN]);
    Place { id, pack: next(), ordinal: next(), len: next() }
}

/// How full a pack is of needed data, were it to claim all that it holds: parts of 2^32.
fn score(pack: &PackMark, shared_bytes: u64) -> u64 {
    let full = u128::from(pack.used_bytes) + u128::from(shared_bytes);
    let share = (full << 32) / u128::from(pack.total_bytes.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

fn index(number: u32) -> usize {
    usize::try_from(number).expect("32 bits fit")
}

/// Places and needs of many partitions, on their way to the disk.
pub(super) struct Partitions {
    places: Vec<Stream<{ Place::RECORD_LEN }>>,
    live: Vec<IdStream>,
    held: Vec<IdStream>,
}

impl Partitions {
    /// `parts` empty partitions in this file, `block` bytes of each of their streams in memory.
    pub fn new(parts: usize, file: &Arc<SpillFile>, block: usize) -> Self {
        fn streams<const N: usize>(
            parts: usize,
            file: &Arc<SpillFile>,
            block: usize,
        ) -> Vec<Stream<N>> {
            (0..parts).map(|_| Stream::new(Some(Arc::clone(file)), block)).collect()
        }
        Self {
            places: streams(parts, file, block),
            live: streams(parts, file, block),
            held: streams(parts, file, block),
        }
    }

    pub fn add(&mut self, place: &Place) -> Result<()> {
        let part = part_of(&place.id, self.places.len());
        self.places.get_mut(part).map_or(Ok(()), |stream| stream.push(&place.record()))
    }

    pub fn need(&mut self, id: &ChunkId, by: Use) -> Result<()> {
        let streams = match by {
            Use::Live => &mut self.live,
            Use::Held => &mut self.held,
        };
        let part = part_of(id, streams.len());
        streams.get_mut(part).map_or(Ok(()), |stream| stream.push(id.as_bytes()))
    }

    /// Joins partition by partition; never more than one is in memory.
    ///
    /// # Errors
    /// `Io` when the file cannot be read or written, and what `check` gives between partitions.
    pub fn join(
        &self,
        tally: &mut Tally,
        packs: &mut [PackMark],
        check: impl Fn() -> Result<()>,
    ) -> Result<()> {
        let largest = self.places.iter().map(Stream::len).max().unwrap_or(0);
        let mut table = Table::with_capacity(usize::try_from(largest).unwrap_or(0));
        for ((places, live), held) in self.places.iter().zip(&self.live).zip(&self.held) {
            check()?;
            places.each(|record| {
                table.add(Place::parse(record));
                Ok(())
            })?;
            table.seal();
            for (stream, by) in [(live, Use::Live), (held, Use::Held)] {
                stream.each(|id| {
                    table.need(&ChunkId::from_bytes(*id), by);
                    Ok(())
                })?;
            }
            table.settle(tally, packs)?;
        }
        Ok(())
    }
}
