//! What adapters have in common whose lock is one order: the watchdog is started, takes it, and gives it back.

use super::Tell;
use super::keeper::{Keeper, Watch};
use super::order::{Ending, Hand, Order};
use crate::error::{Error, Result};

/// An order and its watchdog.
pub(super) struct Guarded {
    keeper: Keeper,
    /// As it is before anything is locked.
    order: Order,
    watch: Option<Watch>,
    ending: Ending,
    tell: Tell,
}

impl Guarded {
    pub fn new(keeper: Keeper, order: Order, tell: Tell) -> Self {
        Self { keeper, order, watch: None, ending: Ending::Abandon, tell }
    }

    /// Where records are kept.
    pub fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// Gives back what earlier captures left behind, and starts the watchdog; what is to be told.
    pub fn rehearse(&mut self) -> Result<Vec<String>> {
        let notes = self.keeper.tidy();
        self.prepare()?;
        Ok(notes)
    }

    /// Starts the watchdog.
    fn prepare(&mut self) -> Result<()> {
        let hand = Hand::of(&self.order)?;
        self.watch = Some(Watch::start(&self.keeper, self.order.clone(), hand)?);
        Ok(())
    }

    /// Takes the lock.
    pub fn take(&mut self) -> Result<()> {
        if !self.watch.as_mut().is_some_and(Watch::is_ready) {
            self.prepare()?;
        }
        self.ending = Ending::Abandon;
        self.watch.as_mut().expect("prepared").take().map(drop)
    }

    /// The lock as it is known now.
    pub fn order(&self) -> &Order {
        self.watch.as_ref().map_or(&self.order, Watch::order)
    }

    /// The lock is held, and was all the time.
    pub fn confirm(&mut self) -> Result<()> {
        match &mut self.watch {
            Some(watch) => watch.confirm(),
            None => Err(Error::Failed(format!("{} is not locked", self.order.title()))),
        }
    }

    /// As [`Self::confirm`]; from now on it is given back as after a capture that is complete.
    pub fn complete(&mut self) -> Result<()> {
        self.confirm()?;
        self.ending = Ending::Complete;
        Ok(())
    }

    /// Gives the lock back, if it is held.
    pub fn give_back(&mut self) -> Result<()> {
        let given = self.watch.as_mut().map(|watch| watch.give_back(self.ending)).transpose()?;
        if let Some(line) = given.flatten() {
            (self.tell)(&line);
        }
        Ok(())
    }
}
