//! Integration tests of backup, restore, diff and dump: one binary.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

mod backup_session;
mod copying;
mod damaged_files;
mod delta;
mod delta_lab;
mod diff_and_dump;
mod fidelity;
mod fidelity_places;
mod fidelity_specimens;
mod golden;
mod restore_basic;
mod restore_hostile;
mod restore_lab;
mod restore_links;
mod restore_random;
mod resupply;
mod retention_restic;
