//! A backend on which others act around each swap of the head, which counts reads, and which may be full.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use stillpoint_store::backend::{Backend, ObjectBytes, ObjectWriter, Swap};
use stillpoint_store::{Error, ObjectKind, ObjectName, Result};

/// Room that is set aside.
const RESERVE_BYTES: u64 = 64 << 10;

type Deed = Box<dyn FnOnce() + Send>;
type Witness = Box<dyn Fn(u64) + Send>;

/// The backend. Clones share everything.
#[derive(Clone)]
pub struct Watched(Arc<State>);

struct State {
    inner: Arc<dyn Backend>,
    before: Mutex<Option<Deed>>,
    after: Mutex<Option<Witness>>,
    /// Swaps since somebody watches them.
    swaps: AtomicU64,
    pack_reads: Mutex<BTreeMap<ObjectName, u64>>,
    /// Bytes that fit; what was set aside counts.
    capacity: AtomicU64,
    reserve: AtomicU64,
}

impl Watched {
    /// Watches this backend. There is room without end.
    pub fn new(inner: &Arc<dyn Backend>) -> Self {
        Self(Arc::new(State {
            inner: Arc::clone(inner),
            before: Mutex::new(None),
            after: Mutex::new(None),
            swaps: AtomicU64::new(0),
            pack_reads: Mutex::default(),
            capacity: AtomicU64::new(u64::MAX),
            reserve: AtomicU64::new(0),
        }))
    }

    /// Does this before the next swap.
    pub fn before_next_swap(&self, deed: impl FnOnce() + Send + 'static) {
        *self.0.before.lock().unwrap() = Some(Box::new(deed));
    }

    /// Does this after each swap from now on, which are counted from 1.
    pub fn after_each_swap(&self, witness: impl Fn(u64) + Send + 'static) {
        self.0.swaps.store(0, Ordering::SeqCst);
        *self.0.after.lock().unwrap() = Some(Box::new(witness));
    }

    /// How often each pack was read since the last call.
    pub fn take_pack_reads(&self) -> BTreeMap<ObjectName, u64> {
        std::mem::take(&mut self.0.pack_reads.lock().unwrap())
    }

    /// From now on no further byte fits; gives how many are there.
    pub fn fill(&self) -> u64 {
        let used = self.used();
        self.set_capacity(used);
        used
    }

    /// So many bytes fit.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.capacity.store(bytes, Ordering::SeqCst);
    }

    /// Whether room is set aside.
    pub fn has_reserve(&self) -> bool {
        self.0.reserve.load(Ordering::SeqCst) > 0
    }

    fn used(&self) -> u64 {
        let kinds = [ObjectKind::Pack, ObjectKind::Catalogue, ObjectKind::Snapshot];
        let lists = kinds.into_iter().flat_map(|kind| self.0.inner.list(kind).unwrap());
        lists.map(|(_, size)| size).sum::<u64>() + self.0.reserve.load(Ordering::SeqCst)
    }

    fn check_room(&self, object: &str, bytes: usize) -> Result<()> {
        let bytes = u64::try_from(bytes).unwrap();
        if self.used() + bytes <= self.0.capacity.load(Ordering::SeqCst) {
            return Ok(());
        }
        let source = std::io::ErrorKind::StorageFull.into();
        Err(Error::Io { action: "writing", object: object.into(), source })
    }
}

struct WatchedWriter {
    watched: Watched,
    name: ObjectName,
    inner: Box<dyn ObjectWriter>,
    len: usize,
}

impl ObjectWriter for WatchedWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.len += bytes.len();
        self.inner.write(bytes)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.watched.check_room(&self.name.to_string(), self.len)?;
        self.inner.finish()
    }
}

impl Backend for Watched {
    fn location(&self) -> String {
        self.0.inner.location()
    }

    fn initialise(&self) -> Result<()> {
        self.0.inner.initialise()
    }

    fn create(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        let inner = self.0.inner.create(name)?;
        Ok(Box::new(WatchedWriter { watched: self.clone(), name: *name, inner, len: 0 }))
    }

    fn read(&self, name: &ObjectName, range: Range<u64>) -> Result<ObjectBytes> {
        if name.kind() == ObjectKind::Pack {
            *self.0.pack_reads.lock().unwrap().entry(*name).or_default() += 1;
        }
        self.0.inner.read(name, range)
    }

    fn size_bytes(&self, name: &ObjectName) -> Result<Option<u64>> {
        self.0.inner.size_bytes(name)
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(ObjectName, u64)>> {
        self.0.inner.list(kind)
    }

    fn remove(&self, name: &ObjectName) -> Result<()> {
        self.0.inner.remove(name)
    }

    fn replace(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        self.0.inner.replace(name)
    }

    fn read_head(&self) -> Result<Option<Vec<u8>>> {
        self.0.inner.read_head()
    }

    fn swap_head(&self, expected: Option<&[u8]>, new: &[u8]) -> Result<Swap> {
        let deed = self.0.before.lock().unwrap().take();
        if let Some(deed) = deed {
            deed();
        }
        // The new head is written beside the old one, which goes only then.
        self.check_room("head", new.len())?;
        let swapped = self.0.inner.swap_head(expected, new);
        let number = self.0.swaps.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(witness) = &*self.0.after.lock().unwrap() {
            witness(number);
        }
        swapped
    }

    fn make_reserve(&self) -> Result<()> {
        if !self.has_reserve() {
            let bytes = usize::try_from(RESERVE_BYTES).unwrap();
            if self.check_room("reserve", bytes).is_ok() {
                self.0.reserve.store(RESERVE_BYTES, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    fn release_reserve(&self) -> Result<bool> {
        Ok(self.0.reserve.swap(0, Ordering::SeqCst) > 0)
    }
}
