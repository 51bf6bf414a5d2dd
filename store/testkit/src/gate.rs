//! Real threads under a scheduler: before each call of the storage an actor waits until it is let through.
//!
//! An actor is one piece of work with a backend handle of its own (a session of a repository, whatever threads that
//! starts). Only one of them runs at a time: the scheduler lets one call through and waits until that actor stands at the
//! gate again or has finished. So an interleaving is a list of choices, can be repeated, and can be enumerated; see
//! [`schedule`]. Knows nothing of what the actors do.

pub mod schedule;

use crate::fault::CallKind;
use schedule::Scheduler;
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;
use stillpoint_store::backend::{Backend, ObjectBytes, ObjectWriter, Swap};
use stillpoint_store::{ObjectKind, ObjectName, Result};

/// An actor that neither comes back to the gate nor finishes for so long waits for somebody who stands at it.
const STUCK_AFTER: Duration = Duration::from_secs(120);

/// Which calls stop at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gated {
    /// Every one.
    All,
    /// Those whose order can change what another actor sees: not what is read of immutable objects, and not the bytes
    /// of an object before it is finished.
    Shared,
}

impl Gated {
    fn stops(self, kind: CallKind) -> bool {
        self == Self::All || !matches!(kind, CallKind::Create | CallKind::Write | CallKind::Read)
    }
}

/// One call that was let through: whose, and what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// The actor's place in the list.
    pub actor: usize,
    /// The call.
    pub call: CallKind,
    /// On which object.
    pub object: String,
}

/// One piece of work: takes its backend, gives its result.
pub type Actor<'a, T> = Box<dyn FnOnce(Arc<dyn Backend>) -> T + Send + 'a>;

#[derive(Debug, Default)]
struct Place {
    /// Calls that wait, in the order in which they came: a number of their own each.
    waiting: VecDeque<(u64, CallKind, String)>,
    /// The call that may pass.
    granted: Option<u64>,
    finished: bool,
}

impl Place {
    fn is_at_rest(&self) -> bool {
        self.finished || (self.granted.is_none() && !self.waiting.is_empty())
    }
}

#[derive(Debug, Default)]
struct Places {
    places: Vec<Place>,
    tickets: u64,
    /// Raised when the scheduler gives up, so that no thread waits for ever.
    open: bool,
}

/// Where actors wait.
#[derive(Debug)]
struct Gate {
    gated: Gated,
    places: Mutex<Places>,
    changed: Condvar,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().expect("no panic while the places are locked")
    }

    /// Waits until this call is let through.
    fn pass(&self, actor: usize, call: CallKind, object: &dyn std::fmt::Display) {
        if !self.gated.stops(call) {
            return;
        }
        let mut places = self.lock();
        places.tickets += 1;
        let ticket = places.tickets;
        places.places[actor].waiting.push_back((ticket, call, object.to_string()));
        self.changed.notify_all();
        let mut places = self
            .changed
            .wait_while(places, |all| !all.open && all.places[actor].granted != Some(ticket))
            .expect("no panic while the places are locked");
        let place = &mut places.places[actor];
        place.granted = None;
        place.waiting.retain(|(waiting, ..)| *waiting != ticket);
    }

    fn finish(&self, actor: usize) {
        self.lock().places[actor].finished = true;
        self.changed.notify_all();
    }

    /// Lets one call after the other through until every actor has finished.
    fn run(&self, scheduler: &mut dyn Scheduler) -> Vec<Passed> {
        let mut passed = Vec::new();
        let mut current = None;
        loop {
            let places = self.lock();
            let (mut places, waited) = self
                .changed
                .wait_timeout_while(places, STUCK_AFTER, |all| {
                    !all.places.iter().all(Place::is_at_rest)
                })
                .expect("no panic while the places are locked");
            if waited.timed_out() {
                places.open = true;
                self.changed.notify_all();
                let stuck = format!("{:?}", places.places);
                drop(places);
                panic!("an actor is stuck behind another one: {stuck}");
            }
            let ready: Vec<usize> =
                (0..places.places.len()).filter(|at| !places.places[*at].finished).collect();
            if ready.is_empty() {
                return passed;
            }
            let actor = scheduler.choose(&ready, current.filter(|at| ready.contains(at)));
            assert!(ready.contains(&actor), "the scheduler chose actor {actor} out of {ready:?}");
            current = Some(actor);
            let place = &mut places.places[actor];
            let (ticket, call, object) = place.waiting.front().cloned().expect("it is at rest");
            place.granted = Some(ticket);
            passed.push(Passed { actor, call, object });
            self.changed.notify_all();
        }
    }
}

/// Runs the actors on this backend, one call at a time in the order that the scheduler chooses. Gives their results in
/// the order of the list, and every call that stopped at the gate.
///
/// Each actor has a pool for parallel loops of its own, of one thread: in a common pool one actor would wait for a
/// thread that another one holds at the gate.
///
/// # Panics
/// As the first actor does that panics, and when an actor is stuck.
pub fn run_gated<T: Send>(
    backend: &Arc<dyn Backend>,
    gated: Gated,
    actors: Vec<Actor<'_, T>>,
    scheduler: &mut dyn Scheduler,
) -> (Vec<T>, Vec<Passed>) {
    let places = actors.iter().map(|_| Place::default()).collect();
    let places = Mutex::new(Places { places, tickets: 0, open: false });
    let gate = Arc::new(Gate { gated, places, changed: Condvar::new() });
    std::thread::scope(|scope| {
        let threads: Vec<_> = actors
            .into_iter()
            .enumerate()
            .map(|(actor, body)| {
                let (gate, inner) = (Arc::clone(&gate), Arc::clone(backend));
                scope.spawn(move || {
                    let handle: Arc<dyn Backend> =
                        Arc::new(GateBackend { inner, actor, gate: Arc::clone(&gate) });
                    let result = catch_unwind(AssertUnwindSafe(|| {
                        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
                        pool.expect("a thread can be started").install(|| body(handle))
                    }));
                    gate.finish(actor);
                    result
                })
            })
            .collect();
        let passed = gate.run(scheduler);
        let results = threads.into_iter().map(|thread| {
            let caught = thread.join().expect("panics of the actor are caught");
            caught.unwrap_or_else(|panic| resume_unwind(panic))
        });
        (results.collect(), passed)
    })
}

