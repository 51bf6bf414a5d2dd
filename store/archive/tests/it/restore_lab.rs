//! A laboratory for restores: snapshots drafted entry by entry, so that tests say exactly what a manifest holds,
//! impossible things included.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stillpoint_archive::Silent;
use stillpoint_archive::entry::{CONTENT_ITEMS_MAX, INLINE_BYTES_MAX};
use stillpoint_archive::path::path_from_key;
use stillpoint_archive::restore::{RestoreOptions, RestoreReport, restore};
use stillpoint_archive::{Content, ContentItem, ContentSchema, Entry, EntryKind, ManifestSchema};
use stillpoint_chunker::Profile;
use stillpoint_store::backend::MemoryBackend;
use stillpoint_store::check::CheckOptions;
use stillpoint_store::record::{KdfCost, Secret};
use stillpoint_store::repository::CreateOptions;
use stillpoint_store::tree::{Builder, Root};
use stillpoint_store::{OpenOptions, Repository, SnapshotRecord, SystemEnv, Timestamp};
use stillpoint_store::{WriteOptions, Writer};

/// A repository in memory and a directory on disk.
pub struct Lab {
    pub backend: Arc<MemoryBackend>,
    pub repository: Arc<Repository>,
    pub base: tempfile::TempDir,
}

/// A piece of a file's content.
#[derive(Clone)]
pub enum Piece {
    Data(Vec<u8>),
    Hole(u64),
    /// The same single chunk, several times.
    Repeated(Vec<u8>, u64),
}

/// What a snapshot will hold.
#[derive(Clone, Default)]
pub struct Draft {
    pub entries: BTreeMap<Vec<u8>, (Entry, Vec<Piece>)>,
}

pub fn key(path: impl AsRef<[u8]>) -> Vec<u8> {
    path.as_ref().iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect()
}

/// Bytes that do not compress and do not repeat.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    stillpoint_testkit::Random::new(seed).bytes(len)
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Lab {
    pub fn new() -> Self {
        let backend = Arc::new(MemoryBackend::new());
        let options = CreateOptions { kdf: KdfCost::LEAST, ..CreateOptions::default() };
        let repository = Repository::create(
            backend.clone(),
            Arc::new(SystemEnv),
            &Secret::key_file(&[7; 64]),
            &options,
            OpenOptions::in_memory(),
        );
        Self { backend, repository: repository.unwrap(), base: tempfile::tempdir().unwrap() }
    }

    pub fn target(&self) -> PathBuf {
        self.base.path().join("target")
    }

    pub fn options(&self, root: Root) -> RestoreOptions {
        RestoreOptions::new(root, self.target())
    }

    pub fn restore(&self, options: &RestoreOptions) -> RestoreReport {
        restore(&self.repository, options, &Silent).unwrap()
    }

    /// Restores into a fresh target and expects neither problems nor warnings.
    pub fn restore_cleanly(&self, options: &RestoreOptions) -> RestoreReport {
        let report = self.restore(options);
        assert_eq!(report.problems, [], "problems");
        assert_eq!(report.warnings, [], "warnings");
        report
    }

    /// Every test that wrote a repository ends by checking it.
    pub fn assert_whole(&self) {
        let report = self.repository.check(CheckOptions::read_all(), &|_, _| {}).unwrap();
        assert_eq!(report.findings, []);
    }
}

impl Draft {
    /// Puts an entry in, owned by whoever runs the test, with a time of its own.
    pub fn put(&mut self, path: &str, mode: u32, kind: EntryKind) -> &mut Entry {
        let number = u32::try_from(self.entries.len()).unwrap();
        let entry = Entry {
            kind,
            mode,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime: Timestamp { seconds: 1_600_000_000 + i64::from(number), nanos: number },
            inode: u64::from(number) + 1,
            device: 1,
            nlink: 1,
            ..Entry::default()
        };
        let slot = self.entries.entry(key(path)).or_insert((entry.clone(), Vec::new()));
        *slot = (entry, Vec::new());
        &mut slot.0
    }

    pub fn dir(&mut self, path: &str) -> &mut Entry {
        self.put(path, 0o755, EntryKind::Directory)
    }

    pub fn file(&mut self, path: &str, bytes: impl Into<Vec<u8>>) -> &mut Entry {
        self.pieces(path, vec![Piece::Data(bytes.into())])
    }

    pub fn pieces(&mut self, path: &str, pieces: Vec<Piece>) -> &mut Entry {
        let size = |piece: &Piece| match piece {
            Piece::Data(bytes) => bytes.len() as u64,
            Piece::Hole(len) => *len,
            Piece::Repeated(bytes, times) => bytes.len() as u64 * times,
        };
        let total = pieces.iter().map(size).sum();
        self.put(path, 0o644, EntryKind::File(Content::Inline(Vec::new())));
        let (entry, slot) = self.entries.get_mut(&key(path)).unwrap();
        *slot = pieces;
        entry.size = total;
        entry
    }

    pub fn symlink(&mut self, path: &str, target: &str) -> &mut Entry {
        let target = target.as_bytes().to_vec();
        self.put(path, 0o777, EntryKind::Symlink { target })
    }

    /// Makes `names` hard links of one file.
    pub fn linked(&mut self, names: &[&str], bytes: &[u8]) {
        for name in names {
            let entry = self.file(name, bytes);
            entry.nlink = u32::try_from(names.len()).unwrap();
            (entry.device, entry.inode) = (9, 1000 + bytes.len() as u64);
            entry.mtime = Timestamp { seconds: 1_500_000_000, nanos: 5 };
        }
    }

