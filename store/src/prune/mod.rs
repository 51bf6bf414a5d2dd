//! Prune: condemns packs that no snapshot needs, moves what is left of sparse ones, deletes what was condemned long
//! enough ago.
//!
//! Safe beside any number of writers, readers and other prunes: a verdict counts only under the head for which it was
//! formed or looked at again, and only condemned packs are ever deleted. Clocks decide how long things are kept,
//! never whether it is safe to remove them. What frees space comes before what needs some.

mod condemn;
mod explain;
mod garbage;
mod plan;
mod rewrite;
mod verdict;

pub use explain::{Class, Explanation, PackLine, Share};
pub use plan::{Limits, MaxUnused, PackUse, PrunePlan, plan};

use crate::env::Timestamp;
use crate::error::Result;
use crate::id::PackId;
use crate::mark::JOIN_BYTES;
use crate::repository::Repository;
use crate::write::WriteOptions;
use explain::{Facts, Outsider};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use verdict::{Expired, Verdict};

/// Bytes of packs that are rewritten between two commits, unless one alone is longer: 256 MiB.
const BATCH_BYTES: u64 = 256 << 20;

/// Chunks that move between two commits, unless one pack alone has more: their places are in memory, 80 bytes each.
const BATCH_CHUNKS: u64 = 1 << 18;

/// How to prune.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Unused data that may stay in packs that are partly needed.
    pub max_unused: MaxUnused,
    /// Bytes of packs that may be rewritten; None: as many as it takes.
    pub max_repack_bytes: Option<u64>,
    /// Rewrite packs that older keys seal, however full they are.
    pub reseal: bool,
    /// No rewriting begins after so long; what was done until then stays done.
    pub max_duration: Option<Duration>,
    /// How long a forgotten snapshot can be taken back; what it needs is kept as long.
    pub keep_forgotten: Duration,
    /// How long a condemned pack is kept before it is deleted; readers that began earlier go on meanwhile.
    pub grace: Duration,
    /// Packs that no head names and that are younger than this are left to their writers.
    pub orphan_grace: Duration,
    /// Bytes of packs that are rewritten between two commits; at least one pack is.
    pub batch_bytes: u64,
    /// Chunks that move between two commits; at least those of one pack do.
    pub batch_chunks: u64,
    /// Memory for joining what is needed with what is there, bytes.
    pub join_bytes: usize,
    /// Say in the explanation what becomes of each pack.
    pub explain_packs: bool,
    /// How moved chunks are written.
    pub write: WriteOptions,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            max_unused: MaxUnused::default(),
            max_repack_bytes: None,
            reseal: false,
            max_duration: None,
            keep_forgotten: Duration::from_secs(7 * 24 * 3600),
            grace: Duration::from_secs(24 * 3600),
            orphan_grace: Duration::from_secs(24 * 3600),
            batch_bytes: BATCH_BYTES,
            batch_chunks: BATCH_CHUNKS,
            join_bytes: JOIN_BYTES,
            explain_packs: false,
            write: WriteOptions::default(),
        }
    }
}

impl PruneOptions {
    fn limits(&self) -> Limits {
        let Self { max_unused, max_repack_bytes, reseal, .. } = *self;
        Limits { max_unused, max_repack_bytes, reseal }
    }
}

/// Why rewriting ended before the plan was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Its time was over.
    TimeOver,
    /// There is no room for new packs; the error says where.
    DiskFull(String),
    /// Other processes were faster again and again.
    Overtaken,
}

/// What a prune did, or would do.
#[derive(Debug, Clone, Default)]
pub struct PruneReport {
    /// Forgotten snapshots that were removed for good.
    pub expired: u64,
    /// What was to become of the live packs.
    pub plan: PrunePlan,
    /// Packs that were rewritten.
    pub rewritten: u64,
    /// Their bytes.
    pub rewritten_bytes: u64,
    /// Commits in which they were.
    pub batches: u64,
    /// Why not all of the plan's packs were rewritten.
    pub stop: Option<Stop>,
    /// Packs that could not be rewritten because they are damaged: one sentence each.
    pub damaged: Vec<String>,
    /// Packs that no head named and that are condemned now.
    pub orphans: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Orphans that are still young and may belong to a running backup.
    pub young_orphans: u64,
    /// Their bytes.
    pub young_bytes: u64,
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
    /// Where all bytes stood, and what becomes of them.
    pub explanation: Explanation,
}

/// One prune on its way.
struct Run<'a> {
    repository: &'a Arc<Repository>,
    options: &'a PruneOptions,
    started: Timestamp,
    report: PruneReport,
    /// Packs that this run condemned: dropped ones, and rewritten ones.
    dropped: BTreeSet<PackId>,
    done: BTreeSet<PackId>,
    /// Packs that are not live.
    outsiders: Vec<Outsider>,
}

impl Repository {
    /// Prunes the repository.
    ///
    /// # Errors
    /// `Missing` when data of a live snapshot is lost that no repair has given up: then nothing is changed. Errors of
    /// the storage, and `Cancelled`: what was committed until then stays done.
    pub fn prune(self: &Arc<Self>, options: &PruneOptions) -> Result<PruneReport> {
        let run = Run {
            repository: self,
            options,
            started: self.env.now(),
            report: PruneReport::default(),
            dropped: BTreeSet::new(),
            done: BTreeSet::new(),
            outsiders: Vec::new(),
        };
        run.run()
    }

    fn is_older(&self, moment: Timestamp, span: Duration) -> bool {
        let age = self.env.now().as_nanos() - moment.as_nanos();
        age >= i128::try_from(span.as_nanos()).unwrap_or(i128::MAX)
    }
}

impl Run<'_> {
    fn run(mut self) -> Result<PruneReport> {
        // Listed before the head is read: what is written later is not looked at.
        let listed = self.repository.listed_packs()?;
        let mut verdict = Verdict::form(self.repository, self.options, Expired::Remove)?;
        let mut uses = verdict.uses();
        self.report.plan = plan(&uses, &self.options.limits());
        verdict.doom(&self.report.plan);
        self.condemn(&mut verdict, &listed, &mut uses)?;
        self.delete_condemned(&listed)?;
        if !self.options.dry_run {
            let removed = self.repository.remove_garbage()?;
            self.report.garbage = removed + self.repository.tidy_parity()?.objects;
            self.rewrite(&mut verdict)?;
            self.forget_names()?;
            if let Err(error) = self.repository.backend.make_reserve() {
                tracing::warn!(%error, "no room was set aside");
            }
        }
        self.report.explanation = self.explain(uses, verdict.expiries);
        Ok(self.report)
    }

    fn explain(&mut self, uses: Vec<PackUse>, expiries: Vec<Timestamp>) -> Explanation {
        let plan = self.report.plan.clone();
        let left = match self.options.dry_run {
            true => BTreeSet::new(),
            false => plan.rewrite.iter().filter(|id| !self.done.contains(id)).copied().collect(),
        };
        let (now, grace) = (self.started, self.options.grace);
        let (outsiders, each_pack) =
            (std::mem::take(&mut self.outsiders), self.options.explain_packs);
        explain::explain(&Facts { now, grace, uses, plan, left, outsiders, expiries, each_pack })
    }
}
