//! Random scenarios: steps that people and accidents do to a repository, and the search for the shortest list that still
//! fails.
//!
//! Plain descriptions, drawn from a seed; who runs them resolves the numbers against what there is at that moment. Knows
//! nothing of repositories.

use crate::fault::Effect;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// Files that a scenario can write.
pub const FILES: u8 = 12;
/// Sessions that can be open at once.
pub const SESSIONS: u8 = 2;
/// Processes that work on the repository, each with an index and a cache of its own.
pub const PROCESSES: u8 = 2;

/// One change of a snapshot's content: this file gets this version, or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edit {
    /// Which file, below [`FILES`].
    pub file: u8,
    /// Its new content; None removes it.
    pub version: Option<u8>,
}

/// What a backup stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Begins with the content of this one of the live snapshots (modulo their number), or with nothing.
    pub base: Option<u8>,
    /// Takes what the base has over without a look.
    pub on_base: bool,
    /// Then changes this.
    pub edits: Vec<Edit>,
}

/// How a prune is asked to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruning {
    /// Forgotten snapshots are kept for a week, or not at all.
    pub keeps_forgotten: bool,
    /// Condemned packs are kept for a day, or not at all.
    pub has_grace: bool,
    /// Packs that no head names are left alone for a day, or not at all.
    pub spares_orphans: bool,
    /// Unused bytes that may stay, percent; None: any number.
    pub max_unused_percent: Option<u8>,
    /// Nothing is changed.
    pub dry_run: bool,
}

/// The storage fails from this call of a step on, until the process is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// Calls that still work.
    pub after_calls: u8,
    /// What becomes of the first call that fails.
    pub effect: Effect,
}

/// One step. Numbers of snapshots and sessions count modulo what there is; a step without an object does nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A whole backup.
    Backup(Backup),
    /// A session begins and stays open while other steps follow.
    Begin(u8, Backup),
    /// An open session commits.
    Commit(u8),
    /// An open session is dropped.
    Abandon(u8),
    /// A live snapshot is forgotten.
    Forget(u8),
    /// A snapshot that was forgotten at some time is wanted back.
    Undelete(u8),
    /// A live snapshot is protected, or is no more.
    Protect(u8, bool),
    /// A prune.
    Prune(Pruning),
    /// A check; true reads all data.
    Check(bool),
    /// The process is gone and another one opens the repository; true loses the index, too.
    Reopen(bool),
    /// Time goes on, hours.
    Wait(u8),
    /// The step fails in its midst together with its process.
    Crashing(Crash, Box<Step>),
}

/// A step and who does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The process, below [`PROCESSES`].
    pub process: u8,
    /// What it does.
    pub step: Step,
}

fn backup() -> impl Strategy<Value = Backup> {
    let edit = (0..FILES, option::weighted(0.8, 0..3u8))
        .prop_map(|(file, version)| Edit { file, version });
    (option::weighted(0.7, any::<u8>()), any::<bool>(), vec(edit, 0..5))
        .prop_map(|(base, on_base, edits)| Backup { base, on_base, edits })
}

fn pruning() -> impl Strategy<Value = Pruning> {
    let percent = option::weighted(0.8, prop::sample::select(vec![0u8, 5, 50]));
    let dry_run = prop::bool::weighted(0.1);
    (any::<bool>(), any::<bool>(), any::<bool>(), percent, dry_run).prop_map(
        |(keeps_forgotten, has_grace, spares_orphans, max_unused_percent, dry_run)| Pruning {
            keeps_forgotten,
            has_grace,
            spares_orphans,
            max_unused_percent,
            dry_run,
        },
    )
}

fn deed() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => backup().prop_map(Step::Backup),
        2 => (0..SESSIONS, backup()).prop_map(|(session, backup)| Step::Begin(session, backup)),
        2 => (0..SESSIONS).prop_map(Step::Commit),
        4 => any::<u8>().prop_map(Step::Forget),
        3 => any::<u8>().prop_map(Step::Undelete),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(which, is_on)| Step::Protect(which, is_on)),
        5 => pruning().prop_map(Step::Prune),
    ]
}

fn turn() -> impl Strategy<Value = Turn> {
    let crash = (0..60u8, prop::sample::select(vec![Effect::None, Effect::Done]))
        .prop_map(|(after_calls, effect)| Crash { after_calls, effect });
    let step = prop_oneof![
        24 => deed(),
        4 => (crash, deed()).prop_map(|(crash, step)| Step::Crashing(crash, Box::new(step))),
        1 => (0..SESSIONS).prop_map(Step::Abandon),
        2 => any::<bool>().prop_map(Step::Check),
        2 => any::<bool>().prop_map(Step::Reopen),
        2 => (1..60u8).prop_map(Step::Wait),
    ];
    (0..PROCESSES, step).prop_map(|(process, step)| Turn { process, step })
}

/// Runs one scenario of up to `turns_max` turns for each seed from `first` on.
///
/// # Panics
/// When `run` panics: with the seed and the shortest list of turns found that still fails.
pub fn scenarios(first: u64, count: u64, turns_max: usize, run: impl Fn(&[Turn])) {
    for seed in first..first + count {
        let mut bytes = [0u8; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let config = Config {
            cases: 1,
            max_shrink_iters: 4096,
            failure_persistence: None,
            ..Config::default()
        };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let outcome = runner.run(&vec(turn(), 1..turns_max), |turns| {
            run(&turns);
            Ok(())
        });
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(reason, turns)) => {
                panic!("seed {seed}: {reason}; the shortest way found:\n{turns:#?}");
            }
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// Equal seeds give equal scenarios, and others give others.
    #[test]
    fn a_seed_gives_one_scenario() {
        let draw = |seed| {
            let seen = RefCell::new(Vec::new());
            scenarios(seed, 1, 40, |turns| seen.borrow_mut().extend_from_slice(turns));
            seen.into_inner()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    /// A failure comes with its seed and with few turns that are not needed for it.
    #[test]
    fn a_failure_is_made_short() {
        let is_prune = |turn: &Turn| matches!(turn.step, Step::Prune(_));
        let failed = catch_unwind(AssertUnwindSafe(|| {
            scenarios(1, 20, 40, |turns| {
                assert!(turns.iter().filter(|turn| is_prune(turn)).count() < 2);
            });
        }));
        let text = *failed.unwrap_err().downcast::<String>().unwrap();
        assert!(text.starts_with("seed "), "{text}");
        // Two are needed; shrinking stops at a minimum that need not be the smallest.
        let turns = text.matches("Turn {").count();
        assert!((2..=4).contains(&turns), "{text}");
    }
}
