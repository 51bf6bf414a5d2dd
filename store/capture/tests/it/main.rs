//! Captures against what can be had of the real thing: processes, signals, servers on loopback ports, file systems.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod locks;
mod postgres;
mod streams;
