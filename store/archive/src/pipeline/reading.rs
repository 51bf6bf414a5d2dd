//! Reading one path: content, attributes, link target; with a truthful answer whatever the file does meanwhile.
//!
//! Owns the system calls on single files. Runs on workers; knows nothing of order, manifests or packs.

use super::job::{Body, Failure, Job, Live, Piece, Report, Saved, Want};
use super::profile::{Chunkers, HEAD_BYTES};
use crate::change::is_racy;
use crate::entry::{Content, EntryKind, INLINE_BYTES_MAX};
use crate::held::HeldFile;
use crate::meta::{self, Names, Stat};
use crate::source::{self, ReadClock, StreamSource};
use rustix::buffer::spare_capacity;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::io::{self, Cursor, Read};
use stillpoint_store::{Error, Result};

/// Files up to this size are read as a whole.
pub(super) const SMALL_FILE_BYTES_MAX: u64 = 1 << 20;
/// Problem text for a file that would not keep still.
const CHANGED: &str = "changed while it was read";

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Readers {
    pub(crate) chunkers: Chunkers,
    pub(crate) names: Names,
    pub(crate) clock: ReadClock,
}

/// Takes pieces; false when nobody wants more.
pub(super) type Emit<'a> = &'a mut dyn FnMut(Piece) -> bool;

/// Whether a file goes through a channel of its own.
pub(super) fn is_long(stat: &Stat) -> bool {
    stat.is_file() && stat.size > SMALL_FILE_BYTES_MAX
}

/// Content that was read, the stat that belongs to it, and whether it may have changed.
struct ReadContent {
    body: Body,
    size: u64,
    stat: Stat,
    racy: bool,
    note: Option<String>,
}

impl Readers {
    /// Does a job. Pieces of a long file go to `emit`.
    pub(super) fn save(&self, job: &Job, emit: Emit<'_>) -> Report {
        match job {
            Job::Held { name, held } => self.save_held(name, held, emit),
            Job::Live(live) => match live.stat.kind {
                FileType::RegularFile => self.save_file(live, emit),
                FileType::Symlink => self.save_link(live),
                _ => self.save_other(live),
            },
        }
    }

    fn save_file(&self, job: &Live, emit: Emit<'_>) -> Report {
        let fd = source::open_file(&job.dir, &job.name).map_err(cannot_open)?;
        let content = match job.want {
            Want::Metadata => ReadContent {
                body: Body::Nothing,
                size: job.stat.size,
                stat: job.stat,
                racy: false,
                note: None,
            },
            Want::Content => self.read(&fd, job, emit)?,
        };
        let mut note = content.note;
        let kind = EntryKind::File(Content::Inline(Vec::new()));
        let mut entry = meta::entry_from(&content.stat, kind, &self.names);
        entry.size = content.size;
        entry.racy = content.racy || is_racy(&content.stat, self.clock.now());
        entry.xattrs = noted(meta::xattrs_of(fd.as_fd()), "extended attributes", &mut note);
        entry.flags = noted(meta::flags_of(fd.as_fd()), "inode flags", &mut note);
        Ok(Saved { entry, body: content.body, note })
    }

    fn read(&self, fd: &OwnedFd, job: &Live, emit: Emit<'_>) -> Result<ReadContent, Failure> {
        if is_long(&job.stat) {
            return self.read_long(fd, job, emit);
        }
        let mut stat = job.stat;
        // What changed between the scan and now is simply read in its new state, once.
        for is_last in [false, true] {
            let read_at = self.clock.now();
            let (body, size) = self.read_small(fd, job, &stat)?;
            let after = Stat::of(fd.as_fd()).map_err(failed)?;
            if !after.is_file() {
                return Err("is no longer a regular file".into());
            }
            let stable = !stat.content_differs(&after) && size == stat.size;
            if stable || is_last || is_long(&after) {
                let note = (!stable).then(|| CHANGED.into());
                let racy = !stable || is_racy(&stat, read_at);
                return Ok(ReadContent { body, size, stat, racy, note });
            }
            stat = after;
        }
        unreachable!("the second attempt is the last")
    }

