//! Sources beyond the file tree: commands today, databases and application locks next.
//!
//! Knows processes and, later, applications. Knows nothing of packs or of the server.

mod command;

pub use command::CommandSource;
