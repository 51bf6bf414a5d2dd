//! A bounded piece of a restore: so many files and chunks at once, read in pack order, each frame once.

use super::file::FileJob;
use super::nodes::{LinkJob, NodeJob};
use super::parallel::for_each;
use super::run::Run;
use super::walk::{Left, Step};
use super::{Context, nodes};
use crate::entry::{Content, ContentItem, ContentSchema, Entry, EntryKind};
use crate::plan::Action;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use stillpoint_store::backend::ObjectBytes;
use stillpoint_store::index::Location;
use stillpoint_store::read::FrameRun;
use stillpoint_store::tree::Tree;
use stillpoint_store::{ChunkId, ChunkKind, PackId, Result};

/// Most files, nodes and directories in one window.
pub const WINDOW_ENTRIES_MAX: usize = 8192;
/// Most chunk references in one window; about 100 bytes each.
pub const WINDOW_CHUNKS_MAX: usize = 1 << 16;
/// Most memory of entries (names, attributes, inline content) in one window, bytes.
pub const WINDOW_BYTES_MAX: usize = 24 << 20;

/// A chunk that a file wants.
struct Want {
    job: usize,
    offset: u64,
    len: u32,
    id: ChunkId,
}

/// A hole in a file that is updated.
struct Hole {
    job: usize,
    offset: u64,
    len: u64,
}

/// Work that is collected and then done at once.
#[derive(Default)]
pub(super) struct Window {
    jobs: Vec<Arc<FileJob>>,
    wants: Vec<Want>,
    holes: Vec<Hole>,
    /// Jobs without chunks: empty, inline, nothing but holes.
    plain: Vec<usize>,
    nodes: Vec<NodeJob>,
    links: Vec<LinkJob>,
    left: Vec<Left>,
    weight: usize,
    /// Names of hard-linked files under which the snapshot's content does not stand, of this window and those before.
    lost: HashSet<Vec<u8>>,
}

impl Window {
    /// Takes one step in; does what was collected whenever there is enough of it.
    pub fn add(&mut self, context: &Context<'_>, step: Step) -> Result<()> {
        match step {
            Step::Leave(left) => {
                self.weight += left.entry.as_ref().map_or(0, |entry| weight_of(&left.key, entry));
                self.left.push(left);
            }
            Step::Link { key, first, action, size } => {
                self.weight += key.len() + first.len();
                self.links.push(LinkJob { key, first, action, size });
            }
            Step::Make { key, entry, action } => {
                self.weight += weight_of(&key, &entry);
                let content = matches!(
                    action,
                    Action::Create | Action::Replace | Action::Clear | Action::Update
                );
                if entry.is_file() && content {
                    self.add_file(context, Arc::new(FileJob::new(key, entry, action)))?;
                } else {
                    self.nodes.push(NodeJob { key, entry, action });
                }
            }
        }
        if self.is_full() { self.run(context, false) } else { Ok(()) }
    }

    fn is_full(&self) -> bool {
        let entries = self.jobs.len() + self.nodes.len() + self.links.len() + self.left.len();
        entries >= WINDOW_ENTRIES_MAX
            || self.wants.len() + self.holes.len() >= WINDOW_CHUNKS_MAX
            || self.weight >= WINDOW_BYTES_MAX
    }

    fn add_file(&mut self, context: &Context<'_>, job: Arc<FileJob>) -> Result<()> {
        self.jobs.push(Arc::clone(&job));
        let before = self.wants.len();
        let planned = match &job.entry.kind {
            EntryKind::File(Content::Chunks(items)) => self.add_items(&job, items),
            EntryKind::File(Content::Tree(root)) => {
                let tree = Tree::<ContentSchema>::open(*root, context.reader);
                let planned = self.add_tree(context, &job, tree)?;
                if planned.is_ok() && root.bytes != job.entry.size {
                    Err("its content list does not give its size".to_owned())
                } else {
                    planned
                }
            }
            _ => Ok(()),
        };
        if let Err(why) = planned {
            job.fail(why);
        }
        // Without chunks in this window the file is finished by whoever handles plain files.
        if self.wants.len() == before {
            self.plain.push(self.jobs.len() - 1);
        } else {
            job.complete_piece(context);
        }
        Ok(())
    }

    fn add_items(&mut self, job: &FileJob, items: &[ContentItem]) -> Result<(), String> {
        let total: u64 = items.iter().map(ContentItem::len_bytes).fold(0, u64::saturating_add);
        if total != job.entry.size {
            return Err("its content list does not give its size".to_owned());
        }
        let mut offset = 0;
        for item in items {
            self.add_item(job, item, offset);
            offset += item.len_bytes();
        }
        Ok(())
    }

