//! A gate that writers pass one operation at a time, and that can be closed: two lock files in a directory.
//!
//! A writer holds `NAME.latch` while it enters and `NAME.work` while it is in. Who closes the gate takes the first
//! (nothing new gets in), then the second (nothing is in). Works between threads, processes and, with `flock`, shells.

use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// A gate in a directory.
#[derive(Debug, Clone)]
pub struct Gate {
    latch: PathBuf,
    work: PathBuf,
}

/// The right to write; given back when dropped.
#[derive(Debug)]
pub struct Pass {
    _work: File,
}

/// A gate that lets nobody in; it opens when dropped.
#[derive(Debug)]
pub struct Closed {
    _latch: File,
    work: PathBuf,
}

impl Gate {
    /// The gate of this name; its files are made when they are missing.
    pub fn new(dir: &Path, name: &str) -> io::Result<Self> {
        let gate = Self {
            latch: dir.join(format!("{name}.latch")),
            work: dir.join(format!("{name}.work")),
        };
        File::create(&gate.latch)?;
        File::create(&gate.work)?;
        Ok(gate)
    }

    /// Waits until the gate is open, and enters.
    pub fn enter(&self) -> io::Result<Pass> {
        let latch = locked(&self.latch, FlockOperation::LockShared)?;
        let work = locked(&self.work, FlockOperation::LockShared)?;
        drop(latch);
        Ok(Pass { _work: work })
    }

    /// Lets nobody in any more; those who are in stay.
    pub fn close(&self) -> io::Result<Closed> {
        let latch = locked(&self.latch, FlockOperation::LockExclusive)?;
        Ok(Closed { _latch: latch, work: self.work.clone() })
    }
}

impl Closed {
    /// Waits until nobody is in.
    pub fn drained(&self) -> io::Result<()> {
        locked(&self.work, FlockOperation::LockExclusive).map(drop)
    }
}

fn locked(path: &Path, how: FlockOperation) -> io::Result<File> {
    let file = File::open(path)?;
    loop {
        match flock(&file, how) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
