//! The journal: which paths changed since a moment. It narrows a scan and never decides it.

use std::collections::BTreeSet;

/// What changed since a moment, as keys of the manifest (components joined by zero bytes, see `archive::path`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangeSet {
    /// Paths to look at again: created, changed, removed, or with other metadata.
    pub paths: BTreeSet<Vec<u8>>,
    /// Directories below which everything is to be looked at again: moved here, or of unknown content.
    pub trees: BTreeSet<Vec<u8>>,
    /// Why the set cannot be trusted to be whole; a walk decides then.
    pub gap: Option<Gap>,
}

/// Why a journal knows less than everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// The kernel's queue ran over.
    Overflow,
    /// The cookie file's event never came.
    CookieUnseen,
    /// A file system below the roots carries no mark.
    Unmarked(String),
    /// It was not running all the time since the moment.
    Interrupted,
}
