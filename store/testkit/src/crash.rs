//! A backend that records what happened when, and enumerates every state in which a crash could have left it.
//!
//! The model: an operation that was acknowledged before the crash holds; one in flight has happened or not, whole or
//! not at all (that is what [`ObjectWriter::finish`] promises; the local backend's own tests show that it keeps the
//! promise). Bytes of unfinished writers are gone. Removals are weaker: nothing syncs them, so even an acknowledged
//! one may be undone by the crash, or may arrive late.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use stillpoint_store::backend::{
    Backend, Contents, MemoryBackend, ObjectBytes, ObjectWriter, Swap,
};
use stillpoint_store::{ObjectKind, ObjectName, Result};

/// Up to this many operations in flight all their subsets are enumerated; beyond it none, all, each one alone and all
/// but each one.
pub const EXHAUSTIVE_MAX: usize = 6;

#[derive(Debug, Clone)]
enum Change {
    Put(ObjectName, Arc<Vec<u8>>),
    Remove(ObjectName),
    Head { expected: Option<Vec<u8>>, new: Vec<u8> },
    Mark(String),
}

/// One operation: what it changed, and between which two moments it was in flight.
#[derive(Debug, Clone)]
struct Operation {
    change: Change,
    begun: usize,
    /// None: it never returned, or it failed without saying what it did.
    ended: Option<usize>,
}

#[derive(Debug, Default)]
struct Trace {
    /// The number of moments so far; each begin and each end is one.
    moments: usize,
    /// In the order in which they took effect. An operation without effect is not kept.
    operations: Vec<Operation>,
}

/// A backend in memory that records its operations. Clones share the record.
#[derive(Debug, Clone)]
pub struct CrashBackend {
    start: Contents,
    inner: MemoryBackend,
    trace: Arc<Mutex<Trace>>,
}

/// One state in which a crash could have left the storage.
#[derive(Debug, Clone)]
pub struct CrashImage {
    /// What is stored.
    pub contents: Contents,
    /// The marks set before the crash: what the program had been told was done.
    pub marks: Vec<String>,
    /// Removals that were asked for and have not happened in this image; each may still arrive at any later time.
    pub late_removals: Vec<ObjectName>,
    /// Which moment and which operations in flight, for failure messages.
    pub label: String,
}

impl CrashImage {
    /// A backend that begins with this image.
    pub fn backend(&self) -> MemoryBackend {
        MemoryBackend::with_contents(self.contents.clone())
    }

    /// Lets the late removals arrive.
    pub fn remove_late(&self, backend: &dyn Backend) -> Result<()> {
        self.late_removals.iter().try_for_each(|name| backend.remove(name))
    }
}

impl CrashBackend {
    /// Records from these contents on.
    pub fn new(start: Contents) -> Self {
        let inner = MemoryBackend::with_contents(start.clone());
        Self { start, inner, trace: Arc::default() }
    }

    /// Records that something was acknowledged to the user at this moment.
    pub fn mark(&self, text: impl Into<String>) {
        let mut trace = self.lock();
        let begun = trace.next_moment();
        let change = Change::Mark(text.into());
        trace.operations.push(Operation { change, begun, ended: Some(begun) });
    }

    /// Every image of a crash at every moment so far. Neighbouring equal images are given once.
    pub fn images(&self) -> Vec<CrashImage> {
        let trace = self.lock();
        let mut images: Vec<CrashImage> = Vec::new();
        for moment in 0..=trace.moments {
            for image in images_at(&self.start, &trace.operations, moment) {
                let same = |other: &CrashImage| {
                    other.contents == image.contents
                        && other.marks == image.marks
                        && other.late_removals == image.late_removals
                };
                // Only images of the last few moments can be equal to this one.
                if !images.iter().rev().take(1 << EXHAUSTIVE_MAX).any(same) {
                    images.push(image);
                }
            }
        }
        images
    }

    fn writer(&self, name: &ObjectName, inner: Box<dyn ObjectWriter>) -> Box<dyn ObjectWriter> {
        Box::new(CrashWriter { backend: self.clone(), name: *name, bytes: Vec::new(), inner })
    }

