//! Integration tests of the store: each trait's conformance suite against each implementation, and whole scenarios.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod backends;
mod checks;
mod crashes;
mod damage_matrix;
mod forgetting;
mod gated;
mod index_repair;
mod indexes;
mod killed;
mod lab;
mod model;
mod overtaken;
mod parity;
mod pruning;
mod races;
mod rebuilt;
mod rebuilt_beside;
mod rebuilt_scene;
mod repairs;
mod resealing;
mod rotation;
mod rotation_crashes;
mod scenarios;
mod sessions;
mod watched;
