//! The doubles themselves: a fault strikes where it was planned, crash images are complete, and a tree on disk is the
//! one that was described.

mod doubles;
mod trees;
