//! The comparison with peers: corpora, adapters, measuring, verifying and the table.
//!
//! Drives finished programs from outside and must not know how any of them works; the micro-benchmarks beside it
//! (`benches/benches/`) are the only part that links the libraries.

pub mod corpus;
pub mod failure;
pub mod measure;
pub mod random;
pub mod report;
pub mod run;
pub mod same;
pub mod scenario;
pub mod tool;

pub use failure::{At, Failure, Result};
