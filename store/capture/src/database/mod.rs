//! Databases as sources: an instant is pinned under the lock, and dumped after it is given back.

use crate::error::Result;
use stillpoint_archive::StreamSource;

/// A database that can be captured.
///
/// The calls come in this order: `rehearse`, `pin`, and `dump` after the application's lock was given back. Dropping
/// it gives up whatever is pinned.
pub trait DatabaseSource: Send {
    /// The database, for people: `PostgreSQL 15.4, database shop on /run/postgresql`. Never holds a password.
    fn title(&self) -> String;

    /// Tries everything that can fail, without stopping anybody: connects, looks at rights, versions and the dump
    /// program, pins an instant for trial. The connections stay open and warm.
    ///
    /// # Errors
    /// `Refused` with what to do.
    fn rehearse(&mut self) -> Result<()>;

    /// Pins this instant: what is dumped later is what the database holds now. Takes milliseconds; starts no process.
    ///
    /// # Errors
    /// What the database answers; nothing is pinned then.
    fn pin(&mut self) -> Result<()>;

    /// The dump of what was pinned, as streams, each of which becomes one file of the snapshot. Their names begin with the name
    /// of this source. What is pinned is given up when the last of them is finished or dropped.
    ///
    /// # Errors
    /// When nothing is pinned, or a dump cannot be started.
    fn dump(&mut self) -> Result<Vec<Box<dyn StreamSource>>>;
}
