//! The data that every tool gets: made once, kept, and changed in place between backups.

mod dumps;
mod files;
mod home;
mod image;
mod mutate;

pub use dumps::dumps;
pub use files::{remove, tree_bytes};
pub use home::{home, tiny};
pub use image::{change_image, image};
pub use mutate::{Mutation, mutate};

use std::path::PathBuf;

/// How much of everything.
#[derive(Debug, Clone)]
pub struct Scale {
    /// The name, which is also a folder's.
    pub name: &'static str,
    /// Most files of the home-like tree.
    pub home_files: u64,
    /// Most bytes of the home-like tree, without the big file.
    pub home_bytes: u64,
    /// The big file in the home-like tree, in bytes.
    pub big_bytes: u64,
    /// Incompressible data in the home-like tree, in bytes.
    pub noise_bytes: u64,
    /// Rows of the database that is dumped; a row is about 125 bytes of dump.
    pub dump_rows: u64,
    /// Files of the tree of tiny files.
    pub tiny_files: u64,
    /// The disk image, in bytes.
    pub image_bytes: u64,
}

impl Scale {
    /// A few minutes for all tools together.
    pub fn small() -> Self {
        Self {
            name: "small",
            home_files: 15_000,
            home_bytes: 260 << 20,
            big_bytes: 105_000_000,
            noise_bytes: 16 << 20,
            dump_rows: 500_000,
            tiny_files: 50_000,
            image_bytes: 256 << 20,
        }
    }

    /// The size of a home directory: at least 100,000 files and 3 GB where the sources suffice.
    pub fn home() -> Self {
        Self {
            name: "home",
            home_files: 120_000,
            home_bytes: 2 << 30,
            big_bytes: 1 << 30,
            noise_bytes: 200 << 20,
            dump_rows: 1_600_000,
            tiny_files: 200_000,
            image_bytes: 1 << 30,
        }
    }

    /// What the figures to reach are stated for.
    pub fn full() -> Self {
        Self {
            name: "full",
            dump_rows: 4_500_000,
            tiny_files: 1_000_000,
            image_bytes: 4 << 30,
            ..Self::home()
        }
    }
}

/// Where corpora come from and where they are kept.
#[derive(Debug, Clone)]
pub struct Place {
    /// The folder that keeps corpora between runs.
    pub data: PathBuf,
    /// Folders with real files: sources, documentation.
    pub sources: Vec<PathBuf>,
    /// Folders with real packages that do not compress.
    pub packages: Vec<PathBuf>,
}

impl Place {
    /// The folder of one corpus at one scale.
    pub fn corpus(&self, scale: &Scale, name: &str) -> PathBuf {
        self.data.join("corpus").join(scale.name).join(name)
    }
}
