//! What can go wrong in a capture, by what the caller does next.

/// The result of a step of a capture.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a capture, or a step of it, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Found out before anything was locked: mend it and run again.
    #[error("{what}")]
    Refused {
        /// What is wrong.
        what: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The application is locked by somebody else; nothing was touched.
    #[error("{application} is locked by {owner}")]
    Occupied {
        /// The application, as its users call it.
        application: String,
        /// Who holds the lock, as far as the application tells.
        owner: String,
    },
    /// The lock was lost, or the application stopped holding still: what was captured under it does not count.
    #[error("{0}")]
    Lost(String),
    /// A limit was reached: the lock budget or the time to drain.
    #[error("{what} took longer than {}", crate::phase::seconds(*.limit))]
    OverBudget {
        /// What took so long.
        what: &'static str,
        /// The limit.
        limit: std::time::Duration,
    },
    /// The application may still be locked; `manual` says how to unlock it by hand.
    #[error("{application} could not be unlocked: {detail}")]
    StillLocked {
        /// The application, as its users call it.
        application: String,
        /// Why not.
        detail: String,
        /// A command or a place in the application that unlocks it.
        manual: String,
    },
    /// A call of the application, a database or a helper command failed.
    #[error("{0}")]
    Failed(String),
    /// Somebody asked to stop.
    #[error("interrupted")]
    Cancelled,
    /// The store or a file.
    #[error(transparent)]
    Store(#[from] stillpoint_store::Error),
}
