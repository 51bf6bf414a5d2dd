//! Reads chunks of the source in the order in which they lie there: each frame once, neighbours with one read, on all
//! cores. Every chunk is verified.

use crate::restore::for_each;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use stillpoint_store::index::Location;
use stillpoint_store::read::joins_run;
use stillpoint_store::{ChunkId, ChunkKind, Error, Reader, Result};

/// What was read, chunk by chunk.
pub(super) type Chunks = HashMap<ChunkId, Result<Vec<u8>>>;

/// A chunk and its place.
type Found = (Location, ChunkId);

/// Reads these chunks. What cannot be read of them is said chunk by chunk.
///
/// # Errors
/// Those of the index.
pub(super) fn fetch(reader: &Reader, mut ids: Vec<ChunkId>, threads: usize) -> Result<Chunks> {
    ids.sort_unstable();
    ids.dedup();
    let places = reader.locate(&ids)?;
    let mut chunks = Chunks::with_capacity(ids.len());
    let mut found: Vec<Found> = Vec::with_capacity(ids.len());
    for (id, place) in ids.into_iter().zip(places) {
        match place {
            Some(place) => found.push((place, id)),
            None => {
                chunks.insert(id, Err(Error::missing(format!("chunk {id}"))));
            }
        }
    }
    found.sort_unstable_by_key(|(place, _)| (place.pack, place.frame, place.offset));
    let runs = runs(&found);
    let chunks = Mutex::new(chunks);
    for_each(threads, &runs, |frames| {
        let read = read_run(reader, frames);
        chunks.lock().unwrap_or_else(PoisonError::into_inner).extend(read);
    });
    Ok(chunks.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The chunks of one frame.
type InFrame<'f> = &'f [Found];

/// Chunks in the order of their places, by frames, and frames by what is read at once.
fn runs(found: &[Found]) -> Vec<Vec<InFrame<'_>>> {
    let frames = found.chunk_by(|(a, _), (b, _)| (a.pack, a.frame) == (b.pack, b.frame));
    let mut runs: Vec<Vec<InFrame<'_>>> = Vec::new();
    for frame in frames {
        let joined = runs.last_mut().filter(|run| {
            let place = |frame: Option<&InFrame<'_>>| frame?.first().map(|(place, _)| *place);
            match (place(run.first()), place(run.last()), place(Some(&frame))) {
                (Some(first), Some(last), Some(next)) => joins_run(&first, &last, &next),
                _ => false,
            }
        });
        match joined {
            Some(run) => run.push(frame),
            None => runs.push(vec![frame]),
        }
    }
    runs
}

fn read_run(reader: &Reader, frames: &[InFrame<'_>]) -> Vec<(ChunkId, Result<Vec<u8>>)> {
    let place = |frame: Option<&InFrame<'_>>| frame?.first().map(|(place, _)| *place);
    let (Some(first), Some(last)) = (place(frames.first()), place(frames.last())) else {
        return Vec::new();
    };
    let run = reader.read_run(&first, &last);
    let mut read = Vec::new();
    for frame in frames {
        let bytes = match (&run, place(Some(frame))) {
            (Ok(run), Some(place)) => reader.open_frame(run, &place, ChunkKind::Data).ok(),
            _ => None,
        };
        for (place, id) in *frame {
            let chunk = bytes
                .as_ref()
                .and_then(|bytes| reader.chunk_in(bytes, place, id, ChunkKind::Data).ok());
            let chunk = match chunk {
                Some(chunk) => Ok(chunk.to_vec()),
                // Once more, and from wherever else it lies.
                None => reader.chunk(id).map(|chunk| chunk.to_vec()),
            };
            read.push((*id, chunk));
        }
    }
    read
}

/// The bytes of one chunk that was asked for, of the length that the content list gives it.
///
/// # Errors
/// Why it could not be read.
pub(super) fn chunk_of<'c>(chunks: &'c Chunks, id: &ChunkId, len: u32) -> Result<&'c [u8]> {
    match chunks.get(id) {
        Some(Ok(bytes)) if u64::try_from(bytes.len()) == Ok(u64::from(len)) => Ok(bytes),
        Some(Ok(_)) => {
            Err(Error::damaged("manifest", format!("chunk {id} is not as long as it says")))
        }
        // Errors cannot be cloned: the words are what matters.
        Some(Err(error)) => Err(Error::damaged("source", error)),
        None => Err(Error::missing(format!("chunk {id}"))),
    }
}
