//! Integration tests of the store: each trait's conformance suite against each implementation, and whole scenarios.

mod backends;
mod crashes;
mod indexes;
mod killed;
mod lab;
mod sessions;
