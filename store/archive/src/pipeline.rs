//! From the walk to the manifest: what changed is read, cut and hashed on all cores and taken back in order.
//!
//! ```text
//! walk + parent -> window -> workers -> window, in order -> chunks to the store, entries to the tree
//! ```
//!
//! One thread drives: it decides for each path what is needed, lets workers do it, and takes results in the order of
//! the manifest, so the outcome does not depend on the number of threads. Knows the store only as [`Sinks`].

mod content;
mod emit;
mod held;
mod job;
mod links;
mod manifest;
mod profile;
mod reading;
mod window;

pub(crate) use content::ContentList;
pub use emit::PROBLEMS_LISTED_MAX;
pub(crate) use emit::{Built, Sinks, Tally};
pub(crate) use job::Piece;
pub(crate) use manifest::{Anew, Changed, Manifest, Mark};
pub(crate) use profile::{Chunkers, HEAD_BYTES, by_name};
pub(crate) use reading::Readers;

use crate::change::Verdict;
use crate::change::parent::{Known, Parent};
use crate::entry::{Content, Entry, EntryHead, EntryKind, KindCode};
use crate::held::Held;
use crate::meta::{Names, Stat};
use crate::observer::{Observer, Outcome};
use crate::path;
use crate::scan::{Met, Place, Reach, Scan, Walk};
use crate::source::StreamSource;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use emit::{Before, Emitter};
use job::{Job, Live, Message, Want, Work};
use rustix::io::Errno;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use stillpoint_store::{Error, NodeId, Result, Timestamp};
use window::{LONG_MESSAGES_MAX, Window};

/// How often the parent's nodes are passed on, in entries.
const NODES_PASSED_EVERY: usize = 4096;

/// Something in the manifest that the walk does not meet.
pub(crate) enum Extra {
    /// A stream.
    Stream(Box<dyn StreamSource>),
    /// A directory that a stream's name needs.
    Directory,
    /// A path as it was held.
    Held(Box<Held>),
}

/// What a pipeline works on.
pub(crate) struct Input<'a> {
    pub(crate) scan: &'a Scan,
    pub(crate) parent: Option<Parent<'a>>,
    /// Where only parts of the sources are looked at: the paths that changed, whatever their stat says. They may
    /// have vanished.
    pub(crate) changed: Option<&'a BTreeSet<Vec<u8>>>,
    /// By ascending key.
    pub(crate) extras: VecDeque<(Vec<u8>, Extra)>,
    /// What entries of extras say about their times.
    pub(crate) time: Timestamp,
    pub(crate) readers: &'a Readers,
    pub(crate) observer: &'a dyn Observer,
    /// Is told which of the parent's nodes were read.
    pub(crate) know_node: &'a mut dyn FnMut(NodeId),
    /// Is told why the parent is done without from now on.
    pub(crate) lose_parent: &'a mut dyn FnMut(Error),
    /// Threads that read, cut and hash, and as many that look ahead.
    pub(crate) threads: usize,
}

/// Runs a backup's pipeline to its end.
///
/// # Errors
/// Those of the sinks and of the parent's manifest, of streams, and `Cancelled`. What goes wrong with single paths is
/// a problem, not an error.
pub(crate) fn run<'a>(
    input: Input<'a>,
    manifest: Box<dyn Manifest + 'a>,
    sinks: Sinks<'a>,
) -> Result<Built> {
    let (scan, readers) = (input.scan, input.readers);
    let (sender, queue) = unbounded();
    std::thread::scope(|scope| {
        for _ in 0..input.threads.max(1) {
            let queue = queue.clone();
            scope.spawn(move || work(readers, &queue));
            scope.spawn(|| scan.work());
        }
        drop(queue);
        let _stop = StopScan(scan);
        Driver {
            walk: scan.walk(),
            parent: input.parent,
            extras: input.extras,
            time: input.time,
            know_node: input.know_node,
            lose_parent: input.lose_parent,
            readers,
            observer: input.observer,
            window: Window::new(sender, readers),
            changed: input.changed,
            emitter: Emitter::new(manifest, input.changed, sinks, input.observer),
        }
        .run()
    })
}

/// Ends the scan's workers however the driver ends.
struct StopScan<'a>(&'a Scan);

impl Drop for StopScan<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn work(readers: &Readers, queue: &Receiver<Work>) {
    for work in queue {
        match work {
            Work::Group { jobs, reply } => {
                let mut nothing = |_| unreachable!("only long files are given piece by piece");
                let reports = jobs.iter().map(|job| readers.save(job, &mut nothing)).collect();
                // Nobody waits any more: the driver ended early.
                let _ = reply.send(reports);
            }
            Work::Long { job, reply } => {
                let report =
                    readers.save(&job, &mut |piece| reply.send(Message::Piece(piece)).is_ok());
                let _ = reply.send(Message::End(Box::new(report)));
            }
        }
    }
}