    fn lock(&self) -> MutexGuard<'_, Trace> {
        self.trace.lock().expect("no panic while the trace is locked")
    }

    /// Runs an operation and records it if it took effect.
    fn record<T>(
        &self,
        run: impl FnOnce() -> Result<T>,
        change: impl FnOnce(&T) -> Option<Change>,
    ) -> Result<T> {
        let begun = self.lock().next_moment();
        let mut effect = None;
        let outcome = {
            // The order of the list is the order of the effects, so both happen under one lock.
            let mut trace = self.lock();
            let outcome = run();
            if let Some(change) = outcome.as_ref().ok().and_then(change) {
                effect = Some(trace.operations.len());
                trace.operations.push(Operation { change, begun, ended: None });
            }
            outcome
        };
        let mut trace = self.lock();
        let ended = trace.next_moment();
        if let Some(operation) = effect.and_then(|at| trace.operations.get_mut(at)) {
            operation.ended = Some(ended);
        }
        outcome
    }
}

impl Trace {
    fn next_moment(&mut self) -> usize {
        self.moments += 1;
        self.moments
    }
}

/// All images of a crash right after this moment.
fn images_at(start: &Contents, operations: &[Operation], moment: usize) -> Vec<CrashImage> {
    let begun: Vec<&Operation> = operations.iter().filter(|op| op.begun <= moment).collect();
    let open: Vec<usize> = (0..begun.len())
        .filter(|at| {
            let acknowledged = begun[*at].ended.is_some_and(|ended| ended <= moment);
            !acknowledged || matches!(begun[*at].change, Change::Remove(_))
        })
        .collect();
    let images = subsets(open.len()).into_iter().filter_map(|chosen| {
        let happened = |at: usize| match open.iter().position(|open| *open == at) {
            Some(position) => chosen[position],
            None => true,
        };
        image(start, &begun, happened, moment)
    });
    images.collect()
}

/// Which of the operations in flight happened, one list of answers for each image.
fn subsets(count: usize) -> Vec<Vec<bool>> {
    if count <= EXHAUSTIVE_MAX {
        let all = 0..1usize << count;
        return all.map(|bits| (0..count).map(|at| bits >> at & 1 == 1).collect()).collect();
    }
    let alone = (0..count).map(|one| (0..count).map(|at| at == one).collect());
    let but = (0..count).map(|one| (0..count).map(|at| at != one).collect());
    [vec![false; count], vec![true; count]].into_iter().chain(alone).chain(but).collect()
}

/// The image in which these operations happened; None where that cannot be (a head that replaces one that never was).
fn image(
    start: &Contents,
    begun: &[&Operation],
    happened: impl Fn(usize) -> bool,
    moment: usize,
) -> Option<CrashImage> {
    let mut contents = start.clone();
    let (mut marks, mut late_removals, mut label) = (Vec::new(), Vec::new(), String::new());
    for (at, operation) in begun.iter().enumerate() {
        let open = operation.ended.is_none_or(|ended| ended > moment);
        if open && happened(at) {
            label.push_str(&format!(", with {}", describe(&operation.change)));
        }
        match (&operation.change, happened(at)) {
            (Change::Mark(text), _) => marks.push(text.clone()),
            (Change::Put(name, bytes), true) => {
                contents.objects.insert(*name, bytes.clone());
            }
            (Change::Remove(name), true) => {
                contents.objects.remove(name);
            }
            (Change::Remove(name), false) => late_removals.push(*name),
            (Change::Head { expected, new }, true) => {
                if contents.head != *expected {
                    return None;
                }
                contents.head = Some(new.clone());
            }
            (Change::Put(..) | Change::Head { .. }, false) => {}
        }
    }
    let late = late_removals.len();
    let label = format!("crash at moment {moment}{label}; {late} removals undone");
    Some(CrashImage { contents, marks, late_removals, label })
}

fn describe(change: &Change) -> String {
    match change {
        Change::Put(name, bytes) => format!("{name} ({} bytes)", bytes.len()),
        Change::Remove(name) => format!("removal of {name}"),
        Change::Head { new, .. } => format!("head ({} bytes)", new.len()),
        Change::Mark(text) => text.clone(),
    }
}

struct CrashWriter {
    backend: CrashBackend,
    name: ObjectName,
    bytes: Vec<u8>,
    inner: Box<dyn ObjectWriter>,
}

