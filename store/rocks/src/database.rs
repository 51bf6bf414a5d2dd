//! One RocksDB database: its options, look-ups in sorted batches, additions, and sorted tables.

use crate::group::{Group, STATE_KEY, decode_state, encode_state, older_key};
use crate::sort::Entry;
use crate::{READING, Settings, WRITING};
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB,
    DBCompressionType, DataBlockIndexType, ErrorKind, InfoLogger, IngestExternalFileOptions,
    LogLevel, Options, ReadOptions, SstFileWriter, WriteBatch, WriteOptions,
};
use std::io;
use std::path::{Path, PathBuf};
use stillpoint_store::index::{IndexState, IsLive, Location};
use stillpoint_store::{ChunkId, Error, PackId, Result};

/// Keys looked up at a time, sorted.
const LOOKUP_BATCH: usize = 512;
/// Entries in one sorted table, about 64 MiB.
const TABLE_ENTRIES: usize = 900_000;
/// Table files kept open by the owner.
const OPEN_FILES: i32 = 128;

/// The column family that every database has. It must be named to be opened with our options.
const FAMILY: &str = rocksdb::DEFAULT_COLUMN_FAMILY_NAME;

/// An open database.
pub(crate) struct Database {
    db: DB,
    options: Options,
    path: PathBuf,
}

impl Database {
    /// Opens or creates the database as its only writer.
    pub(crate) fn open(path: &Path, settings: Settings) -> Result<Self, rocksdb::Error> {
        let mut options = options(settings);
        options.create_if_missing(true);
        options.set_max_open_files(OPEN_FILES);
        let db = DB::open_cf_descriptors(&options, path, [family(&options)])?;
        Ok(Self { db, options, path: path.to_path_buf() })
    }

    /// Opens the database as it is now for reading, whoever owns it; writes nothing.
    pub(crate) fn open_for_reading(
        path: &Path,
        settings: Settings,
    ) -> Result<Self, rocksdb::Error> {
        let mut options = options(settings);
        // All tables stay open, because the owner may delete them.
        options.set_max_open_files(-1);
        let families = [family(&options)];
        let db = DB::open_cf_descriptors_read_only(&options, path, families, false)?;
        Ok(Self { db, options, path: path.to_path_buf() })
    }

    /// The state, None if there is none that can be understood.
    pub(crate) fn state(&self) -> Result<Option<IndexState>> {
        let bytes = self.db.get_pinned(STATE_KEY).map_err(|error| self.failed(READING, error))?;
        Ok(bytes.and_then(|bytes| decode_state(&bytes)))
    }

    /// Entries, approximately.
    pub(crate) fn len_estimate(&self) -> Result<u64> {
        let count = self.db.property_int_value(rocksdb::properties::ESTIMATE_NUM_KEYS);
        Ok(count.map_err(|error| self.failed(READING, error))?.unwrap_or_default())
    }

    /// A place in a live pack for each id.
    pub(crate) fn lookup(
        &self,
        ids: &[ChunkId],
        is_live: IsLive<'_>,
    ) -> Result<Vec<Option<Location>>> {
        let mut found = vec![None; ids.len()];
        let mut sorted: Vec<(&ChunkId, &mut Option<Location>)> =
            ids.iter().zip(&mut found).collect();
        sorted.sort_unstable_by_key(|(id, _)| **id);
        for batch in sorted.chunks_mut(LOOKUP_BATCH) {
            let newest = self.newest(batch.iter().map(|(id, _)| *id))?;
            for ((id, slot), newest) in batch.iter_mut().zip(newest) {
                **slot = match newest {
                    Some(place) if !is_live(&place.pack) => self.older(id, is_live)?,
                    other => other,
                };
            }
        }
        drop(sorted);
        Ok(found)
    }

