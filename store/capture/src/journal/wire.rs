//! What a journal that runs as a service and its clients say to each other: one question, one answer, as CBOR behind its length.
//!
//! Both ends are the same program and the same user; lengths are checked all the same.

use super::{ChangeSet, Gap, Inode};
use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::io::{Read, Write};

/// Longest question, bytes.
pub(super) const QUESTION_BYTES_MAX: usize = 16 << 20;
/// Longest answer, bytes: the largest set with the longest paths.
pub(super) const ANSWER_BYTES_MAX: usize = 1 << 30;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// What changed below these roots (keys) since this position?
    Changes { since: Option<String>, roots: Vec<ByteBuf> },
    /// How is it?
    Status,
    /// End.
    Stop,
}

/// What the service says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// What changed, and the position behind that.
    Changes { set: WireSet, position: String },
    /// How it is.
    Status(Status),
    /// It ends.
    Stopped,
    /// The question made no sense.
    Refused(String),
}

/// How a journal that runs as a service is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its process.
    pub process: u32,
    /// The keys of what it watches.
    pub roots: Vec<ByteBuf>,
    /// Whether it watches what is mounted below.
    pub crosses_mounts: bool,
    /// Its position.
    pub position: String,
    /// How many paths and trees it keeps for later questions.
    pub named: u64,
    /// Why a question that is asked now could not be answered for certain.
    pub gap: Option<Gap>,
    /// Processes that hide from it; see [`ChangeSet::opaque`].
    pub opaque: u64,
}

/// A change set on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WireSet {
    paths: Vec<ByteBuf>,
    trees: Vec<ByteBuf>,
    linked: Vec<Inode>,
    gap: Option<Gap>,
    opaque: u64,
}

impl From<ChangeSet> for WireSet {
    fn from(set: ChangeSet) -> Self {
        Self {
            paths: set.paths.into_iter().map(ByteBuf::from).collect(),
            trees: set.trees.into_iter().map(ByteBuf::from).collect(),
            linked: set.linked.into_iter().collect(),
            gap: set.gap,
            opaque: set.opaque,
        }
    }
}

impl From<WireSet> for ChangeSet {
    fn from(set: WireSet) -> Self {
        Self {
            paths: set.paths.into_iter().map(ByteBuf::into_vec).collect(),
            trees: set.trees.into_iter().map(ByteBuf::into_vec).collect(),
            linked: set.linked.into_iter().collect(),
            gap: set.gap,
            opaque: set.opaque,
        }
    }
}

fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::Failed(format!("{what} the journal: {error}"))
}

/// Sends one message.
pub(super) fn send(stream: &mut impl Write, message: &impl Serialize) -> Result<()> {
    let mut bytes = vec![0; 4];
    ciborium::into_writer(message, &mut bytes).map_err(|error| failed("writing to", error))?;
    let len = u32::try_from(bytes.len() - 4).map_err(|error| failed("writing to", error))?;
    if let Some(place) = bytes.first_chunk_mut() {
        *place = len.to_le_bytes();
    }
    stream.write_all(&bytes).map_err(|error| failed("writing to", error))
}

/// Receives one message of at most so many bytes.
pub(super) fn receive<T: DeserializeOwned>(stream: &mut impl Read, most: usize) -> Result<T> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).map_err(|error| failed("reading from", error))?;
    let len = usize::try_from(u32::from_le_bytes(len)).unwrap_or(usize::MAX);
    if len > most {
        return Err(failed("reading from", format!("a message of {len} bytes")));
    }
    let mut bytes = Vec::new();
    let wanted = u64::try_from(len).unwrap_or(u64::MAX);
    let read = stream.take(wanted).read_to_end(&mut bytes);
    if read.map_err(|error| failed("reading from", error))? != len {
        return Err(failed("reading from", "a message is cut off"));
    }
    ciborium::from_reader(bytes.as_slice()).map_err(|error| failed("reading from", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Messages come through whole; cut ones and too long ones do not.
    #[test]
    fn messages() {
        let set = ChangeSet {
            paths: [vec![], b"a\0\xff".to_vec()].into(),
            trees: [b"t".to_vec()].into(),
            linked: [Inode { device: 1, number: u64::MAX }].into(),
            gap: Some(Gap::Unmarked("x".into())),
            opaque: 7,
        };
        let answer = Answer::Changes { set: set.clone().into(), position: "a.1".into() };
        let mut bytes = Vec::new();
        send(&mut bytes, &answer).unwrap();
        let read: Answer = receive(&mut bytes.as_slice(), bytes.len()).unwrap();
        let Answer::Changes { set: found, position } = read else { panic!("another answer") };
        assert_eq!((ChangeSet::from(found), position.as_str()), (set, "a.1"));
        for len in 0..bytes.len() {
            assert!(receive::<Answer>(&mut &bytes[..len], bytes.len()).is_err(), "{len}");
        }
        assert!(receive::<Answer>(&mut bytes.as_slice(), bytes.len() - 5).is_err());
    }
}
