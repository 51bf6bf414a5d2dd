//! The capture's side of a lock: starts the watchdog, has it take the lock, and makes sure that it is given back.
//!
//! A [`Keeper`] says where records are kept and how a watchdog is started; a [`Watch`] is one lock with its watchdog.

use super::message::{Answer, Command, receive, send};
use super::order::{Ending, Hand, Order, TakeError};
use super::record::{self, Found, RecordState};
use crate::error::{Error, Result};
use std::ffi::OsString;
use std::io::BufReader;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How long the watchdog may take until it is ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long the application may take to answer the lock request, retries of the questions about it included.
const TAKE_LIMIT: Duration = Duration::from_secs(300);
/// How long the watchdog may take to say that it is there.
const CONFIRM_LIMIT: Duration = Duration::from_secs(10);
/// How long a capture waits for its lock to be given back; the watchdog goes on after that.
pub const GIVE_BACK_LIMIT: Duration = Duration::from_secs(60);
/// How long a capture tries to give back what an earlier one left behind.
const TIDY_LIMIT: Duration = Duration::from_secs(5);
/// Where records lie below the state directory.
const FOLDER: &str = "locks";

/// Where unlock records are kept, how a watchdog is started, and how long a lock may be held.
#[derive(Debug, Clone)]
pub struct Keeper {
    state_dir: PathBuf,
    dir: PathBuf,
    program: PathBuf,
    arguments: Vec<OsString>,
    limit: Duration,
    give_back_limit: Duration,
}

impl Keeper {
    /// Records in this state directory; the watchdog is this very program with the argument `watchdog`; no lock is held
    /// longer than `limit` from its request on.
    pub fn new(state_dir: impl Into<PathBuf>, limit: Duration) -> Self {
        let state_dir = super::whole(&state_dir.into());
        Self {
            dir: state_dir.join(FOLDER),
            state_dir,
            program: "/proc/self/exe".into(),
            arguments: vec!["watchdog".into()],
            limit,
            give_back_limit: GIVE_BACK_LIMIT,
        }
    }

    /// Another program as the watchdog: one that hands its standard input to [`super::watchdog::run`].
    #[must_use]
    pub fn with_watchdog(mut self, program: PathBuf, arguments: Vec<OsString>) -> Self {
        (self.program, self.arguments) = (program, arguments);
        self
    }

    /// Another time limit for the lock.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Another time to wait for a lock to be given back before that is an error.
    #[must_use]
    pub fn with_give_back_limit(mut self, limit: Duration) -> Self {
        self.give_back_limit = limit;
        self
    }

    /// The state directory.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The records that are there, those of running captures included.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn records(&self) -> Result<Vec<Found>> {
        record::found(&self.dir)
    }

    /// Gives back what a record tells of and removes it; says how it went. Whoever has a capture that runs gives its
    /// lock back under its feet.
    ///
    /// # Errors
    /// `StillLocked` with the way to unlock by hand, `Refused` when there is no password or the record is damaged.
    pub fn finish(&self, found: Found) -> Result<String> {
        let mut record = found.record.clone().map_err(|what| Error::Refused {
            what: format!("the unlock record {}: {what}", found.path.display()),
            hint: Some("look at it and at the application, then delete the file".into()),
        })?;
        let how = match record.state {
            RecordState::Prepared => format!("{} was not locked", record.order.title()),
            RecordState::Asked | RecordState::Held => {
                let mut hand = Hand::of(&record.order)?;
                record.order.insist(&mut hand, Ending::Abandon, self.give_back_limit)?
            }
        };
        found.remove();
        Ok(how)
    }

    /// Gives back what captures left behind that are gone, before another begins; what is to be told of it. What cannot
    /// be given back soon stays for later.
    pub(super) fn tidy(&self) -> Vec<String> {
        let limit = self.give_back_limit.min(TIDY_LIMIT);
        let results = self.clone().with_give_back_limit(limit).finish_stale().unwrap_or_default();
        let told = results.into_iter().map(|result| match result {
            Ok(how) => format!("an earlier capture left something behind: {how}"),
            Err(error) => format!("an earlier capture left something behind: {error}"),
        });
        told.collect()
    }

    /// Gives back what captures left behind that are gone; the result of each.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn finish_stale(&self) -> Result<Vec<Result<String>>> {
        let stale = self.records()?.into_iter().filter(|found| !found.is_live);
        Ok(stale.map(|found| self.finish(found)).collect())
    }
}

