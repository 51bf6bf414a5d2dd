//! Listing what a snapshot holds, and finding entries in it.

use crate::entry::{Entry, EntryKind, ManifestSchema};
use crate::path;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::path::Path;
use stillpoint_store::tree::{NodeSource, Root, Tree};
use stillpoint_store::{Error, Result, Timestamp};

/// How deep a listing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What stands directly in the directory.
    Children,
    /// Everything below it.
    All,
}

/// Takes the entries of a listing, in path order; an error ends it.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &Entry) -> Result<()>;

/// Lists the directory with this key (not itself), or the one entry that is no directory. Children are found by
/// seeking, so listing a directory costs nothing for what lies deeper.
///
/// # Errors
/// `Invalid` when the snapshot has no such path; what `visit` gives; `Damaged`, `Missing` or the storage's error.
pub fn list(
    source: &dyn NodeSource,
    root: Root,
    key: &[u8],
    depth: Depth,
    visit: Visit<'_>,
) -> Result<()> {
    let tree = Tree::<ManifestSchema>::open(root, source);
    let top = tree.get(key)?.map(|value| Entry::decode(&value)).transpose()?;
    if let Some(top) = top.as_ref().filter(|top| !top.is_directory()) {
        return visit(key, top);
    }
    let (from, until) = path::below(key);
    let mut cursor = tree.range(&from, until.as_deref())?;
    if top.is_none() && cursor.peek().is_none() && !key.is_empty() {
        return Err(no_such_path(key));
    }
    while let Some((found, value)) = cursor.peek() {
        path::check_key(found)?;
        let entry = Entry::decode(value)?;
        visit(found, &entry)?;
        let after = path::below(found).1;
        match (depth, entry.is_directory(), after) {
            (Depth::Children, true, Some(after)) => cursor.seek(&after)?,
            _ => cursor.advance()?,
        }
    }
    Ok(())
}

/// The error for a path that a snapshot does not have.
pub(crate) fn no_such_path(key: &[u8]) -> Error {
    Error::Invalid(format!("the snapshot has no {}", path::path_from_key(key).display()))
}

/// Kinds of entries, for [`Query`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Regular files.
    File,
    /// Directories.
    Directory,
    /// Symbolic links.
    Symlink,
    /// Pipes, sockets and devices.
    Special,
}

/// Patterns of which one must match a path; none at all match every path.
#[derive(Debug, Clone, Default)]
pub struct Patterns(Option<Gitignore>);

/// What is looked for; everything that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Paths that match.
    pub patterns: Patterns,
    /// Changed at this time or later.
    pub modified_from: Option<Timestamp>,
    /// Changed before this time.
    pub modified_until: Option<Timestamp>,
    /// Smallest size in bytes; files only.
    pub size_min: Option<u64>,
    /// Largest size in bytes; files only.
    pub size_max: Option<u64>,
    /// Of one of these kinds; empty: any.
    pub kinds: Vec<Kind>,
}

impl Query {
    /// A query for paths that match one of the patterns; any path if there is none. A pattern without a slash matches
    /// names at any depth, one with a slash in front or inside counts from the snapshot's root.
    ///
    /// # Errors
    /// `Invalid` for a pattern that does not parse.
    pub fn new(patterns: &[String], ignore_case: bool) -> Result<Self> {
        if patterns.is_empty() {
            return Ok(Self::default());
        }
        let invalid = |error: ignore::Error| Error::Invalid(format!("pattern: {error}"));
        let mut builder = GitignoreBuilder::new(Path::new("/"));
        builder.case_insensitive(ignore_case).map_err(invalid)?;
        for pattern in patterns {
            builder.add_line(None, pattern).map_err(invalid)?;
        }
        let patterns = Patterns(Some(builder.build().map_err(invalid)?));
        Ok(Self { patterns, ..Self::default() })
    }

    /// Whether an entry is looked for.
    pub fn matches(&self, key: &[u8], entry: &Entry) -> bool {
        let kind = match &entry.kind {
            EntryKind::File(_) => Kind::File,
            EntryKind::Directory => Kind::Directory,
            EntryKind::Symlink { .. } => Kind::Symlink,
            _ => Kind::Special,
        };
        let sized = self.size_min.is_some() || self.size_max.is_some();
        let size_fits = !sized
            || (entry.is_file()
                && self.size_min.is_none_or(|min| entry.size >= min)
                && self.size_max.is_none_or(|max| entry.size <= max));
        (self.kinds.is_empty() || self.kinds.contains(&kind))
            && size_fits
            && self.modified_from.is_none_or(|from| entry.mtime >= from)
            && self.modified_until.is_none_or(|until| entry.mtime < until)
            && self.patterns.0.as_ref().is_none_or(|patterns| {
                patterns.matched(path::path_from_key(key), entry.is_directory()).is_ignore()
            })
    }
}

/// Gives every entry at or below the path with this key that the query looks for, in path order.
///
/// # Errors
/// As [`list`].
pub fn find(
    source: &dyn NodeSource,
    root: Root,
    key: &[u8],
    query: &Query,
    visit: Visit<'_>,
) -> Result<()> {
    let filtered = &mut |key: &[u8], entry: &Entry| {
        if query.matches(key, entry) { visit(key, entry) } else { Ok(()) }
    };
    let top = Tree::<ManifestSchema>::open(root, source).get(key)?;
    if let Some(top) = top.map(|value| Entry::decode(&value)).transpose()?
        && top.is_directory()
        && !key.is_empty()
    {
        filtered(key, &top)?;
    }
    list(source, root, key, Depth::All, filtered)
}
