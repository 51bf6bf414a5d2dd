//! The command as people and scripts meet it: the real binary, real directories, real signals.

#![allow(clippy::unwrap_used, reason = "tests")]

mod capture;
mod capture_faults;
mod codes;
mod commands;
mod concurrent;
mod copy;
mod crash_lab;
mod databases;
mod faults;
mod index;
mod journal;
mod json;
mod kill;
mod manual;
mod parity;
mod power;
mod prune;
mod refusals;
mod retention;
mod secrets;
mod strace;
mod strategies;
mod support;
mod syscalls;
mod unlock;
