//! No lock: files are read while they change.

use super::{Drain, Level, LockAdapter, Rehearsal};
use crate::error::Result;

/// Locks nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLock;

impl LockAdapter for NoLock {
    fn level(&self) -> Level {
        Level::None
    }

    fn rehearse(&mut self) -> Result<Rehearsal> {
        let note = "nothing is locked: what is saved is what each file held when it was read";
        let application = "no application".into();
        Ok(Rehearsal { application, notes: vec![note.into()], ..Rehearsal::default() })
    }

    fn lock(&mut self) -> Result<()> {
        Ok(())
    }

    fn drain(&mut self) -> Result<Drain> {
        Ok(Drain::Drained)
    }

    fn progress(&mut self, _percent: u8) -> Result<()> {
        Ok(())
    }

    fn complete(&mut self) -> Result<()> {
        Ok(())
    }

    fn unlock(&mut self) -> Result<()> {
        Ok(())
    }
}
