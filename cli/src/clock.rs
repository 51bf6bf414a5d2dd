//! What commands do when this machine's clock cannot be believed.

use crate::failure::Problem;
use anyhow::Result;
use std::sync::Arc;
use stillpoint_store::Repository;
use stillpoint_store::clock::ClockDoubt;

/// Refuses when the clock cannot be believed, and remembers it when it can; `ignore` believes it anyhow. `what` says
/// what then did not happen: `forgotten`, `removed`.
///
/// # Errors
/// A [`Problem`] that names `--ignore-clock`; what the repository gives.
pub fn check(repository: &Arc<Repository>, ignore: bool, what: &str) -> Result<()> {
    let clock = repository.clock_evidence()?;
    if let Some(doubt) = clock.doubt().filter(|_| !ignore) {
        return Err(doubted(doubt, what));
    }
    repository.believe_clock(&clock);
    Ok(())
}

/// The refusal because of this doubt.
pub fn doubted(doubt: ClockDoubt, what: &str) -> anyhow::Error {
    let hint = match doubt {
        ClockDoubt::Behind { .. } => {
            "set this machine's clock; if it is right, another one's was wrong: add --ignore-clock"
        }
        ClockDoubt::Jumped { .. } => {
            "check this machine's clock; if it is right now, add --ignore-clock this once"
        }
    };
    Problem::failed(format!("{doubt}; nothing was {what}"), hint)
}
