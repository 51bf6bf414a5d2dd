//! Prune: condemns packs that no live snapshot needs, moves what is left of sparse ones, deletes what was
//! condemned long enough ago.
//!
//! Safe beside any number of writers, readers and other prunes: a verdict counts only if nobody moved the head
//! since it was formed, and only condemned packs are ever deleted. Clocks decide how long things are kept, never
//! whether it is safe to remove them.

mod expiry;
mod garbage;
mod plan;

pub use plan::{MaxUnused, PackUse, PrunePlan, plan};

use crate::catalogue::{Key, Tombstone};
use crate::error::{Error, Result};
use crate::id::{ChunkKind, ObjectKind, ObjectName, PackId};
use crate::mark::{Bits, Mark, Marked};
use crate::repository::{Attempt, CatalogueEdit, HeadView, Repository};
use crate::write::{WriteOptions, Writer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long the name of a deleted pack is remembered, so that writers that began before need not start over
/// because of the fence: 7 days.
const NAMES_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Verdicts that may be overtaken by other commits before a prune gives up rewriting in this run.
const ATTEMPTS_WITH_REWRITE: usize = 4;

/// How to prune.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Unused data that may stay in packs that are partly needed.
    pub max_unused: MaxUnused,
    /// How long a forgotten snapshot can be taken back; what it needs is kept as long.
    pub keep_forgotten: Duration,
    /// How long a condemned pack is kept before it is deleted; readers that began earlier go on meanwhile.
    pub grace: Duration,
    /// Packs that no head names and that are younger than this are left to their writers.
    pub orphan_grace: Duration,
    /// How moved chunks are written.
    pub write: WriteOptions,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            max_unused: MaxUnused::default(),
            keep_forgotten: Duration::from_secs(7 * 24 * 3600),
            grace: Duration::from_secs(24 * 3600),
            orphan_grace: Duration::from_secs(24 * 3600),
            write: WriteOptions::default(),
        }
    }
}

/// What a prune did, or would do.
#[derive(Debug, Clone, Default)]
pub struct PruneReport {
    /// Forgotten snapshots that were removed for good.
    pub expired: u64,
    /// What became of the live packs.
    pub plan: PrunePlan,
    /// Packs that no head named and that are condemned now.
    pub orphans: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Orphans that are still young and may belong to a running backup.
    pub young_orphans: u64,
    /// Condemned packs that were deleted now.
    pub deleted: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Condemned packs that wait until their grace is over.
    pub waiting: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Catalogue nodes, snapshot records and parity objects that no head names, removed now.
    pub garbage: u64,
}

/// What one look at the repository found.
struct Verdict {
    plan: PrunePlan,
    /// Chunks that live snapshots need from each pack that is rewritten.
    moving: BTreeMap<PackId, Bits>,
}

impl Repository {
    /// Prunes the repository.
    ///
    /// # Errors
    /// `Missing` or `Damaged` when a live snapshot is not whole: then nothing is condemned.
    pub fn prune(self: &Arc<Self>, options: &PruneOptions) -> Result<PruneReport> {
        let expired = self.expire_forgotten(options)?;
        let mut report = PruneReport { expired, ..PruneReport::default() };
        self.condemn(options, &mut report)?;
        self.delete_condemned(options, &mut report)?;
        if !options.dry_run {
            report.garbage = self.remove_garbage()? + self.tidy_parity()?.objects;
        }
        Ok(report)
    }

