//! Several processes on one repository, and writers that stand still while others remove what they rely on.
//!
//! `STILLPOINT_STOPS` says how many writers are stopped (10 where nothing is said), `STILLPOINT_SECONDS` how long the
//! processes work side by side (10).

use crate::crash_lab::{Expected, Lab, State, Tree, last_word, open, read_back, verify};
use crate::support::{Place, Run, content, messages, noise, run, text};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use stillpoint_store::WriteOptions;
use stillpoint_store::prune::{MaxUnused, PruneOptions};
use stillpoint_testkit::{Random, with_label};

const STOPS: usize = 10;
const SECONDS: u64 = 10;
/// Beyond this, whoever removes things waits for the stopped writer itself.
const LOCKED_MAX: Duration = Duration::from_secs(10);
const WRITERS: usize = 8;
const PRUNE: [&str; 7] = ["prune", "--keep-forgotten", "0s", "--grace", "0s", "--max-unused", "0%"];

fn from_environment<T: std::str::FromStr>(variable: &str, usual: T) -> T {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text}")),
        Err(_) => usual,
    }
}

fn everything_at_once() -> PruneOptions {
    PruneOptions {
        keep_forgotten: Duration::ZERO,
        grace: Duration::ZERO,
        orphan_grace: Duration::ZERO,
        max_unused: MaxUnused::Bytes(0),
        write: WriteOptions { threads: 1, ..WriteOptions::default() },
        ..PruneOptions::default()
    }
}

/// Many small files, a part of them new in each round; the rest is in the parent, which is forgotten meanwhile.
fn fill(place: &Place, round: u64) -> Tree {
    for number in 0..120 {
        let seed = if number % 4 == 0 { round * 1000 + number } else { number };
        place.file(format!("dir-{}/{number}", number % 7), &noise(seed, 9_000));
    }
    content(&place.source()).into_iter().collect()
}

struct Stops {
    lab: Lab,
    random: Random,
    /// Until when a writer is stopped, at random: adapted so that about half of the signals meet theirs.
    until: Duration,
}

/// How a writer ended that was stopped in the middle.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// It was faster than the signal.
    Early,
    Saved,
    Failed,
}

