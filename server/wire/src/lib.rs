//! The messages of the native protocol, shared by both ends.
//!
//! Owns: the shapes that a host and a server exchange when packs are pushed over HTTP. Must not know files, RocksDB,
//! or how either end keeps its state. Nothing is exchanged yet: today every repository lies on a local disk.
