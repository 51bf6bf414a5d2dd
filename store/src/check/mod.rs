//! Verification: does everything that the head promises exist, and does it say what it should?
//!
//! Finds and names damage, and never changes anything but the ledger of what was verified when. Which files a damage
//! touches is for those to say who know paths: see [`Damage`].

mod catalogue;
mod damage;
mod data;
mod ledger;
mod objects;
mod pack;
mod select;
mod structure;

pub(crate) use catalogue::Catalogue;
pub use damage::{Damage, Touched};
pub(crate) use data::Run;
use pack::examine_pack;
pub(crate) use pack::hash_if_sound;
pub use select::Share;
pub(crate) use structure::Footers;

use crate::env::Timestamp;
use crate::error::{Error, Finding, Result};
use crate::id::{ObjectKind, ObjectName, SnapshotId};
use crate::repository::{HeadView, Repository};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Most findings that a report lists; the others are counted.
pub const FINDINGS_MAX: usize = 10_000;

/// Times that a check begins anew because a prune removed at once what it was looking at.
const ATTEMPTS_MAX: usize = 8;

/// How far a check goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Also read packs whole, compare their hashes, open their frames and verify their chunks; None: do not.
    pub data: Option<DataOptions>,
}

impl CheckOptions {
    /// Everything, all data included.
    pub fn read_all() -> Self {
        Self { data: Some(DataOptions::default()) }
    }
}

/// Which packs are read whole.
#[derive(Debug, Clone, Copy)]
pub struct DataOptions {
    /// How many of them: those that were never verified first, then those whose last verification is the oldest.
    pub share: Share,
    /// Only packs whose last verification is older than this.
    pub max_age: Option<Duration>,
    /// Begin no other pack once so much time has passed since the check began.
    pub max_duration: Option<Duration>,
    /// Write down in the catalogue which packs were verified.
    pub ledger: bool,
}

impl DataOptions {
    /// True where everything is read, however long it takes.
    fn is_unlimited(&self) -> bool {
        self.share == Share::All && self.max_age.is_none() && self.max_duration.is_none()
    }
}

impl Default for DataOptions {
    fn default() -> Self {
        Self { share: Share::All, max_age: None, max_duration: None, ledger: true }
    }
}

/// How far a check has come: packs done and packs in all.
pub type CheckProgress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Every damage, each named once, at most [`FINDINGS_MAX`] of them. Empty: the repository is whole.
    pub findings: Vec<Finding>,
    /// Findings beyond those that are listed.
    pub more_findings: u64,
    /// Live snapshots whose records and manifests were looked at.
    pub snapshots: u64,
    /// Forgotten snapshots that can still be taken back, looked at alike.
    pub forgotten: u64,
    /// Live packs.
    pub packs: u64,
    /// Chunks in live packs.
    pub chunks: u64,
    /// Packs that no head names: left by interrupted runs, or still being written. Not a damage.
    pub orphans: u64,
    /// Parity objects; they are read whole only where all data is.
    pub parity_objects: u64,
    /// What reading data found; None where none was asked for, or the catalogue cannot be read.
    pub data: Option<DataReport>,
    /// The lost and damaged chunks that snapshots need, if there are any: says which nodes of manifests they touch.
    pub damage: Option<Arc<Damage>>,
    /// Those that an earlier repair has given up, and that no backup has supplied since. Not a finding any more.
    pub known: Option<Arc<Damage>>,
}

impl CheckReport {
    /// Number of findings, those beyond the list included.
    pub fn finding_count(&self) -> u64 {
        u64::try_from(self.findings.len()).unwrap_or(u64::MAX).saturating_add(self.more_findings)
    }

    fn found(&mut self, object: impl Into<Option<ObjectName>>, detail: impl ToString) {
        let finding = Finding { object: object.into(), snapshot: None, detail: detail.to_string() };
        self.add(finding);
    }

    fn add(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.more_findings += 1;
        }
    }
}

/// What became of the ledger of verifications.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Ledger {
    /// There was nothing to write, or nobody wanted it.
    #[default]
    Untouched,
    /// So many packs were entered.
    Written(u64),
    /// It could not be written, and why: the check counts all the same, the next one begins where this one did.
    Failed(String),
}