struct Driver<'a> {
    walk: Walk<'a>,
    parent: Option<Parent<'a>>,
    changed: Option<&'a BTreeSet<Vec<u8>>>,
    extras: VecDeque<(Vec<u8>, Extra)>,
    time: Timestamp,
    know_node: &'a mut dyn FnMut(NodeId),
    lose_parent: &'a mut dyn FnMut(Error),
    readers: &'a Readers,
    observer: &'a dyn Observer,
    window: Window<'a>,
    emitter: Emitter<'a>,
}

impl Driver<'_> {
    fn run(mut self) -> Result<Built> {
        let mut met = 0usize;
        self.notice_lost_parent();
        loop {
            if self.observer.cancelled() {
                return Err(Error::Cancelled);
            }
            if !self.window.has_room() {
                self.window.flush();
                self.window.settle(&mut self.emitter)?;
                continue;
            }
            let is_more = self.admit()?;
            self.notice_lost_parent();
            if !is_more {
                break;
            }
            met += 1;
            if met.is_multiple_of(NODES_PASSED_EVERY) {
                self.pass_nodes();
            }
            while self.window.is_front_ready() {
                self.window.settle(&mut self.emitter)?;
            }
        }
        while let Some((key, extra)) = self.extras.pop_front() {
            self.admit_extra(key, extra)?;
            self.notice_lost_parent();
        }
        self.window.flush();
        while self.window.settle(&mut self.emitter)? {}
        self.pass_nodes();
        self.emitter.finish()
    }

    /// Takes the next path of the walk in; false at its end.
    fn admit(&mut self) -> Result<bool> {
        let Self { walk, parent, changed, extras, window, emitter, readers, .. } = self;
        let Some(met) = walk.next() else { return Ok(false) };
        let key = match &met {
            Met::Path(place) => place.key,
            Met::Problem { key, .. } | Met::Gone { key } => key,
        };
        while let Some((extra_key, _)) = extras.front()
            && extra_key.as_slice() <= key
        {
            let (extra_key, extra) = extras.pop_front().expect("just seen");
            if extra_key == key {
                match (extra, &met) {
                    // The walk has the directory that the stream needs.
                    (Extra::Directory, Met::Path(place)) if place.stat.is_directory() => {}
                    (Extra::Directory, Met::Problem { .. }) => {}
                    (extra, Met::Gone { key }) => {
                        let key = key.to_vec();
                        admit_extra(
                            parent.as_mut(),
                            window,
                            emitter,
                            (key, extra),
                            self.time,
                            readers,
                        )?;
                        return Ok(true);
                    }
                    _ => return Err(taken(key)),
                }
                continue;
            }
            let extra = (extra_key, extra);
            admit_extra(parent.as_mut(), window, emitter, extra, self.time, readers)?;
        }
        match met {
            Met::Path(place) => {
                if admit_path(&place, *changed, parent.as_mut(), window, emitter)? {
                    walk.enter();
                }
            }
            Met::Problem { key, what, errno, lost } => {
                if lost {
                    emitter.announce(key, Mark::Gone);
                }
                emitter.problem(key, problem_text(what, errno));
            }
            Met::Gone { key } => emitter.announce(key, Mark::Gone),
        }
        Ok(true)
    }

    fn admit_extra(&mut self, key: Vec<u8>, extra: Extra) -> Result<()> {
        let Self { parent, window, emitter, readers, time, .. } = self;
        admit_extra(parent.as_mut(), window, emitter, (key, extra), *time, readers)
    }

    /// Before anything is stored that the parent was to lend.
    fn notice_lost_parent(&mut self) {
        if let Some(failure) = self.parent.as_mut().and_then(Parent::take_failure) {
            (self.lose_parent)(failure);
        }
    }

    fn pass_nodes(&mut self) {
        if let Some(parent) = &mut self.parent {
            parent.take_visited_nodes().into_iter().for_each(&mut *self.know_node);
        }
    }
}

fn taken(key: &[u8]) -> Error {
    let path = path::path_from_key(key);
    Error::Invalid(format!("a stream and a path both want to be {}", path.to_string_lossy()))
}

fn problem_text(what: &str, errno: Errno) -> String {
    match errno {
        Errno::NOENT => "does not exist, or vanished before it could be looked at".into(),
        errno => format!("{what}: {}", std::io::Error::from(errno)),
    }
}