    /// Commits the draft as a snapshot; gives its manifest.
    pub fn commit(&self, lab: &Lab) -> Root {
        let writer = lab.repository.writer(WriteOptions::default()).unwrap();
        let root = self.write(&lab.repository, &writer);
        let record = SnapshotRecord::new(lab.repository.env().now(), root);
        writer.commit(record).unwrap();
        root
    }

    fn write(&self, repository: &Repository, writer: &Writer) -> Root {
        let params = repository.tree_params();
        let mut sink = writer.node_sink();
        let mut values = Vec::new();
        for (key, (entry, pieces)) in &self.entries {
            let mut entry = entry.clone();
            if let EntryKind::File(content) = &mut entry.kind {
                *content = write_content(repository, writer, pieces);
            }
            values.push((key.clone(), entry.to_bytes()));
        }
        let mut manifest = Builder::<ManifestSchema>::new(&params, &mut sink);
        for (key, value) in values {
            manifest.push(&key, &value).unwrap();
        }
        manifest.finish().unwrap()
    }

    /// The bytes that a file should have.
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        let mut all = Vec::new();
        for piece in &self.entries[&key(path)].1 {
            match piece {
                Piece::Data(bytes) => all.extend_from_slice(bytes),
                Piece::Hole(len) => all.resize(all.len() + *len as usize, 0),
                Piece::Repeated(bytes, times) => {
                    (0..*times).for_each(|_| all.extend_from_slice(bytes));
                }
            }
        }
        all
    }

    /// Asserts that `dir` holds exactly this.
    pub fn assert_restored(&self, dir: &Path) {
        for (key, (entry, _)) in &self.entries {
            let below = path_from_key(key);
            let below = below.strip_prefix("/").unwrap();
            assert_entry(entry, &dir.join(below));
            if entry.is_file() {
                let text = String::from_utf8(key.clone()).unwrap();
                let bytes = std::fs::read(dir.join(below)).unwrap();
                assert!(bytes == self.bytes(&text.replace('\0', "/")), "content of {below:?}");
            }
        }
        assert_eq!(count(dir), self.entries.keys().filter(|key| !key.is_empty()).count());
    }
}

fn write_content(repository: &Repository, writer: &Writer, pieces: &[Piece]) -> Content {
    let chunker = repository.chunker(Profile::General).unwrap();
    if let [Piece::Data(bytes)] = pieces
        && bytes.len() <= INLINE_BYTES_MAX
    {
        return Content::Inline(bytes.clone());
    }
    let mut items = Vec::new();
    for piece in pieces {
        let (bytes, times) = match piece {
            Piece::Data(bytes) => (bytes, 1),
            Piece::Repeated(bytes, times) => (bytes, *times),
            Piece::Hole(len) => {
                items.push(ContentItem::Hole { len: *len });
                continue;
            }
        };
        let batch = chunker.chunk_slice(bytes.clone());
        writer.add_data(&batch).unwrap();
        for _ in 0..times {
            for chunk in &batch.chunks {
                items.push(ContentItem::Data { id: chunk.id, len: chunk.len });
            }
        }
    }
    if items.len() <= CONTENT_ITEMS_MAX {
        return Content::Chunks(items);
    }
    let (params, mut sink) = (repository.tree_params(), writer.node_sink());
    let mut tree = Builder::<ContentSchema>::new(&params, &mut sink);
    for item in &items {
        let mut value = Vec::new();
        item.encode(&mut value);
        tree.push(&[], &value).unwrap();
    }
    Content::Tree(tree.finish().unwrap())
}

fn assert_entry(entry: &Entry, path: &Path) {
    let found = path.symlink_metadata().unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let kind = found.file_type();
    let fits = match &entry.kind {
        EntryKind::File(_) => kind.is_file(),
        EntryKind::Directory => kind.is_dir(),
        EntryKind::Symlink { target } => {
            kind.is_symlink() && std::fs::read_link(path).unwrap().as_os_str().as_bytes() == target
        }
        EntryKind::Fifo => kind.is_fifo(),
        EntryKind::Socket => kind.is_socket(),
        EntryKind::CharDevice { major, minor } => {
            kind.is_char_device() && found.rdev() == rustix::fs::makedev(*major, *minor)
        }
        EntryKind::BlockDevice { major, minor } => {
            kind.is_block_device() && found.rdev() == rustix::fs::makedev(*major, *minor)
        }
    };
    assert!(fits, "kind of {path:?}");
    if !kind.is_symlink() {
        assert_eq!(found.mode() & 0o7777, entry.mode, "mode of {path:?}");
    }
    assert_eq!((found.uid(), found.gid()), (entry.uid, entry.gid), "owner of {path:?}");
    let time = (found.mtime(), found.mtime_nsec());
    assert_eq!(time, (entry.mtime.seconds, i64::from(entry.mtime.nanos)), "time of {path:?}");
    if entry.is_file() {
        assert_eq!(found.len(), entry.size, "size of {path:?}");
    }
}

/// How many names there are below a directory; links are not followed.
pub fn count(dir: &Path) -> usize {
    walkdir::WalkDir::new(dir).min_depth(1).into_iter().map(Result::unwrap).count()
}

/// Every name below a directory with its content, for comparing a place before and after.
pub fn picture(dir: &Path) -> BTreeMap<PathBuf, (u32, u32, i64, Vec<u8>)> {
    walkdir::WalkDir::new(dir)
        .into_iter()
        .map(|found| {
            let found = found.unwrap();
            let meta = found.path().symlink_metadata().unwrap();
            let bytes = if meta.is_file() { std::fs::read(found.path()).unwrap() } else { vec![] };
            (found.path().to_owned(), (meta.mode(), meta.uid(), meta.mtime(), bytes))
        })
        .collect()
}