impl ObjectWriter for CrashWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        self.inner.write(bytes)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let Self { backend, name, bytes, inner } = *self;
        let bytes = Arc::new(bytes);
        backend.record(|| inner.finish(), |()| Some(Change::Put(name, bytes)))
    }
}

impl Backend for CrashBackend {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn initialise(&self) -> Result<()> {
        self.inner.initialise()
    }

    fn create(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        Ok(self.writer(name, self.inner.create(name)?))
    }

    fn replace(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        Ok(self.writer(name, self.inner.replace(name)?))
    }

    fn read(&self, name: &ObjectName, range: Range<u64>) -> Result<ObjectBytes> {
        self.inner.read(name, range)
    }

    fn size_bytes(&self, name: &ObjectName) -> Result<Option<u64>> {
        self.inner.size_bytes(name)
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(ObjectName, u64)>> {
        self.inner.list(kind)
    }

    fn remove(&self, name: &ObjectName) -> Result<()> {
        let existed = self.inner.size_bytes(name)?.is_some();
        self.record(|| self.inner.remove(name), |()| existed.then_some(Change::Remove(*name)))
    }

    fn read_head(&self) -> Result<Option<Vec<u8>>> {
        self.inner.read_head()
    }

    fn swap_head(&self, expected: Option<&[u8]>, new: &[u8]) -> Result<Swap> {
        let change = |swap: &Swap| {
            let (expected, new) = (expected.map(<[u8]>::to_vec), new.to_vec());
            (*swap == Swap::Done).then_some(Change::Head { expected, new })
        };
        self.record(|| self.inner.swap_head(expected, new), change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use stillpoint_store::PackId;

    fn put(number: u8, begun: usize, ended: usize) -> Operation {
        let name = ObjectName::Pack(PackId::from_bytes([number; 16]));
        Operation { change: Change::Put(name, Arc::default()), begun, ended: Some(ended) }
    }

    fn head(expected: Option<u8>, new: u8, begun: usize, ended: usize) -> Operation {
        let expected = expected.map(|byte| vec![byte]);
        Operation { change: Change::Head { expected, new: vec![new] }, begun, ended: Some(ended) }
    }

    fn states(operations: &[Operation], moment: usize) -> BTreeSet<(usize, Option<Vec<u8>>)> {
        let images = images_at(&Contents::default(), operations, moment);
        images
            .into_iter()
            .map(|image| (image.contents.objects.len(), image.contents.head))
            .collect()
    }

    /// Operations in flight together may each have happened or not; acknowledged ones hold.
    #[test]
    fn all_subsets_of_what_is_in_flight() {
        let operations = [put(1, 1, 3), put(2, 2, 5), put(3, 4, 6)];
        let counts = |moment| states(&operations, moment).into_iter().map(|(n, _)| n).collect();
        let wanted: [BTreeSet<usize>; 7] = [
            BTreeSet::from([0]),
            BTreeSet::from([0, 1]),
            BTreeSet::from([0, 1, 2]),
            BTreeSet::from([1, 2]),
            BTreeSet::from([1, 2, 3]),
            BTreeSet::from([2, 3]),
            BTreeSet::from([3]),
        ];
        assert_eq!(std::array::from_fn::<BTreeSet<usize>, 7, _>(counts), wanted);
        assert_eq!(images_at(&Contents::default(), &operations, 2).len(), 4);
    }

    /// A head never follows one that did not happen.
    #[test]
    fn heads_form_a_chain() {
        let operations = [head(None, 1, 1, 4), head(Some(1), 2, 2, 3)];
        let at_2 = [(0, None), (0, Some(vec![1])), (0, Some(vec![2]))];
        assert_eq!(states(&operations, 2), BTreeSet::from(at_2));
        // The second was acknowledged, so the first happened, although nobody has said so.
        assert_eq!(states(&operations, 3), BTreeSet::from([(0, Some(vec![2]))]));
    }

    /// Beyond the limit there are a few images instead of all.
    #[test]
    fn many_in_flight_are_sampled() {
        let count = EXHAUSTIVE_MAX + 3;
        let operations: Vec<_> = (1u8..).take(count).map(|number| put(number, 1, 2)).collect();
        assert_eq!(images_at(&Contents::default(), &operations, 1).len(), 2 + 2 * count);
        assert_eq!(images_at(&Contents::default(), &operations[..EXHAUSTIVE_MAX], 1).len(), 64);
    }
}
