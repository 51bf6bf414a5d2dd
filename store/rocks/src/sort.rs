//! Sorts more places than fit into memory: sorted runs in files, merged.
//!
//! Knows nothing of RocksDB. The files are temporary and need no checksums: they are read back by the same process, and
//! a place that is wrong is found when the chunk's id does not match.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use stillpoint_store::index::Location;
use stillpoint_store::{ChunkId, Error, PackId, Result};

/// One place of one chunk.
pub(crate) type Entry = (ChunkId, Location);

const RECORD_LEN: usize = ChunkId::LEN + Location::ENCODED_LEN;
const BUFFER_BYTES: usize = 256 << 10;

/// Takes entries in any order and gives them sorted by chunk and pack.
pub(crate) struct Sorter {
    folder: PathBuf,
    entries_max: usize,
    runs_max: usize,
    entries: Vec<Entry>,
    runs: Vec<PathBuf>,
    created: usize,
}

impl Sorter {
    /// A sorter that keeps at most `entries_max` entries in memory and merges at most `runs_max` files at a time;
    /// `folder` must be there.
    pub(crate) fn new(folder: &Path, entries_max: usize, runs_max: usize) -> Self {
        Self {
            folder: folder.to_path_buf(),
            entries_max: entries_max.max(1),
            runs_max: runs_max.max(2),
            entries: Vec::new(),
            runs: Vec::new(),
            created: 0,
        }
    }

    /// Adds an entry.
    pub(crate) fn push(&mut self, entry: Entry) -> Result<()> {
        self.entries.push(entry);
        if self.entries.len() >= self.entries_max {
            self.spill()?;
        }
        Ok(())
    }

    /// All entries, sorted.
    pub(crate) fn finish(mut self) -> Result<Merge> {
        let entries = self.take_sorted();
        let mut sources: Vec<Source> =
            self.runs.iter().map(|path| Source::open(path)).collect::<Result<_>>()?;
        sources.push(Source::Memory(entries.into_iter()));
        Merge::new(sources)
    }

    fn take_sorted(&mut self) -> Vec<Entry> {
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_unstable_by_key(|(id, place)| (*id, place.pack));
        entries
    }

    fn spill(&mut self) -> Result<()> {
        let entries = self.take_sorted();
        let path = self.write_run(entries.iter().copied().map(Ok))?;
        self.entries = entries;
        self.entries.clear();
        self.runs.push(path);
        if self.runs.len() >= self.runs_max {
            let sources = self.runs.iter().map(|path| Source::open(path)).collect::<Result<_>>()?;
            let merged = self.write_run(Merge::new(sources)?)?;
            let spent = std::mem::replace(&mut self.runs, vec![merged]);
            for path in spent {
                fs::remove_file(&path).map_err(|error| failed("removing", &path, error))?;
            }
        }
        Ok(())
    }

    fn write_run(&mut self, entries: impl Iterator<Item = Result<Entry>>) -> Result<PathBuf> {
        let path = self.folder.join(format!("run-{}", self.created));
        self.created += 1;
        let writing = |error| failed("writing", &path, error);
        let mut file =
            BufWriter::with_capacity(BUFFER_BYTES, File::create(&path).map_err(writing)?);
        for entry in entries {
            let (id, place) = entry?;
            file.write_all(id.as_bytes()).map_err(writing)?;
            file.write_all(&place.encode()).map_err(writing)?;
        }
        file.flush().map_err(writing)?;
        Ok(path)
    }
}

fn failed(action: &'static str, path: &Path, error: io::Error) -> Error {
    Error::io(action, path.display(), error)
}

enum Source {
    Memory(std::vec::IntoIter<Entry>),
    File(PathBuf, BufReader<File>),
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| failed("reading", path, error))?;
        Ok(Self::File(path.to_path_buf(), BufReader::with_capacity(BUFFER_BYTES, file)))
    }

    fn next(&mut self) -> Result<Option<Entry>> {
        match self {
            Self::Memory(entries) => Ok(entries.next()),
            Self::File(path, file) => {
                read_record(file).map_err(|error| failed("reading", path, error))
            }
        }
    }
}

fn read_record(file: &mut BufReader<File>) -> io::Result<Option<Entry>> {
    let mut record = [0; RECORD_LEN];
    match file.read(&mut record)? {
        0 => return Ok(None),
        // A record may lie across the end of the buffer.
        len => file.read_exact(record.get_mut(len..).unwrap_or_default())?,
    }
    let (id, place) = record.split_first_chunk().expect("a record begins with an id");
    let place = Location::decode(place).expect("a record ends with a place");
    Ok(Some((ChunkId::from_bytes(*id), place)))
}

/// The entries of all runs in order.
pub(crate) struct Merge {
    sources: Vec<Source>,
    heads: BinaryHeap<Reverse<(ChunkId, PackId, usize)>>,
    places: Vec<Option<Location>>,
}

impl Merge {
    fn new(sources: Vec<Source>) -> Result<Self> {
        let places = sources.iter().map(|_| None).collect();
        let mut merge = Self { sources, heads: BinaryHeap::new(), places };
        for number in 0..merge.sources.len() {
            merge.advance(number)?;
        }
        Ok(merge)
    }

    fn advance(&mut self, number: usize) -> Result<()> {
        let source = self.sources.get_mut(number).expect("numbers of sources");
        if let Some((id, place)) = source.next()? {
            self.heads.push(Reverse((id, place.pack, number)));
            *self.places.get_mut(number).expect("one for each source") = Some(place);
        }
        Ok(())
    }
}

impl Iterator for Merge {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        let Reverse((id, _, number)) = self.heads.pop()?;
        let place = self.places.get_mut(number).and_then(Option::take);
        let place = place.expect("a source in the heap has a place");
        Some(self.advance(number).map(|()| (id, place)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> Entry {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(mixed % 400).to_be_bytes());
        let small = u32::try_from(mixed % 7).unwrap();
        let pack = PackId::from_bytes([u8::try_from(small).unwrap(); 16]);
        let place =
            Location { pack, frame: small, frame_offset: 1, frame_len: 2, offset: 3, len: 4 };
        (ChunkId::from_bytes(id), place)
    }

    /// Whatever the limits are, all entries come out, in order: in memory, from runs, and from merged runs.
    #[test]
    fn limits_do_not_change_the_result() {
        let mut wanted: Vec<Entry> = (0..1000).map(entry).collect();
        wanted.sort_by_key(|(id, place)| (*id, place.pack));
        for (entries_max, runs_max, files) in [(5000, 2, 0), (1000, 2, 1), (300, 10, 3), (10, 3, 2)]
        {
            let dir = tempfile::tempdir().unwrap();
            let mut sorter = Sorter::new(dir.path(), entries_max, runs_max);
            (0..1000).for_each(|number| sorter.push(entry(number)).unwrap());
            assert!(sorter.entries.len() < entries_max);
            assert!(sorter.runs.len() < runs_max);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), files);
            let sorted: Vec<Entry> = sorter.finish().unwrap().map(Result::unwrap).collect();
            assert_eq!(sorted, wanted);
        }
    }

    /// A run that was cut short is an error, not the end.
    #[test]
    fn a_cut_run_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(dir.path(), 100, 10);
        (0..150).for_each(|number| sorter.push(entry(number)).unwrap());
        let run = File::options().write(true).open(&sorter.runs[0]).unwrap();
        run.set_len(RECORD_LEN as u64 * 50 - 1).unwrap();
        assert!(sorter.finish().unwrap().any(|entry| entry.is_err()));
    }
}
