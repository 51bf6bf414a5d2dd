//! What a capture and its watchdog say to each other: JSON, one message a line.

use super::order::{Ending, Order, TakeError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Read as _, Write};
use std::path::PathBuf;

/// The longest message, bytes.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// From the capture.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Command {
    /// First of all: what there will be to do.
    Prepare {
        /// The lock.
        order: Order,
        /// The password that goes with it.
        password: Option<String>,
        /// Where the record is kept.
        dir: PathBuf,
        /// How long the lock may be held, milliseconds.
        limit_ms: u64,
    },
    /// Take the lock.
    Take,
    /// More is known about giving it back.
    Update {
        /// The lock as it is known now.
        order: Order,
    },
    /// Is it held, and was it all the time?
    Confirm,
    /// Give it back.
    GiveBack {
        /// How.
        ending: Ending,
    },
}

/// From the watchdog.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Answer {
    /// The record is on disk.
    Ready,
    /// It cannot be done.
    Refused {
        /// Why.
        what: String,
    },
    /// The lock is held, and the record on disk says so.
    Taken {
        /// The lock as it is known now.
        order: Order,
    },
    /// The lock is not held.
    NotTaken {
        /// Why.
        error: TakeError,
    },
    /// The lock is held, and was all the time.
    Held,
    /// The watchdog gives the lock back of its own accord.
    Fired {
        /// Why.
        why: String,
    },
    /// An attempt to give it back failed; others follow.
    Trying {
        /// Why.
        detail: String,
        /// Whether others will help.
        is_lasting: bool,
    },
    /// The lock was given back.
    GaveBack {
        /// How it went.
        how: String,
    },
}

/// Sends one message.
pub fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Waits for the next message; None: the other side is gone.
pub fn receive<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.take(MESSAGE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}
