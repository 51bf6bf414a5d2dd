//! The window between the walk and the manifest: what waits, in order, for workers to finish.
//!
//! Owns the bounds on memory: entries, bytes in flight and long files at once. Gives jobs to workers in groups,
//! because waking a thread for every tiny file would cost more than reading it.

use super::emit::{Before, Emitter};
use super::job::{Job, Message, Report, Work};
use super::reading::{Readers, is_long};
use crate::entry::Entry;
use crate::meta::Stat;
use crate::observer::Outcome;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::VecDeque;
use stillpoint_store::{Error, Result};

/// Most entries that wait in the window.
pub(crate) const WINDOW_ENTRIES_MAX: usize = 4096;
/// Most bytes of small files and waiting entries in the window, but for the last one that was let in.
pub(crate) const IN_FLIGHT_BYTES_MAX: u64 = 48 << 20;
/// Most long files in the window; each has up to [`LONG_MESSAGES_MAX`] + 2 windows of the chunker in memory.
pub(crate) const LONG_FILES_MAX: usize = 3;
/// Most batches of one long file that wait to be stored.
pub(crate) const LONG_MESSAGES_MAX: usize = 1;
/// Most files that one worker takes at a time.
const GROUP_FILES_MAX: usize = 32;
/// Bytes after which a group is full.
const GROUP_BYTES_MAX: u64 = 512 << 10;

/// One entry that waits.
enum Slot {
    /// Taken over from the parent.
    Ready { value: Vec<u8>, outcome: Outcome },
    /// In a group; the first of each group has the channel on which the group's reports come.
    Small { before: Before, link: Option<Stat>, reports: Option<Receiver<Vec<Report>>> },
    /// A long file.
    Long { before: Before, link: Option<Stat>, messages: Receiver<Message> },
    /// A further name of an inode that comes earlier in the window, or came before.
    Link { before: Before, job: Box<Job> },
    /// A stream.
    Stream { before: Before, entry: Box<Entry>, messages: Receiver<Message> },
}

/// What is charged for a slot.
#[derive(Debug, Clone, Copy)]
struct Charge {
    bytes: u64,
    is_long: bool,
}

pub(super) struct Window<'a> {
    slots: VecDeque<(Vec<u8>, Charge, Slot)>,
    in_flight_bytes: u64,
    long_files: usize,
    work: Sender<Work>,
    group: Option<Group>,
    /// Reports of the group whose turn it is.
    arrived: VecDeque<Report>,
    readers: &'a Readers,
}

struct Group {
    jobs: Vec<Job>,
    bytes: u64,
    reply: Sender<Vec<Report>>,
}

