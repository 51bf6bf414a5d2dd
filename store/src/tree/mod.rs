//! A generic persistent sorted tree (prolly tree): manifests, long content lists, the catalogue.

mod schema;

pub use schema::{Root, Schema};