    /// Reads no more than the size that stat told: a file that grows for ever is saved as it was then.
    fn read_small(&self, fd: &OwnedFd, job: &Live, stat: &Stat) -> Result<(Body, u64), Failure> {
        let size = usize::try_from(stat.size).map_err(|_| "is too large")?;
        if size > INLINE_BYTES_MAX && stat.may_have_holes() {
            let mut pieces = Vec::new();
            let total = self.read_segments(fd, job.name.to_bytes(), stat.size, &mut |piece| {
                pieces.push(piece);
                true
            })?;
            return Ok((Body::Pieces(pieces), total));
        }
        let bytes = read_range(fd, 0, size).map_err(failed)?;
        let total = len_u64(bytes.len());
        if bytes.len() <= INLINE_BYTES_MAX {
            return Ok((Body::Inline(bytes), total));
        }
        let chunker = self.chunkers.choose(job.name.to_bytes(), Some(stat.size), head(&bytes));
        Ok((Body::Pieces(vec![Piece::Data(chunker.chunk_slice(bytes))]), total))
    }

    fn read_long(&self, fd: &OwnedFd, job: &Live, emit: Emit<'_>) -> Result<ReadContent, Failure> {
        let read_at = self.clock.now();
        let stat = Stat::of(fd.as_fd()).map_err(failed)?;
        if !stat.is_file() {
            return Err("is no longer a regular file".into());
        }
        let size = self.read_segments(fd, job.name.to_bytes(), stat.size, emit)?;
        let after = Stat::of(fd.as_fd()).map_err(failed)?;
        let stable = !stat.content_differs(&after) && size == stat.size;
        Ok(ReadContent {
            body: Body::Streamed,
            size,
            stat,
            racy: !stable || is_racy(&stat, read_at),
            note: (!stable).then(|| CHANGED.into()),
        })
    }

    /// Reads data and holes in order up to `size`, or to where the file ends by now; gives the bytes covered.
    pub(super) fn read_segments(
        &self,
        file: &dyn HeldFile,
        name: &[u8],
        size: u64,
        emit: Emit<'_>,
    ) -> Result<u64, Failure> {
        let first = read_range(file, 0, HEAD_BYTES).map_err(failed)?;
        let chunker = self.chunkers.choose(name, Some(size), &first);
        let mut at = 0;
        while at < size {
            let (data, end) = next_segment(file, at, size).map_err(failed)?;
            if data > at && !emit(Piece::Hole(data - at)) {
                return Err(STOPPED.into());
            }
            at = data;
            if data == end {
                break;
            }
            let reader = RangeReader { file, at: data, end };
            for batch in chunker.stream_sized(reader, end - data) {
                let batch = batch.map_err(|error| format!("cannot be read: {error}"))?;
                at += len_u64(batch.bytes.len());
                if !emit(Piece::Data(batch)) {
                    return Err(STOPPED.into());
                }
            }
            if at < end {
                break;
            }
        }
        Ok(at)
    }

    fn save_link(&self, job: &Live) -> Report {
        let dir = job.dir.fd().map_err(cannot_open)?;
        let target = rustix::fs::readlinkat(&dir, &job.name, Vec::new()).map_err(|errno| {
            if errno == Errno::INVAL {
                Failure::from("is no longer a symbolic link")
            } else {
                cannot_open(errno)
            }
        })?;
        let kind = EntryKind::Symlink { target: target.into_bytes() };
        self.finish_other(job, kind, &dir)
    }

    fn save_other(&self, job: &Live) -> Report {
        let dir = job.dir.fd().map_err(cannot_open)?;
        let kind = meta::plain_kind(&job.stat).ok_or("is of an unknown kind")?;
        self.finish_other(job, kind, &dir)
    }

    fn finish_other(&self, job: &Live, kind: EntryKind, dir: &OwnedFd) -> Report {
        let mut note = None;
        let mut entry = meta::entry_from(&job.stat, kind, &self.names);
        entry.racy = is_racy(&job.stat, self.clock.now());
        let opened = if job.stat.is_directory() { open_directory(dir, job) } else { None };
        if let Some(fd) = opened {
            entry.xattrs = noted(meta::xattrs_of(fd.as_fd()), "extended attributes", &mut note);
            entry.flags = noted(meta::flags_of(fd.as_fd()), "inode flags", &mut note);
        } else {
            let xattrs = meta::xattrs_at(dir.as_fd(), &job.name);
            entry.xattrs = noted(xattrs, "extended attributes", &mut note);
        }
        Ok(Saved { entry, body: Body::Nothing, note })
    }

