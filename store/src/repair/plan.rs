//! What a repair does, or would do: a printable value.

use crate::id::{GroupId, PackId, SnapshotId};
use serde::Serialize;

/// Everything that a repair does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct RepairPlan {
    /// How the catalogue is built anew; None where it can be read.
    pub catalogue: Option<CataloguePlan>,
    /// What becomes of lost and damaged packs.
    pub packs: Vec<PackPlan>,
    /// Parity groups whose own objects are put back.
    pub parity_healed: Vec<GroupId>,
    /// Parity groups that have lost too much and are given up: their packs have no parity any more.
    pub parity_given_up: Vec<GroupId>,
    /// Chunks that are stored again, read from packs that are not live or no longer will be.
    pub chunks_rescued: u64,
    /// Their plaintext bytes.
    pub bytes_rescued: u64,
    /// Chunks that snapshots need and that are nowhere: they are listed as lost.
    pub chunks_given_up: u64,
    /// Chunks listed as lost that are there again: they are taken off the list.
    pub chunks_back: u64,
    /// Records that are made anew.
    pub records: Vec<RecordPlan>,
    /// The index is dropped and built anew.
    pub index: bool,
    /// More may come to light once this is done: more was lost than is looked at in one go, or the nodes of manifests
    /// have to be rescued first.
    pub is_first_part: bool,
}

impl RepairPlan {
    /// True where there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What one more round does.
    pub(super) fn add(&mut self, round: Self) {
        self.packs.extend(round.packs);
        self.chunks_rescued += round.chunks_rescued;
        self.bytes_rescued += round.bytes_rescued;
        self.chunks_given_up += round.chunks_given_up;
        self.chunks_back += round.chunks_back;
        self.is_first_part = round.is_first_part;
    }
}

/// How a catalogue that cannot be read is built anew.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CataloguePlan {
    /// What is wrong: one sentence.
    pub reason: String,
    /// Number of the new head: above every number seen anywhere.
    pub seq: u64,
    /// Nodes of earlier and current catalogues that could be read.
    pub nodes_read: u64,
    /// Nodes that could not, or that others name and that are not there.
    pub nodes_lost: u64,
    /// Packs that surviving nodes list as live.
    pub packs_listed: u64,
    /// Packs that no surviving node knows and that snapshots need: they are read whole, and made live if they are sound.
    pub packs_found: Vec<PackId>,
    /// Condemned packs that surviving nodes know.
    pub packs_condemned: u64,
    /// Snapshots, forgotten ones included, that the newest surviving nodes name.
    pub snapshots_listed: u64,
    /// Snapshots that only older nodes or their own records name, and that are whole: they are kept. They may have been
    /// forgotten meanwhile, or never been committed.
    pub snapshots_found: Vec<SnapshotId>,
    /// Snapshots that only older nodes or their own records name, and that are not whole, or that are not live, and
    /// whether they can be taken back nobody knows: they are put among the forgotten ones, from where they can be taken
    /// back.
    pub snapshots_set_aside: Vec<SnapshotId>,
}

/// What becomes of a lost or damaged pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackPlan {
    /// The pack.
    pub pack: PackId,
    /// What is wrong with it: one sentence.
    pub reason: String,
    /// What is done about it.
    pub remedy: Remedy,
}

/// What is done about a lost or damaged pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Remedy {
    /// Put back byte for byte from parity. In a dry run: its group seems to have enough left.
    Heal,
    /// What can be read of it, and is needed and nowhere else, is stored again; the pack is condemned and deleted when
    /// its grace is over.
    Replace,
}

/// A record that is made anew from what the catalogue knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RecordPlan {
    /// The snapshot whose record is lost. It keeps its id.
    pub snapshot: SnapshotId,
    /// It was forgotten, and can be taken back.
    pub is_forgotten: bool,
}
