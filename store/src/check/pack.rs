//! Reading one pack whole: its hash, every frame, every chunk.
//!
//! Reads a bounded window at a time. Says what is wrong and changes nothing; check and repair build on it.

use crate::catalogue::PackEntry;
use crate::error::{Error, Result};
use crate::id::{ObjectName, PackId};
use crate::index::Location;
use crate::limits::PACK_CHUNKS_MAX;
use crate::mark::Bits;
use crate::pack::Footer;
use crate::read::Reader;
use crate::repository::Repository;
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of a pack that are read at a time, unless one frame is longer: 4 MiB.
const WINDOW_BYTES: u64 = 4 << 20;
/// Times that a pack is read before what is wrong with it counts: a device may fail once.
const READS_MAX: usize = 2;

/// For each damaged pack the ordinals of its chunks that cannot be read.
pub(crate) type BadChunks = BTreeMap<PackId, Bits>;

/// What reading a pack whole found.
#[derive(Debug)]
pub(crate) struct PackHealth {
    /// Bytes that were read.
    pub bytes_read: u64,
    /// Chunks that cannot be read, by ordinal.
    pub bad: Bits,
    /// Number of frames that hold them.
    pub bad_frames: u64,
    /// The hash of all its bytes, where all could be read.
    pub hash: Option<[u8; 32]>,
    /// What was wrong first.
    pub error: Option<Error>,
}

impl PackHealth {
    /// True where nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.error.is_none()
    }

    /// One sentence about what is wrong.
    pub fn describe(&self) -> String {
        let error = self.error.as_ref().map(super::detail).unwrap_or_default();
        match (self.bad.count(), self.bad_frames) {
            (0, _) => format!("{error}; all of its chunks can be read"),
            (chunks, frames) => {
                format!("{error}; {chunks} of its chunks, in {frames} frames, cannot be read")
            }
        }
    }
}

/// Reads a pack whole, and once more if something is wrong; `noted` hears of what only the second reading could read.
///
/// # Errors
/// `Cancelled` and `Unsupported`; what is wrong with the pack or its device stands in the answer.
pub(crate) fn examine_pack(
    reader: &Reader,
    id: &PackId,
    entry: &PackEntry,
    footer: &Footer,
) -> Result<PackHealth> {
    let mut first = None;
    for attempt in 1.. {
        let health = Examination::new(reader, id, entry, footer).run()?;
        if health.is_whole() {
            if let Some(error) = first {
                let name = ObjectName::Pack(*id);
                reader
                    .repository()
                    .note(format!("{name} could be read at the second attempt: {error}"));
            }
            return Ok(health);
        }
        if attempt >= READS_MAX {
            return Ok(health);
        }
        first = health.error.map(|error| error.to_string());
    }
    unreachable!("the last attempt returns")
}

/// Reads a pack whole whose hash nobody knows: gives it, if all its frames and chunks can be read.
///
/// # Errors
/// As of [`examine_pack`].
pub(crate) fn hash_if_sound(
    reader: &Reader,
    id: &PackId,
    entry: &PackEntry,
    footer: &Footer,
) -> Result<Option<[u8; 32]>> {
    for _ in 0..READS_MAX {
        let health = Examination::new(reader, id, entry, footer).run()?;
        if health.bad.count() == 0 && health.hash.is_some() {
            return Ok(health.hash);
        }
    }
    Ok(None)
}

struct Examination<'a> {
    reader: &'a Reader,
    repository: &'a Repository,
    id: &'a PackId,
    entry: &'a PackEntry,
    footer: &'a Footer,
    hasher: blake3::Hasher,
    hashed: u64,
    hash_is_complete: bool,
    health: PackHealth,
}

impl<'a> Examination<'a> {
    fn new(reader: &'a Reader, id: &'a PackId, entry: &'a PackEntry, footer: &'a Footer) -> Self {
        let chunks = footer.chunks().len().min(PACK_CHUNKS_MAX);
        let health = PackHealth {
            bytes_read: 0,
            bad: Bits::new(chunks),
            bad_frames: 0,
            hash: None,
            error: None,
        };
        Self {
            reader,
            repository: reader.repository(),
            id,
            entry,
            footer,
            hasher: blake3::Hasher::new(),
            hashed: 0,
            hash_is_complete: true,
            health,
        }
    }

