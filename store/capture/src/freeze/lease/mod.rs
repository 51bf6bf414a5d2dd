//! Holding files by read leases: nobody can open the file for writing until it was put away.
//!
//! A thread serves breaks: it puts the file into the spool, has readers go on there, and gives the lease back. If the
//! kernel took the lease away before that was done, the content counts as lost.

mod sys;

use super::clone;
use super::spool::Spool;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use stillpoint_archive::held::{HeldContent, HeldFile, Unheld};

/// Has the leases, and the thread that serves them.
#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The kernel's number of the thread.
    number: libc::pid_t,
}

#[derive(Debug)]
struct Shared {
    spool: Arc<Spool>,
    leases: Mutex<Vec<Weak<Leased>>>,
    broken: AtomicU64,
    stop: AtomicBool,
    /// Tests hold the thread up here.
    #[cfg(test)]
    gate: Mutex<()>,
}

/// A leased file.
#[derive(Debug)]
struct Leased {
    file: OwnedFd,
    device: u64,
    size: u64,
    state: Mutex<State>,
    /// The state is not [`State::Live`] any more.
    settled: Condvar,
    /// Serves it as long as it lives.
    _keeper: Arc<Keeper>,
}

#[derive(Debug)]
enum State {
    /// Content is read from the file itself.
    Live,
    /// It was put away.
    Away(OwnedFd),
    /// It may have changed before it was put away, and why.
    Lost(String),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be none.
    pub(super) fn start(spool: Arc<Spool>) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            spool,
            leases: Mutex::default(),
            broken: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            #[cfg(test)]
            gate: Mutex::default(),
        });
        let (sender, receiver) = mpsc::channel();
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("leases".into()).spawn(move || {
                let ready = sys::block().map(|()| rustix::thread::gettid().as_raw_pid());
                let is_ready = ready.is_ok();
                if sender.send(ready).is_ok() && is_ready {
                    shared.serve();
                }
            })?
        };
        let number = receiver.recv().map_err(io::Error::other)??;
        Ok(Arc::new(Self { shared, thread: Some(thread), number }))
    }

    /// How many files are leased.
    pub(super) fn leased(&self) -> usize {
        let mut leases = lock(&self.shared.leases);
        leases.retain(|lease| lease.strong_count() > 0);
        leases.len()
    }

    /// How many leases were broken.
    pub(super) fn broken(&self) -> u64 {
        self.shared.broken.load(Ordering::Relaxed)
    }

    /// Leases the file; None where that cannot be, because it is open for writing or there are no leases.
    ///
    /// # Errors
    /// Those of the system calls on the file itself.
    pub(super) fn hold(self: &Arc<Self>, unheld: &mut Unheld) -> io::Result<Option<HeldContent>> {
        let Some(file) = unheld.file() else { return Ok(None) };
        if sys::take(file, self.number).is_err() {
            return Ok(None);
        }
        // From now on nothing changes.
        unheld.look_again()?;
        let Some(file) = unheld.take_file() else { return Ok(None) };
        let leased = Arc::new(Leased {
            file,
            device: unheld.inode().0,
            size: unheld.size(),
            state: Mutex::new(State::Live),
            settled: Condvar::new(),
            _keeper: Arc::clone(self),
        });
        lock(&self.shared.leases).push(Arc::downgrade(&leased));
        // A break that came before the thread knew of the lease was looked for in vain.
        if sys::state(leased.file.as_fd()) == sys::State::Breaking
            && let Some(thread) = &self.thread
        {
            sys::wake(thread);
        }
        Ok(Some(HeldContent::File(leased)))
    }

    /// Holds the thread up as long as it lives.
    #[cfg(test)]
    pub(super) fn gate(&self) -> MutexGuard<'_, ()> {
        lock(&self.shared.gate)
    }

    /// Whether somebody waits for a lease.
    #[cfg(test)]
    pub(super) fn is_awaited(&self) -> bool {
        let leases: Vec<_> = lock(&self.shared.leases).iter().filter_map(Weak::upgrade).collect();
        leases.iter().any(|lease| sys::state(lease.file.as_fd()) == sys::State::Breaking)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else { return };
        sys::wake(&thread);
        // The thread itself may let the last lease go, and cannot wait for itself.
        if thread.thread().id() != std::thread::current().id() {
            // It does not panic, and if it did there would be nothing to do about it.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Serves breaks until it is time to stop.
    fn serve(&self) {
        while !self.stop.load(Ordering::Acquire) {
            let mut breaking: Vec<Arc<Leased>> = Vec::new();
            lock(&self.leases).retain(|lease| {
                let Some(lease) = lease.upgrade().filter(|lease| lease.is_live()) else {
                    return false;
                };
                if sys::state(lease.file.as_fd()) == sys::State::Breaking {
                    breaking.push(lease);
                }
                true
            });
            if breaking.is_empty() {
                sys::wait();
                continue;
            }
            #[cfg(test)]
            drop(lock(&self.gate));
            // Whoever waits for little waits short.
            breaking.sort_by_key(|lease| lease.size);
            for lease in breaking {
                self.broken.fetch_add(1, Ordering::Relaxed);
                lease.put_away(&self.spool);
            }
        }
    }
}

impl Leased {
    fn is_live(&self) -> bool {
        matches!(*lock(&self.state), State::Live)
    }

    /// Puts the content into the spool and lets the writer go on.
    fn put_away(&self, spool: &Spool) {
        let file = self.file.as_fd();
        let away = match clone::clone(file, self.device, spool) {
            Some(cloned) => Ok(cloned),
            None => spool.copy(file, self.device, self.size),
        };
        let mut state = lock(&self.state);
        *state = match (away, sys::release(file)) {
            (Ok(away), Ok(())) => State::Away(away),
            (Ok(_), Err(_)) => {
                State::Lost("another program was let in by force before it was put away".into())
            }
            (Err(error), _) => State::Lost(format!(
                "another program writes to it, and it cannot be put away: {error}"
            )),
        };
        self.settled.notify_all();
    }
}

impl HeldFile for Leased {
    fn with(&self, act: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<u64>) -> io::Result<u64> {
        match &*lock(&self.state) {
            State::Live => act(self.file.as_fd()),
            State::Away(away) => act(away.as_fd()),
            State::Lost(why) => Err(io::Error::other(why.clone())),
        }
    }

    /// What was read is what was held if the lease is still there, or was when the content was put away.
    fn settle(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        loop {
            match &*state {
                State::Away(_) => return Ok(()),
                State::Lost(why) => return Err(io::Error::other(why.clone())),
                State::Live if sys::state(self.file.as_fd()) == sys::State::Held => return Ok(()),
                State::Live => {
                    state = self.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}
