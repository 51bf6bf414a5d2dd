//! The ledger of verifications: entries of the catalogue that say when each live pack was last verified whole.
//!
//! Written by a compare-and-swap of the head like everything else, from time to time while a check goes on and at its
//! end. Only a note of what was done: a check whose ledger cannot be written counts all the same.

use super::Ledger;
use crate::catalogue::{Key, VerifiedEntry};
use crate::env::Timestamp;
use crate::error::Result;
use crate::id::PackId;
use crate::repository::{Attempt, CatalogueEdit, Repository};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long verifications wait in memory while a check goes on: 5 minutes.
const WRITE_EVERY: Duration = Duration::from_secs(300);
/// Times that an entry is tried again because somebody else was faster.
const ATTEMPTS_MAX: usize = 16;

/// Collects verifications and writes them down.
pub(super) struct LedgerWriter<'a> {
    repository: &'a Arc<Repository>,
    state: Mutex<State>,
}

struct State {
    waiting: BTreeMap<PackId, VerifiedEntry>,
    last_write: Timestamp,
    written: u64,
    /// Why the last write failed.
    failure: Option<String>,
}

impl<'a> LedgerWriter<'a> {
    pub fn new(repository: &'a Arc<Repository>) -> Self {
        let state = State {
            waiting: BTreeMap::new(),
            last_write: repository.env.now(),
            written: 0,
            failure: None,
        };
        Self { repository, state: Mutex::new(state) }
    }

    /// A pack was verified now.
    pub fn enter(&self, pack: PackId) {
        let time = self.repository.env.now();
        let mut state = self.state();
        state.waiting.insert(pack, VerifiedEntry { time });
        let waited = time.as_nanos() - state.last_write.as_nanos();
        let is_due = waited >= i128::try_from(WRITE_EVERY.as_nanos()).unwrap_or(i128::MAX);
        if is_due {
            self.write(state);
        }
    }

    /// Writes down what is left.
    pub fn finish(self) -> Ledger {
        self.write(self.state());
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        match state.failure {
            Some(why) => Ledger::Failed(why),
            None if state.written == 0 => Ledger::Untouched,
            None => Ledger::Written(state.written),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Others who verified a pack meanwhile wait here for so long.
    fn write(&self, mut state: MutexGuard<'_, State>) {
        state.last_write = self.repository.env.now();
        if state.waiting.is_empty() {
            return;
        }
        state.failure = match self.repository.enter_verified(&state.waiting) {
            Ok(true) => {
                state.written += u64::try_from(state.waiting.len()).unwrap_or(u64::MAX);
                state.waiting.clear();
                None
            }
            Ok(false) => Some("other processes kept changing the repository".into()),
            Err(error) => Some(error.to_string()),
        };
    }
}

impl Repository {
    /// Enters verifications of packs that are still live, and drops entries of packs that are not; false if others
    /// were faster all the time.
    fn enter_verified(
        self: &Arc<Self>,
        verified: &BTreeMap<PackId, VerifiedEntry>,
    ) -> Result<bool> {
        for _ in 0..ATTEMPTS_MAX {
            let base = self.head()?;
            let packs = base.packs()?;
            let mut edit = CatalogueEdit::default();
            for id in base.verified()?.keys().filter(|id| !packs.contains_key(id)) {
                edit.remove(Key::Verified(*id));
            }
            for (id, entry) in verified.iter().filter(|(id, _)| packs.contains_key(id)) {
                edit.put(Key::Verified(*id), entry);
            }
            if edit.is_empty() {
                return Ok(true);
            }
            if let Attempt::Committed(_) = self.attempt(&base, &edit)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
