//! Locks: every adapter runs the one suite; Bitbucket is tried against an instance that misbehaves in every way.

mod bitbucket;
mod faults;
mod hooks;
mod kill;
mod latch;
mod place;
mod roles;
mod suite;
