//! Integration tests of backup, restore, diff and dump: one binary.

mod backup_session;
mod diff_and_dump;
mod golden;
mod restore_basic;
mod restore_hostile;
mod restore_lab;
