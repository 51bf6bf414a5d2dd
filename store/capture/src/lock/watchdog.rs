//! The watchdog: a process of its own that takes a lock, writes the unlock record, and gives the lock back in every ending.
//!
//! It fires when the capture is gone (its end of the socket is closed), when the time limit is over, and on SIGTERM,
//! SIGINT and SIGHUP; then it tries until the lock is given back. Knows nothing of what is captured.

use super::message::{Answer, Command, receive, send};
use super::order::{Ending, Hand, Order, PAUSE_MAX, PAUSE_MIN, TakeError};
use super::record::{RecordFile, RecordState};
use crate::error::{Error, Result};
use crate::phase::seconds;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::BufReader;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// How long it tries to give a lock back; the record stays on disk then.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(3600);
/// Nobody waits longer than this at a time.
const LONG: Duration = Duration::from_secs(3600);

enum Event {
    Command(Command),
    Gone,
    Signal,
}

/// Serves the capture at the other end of the socket until the lock is given back. `tell` is given lines for people.
///
/// # Errors
/// When there is no order on the socket, or the lock could not be given back (`StillLocked`).
pub fn run(channel_to_capture: OwnedFd, tell: &dyn Fn(&str)) -> Result<()> {
    stand_alone();
    let stream = UnixStream::from(channel_to_capture);
    let failed = |error: std::io::Error| Error::Failed(format!("the watchdog's order: {error}"));
    let mut reader = BufReader::new(stream.try_clone().map_err(failed)?);
    let Some(Command::Prepare { order, password, dir, limit_ms }) =
        receive(&mut reader).unwrap_or_default()
    else {
        return Err(Error::Failed(
            "there is no order: the watchdog is started by a capture, not by hand".into(),
        ));
    };
    let (sender, events) = channel();
    let signals = sender.clone();
    let mut stream = stream;
    let watched = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(failed);
    let prepared = watched
        .and_then(|watched| Ok((watched, RecordFile::create(&dir, order.clone(), limit_ms)?)));
    let (watched, record) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            let _ = send(&mut stream, &Answer::Refused { what: error.to_string() });
            return Err(error);
        }
    };
    std::thread::spawn(move || hear_signals(watched, &signals));
    std::thread::spawn(move || hear_commands(&mut reader, &sender));
    let hand = Hand::new(password.map(Zeroizing::new));
    let limit = Duration::from_millis(limit_ms);
    Watchdog { stream, events, record, order, hand, limit, tell }.watch()
}

/// Nothing that ends the capture or its terminal may end this process too.
fn stand_alone() {
    // Each is a help where it is possible; none is needed.
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    let _ = std::fs::write("/proc/self/oom_score_adj", "-900");
}

fn hear_signals(mut signals: signal_hook::iterator::Signals, to: &Sender<Event>) {
    for _ in signals.forever() {
        if to.send(Event::Signal).is_err() {
            return;
        }
    }
}

fn hear_commands(reader: &mut BufReader<UnixStream>, to: &Sender<Event>) {
    while let Ok(Some(command)) = receive(reader) {
        if to.send(Event::Command(command)).is_err() {
            return;
        }
    }
    let _ = to.send(Event::Gone);
}

struct Watchdog<'a> {
    stream: UnixStream,
    events: Receiver<Event>,
    record: RecordFile,
    order: Order,
    hand: Hand,
    limit: Duration,
    tell: &'a dyn Fn(&str),
}

