//! Reading packs whole, on all cores, in the order of the ledger, until all are done or the time is up.

use super::ledger::LedgerWriter;
use super::pack::BadChunks;
use super::select::{Candidate, select};
use super::{CheckProgress, CheckReport, DataOptions, DataReport, examine_pack};
use crate::catalogue::PackEntry;
use crate::env::Timestamp;
use crate::error::{Error, Result};
use crate::id::{ObjectName, PackId};
use crate::read::Reader;
use crate::repository::Repository;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a check of data works with.
pub(crate) struct Run<'a> {
    pub packs: &'a BTreeMap<PackId, PackEntry>,
    pub reader: &'a Reader,
    pub options: DataOptions,
    /// When the check began.
    pub began: Timestamp,
    pub progress: CheckProgress<'a>,
}

/// What threads add up.
#[derive(Default)]
pub(crate) struct Sum {
    read: u64,
    bytes_read: u64,
    pub verified: BTreeSet<PackId>,
    /// What is wrong with which pack.
    pub findings: BTreeMap<PackId, String>,
    bad: BadChunks,
    pub failure: Option<Error>,
}

impl Run<'_> {
    fn is_time_up(&self, repository: &Repository) -> bool {
        let Some(most) = self.options.max_duration else { return false };
        let elapsed = repository.env.now().as_nanos() - self.began.as_nanos();
        elapsed >= i128::try_from(most.as_nanos()).unwrap_or(i128::MAX)
    }
}

impl Repository {
    /// Reads those of these packs that the options choose. Gives the chunks that cannot be read.
    pub(super) fn check_data(
        self: &Arc<Self>,
        run: &Run<'_>,
        readable: &BTreeSet<PackId>,
        report: &mut CheckReport,
    ) -> Result<(BadChunks, DataReport)> {
        let packs = run.packs;
        let mut verified = run.reader.view().verified()?;
        let live = packs.iter().filter(|(id, _)| readable.contains(id));
        let candidates = live.map(|(id, entry)| Candidate {
            id: *id,
            size_bytes: entry.size_bytes,
            verified: verified.get(id).map(|entry| entry.time),
        });
        let chosen = select(candidates.collect(), &run.options, run.began);
        let ledger = run.options.ledger.then(|| LedgerWriter::new(self));
        let sum = self.read_packs(run, &chosen, ledger.as_ref());
        let written = ledger.map(LedgerWriter::finish).unwrap_or_default();
        self.update_suspects(sum.findings.keys(), &sum.verified);
        if let Some(error) = sum.failure {
            return Err(error);
        }
        for (id, detail) in sum.findings {
            report.found(ObjectName::Pack(id), detail);
        }
        verified.retain(|id, _| packs.contains_key(id) && !sum.verified.contains(id));
        let known = verified.len() + sum.verified.len();
        let now = (!sum.verified.is_empty()).then(|| self.env.now());
        let data = DataReport {
            chosen: count(chosen.len()),
            read: sum.read,
            bytes_read: sum.bytes_read,
            verified: count(sum.verified.len()),
            never: count(packs.len().saturating_sub(known)),
            oldest: verified.values().map(|entry| entry.time).min().or(now),
            ledger: written,
        };
        Ok((sum.bad, data))
    }

    /// Reads these packs whole, on all cores, and writes nothing down.
    pub(crate) fn examine_packs(self: &Arc<Self>, run: &Run<'_>, chosen: &[PackId]) -> Sum {
        self.read_packs(run, chosen, None)
    }

    fn read_packs(
        self: &Arc<Self>,
        run: &Run<'_>,
        chosen: &[PackId],
        ledger: Option<&LedgerWriter<'_>>,
    ) -> Sum {
        let sum = Mutex::new(Sum::default());
        let next = AtomicUsize::new(0);
        let threads = rayon::current_num_threads().clamp(1, chosen.len().max(1));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(id) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let is_over = run.is_time_up(self)
                            || sum.lock().unwrap_or_else(PoisonError::into_inner).failure.is_some();
                        if is_over {
                            break;
                        }
                        self.read_one(run, id, chosen.len(), &sum);
                        if let Some(ledger) = ledger
                            && is_verified(&sum, id)
                        {
                            ledger.enter(*id);
                        }
                    }
                });
            }
        });
        sum.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one pack and adds up what came of it.
    fn read_one(&self, run: &Run<'_>, id: &PackId, all: usize, sum: &Mutex<Sum>) {
        let entry = run.packs.get(id).expect("chosen from these packs");
        let footer = self.live_footer(id, entry.size_bytes, entry.generation);
        let examined = footer.and_then(|footer| examine_pack(run.reader, id, entry, &footer));
        let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.read += 1;
        match examined {
            Ok(health) => {
                sum.bytes_read += health.bytes_read;
                if health.is_whole() {
                    sum.verified.insert(*id);
                } else {
                    sum.findings.insert(*id, health.describe());
                    sum.bad.insert(*id, health.bad);
                }
            }
            // The footer could be read a moment before.
            Err(error) if super::is_finding(&error) => {
                sum.findings.insert(*id, super::detail(&error));
            }
            Err(error) => drop(sum.failure.get_or_insert(error)),
        }
        (run.progress)(sum.read, count(all));
    }
}

fn is_verified(sum: &Mutex<Sum>, id: &PackId) -> bool {
    sum.lock().unwrap_or_else(PoisonError::into_inner).verified.contains(id)
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
