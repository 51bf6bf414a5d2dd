//! Rewriting sparse packs: what is needed of them moves to new packs, batch by batch.
//!
//! Each batch is committed on its own: new packs become live and old ones condemned by one compare-and-swap. So an
//! interruption, a full disk or the end of the time loses one batch at most, and the next prune finds the rest.

use super::plan::plan;
use super::verdict::{Expired, Follow, Verdict};
use super::{PruneOptions, Run, Stop};
use crate::catalogue::{PackEntry, Tombstone};
use crate::error::{Error, Result};
use crate::id::{ChunkKind, ObjectName, PackId};
use crate::read::Reader;
use crate::repository::{Attempt, CatalogueEdit, HeadView};
use crate::write::Writer;
use std::collections::VecDeque;

/// Whole marks in one prune. Who is overtaken more often by commits that are too large to follow leaves the rest to
/// the next prune.
const MARKS_MAX: u32 = 4;
/// New packs that others condemn as orphans, or whose fence has passed, before rewriting ends in this run.
const VOID_MAX: u32 = 8;

/// How a batch ended.
enum Batch {
    /// These packs are condemned and what was needed of them is live elsewhere.
    Done(Vec<(PackId, PackEntry)>),
    /// The verdict is too old.
    Overtaken,
    /// The new packs can no longer become live.
    Void,
    /// The answer of the swap was lost, and the head is too new to tell what became of it.
    Unknown,
}

/// Why a batch failed.
struct Failure {
    error: Error,
    /// No head names the new packs, and none can any more.
    is_refused: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, is_refused: true }
    }
}

