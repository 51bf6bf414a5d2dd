//! Restoring a snapshot, or a part of it, into a directory.
//!
//! A walk compares manifest and target and decides (see [`crate::plan`]); bounded windows of files are then read in
//! pack order, each frame once, and written by several threads at their offsets; directories get their metadata when
//! everything below them is done. All names are resolved below the target without following links
//! (see [`crate::target`]). One bad file never stops a restore: it is removed, named, and the rest goes on.

mod file;
mod ledger;
mod levels;
mod look;
mod nodes;
mod parallel;
mod place;
mod run;
mod selection;
mod verify;
mod walk;
mod window;

pub use ledger::{PROBLEMS_KEPT_MAX, RestoreReport};
pub(crate) use parallel::for_each;
pub use selection::Selection;
pub use window::{WINDOW_BYTES_MAX, WINDOW_CHUNKS_MAX, WINDOW_ENTRIES_MAX};

use crate::entry::{Entry, ManifestSchema};
use crate::observer::{Event, Observer, Silent, Totals};
use crate::path;
use crate::plan::{Overwrite, RestorePlan};
use crate::target::{Dir, Fresh, MetadataWriter, Ownership, Target};
use ledger::Ledger;
use place::OpenFiles;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use stillpoint_chunker::{Chunker, Profile};
use stillpoint_store::tree::{Cursor, Root, Tree, range_aggregate};
use stillpoint_store::{Error, Reader, Repository, Result};
use walk::{Start, Walk};
use window::Window;

/// What to restore, where to, and how.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The snapshot's manifest.
    pub root: Root,
    /// Key of the directory or file inside the snapshot that is restored (see [`crate::path`]); empty: everything.
    /// A directory's content lands in the target itself, a file under its name in the target.
    pub subtree: Vec<u8>,
    /// The directory to restore into; made if missing.
    pub target: PathBuf,
    /// Which paths, relative to what is restored.
    pub selection: Selection,
    /// What happens to things that exist.
    pub overwrite: Overwrite,
    /// Delete what the target has and the snapshot does not, in every restored directory that existed before, and
    /// directories that stand where the snapshot has something else. What the selection leaves out stays.
    pub delete: bool,
    /// Read every written or compared file back from the disk and compare it with the snapshot.
    pub verify: bool,
    /// Decide and report, but touch nothing.
    pub dry_run: bool,
    /// Make holes of chunks that are all zero, besides those that the snapshot has.
    pub sparse: bool,
    /// Whose the restored files are.
    pub ownership: Ownership,
    /// Number of threads; None: as many as there are cores.
    pub threads: Option<usize>,
}

impl RestoreOptions {
    /// Everything of the snapshot with this manifest, into `target`.
    pub fn new(root: Root, target: impl Into<PathBuf>) -> Self {
        Self {
            root,
            subtree: Vec::new(),
            target: target.into(),
            selection: Selection::default(),
            overwrite: Overwrite::default(),
            delete: false,
            verify: false,
            dry_run: false,
            sparse: false,
            ownership: Ownership::default(),
            threads: None,
        }
    }
}

/// What all threads of one restore share.
struct Context<'a> {
    options: &'a RestoreOptions,
    reader: &'a Reader,
    target: &'a Target,
    metadata: &'a MetadataWriter,
    ledger: &'a Ledger<'a>,
    /// Gives the ids that existing bytes would have as chunks.
    ids: Chunker,
    threads: usize,
    open_files: OpenFiles,
    /// Files whose flags forbid hard links, until all names are there.
    sealed_later: Mutex<Vec<(Vec<u8>, Entry)>>,
}

/// What a restore with these options would do, without touching anything.
///
/// # Errors
/// `Invalid` when the snapshot has no such path; repository errors that concern more than single files.
pub fn plan_restore(repository: &Arc<Repository>, options: &RestoreOptions) -> Result<RestorePlan> {
    let options = RestoreOptions { dry_run: true, ..options.clone() };
    Ok(restore(repository, &options, &Silent)?.plan)
}

/// Restores. Problems with single files are in the report; it is complete if there is none.
///
/// # Errors
/// `Invalid` when the snapshot has no such path; `Io` when the target cannot be opened, is full or read-only;
/// `Cancelled`; repository errors that concern more than single files.
pub fn restore(
    repository: &Arc<Repository>,
    options: &RestoreOptions,
    observer: &dyn Observer,
) -> Result<RestoreReport> {
    let reader = repository.reader()?;
    let start = find_subtree(&reader, options)?;
    let metadata = MetadataWriter { ownership: options.ownership, ..MetadataWriter::default() };
    let ledger = Ledger::new(observer, start.base.clone());
    announce(&reader, options, &ledger)?;
    let target = match options.dry_run {
        false => Some(Target::open(&options.target)?),
        true if options.target.exists() => Some(Target::open_existing(&options.target)?),
        true => None,
    };
    let mut walk = Walk::new(Start {
        options,
        target: target.as_ref(),
        acting: !options.dry_run,
        ledger: &ledger,
        metadata: &metadata,
        cursor: start.cursor,
        base: start.base,
        top: start.top,
    });
    match target.as_ref().filter(|_| !options.dry_run) {
        Some(target) => {
            let context = Context {
                options,
                reader: &reader,
                target,
                metadata: &metadata,
                ledger: &ledger,
                ids: repository.chunker(Profile::General)?,
                threads: threads(options),
                open_files: OpenFiles::default(),
                sealed_later: Mutex::default(),
            };
            execute(&context, &mut walk)?;
        }
        None => rehearse(&ledger, &mut walk)?,
    }
    let plan = walk.plan;
    drop(walk);
    Ok(ledger.report(plan, metadata.degraded.warnings()))
}

