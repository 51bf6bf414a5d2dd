//! A Bitbucket instance as its backup clients see it: an HTTP server on a loopback port, with latches that really hold writers.
//!
//! Knows the wire contract and nothing of who calls. Writers in the same or in other processes pass a [`Gate`]; while
//! an instance is latched they wait there.

mod call;
mod fault;
mod gate;
mod http;
mod instance;
mod latch;
mod server;

pub use call::Call;
pub use fault::{CallFault, FaultEffect};
pub use gate::{Closed, Gate, Pass};
pub use instance::{Behaviour, Seen, State};
pub use server::Simulator;
