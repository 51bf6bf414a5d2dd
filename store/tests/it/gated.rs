//! Real sessions and a real prune under a scheduler that chooses every interleaving: whatever the order, what was
//! acknowledged restores, a check finds nothing, and nobody waits for ever.
//!
//! `STILLPOINT_SCHEDULES=100000` runs that many random schedules instead of a few, and every schedule with two preemptions.

use crate::lab::{self, Files, assert_whole, restore_by_id};
use std::sync::Arc;
use std::time::Duration;
use stillpoint_chunker::Profile;
use stillpoint_store::backend::{Backend, Contents, MemoryBackend};
use stillpoint_store::prune::{MaxUnused, PruneOptions};
use stillpoint_store::tree::Builder;
use stillpoint_store::{Env, Error, Repository, Result, SnapshotId, SnapshotRecord, WriteOptions};
use stillpoint_testkit::gate::schedule::{Bounded, Scheduler, Seeded};
use stillpoint_testkit::{Actor, Gated, Passed, Random, SeededEnv, run_gated, with_label};

/// Random schedules of a test without further wishes.
const SCHEDULES: u64 = 150;

fn schedules() -> Option<u64> {
    let wish = std::env::var("STILLPOINT_SCHEDULES").ok()?;
    Some(wish.parse().expect("STILLPOINT_SCHEDULES is a number"))
}

fn prune_now() -> PruneOptions {
    PruneOptions {
        keep_forgotten: Duration::ZERO,
        grace: Duration::ZERO,
        orphan_grace: Duration::ZERO,
        max_unused: MaxUnused::Bytes(0),
        write: one_thread(),
        ..PruneOptions::default()
    }
}

fn one_thread() -> WriteOptions {
    WriteOptions { threads: 1, ..WriteOptions::default() }
}

/// Small files with these numbers.
fn files(numbers: &[u64]) -> Files {
    let file = |number: &u64| {
        let bytes = Random::new(*number).bytes(200 + usize::try_from(*number).unwrap() * 31);
        (format!("file-{number}").into_bytes(), bytes)
    };
    numbers.iter().map(file).collect()
}

/// What an actor has to say at the end.
#[derive(Debug)]
enum Deed {
    /// A backup of files with these numbers.
    Backup(&'static [u64], Result<SnapshotId>),
    /// A prune.
    Prune(Result<()>),
    /// These came back.
    Undelete(Result<Vec<SnapshotId>>),
    /// Whether the kept snapshot held what it must when it was read beside all that.
    Restore(Result<bool>),
}

/// A repository with two snapshots that share files: `old` will be forgotten, `kept` stays.
struct Start {
    contents: Contents,
    old: SnapshotId,
    kept: SnapshotId,
}

const OLD: &[u64] = &[1, 2, 3, 4];
const KEPT: &[u64] = &[3, 4, 5];

impl Start {
    fn new() -> Self {
        let memory = MemoryBackend::new();
        let backend: Arc<dyn Backend> = Arc::new(memory.clone());
        let env: Arc<dyn Env> = Arc::new(SeededEnv::new(1));
        let repository = lab::create(&backend, &env);
        let old = lab::snapshot(&repository, &files(OLD)).unwrap();
        let kept = lab::snapshot(&repository, &files(KEPT)).unwrap();
        Self { contents: memory.contents(), old, kept }
    }
}

fn open(backend: &Arc<dyn Backend>, seed: u64) -> Result<Arc<Repository>> {
    let env: Arc<dyn Env> = Arc::new(SeededEnv::new(seed));
    lab::open(backend, &env)
}

/// Stores these files; those that `parent` has are taken over from it without a look.
fn back_up(
    repository: &Arc<Repository>,
    own: &Files,
    parent: Option<(SnapshotId, &Files)>,
) -> Result<SnapshotId> {
    let writer = repository.writer(one_thread())?;
    if let Some((id, _)) = parent {
        writer.rely_on_parent(id);
    }
    let chunker = repository.chunker(Profile::General)?;
    let params = repository.tree_params();
    let mut sink = writer.node_sink();
    let mut manifest = Builder::<lab::LabSchema>::new(&params, &mut sink);
    for (name, bytes) in own {
        let batch = chunker.chunk_slice(bytes.clone());
        if parent.is_none_or(|(_, files)| files.get(name) != Some(bytes)) {
            writer.add_data(&batch)?;
        }
        let value: Vec<u8> = batch.chunks.iter().flat_map(|chunk| *chunk.id.as_bytes()).collect();
        manifest.push(name, &value)?;
    }
    let record = SnapshotRecord::new(repository.env().now(), manifest.finish()?);
    Ok(writer.commit(record)?.0)
}

fn writer<'a>(
    start: &'a Start,
    seed: u64,
    numbers: &'static [u64],
    on_parent: bool,
) -> Actor<'a, Deed> {
    Box::new(move |backend| {
        let expected = files(numbers);
        let old = files(OLD);
        let parent = on_parent.then_some((start.old, &old));
        let stored = open(&backend, seed).and_then(|open| back_up(&open, &expected, parent));
        Deed::Backup(numbers, stored)
    })
}

fn pruner(start: &Start, seed: u64, forgets: bool) -> Actor<'_, Deed> {
    Box::new(move |backend| {
        let pruned = open(&backend, seed).and_then(|repository| {
            if forgets {
                repository.forget(&[start.old])?;
            }
            repository.prune(&prune_now())
        });
        Deed::Prune(pruned.map(drop))
    })
}

