//! Everything that is no stream of chunks: links, pipes, sockets, devices, inline content, further names of
//! hard-linked files, and the end of directories.

use super::Context;
use super::file::FileJob;
use super::ledger::add;
use super::place::Trouble;
use super::walk::Left;
use crate::entry::{Entry, EntryKind};
use crate::observer::Outcome;
use crate::path::{child_key, file_name, parent_key};
use crate::plan::Action;
use crate::target::{Dir, Fresh, Node};
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Mode of directories that the manifest does not have: parents of entries that were saved without them.
const UNKNOWN_DIRECTORY: Mode = Mode::from_raw_mode(0o755);

/// A symbolic link, pipe, socket, device, or a file that only needs metadata.
pub(super) struct NodeJob {
    pub key: Vec<u8>,
    pub entry: Box<Entry>,
    pub action: Action,
}

impl NodeJob {
    /// Whether further names may be linked to what this makes.
    pub fn is_linked(&self) -> bool {
        self.entry.link_id().is_some()
    }
}

/// A further name of something restored.
pub(super) struct LinkJob {
    pub key: Vec<u8>,
    pub first: Vec<u8>,
    pub action: Action,
    pub size: u64,
}

/// Writes content that stands in the entry itself; existing content is replaced only if it differs.
pub(super) fn write_inline(context: &Context<'_>, job: &FileJob, bytes: &[u8]) {
    if job.is_update() {
        let mut existing = vec![0u8; bytes.len()];
        if job.read_existing(context, 0, &mut existing) && existing == bytes {
            add(&context.ledger.bytes_matched, job.entry.size);
            return;
        }
        job.replace_instead(context);
    }
    job.write(context, 0, bytes);
}

/// Makes a node, or sets the metadata of what is there; false when what should be there is not.
pub(super) fn make(context: &Context<'_>, job: &NodeJob) -> bool {
    let path = || context.target.display(&job.key);
    match try_make(context, job) {
        Ok(outcome) => {
            context.ledger.outcome(&job.key, outcome, job.entry.size);
            true
        }
        Err(trouble) => {
            match trouble {
                Trouble::Io(action, errno) => context.ledger.failed(path(), action, errno),
                Trouble::Says(what) => context.ledger.problem(path(), what),
            }
            context.ledger.outcome(&job.key, Outcome::Failed, job.entry.size);
            matches!(job.action, Action::Refresh | Action::Unmodified)
        }
    }
}

fn try_make(context: &Context<'_>, job: &NodeJob) -> Result<Outcome, Trouble> {
    let creating = |errno| Trouble::Io("creating", errno);
    let dir = parent(context, &job.key)?;
    let name = file_name(&job.key);
    match job.action {
        Action::Unmodified | Action::Keep => Ok(Outcome::Unmodified),
        Action::Refresh | Action::Update => {
            refresh(context, &dir, name, job)?;
            Ok(Outcome::MetadataChanged)
        }
        Action::Create | Action::Clear => {
            if job.action == Action::Clear {
                clear(context, &dir, name)?;
            }
            let node = node_of(&job.entry)?;
            dir.make_node(name, node).map_err(creating)?;
            set_metadata(context, &dir, name, job)?;
            Ok(if job.action == Action::Create { Outcome::New } else { Outcome::Changed })
        }
        Action::Replace => {
            let node = node_of(&job.entry)?;
            let (temporary, ()) =
                dir.with_temporary(|free| dir.make_node(free, node)).map_err(creating)?;
            let placed = set_metadata(context, &dir, &temporary, job).and_then(|()| {
                dir.rename(&temporary, name)
                    .map_err(|errno| Trouble::Io("renaming into place", errno))
            });
            if placed.is_err() {
                let _ = dir.unlink(&temporary);
            }
            placed.map(|()| Outcome::Changed)
        }
    }
}

fn node_of(entry: &Entry) -> Result<Node<'_>, Trouble> {
    match &entry.kind {
        EntryKind::Symlink { target } => Ok(Node::Symlink(target)),
        EntryKind::Fifo => Ok(Node::Fifo),
        EntryKind::Socket => Ok(Node::Socket),
        EntryKind::CharDevice { major, minor } => {
            Ok(Node::CharDevice { major: *major, minor: *minor })
        }
        EntryKind::BlockDevice { major, minor } => {
            Ok(Node::BlockDevice { major: *major, minor: *minor })
        }
        EntryKind::File(_) | EntryKind::Directory => {
            Err(Trouble::Says("a file or directory is not made as a node".into()))
        }
    }
}

fn kind_of(entry: &Entry) -> FileType {
    match &entry.kind {
        EntryKind::File(_) => FileType::RegularFile,
        EntryKind::Directory => FileType::Directory,
        EntryKind::Symlink { .. } => FileType::Symlink,
        EntryKind::Fifo => FileType::Fifo,
        EntryKind::Socket => FileType::Socket,
        EntryKind::CharDevice { .. } => FileType::CharacterDevice,
        EntryKind::BlockDevice { .. } => FileType::BlockDevice,
    }
}

/// Sets metadata through a descriptor of the node, which must still be what it should be and have no other name:
/// somebody may have put something of his own (or a name of something outside) in its place.
fn set_metadata(
    context: &Context<'_>,
    dir: &Dir,
    name: &[u8],
    job: &NodeJob,
) -> Result<(), Trouble> {
    let setting = |errno| Trouble::Io("setting metadata", errno);
    let node = dir.open_node(name).map_err(setting)?;
    let stat = rustix::fs::fstat(&node).map_err(setting)?;
    if FileType::from_raw_mode(stat.st_mode) != kind_of(&job.entry) || stat.st_nlink != 1 {
        return Err(Trouble::Says("it was changed while it was restored".into()));
    }
    let path = || context.target.display(&job.key);
    context.metadata.apply_to_node(node.as_fd(), &job.entry, &path).map_err(setting)
}

