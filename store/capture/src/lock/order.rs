//! What a watchdog is ordered to take and to give back: a value that can be sent, written down and carried out anywhere.
//!
//! Knows the kinds of applications. Passwords are not part of it: they go beside it, in memory.

use super::bitbucket::Held as BitbucketHeld;
use super::fsfreeze::Held as FsFreezeHeld;
use super::hooks::Held as HooksHeld;
use super::http::Held as HttpHeld;
use super::login::Login;
use super::snapshot::Held as SnapshotHeld;
use super::web::{Web, WebOptions, host_of};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// The first pause between two attempts to give a lock back.
pub const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause between two attempts.
pub const PAUSE_MAX: Duration = Duration::from_secs(2);

/// One lock: how to take it, what came of that, how to give it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Order {
    /// A Bitbucket instance.
    Bitbucket(BitbucketHeld),
    /// Commands.
    Hooks(HooksHeld),
    /// Requests.
    Http(HttpHeld),
    /// File systems that are frozen.
    FsFreeze(FsFreezeHeld),
    /// A snapshot, which is removed.
    Snapshot(SnapshotHeld),
}

/// How a lock is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The capture is complete.
    Complete,
    /// The capture is given up: what the application does for it is cancelled first.
    Abandon,
}

/// Why a lock was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TakeError {
    /// Somebody else holds it.
    Occupied {
        /// Who.
        owner: String,
    },
    /// It is surely not locked.
    NotLocked(String),
    /// It may be locked; giving it back undoes that.
    Halfway(String),
    /// It may be locked, and we cannot give it back: the reply with the token was lost.
    Unknown(String),
}

/// Why an attempt to give a lock back failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hitch {
    /// What happened.
    pub detail: String,
    /// True where trying again soon will not help.
    pub is_lasting: bool,
}

impl Hitch {
    /// A failure that may pass.
    pub fn passing(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), is_lasting: false }
    }

    /// A failure that stays until somebody does something.
    pub fn lasting(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), is_lasting: true }
    }
}

/// What orders are carried out with: the password, and a connection that is kept.
#[derive(Debug, Default)]
pub struct Hand {
    password: Option<Zeroizing<String>>,
    web: Option<Web>,
}

impl Hand {
    /// With this password.
    pub fn new(password: Option<Zeroizing<String>>) -> Self {
        Self { password, web: None }
    }

    /// With the password that the order's source gives.
    ///
    /// # Errors
    /// `Refused` when it cannot be read.
    pub fn of(order: &Order) -> Result<Self> {
        let password = order.login().map(|(login, url)| login.read(host_of(url))).transpose()?;
        Ok(Self::new(password))
    }

    /// The password, to hand on.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref().map(String::as_str)
    }

    /// The connection; made when it is asked for first.
    ///
    /// # Errors
    /// As [`Web::new`].
    pub fn web(&mut self, options: &WebOptions, user: Option<&str>) -> Result<&Web> {
        if self.web.is_none() {
            let password = self.password.as_deref().map_or("", String::as_str);
            self.web = Some(Web::new(options, user.map(|user| (user, password)))?);
        }
        Ok(self.web.as_ref().expect("just made"))
    }
}

impl Order {
    /// The application, for people.
    pub fn title(&self) -> String {
        match self {
            Self::Bitbucket(held) => held.title(),
            Self::Hooks(held) => held.title(),
            Self::Http(held) => held.title(),
            Self::FsFreeze(held) => held.title(),
            Self::Snapshot(held) => held.title(),
        }
    }

    /// How to give the lock back by hand: a command, or a place in the application.
    pub fn manual(&self) -> String {
        match self {
            Self::Bitbucket(held) => held.manual(),
            Self::Hooks(held) => held.manual(),
            Self::Http(held) => held.manual(),
            Self::FsFreeze(held) => held.manual(),
            Self::Snapshot(held) => held.manual(),
        }
    }

    /// Who logs in, and to which URL.
    pub fn login(&self) -> Option<(&Login, &str)> {
        match self {
            Self::Bitbucket(held) => Some((&held.login, &held.base)),
            Self::Http(held) => held.login(),
            Self::Hooks(_) | Self::FsFreeze(_) | Self::Snapshot(_) => None,
        }
    }

    /// Warms the connection; failures show later.
    pub fn warm(&self, hand: &mut Hand) {
        match self {
            Self::Bitbucket(held) => held.warm(hand),
            Self::Hooks(_) | Self::Http(_) | Self::FsFreeze(_) | Self::Snapshot(_) => {}
        }
    }

    /// Takes the lock, and keeps in the order what is needed to give it back.
    ///
    /// # Errors
    /// [`TakeError`], by what is to be done about it.
    pub fn take(&mut self, hand: &mut Hand) -> std::result::Result<(), TakeError> {
        match self {
            Self::Bitbucket(held) => held.take(hand),
            Self::Hooks(held) => held.take(),
            Self::Http(held) => held.take(hand),
            Self::FsFreeze(held) => held.take(),
            Self::Snapshot(held) => held.take(),
        }
    }

    /// Tries once to give the lock back, and says how it went. Harmless when it was given back already.
    ///
    /// # Errors
    /// [`Hitch`]; then it is to be tried again.
    pub fn give_back(
        &mut self,
        hand: &mut Hand,
        ending: Ending,
    ) -> std::result::Result<String, Hitch> {
        match self {
            Self::Bitbucket(held) => held.give_back(hand, ending),
            Self::Hooks(held) => held.give_back(ending),
            Self::Http(held) => held.give_back(hand),
            Self::FsFreeze(held) => held.give_back(),
            Self::Snapshot(held) => held.give_back(),
        }
    }

    /// Tries to give the lock back until it succeeds, a failure is lasting, or the time is over.
    ///
    /// # Errors
    /// `StillLocked`.
    pub fn insist(&mut self, hand: &mut Hand, ending: Ending, limit: Duration) -> Result<String> {
        let begin = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            let hitch = match self.give_back(hand, ending) {
                Ok(how) => return Ok(how),
                Err(hitch) => hitch,
            };
            if hitch.is_lasting || begin.elapsed() + pause > limit {
                return Err(self.still_locked(hitch.detail));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The error when the lock could not be given back.
    pub fn still_locked(&self, detail: String) -> Error {
        Error::StillLocked { application: self.title(), detail, manual: self.manual() }
    }

    /// The error when the lock could not be taken.
    pub fn not_taken(&self, error: TakeError) -> Error {
        match error {
            TakeError::Occupied { owner } => Error::Occupied { application: self.title(), owner },
            TakeError::NotLocked(text) | TakeError::Halfway(text) => {
                Error::Failed(format!("{} was not locked: {text}", self.title()))
            }
            TakeError::Unknown(text) => self.still_locked(text),
        }
    }
}
