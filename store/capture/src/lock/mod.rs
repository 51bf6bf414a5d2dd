//! Locks of applications: how one is asked to hold still, and given back.
//!
//! An adapter speaks to one kind of application. Whatever way a capture ends, the lock it took is given back; see
//! [`LockAdapter::unlock`].

use crate::error::Result;

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
}

/// One way to lock an application.
///
/// The calls come in this order: `rehearse`, `lock`, `drain` until it says so, `progress` any number of times,
/// `complete` if what is needed was held, and `unlock` in every ending after `lock` was called, whatever it gave.
pub trait LockAdapter: Send {
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
}
