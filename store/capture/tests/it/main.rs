//! Captures against what can be had of the real thing: processes, signals, servers on loopback ports, file systems.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod journal;
mod journal_mounts;
mod listing;
mod locks;
mod mariadb;
mod operations;
mod places;
mod postgres;
mod service;
mod sqlite;
mod streams;
