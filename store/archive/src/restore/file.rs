//! One file on its way into the target: opened when its first byte comes, finished when its last piece is done.
//!
//! A file that is new is created under its own name, exclusively. One that takes the place of something is written
//! aside and renamed over it. One that is updated is compared with what exists and written in place. Whatever fails
//! half-way is removed and named: a wrong file never stands there silently.

use super::Context;
use super::ledger::add;
use super::place::{
    Place, Trouble, errno_of, is_hopeless, length, length_of, open_for_update, zero,
};
use super::verify::is_zero;
use crate::entry::{Content, Entry, EntryKind};
use crate::observer::{Event, Outcome};
use crate::path::{file_name, parent_key};
use crate::plan::Action;
use crate::target::{Dir, Fresh, flags_must_wait};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use stillpoint_store::Error;

/// A file that is being restored.
pub(super) struct FileJob {
    /// Its key, relative to the target.
    pub key: Vec<u8>,
    pub entry: Box<Entry>,
    /// Pieces that are not done, and one more while the planner may add further ones.
    pending: AtomicU64,
    failed: AtomicBool,
    written: AtomicU64,
    state: Mutex<State>,
}

struct State {
    action: Action,
    place: Option<Place>,
    file: Option<Arc<File>>,
    failure: Option<String>,
    finished: bool,
}

