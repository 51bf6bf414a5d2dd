//! The directories between the target and the entry that a walk stands before.

use crate::entry::Entry;
use crate::target::Fresh;
use std::collections::HashSet;

/// What is known of a directory in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LevelState {
    /// Nothing below it was asked for so far.
    Pending,
    /// It was made by this restore (or would be): it holds nothing else.
    Made,
    /// It was there before.
    Found,
    /// It cannot be entered; nothing below it is restored.
    Blocked,
}

/// One directory on the way.
pub(super) struct Level {
    /// Its key, relative to the target.
    pub key: Vec<u8>,
    /// What the manifest says about it, if anything.
    pub entry: Option<Box<Entry>>,
    /// Whether everything in it is asked for.
    pub included: bool,
    pub state: LevelState,
    pub fresh: Fresh,
    /// Whether its metadata is to be set.
    pub touch: bool,
    /// Its mode, if that was changed so that something can be restored inside.
    pub unlocked: Option<u32>,
    /// Names that exist in the target and did not come in the manifest so far; None if nothing will be deleted.
    pub leftovers: Option<HashSet<Vec<u8>>>,
}

impl Level {
    pub fn new(key: Vec<u8>, entry: Option<Box<Entry>>, included: bool) -> Self {
        let (state, fresh) = (LevelState::Pending, Fresh::No);
        Self { key, entry, included, state, fresh, touch: false, unlocked: None, leftovers: None }
    }

    /// The manifest has this name.
    pub fn saw(&mut self, name: &[u8]) {
        if let Some(leftovers) = &mut self.leftovers {
            leftovers.remove(name);
        }
    }
}
