//! Test doubles, conformance suites, and a generator of directory trees.
//!
//! Only ever a dev-dependency (and the benches' tool box). Knows traits and plain descriptions, never how a
//! repository is built. Everything random has a seed, and every failure names it.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

pub mod backend_suite;
pub mod bitbucket;
pub mod crash;
pub mod env;
pub mod fault;
pub mod fuzz;
pub mod gate;
pub mod index_suite;
pub mod model;
pub mod power;
pub mod random;
pub mod scenario;
pub mod servers;
pub mod tree;

pub use backend_suite::{BackendFixture, backend_suite};
pub use crash::{CrashBackend, CrashImage};
pub use env::SeededEnv;
pub use fault::{CallKind, Counts, Effect, Fault, FaultBackend, Repeat};
pub use gate::{Actor, Gated, Passed, run_gated};
pub use index_suite::{IndexFixture, index_suite};
pub use random::Random;
pub use tree::{
    CompareOptions, Difference, Shape, TreeSpec, compare_trees, compare_trees_with, tree_spec,
};

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs a body and says on stderr for which seed (or other label) it failed.
///
/// # Panics
/// As the body does.
pub fn with_label<T>(label: impl std::fmt::Display, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        eprintln!("failed with {label}");
        resume_unwind(panic)
    })
}