    fn run(mut self) -> Result<PackHealth> {
        let frames = self.footer.frames();
        let mut from = 0;
        while let Some(first) = frames.get(from) {
            self.repository.cancel().check()?;
            let start = u64::from(first.offset);
            let end = |at: usize| {
                frames.get(at).map(|frame| u64::from(frame.offset) + u64::from(frame.stored_len))
            };
            let mut until = from + 1;
            while end(until).is_some_and(|end| end - start <= WINDOW_BYTES) {
                until += 1;
            }
            self.hash_until(start)?;
            self.window(from..until)?;
            from = until;
        }
        self.hash_until(self.entry.size_bytes)?;
        if self.hash_is_complete {
            let hash = *self.hasher.finalize().as_bytes();
            self.health.hash = Some(hash);
            if hash != self.entry.hash {
                let detail = "its bytes are not those that were committed";
                let name = ObjectName::Pack(*self.id);
                self.health.error.get_or_insert_with(|| Error::damaged(name, detail));
            }
        }
        Ok(self.health)
    }

    /// Hashes what lies before, behind and between frames.
    fn hash_until(&mut self, end: u64) -> Result<()> {
        while self.hashed < end {
            let until = end.min(self.hashed + WINDOW_BYTES);
            let bytes =
                self.repository.backend.read(&ObjectName::Pack(*self.id), self.hashed..until);
            match bytes {
                Ok(bytes) => self.hash(&bytes, until),
                Err(error) => self.lose(until, error)?,
            }
        }
        Ok(())
    }

    fn hash(&mut self, bytes: &[u8], until: u64) {
        self.hasher.update(bytes);
        self.health.bytes_read += until - self.hashed;
        self.hashed = until;
    }

    /// Goes on behind bytes that cannot be read.
    fn lose(&mut self, until: u64, error: Error) -> Result<()> {
        self.hash_is_complete = false;
        self.hashed = until;
        self.fail(error)
    }

    fn fail(&mut self, error: Error) -> Result<()> {
        if !super::is_finding(&error) {
            return Err(error);
        }
        self.health.error.get_or_insert(error);
        Ok(())
    }

    /// Reads, hashes and opens neighbouring frames.
    fn window(&mut self, frames: Range<usize>) -> Result<()> {
        let (Some(first), Some(last)) = (self.place(frames.start), self.place(frames.end - 1))
        else {
            return Ok(());
        };
        let until = u64::from(last.frame_offset) + u64::from(last.frame_len);
        let run = match self.reader.read_run(&first, &last) {
            Ok(run) => run,
            // A device that cannot read one sector of it may read the others.
            Err(error) if frames.len() > 1 => {
                self.fail(error)?;
                for frame in frames {
                    let start = self.place(frame).map_or(until, |place| place.frame_offset.into());
                    self.hash_until(start)?;
                    self.window(frame..frame + 1)?;
                }
                return Ok(());
            }
            Err(error) => {
                self.spoil(frames.start);
                return self.lose(until, error);
            }
        };
        self.hash(run.bytes(), until);
        for frame in frames {
            let Some(place) = self.place(frame) else { continue };
            let kind = self.footer.frames().get(frame).expect("it has a place").kind;
            match self.reader.open_frame(&run, &place, kind) {
                Ok(plain) => self.chunks(frame, &plain)?,
                Err(error) => {
                    self.spoil(frame);
                    self.fail(error)?;
                }
            }
        }
        Ok(())
    }

    /// Where a frame lies: the place of its first chunk.
    fn place(&self, frame: usize) -> Option<Location> {
        let entry = self.footer.frames().get(frame)?;
        Some(Location {
            pack: *self.id,
            frame: u32::try_from(frame).ok()?,
            frame_offset: entry.offset,
            frame_len: entry.stored_len,
            offset: 0,
            len: 0,
        })
    }

    /// Compares every chunk of an opened frame with its id.
    fn chunks(&mut self, frame: usize, plain: &[u8]) -> Result<()> {
        let (Some(place), Some(entry)) = (self.place(frame), self.footer.frames().get(frame))
        else {
            return Ok(());
        };
        let (first, count) = (to_usize(entry.first_chunk), to_usize(entry.chunk_count));
        let mut offset = 0u32;
        let mut is_bad = false;
        for (ordinal, (id, len)) in self.footer.chunks().iter().enumerate().skip(first).take(count)
        {
            let place = Location { offset, len: *len, ..place };
            offset = offset.saturating_add(*len);
            if let Err(error) = self.reader.chunk_in(plain, &place, id, entry.kind) {
                self.health.bad.set(ordinal);
                is_bad = true;
                self.fail(error)?;
            }
        }
        self.health.bad_frames += u64::from(is_bad);
        Ok(())
    }

    /// All chunks of a frame cannot be read.
    fn spoil(&mut self, frame: usize) {
        let Some(entry) = self.footer.frames().get(frame) else { return };
        let first = to_usize(entry.first_chunk);
        for ordinal in first..first + to_usize(entry.chunk_count) {
            self.health.bad.set(ordinal);
        }
        self.health.bad_frames += 1;
    }
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).expect("32 bits fit")
}