    /// Cuts a stream to its end and lets it decide whether it is whole.
    ///
    /// # Errors
    /// What the stream gives, `Cancelled` when nobody wants more.
    pub(super) fn read_stream(
        chunkers: &Chunkers,
        mut source: Box<dyn StreamSource>,
        emit: Emit<'_>,
    ) -> Result<()> {
        let name = source.name().to_owned();
        let failed = |error| Error::io("reading", &name, error);
        let mut start = Vec::new();
        source.by_ref().take(len_u64(HEAD_BYTES)).read_to_end(&mut start).map_err(failed)?;
        let chunker = chunkers.choose(name.as_bytes(), None, &start);
        for batch in chunker.stream(Cursor::new(&start).chain(&mut source)) {
            if !emit(Piece::Data(batch.map_err(failed)?)) {
                return Err(Error::Cancelled);
            }
        }
        source.finish()
    }
}

/// What nobody will read: the receiver is gone.
const STOPPED: &str = "stopped";

pub(super) fn failed(error: impl Into<std::io::Error>) -> Failure {
    format!("cannot be read: {}", error.into()).into()
}

fn cannot_open(errno: Errno) -> Failure {
    match errno {
        Errno::NOENT => Failure { why: "vanished before it was read".into(), gone: true },
        Errno::LOOP | Errno::NXIO | Errno::STALE => "was replaced before it was read".into(),
        errno => format!("cannot be opened: {}", std::io::Error::from(errno)).into(),
    }
}

/// The value, or its default and a note that it could not be had.
pub(super) fn noted<T: Default>(
    found: rustix::io::Result<T>,
    what: &str,
    note: &mut Option<String>,
) -> T {
    found.unwrap_or_else(|errno| {
        let text = format!("{what} cannot be read: {}", std::io::Error::from(errno));
        *note = Some(match note.take() {
            Some(before) => format!("{before}; {text}"),
            None => text,
        });
        T::default()
    })
}

pub(super) fn len_u64(len: usize) -> u64 {
    u64::try_from(len).expect("a usize fits into 64 bits")
}

pub(super) fn head(bytes: &[u8]) -> &[u8] {
    bytes.get(..HEAD_BYTES).unwrap_or(bytes)
}

fn open_directory(dir: &OwnedFd, job: &Live) -> Option<OwnedFd> {
    let flags =
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, &job.name, flags, Mode::empty()).ok()?;
    Some(fd)
}

/// Reads up to `len` bytes from `at`; fewer only where the file ends.
pub(super) fn read_range(file: &dyn HeldFile, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let from = at + len_u64(bytes.len());
        let read = file.with(&mut |fd| {
            let count = rustix::io::pread(fd, spare_capacity(&mut bytes), from)?;
            Ok(len_u64(count))
        });
        match read {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // The allocator may have given more room than was asked for.
    bytes.truncate(len);
    Ok(bytes)
}

/// The next data at or after `at`: where it begins and ends, both the end of the file where there is none.
fn next_segment(file: &dyn HeldFile, at: u64, size: u64) -> io::Result<(u64, u64)> {
    let mut data = at;
    let end = file.with(&mut |fd| {
        data = match rustix::fs::seek(fd, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            Err(Errno::NXIO) => {
                data = Stat::of(fd)?.size.clamp(at, size);
                return Ok(data);
            }
            // The file system does not tell.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(size),
            Err(errno) => return Err(errno.into()),
        };
        match rustix::fs::seek(fd, SeekFrom::Hole(data)) {
            Ok(hole) => Ok(hole.clamp(data, size)),
            Err(Errno::NXIO) => Ok(data),
            Err(errno) => Err(errno.into()),
        }
    })?;
    Ok((data, end))
}

/// A part of a file as a reader.
struct RangeReader<'f> {
    file: &'f dyn HeldFile,
    at: u64,
    end: u64,
}

impl Read for RangeReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let len = left.min(buffer.len());
        let wanted = buffer.get_mut(..len).unwrap_or_default();
        let mut count = 0;
        self.file.with(&mut |fd| {
            count = rustix::io::pread(fd, &mut *wanted, self.at)?;
            Ok(len_u64(count))
        })?;
        self.at += len_u64(count);
        Ok(count)
    }
}
