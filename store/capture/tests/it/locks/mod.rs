//! Locks: every adapter runs the one suite; Bitbucket is tried against an instance that misbehaves in every way.

mod bitbucket;
mod faults;
mod freeze;
mod hooks;
mod http;
mod kill;
mod latch;
mod mounted;
mod place;
mod roles;
mod snapshot;
mod suite;