impl FileJob {
    /// A job with one pending piece: the planner's own.
    pub fn new(key: Vec<u8>, entry: Box<Entry>, action: Action) -> Self {
        Self {
            key,
            entry,
            pending: AtomicU64::new(1),
            failed: AtomicBool::new(false),
            written: AtomicU64::new(0),
            state: Mutex::new(State {
                action,
                place: None,
                file: None,
                failure: None,
                finished: false,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether existing content is to be compared.
    pub fn is_update(&self) -> bool {
        self.state().action == Action::Update
    }

    /// Whether the file stands complete under its name.
    pub fn is_restored(&self) -> bool {
        let state = self.state();
        state.finished && state.failure.is_none()
    }

    /// Whether nothing more is done for this file.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// One more piece will come.
    pub fn expect_piece(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// A piece is done; the last one finishes the file.
    pub fn complete_piece(&self, context: &Context<'_>) {
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finish(context);
        }
    }

    /// The file cannot become right; the first reason counts.
    pub fn fail(&self, why: impl ToString) {
        self.state().failure.get_or_insert_with(|| why.to_string());
        self.failed.store(true, Ordering::Relaxed);
    }

    pub fn fail_with(&self, context: &Context<'_>, trouble: Trouble) {
        match trouble {
            Trouble::Says(what) => self.fail(what),
            Trouble::Io(action, errno) => {
                self.fail(format!("{action}: {}", std::io::Error::from(errno)));
                if is_hopeless(errno) {
                    let path = context.target.display(&self.key);
                    context.ledger.stop(Error::io(action, path.display(), errno.into()));
                }
            }
        }
    }

    /// Writes one piece at its place; a failed file takes no more.
    pub fn write(&self, context: &Context<'_>, offset: u64, bytes: &[u8]) {
        if self.has_failed() {
            return;
        }
        let result = self.with_file(context, |file| {
            std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
                .map_err(|error| Trouble::Io("writing", errno_of(&error)))
        });
        match result {
            Ok(()) => {
                let length = length(bytes);
                add(&self.written, length);
                add(&context.ledger.bytes_written, length);
                context.ledger.event(Event::Bytes(length));
            }
            Err(trouble) => self.fail_with(context, trouble),
        }
    }

    /// Makes the existing bytes from `offset` read as zeros without occupying space.
    pub fn punch(&self, context: &Context<'_>, offset: u64, length: u64) {
        let end = offset.saturating_add(length);
        let result = self.with_file(context, |file| {
            let data = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset));
            match data {
                // Nothing but a hole from here to the end, or no data before the piece ends.
                Err(Errno::NXIO) => return Ok(false),
                Ok(start) if start >= end => return Ok(false),
                _ => {}
            }
            let changes = !is_zero(file, offset, end.min(length_of(file)?));
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(file, flags, offset, length) {
                Ok(()) => Ok(changes),
                Err(Errno::OPNOTSUPP) if changes => zero(file, offset, end).map(|()| true),
                Err(Errno::OPNOTSUPP) => Ok(false),
                Err(errno) => Err(Trouble::Io("punching a hole", errno)),
            }
        });
        match result {
            Ok(changed) => {
                self.written.fetch_add(u64::from(changed), Ordering::Relaxed);
            }
            Err(trouble) => self.fail_with(context, trouble),
        }
    }

    /// Reads existing content of a file that is updated; false if there is less of it.
    pub fn read_existing(&self, context: &Context<'_>, offset: u64, into: &mut [u8]) -> bool {
        if self.has_failed() {
            return false;
        }
        let read =
            |file: &File| Ok(std::os::unix::fs::FileExt::read_exact_at(file, into, offset).is_ok());
        self.is_update() && self.with_file(context, read).unwrap_or(false) && self.is_update()
    }

    /// Gives up updating in place: the file is written aside and replaces the existing one.
    pub fn replace_instead(&self, context: &Context<'_>) {
        let mut state = self.state();
        if state.action == Action::Update {
            context.open_files.drop_file(&mut state.file);
            state.place = None;
            state.action = Action::Replace;
        }
    }

    fn with_file<T>(
        &self,
        context: &Context<'_>,
        work: impl FnOnce(&File) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let file = {
            let mut state = self.state();
            match &state.file {
                Some(file) => Arc::clone(file),
                None => self.open(context, &mut state)?,
            }
        };
        let result = work(&file);
        if context.open_files.are_too_many() {
            context.open_files.drop_file(&mut self.state().file);
        }
        result
    }

    /// Creates the file, or opens it again.
    fn open(&self, context: &Context<'_>, state: &mut State) -> Result<Arc<File>, Trouble> {
        let dir = self.dir(context)?;
        let file = match &state.place {
            Some(place) => place.open_again(&dir)?,
            None => self.first_open(context, &dir, state)?,
        };
        let file = Arc::new(file);
        context.open_files.opened();
        state.file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Opens or creates the file and says in the state which one it is, so that it can be removed if anything fails.
    fn first_open(
        &self,
        context: &Context<'_>,
        dir: &Dir,
        state: &mut State,
    ) -> Result<File, Trouble> {
        let creating = |errno| Trouble::Io("creating", errno);
        let name = file_name(&self.key);
        if state.action == Action::Update {
            if let Some((file, place)) = open_for_update(dir, name) {
                state.place = Some(place);
                return Ok(file);
            }
            // Shared meanwhile, without write permission, or running as a program: replace it.
            state.action = Action::Replace;
        }
        if state.action == Action::Clear {
            context
                .clear(dir, name)
                .map_err(|errno| Trouble::Io("replacing a directory", errno))?;
        }
        let temporary = state.action == Action::Replace;
        let (name, file) = if temporary {
            dir.with_temporary(|free| dir.create_file(free)).map_err(creating)?
        } else {
            (name.to_vec(), dir.create_file(name).map_err(creating)?)
        };
        let stat = rustix::fs::fstat(&file).map_err(|errno| {
            // Unknown as it is, nobody would find it later.
            let _ = dir.unlink(&name);
            creating(errno)
        })?;
        state.place = Some(Place {
            name,
            temporary,
            fresh: Fresh::made_in(dir),
            device: stat.st_dev,
            inode: stat.st_ino,
            size: 0,
        });
        context.metadata.prepare(file.as_fd(), &self.entry);
        if self.has_several_pieces() {
            // Growing piece by piece makes some file systems allocate beyond the end, and so fill holes.
            rustix::fs::ftruncate(&file, self.entry.size)
                .map_err(|errno| Trouble::Io("setting the length", errno))?;
        }
        Ok(file)
    }

    fn has_several_pieces(&self) -> bool {
        match &self.entry.kind {
            EntryKind::File(Content::Chunks(items)) => items.len() > 1,
            EntryKind::File(Content::Tree(_)) => true,
            _ => false,
        }
    }

    fn dir(&self, context: &Context<'_>) -> Result<Arc<Dir>, Trouble> {
        let parent = parent_key(&self.key).unwrap_or_default();
        context.target.dir(parent).map_err(|errno| Trouble::Io("opening the directory", errno))
    }

    /// Sets length and metadata, renames into place, and says what became of it.
    fn finish(&self, context: &Context<'_>) {
        let mut state = self.state();
        if state.finished {
            return;
        }
        if state.failure.is_none()
            && !context.ledger.stopped()
            && let Err(trouble) = self.settle(context, &mut state)
        {
            drop(state);
            self.fail_with(context, trouble);
            state = self.state();
        }
        context.open_files.drop_file(&mut state.file);
        state.finished = true;
        if state.failure.is_some() || context.ledger.stopped() {
            self.discard(context, &mut state);
            return;
        }
        let action = state.action;
        drop(state);
        self.tell(context, action);
    }

    fn tell(&self, context: &Context<'_>, action: Action) {
        let matched = action == Action::Update && self.written.load(Ordering::Relaxed) == 0;
        add(if matched { &context.ledger.files_matched } else { &context.ledger.files_written }, 1);
        let outcome = match action {
            Action::Create => Outcome::New,
            Action::Update if matched => Outcome::Unmodified,
            _ => Outcome::Changed,
        };
        context.ledger.outcome(&self.key, outcome, self.entry.size);
    }

    fn settle(&self, context: &Context<'_>, state: &mut State) -> Result<(), Trouble> {
        let file = match &state.file {
            Some(file) => Arc::clone(file),
            None => self.open(context, state)?,
        };
        let place = state.place.as_ref().ok_or_else(|| Trouble::Says("not opened".into()))?;
        let written_to = length_of(&file)?;
        if written_to != self.entry.size {
            rustix::fs::ftruncate(&file, self.entry.size)
                .map_err(|errno| Trouble::Io("setting the length", errno))?;
            if place.size > self.entry.size {
                self.written.fetch_add(1, Ordering::Relaxed);
            }
        }
        let path = || context.target.display(&self.key);
        context
            .metadata
            .apply(file.as_fd(), &self.entry, place.fresh, &path)
            .map_err(|errno| Trouble::Io("setting metadata", errno))?;
        if flags_must_wait(&self.entry) {
            context.seal_later(&self.key, &self.entry);
        }
        if place.temporary {
            let dir = self.dir(context)?;
            dir.rename(&place.name, file_name(&self.key))
                .map_err(|errno| Trouble::Io("renaming into place", errno))?;
        }
        Ok(())
    }

    /// Removes what was written and names the problem.
    fn discard(&self, context: &Context<'_>, state: &mut State) {
        let touched = self.written.load(Ordering::Relaxed) > 0;
        if let Some(place) = state.place.take()
            && (state.action != Action::Update || touched)
            && let Ok(dir) = self.dir(context)
            && let Ok(Some(stat)) = dir.stat(&place.name)
            && (stat.st_dev, stat.st_ino) == (place.device, place.inode)
        {
            let _ = dir.unlink(&place.name);
        }
        if let Some(why) = &state.failure {
            context.ledger.problem(context.target.display(&self.key), why);
            context.ledger.outcome(&self.key, Outcome::Failed, self.entry.size);
        }
    }

    /// Ends a file of which pieces are missing because the restore stopped: nothing of it stays.
    pub fn abandon(&self, context: &Context<'_>) {
        let mut state = self.state();
        if !state.finished {
            state.finished = true;
            context.open_files.drop_file(&mut state.file);
            self.discard(context, &mut state);
        }
    }
}