/// Takes in a path of the walk. True when the walk has to go below it, although it is to be recorded alone: what
/// the parent has there is of another directory.
fn admit_path(
    place: &Place<'_>,
    changed: Option<&BTreeSet<Vec<u8>>>,
    parent: Option<&mut Parent<'_>>,
    window: &mut Window<'_>,
    emitter: &mut Emitter<'_>,
) -> Result<bool> {
    let force = changed.is_some_and(|changed| changed.contains(place.key));
    let known = match parent {
        Some(parent) => parent.find(place.key, place.stat, force)?,
        None => None,
    };
    let enter = matches!(place.reach, Some(Reach::Alone { .. }))
        && place.stat.is_directory()
        && !is_same_directory(known.as_ref(), place.stat)?;
    if changed.is_some()
        && (enter || matches!(place.reach, Some(Reach::Root | Reach::Whole { .. })))
    {
        emitter.announce(place.key, Mark::Tree);
    }
    let (want, before) = match known {
        Some(known) if known.verdict == Verdict::Same => {
            let outcome = if known.moved { Outcome::Moved } else { Outcome::Unmodified };
            if window.is_empty() {
                emitter.unchanged(place.key, known.value, outcome)?;
            } else {
                window.push_ready(place.key.to_vec(), known.value.to_vec(), outcome);
            }
            return Ok(enter);
        }
        Some(known) => {
            let metadata_only = known.verdict == Verdict::MetadataChanged;
            let want = if metadata_only { Want::Metadata } else { Want::Content };
            (want, Before { value: Some(known.value.to_vec()) })
        }
        None => (Want::Content, Before::default()),
    };
    let (dir, name, stat) = (Arc::clone(place.dir), place.name.to_owned(), *place.stat);
    let job = Job::Live(Live { dir, name, stat, want });
    window.push_job(place.key.to_vec(), job, before, emitter);
    Ok(enter)
}

/// Whether the parent has this very directory at its path.
fn is_same_directory(known: Option<&Known<'_>>, stat: &Stat) -> Result<bool> {
    let Some(known) = known.filter(|known| !known.moved) else { return Ok(false) };
    let head = EntryHead::decode(known.value)?;
    let is_same = (head.device, head.inode) == (stat.device, stat.inode);
    Ok(is_same && head.kind == KindCode::Directory)
}

/// Takes in something that the walk does not know.
fn admit_extra(
    parent: Option<&mut Parent<'_>>,
    window: &mut Window<'_>,
    emitter: &mut Emitter<'_>,
    (key, extra): (Vec<u8>, Extra),
    time: Timestamp,
    readers: &Readers,
) -> Result<()> {
    let value = match parent {
        Some(parent) => parent.at(&key)?.map(<[u8]>::to_vec),
        None => None,
    };
    let before = Before { value };
    match extra {
        Extra::Directory => {
            let entry = made_up(EntryKind::Directory, 0o755, time, &readers.names);
            let outcome = if before.value.is_some() { Outcome::Unmodified } else { Outcome::New };
            window.push_ready(key, entry.to_bytes(), outcome);
        }
        Extra::Held(held) => {
            let job = Job::Held { name: path::file_name(&key).to_vec(), held };
            window.push_job(key, job, before, emitter);
        }
        Extra::Stream(source) => {
            let kind = EntryKind::File(Content::Chunks(Vec::new()));
            let entry = made_up(kind, 0o600, time, &readers.names);
            let messages = start_stream(source, readers.chunkers.clone());
            window.push_stream(key, entry, before, messages);
        }
    }
    Ok(())
}

/// Reads a stream on a thread of its own, which nobody waits for: a stream may be silent for ever, and the end of the
/// backup must not be.
fn start_stream(source: Box<dyn StreamSource>, chunkers: Chunkers) -> Receiver<Message> {
    let (reply, messages): (Sender<Message>, _) = bounded(LONG_MESSAGES_MAX);
    std::thread::spawn(move || {
        let verdict = Readers::read_stream(&chunkers, source, &mut |piece| {
            reply.send(Message::Piece(piece)).is_ok()
        });
        let _ = reply.send(Message::StreamEnd(verdict));
    });
    messages
}

fn made_up(kind: EntryKind, mode: u32, time: Timestamp, names: &Names) -> Entry {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    Entry {
        kind,
        mode,
        uid,
        gid,
        user: names.user(uid).to_vec(),
        group: names.group(gid).to_vec(),
        mtime: time,
        ctime: time,
        nlink: 1,
        ..Entry::default()
    }
}

#[cfg(test)]
#[path = "pipeline/pipeline_tests.rs"]
mod tests;
