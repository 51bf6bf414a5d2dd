//! Reading restored files back and comparing them with the snapshot.

use super::Context;
use super::file::FileJob;
use super::ledger::add;
use super::parallel::for_each;
use crate::entry::{Content, ContentItem, ContentSchema, EntryKind};
use crate::observer::Outcome;
use crate::path::{file_name, parent_key};
use rustix::fs::{Advice, SeekFrom};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use stillpoint_store::tree::Tree;
use stillpoint_store::{Error, Result};

/// Verifies every finished file of a window. Dirty pages are written and dropped first, so that what is compared
/// comes from the disk.
pub(super) fn verify(
    context: &Context<'_>,
    jobs: &[Arc<FileJob>],
    carried: Option<&Arc<FileJob>>,
) -> Result<()> {
    let is_carried = |job: &FileJob| carried.is_some_and(|carried| std::ptr::eq(&**carried, job));
    rustix::fs::syncfs(context.target.root().fd()).map_err(|errno| {
        Error::io("syncing", context.target.display(b"").display(), errno.into())
    })?;
    for_each(context.threads, jobs, |job| {
        if is_carried(job) || !job.is_restored() || context.ledger.stopped() {
            return;
        }
        match matches_snapshot(context, job) {
            Ok(()) => {
                add(&context.ledger.files_verified, 1);
                context.ledger.outcome(&job.key, Outcome::Verified, job.entry.size);
            }
            Err(why) => {
                let what = format!("read back, it differs from the snapshot: {why}");
                context.ledger.problem(context.target.display(&job.key), what);
                context.ledger.outcome(&job.key, Outcome::Failed, job.entry.size);
            }
        }
    });
    context.ledger.check()
}

fn matches_snapshot(context: &Context<'_>, job: &FileJob) -> Result<(), String> {
    let io = |errno: rustix::io::Errno| std::io::Error::from(errno).to_string();
    let dir = context.target.dir(parent_key(&job.key).unwrap_or_default()).map_err(io)?;
    let file = dir.open_file(file_name(&job.key), false).map_err(io)?;
    let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
    let size = rustix::fs::fstat(&file).map_err(io)?.st_size;
    if u64::try_from(size).ok() != Some(job.entry.size) {
        return Err(format!("{size} bytes instead of {}", job.entry.size));
    }
    match &job.entry.kind {
        EntryKind::File(Content::Inline(bytes)) => {
            let mut found = vec![0u8; bytes.len()];
            let read = file.read_exact_at(&mut found, 0);
            if read.is_err() || found != *bytes { Err("at byte 0".into()) } else { Ok(()) }
        }
        EntryKind::File(Content::Chunks(items)) => {
            let mut offset = 0;
            for item in items {
                check_item(context, &file, item, offset)?;
                offset += item.len_bytes();
            }
            Ok(())
        }
        EntryKind::File(Content::Tree(root)) => {
            let tree = Tree::<ContentSchema>::open(*root, context.reader);
            let mut cursor = tree.iter().map_err(|error| error.to_string())?;
            let mut offset = 0;
            while let Some((_, value)) = cursor.peek() {
                let item = ContentItem::decode(value).map_err(|error| error.to_string())?;
                check_item(context, &file, &item, offset)?;
                offset += item.len_bytes();
                cursor.advance().map_err(|error| error.to_string())?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn check_item(
    context: &Context<'_>,
    file: &File,
    item: &ContentItem,
    offset: u64,
) -> Result<(), String> {
    let equal = match item {
        ContentItem::Data { id, len } => {
            let mut bytes = vec![0u8; usize::try_from(*len).expect("32 bits fit into a usize")];
            file.read_exact_at(&mut bytes, offset).is_ok() && context.ids.id(&bytes) == *id
        }
        ContentItem::Hole { len } => is_zero(file, offset, offset.saturating_add(*len)),
    };
    if equal { Ok(()) } else { Err(format!("at byte {offset}")) }
}

/// Whether the range reads as zeros; holes are not read.
pub(super) fn is_zero(file: &File, start: u64, end: u64) -> bool {
    let mut buffer = vec![0u8; 256 << 10];
    let mut at = start;
    while at < end {
        match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) if data >= end => return true,
            Ok(data) => at = data.max(at),
            Err(rustix::io::Errno::NXIO) => return true,
            Err(_) => {}
        }
        let step = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..step) else { return false };
        if file.read_exact_at(part, at).is_err() || part.iter().any(|byte| *byte != 0) {
            return false;
        }
        at += u64::try_from(step).expect("a usize fits into 64 bits");
    }
    true
}
