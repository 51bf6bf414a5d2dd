//! The server around an instance: a listener on a loopback port, a thread a connection.

use super::call::Call;
use super::fault::FaultEffect;
use super::http::Request;
use super::instance::{Behaviour, Instance, Seen, State, refused};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A running instance; it ends, and lets all writers go, when dropped.
#[derive(Debug)]
pub struct Simulator {
    shared: Arc<Shared>,
    address: SocketAddr,
}

#[derive(Debug)]
struct Shared {
    instance: Mutex<Instance>,
    /// After every call and every change by hand.
    changed: Condvar,
    ends: AtomicBool,
    /// Told of every call.
    watcher: Option<fn(&Seen)>,
}

impl Simulator {
    /// An instance on a free port.
    pub fn start(behaviour: Behaviour) -> io::Result<Self> {
        Self::start_at(0, behaviour, None)
    }

    /// An instance on this port (0: any), and who is told of every call.
    pub fn start_at(
        port: u16,
        behaviour: Behaviour,
        watcher: Option<fn(&Seen)>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            instance: Mutex::new(Instance::new(behaviour)),
            changed: Condvar::new(),
            ends: AtomicBool::new(false),
            watcher,
        });
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || theirs.listen(&listener));
        Ok(Self { shared, address })
    }

    /// The base URL, with the context path.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, self.instance().behaviour.context)
    }

    /// How it is.
    pub fn state(&self) -> State {
        self.instance().state()
    }

    /// Changes how it behaves from now on.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.instance().behaviour);
    }

    /// Gives the lock up, as an administrator would.
    pub fn unlock_by_hand(&self) {
        self.instance().unlock_by_hand();
        self.shared.changed.notify_all();
    }

    /// Cancels the task, as an administrator would.
    pub fn cancel_by_hand(&self) {
        self.instance().cancel_by_hand();
        self.shared.changed.notify_all();
    }

    /// Waits until `is_so`, at most this long; how long it took.
    pub fn wait_until(&self, limit: Duration, is_so: impl Fn(&State) -> bool) -> Option<Duration> {
        let begin = Instant::now();
        let mut instance = self.instance();
        while !is_so(&instance.state()) {
            let left = limit.checked_sub(begin.elapsed())?;
            let waited = self.shared.changed.wait_timeout(instance, left);
            instance = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(begin.elapsed())
    }

    fn instance(&self) -> MutexGuard<'_, Instance> {
        self.shared.instance()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        self.instance().unlock_by_hand();
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn instance(&self) -> MutexGuard<'_, Instance> {
        self.instance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.ends.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else { continue };
            let shared = Arc::clone(self);
            // A connection that breaks is the other side's affair.
            std::thread::spawn(move || drop(shared.serve(stream)));
        }
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        while let Some(request) = Request::read(&mut stream)? {
            if self.ends.load(Ordering::SeqCst) || !self.one(&request, &mut stream)? {
                return Ok(());
            }
            if request.closes {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Answers one request; false when the connection is to be closed.
    fn one(&self, request: &Request, stream: &mut TcpStream) -> io::Result<bool> {
        let mut instance = self.instance();
        let below = request.path.strip_prefix(instance.behaviour.context.as_str());
        let Some(call) = below.and_then(|path| Call::of(&request.method, path)) else {
            let status = if instance.state().is_locked { 503 } else { 404 };
            refused(status, "This is not part of the contract.").write(stream)?;
            return Ok(true);
        };
        let number = *instance.counts.entry(call).and_modify(|count| *count += 1).or_insert(1);
        let mut faults = instance.behaviour.faults.iter();
        let effect = faults.find(|fault| fault.strikes(call, number)).map(|fault| fault.effect);
        let at = Instant::now();
        let answer = match effect {
            Some(FaultEffect::Status(status)) => Some(refused(status, "A planned fault.")),
            Some(FaultEffect::DropBefore) => None,
            Some(FaultEffect::DropAfter) => {
                instance.answer(call, request);
                None
            }
            Some(FaultEffect::Late(_)) | None => Some(instance.answer(call, request)),
        };
        let status = answer.as_ref().map(|answer| answer.status);
        let seen = Seen { at, call, query: request.query.clone(), status };
        if let Some(watcher) = self.watcher {
            watcher(&seen);
        }
        instance.seen.push(seen);
        drop(instance);
        self.changed.notify_all();
        if let Some(FaultEffect::Late(delay)) = effect {
            self.linger(delay);
        }
        match answer {
            Some(answer) => answer.write(stream).map(|()| true),
            None => Ok(false),
        }
    }

    /// Waits for the time of a late answer, or for the end.
    fn linger(&self, delay: Duration) {
        let begin = Instant::now();
        let mut instance = self.instance();
        while let Some(left) = delay.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) {
            if self.ends.load(Ordering::SeqCst) {
                return;
            }
            let waited = self.changed.wait_timeout(instance, left);
            instance = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