    /// Goes through a long content list, doing full windows on the way. The inner result is the file's own failure.
    fn add_tree(
        &mut self,
        context: &Context<'_>,
        job: &Arc<FileJob>,
        tree: Tree<'_, ContentSchema>,
    ) -> Result<Result<(), String>> {
        let mut offset = 0u64;
        let mut cursor = match tree.iter() {
            Ok(cursor) => cursor,
            Err(error) => return Ok(Err(error.to_string())),
        };
        while let Some((_, value)) = cursor.peek() {
            let next = ContentItem::decode(value).and_then(|item| {
                self.add_item(job, &item, offset);
                offset = offset.saturating_add(item.len_bytes());
                cursor.advance()
            });
            if let Err(error) = next {
                return Ok(Err(error.to_string()));
            }
            if self.is_full() {
                self.run(context, true)?;
            }
        }
        Ok(if offset == job.entry.size { Ok(()) } else { Err("its content list is short".into()) })
    }

    fn add_item(&mut self, job: &FileJob, item: &ContentItem, offset: u64) {
        let number = self.jobs.len() - 1;
        match *item {
            ContentItem::Data { id, len } => {
                job.expect_piece();
                self.wants.push(Want { job: number, offset, len, id });
            }
            ContentItem::Hole { len } if job.is_update() => {
                self.holes.push(Hole { job: number, offset, len });
            }
            ContentItem::Hole { .. } => {}
        }
    }

    /// Does everything collected so far. With `carry` the last file goes on in the next window.
    pub fn run(&mut self, context: &Context<'_>, carry: bool) -> Result<()> {
        let carried = if carry { self.jobs.last().cloned() } else { None };
        let mut window = std::mem::take(self);
        let jobs = window.jobs.clone();
        let result = window.work(context, carried.as_ref());
        self.lost = window.lost;
        if result.is_err() {
            jobs.iter().for_each(|job| job.abandon(context));
        }
        self.jobs.extend(carried);
        result
    }

    fn work(&mut self, context: &Context<'_>, carried: Option<&Arc<FileJob>>) -> Result<()> {
        let threads = context.threads;
        self.compare_existing(context);
        for_each(threads, &self.plain, |number| {
            if let Some(job) = self.jobs.get(*number).filter(|_| !context.ledger.stopped()) {
                if let EntryKind::File(Content::Inline(bytes)) = &job.entry.kind
                    && !bytes.is_empty()
                {
                    nodes::write_inline(context, job, bytes);
                }
                job.complete_piece(context);
            }
        });
        let lost = Mutex::new(std::mem::take(&mut self.lost));
        for_each(threads, &self.nodes, |node| {
            if !context.ledger.stopped() && !nodes::make(context, node) && node.is_linked() {
                let mut lost = lost.lock().unwrap_or_else(PoisonError::into_inner);
                lost.insert(node.key.clone());
            }
        });
        self.lost = lost.into_inner().unwrap_or_else(PoisonError::into_inner);
        context.ledger.check()?;
        let runs = self.runs(context)?;
        for_each(threads, &runs, |run| self.restore_run(context, run));
        context.ledger.check()?;
        if context.options.verify {
            super::verify::verify(context, &self.jobs, carried)?;
        }
        let is_lost = |job: &&Arc<FileJob>| job.entry.link_id().is_some() && job.has_failed();
        self.lost.extend(self.jobs.iter().filter(is_lost).map(|job| job.key.clone()));
        for link in &self.links {
            nodes::link(context, link, self.lost.contains(&link.first));
        }
        for left in &self.left {
            nodes::leave(context, left);
        }
        context.ledger.check()
    }

    /// Drops the wants that existing files already have in place, and punches holes that they should have.
    fn compare_existing(&mut self, context: &Context<'_>) {
        let jobs = &self.jobs;
        if jobs.iter().all(|job| !job.is_update()) {
            return;
        }
        let matches: Vec<std::sync::atomic::AtomicBool> =
            self.wants.iter().map(|_| std::sync::atomic::AtomicBool::new(false)).collect();
        let numbered: Vec<(&Want, &std::sync::atomic::AtomicBool)> =
            self.wants.iter().zip(&matches).collect();
        for_each(context.threads, &numbered, |(want, matched)| {
            let Some(job) = jobs.get(want.job) else { return };
            if !job.is_update() || context.ledger.stopped() {
                return;
            }
            let length = usize::try_from(want.len).expect("32 bits fit into a usize");
            let mut bytes = vec![0u8; length];
            if job.read_existing(context, want.offset, &mut bytes)
                && context.ids.id(&bytes) == want.id
            {
                matched.store(true, Ordering::Relaxed);
                super::ledger::add(&context.ledger.bytes_matched, u64::from(want.len));
            } else if u64::from(want.len) == job.entry.size {
                // The only piece differs: nothing is gained by writing in place.
                job.replace_instead(context);
            }
        });
        let holes = std::mem::take(&mut self.holes);
        for hole in &holes {
            if let Some(job) = jobs.get(hole.job).filter(|job| job.is_update()) {
                job.punch(context, hole.offset, hole.len);
            }
        }
        let mut matched = matches.iter().map(|matched| matched.load(Ordering::Relaxed));
        let jobs = self.jobs.clone();
        self.wants.retain(|want| {
            let keep = !matched.next().unwrap_or(false);
            if !keep && let Some(job) = jobs.get(want.job) {
                job.complete_piece(context);
            }
            keep
        });
    }