    /// The newest place of each id; the ids must be sorted.
    fn newest<'a>(&self, ids: impl Iterator<Item = &'a ChunkId>) -> Result<Vec<Option<Location>>> {
        let values = self.db.batched_multi_get_cf(self.family(), ids.map(ChunkId::as_bytes), true);
        let places = values.into_iter().map(|value| {
            let value = value.map_err(|error| self.failed(READING, error))?;
            value.map(|bytes| self.place(&bytes)).transpose()
        });
        places.collect()
    }

    fn family(&self) -> &ColumnFamily {
        self.db.cf_handle(FAMILY).expect("it was named when the database was opened")
    }

    /// A place in a live pack among those that are not the newest.
    fn older(&self, id: &ChunkId, is_live: IsLive<'_>) -> Result<Option<Location>> {
        let first = older_key(id, &PackId::from_bytes([0; PackId::LEN]));
        let mut range = ReadOptions::default();
        let end = [&older_key(id, &PackId::from_bytes([0xff; PackId::LEN]))[..], &[0]].concat();
        range.set_iterate_upper_bound(end);
        let mut cursor = self.db.raw_iterator_opt(range);
        cursor.seek(first);
        while let Some(value) = cursor.value() {
            let place = self.place(value)?;
            if is_live(&place.pack) {
                return Ok(Some(place));
            }
            cursor.next();
        }
        cursor.status().map_err(|error| self.failed(READING, error))?;
        Ok(None)
    }

    fn place(&self, bytes: &[u8]) -> Result<Location> {
        Location::decode(bytes).ok_or_else(|| {
            Error::damaged(
                "index",
                format!("a place of {} bytes at {}", bytes.len(), self.path.display()),
            )
        })
    }

    /// Adds places and moves to the state. The state is written last or in the same batch, and all is flushed, so after
    /// a crash the index has the state and all its places, or the state before.
    pub(crate) fn apply(
        &self,
        additions: &[Entry],
        state: IndexState,
        bulk: Option<&Path>,
    ) -> Result<()> {
        let mut additions = additions.to_vec();
        additions.sort_by_key(|(id, _)| *id);
        let groups =
            Groups { database: self, additions: &additions, ready: Vec::new().into_iter() };
        let mut batch = WriteBatch::default();
        match bulk {
            Some(folder) => self.add_tables(groups, folder)?,
            None => {
                for group in groups {
                    let never: Result<(), std::convert::Infallible> = group?.write(|key, value| {
                        batch.put(key, value);
                        Ok(())
                    });
                    let Ok(()) = never;
                }
            }
        }
        batch.put(STATE_KEY, encode_state(&state));
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        let written = self.db.write_opt(batch, &unlogged).and_then(|()| self.db.flush());
        written.map_err(|error| self.failed(WRITING, error))
    }

    /// Fills the empty database from sorted entries and sets the state.
    pub(crate) fn fill(
        &self,
        entries: impl Iterator<Item = Result<Entry>>,
        state: IndexState,
        folder: &Path,
    ) -> Result<()> {
        self.add_tables(grouped(entries), folder)?;
        self.apply(&[], state, None)
    }

    /// Writes groups, which come in ascending order, as sorted tables and takes those in.
    fn add_tables(&self, groups: impl Iterator<Item = Result<Group>>, folder: &Path) -> Result<()> {
        let writing = |error| self.failed(WRITING, error);
        let mut tables: Vec<PathBuf> = Vec::new();
        let mut table: Option<(SstFileWriter<'_>, usize)> = None;
        for group in groups {
            let mut pairs = 0;
            let group = group?;
            let (writer, entries) = match &mut table {
                Some(open) => open,
                None => {
                    let path = folder.join(format!("table-{}.sst", tables.len()));
                    let writer = SstFileWriter::create(&self.options);
                    writer.open(&path).map_err(writing)?;
                    tables.push(path);
                    table.insert((writer, 0))
                }
            };
            let put = group.write(|key, value| {
                pairs += 1;
                writer.put(key, value)
            });
            put.map_err(writing)?;
            *entries += pairs;
            if *entries >= TABLE_ENTRIES {
                let (mut full, _) = table.take().expect("it is open");
                full.finish().map_err(writing)?;
            }
        }
        match table {
            // A table without entries cannot be finished: nothing was new.
            Some((_, 0)) => drop(tables.pop()),
            Some((mut last, _)) => last.finish().map_err(writing)?,
            None => {}
        }
        if tables.is_empty() {
            return Ok(());
        }
        let mut ingest = IngestExternalFileOptions::default();
        ingest.set_move_files(true);
        self.db.ingest_external_file_opts(&ingest, tables).map_err(writing)
    }

    /// Says what failed: damage where the stored bytes are at fault, otherwise the operating system.
    pub(crate) fn failed(&self, action: &'static str, error: rocksdb::Error) -> Error {
        failed(action, &self.path, error)
    }
}