/// One lock and its watchdog. Dropping it, in whatever way, makes the watchdog give the lock back.
#[derive(Debug)]
pub struct Watch {
    keeper: Keeper,
    order: Order,
    hand: Hand,
    child: Child,
    stream: BufReader<UnixStream>,
    was_used: bool,
    is_taken: bool,
    fired: Option<String>,
}

impl Watch {
    /// Starts a watchdog for a lock that is taken later.
    ///
    /// # Errors
    /// `Refused` when it cannot be started or cannot keep a record.
    pub fn start(keeper: &Keeper, order: Order, hand: Hand) -> Result<Self> {
        let refuse = |what: String| Error::Refused {
            what: format!("starting the watchdog {}: {what}", keeper.program.display()),
            hint: None,
        };
        let (ours, theirs) = UnixStream::pair().map_err(|error| refuse(error.to_string()))?;
        let child = std::process::Command::new(&keeper.program)
            .args(&keeper.arguments)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| refuse(error.to_string()))?;
        let mut watch = Self {
            keeper: keeper.clone(),
            order,
            hand,
            child,
            stream: BufReader::new(ours),
            was_used: false,
            is_taken: false,
            fired: None,
        };
        let prepare = Command::Prepare {
            order: watch.order.clone(),
            password: watch.hand.password().map(str::to_owned),
            dir: keeper.dir.clone(),
            limit_ms: u64::try_from(keeper.limit.as_millis()).unwrap_or(u64::MAX),
        };
        watch.tell(&prepare)?;
        match watch.hear(READY_LIMIT)? {
            Answer::Ready => Ok(watch),
            Answer::Refused { what } => Err(Error::Refused { what, hint: None }),
            other => Err(refuse(format!("it said {other:?}"))),
        }
    }

    /// The lock as it is known now.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// The watchdog's process.
    pub fn watchdog_pid(&self) -> u32 {
        self.child.id()
    }

    /// True while the watchdog waits for the word to take the lock.
    pub fn is_ready(&mut self) -> bool {
        !self.was_used && matches!(self.child.try_wait(), Ok(None))
    }

    /// Has the watchdog take the lock. When this gives the order, all that is needed to give it back is on disk.
    ///
    /// # Errors
    /// `Occupied`; `StillLocked` when it may be locked and cannot be given back; others, after which it is not locked.
    pub fn take(&mut self) -> Result<&Order> {
        self.tell(&Command::Take)?;
        // From here on it may be locked.
        (self.was_used, self.is_taken) = (true, true);
        match self.hear(TAKE_LIMIT)? {
            Answer::Taken { order } => {
                self.order = order;
                Ok(&self.order)
            }
            Answer::NotTaken { error } => {
                self.is_taken = matches!(error, TakeError::Halfway(_));
                Err(self.order.not_taken(error))
            }
            other => Err(Error::Failed(format!("the watchdog said {other:?}"))),
        }
    }

    /// Hands over what became known about giving the lock back.
    ///
    /// # Errors
    /// `Lost` when the watchdog is gone.
    pub fn update(&mut self, order: Order) -> Result<()> {
        self.order = order.clone();
        self.tell(&Command::Update { order })
    }

    /// Makes sure that the watchdog has not given the lock back.
    ///
    /// # Errors
    /// `Lost` with the reason.
    pub fn confirm(&mut self) -> Result<()> {
        self.tell(&Command::Confirm)?;
        match self.hear(CONFIRM_LIMIT)? {
            Answer::Held => Ok(()),
            other => Err(Error::Failed(format!("the watchdog said {other:?}"))),
        }
    }

    /// Gives the lock back; how it went, or nothing where nothing is held.
    ///
    /// # Errors
    /// `StillLocked`; the watchdog goes on then, and if that is gone, the record stays.
    pub fn give_back(&mut self, ending: Ending) -> Result<Option<String>> {
        if !self.is_taken {
            return Ok(None);
        }
        let how = match self.ask_back(ending)? {
            Some(how) => how,
            None => self.give_back_alone(ending)?,
        };
        self.is_taken = false;
        Ok(Some(how))
    }

    /// None: the watchdog is gone, and did not say that it gave the lock back.
    fn ask_back(&mut self, ending: Ending) -> Result<Option<String>> {
        // It may have given it back already and be gone; then its last words are still to be heard.
        let _ = send(self.stream.get_mut(), &Command::GiveBack { ending });
        let begin = Instant::now();
        let mut trouble = "it does not answer".to_owned();
        loop {
            let left = self.keeper.give_back_limit.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Err(self.order.still_locked(trouble));
            }
            match self.next(left) {
                Ok(Some(Answer::GaveBack { how })) => return Ok(Some(how)),
                Ok(Some(Answer::Trying { detail, is_lasting: true })) => {
                    return Err(self.order.still_locked(detail));
                }
                Ok(Some(Answer::Trying { detail, is_lasting: false })) => trouble = detail,
                Ok(Some(Answer::Taken { order })) => self.order = order,
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(error) if is_late(&error) => {}
                Err(_) => return Ok(None),
            }
        }
    }

    fn give_back_alone(&mut self, ending: Ending) -> Result<String> {
        let pid = self.child.id();
        let mut records = self.keeper.records()?.into_iter();
        let record = records.find(|found| {
            !found.is_live && found.record.as_ref().is_ok_and(|record| record.pid == pid)
        });
        if let Some(Ok(record)) = record.as_ref().map(|found| &found.record) {
            // It may hold a token that never reached us.
            self.order = record.order.clone();
        }
        let how = self.order.insist(&mut self.hand, ending, self.keeper.give_back_limit)?;
        if let Some(record) = record {
            record.remove();
        }
        Ok(how)
    }

    fn tell(&mut self, command: &Command) -> Result<()> {
        if let Err(error) = send(self.stream.get_mut(), command) {
            return Err(self.last_words(&error.to_string()));
        }
        Ok(())
    }

    /// What it said before it went, or that it went.
    fn last_words(&mut self, otherwise: &str) -> Error {
        while let Ok(Some(answer)) = self.next(CONFIRM_LIMIT) {
            if let Answer::Refused { what } = answer {
                return Error::Refused { what, hint: None };
            }
        }
        let why = self.fired.clone();
        Error::Lost(why.unwrap_or_else(|| format!("the watchdog ended: {otherwise}")))
    }

    /// The next answer that is none of its own accord.
    fn hear(&mut self, limit: Duration) -> Result<Answer> {
        if let Some(why) = &self.fired {
            return Err(Error::Lost(why.clone()));
        }
        match self.next(limit) {
            Ok(Some(Answer::Fired { why })) => Err(Error::Lost(why)),
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Error::Lost("the watchdog ended".into())),
            Err(error) if is_late(&error) => {
                Err(Error::Failed("the watchdog does not answer".into()))
            }
            Err(error) => Err(Error::Lost(format!("the watchdog ended: {error}"))),
        }
    }

    fn next(&mut self, limit: Duration) -> std::io::Result<Option<Answer>> {
        let limit = limit.max(Duration::from_millis(1));
        self.stream.get_ref().set_read_timeout(Some(limit))?;
        let answer = receive(&mut self.stream)?;
        if let Some(Answer::Fired { why }) = &answer {
            self.fired = Some(why.clone());
        }
        Ok(answer)
    }
}

fn is_late(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock)
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.stream.get_ref().shutdown(std::net::Shutdown::Both);
        if !self.is_taken {
            // It has nothing left to do and ends at once; where it does not, it is nobody's harm.
            let _ = self.child.wait();
        }
    }
}
