//! The command as people and scripts meet it: the real binary, real directories, real signals.

#![allow(clippy::unwrap_used, reason = "tests")]

mod codes;
mod commands;
mod faults;
mod index;
mod json;
mod manual;
mod parity;
mod prune;
mod power;
mod power_lab;
mod refusals;
mod retention;
mod secrets;
mod strace;
mod support;
