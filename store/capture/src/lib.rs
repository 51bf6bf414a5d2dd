//! Holding an application still: phases, locks, databases, the journal of changes, commands as sources.
//!
//! Knows processes, applications and databases. Knows nothing of packs or of the server.

mod command;
pub mod database;
pub mod error;
pub mod freeze;
pub mod journal;
pub mod lock;
pub mod machine;
pub mod phase;

pub use command::CommandSource;
pub use error::{Error, Result};