    /// Forms a verdict and puts it on the head, again and again until nobody was faster.
    fn condemn(self: &Arc<Self>, options: &PruneOptions, report: &mut PruneReport) -> Result<()> {
        let mut writer: Option<Writer> = None;
        for attempt in 0.. {
            self.cancel().check()?;
            let listed = self.backend.list(ObjectKind::Pack)?;
            let base = self.head()?;
            // Packs that this very prune wrote for an attempt that was lost are no orphans.
            let own = writer.as_ref().map(Writer::own_packs).unwrap_or_default();
            let listed: Vec<_> = listed
                .into_iter()
                .filter(|(name, _)| !matches!(name, ObjectName::Pack(id) if own.contains(id)))
                .collect();
            let orphans = self.orphans(&listed, &base, options, report)?;
            let max_unused = match attempt {
                0..ATTEMPTS_WITH_REWRITE => options.max_unused,
                _ => MaxUnused::Unlimited,
            };
            let verdict = self.verdict(&base, options, max_unused)?;
            report.plan = verdict.plan.clone();
            let plan = &verdict.plan;
            if options.dry_run
                || (plan.drop.is_empty() && plan.rewrite.is_empty() && orphans.is_empty())
            {
                return Ok(());
            }
            if !plan.rewrite.is_empty() {
                let session = match writer.take() {
                    Some(session) => session,
                    None => self.writer(options.write.clone())?,
                };
                let session = writer.insert(session);
                session.move_chunks(&base, &verdict.moving)?;
            } else if let Some(session) = &writer {
                session.settle_packs(&base)?;
                session.make_durable()?;
            }
            let edit = self.condemning(&base, &verdict, &orphans, writer.as_ref())?;
            if let Attempt::Committed(next) = self.attempt(&base, &edit)? {
                if let Some(writer) = &writer {
                    writer.packs_are_live(&base, &next)?;
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Packs that no catalogue names and that are old enough, with their births.
    fn orphans(
        &self,
        listed: &[(ObjectName, u64)],
        base: &HeadView,
        options: &PruneOptions,
        report: &mut PruneReport,
    ) -> Result<Vec<(PackId, u64, u64)>> {
        (report.orphans, report.orphan_bytes, report.young_orphans) = (0, 0, 0);
        let (packs, tombstones) = (base.packs()?, base.tombstones()?);
        let mut orphans = Vec::new();
        for (name, size) in listed {
            let ObjectName::Pack(id) = name else { continue };
            if packs.contains_key(id) || tombstones.contains_key(id) {
                continue;
            }
            // A footer that cannot be read says nothing of its age: condemned like the others, by the head's number.
            let (born, created) = match self.footer(id, *size) {
                Ok(footer) => (footer.born(), Some(footer.created())),
                Err(error) if error.is_damage() => (base.seq(), None),
                Err(error) => return Err(error),
            };
            let is_young =
                created.is_some_and(|created| !self.is_older(created, options.orphan_grace));
            if is_young {
                report.young_orphans += 1;
                continue;
            }
            report.orphans += 1;
            report.orphan_bytes += size;
            orphans.push((*id, *size, born));
        }
        Ok(orphans)
    }

    fn is_older(&self, moment: crate::env::Timestamp, span: Duration) -> bool {
        let age = self.env.now().as_nanos() - moment.as_nanos();
        age >= i128::try_from(span.as_nanos()).unwrap_or(i128::MAX)
    }

    /// Marks what live snapshots need and decides what becomes of each pack.
    fn verdict(
        &self,
        base: &HeadView,
        options: &PruneOptions,
        max_unused: MaxUnused,
    ) -> Result<Verdict> {
        let packs = base.packs()?;
        let roots = self.roots(base, options)?.into_iter().map(|root| root.id);
        let marked = Mark::new(self, packs).live(roots).run()?;
        self.refuse_losses(base, &marked)?;
        let uses: Vec<PackUse> = marked.packs().iter().map(PackUse::of).collect();
        let plan = plan(&uses, max_unused);
        let rewritten = plan.rewrite.iter().filter_map(|id| marked.pack(id));
        let moving = rewritten.map(|pack| (pack.id, pack.used.clone())).collect();
        Ok(Verdict { plan, moving })
    }

    /// Nothing is condemned while data of live snapshots is missing that no repair has given up.
    fn refuse_losses(&self, base: &HeadView, marked: &Marked) -> Result<()> {
        if marked.lost.is_empty() {
            return Ok(());
        }
        let given_up = base.lost_chunks()?;
        let (mut count, mut example) = (0u64, None);
        marked.lost.each(|id| {
            if !given_up.contains_key(id) {
                count += 1;
                example.get_or_insert(*id);
            }
            Ok(())
        })?;
        match example {
            None => Ok(()),
            Some(id) => Err(Error::missing(format!(
                "data of live snapshots ({count} chunks, {id} among them)"
            ))),
        }
    }

    /// The edit that condemns: dropped, rewritten and orphaned packs become tombstones, new packs become live.
    fn condemning(
        &self,
        base: &HeadView,
        verdict: &Verdict,
        orphans: &[(PackId, u64, u64)],
        writer: Option<&Writer>,
    ) -> Result<CatalogueEdit> {
        let mut edit = CatalogueEdit::default();
        if let Some(writer) = writer {
            writer.put_packs(&mut edit);
        }
        let packs = base.packs()?;
        let now = self.env.now();
        for id in verdict.plan.drop.iter().chain(&verdict.plan.rewrite) {
            let entry = packs.get(id).expect("the plan names live packs");
            let tombstone = Tombstone {
                size_bytes: entry.size_bytes,
                condemned: now,
                seq: base.seq() + 1,
                born: entry.born,
            };
            edit.condemn(*id, &tombstone);
        }
        for (id, size_bytes, born) in orphans {
            let tombstone = Tombstone {
                size_bytes: *size_bytes,
                condemned: now,
                seq: base.seq() + 1,
                born: *born,
            };
            edit.put(Key::Tombstone(*id), &tombstone);
        }
        Ok(edit)
    }

    /// Deletes condemned packs whose grace is over, and forgets the names of those deleted long ago.
    fn delete_condemned(
        self: &Arc<Self>,
        options: &PruneOptions,
        report: &mut PruneReport,
    ) -> Result<()> {
        let view = self.head()?;
        let mut exists: BTreeMap<PackId, u64> = BTreeMap::new();
        for (name, size) in self.backend.list(ObjectKind::Pack)? {
            if let ObjectName::Pack(id) = name {
                exists.insert(id, size);
            }
        }
        let live = view.packs()?;
        for (id, tombstone) in view.tombstones()? {
            let Some(size) = exists.get(&id).filter(|_| !live.contains_key(&id)) else { continue };
            if !self.is_older(tombstone.condemned, options.grace) {
                report.waiting += 1;
                report.waiting_bytes += size;
                continue;
            }
            report.deleted += 1;
            report.deleted_bytes += size;
            if !options.dry_run {
                self.cancel().check()?;
                self.backend.remove(&ObjectName::Pack(id))?;
            }
        }
        if options.dry_run { Ok(()) } else { self.forget_names() }
    }

    /// Drops tombstones of packs that are gone, together with a fence, so that a put that arrives late can
    /// never become live. Lost races are left to the next prune.
    fn forget_names(self: &Arc<Self>) -> Result<()> {
        let base = self.head()?;
        let mut edit = CatalogueEdit::default();
        for (id, tombstone) in base.tombstones()? {
            let is_old = self.is_older(tombstone.condemned, NAMES_KEPT);
            if is_old && self.backend.size_bytes(&ObjectName::Pack(id))?.is_none() {
                edit.remove(Key::Tombstone(id));
                edit.fence = edit.fence.max(tombstone.born + 1);
            }
        }
        if !edit.is_empty() {
            self.attempt(&base, &edit)?;
        }
        Ok(())
    }
}

impl Writer {
    /// Stores the chunks that are needed from packs that are to be rewritten, unless this session has them already.
    fn move_chunks(&self, base: &HeadView, moving: &BTreeMap<PackId, Bits>) -> Result<()> {
        let repository = self.repository();
        let reader = repository.reader()?;
        self.settle_packs(base)?;
        for (pack, wanted) in moving {
            repository.cancel().check()?;
            let entry = base.packs()?.get(pack).copied().expect("the plan names live packs");
            let footer = repository.live_footer(pack, entry.size_bytes, entry.generation)?;
            for (ordinal, (id, kind, place)) in footer.locations().enumerate() {
                if !wanted.get(ordinal) || self.is_own(&id) {
                    continue;
                }
                let frame = reader.frame(&place, kind)?;
                let bytes = reader.chunk_in(&frame, &place, &id, kind)?;
                let references = match kind {
                    ChunkKind::Data => Vec::new(),
                    ChunkKind::Node => footer.references(ordinal).to_vec(),
                };
                self.store_moved(id, kind, bytes, references)?;
            }
        }
        self.make_durable()
    }
}