    /// Locates all wanted chunks and groups them by frame and neighbouring frames by run, packs in order of first use,
    /// frames in order of place.
    fn runs(&self, context: &Context<'_>) -> Result<Vec<Run>> {
        let ids: Vec<ChunkId> = self.wants.iter().map(|want| want.id).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let places = context.reader.locate(&ids)?;
        let mut rank: HashMap<PackId, usize> = HashMap::new();
        let mut found: Vec<(usize, Location, usize)> = Vec::with_capacity(ids.len());
        for (number, (want, place)) in self.wants.iter().zip(places).enumerate() {
            let Some(job) = self.jobs.get(want.job) else { continue };
            match place {
                Some(place) if place.len == want.len => {
                    let next = rank.len();
                    found.push((*rank.entry(place.pack).or_insert(next), place, number));
                }
                Some(_) => self.give_up(context, job, "the index gives another length for a chunk"),
                None => {
                    let why = format!("chunk {} is missing in the repository", want.id);
                    self.give_up(context, job, &why);
                }
            }
        }
        found.sort_unstable_by_key(|(rank, place, number)| {
            (*rank, place.frame_offset, place.offset, *number)
        });
        let mut runs: Vec<Run> = Vec::new();
        for (_, place, number) in found {
            match runs.last_mut() {
                Some(run) if run.takes(&place) => run.push(place, number),
                _ => runs.push(Run::new(place, number)),
            }
        }
        Ok(runs)
    }

    fn give_up(&self, context: &Context<'_>, job: &FileJob, why: &str) {
        job.fail(why);
        job.complete_piece(context);
    }

    /// Fetches neighbouring frames with one read and restores each of them.
    fn restore_run(&self, context: &Context<'_>, run: &Run) {
        let (first, last) = run.ends();
        // Where the read fails, each frame is tried by itself, so that only what is damaged is lost.
        let fetched = context.reader.read_run(first, last).ok();
        for frame in &run.frames {
            self.restore_frame(context, fetched.as_ref(), frame);
        }
    }

    /// Decodes one frame and writes everything that is wanted from it.
    fn restore_frame(
        &self,
        context: &Context<'_>,
        fetched: Option<&FrameRun>,
        frame: &[(Location, usize)],
    ) {
        let Some((first, _)) = frame.first() else { return };
        if context.ledger.stopped() {
            return;
        }
        let wants = frame.iter().filter_map(|(place, number)| {
            let want = self.wants.get(*number)?;
            Some((place, want, self.jobs.get(want.job)?))
        });
        let plain = match fetched {
            Some(run) => context.reader.open_frame(run, first, ChunkKind::Data),
            None => context.reader.read_frame(first, ChunkKind::Data),
        };
        let plain = plain.ok().map(Arc::new);
        let mut verified: Option<(&Want, ObjectBytes)> = None;
        for (place, want, job) in wants {
            let known = verified.as_ref().filter(|(last, _)| last.id == want.id);
            let chunk = match known {
                Some((_, bytes)) => Ok(bytes.clone()),
                None => Self::chunk(context, plain.as_ref(), place, want),
            };
            match chunk {
                Ok(bytes) => {
                    if !(context.options.sparse && bytes.iter().all(|byte| *byte == 0))
                        || job.is_update()
                    {
                        job.write(context, want.offset, &bytes);
                    }
                    verified = Some((want, bytes));
                }
                Err(error) => job.fail(error),
            }
            job.complete_piece(context);
        }
    }

    /// One chunk out of its frame; where that fails, from wherever else it lies.
    fn chunk(
        context: &Context<'_>,
        plain: Option<&Arc<Vec<u8>>>,
        place: &Location,
        want: &Want,
    ) -> Result<ObjectBytes> {
        if let Some(plain) = plain
            && let Ok(bytes) = context.reader.chunk_in(plain, place, &want.id, ChunkKind::Data)
        {
            let start = usize::try_from(place.offset).expect("checked by chunk_in");
            let range = start..start + bytes.len();
            return Ok(ObjectBytes::window(plain.clone(), range).expect("checked by chunk_in"));
        }
        context.reader.chunk(&want.id)
    }
}

/// Roughly what an entry occupies in memory, bytes.
fn weight_of(key: &[u8], entry: &Entry) -> usize {
    let xattrs: usize =
        entry.xattrs.iter().map(|(name, value)| name.len() + value.len() + 48).sum();
    let content = match &entry.kind {
        EntryKind::File(Content::Inline(bytes)) => bytes.len(),
        EntryKind::File(Content::Chunks(items)) => items.len() * size_of::<ContentItem>(),
        EntryKind::Symlink { target } => target.len(),
        _ => 0,
    };
    key.len() + size_of::<Entry>() + entry.user.len() + entry.group.len() + xattrs + content
}
