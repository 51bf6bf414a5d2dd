//! The doubles themselves: a fault strikes where it was planned, and crash images are complete.

mod doubles;
