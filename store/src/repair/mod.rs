//! Repair: brings a repository back in order as far as what is left allows, and says what is gone.
//!
//! Needs no lock: everything it changes goes through the head, like a backup or a prune. Nothing is deleted here: what
//! is damaged is condemned, and stays until a prune finds its grace over. A crash at any moment leaves a repository that
//! can be repaired again.

mod catalogue;
mod look;
mod mend;
mod parity;
mod plan;
mod records;
mod salvage;
mod suspects;

pub use plan::{CataloguePlan, PackPlan, RecordPlan, Remedy, RepairPlan};

use crate::check::{Catalogue, CheckOptions, CheckProgress, CheckReport, Damage};
use crate::error::Result;
use crate::id::{ChunkId, NodeId, PackId};
use crate::read::Reader;
use crate::repository::Repository;
use crate::tree::NodeBytes;
use crate::write::WriteOptions;
use look::Look;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Rounds of a repair; each of them rescues or gives up something, or is the last.
const ROUNDS_MAX: usize = 10_000;

/// Rounds that others may undo before a repair gives up.
const CROWDED_OUT_MAX: u64 = 8;

/// Tells what a node of a manifest refers to, from the node itself: needed where a pack's footer is lost.
pub type NodeReferences = fn(&NodeId, &NodeBytes) -> Result<Vec<ChunkId>>;

/// Which parts of a repository are repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// The local index: dropped and built anew, whatever its state.
    pub index: bool,
    /// Head and catalogue, if they cannot be read.
    pub catalogue: bool,
    /// Lost and damaged packs.
    pub packs: bool,
    /// Lost and damaged records of snapshots.
    pub snapshots: bool,
}

impl Default for Parts {
    /// All but the index, which heals by itself.
    fn default() -> Self {
        Self { index: false, catalogue: true, packs: true, snapshots: true }
    }
}

/// How to repair.
#[derive(Debug, Clone)]
pub struct RepairOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// What is repaired.
    pub parts: Parts,
    /// Read all packs whole; otherwise only those in which a check on this host found damage.
    pub read_all: bool,
    /// Read these packs whole as well.
    pub packs: Vec<PackId>,
    /// How rescued chunks are written.
    pub write: WriteOptions,
    /// What nodes of manifests refer to.
    pub references: NodeReferences,
}

impl RepairOptions {
    /// Everything that needs it, by structure and by what checks on this host found.
    pub fn new(references: NodeReferences) -> Self {
        Self {
            dry_run: false,
            parts: Parts::default(),
            read_all: false,
            packs: Vec::new(),
            write: WriteOptions::default(),
            references,
        }
    }
}

/// What a repair did, or would do.
#[derive(Debug, Clone, Default)]
pub struct RepairReport {
    /// All of it.
    pub plan: RepairPlan,
    /// What would be given up, in a dry run: says which files that touches.
    pub damage: Option<Arc<Damage>>,
    /// What a check says afterwards; None in a dry run, and where there was nothing to do.
    pub after: Option<CheckReport>,
    /// Rounds that had to be done again because other processes were faster.
    pub crowded_out: u64,
}

/// What a repair works on.
struct Scene<'a> {
    state: &'a Catalogue,
    reader: &'a Reader,
}

impl Repository {
    /// Repairs the repository.
    ///
    /// # Errors
    /// `Damaged` or `Missing` where the catalogue cannot be read and is not to be repaired; `Conflict` where other
    /// processes are faster all the time; errors of the storage, `Cancelled`.
    pub fn repair(
        self: &Arc<Self>,
        options: &RepairOptions,
        progress: CheckProgress<'_>,
    ) -> Result<RepairReport> {
        let mut report = RepairReport::default();
        if options.parts.catalogue {
            report.plan.catalogue = self.repair_catalogue(options, progress)?;
            if options.dry_run && report.plan.catalogue.is_some() {
                // Everything else is said by the catalogue.
                report.plan.is_first_part = true;
                return Ok(report);
            }
        }
        if options.parts.packs {
            self.repair_packs(options, progress, &mut report)?;
            self.repair_parity(options, &mut report.plan)?;
        }
        if options.parts.snapshots {
            self.repair_records(options, &mut report.plan)?;
        }
        if options.parts.index {
            report.plan.index = true;
            if !options.dry_run {
                self.rebuild_index()?;
            }
        }
        if !options.dry_run && !report.plan.is_empty() {
            report.after = Some(self.check(CheckOptions::default(), &|_, _| {})?);
        }
        Ok(report)
    }

    fn repair_packs(
        self: &Arc<Self>,
        options: &RepairOptions,
        progress: CheckProgress<'_>,
        report: &mut RepairReport,
    ) -> Result<()> {
        let (mut findings, mut tried) = (None, BTreeSet::new());
        for _ in 0..ROUNDS_MAX {
            let view = Arc::new(self.head()?);
            let state = Catalogue::read(&view)?;
            let reader = self.reader_of(Arc::clone(&view));
            if findings.is_none() {
                findings = Some(self.read_whole_packs(&state, &reader, options, progress)?);
            }
            let findings = findings.get_or_insert_default();
            let mut look = self.look(&state, findings)?;
            let healed = self.heal_packs(&mut look.damaged, &mut tried, options.dry_run)?;
            if !healed.is_empty() {
                findings.retain(|id, _| look.damaged.contains_key(id));
                report.plan.packs.extend(healed);
                if options.dry_run {
                    // What else is lost shows only when these packs can be read.
                    report.plan.add(mend::condemned_alone(&look));
                    return Ok(());
                }
                continue;
            }
            let scene = Scene { state: &state, reader: &reader };
            if self.repair_round(&scene, &mut look, options, report)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Rescues, condemns and gives up. True when nothing is left to do.
    fn repair_round(
        self: &Arc<Self>,
        scene: &Scene<'_>,
        look: &mut Look,
        options: &RepairOptions,
        report: &mut RepairReport,
    ) -> Result<bool> {
        let writer = match options.dry_run || look.is_clean() {
            true => None,
            false => Some(self.writer(options.write.clone())?),
        };
        let round = self.rescue(scene, look, options, writer.as_ref())?;
        let is_done = round.plan.is_empty();
        if let Some(writer) = writer.filter(|_| !is_done)
            && !self.mend(scene.reader.view(), look, &round, &writer)?
        {
            report.crowded_out += 1;
            return match report.crowded_out {
                0..CROWDED_OUT_MAX => Ok(false),
                _ => Err(mend::crowded_out()),
            };
        }
        if options.dry_run {
            let gone = round.gone.into_iter().filter(|id| !scene.state.lost.contains_key(id));
            report.damage = self.damage_by(scene.state, &look.marked, gone.collect())?;
        }
        report.plan.add(round.plan);
        Ok(is_done || options.dry_run)
    }

    fn repair_records(
        self: &Arc<Self>,
        options: &RepairOptions,
        plan: &mut RepairPlan,
    ) -> Result<()> {
        let view = self.head()?;
        let state = Catalogue::read(&view)?;
        let mut records = self.lost_records(&state, &view)?;
        if !options.dry_run {
            let mut renewed = Vec::new();
            for record in records {
                if self.renew_record(record.snapshot)? {
                    renewed.push(record);
                }
            }
            records = renewed;
        }
        plan.records = records;
        Ok(())
    }
}
