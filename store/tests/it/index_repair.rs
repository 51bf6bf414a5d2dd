//! An index is a cache: damaged in use, incomplete, foreign or ahead, it is rebuilt, and the user hears of it once.

use crate::lab::{self, assert_whole, files, memory, restore_by_id, secret, snapshot};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use stillpoint_store::index::{Index, IndexState, IsLive, Location, MemoryIndex};
use stillpoint_store::repository::OpenedIndex;
use stillpoint_store::{Cancel, ChunkId, Error, OpenOptions, Repository, Result};

/// An index in memory that is damaged until it is rebuilt.
struct Fragile {
    inner: Arc<MemoryIndex>,
    damaged: AtomicBool,
}

impl Fragile {
    fn guard(&self) -> Result<()> {
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
    let inner = Arc::clone(inner);
    OpenOptions {
        cache_dir: Some(dir.to_path_buf()),
        index: Arc::new(move |_| {
            let damaged = AtomicBool::new(damaged);
            let index = Box::new(Fragile { inner: Arc::clone(&inner), damaged });
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