fn undelete(start: &Start, seed: u64) -> Actor<'_, Deed> {
    Box::new(move |backend| {
        Deed::Undelete(open(&backend, seed).and_then(|open| open.undelete(&[start.old])))
    })
}

fn restorer(start: &Start, seed: u64) -> Actor<'_, Deed> {
    Box::new(move |backend| {
        let restored = open(&backend, seed).and_then(|open| restore_by_id(&open, start.kept));
        Deed::Restore(restored.map(|found| found == files(KEPT)))
    })
}

/// Everything that was said to be done is so, and the repository can be worked on.
fn assert_kept(start: &Start, memory: &MemoryBackend, deeds: &[Deed]) {
    let backend: Arc<dyn Backend> = Arc::new(memory.clone());
    let repository = open(&backend, 99).unwrap();
    let mut expected = vec![(start.kept, files(KEPT))];
    let mut may_be_listed = vec![start.old];
    for deed in deeds {
        match deed {
            Deed::Backup(numbers, Ok(id)) => expected.push((*id, files(numbers))),
            Deed::Backup(_, Err(Error::Conflict { .. }))
            | Deed::Prune(Ok(()) | Err(Error::Conflict { .. })) => {}
            Deed::Undelete(Ok(ids)) if ids.contains(&start.old) => {
                expected.push((start.old, files(OLD)));
                may_be_listed.clear();
            }
            Deed::Undelete(Ok(_) | Err(Error::NoSuchSnapshot { .. })) => {}
            Deed::Restore(Ok(true)) => {}
            other => panic!("{other:?}"),
        }
    }
    let listed: Vec<_> = repository.snapshots().unwrap().iter().map(|one| one.id).collect();
    for (id, files) in &expected {
        assert!(listed.contains(id), "snapshot {id} is lost");
        assert!(restore_by_id(&repository, *id).unwrap() == *files, "snapshot {id} is another");
    }
    let known = |id| may_be_listed.contains(id) || expected.iter().any(|(known, _)| known == id);
    assert!(listed.iter().all(known), "a snapshot is listed that nobody acknowledged");
    assert_whole(&repository);
    repository.prune(&prune_now()).unwrap();
    for (id, files) in &expected {
        assert!(restore_by_id(&repository, *id).unwrap() == *files, "prune changed snapshot {id}");
    }
    assert_whole(&repository);
}

/// What was done, and every call on the way to it.
struct Story<'a>(&'a [Deed], &'a [Passed]);

impl std::fmt::Display for Story<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(formatter, "{:?} after", self.0)?;
        self.1.iter().try_for_each(|one| {
            writeln!(formatter, "  {} {:?} {}", one.actor, one.call, one.object)
        })
    }
}

/// Runs one schedule; gives how many calls stopped at the gate.
fn run(
    start: &Start,
    gated: Gated,
    actors: Vec<Actor<'_, Deed>>,
    scheduler: &mut dyn Scheduler,
) -> (Vec<Deed>, usize) {
    let memory = MemoryBackend::with_contents(start.contents.clone());
    let backend: Arc<dyn Backend> = Arc::new(memory.clone());
    let (deeds, passed) = run_gated(&backend, gated, actors, scheduler);
    with_label(Story(&deeds, &passed), || assert_kept(start, &memory, &deeds));
    (deeds, passed.len())
}

/// Two backups, one on a parent that is forgotten meanwhile, and a prune without any grace.
fn two_writers_and_a_prune(start: &Start) -> Vec<Actor<'_, Deed>> {
    vec![
        writer(start, 11, &[1, 2, 5, 6], true),
        writer(start, 12, &[1, 3, 7], false),
        pruner(start, 13, true),
    ]
}

/// Any order of the calls of two backups and a prune keeps what was acknowledged.
#[test]
fn two_writers_and_a_prune_in_any_order() {
    let start = Start::new();
    let (mut calls, mut failed) = (0, 0);
    let count = schedules().unwrap_or(SCHEDULES);
    for seed in 0..count {
        with_label(format_args!("seed {seed}"), || {
            let actors = two_writers_and_a_prune(&start);
            let (deeds, passed) = run(&start, Gated::All, actors, &mut Seeded::new(seed));
            calls += passed;
            failed += deeds.iter().filter(|deed| matches!(deed, Deed::Backup(_, Err(_)))).count();
        });
    }
    eprintln!("{count} schedules, {calls} calls, {failed} backups failed clearly");
}

/// So do two prunes beside a backup, a reader and an undelete.
#[test]
fn two_prunes_an_undelete_and_a_reader_in_any_order() {
    let start = Start::new();
    for seed in 0..schedules().unwrap_or(SCHEDULES) {
        with_label(format_args!("seed {seed}"), || {
            let actors = vec![
                writer(&start, 21, &[1, 2, 5, 6], false),
                pruner(&start, 22, true),
                pruner(&start, 23, false),
                undelete(&start, 24),
                restorer(&start, 25),
            ];
            run(&start, Gated::All, actors, &mut Seeded::new(seed));
        });
    }
}

/// Every schedule with one preemption (two when asked for more) of the calls that others can notice.
#[test]
fn every_schedule_with_few_preemptions() {
    let start = Start::new();
    let preemptions = if schedules().is_some() { 2 } else { 1 };
    let (mut bounded, mut count) = (Bounded::new(preemptions), 0);
    while bounded.begin() {
        run(&start, Gated::Shared, two_writers_and_a_prune(&start), &mut bounded);
        count += 1;
    }
    eprintln!("{count} schedules with at most {preemptions} preemptions");
}
