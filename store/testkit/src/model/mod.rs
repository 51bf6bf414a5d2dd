//! The protocol model: every interleaving of backups, prunes, forgets and undeletes in a small world.
//!
//! `protocol` says what is explored and what must never be, `writer`, `pruner` and `keeper` are the actors, `state` is what they
//! share, `normal` makes equal what is equal, `search` goes through it all.
//! `objects` is a second model with the same search. Nothing here runs the store's code: it is the argument
//! for the code's rules, and each rule has a mutant that shows it to be needed.

mod keeper;
mod normal;
mod objects;
mod protocol;
mod pruner;
mod search;
mod state;
mod writer;

pub use objects::{ObjectRule, OwnObjects};
pub use protocol::{A, B, C, Protocol, Rule, Scope, Step};
pub use search::{Explored, Model, Violation, explore};
pub use state::State;