/// One actor's handle of the storage: each call waits at the gate.
#[derive(Clone)]
struct GateBackend {
    inner: Arc<dyn Backend>,
    actor: usize,
    gate: Arc<Gate>,
}

impl GateBackend {
    fn pass(&self, call: CallKind, object: &dyn std::fmt::Display) {
        self.gate.pass(self.actor, call, object);
    }

    fn writer(&self, name: &ObjectName, inner: Box<dyn ObjectWriter>) -> Box<dyn ObjectWriter> {
        Box::new(GateWriter { backend: self.clone(), name: *name, inner })
    }
}

struct GateWriter {
    backend: GateBackend,
    name: ObjectName,
    inner: Box<dyn ObjectWriter>,
}

impl ObjectWriter for GateWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.backend.pass(CallKind::Write, &self.name);
        self.inner.write(bytes)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.backend.pass(CallKind::Finish, &self.name);
        self.inner.finish()
    }
}

impl Backend for GateBackend {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn initialise(&self) -> Result<()> {
        self.pass(CallKind::Initialise, &"repository");
        self.inner.initialise()
    }

    fn create(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        self.pass(CallKind::Create, name);
        Ok(self.writer(name, self.inner.create(name)?))
    }

    fn replace(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        self.pass(CallKind::Create, name);
        Ok(self.writer(name, self.inner.replace(name)?))
    }

    fn read(&self, name: &ObjectName, range: Range<u64>) -> Result<ObjectBytes> {
        self.pass(CallKind::Read, name);
        self.inner.read(name, range)
    }

    fn size_bytes(&self, name: &ObjectName) -> Result<Option<u64>> {
        self.pass(CallKind::SizeBytes, name);
        self.inner.size_bytes(name)
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(ObjectName, u64)>> {
        self.pass(CallKind::List, &format!("{kind:?}"));
        self.inner.list(kind)
    }

    fn remove(&self, name: &ObjectName) -> Result<()> {
        self.pass(CallKind::Remove, name);
        self.inner.remove(name)
    }

    fn read_head(&self) -> Result<Option<Vec<u8>>> {
        self.pass(CallKind::ReadHead, &"head");
        self.inner.read_head()
    }

    fn swap_head(&self, expected: Option<&[u8]>, new: &[u8]) -> Result<Swap> {
        self.pass(CallKind::SwapHead, &"head");
        self.inner.swap_head(expected, new)
    }
}

#[cfg(test)]
mod tests {
    use super::schedule::{Bounded, Seeded};
    use super::*;
    use std::collections::BTreeSet;
    use stillpoint_store::backend::MemoryBackend;

    /// An actor that raises a counter in the head, with a comparison or without.
    fn raise(compares: bool) -> Actor<'static, ()> {
        Box::new(move |backend| {
            loop {
                let head = backend.read_head().unwrap();
                let next = head.as_ref().map_or(1, |head| head[0] + 1);
                let expected = match compares {
                    true => head,
                    false => backend.read_head().unwrap(),
                };
                if backend.swap_head(expected.as_deref(), &[next]).unwrap() == Swap::Done {
                    return;
                }
            }
        })
    }

    fn heads(compares: bool, preemptions: usize) -> (usize, BTreeSet<u8>) {
        let (mut schedules, mut seen) = (0, BTreeSet::new());
        let mut bounded = Bounded::new(preemptions);
        while bounded.begin() {
            let memory = MemoryBackend::new();
            let backend: Arc<dyn Backend> = Arc::new(memory.clone());
            let actors = vec![raise(compares), raise(compares)];
            run_gated(&backend, Gated::Shared, actors, &mut bounded);
            seen.insert(memory.contents().head.unwrap()[0]);
            schedules += 1;
        }
        (schedules, seen)
    }

    /// Every interleaving with few preemptions is run once: a race is found by one preemption and by none without.
    #[test]
    fn bounded_schedules_find_a_race() {
        assert_eq!(heads(false, 0), (2, BTreeSet::from([2])));
        let (schedules, seen) = heads(false, 1);
        // Two orders, and one switch before each call of the first but its first.
        assert_eq!((schedules, seen), (2 + 2 * 2, BTreeSet::from([1, 2])));
        assert_eq!(heads(true, 2).1, BTreeSet::from([2]));
    }

    /// The same seed gives the same interleaving.
    #[test]
    fn a_seed_gives_one_schedule() {
        let run = |seed| {
            let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
            let actors = (0..3).map(|_| raise(true)).collect();
            run_gated(&backend, Gated::All, actors, &mut Seeded::new(seed)).1
        };
        for seed in 0..20 {
            assert_eq!(run(seed), run(seed), "seed {seed}");
        }
        assert!((1..20).any(|seed| run(seed) != run(0)));
    }
}
