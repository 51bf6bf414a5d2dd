//! The doubles themselves (a fault strikes where it was planned, crash images are complete, a tree on disk is the one
//! that was described), the committed fuzz corpus, and the habits of the whole checkout.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod doubles;
mod fuzz;
mod tidy;
mod trees;
