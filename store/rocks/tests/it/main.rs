//! The index on RocksDB: conformance in every role, damage, and two processes on one folder.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod conformance;
mod damage;