impl<'a> Window<'a> {
    pub(super) fn new(work: Sender<Work>, readers: &'a Readers) -> Self {
        Self {
            slots: VecDeque::new(),
            in_flight_bytes: 0,
            long_files: 0,
            work,
            group: None,
            arrived: VecDeque::new(),
            readers,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether one more entry may come in.
    pub(super) fn has_room(&self) -> bool {
        self.slots.len() < WINDOW_ENTRIES_MAX
            && self.in_flight_bytes < IN_FLIGHT_BYTES_MAX
            && self.long_files < LONG_FILES_MAX
    }

    /// Whether the first entry can be taken out without waiting.
    pub(super) fn is_front_ready(&self) -> bool {
        match self.slots.front() {
            Some((_, _, Slot::Ready { .. } | Slot::Link { .. })) => true,
            Some((_, _, Slot::Small { reports: Some(reports), .. })) => !reports.is_empty(),
            Some((_, _, Slot::Small { reports: None, .. })) => !self.arrived.is_empty(),
            _ => false,
        }
    }

    /// An entry that is taken over from the parent.
    pub(super) fn push_ready(&mut self, key: Vec<u8>, value: Vec<u8>, outcome: Outcome) {
        let charge = Charge { bytes: len_u64(key.len() + value.len()), is_long: false };
        self.push(key, charge, Slot::Ready { value, outcome });
    }

    /// A path for a worker.
    pub(super) fn push_job(
        &mut self,
        key: Vec<u8>,
        job: Job,
        before: Before,
        emitter: &mut Emitter<'_>,
    ) {
        let (reads, stat) = (job.reads(), *job.stat());
        if reads && emitter.links.is_known(&stat) {
            let charge = Charge { bytes: 0, is_long: false };
            self.push(key, charge, Slot::Link { before, job: Box::new(job) });
            return;
        }
        let link = (reads && emitter.links.begin(&stat)).then_some(stat);
        if reads && is_long(&stat) {
            // Groups go first: the queue is served in the order of the window, so the front is always served.
            self.flush();
            let (reply, messages) = bounded(LONG_MESSAGES_MAX);
            self.push(
                key,
                Charge { bytes: 0, is_long: true },
                Slot::Long { before, link, messages },
            );
            self.send(Work::Long { job, reply });
            return;
        }
        let bytes = if reads { stat.size } else { 0 };
        let reports = self.join_group(job, bytes);
        self.push(key, Charge { bytes, is_long: false }, Slot::Small { before, link, reports });
    }

    /// A stream whose messages come from a thread of its own.
    pub(super) fn push_stream(
        &mut self,
        key: Vec<u8>,
        entry: Entry,
        before: Before,
        messages: Receiver<Message>,
    ) {
        let slot = Slot::Stream { before, entry: Box::new(entry), messages };
        self.push(key, Charge { bytes: 0, is_long: false }, slot);
    }

    /// Gives the open group to the workers.
    pub(super) fn flush(&mut self) {
        if let Some(Group { jobs, reply, .. }) = self.group.take() {
            self.send(Work::Group { jobs, reply });
        }
    }

    /// Waits for the first entry and hands it on; false when there is none.
    pub(super) fn settle(&mut self, emitter: &mut Emitter<'_>) -> Result<bool> {
        let Some((key, charge, slot)) = self.slots.pop_front() else { return Ok(false) };
        match slot {
            Slot::Ready { value, outcome } => emitter.unchanged(&key, &value, outcome)?,
            Slot::Small { before, link, reports } => {
                if let Some(reports) = reports {
                    if reports.is_empty() {
                        self.flush();
                    }
                    let died = |_| Error::Invalid("a reading thread died".into());
                    self.arrived = reports.recv().map_err(died)?.into();
                }
                let report = self.arrived.pop_front().expect("one report for each job");
                emitter.report(&key, report, &before, link)?;
            }
            Slot::Long { before, link, messages } => {
                emitter.long(&key, &messages, &before, link)?
            }
            Slot::Stream { before, entry, messages } => {
                self.flush();
                emitter.stream(&key, &messages, *entry, &before)?;
            }
            Slot::Link { before, job } => self.settle_link(&key, &job, &before, emitter)?,
        }
        self.in_flight_bytes -= charge.bytes;
        self.long_files -= usize::from(charge.is_long);
        Ok(true)
    }

    /// The entry of the inode's first name; where there is none, the file is read here and now: a worker might be
    /// waiting for room that only this thread can make.
    fn settle_link(
        &mut self,
        key: &[u8],
        job: &Job,
        before: &Before,
        emitter: &mut Emitter<'_>,
    ) -> Result<()> {
        if let Some(value) = emitter.links.take(job.stat()) {
            let outcome = match &before.value {
                Some(old) if *old == value => Outcome::Unmodified,
                Some(_) => Outcome::Changed,
                None => Outcome::New,
            };
            return emitter.unchanged(key, &value, outcome);
        }
        emitter.read_here(key, job, self.readers, before)
    }

    fn push(&mut self, key: Vec<u8>, charge: Charge, slot: Slot) {
        self.in_flight_bytes += charge.bytes;
        self.long_files += usize::from(charge.is_long);
        self.slots.push_back((key, charge, slot));
    }

    fn join_group(&mut self, job: Job, bytes: u64) -> Option<Receiver<Vec<Report>>> {
        let mut reports = None;
        let group = self.group.get_or_insert_with(|| {
            let (reply, receiver) = bounded(1);
            reports = Some(receiver);
            Group { jobs: Vec::new(), bytes: 0, reply }
        });
        group.jobs.push(job);
        group.bytes += bytes;
        if group.jobs.len() >= GROUP_FILES_MAX || group.bytes >= GROUP_BYTES_MAX {
            self.flush();
        }
        reports
    }

    fn send(&self, work: Work) {
        // Workers end only when this sender is gone, or by a panic that their scope passes on.
        let _ = self.work.send(work);
    }
}

fn len_u64(len: usize) -> u64 {
    u64::try_from(len).expect("a usize fits into 64 bits")
}