impl Run<'_> {
    /// Rewrites what the plan says, as far as time, space and other processes allow.
    pub(super) fn rewrite(&mut self, verdict: &mut Verdict) -> Result<()> {
        let mut queue: VecDeque<PackId> = self.report.plan.rewrite.iter().copied().collect();
        let mut batch_bytes = self.options.batch_bytes;
        let (mut marks, mut voids) = (1, 0);
        while !queue.is_empty() && self.report.stop.is_none() {
            self.repository.cancel().check()?;
            if self.is_time_over() {
                self.report.stop = Some(Stop::TimeOver);
                break;
            }
            let batch = next_batch(&mut queue, verdict, self.options, batch_bytes);
            if batch.is_empty() {
                continue;
            }
            match self.rewrite_batch(verdict, &batch) {
                Ok(Batch::Done(condemned)) => self.finish_batch(&batch, &condemned)?,
                Ok(Batch::Void) if voids < VOID_MAX => {
                    voids += 1;
                    put_back(&mut queue, &batch);
                }
                Ok(Batch::Overtaken) if marks < MARKS_MAX => {
                    marks += 1;
                    queue = self.mark_again(verdict)?;
                }
                Ok(Batch::Void | Batch::Overtaken | Batch::Unknown) => {
                    self.report.stop = Some(Stop::Overtaken);
                }
                Err(error) if error.is_full() && batch.len() > 1 => {
                    // One pack at a time needs the least room.
                    batch_bytes = 0;
                    put_back(&mut queue, &batch);
                }
                Err(error) if error.is_full() => {
                    self.report.stop = Some(Stop::DiskFull(error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A new verdict and a new plan for what may still be rewritten.
    fn mark_again(&mut self, verdict: &mut Verdict) -> Result<VecDeque<PackId>> {
        // Nothing that this prune still commits removes forgotten snapshots.
        *verdict = Verdict::form(self.repository, self.options, Expired::Hold)?;
        let mut limits = self.options.limits();
        limits.max_repack_bytes =
            limits.max_repack_bytes.map(|most| most.saturating_sub(self.report.rewritten_bytes));
        let plan = plan(&verdict.uses(), &limits);
        verdict.doom(&plan);
        Ok(plan.rewrite.into())
    }

    fn finish_batch(
        &mut self,
        batch: &[(PackId, PackEntry)],
        condemned: &[(PackId, PackEntry)],
    ) -> Result<()> {
        let count = |packs: &[(PackId, PackEntry)]| u64::try_from(packs.len()).unwrap_or(u64::MAX);
        self.report.batches += u64::from(!condemned.is_empty());
        self.report.rewritten += count(condemned);
        self.report.rewritten_bytes += batch.iter().map(|(_, entry)| entry.size_bytes).sum::<u64>();
        self.done.extend(condemned.iter().map(|(id, _)| *id));
        if self.options.grace.is_zero() {
            for (id, entry) in condemned {
                self.repository.backend.remove(&ObjectName::Pack(*id))?;
                self.report.deleted += 1;
                self.report.deleted_bytes += entry.size_bytes;
            }
        }
        Ok(())
    }

    fn rewrite_batch(
        &mut self,
        verdict: &mut Verdict,
        batch: &[(PackId, PackEntry)],
    ) -> Result<Batch> {
        let writer = self.repository.writer(self.options.write.clone())?;
        let outcome = match self.move_out(verdict, batch, &writer) {
            Ok(moved) if moved.is_empty() => Ok(Batch::Done(Vec::new())),
            Ok(moved) => self.commit_batch(verdict, &moved, &writer),
            Err(error) => Err(Failure { error, is_refused: true }),
        };
        match outcome {
            Ok(Batch::Done(condemned)) if !condemned.is_empty() => Ok(Batch::Done(condemned)),
            Ok(Batch::Unknown) => Ok(Batch::Unknown),
            Err(failure) if !failure.is_refused => Err(failure.error),
            // No head names what was written, and none can any more.
            outcome => {
                writer.discard();
                outcome.map_err(|failure| failure.error)
            }
        }
    }

    fn commit_batch(
        &self,
        verdict: &mut Verdict,
        moved: &[PackId],
        writer: &Writer,
    ) -> Result<Batch, Failure> {
        loop {
            self.repository.cancel().check()?;
            if verdict.follow(self.repository.head()?)? == Follow::StartOver {
                return Ok(Batch::Overtaken);
            }
            if writer.has_void_packs(&verdict.view)? {
                return Ok(Batch::Void);
            }
            let condemned = verdict.doomed_among(moved);
            if condemned.is_empty() {
                return Ok(Batch::Done(condemned));
            }
            let edit = writer.edit_with_packs(&verdict.view);
            let mut edit = edit.map_err(|error| Failure { error, is_refused: true })?;
            self.condemn_in(&mut edit, &verdict.view, &condemned);
            let attempted = self.repository.attempt_with_reserve(&verdict.view, &edit);
            // But for a full disk, an error leaves open whether the head still moves to what was asked for.
            let attempt =
                attempted.map_err(|error| Failure { is_refused: error.is_full(), error })?;
            let next = match attempt {
                Attempt::Committed(next) => Some(next),
                Attempt::Lost { certain: true } => None,
                // The new packs may be live, so they stay.
                Attempt::Lost { certain: false } => return Ok(Batch::Unknown),
            };
            if let Some(next) = next {
                let live = writer.packs_are_live(&verdict.view, &next);
                verdict.committed(next, &condemned);
                if let Err(error) = live {
                    // The index is a cache; the next use finds it behind and brings it up.
                    tracing::warn!(%error, "the index was not brought up after a prune");
                }
                return Ok(Batch::Done(condemned));
            }
        }
    }

    /// Copies what is needed of these packs into the session, until the time is over; gives those that were copied
    /// whole. A pack that cannot be read is taken off the list.
    fn move_out(
        &mut self,
        verdict: &mut Verdict,
        batch: &[(PackId, PackEntry)],
        writer: &Writer,
    ) -> Result<Vec<PackId>> {
        let reader = self.repository.reader()?;
        let mut moved = Vec::new();
        for (id, _) in batch {
            self.repository.cancel().check()?;
            if !moved.is_empty() && self.is_time_over() {
                break;
            }
            match move_pack(verdict, id, &reader, writer) {
                Ok(()) => moved.push(*id),
                Err(error) if error.is_damage() => {
                    verdict.spare(id);
                    // Another prune may have condemned and deleted it meanwhile; that is no damage.
                    if self.repository.head()?.packs()?.contains_key(id) {
                        self.report.damaged.push(error.to_string());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        writer.make_durable()?;
        Ok(moved)
    }

    /// Adds tombstones for these packs.
    pub(super) fn condemn_in(
        &self,
        edit: &mut CatalogueEdit,
        base: &HeadView,
        packs: &[(PackId, PackEntry)],
    ) {
        let (condemned, seq) = (self.repository.env.now(), base.seq() + 1);
        for (id, entry) in packs {
            let PackEntry { size_bytes, born, .. } = *entry;
            edit.condemn(*id, &Tombstone { size_bytes, condemned, seq, born });
        }
    }

    /// Tries once to move the head; None when somebody was faster.
    pub(super) fn attempt(
        &self,
        base: &HeadView,
        edit: &CatalogueEdit,
    ) -> Result<Option<HeadView>> {
        match self.repository.attempt_with_reserve(base, edit)? {
            Attempt::Committed(next) => Ok(Some(next)),
            Attempt::Lost { .. } => Ok(None),
        }
    }

    fn is_time_over(&self) -> bool {
        let most = self.options.max_duration;
        most.is_some_and(|most| self.repository.is_older(self.started, most))
    }
}

/// Takes packs that may still be condemned, up to so many bytes and chunks, but no less than one.
fn next_batch(
    queue: &mut VecDeque<PackId>,
    verdict: &Verdict,
    options: &PruneOptions,
    batch_bytes: u64,
) -> Vec<(PackId, PackEntry)> {
    let mut batch: Vec<(PackId, PackEntry)> = Vec::new();
    let (mut bytes, mut chunks) = (0, 0);
    while let Some(id) = queue.pop_front() {
        let Some(pack) = verdict.doomed_among(&[id]).pop() else { continue };
        bytes += pack.1.size_bytes;
        chunks += verdict.mark_of(&id).map_or(0, |mark| mark.used.count());
        if !batch.is_empty() && (bytes > batch_bytes || chunks > options.batch_chunks) {
            queue.push_front(id);
            break;
        }
        batch.push(pack);
    }
    batch
}

fn put_back(queue: &mut VecDeque<PackId>, batch: &[(PackId, PackEntry)]) {
    batch.iter().rev().for_each(|(id, _)| queue.push_front(*id));
}

/// Copies what is needed of one pack, frame by frame.
fn move_pack(verdict: &Verdict, id: &PackId, reader: &Reader, writer: &Writer) -> Result<()> {
    let Some(mark) = verdict.mark_of(id) else { return Ok(()) };
    let footer = mark.footer(reader.repository())?;
    let mut open: Option<(u32, Vec<u8>)> = None;
    for (ordinal, (id, kind, place)) in footer.locations().enumerate() {
        if !mark.used.get(ordinal) {
            continue;
        }
        let frame = match open.take() {
            Some((number, frame)) if number == place.frame => frame,
            _ => reader.read_frame(&place, kind)?,
        };
        let bytes = reader.chunk_in(&frame, &place, &id, kind)?;
        let references = match kind {
            ChunkKind::Data => Vec::new(),
            ChunkKind::Node => footer.references(ordinal).to_vec(),
        };
        writer.store_moved(id, kind, bytes, references)?;
        open = Some((place.frame, frame));
    }
    Ok(())
}