/// Says what failed: damage where the stored bytes are at fault, otherwise the operating system.
pub(crate) fn failed(action: &'static str, path: &Path, error: rocksdb::Error) -> Error {
    let gone = error.as_ref().contains("No such file");
    match error.kind() {
        ErrorKind::IOError if !gone => {
            Error::io(action, path.display(), io::Error::other(error.into_string()))
        }
        _ => Error::damaged("index", format!("{}: {}", path.display(), error.into_string())),
    }
}

/// Groups of sorted additions, each begun with what the database knows; asks for a batch of chunks at a time.
struct Groups<'a> {
    database: &'a Database,
    additions: &'a [Entry],
    ready: std::vec::IntoIter<Group>,
}

impl Groups<'_> {
    fn refill(&mut self) -> Result<()> {
        let same_id = |a: &Entry, b: &Entry| a.0 == b.0;
        let runs: Vec<&[Entry]> = self.additions.chunk_by(same_id).take(LOOKUP_BATCH).collect();
        let ids = runs.iter().filter_map(|run| run.first()).map(|(id, _)| id);
        let newest = self.database.newest(ids)?;
        let groups = runs.iter().zip(newest).filter_map(|(run, before)| {
            let mut group = Group::new(run.first()?.0, before);
            run.iter().for_each(|(_, place)| group.add(*place));
            Some(group)
        });
        self.ready = groups.collect::<Vec<_>>().into_iter();
        let taken = runs.iter().map(|run| run.len()).sum();
        self.additions = self.additions.get(taken..).unwrap_or_default();
        Ok(())
    }
}

impl Iterator for Groups<'_> {
    type Item = Result<Group>;

    fn next(&mut self) -> Option<Result<Group>> {
        if self.ready.len() == 0
            && !self.additions.is_empty()
            && let Err(error) = self.refill()
        {
            return Some(Err(error));
        }
        self.ready.next().map(Ok)
    }
}

/// Groups of sorted entries of which nothing is known before.
fn grouped(entries: impl Iterator<Item = Result<Entry>>) -> impl Iterator<Item = Result<Group>> {
    let mut entries = entries.peekable();
    std::iter::from_fn(move || {
        let (id, place) = match entries.next()? {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error)),
        };
        let mut group = Group::new(id, None);
        group.add(place);
        while let Some(Ok((_, place))) =
            entries.next_if(|next| matches!(next, Ok((next, _)) if *next == id))
        {
            group.add(place);
        }
        Some(Ok(group))
    })
}

fn family(options: &Options) -> ColumnFamilyDescriptor {
    ColumnFamilyDescriptor::new(FAMILY, options.clone())
}

fn options(settings: Settings) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(settings.cache_bytes));
    table.set_bloom_filter(10.0, false);
    // Filters and indexes of large tables are cut into pages that live in the cache, so memory stays bounded.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_top_level_index_and_filter(true);
    table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    // Ids and pack names are random: there is nothing to compress.
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(16 << 20);
    options.set_max_background_jobs(2);
    options.set_max_file_opening_threads(1);
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_manifest_preallocation_size(64 << 10);
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Error, |_, text| {
        tracing::debug!(text, "rocksdb");
    }));
    options
}
