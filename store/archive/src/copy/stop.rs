//! Why one snapshot is not copied: whose fault it is decides what happens to the others.

use stillpoint_store::Error;

/// What ends the copying of a snapshot.
#[derive(Debug)]
pub(super) enum Stop {
    /// The source does not give what the snapshot needs; other snapshots may be whole.
    Source {
        /// The file that is touched, where it is one.
        key: Option<Vec<u8>>,
        /// What is wrong.
        error: Error,
    },
    /// The destination fails, or somebody asked to stop: nothing more can be copied.
    Fatal(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

impl Stop {
    /// The source failed outside of any file.
    pub(super) fn source(error: Error) -> Self {
        match error {
            Error::Cancelled => Self::Fatal(error),
            error => Self::Source { key: None, error },
        }
    }

    /// The source failed to give this file's content.
    pub(super) fn file(key: &[u8]) -> impl Fn(Error) -> Self + '_ {
        |error| match Self::source(error) {
            Self::Source { error, .. } => Self::Source { key: Some(key.to_vec()), error },
            fatal => fatal,
        }
    }
}