impl Stops {
    fn start(&self) -> Child {
        let source = self.lab.source();
        let mut command = self.lab.stillpoint(&self.lab.disk(), &["snapshot", &source, "--json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Forgets every snapshot, and deletes at once whatever no snapshot needs. True if the writer's own was there
    /// already: then nothing is forgotten.
    fn remove_everything(&self) -> bool {
        let repository = open(&self.lab.disk().join("repository"), &self.lab.keys[0]).unwrap();
        let gone: Vec<_> = repository.snapshots().unwrap().iter().map(|one| one.id).collect();
        let early = gone.iter().any(|id| !self.lab.live.contains_key(&id.to_string()));
        if !early {
            repository.forget(&gone).unwrap();
        }
        repository.prune(&everything_at_once()).unwrap();
        early
    }

    /// A writer is stopped; everything that it may rely on is forgotten, pruned and deleted at once; it goes on.
    fn round(&mut self, number: u64) -> End {
        let disk = self.lab.disk();
        let tree = fill(&self.lab.place, number);
        let child = self.start();
        let id = Pid::from_child(&child);
        // The moment of the signal is the point, not a wait for something.
        thread::sleep(self.until * u32::try_from(self.random.below(1000)).unwrap() / 1000);
        kill_process(id, Signal::STOP).unwrap();

        // A writer that stands in the middle of its swap holds the head's lock, and others wait for it.
        let (done, waiting) = mpsc::channel();
        let early = thread::scope(|scope| {
            let removal = scope.spawn(|| {
                let early = self.remove_everything();
                let _ = done.send(());
                early
            });
            let _ = waiting.recv_timeout(LOCKED_MAX);
            kill_process(id, Signal::CONT).unwrap();
            removal.join().unwrap()
        });
        if !early {
            self.lab.live.clear();
        }
        let run = Run::from(child.wait_with_output().unwrap());
        let said = last_word(&run.stdout);
        assert!(!run.stderr.contains("panicked"), "{run:#?}");
        match (run.code, &said) {
            (Some(0), Some(said)) => {
                self.lab.live.insert(text(said, "snapshot_id"), tree);
            }
            (Some(1..=12), None) => assert!(run.stderr.contains("\"hint\":\""), "{run:#?}"),
            other => panic!("{other:?}: {run:#?}"),
        }
        let state = State { live: Some(self.lab.live.clone()), keys: self.lab.keys.clone() };
        let expected = Expected { before: state.clone(), after: state, perhaps: None };
        verify(&disk, &self.lab.place.source(), &expected, said.is_some()).unwrap();
        self.until = if early { self.until * 3 / 4 } else { self.until * 5 / 4 };
        match (early, run.code) {
            (true, _) => End::Early,
            (false, Some(0)) => End::Saved,
            (false, _) => End::Failed,
        }
    }
}

// A writer that stands still while all it relies on is forgotten, condemned and deleted: it commits something that
// restores, or it fails clearly.
#[test]
fn stopped_writers_commit_what_restores_or_fail() {
    let wanted = from_environment("STILLPOINT_STOPS", STOPS);
    let lab = Lab::with_repository();
    let mut stops = Stops { lab, random: Random::new(5), until: Duration::ZERO };
    fill(&stops.lab.place, 0);
    let begun = Instant::now();
    let first = Run::from(stops.start().wait_with_output().unwrap()).with_code(0);
    stops.until = begun.elapsed();
    let id = text(&last_word(&first.stdout).unwrap(), "snapshot_id");
    let tree = content(&stops.lab.place.source()).into_iter().collect();
    stops.lab.live.insert(id, tree);
    let (mut saved, mut failed, mut early) = (0, 0, 0);
    for round in 1.. {
        match with_label(format!("round {round}"), || stops.round(round)) {
            End::Saved => saved += 1,
            End::Failed => failed += 1,
            End::Early => early += 1,
        }
        if stops.lab.live.is_empty() {
            // The next writer needs a parent whose data can be taken away.
            let tree = fill(&stops.lab.place, round);
            let said = stops.lab.done(&["snapshot", &stops.lab.source()]);
            stops.lab.live.insert(text(said.last().unwrap(), "snapshot_id"), tree);
        }
        if saved + failed >= wanted {
            break;
        }
        assert!(early < 20 + wanted, "hardly any signal meets its writer");
    }
    eprintln!(
        "{wanted} writers stopped while all they relied on was deleted: {saved} saved what restores, {failed} failed \
         clearly; {early} more were faster than the signal"
    );
}

/// One snapshot that was acknowledged.
struct Taken {
    id: String,
    writer: usize,
    tree: Tree,
}

/// What the processes of one run share.
struct Crowd {
    lab: Lab,
    /// Snapshots that nobody forgets.
    kept: Mutex<Vec<Taken>>,
    /// Snapshots that somebody should forget.
    doomed: Mutex<Vec<String>>,
    is_over: AtomicBool,
    refusals: Mutex<Vec<String>>,
    done: BTreeMap<&'static str, AtomicUsize>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while it is locked")
}

impl Crowd {
    fn source(&self, writer: usize) -> std::path::PathBuf {
        self.lab.place.source().join(format!("writer-{writer}"))
    }

    /// Runs a command; anything but success is a refusal.
    fn run(&self, what: &'static str, arguments: &[&str]) -> Option<Run> {
        let run = run(&mut self.lab.stillpoint(&self.lab.disk(), arguments));
        self.done[what].fetch_add(1, Ordering::Relaxed);
        if run.code == Some(0) {
            return Some(run);
        }
        locked(&self.refusals).push(format!("{what}: {run:#?}"));
        self.is_over.store(true, Ordering::Relaxed);
        None
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    /// Edits its own files, some of them equal to those of others, and saves them; every third snapshot is kept.
    fn write(&self, writer: usize) {
        let mut random = Random::new(writer as u64);
        let source = self.source(writer);
        let source_text = source.display().to_string();
        for number in 0.. {
            if !self.goes_on() {
                return;
            }
            for _ in 0..3 {
                let seed = random.below(40);
                let path = source.join(format!("file-{}", random.below(12)));
                fs::write(path, noise(seed, 20_000 + 500 * random.index(20))).unwrap();
            }
            let arguments = ["snapshot", source_text.as_str(), "--json"];
            let Some(run) = self.run("snapshot", &arguments) else { return };
            let id = text(&last_word(&run.stdout).expect("it is done"), "snapshot_id");
            if number % 3 == 0 {
                let tree = content(&source).into_iter().collect();
                locked(&self.kept).push(Taken { id, writer, tree });
            } else {
                locked(&self.doomed).push(id);
            }
        }
    }

    /// Forgets what is doomed and deletes at once what only that needed.
    fn prune(&self) {
        while self.goes_on() {
            let doomed = std::mem::take(&mut *locked(&self.doomed));
            if !doomed.is_empty() {
                let mut arguments = vec!["forget"];
                arguments.extend(doomed.iter().map(String::as_str));
                self.run("forget", &arguments);
            }
            self.run("prune", &PRUNE);
        }
    }

    /// Restores what is kept, by turns with checks.
    fn read(&self) {
        let mut random = Random::new(99);
        let target = self.lab.place.path("target");
        let target_text = target.display().to_string();
        while self.goes_on() {
            self.run("check", &["check", "--read-data"]);
            let chosen = {
                let kept = locked(&self.kept);
                kept.get(random.index(kept.len().max(1)))
                    .map(|taken| (taken.id.clone(), taken.writer, taken.tree.clone()))
            };
            let Some((id, writer, tree)) = chosen else { continue };
            let spec = format!("{id}:{}", self.source(writer).display());
            if self.run("restore", &["restore", &spec, "--target", &target_text]).is_some() {
                let found: Tree = content(&target).into_iter().collect();
                assert!(found == tree, "snapshot {id} restores to something else");
                fs::remove_dir_all(&target).unwrap();
            }
        }
    }
}

// Writers, a pruner that deletes at once, and a reader, all of them processes on one repository with one cache: nobody is
// refused, everything that is kept restores, and a check is clean.
#[test]
fn processes_side_by_side() {
    let seconds = from_environment("STILLPOINT_SECONDS", SECONDS);
    let words = ["snapshot", "forget", "prune", "check", "restore"];
    let crowd = Crowd {
        lab: Lab::with_repository(),
        kept: Mutex::default(),
        doomed: Mutex::default(),
        is_over: AtomicBool::new(false),
        refusals: Mutex::default(),
        done: words.map(|word| (word, AtomicUsize::new(0))).into(),
    };
    (0..WRITERS).for_each(|writer| fs::create_dir(crowd.source(writer)).unwrap());
    let until = Instant::now() + Duration::from_secs(seconds);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let crowd = &crowd;
            scope.spawn(move || crowd.write(writer));
        }
        scope.spawn(|| crowd.prune());
        scope.spawn(|| crowd.read());
        while crowd.goes_on() && Instant::now() < until {
            thread::sleep(Duration::from_millis(100));
        }
        crowd.is_over.store(true, Ordering::Relaxed);
    });
    let counts: Vec<String> = crowd
        .done
        .iter()
        .map(|(word, count)| format!("{} {word}", count.load(Ordering::Relaxed)))
        .collect();
    eprintln!("{seconds} s, {WRITERS} writers, one pruner, one reader: {}", counts.join(", "));
    let refusals = locked(&crowd.refusals);
    assert!(refusals.is_empty(), "{} refusals, the first: {}", refusals.len(), refusals[0]);
    verify_crowd(&crowd);
}

fn verify_crowd(crowd: &Crowd) {
    let disk = crowd.lab.disk();
    crowd.lab.done(&["check", "--read-data"]);
    let repository = open(&disk.join("repository"), &crowd.lab.keys[0]).unwrap();
    for taken in locked(&crowd.kept).iter() {
        let snapshot = repository.find_snapshot(&taken.id).unwrap();
        let found = read_back(&repository, &snapshot, &crowd.source(taken.writer)).unwrap();
        assert!(found == taken.tree, "snapshot {} restores to something else", taken.id);
    }
    let listed = run(&mut crowd.lab.stillpoint(&disk, &["snapshots", "--json"])).with_code(0);
    let kept = locked(&crowd.kept).len();
    assert!(messages(&listed.stdout).len() >= kept);
    assert!(kept >= WRITERS, "{kept} snapshots are too few to tell anything");
}