/// Sets the metadata of what is believed to be equal.
fn refresh(context: &Context<'_>, dir: &Dir, name: &[u8], job: &NodeJob) -> Result<(), Trouble> {
    let file = if job.entry.is_file() { dir.open_file(name, false).ok() } else { None };
    let Some(file) = file else {
        // No file, or one that may not be read: a descriptor for metadata alone is enough.
        return set_metadata(context, dir, name, job);
    };
    let setting = |errno| Trouble::Io("setting metadata", errno);
    if rustix::fs::fstat(&file).map_err(setting)?.st_nlink != 1 {
        return Err(Trouble::Says("it got another name while it was restored".into()));
    }
    let path = || context.target.display(&job.key);
    context.metadata.apply(file.as_fd(), &job.entry, Fresh::No, &path).map_err(setting)
}

fn parent(context: &Context<'_>, key: &[u8]) -> Result<Arc<Dir>, Trouble> {
    context
        .target
        .dir(parent_key(key).unwrap_or_default())
        .map_err(|errno| Trouble::Io("opening the directory", errno))
}

fn clear(context: &Context<'_>, dir: &Dir, name: &[u8]) -> Result<(), Trouble> {
    context.clear(dir, name).map_err(|errno| Trouble::Io("replacing a directory", errno))
}

/// Gives a further name to what was restored under its first one. Where that is lost, something else may stand under
/// the first name, to which nothing is linked.
pub(super) fn link(context: &Context<'_>, job: &LinkJob, is_first_lost: bool) {
    let linked = if is_first_lost {
        Err(Trouble::Io("linking", Errno::NOENT))
    } else {
        try_link(context, job)
    };
    match linked {
        Ok(outcome) => context.ledger.outcome(&job.key, outcome, job.size),
        Err(trouble) => {
            let path = context.target.display(&job.key);
            match trouble {
                Trouble::Io(_, Errno::NOENT) => {
                    let first = context.target.display(&job.first);
                    let what = format!("its first name {} was not restored", first.display());
                    context.ledger.problem(path, what);
                }
                Trouble::Io(action, errno) => context.ledger.failed(path, action, errno),
                Trouble::Says(what) => context.ledger.problem(path, what),
            }
            context.ledger.outcome(&job.key, Outcome::Failed, job.size);
        }
    }
}

fn try_link(context: &Context<'_>, job: &LinkJob) -> Result<Outcome, Trouble> {
    let linking = |errno| Trouble::Io("linking", errno);
    let (dir, first_dir) = (parent(context, &job.key)?, parent(context, &job.first)?);
    let (name, first_name) = (file_name(&job.key), file_name(&job.first));
    let first = first_dir.stat(first_name).map_err(linking)?.ok_or(linking(Errno::NOENT))?;
    let is_first = |name: &[u8]| -> Result<bool, Trouble> {
        let stat = dir.stat(name).map_err(linking)?;
        Ok(stat.is_some_and(|stat| (stat.st_dev, stat.st_ino) == (first.st_dev, first.st_ino)))
    };
    if job.action == Action::Create {
        dir.link(name, &first_dir, first_name).map_err(linking)?;
    } else {
        if is_first(name)? {
            return Ok(Outcome::Unmodified);
        }
        if job.action == Action::Clear {
            clear(context, &dir, name)?;
        }
        let made = dir.with_temporary(|free| dir.link(free, &first_dir, first_name));
        let (temporary, ()) = made.map_err(linking)?;
        if let Err(errno) = dir.rename(&temporary, name) {
            let _ = dir.unlink(&temporary);
            return Err(Trouble::Io("renaming into place", errno));
        }
    }
    if !is_first(name)? {
        return Err(Trouble::Says("it was changed while it was restored".into()));
    }
    Ok(if job.action == Action::Create { Outcome::New } else { Outcome::Changed })
}

/// Ends a directory: deletes what the snapshot does not have and sets its metadata.
pub(super) fn leave(context: &Context<'_>, left: &Left) {
    let path = || context.target.display(&left.key);
    let dir = match context.target.dir(&left.key) {
        Ok(dir) => dir,
        Err(errno) => return context.ledger.failed(path(), "opening", errno),
    };
    for name in &left.delete {
        let key = child_key(&left.key, name);
        match dir.remove_tree(name) {
            Ok(names) => {
                add(&context.ledger.deleted, names);
                context.ledger.outcome(&key, Outcome::Removed, 0);
            }
            Err(Errno::XDEV) => {
                let what = "not deleted: another file system is mounted there";
                context.ledger.problem(context.target.display(&key), what);
            }
            Err(errno) => context.ledger.failed(context.target.display(&key), "deleting", errno),
        }
    }
    let result = match &left.entry {
        Some(entry) if left.touch => context.metadata.apply(dir.fd(), entry, left.fresh, &path),
        _ if left.unlocked.is_some() => {
            rustix::fs::fchmod(dir.fd(), Mode::from_raw_mode(left.unlocked.unwrap_or_default()))
        }
        None if left.made && !left.key.is_empty() => {
            rustix::fs::fchmod(dir.fd(), UNKNOWN_DIRECTORY)
        }
        _ => Ok(()),
    };
    match result {
        Ok(()) if left.key.is_empty() => {}
        Ok(()) => {
            let outcome = if left.made { Outcome::New } else { Outcome::MetadataChanged };
            context.ledger.outcome(&left.key, outcome, 0);
        }
        Err(errno) => {
            context.ledger.failed(path(), "setting metadata", errno);
            context.ledger.outcome(&left.key, Outcome::Failed, 0);
        }
    }
}