impl Watchdog<'_> {
    /// Before the lock is taken.
    fn watch(mut self) -> Result<()> {
        self.order.warm(&mut self.hand);
        self.say(&Answer::Ready);
        loop {
            match self.events.recv() {
                Ok(Event::Command(Command::Take)) => return self.take(),
                Ok(Event::Command(Command::Update { order })) => self.order = order,
                Ok(Event::Command(Command::Confirm)) => {
                    self.say(&Answer::Fired { why: "nothing was locked".into() });
                }
                Ok(Event::Command(Command::Prepare { .. })) => {}
                Ok(Event::Command(Command::GiveBack { .. }) | Event::Gone | Event::Signal)
                | Err(_) => {
                    self.record.remove();
                    return Ok(());
                }
            }
        }
    }

    fn take(mut self) -> Result<()> {
        if let Err(error) = self.record.write(RecordState::Asked, &self.order) {
            let error = TakeError::NotLocked(error.to_string());
            self.say(&Answer::NotTaken { error });
            self.record.remove();
            return Ok(());
        }
        let deadline = Instant::now() + self.limit;
        let taken = self.order.take(&mut self.hand);
        match taken {
            Ok(()) => {}
            Err(error @ TakeError::Unknown(_)) => {
                // The record stays: it says what to look for.
                self.say(&Answer::NotTaken { error });
                return Ok(());
            }
            Err(error @ TakeError::Halfway(_)) => {
                self.say(&Answer::NotTaken { error });
                return self.give_back(Ending::Abandon);
            }
            Err(error) => {
                self.say(&Answer::NotTaken { error });
                self.record.remove();
                return Ok(());
            }
        }
        if let Err(error) = self.record.write(RecordState::Held, &self.order) {
            self.say(&Answer::NotTaken { error: TakeError::Halfway(error.to_string()) });
            return self.give_back(Ending::Abandon);
        }
        self.say(&Answer::Taken { order: self.order.clone() });
        self.hold(deadline)
    }

    /// While the lock is held.
    fn hold(mut self, deadline: Instant) -> Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let why = match self.events.recv_timeout(left) {
                Ok(Event::Command(Command::Confirm)) => {
                    self.say(&Answer::Held);
                    continue;
                }
                Ok(Event::Command(Command::Update { order })) => {
                    self.order = order;
                    // The token is on disk already; this only makes the way back shorter.
                    let _ = self.record.write(RecordState::Held, &self.order);
                    continue;
                }
                Ok(Event::Command(Command::GiveBack { ending })) => return self.give_back(ending),
                Ok(Event::Command(Command::Prepare { .. } | Command::Take)) => continue,
                Ok(Event::Gone) | Err(RecvTimeoutError::Disconnected) => {
                    "the capture is gone".to_owned()
                }
                Ok(Event::Signal) => "the watchdog was asked to end".to_owned(),
                Err(RecvTimeoutError::Timeout) => {
                    format!("the lock was held for more than {}", seconds(self.limit))
                }
            };
            self.say(&Answer::Fired { why: why.clone() });
            // Told afterwards: where people read it may be on what is frozen.
            let (tell, line) = (self.tell, format!("{why}: {} was unlocked", self.order.title()));
            return self.give_back(Ending::Abandon).inspect(|()| tell(&line));
        }
    }

    /// Tries until it succeeds.
    fn give_back(mut self, ending: Ending) -> Result<()> {
        let begin = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            let hitch = match self.order.give_back(&mut self.hand, ending) {
                Ok(how) => {
                    self.say(&Answer::GaveBack { how });
                    self.record.remove();
                    return Ok(());
                }
                Err(hitch) => hitch,
            };
            let is_lasting = hitch.is_lasting;
            self.say(&Answer::Trying { detail: hitch.detail.clone(), is_lasting });
            if begin.elapsed() + pause > GIVE_UP_AFTER {
                let error = self.order.still_locked(hitch.detail);
                (self.tell)(&format!("{error}; by hand: {}", self.order.manual()));
                return Err(error);
            }
            self.pause(&mut pause);
        }
    }

    /// Waits between two attempts; whoever asks again meanwhile is tried for at once.
    fn pause(&mut self, pause: &mut Duration) {
        let end = Instant::now() + *pause;
        *pause = (*pause * 2).min(PAUSE_MAX);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left.min(LONG)) {
                Ok(Event::Command(Command::GiveBack { .. })) => {
                    *pause = PAUSE_MIN;
                    return;
                }
                Ok(Event::Command(Command::Update { order })) => self.order = order,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    fn say(&mut self, answer: &Answer) {
        // The capture may be gone; what is to be done is the same.
        let _ = send(&mut self.stream, answer);
    }
}
