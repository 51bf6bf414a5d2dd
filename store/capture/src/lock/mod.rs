//! Locks of applications: how one is asked to hold still, and given back.
//!
//! An adapter speaks to one kind of application. Whatever way a capture ends, the lock it took is given back; see
//! [`LockAdapter::unlock`]. The lock is taken and given back by a process of its own, the [`watchdog`], which a capture
//! starts through a [`Keeper`].

pub mod bitbucket;
pub mod fsfreeze;
mod guarded;
pub mod hooks;
pub mod http;
mod keeper;
pub mod login;
mod message;
pub mod none;
pub mod order;
mod record;
mod run;
pub mod snapshot;
mod sys;
mod wait;
pub mod watchdog;
pub mod web;

pub use keeper::{GIVE_BACK_LIMIT, Keeper, Watch};
pub use record::{Found, Record, RecordState};
pub use wait::{Pauses, wait_until_drained};

use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Who is told what an adapter does, one line at a time.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// What a lock makes of a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing: files are read while they change.
    None,
    /// The file system stands still, or a snapshot of it is read; the application may have been in the middle of something.
    Filesystem,
    /// The application stands still, with nothing half done.
    Application,
}

/// Files that are to be read at another place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Whoever wants a file below this path...
    pub of: PathBuf,
    /// ... finds it, as it was when it was held, below this one.
    pub at: PathBuf,
}

/// The whole path: a watchdog has another working directory.
fn whole(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// How far an application is with holding still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drain {
    /// It still finishes what it had begun; the text says what, for people.
    Waiting(String),
    /// Nothing changes any more until the lock is given back.
    Drained,
    /// It does not hold still any more: cancelled by somebody, or draining failed.
    Lost(String),
}

/// What is known of the application after the rehearsal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rehearsal {
    /// The application and its version, for people.
    pub application: String,
    /// Patterns of what is not worth saving in its home, anchored at the home, as `.gitignore` has them.
    pub excludes: Vec<String>,
    /// What people should know; one line each.
    pub notes: Vec<String>,
    /// On the file systems of these nothing can be written while the lock is held: no cookie, no spool, no log.
    pub frozen: Vec<PathBuf>,
}

/// One way to lock an application.
///
/// The calls come in this order: `rehearse`, `lock`, `drain` until it says so, `progress` any number of times,
/// `hold` once, `complete` if what is needed was held, `unlock` in every ending after `lock` was called, whatever it
/// gave, and `dismiss` when nothing is read any more.
pub trait LockAdapter: Send {
    /// What a capture under this lock may claim at most.
    fn level(&self) -> Level {
        Level::Application
    }

    /// Tries everything that can fail without locking anything, and warms connections.
    ///
    /// # Errors
    /// `Refused` with what to do.
    fn rehearse(&mut self) -> Result<Rehearsal>;

    /// Asks for the lock and starts the application's own preparation. What is needed to unlock is on disk and with
    /// the watchdog before anything else happens.
    ///
    /// # Errors
    /// `Occupied` when somebody else holds it (nothing was touched then); others, after which `unlock` is called.
    fn lock(&mut self) -> Result<()>;

    /// Asks once how far the application is; does not wait.
    ///
    /// # Errors
    /// What the application answers, after retries where they may help.
    fn drain(&mut self) -> Result<Drain>;

    /// Tells the application how far the capture is, 0 to 99; errors that mean nothing for the capture are not given.
    ///
    /// # Errors
    /// `Lost` when the lock is not ours any more.
    fn progress(&mut self, percent: u8) -> Result<()>;

    /// Called once when the application is drained: an adapter that can hold the files itself does it now and says
    /// where they are to be read instead, also after `unlock`, until `dismiss`. What no view covers is read in place.
    ///
    /// # Errors
    /// When the files cannot be held.
    fn hold(&mut self) -> Result<Vec<View>> {
        Ok(Vec::new())
    }

    /// Tells the application that everything which needed its stillness is done, and makes sure that the lock was
    /// held until now. Only after this may a checkpoint claim to be consistent.
    ///
    /// # Errors
    /// `Lost` when the lock is not ours any more.
    fn complete(&mut self) -> Result<()>;

    /// Gives the lock back, and the application's task up if one runs; tries again for a while. Does nothing when
    /// nothing is locked, so it may be called again.
    ///
    /// # Errors
    /// `StillLocked` with the way to unlock by hand.
    fn unlock(&mut self) -> Result<()>;

    /// Gives up what `hold` made, and makes sure that it was there until now: to be called before what was read from
    /// there is committed. Does nothing when nothing is held, so it may be called again.
    ///
    /// # Errors
    /// `Lost` when it was gone before; `StillLocked` when something is left, which `stillpoint unlock --stale` removes later.
    fn dismiss(&mut self) -> Result<()> {
        Ok(())
    }
}
