//! The differences of two trees, without looking at what they share.

use super::walk::{Next, Walk};
use super::{NodeSource, Root, Schema};
use crate::error::Result;
use std::cmp::Ordering;

/// One key whose value differs: added when `old` is None, removed when `new` is None.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Vec<u8>,
    /// Its value in the first tree.
    pub old: Option<Vec<u8>>,
    /// Its value in the second tree.
    pub new: Option<Vec<u8>>,
}

/// The changes from one tree to another in key order. Ends after the first error.
///
/// Whenever both sides stand before a subtree with the same id, it is stepped over unread.
pub struct DiffIter<'a, S: Schema> {
    old: Walk<'a, S>,
    new: Walk<'a, S>,
    until: Option<Vec<u8>>,
    failed: bool,
}

/// The changes that lead from tree `old` to tree `new`; loads nothing yet.
pub fn diff<'a, S: Schema>(
    old: Root,
    new: Root,
    old_source: &'a dyn NodeSource,
    new_source: &'a dyn NodeSource,
) -> DiffIter<'a, S> {
    const { assert!(S::ORDERED, "a sequence has no keys to compare by") };
    let (old, new) = (Walk::new(old, old_source), Walk::new(new, new_source));
    DiffIter { old, new, until: None, failed: false }
}

/// What to do with the two places before the next comparison.
enum Action {
    Stop,
    SkipBoth,
    Enter { old: bool, new: bool },
    Give { old: bool, new: bool },
}

impl<S: Schema> DiffIter<'_, S> {
    /// Keeps to the changes with `from <= key < until`.
    ///
    /// # Errors
    /// `Damaged` when a node cannot be read or does not fit where it stands, or a source's error.
    pub fn within(mut self, from: &[u8], until: Option<&[u8]>) -> Result<Self> {
        if !from.is_empty() && self.old.root_id() != self.new.root_id() {
            self.old.seek(from)?;
            self.new.seek(from)?;
        }
        self.until = until.map(<[u8]>::to_vec);
        Ok(self)
    }

    fn action(&self) -> Action {
        let until = self.until.as_deref();
        match (self.old.next_before(until), self.new.next_before(until)) {
            (Next::End, Next::End) => Action::Stop,
            (
                Next::Subtree { child: old, level: old_level, .. },
                Next::Subtree { child: new, level: new_level, .. },
            ) => {
                if old.id == new.id {
                    return Action::SkipBoth;
                }
                Action::Enter { old: old_level >= new_level, new: new_level >= old_level }
            }
            (Next::Subtree { .. }, _) => Action::Enter { old: true, new: false },
            (_, Next::Subtree { .. }) => Action::Enter { old: false, new: true },
            (Next::Entry { .. }, Next::End) => Action::Give { old: true, new: false },
            (Next::End, Next::Entry { .. }) => Action::Give { old: false, new: true },
            (
                Next::Entry { key: old, value: old_value },
                Next::Entry { key: new, value: new_value },
            ) => match old.cmp(new) {
                Ordering::Less => Action::Give { old: true, new: false },
                Ordering::Greater => Action::Give { old: false, new: true },
                Ordering::Equal if old_value == new_value => Action::SkipBoth,
                Ordering::Equal => Action::Give { old: true, new: true },
            },
        }
    }

    fn advance(&mut self) -> Result<Option<Change>> {
        loop {
            match self.action() {
                Action::Stop => return Ok(None),
                Action::SkipBoth => {
                    self.old.step();
                    self.new.step();
                }
                Action::Enter { old, new } => {
                    if old {
                        self.old.descend()?;
                    }
                    if new {
                        self.new.descend()?;
                    }
                }
                Action::Give { old, new } => {
                    let old = take(&mut self.old, old);
                    let new = take(&mut self.new, new);
                    let key = old.as_ref().or(new.as_ref()).map(|(key, _)| key.clone());
                    let key = key.expect("one side at least is given");
                    let (old, new) = (old.map(|entry| entry.1), new.map(|entry| entry.1));
                    return Ok(Some(Change { key, old, new }));
                }
            }
        }
    }
}

/// Copies the next entry and steps over it, if wanted.
fn take<S: Schema>(walk: &mut Walk<'_, S>, wanted: bool) -> Option<(Vec<u8>, Vec<u8>)> {
    let (key, value) = walk.entry().filter(|_| wanted)?;
    let entry = (key.to_vec(), value.to_vec());
    walk.step();
    Some(entry)
}

impl<S: Schema> Iterator for DiffIter<'_, S> {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let result = self.advance();
        self.failed = result.is_err();
        result.transpose()
    }
}
