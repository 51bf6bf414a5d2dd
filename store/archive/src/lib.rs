//! Files and manifests: scan, backup, restore, diff, retention.
//!
//! Knows paths, metadata and content lists. Knows nothing of packs, of HTTP or of terminals: it never prints, it
//! tells an [`Observer`].

pub mod backup;
mod change;
mod content;
pub mod copy;
pub mod damage;
pub mod diff;
pub mod dump;
pub mod entry;
pub mod filter;
pub mod held;
pub mod listing;
mod meta;
pub mod observer;
pub mod path;
mod pipeline;
pub mod plan;
pub mod restore;
pub mod retention;
mod scan;
pub mod source;
pub mod target;

pub use backup::{
    BackupOptions, BackupReport, Changes, ParentChoice, backup, backup_changes, changed_since,
};
pub use change::ChangeRules;
pub use content::write_content;
pub use entry::{
    Content, ContentItem, ContentSchema, Entry, EntryKind, ManifestSchema, node_references,
};
pub use filter::{Filter, FilterOptions};
pub use observer::{Event, Observer, Outcome, Problem, Silent, Totals};
pub use pipeline::PROBLEMS_LISTED_MAX;
pub use plan::{Overwrite, RestorePlan};
pub use restore::{RestoreOptions, RestoreReport, Selection, plan_restore, restore};
pub use scan::root_key;
pub use source::{ReadClock, ReaderSource, StreamSource};
pub use target::Ownership;
