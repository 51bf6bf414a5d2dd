//! A repository behind HTTP, seen from a host: the blocking client of the native protocol.
//!
//! Owns: the transport that makes a remote vault look like any other backend. Must not know paths or RocksDB.
//! Nothing is connected yet: today every repository lies on a local disk.