/// What reading data found.
#[derive(Debug, Clone, Default)]
pub struct DataReport {
    /// Packs that were to be read.
    pub chosen: u64,
    /// Packs that were read whole.
    pub read: u64,
    /// Their bytes.
    pub bytes_read: u64,
    /// Packs among them that are whole.
    pub verified: u64,
    /// Live packs that no check has verified, this one included.
    pub never: u64,
    /// When that live pack was verified whose verification is the oldest; None where none was.
    pub oldest: Option<Timestamp>,
    /// Whether the verifications were written down.
    pub ledger: Ledger,
}

impl Repository {
    /// Checks the repository under its current head.
    ///
    /// A head or catalogue that cannot be read is a finding, and nothing is looked at behind it.
    ///
    /// # Errors
    /// Only what keeps the check from running at all: storage that cannot be listed, a newer format, `Cancelled`.
    /// What was verified until then is written down.
    pub fn check(
        self: &Arc<Self>,
        options: CheckOptions,
        progress: CheckProgress<'_>,
    ) -> Result<CheckReport> {
        let began = self.env.now();
        for attempt in 1.. {
            let mut view = None;
            let outcome = self.check_once(options, began, progress, &mut view);
            let is_suspicious = match &outcome {
                Ok(report) => report.finding_count() > 0,
                Err(error) => error.is_damage(),
            };
            let is_overtaken = || view.is_some_and(|view| self.is_overtaken(&view));
            if attempt == ATTEMPTS_MAX || !is_suspicious || !is_overtaken() {
                return outcome;
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Checks under the head of now; gives that head, too, where there is one.
    fn check_once(
        self: &Arc<Self>,
        options: CheckOptions,
        began: Timestamp,
        progress: CheckProgress<'_>,
        head: &mut Option<Arc<HeadView>>,
    ) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        self.check_config(&mut report)?;
        self.check_slots(&mut report)?;
        // Listed before the head is read: what is newer than that head shows that the head is not the newest.
        let nodes = self.backend.list(ObjectKind::Catalogue)?;
        let packs = self.backend.list(ObjectKind::Pack)?;
        let Some(view) = self.check_head(&nodes, &mut report)? else { return Ok(report) };
        let view = Arc::new(view);
        *head = Some(Arc::clone(&view));
        let Some(catalogue) = self.check_catalogue(&view, &mut report)? else { return Ok(report) };
        let marked = self.check_structure(&view, &catalogue, &packs, &mut report)?;
        let mut unreadable = pack::BadChunks::new();
        if let Some(options) = options.data {
            let readable = marked.packs().iter().filter(|pack| pack.damage.is_none());
            let reader = self.reader_of(Arc::clone(&view));
            let packs = &catalogue.packs;
            let run = data::Run { packs, reader: &reader, options, began, progress };
            let readable = readable.map(|pack| pack.id).collect();
            let (found, data) = self.check_data(&run, &readable, &mut report)?;
            unreadable = found;
            report.data = Some(data);
        }
        let reads_all = options.data.is_some_and(|data| data.is_unlimited());
        let parity = self.verify_parity(reads_all, &|_, _| {})?;
        parity.findings.into_iter().for_each(|finding| report.add(finding));
        report.parity_objects = parity.objects;
        self.find_touched(&catalogue, Arc::new(marked), &unreadable, &mut report)?;
        Ok(report)
    }

    /// True where others have removed what counted under this head: packs and snapshots without a grace, or its very
    /// catalogue. Then what the check did not find is no damage.
    fn is_overtaken(self: &Arc<Self>, view: &HeadView) -> bool {
        let Ok(now) = self.head() else { return false };
        let ids = |view: &HeadView| -> Result<BTreeSet<SnapshotId>> {
            Ok(view.snapshots()?.into_keys().chain(view.forgotten()?.into_keys()).collect())
        };
        let has_lost = || -> Result<bool> {
            let packs = now.packs()?;
            let gone = view.packs()?.keys().any(|id| !packs.contains_key(id));
            Ok(gone || !ids(view)?.is_subset(&ids(&now)?))
        };
        let root = view.head.catalogue.id;
        let is_kept = || now.head.catalogues.iter().any(|kept| **kept == *root.as_bytes());
        now.seq() != view.seq() && has_lost().unwrap_or_else(|_| !is_kept())
    }
}

/// What an error says beside the object's name.
pub(crate) fn detail(error: &Error) -> String {
    match error {
        Error::Damaged { detail, .. } => detail.clone(),
        Error::Missing { .. } => "it is missing".into(),
        other => other.to_string(),
    }
}

/// True for what is a finding of a check: the object itself is at fault, or the device that holds it.
pub(crate) fn is_finding(error: &Error) -> bool {
    error.is_damage() || matches!(error, Error::Io { .. })
}
