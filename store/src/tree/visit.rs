//! Going through chosen parts of a tree, around what cannot be read.

use super::walk::{Next, Walk};
use super::{NodeSource, Root, Schema};
use crate::error::{Error, Result};
use crate::id::NodeId;

/// What a visit comes to.
#[derive(Debug)]
pub enum Part<'w> {
    /// A subtree. It is entered where the visitor says so.
    Subtree {
        /// Its top node.
        id: NodeId,
        /// 0 where it is a leaf.
        level: u8,
        /// Entries in it.
        entries: u64,
        /// The greatest key before it, where there is one: its keys are greater.
        after: Option<&'w [u8]>,
        /// Its last key; None for the whole tree.
        last_key: Option<&'w [u8]>,
        /// Why it could not be entered, when it comes for the second time because of that.
        failure: Option<Error>,
    },
    /// An entry of a leaf that was entered.
    Entry {
        /// Its key.
        key: &'w [u8],
        /// Its value.
        value: &'w [u8],
    },
}

/// Goes through a tree in order. `look` says whether a subtree is entered; one that turns out to be unreadable comes
/// again with the reason, and is then passed over.
///
/// # Errors
/// What `look` gives, and errors of the source that are no damage.
pub fn visit<S: Schema>(
    root: Root,
    source: &dyn NodeSource,
    look: &mut dyn FnMut(Part<'_>) -> Result<bool>,
) -> Result<()> {
    let mut walk = Walk::<S>::new(root, source);
    loop {
        let enters = match walk.next() {
            Next::End => return Ok(()),
            Next::Entry { key, value } => {
                look(Part::Entry { key, value })?;
                false
            }
            Next::Subtree { .. } => look(subtree(&walk, None))?,
        };
        if !enters {
            walk.step();
            continue;
        }
        match walk.descend() {
            Ok(()) => {}
            Err(error) if error.is_damage() || matches!(error, Error::Io { .. }) => {
                look(subtree(&walk, Some(error)))?;
                walk.step();
            }
            Err(error) => return Err(error),
        }
    }
}

fn subtree<'w, S: Schema>(walk: &'w Walk<'_, S>, failure: Option<Error>) -> Part<'w> {
    let Next::Subtree { child, level, last_key } = walk.next() else {
        unreachable!("the place stands before a subtree")
    };
    let (id, entries) = (child.id, child.entries);
    Part::Subtree { id, level, entries, after: walk.lower_bound(), last_key, failure }
}
