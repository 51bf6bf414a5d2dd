//! The doubles themselves (a fault strikes where it was planned, crash images are complete, a tree on disk is the one
//! that was described), the committed fuzz corpus, and the habits of the whole checkout.

mod doubles;
mod fuzz;
mod tidy;
mod trees;
