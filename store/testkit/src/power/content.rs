//! What became of the bytes of one file.

use super::images::Fate;
use super::{Action, FileId, Operation, Recording};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// How the bytes of a file came about.
#[derive(Debug, Default)]
pub(super) struct History {
    /// What is durable from the beginning.
    pub start: Option<Arc<Vec<u8>>>,
    /// Numbers of the operations that changed it.
    pub changes: Vec<usize>,
}

/// How many of a file's changes are durable at a moment, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Pending {
    pub id: FileId,
    pub durable: usize,
    pub newest: usize,
}

/// Makes contents, each once.
#[derive(Default)]
pub(super) struct Contents {
    made: HashMap<(Pending, Fate), (Arc<Vec<u8>>, blake3::Hash)>,
}

impl Contents {
    /// The bytes after this fate, and their hash.
    pub(super) fn get(
        &mut self,
        recording: &Recording,
        history: &History,
        pending: Pending,
        fate: Fate,
    ) -> (Arc<Vec<u8>>, blake3::Hash) {
        let Pending { id, durable, newest } = pending;
        let settled = |changes| (Pending { id, durable: changes, newest: changes }, Fate::Kept);
        let key = match fate {
            Fate::Kept => settled(newest),
            Fate::Lost => settled(durable),
            _ if durable == newest => settled(newest),
            _ => (pending, fate),
        };
        let entry = self.made.entry(key);
        let (content, hash) = entry.or_insert_with(|| {
            let bytes = make(recording, history, key.0, key.1);
            let hash = blake3::hash(&bytes);
            (Arc::new(bytes), hash)
        });
        (Arc::clone(content), *hash)
    }
}

fn make(recording: &Recording, history: &History, pending: Pending, fate: Fate) -> Vec<u8> {
    let mut bytes = history.start.as_deref().cloned().unwrap_or_default();
    let operations = |range: Range<usize>| {
        let numbers = history.changes.get(range).expect("numbers of changes").iter();
        numbers.map(|number| &recording.operations[*number])
    };
    for operation in operations(0..pending.durable) {
        apply(&mut bytes, operation, usize::MAX, false);
    }
    let lens = operations(pending.durable..pending.newest).map(written_len);
    let mut room = match fate {
        Fate::Torn(part) => lens.sum::<usize>() * usize::from(part) / 256,
        _ => usize::MAX,
    };
    for operation in operations(pending.durable..pending.newest) {
        apply(&mut bytes, operation, room, fate == Fate::Zeros);
        let len = written_len(operation);
        if len > room {
            break;
        }
        room -= len;
    }
    bytes
}

fn written_len(operation: &Operation) -> usize {
    match &operation.action {
        Action::Write(_, _, bytes) => bytes.len(),
        _ => 0,
    }
}

/// Does a change to a file's bytes, no more than `room` of them, perhaps with zeros instead.
fn apply(content: &mut Vec<u8>, operation: &Operation, room: usize, zeros: bool) {
    match &operation.action {
        Action::SetLen(_, len) => {
            content.resize(usize::try_from(*len).expect("files of tests are short"), 0);
        }
        Action::Write(_, offset, bytes) => {
            let start = usize::try_from(*offset).expect("files of tests are short");
            let bytes = bytes.get(..room.min(bytes.len())).expect("not more than there is");
            let end = start + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            let place = content.get_mut(start..end).expect("it was just made so long");
            match zeros {
                true => place.fill(0),
                false => place.copy_from_slice(bytes),
            }
        }
        other => panic!("{other:?} changes no bytes"),
    }
}
