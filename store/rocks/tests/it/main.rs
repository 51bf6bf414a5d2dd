//! The index on RocksDB: conformance in every role, damage, and two processes on one folder.

mod conformance;
mod damage;