fn threads(options: &RestoreOptions) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    options.threads.unwrap_or_else(cores).max(1)
}

/// Where a restore begins in the manifest.
struct Subtree<'a> {
    cursor: Cursor<'a, ManifestSchema>,
    base: Vec<u8>,
    top: Option<Entry>,
}

fn find_subtree<'a>(reader: &'a Reader, options: &RestoreOptions) -> Result<Subtree<'a>> {
    let subtree = &options.subtree;
    path::check_key(subtree).map_err(|_| {
        Error::Invalid(format!("impossible path {:?}", path::path_from_key(subtree)))
    })?;
    let tree = Tree::<ManifestSchema>::open(options.root, reader);
    let top = tree.get(subtree)?.map(|value| Entry::decode(&value)).transpose()?;
    if top.as_ref().is_some_and(|top| !top.is_directory()) {
        let mut end = subtree.clone();
        end.push(path::SEPARATOR);
        let base = path::parent_key(subtree).unwrap_or_default().to_vec();
        return Ok(Subtree { cursor: tree.range(subtree, Some(&end))?, base, top: None });
    }
    let (from, until) = path::below(subtree);
    let cursor = tree.range(&from, until.as_deref())?;
    if top.is_none() && cursor.peek().is_none() && !subtree.is_empty() {
        let path = path::path_from_key(subtree);
        return Err(Error::Invalid(format!("the snapshot has no {}", path.display())));
    }
    Ok(Subtree { cursor, base: subtree.clone(), top })
}

/// Tells the observer how much there is to expect, where no filter makes it unknown.
fn announce(reader: &Reader, options: &RestoreOptions, ledger: &Ledger<'_>) -> Result<()> {
    let (from, until) = path::below(&options.subtree);
    let all = range_aggregate::<ManifestSchema>(options.root, &from, until.as_deref(), reader)?;
    let totals = Totals { entries: all.entries, bytes: all.bytes };
    ledger.event(Event::Expected { totals, last: options.selection.is_everything() });
    Ok(())
}

fn execute(context: &Context<'_>, walk: &mut Walk<'_>) -> Result<()> {
    let mut window = Window::default();
    while let Some(step) = walk.next()? {
        window.add(context, step)?;
    }
    window.run(context, false)?;
    context.set_late_flags();
    Ok(())
}

/// Tells what would become of each entry.
fn rehearse(ledger: &Ledger<'_>, walk: &mut Walk<'_>) -> Result<()> {
    use crate::observer::Outcome;
    use crate::plan::Action;
    use walk::Step;
    let outcome = |action| match action {
        Action::Create => Outcome::New,
        Action::Replace | Action::Clear | Action::Update => Outcome::Changed,
        Action::Refresh => Outcome::MetadataChanged,
        Action::Unmodified => Outcome::Unmodified,
        Action::Keep => Outcome::Skipped,
    };
    while let Some(step) = walk.next()? {
        match step {
            Step::Make { key, entry, action } => {
                ledger.outcome(&key, outcome(action), entry.size);
            }
            Step::Link { key, action, size, .. } => ledger.outcome(&key, outcome(action), size),
            Step::Leave(left) => {
                for name in &left.delete {
                    ledger.outcome(&path::child_key(&left.key, name), Outcome::Removed, 0);
                }
                if !left.key.is_empty() {
                    let known = if left.made { Outcome::New } else { Outcome::MetadataChanged };
                    ledger.outcome(&left.key, known, 0);
                }
            }
        }
    }
    Ok(())
}

impl Context<'_> {
    /// Removes a directory that stands in the way: with its content if deletion is allowed, else only if empty.
    fn clear(&self, dir: &Dir, name: &[u8]) -> rustix::io::Result<()> {
        self.target.forget_open();
        if self.options.delete {
            let removed = dir.remove_tree(name)?;
            ledger::add(&self.ledger.deleted, removed);
            Ok(())
        } else {
            dir.remove_dir(name)
        }
    }

    fn seal_later(&self, key: &[u8], entry: &Entry) {
        let mut list = self.sealed_later.lock().unwrap_or_else(PoisonError::into_inner);
        list.push((key.to_vec(), entry.clone()));
    }

    fn set_late_flags(&self) {
        let list =
            std::mem::take(&mut *self.sealed_later.lock().unwrap_or_else(PoisonError::into_inner));
        for (key, entry) in list {
            let path = || self.target.display(&key);
            let parent = path::parent_key(&key).unwrap_or_default();
            let file =
                self.target.dir(parent).and_then(|dir| dir.open_file(path::file_name(&key), false));
            match file {
                Ok(file) => self.metadata.write_flags(file.as_fd(), &entry, Fresh::No, &path),
                Err(errno) => self.ledger.failed(path(), "setting flags", errno),
            }
        }
    }
}
