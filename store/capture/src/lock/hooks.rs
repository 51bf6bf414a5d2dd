//! Any application whose lock is a command: `lock`, `ready` and `unlock`, each with a time limit, no shell between.
//!
//! What `lock` prints is the token; `ready` and `unlock` find it in a variable. The exit statuses that mean something
//! stand at the constants.

use super::guarded::Guarded;
use super::keeper::Keeper;
use super::order::{Ending, Hitch, Order, TakeError};
use super::run::{Ran, anchored, find, run};
use super::{Drain, LockAdapter, Rehearsal, Tell};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The variable that holds what `lock` printed; not set when it printed nothing, or when that is not known.
pub const TOKEN: &str = "STILLPOINT_LOCK_TOKEN";
/// The variable that tells `unlock` whether the capture is `complete` or `abandoned`.
pub const ENDING: &str = "STILLPOINT_LOCK_ENDING";
/// `lock` ends with this when somebody else holds the lock, and it did nothing (EX_TEMPFAIL of sysexits.h).
pub const OCCUPIED: i32 = 75;
/// `ready` ends with this when the application is not drained yet.
pub const NOT_YET: i32 = 1;

/// The commands; each is a program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HooksOptions {
    /// The application, for people.
    pub application: String,
    /// Locks it; what it prints is the token.
    pub lock: Vec<String>,
    /// Asks whether it is drained: 0 yes, 1 not yet. None: it is when `lock` ended.
    pub ready: Option<Vec<String>>,
    /// Unlocks it; must be harmless when nothing is locked, and may be run more than once.
    pub unlock: Vec<String>,
    /// The longest that `lock` may take.
    pub lock_limit: Duration,
    /// The longest that one run of `ready` may take.
    pub ready_limit: Duration,
    /// The longest that one run of `unlock` may take.
    pub unlock_limit: Duration,
}

/// An application that commands lock.
pub struct Hooks {
    options: HooksOptions,
    guarded: Guarded,
}

impl Hooks {
    /// Locks with these commands.
    pub fn new(options: HooksOptions, keeper: Keeper, tell: Tell) -> Self {
        let options = HooksOptions {
            lock: anchored(options.lock),
            ready: options.ready.map(anchored),
            unlock: anchored(options.unlock),
            ..options
        };
        let order = Order::Hooks(Held { options: options.clone(), token: None });
        Self { options, guarded: Guarded::new(keeper, order, tell) }
    }

    fn token(&self) -> Option<String> {
        match self.guarded.order() {
            Order::Hooks(held) => held.token.clone(),
            _ => None,
        }
    }
}

impl LockAdapter for Hooks {
    fn rehearse(&mut self) -> Result<Rehearsal> {
        let HooksOptions { lock, ready, unlock, .. } = &self.options;
        for command in [Some(lock), ready.as_ref(), Some(unlock)].into_iter().flatten() {
            let program = command.first().map_or("", String::as_str);
            if find(program).is_none() {
                return Err(Error::Refused {
                    what: format!("no program `{program}` can be run"),
                    hint: Some("give its path; a line for a shell is `sh -c LINE`".into()),
                });
            }
        }
        let notes = self.guarded.rehearse()?;
        let application = self.options.application.clone();
        Ok(Rehearsal { application, notes, ..Rehearsal::default() })
    }

    fn lock(&mut self) -> Result<()> {
        self.guarded.take()
    }

    fn drain(&mut self) -> Result<Drain> {
        self.guarded.confirm()?;
        let Some(ready) = &self.options.ready else { return Ok(Drain::Drained) };
        let token = self.token();
        let variables: Vec<_> = token.as_deref().map(|token| (TOKEN, token)).into_iter().collect();
        match run(ready, &variables, self.options.ready_limit) {
            Ran::Well(_) => Ok(Drain::Drained),
            Ran::Failed { status: Some(NOT_YET), text } => Ok(Drain::Waiting(text)),
            Ran::Failed { text, .. } | Ran::NotStarted(text) => Err(Error::Failed(text)),
        }
    }

    fn progress(&mut self, _percent: u8) -> Result<()> {
        self.guarded.confirm()
    }

    fn complete(&mut self) -> Result<()> {
        self.guarded.complete()
    }

    fn unlock(&mut self) -> Result<()> {
        self.guarded.give_back()
    }
}

/// The commands as an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    options: HooksOptions,
    token: Option<String>,
}

impl Held {
    pub(crate) fn title(&self) -> String {
        self.options.application.clone()
    }

    pub(crate) fn manual(&self) -> String {
        let token = self.token.as_ref().map(|token| format!("{TOKEN}={} ", quoted(token)));
        let words: Vec<String> = self.options.unlock.iter().map(|word| quoted(word)).collect();
        format!("{}{}", token.unwrap_or_default(), words.join(" "))
    }

    pub(crate) fn take(&mut self) -> std::result::Result<(), TakeError> {
        match run(&self.options.lock, &[], self.options.lock_limit) {
            Ran::Well(token) => {
                self.token = Some(token).filter(|token| !token.is_empty());
                Ok(())
            }
            Ran::NotStarted(text) => Err(TakeError::NotLocked(text)),
            Ran::Failed { status: Some(OCCUPIED), .. } => {
                Err(TakeError::Occupied { owner: "somebody else".into() })
            }
            Ran::Failed { text, .. } => Err(TakeError::Halfway(text)),
        }
    }

    pub(crate) fn give_back(&self, ending: Ending) -> std::result::Result<String, Hitch> {
        let ending = match ending {
            Ending::Complete => "complete",
            Ending::Abandon => "abandoned",
        };
        let mut variables = vec![(ENDING, ending)];
        variables.extend(self.token.as_deref().map(|token| (TOKEN, token)));
        match run(&self.options.unlock, &variables, self.options.unlock_limit) {
            Ran::Well(_) => Ok(format!("{} unlocked", self.options.application)),
            Ran::NotStarted(text) => Err(Hitch::lasting(text)),
            Ran::Failed { text, .. } => Err(Hitch::passing(text)),
        }
    }
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-+=./:,@%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
