//! A small laboratory: a repository on a backend, and snapshots of plain maps from names to bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use stillpoint_chunker::Profile;
use stillpoint_store::backend::{Backend, MemoryBackend};
use stillpoint_store::check::CheckOptions;
use stillpoint_store::prune::{MaxUnused, PruneOptions};
use stillpoint_store::record::{KdfCost, Secret};
use stillpoint_store::repository::CreateOptions;
use stillpoint_store::tree::{Builder, Root, Schema, Tree};
use stillpoint_store::{
    ChunkId, Env, OpenOptions, Reader, Repository, Result, Snapshot, SnapshotId,
};
use stillpoint_store::{SnapshotRecord, SystemEnv, WriteOptions, Writer};

/// What a snapshot of the laboratory holds.
pub type Files = BTreeMap<Vec<u8>, Vec<u8>>;

/// Names map to lists of chunk ids.
pub struct LabSchema;

impl Schema for LabSchema {
    const NAME: &'static str = "lab";
    const ORDERED: bool = true;

    fn weight(_key: &[u8], value: &[u8]) -> u64 {
        value.len().try_into().unwrap()
    }

    fn references(_key: &[u8], value: &[u8], out: &mut Vec<ChunkId>) -> Result<()> {
        out.extend(ids(value));
        Ok(())
    }
}

fn ids(value: &[u8]) -> impl Iterator<Item = ChunkId> + '_ {
    value.chunks_exact(32).map(|id| ChunkId::from_bytes(id.try_into().unwrap()))
}

pub fn secret() -> Secret {
    Secret::key_file(&[7; 64])
}

pub fn create(backend: &Arc<dyn Backend>, env: &Arc<dyn Env>) -> Arc<Repository> {
    let options = CreateOptions { kdf: KdfCost::LEAST, ..CreateOptions::default() };
    let (backend, env) = (Arc::clone(backend), Arc::clone(env));
    Repository::create(backend, env, &secret(), &options, OpenOptions::in_memory()).unwrap()
}

pub fn open(backend: &Arc<dyn Backend>, env: &Arc<dyn Env>) -> Result<Arc<Repository>> {
    open_with(backend, env, &secret())
}

pub fn open_with(
    backend: &Arc<dyn Backend>,
    env: &Arc<dyn Env>,
    secret: &Secret,
) -> Result<Arc<Repository>> {
    let (backend, env) = (Arc::clone(backend), Arc::clone(env));
    Repository::open(backend, env, secret, OpenOptions::in_memory())
}

pub fn memory() -> (Arc<dyn Backend>, Arc<dyn Env>) {
    (Arc::new(MemoryBackend::new()), Arc::new(SystemEnv))
}

/// Puts the files into a session; gives what to commit.
pub fn fill(writer: &Writer, repository: &Repository, files: &Files) -> Result<SnapshotRecord> {
    let chunker = repository.chunker(Profile::General)?;
    let params = repository.tree_params();
    let mut sink = writer.node_sink();
    let mut manifest = Builder::<LabSchema>::new(&params, &mut sink);
    for (name, bytes) in files {
        let batch = chunker.chunk_slice(bytes.clone());
        writer.add_data(&batch)?;
        let value: Vec<u8> = batch.chunks.iter().flat_map(|chunk| *chunk.id.as_bytes()).collect();
        manifest.push(name, &value)?;
    }
    Ok(SnapshotRecord::new(repository.env().now(), manifest.finish()?))
}

pub fn snapshot(repository: &Arc<Repository>, files: &Files) -> Result<SnapshotId> {
    let writer = repository.writer(WriteOptions { threads: 2, ..WriteOptions::default() })?;
    let record = fill(&writer, repository, files)?;
    Ok(writer.commit(record)?.0)
}

/// Reads a snapshot back.
pub fn restore(repository: &Arc<Repository>, snapshot: &Snapshot) -> Result<Files> {
    restore_with(&repository.reader()?, snapshot.record.root)
}

/// Reads the files of a manifest.
pub fn restore_with(reader: &Reader, root: Root) -> Result<Files> {
    let tree = Tree::<LabSchema>::open(root, reader);
    let mut cursor = tree.iter()?;
    let mut files = Files::new();
    while let Some((name, value)) = cursor.peek() {
        let mut bytes = Vec::new();
        for id in ids(value) {
            bytes.extend_from_slice(&reader.chunk(&id)?);
        }
        files.insert(name.to_vec(), bytes);
        cursor.advance()?;
    }
    Ok(files)
}

pub fn restore_by_id(repository: &Arc<Repository>, id: SnapshotId) -> Result<Files> {
    restore(repository, &repository.find_snapshot(&id.to_string())?)
}

/// Reads each file of a snapshot as far as it can be read; gives the number of those that are as they should be. What is
/// read and is something else is a failure.
pub fn restore_what_is_there(
    repository: &Arc<Repository>,
    id: SnapshotId,
    expected: &Files,
) -> usize {
    let Ok(reader) = repository.reader() else { return 0 };
    let Ok(Some(entry)) = reader.view().snapshot(id) else { return 0 };
    let tree = Tree::<LabSchema>::open(entry.root, &reader);
    let mut exact = 0;
    for (name, bytes) in expected {
        let Ok(Some(value)) = tree.get(name) else { continue };
        let chunks: Result<Vec<_>> = ids(&value).map(|id| reader.chunk(&id)).collect();
        let Ok(chunks) = chunks else { continue };
        let read: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.to_vec()).collect();
        assert!(read == *bytes, "{} restores to something else", name.escape_ascii());
        exact += 1;
    }
    exact
}

/// Everything that may go goes at once.
pub fn prune_now() -> PruneOptions {
    PruneOptions {
        keep_forgotten: Duration::ZERO,
        grace: Duration::ZERO,
        orphan_grace: Duration::ZERO,
        max_unused: MaxUnused::Bytes(0),
        ..PruneOptions::default()
    }
}

/// Asserts that a full check finds nothing.
pub fn assert_whole(repository: &Arc<Repository>) {
    let report = repository.check(CheckOptions::read_all(), &|_, _| {}).unwrap();
    assert_eq!(report.findings, []);
}

/// Files of these seeds, a few hundred bytes to a few hundred KiB each, half of them compressible.
pub fn files(seeds: impl IntoIterator<Item = u64>) -> Files {
    seeds
        .into_iter()
        .map(|seed| {
            let mut random = stillpoint_testkit::Random::new(seed);
            let len = usize::try_from(seed * 7919 % 300_000).unwrap();
            let mut bytes = vec![0u8; len];
            random.fill(&mut bytes);
            if seed % 2 == 0 {
                bytes.iter_mut().for_each(|byte| *byte = b'a' + *byte % 4);
            }
            (format!("file-{seed:05}").into_bytes(), bytes)
        })
        .collect()
}
