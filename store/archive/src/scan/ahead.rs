//! Directory reads and stats on several threads, a bounded way ahead of whoever consumes them in order.
//!
//! Tasks wait in the order of the walk; workers take the nearest first and stop while enough lies ready. Whoever
//! needs a task that nobody has begun does it himself, so the walk never waits for an idle pool and cannot deadlock.

use super::listing::{Listing, Looked, STAT_BATCH};
use super::rules::ScanRules;
use crate::source::Dir;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Most entries that lie ready ahead of the consumer (each about 150 bytes and its name).
pub(crate) const LOOKAHEAD_ENTRIES_MAX: usize = 16 << 10;
/// Most batches that lie ready ahead of the consumer; each may hold a directory's descriptor.
pub(crate) const LOOKAHEAD_BATCHES_MAX: usize = 192;

/// Some entries of one directory, ready to be consumed.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) listing: Arc<Listing>,
    /// The entries, and for each directory to go into its own task.
    pub(super) items: Vec<(Looked, Option<Arc<Task>>)>,
    /// The rest of the same directory.
    pub(super) rest: Option<Arc<Task>>,
}

/// What a task gives: a batch, or why the directory cannot be read.
pub(super) type Outcome = Result<Batch, Errno>;

/// One piece of work: open and list a directory, or look at the next names of one.
#[derive(Debug)]
pub(super) struct Task {
    /// Place in the order of the walk: the directory's key, then the number of the first name.
    place: (Arc<[u8]>, usize),
    work: Work,
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug)]
enum Work {
    /// A directory by its name in another one.
    Child { parent: Arc<Dir>, name: CString },
    /// The next names of a directory that has been listed.
    Rest { listing: Arc<Listing> },
}

#[derive(Debug)]
enum State {
    Waiting,
    Running,
    Done(Outcome),
    Taken,
}

/// The queue that workers and the consumer share.
#[derive(Debug)]
pub(super) struct Ahead {
    rules: ScanRules,
    queue: Mutex<Queue>,
    /// There is something to do, or it is time to stop.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<(Arc<[u8]>, usize), Arc<Task>>,
    ready_entries: usize,
    ready_batches: usize,
    idle: usize,
    stop: bool,
}

impl Queue {
    fn has_room(&self) -> bool {
        self.ready_entries < LOOKAHEAD_ENTRIES_MAX && self.ready_batches < LOOKAHEAD_BATCHES_MAX
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ahead {
    pub(super) fn new(rules: ScanRules) -> Self {
        Self { rules, queue: Mutex::default(), changed: Condvar::new() }
    }

    pub(super) fn rules(&self) -> &ScanRules {
        &self.rules
    }

    /// Works until [`Self::stop`] is called.
    pub(super) fn work(&self) {
        while let Some(task) = self.next_task() {
            if !task.begin() {
                continue;
            }
            let outcome = self.run(&task);
            let (entries, batches) = weight(&outcome);
            // Counted before it can be taken, so that the counts never fall below zero.
            let mut queue = lock(&self.queue);
            queue.ready_entries += entries;
            queue.ready_batches += batches;
            drop(queue);
            *lock(&task.state) = State::Done(outcome);
            task.done.notify_all();
        }
    }

    /// Ends all workers after what they are doing.
    pub(super) fn stop(&self) {
        lock(&self.queue).stop = true;
        self.changed.notify_all();
    }

    /// A directory to read, without putting it into the queue.
    pub(super) fn task(parent: Arc<Dir>, name: CString, key: Arc<[u8]>) -> Arc<Task> {
        Task::new((key, 0), Work::Child { parent, name })
    }

    /// The outcome of a task: what lies ready, what is being done now, or done here and now.
    pub(super) fn take(&self, task: &Arc<Task>) -> Outcome {
        if task.begin() {
            lock(&self.queue).waiting.remove(&task.place);
            let outcome = self.run(task);
            *lock(&task.state) = State::Taken;
            return outcome;
        }
        let mut state = lock(&task.state);
        while matches!(*state, State::Running) {
            state = task.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let State::Done(outcome) = std::mem::replace(&mut *state, State::Taken) else {
            unreachable!("each task is taken once, by the one consumer")
        };
        drop(state);
        let (entries, batches) = weight(&outcome);
        let mut queue = lock(&self.queue);
        queue.ready_entries -= entries;
        queue.ready_batches -= batches;
        let wake = queue.idle > 0 && !queue.waiting.is_empty() && queue.has_room();
        drop(queue);
        if wake {
            self.changed.notify_one();
        }
        outcome
    }

    /// How many batches lie ready, and how many workers have nothing to do.
    #[cfg(test)]
    pub(super) fn ready_and_idle(&self) -> (usize, usize) {
        let queue = lock(&self.queue);
        (queue.ready_batches, queue.idle)
    }

    fn next_task(&self) -> Option<Arc<Task>> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.stop {
                return None;
            }
            if queue.has_room()
                && let Some((_, task)) = queue.waiting.pop_first()
            {
                return Some(task);
            }
            queue.idle += 1;
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    fn run(&self, task: &Task) -> Outcome {
        let (listing, from) = match &task.work {
            Work::Child { parent, name } => {
                let dir = parent.open_child(name)?;
                let listing = Listing::read(dir, Arc::clone(&task.place.0), &self.rules)?;
                (Arc::new(listing), 0)
            }
            Work::Rest { listing } => (Arc::clone(listing), task.place.1),
        };
        let rest = (listing.len() > from + STAT_BATCH).then(|| {
            let place = (Arc::clone(&listing.key), from + STAT_BATCH);
            Task::new(place, Work::Rest { listing: Arc::clone(&listing) })
        });
        if let Some(rest) = &rest {
            self.enqueue(std::iter::once(rest));
        }
        let items: Vec<_> = listing
            .look(from, &self.rules)
            .into_iter()
            .map(|looked| {
                let below = self.task_below(&listing, &looked);
                (looked, below)
            })
            .collect();
        self.enqueue(items.iter().filter_map(|(_, below)| below.as_ref()));
        Ok(Batch { listing, items, rest })
    }

    fn task_below(&self, listing: &Arc<Listing>, looked: &Looked) -> Option<Arc<Task>> {
        let stat = looked.stat.as_ref().ok()?;
        if !self.rules.descends(stat) {
            return None;
        }
        let name = listing.name(looked.name);
        let key = crate::path::child_key(&listing.key, name.to_bytes());
        Some(Self::task(Arc::clone(&listing.dir), name.to_owned(), key.into()))
    }

    fn enqueue<'a>(&self, tasks: impl Iterator<Item = &'a Arc<Task>>) {
        let mut queue = lock(&self.queue);
        let before = queue.waiting.len();
        for task in tasks {
            queue.waiting.insert(task.place.clone(), Arc::clone(task));
        }
        let wake =
            if queue.has_room() { (queue.waiting.len() - before).min(queue.idle) } else { 0 };
        drop(queue);
        for _ in 0..wake {
            self.changed.notify_one();
        }
    }
}

fn weight(outcome: &Outcome) -> (usize, usize) {
    (outcome.as_ref().map_or(0, |batch| batch.items.len()), 1)
}

impl Task {
    fn new(place: (Arc<[u8]>, usize), work: Work) -> Arc<Self> {
        Arc::new(Self { place, work, state: Mutex::new(State::Waiting), done: Condvar::new() })
    }

    /// Claims the task; false when someone else has.
    fn begin(&self) -> bool {
        let mut state = lock(&self.state);
        let free = matches!(*state, State::Waiting);
        if free {
            *state = State::Running;
        }
        free
    }
}
