//! An index is a cache: damaged in use, incomplete, foreign or ahead, it is rebuilt, and the user hears of it once.

use crate::lab::{self, assert_whole, files, memory, restore_by_id, secret, snapshot};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use stillpoint_store::index::{Index, IndexState, IsLive, Location, MemoryIndex};
use stillpoint_store::repository::OpenedIndex;
use stillpoint_store::{Cancel, ChunkId, Error, OpenOptions, Repository, Result, WriteOptions};

/// An index in memory that is damaged until it is rebuilt, or cannot be read once.
struct Fragile {
    inner: Arc<MemoryIndex>,
    damaged: AtomicBool,
    unreadable_once: AtomicBool,
}

impl Fragile {
    fn guard(&self) -> Result<()> {
        if self.unreadable_once.swap(false, Ordering::Relaxed) {
            let source = std::io::Error::from_raw_os_error(5);
            return Err(Error::Io { action: "reading", object: "index".into(), source });
        }
        if self.damaged.load(Ordering::Relaxed) {
            return Err(Error::damaged("index", "a test says so"));
        }
        Ok(())
    }
}

impl Index for Fragile {
    fn state(&self) -> Result<Option<IndexState>> {
        self.inner.state()
    }

    fn lookup(&self, ids: &[ChunkId], is_live: IsLive<'_>) -> Result<Vec<Option<Location>>> {
        self.guard()?;
        self.inner.lookup(ids, is_live)
    }

    fn apply(&self, additions: &[(ChunkId, Location)], state: IndexState) -> Result<()> {
        self.guard()?;
        self.inner.apply(additions, state)
    }

    fn rebuild(
        &self,
        entries: &mut dyn Iterator<Item = Result<(ChunkId, Location)>>,
        state: IndexState,
    ) -> Result<()> {
        self.damaged.store(false, Ordering::Relaxed);
        self.inner.rebuild(entries, state)
    }

    fn len_estimate(&self) -> Result<u64> {
        self.inner.len_estimate()
    }
}

fn options(inner: &Arc<MemoryIndex>, damaged: bool, dir: &Path) -> OpenOptions {
    options_with(inner, damaged, false, dir)
}

fn options_with(
    inner: &Arc<MemoryIndex>,
    damaged: bool,
    unreadable_once: bool,
    dir: &Path,
) -> OpenOptions {
    let inner = Arc::clone(inner);
    OpenOptions {
        cache_dir: Some(dir.to_path_buf()),
        index: Arc::new(move |_| {
            let damaged = AtomicBool::new(damaged);
            let unreadable_once = AtomicBool::new(unreadable_once);
            let index = Box::new(Fragile { inner: Arc::clone(&inner), damaged, unreadable_once });
            Ok(OpenedIndex { index, notice: None })
        }),
        cancel: Cancel::new(),
    }
}

/// Whatever is wrong with the index, the snapshot restores, another is taken, and one sentence says why.
#[test]
fn a_bad_index_is_rebuilt() {
    let cases = ["damaged", "empty", "foreign", "emptied behind our back", "ahead"];
    for case in cases {
        let (backend, env) = memory();
        let repository = lab::create(&backend, &env);
        let expected = files(0..30);
        let id = snapshot(&repository, &expected).unwrap();
        let right = repository.head().unwrap().index_state();
        let inner = Arc::new(MemoryIndex::new());
        match case {
            "damaged" | "emptied behind our back" => {
                inner.rebuild(&mut std::iter::empty(), right).unwrap();
            }
            "foreign" => {
                let other = lab::create(&memory().0, &env).head().unwrap().index_state();
                inner.rebuild(&mut std::iter::empty(), other).unwrap();
            }
            "ahead" => {
                let ahead = IndexState { seq: right.seq + 5, head_hash: [1; 32], ..right };
                inner.rebuild(&mut std::iter::empty(), ahead).unwrap();
            }
            _ => {}
        }
        let dir = tempfile::tempdir().unwrap();
        let options = options(&inner, case == "damaged", dir.path());
        let (backend, env) = (Arc::clone(&backend), Arc::clone(&env));
        let fresh = Repository::open(backend, env, &secret(), options).unwrap();
        assert_eq!(restore_by_id(&fresh, id).unwrap(), expected, "{case}");
        let again = snapshot(&fresh, &expected).unwrap();
        assert_eq!(restore_by_id(&fresh, again).unwrap(), expected, "{case}");
        let notices = fresh.notices();
        let quiet = case == "empty";
        assert_eq!(notices.len(), usize::from(!quiet), "{case}: {notices:?}");
        assert!(fresh.notices().is_empty(), "each notice is given once");
        assert_whole(&fresh);
    }
}

/// A host that saw a newer head hears that the storage was rolled back.
#[test]
fn a_rolled_back_head_is_noticed() {
    let (backend, env) = memory();
    let dir = tempfile::tempdir().unwrap();
    let inner = Arc::new(MemoryIndex::new());
    let open = || {
        let options = options(&inner, false, dir.path());
        Repository::open(Arc::clone(&backend), Arc::clone(&env), &secret(), options).unwrap()
    };
    lab::create(&backend, &env);
    let older = {
        let repository = open();
        snapshot(&repository, &files(0..3)).unwrap();
        backend.read_head().unwrap().unwrap()
    };
    let newer = {
        let repository = open();
        snapshot(&repository, &files(3..6)).unwrap();
        assert!(repository.notices().is_empty());
        backend.read_head().unwrap().unwrap()
    };
    backend.swap_head(Some(&newer), &older).unwrap();
    let repository = open();
    repository.snapshots().unwrap();
    let notices = repository.notices();
    assert!(notices.iter().any(|notice| notice.contains("rolled back")), "{notices:?}");
}

/// A session that met an error commits nothing, even if everything after the error went well.
#[test]
fn a_session_that_met_an_error_cannot_commit() {
    let (backend, env) = memory();
    snapshot(&lab::create(&backend, &env), &files(0..5)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = options_with(&Arc::new(MemoryIndex::new()), false, true, dir.path());
    let repository = Repository::open(backend, env, &secret(), options).unwrap();
    let writer = repository.writer(WriteOptions::default()).unwrap();
    let failed = lab::fill(&writer, &repository, &files(5..9));
    assert!(matches!(failed, Err(Error::Io { .. })));
    let record = lab::fill(&writer, &repository, &files(5..9)).unwrap();
    assert!(matches!(writer.commit(record), Err(Error::Invalid(_))));
    assert_eq!(repository.snapshots().unwrap().len(), 1);
    assert_whole(&repository);
}
