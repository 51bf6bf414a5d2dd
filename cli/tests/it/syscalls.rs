//! The real binary when one of its system calls kills it or fails.
//!
//! strace counts the calls of each thread for itself: 'the n-th call' is that of whichever thread comes first for a kill,
//! and of every thread for an error. `STILLPOINT_SYSCALL_ERRORS=all` tries every error at every call, once and for ever; one
//! of them at each call, once, is tried where nothing is said.

use crate::crash_lab::{Expected, Lab, State, Tree, last_word, open, read_back, verify};
use crate::strace;
use crate::support::{Run, content, run, text};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use stillpoint_testkit::power::Files;
use stillpoint_testkit::{Random, with_label};

/// No command of these tests takes a tenth of this.
const SECONDS_MAX: &str = "120";
/// Of a call that is made more often than this in one command, a seeded choice is taken.
const CALLS_MAX: usize = 40;
/// Calls that are made for each of the 256 folders of packs: of these fewer are taken.
const FOR_EACH_FOLDER: [&str; 2] = ["mkdir", "statx"];
const FOR_EACH_FOLDER_MAX: usize = 10;
const SECOND: [(&str, u64, usize); 3] = [("a", 1, 30_000), ("dir/c", 4, 50_000), ("tiny", 5, 20)];
const FIRST: [(&str, u64, usize); 3] = [("a", 1, 30_000), ("dir/b", 2, 50_000), ("tiny", 3, 20)];
const THIRD: [(&str, u64, usize); 4] =
    [("a", 1, 30_000), ("dir/c", 6, 50_000), ("tiny", 5, 20), ("more/d", 7, 9_000)];
const PRUNE: &str = "prune --keep-forgotten 0s --grace 0s --max-unused 0%";

/// Calls that leave something behind: a kill right before each of them is a state of its own.
const WRITING: [&str; 12] = [
    "openat",
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "rename",
    "renameat2",
    "link",
    "unlink",
    "mkdir",
    "ftruncate",
    "fallocate",
];

/// Calls that can fail, and how.
const FAILING: [(&str, &[&str]); 22] = [
    ("openat", &["EIO", "EMFILE", "ENOSPC", "EROFS"]),
    ("read", &["EIO"]),
    ("pread64", &["EIO"]),
    ("write", &["ENOSPC", "EIO"]),
    ("pwrite64", &["EIO", "ENOSPC"]),
    ("fsync", &["EIO", "ENOSPC"]),
    ("fdatasync", &["ENOSPC", "EIO"]),
    ("rename", &["EIO", "ENOSPC", "EROFS"]),
    ("renameat2", &["EROFS", "EIO", "ENOSPC"]),
    ("link", &["EIO", "ENOSPC", "EROFS"]),
    ("unlink", &["EROFS", "EIO"]),
    ("unlinkat", &["EROFS", "EIO"]),
    ("mkdir", &["EROFS", "ENOSPC", "EIO"]),
    ("mkdirat", &["EROFS", "ENOSPC", "EIO"]),
    ("ftruncate", &["EIO", "ENOSPC"]),
    ("fallocate", &["ENOSPC", "EIO"]),
    ("getdents64", &["EIO"]),
    ("statx", &["EIO"]),
    ("newfstatat", &["EIO"]),
    ("flock", &["EIO"]),
    ("mmap", &["ENOMEM"]),
    ("fstat", &["EIO"]),
];

/// A command, the disk that it finds, and what must be true of the disk afterwards.
struct Scenario {
    arguments: Vec<String>,
    start: Files,
    expected: Expected,
}

/// A call of one thread: which, and the how-manieth of this kind.
type Nth = (String, usize);

impl Scenario {
    fn new(lab: &Lab, arguments: &str) -> Self {
        let state = lab.state();
        Self {
            arguments: arguments.split(' ').map(str::to_owned).collect(),
            start: Files::load(&lab.disk()).unwrap(),
            expected: Expected { before: state.clone(), after: state, perhaps: None },
        }
    }

    fn command(&self, lab: &Lab, disk: &Path) -> Command {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let mut command = lab.stillpoint(disk, &arguments);
        command.arg("--json");
        command
    }

    /// The calls that concern one of these places, when nothing goes wrong.
    fn calls(
        &self,
        lab: &Lab,
        names: &[&str],
        places: &[&Path],
        counts: fn(&str) -> bool,
    ) -> BTreeSet<Nth> {
        let (disk, trace) = (lab.lay_out(&self.start), lab.place.path("calls"));
        let filter = format!("trace={}", names.join(","));
        let mut command =
            strace::around(&self.command(lab, &disk), &trace, &["-y", "-s", "4096", "-e", &filter]);
        run(&mut command).with_code(0);
        let text = fs::read_to_string(trace).unwrap();
        let places: Vec<&str> = places.iter().map(|place| place.to_str().unwrap()).collect();
        nth_calls(&text, &places, counts)
    }

    /// Runs the command with something injected; `when` is strace's word for it.
    fn inject(&self, lab: &Lab, call: &str, what: &str) -> (Run, Option<serde_json::Value>) {
        let disk = lab.lay_out(&self.start);
        let (filter, inject) = (format!("trace={call}"), format!("inject={call}:{what}"));
        let options = ["-e", filter.as_str(), "-e", inject.as_str()];
        let strace = strace::around(&self.command(lab, &disk), Path::new("/dev/null"), &options);
        let mut command = Command::new("timeout");
        command.arg(SECONDS_MAX).arg(strace.get_program()).args(strace.get_args()).env_clear();
        command.envs(strace.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let run = run(command.current_dir("/"));
        assert_ne!(run.code, Some(124), "it hangs");
        assert!(!run.stderr.contains("panicked"), "{run:#?}");
        let said = last_word(&run.stdout);
        (run, said)
    }

    /// What is expected once the command has said this: a snapshot has got its name.
    fn expected(&self, said: Option<&serde_json::Value>) -> Expected {
        let mut expected = self.expected.clone();
        if let (Some(said), Some(tree)) = (said, &expected.perhaps) {
            let live = expected.after.live.as_mut().expect("there is a repository");
            live.insert(text(said, "snapshot_id"), tree.clone());
        }
        expected
    }
}

/// The calls in a trace that name one of these places and count.
fn nth_calls(trace: &str, places: &[&str], is_wanted: fn(&str) -> bool) -> BTreeSet<Nth> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').expect("a thread");
        let Some((name, rest)) = call.trim_start().split_once('(') else { continue };
        if name.contains(' ') {
            continue;
        }
        let count = counts.entry((thread, name)).or_default();
        *count += 1;
        if places.iter().any(|place| rest.contains(place)) && is_wanted(line) {
            found.insert((name.to_owned(), *count));
        }
    }
    found
}

/// A choice of each kind where there are very many.
fn some(calls: BTreeSet<Nth>) -> Vec<Nth> {
    let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    calls.into_iter().for_each(|(name, number)| by_name.entry(name).or_default().push(number));
    let mut random = Random::new(7);
    let mut chosen = Vec::new();
    for (name, mut numbers) in by_name {
        let most = match FOR_EACH_FOLDER.contains(&name.as_str()) {
            true => FOR_EACH_FOLDER_MAX,
            false => CALLS_MAX,
        };
        while numbers.len() > most && !takes_all() {
            numbers.swap_remove(random.index(numbers.len()));
        }
        chosen.extend(numbers.into_iter().map(|number| (name.clone(), number)));
    }
    chosen
}

fn takes_all() -> bool {
    std::env::var("STILLPOINT_SYSCALL_ERRORS").is_ok_and(|value| value == "all")
}

/// A repository with two snapshots, and files for a third.
fn lab() -> (Lab, String) {
    let mut lab = Lab::with_repository();
    let first = lab.take(&FIRST);
    lab.take(&SECOND);
    (lab, first)
}

fn without(state: &State, id: &str) -> State {
    let mut state = state.clone();
    state.live.as_mut().expect("there is a repository").remove(id);
    state
}

fn snapshot(lab: &Lab) -> Scenario {
    let tree = lab.fill_source(&THIRD);
    let mut scenario = Scenario::new(lab, "snapshot");
    scenario.arguments.push(lab.source());
    scenario.expected.perhaps = Some(tree);
    scenario
}

fn init(lab: &Lab) -> Scenario {
    let mut scenario = Scenario::new(lab, "init");
    scenario.expected.before.live = None;
    scenario
}

fn forget(lab: &Lab, id: &str, options: &str) -> Scenario {
    let mut scenario = Scenario::new(lab, &format!("forget {id}{options}"));
    scenario.expected.after = without(&scenario.expected.before, id);
    scenario
}

/// Kills the command right before every call that writes, one run for each; then everything must hold.
fn kill_at_every_call(lab: &Lab, scenario: &Scenario) {
    let image = lab.place.path("image");
    let changes = |line: &str| !line.contains("openat(") || line.contains("O_CREAT");
    let calls = some(scenario.calls(lab, &WRITING, &[&image], changes));
    let (tried, mut killed) = (calls.len(), 0);
    for (call, number) in calls {
        with_label(format!("{:?} killed at {call} {number}", scenario.arguments), || {
            let (run, said) = scenario.inject(lab, &call, &format!("signal=KILL:when={number}"));
            killed += usize::from(run.code.is_none() || run.code == Some(137));
            let expected = scenario.expected(said.as_ref());
            verify(&image, &lab.place.source(), &expected, said.is_some()).unwrap();
        });
    }
    eprintln!("{:?}: killed at {killed} of {tried} calls", scenario.arguments.first());
    assert!(killed * 2 > tried, "the injection does not work");
}

/// Lets the command fail at every call that concerns the repository or the files, and hands every outcome to `judge`.
fn fail_at_every_call(
    lab: &Lab,
    scenario: &Scenario,
    places: &[&Path],
    judge: impl Fn(&Run, Option<&serde_json::Value>),
) {
    let names: Vec<&str> = FAILING.iter().map(|(name, _)| *name).collect();
    let calls = some(scenario.calls(lab, &names, places, |_| true));
    let (mut runs, mut failed, tried) = (0, 0, calls.len());
    for (call, number) in calls {
        let errors = FAILING.iter().find(|(name, _)| *name == call).expect("it was asked for").1;
        let mut whats: Vec<String> = errors
            .iter()
            .flat_map(|error| ["", "+"].map(|ever| format!("error={error}:when={number}{ever}")))
            .collect();
        if !takes_all() {
            whats = vec![whats.swap_remove(number % errors.len() * 2)];
        }
        for what in whats {
            with_label(format!("{:?}, {call} with {what}", scenario.arguments), || {
                let (run, said) = scenario.inject(lab, &call, &what);
                runs += 1;
                failed += usize::from(run.code != Some(0));
                judge(&run, said.as_ref());
            });
        }
    }
    eprintln!(
        "{:?}: {runs} runs with errors at {tried} calls, {failed} told of it",
        scenario.arguments.first()
    );
    assert!(failed * 10 > runs, "the injection does not work");
}

/// A failure names itself and says what to do next.
fn is_told(run: &Run) {
    // The loader of the program has words of its own.
    if run.code == Some(127) && run.stderr.contains("error while loading shared libraries") {
        return;
    }
    assert!(matches!(run.code, Some(1..=12)), "{run:#?}");
    // A prune without room to rewrite has done the rest, and says so.
    if run.code == Some(3) && run.stderr.contains("there is no room to rewrite packs") {
        return;
    }
    let errors: Vec<&str> = run
        .stderr
        .lines()
        .filter(|line| line.contains("\"message_type\":\"exit_error\""))
        .collect();
    assert!(!errors.is_empty(), "no error is told: {run:#?}");
    assert!(errors.iter().any(|line| line.contains("\"hint\":\"")), "no hint: {run:#?}");
}

/// The paths that errors name.
fn named(run: &Run) -> BTreeSet<PathBuf> {
    let lines = run.stderr.lines().filter_map(|line| serde_json::from_str(line).ok());
    let paths = lines.filter_map(|line: serde_json::Value| Some(line["path"].as_str()?.into()));
    paths.collect()
}

/// Every file that is missing is named, or a directory above it; those that are there are right.
fn is_partly(found: &Tree, all: &Tree, base: &Path, run: &Run) {
    let named = named(run);
    for (path, bytes) in all {
        match found.get(path) {
            Some(found) => assert!(found == bytes, "{} differs: {run:#?}", path.display()),
            None => {
                let is_named = base.join(path).ancestors().any(|path| named.contains(path));
                assert!(is_named, "{} is missing and not named: {run:#?}", path.display());
            }
        }
    }
    assert!(found.keys().all(|path| all.contains_key(path)), "{run:#?}");
}

// A kill right before each call of a snapshot that writes.
#[test]
fn kills_at_every_call_of_a_snapshot() {
    if strace::is_available() {
        let (lab, _) = lab();
        kill_at_every_call(&lab, &snapshot(&lab));
    }
}

// A kill right before each call of init, forget and undelete that writes.
#[test]
fn kills_at_every_call_of_small_commands() {
    if !strace::is_available() {
        return;
    }
    let empty = Lab::new();
    kill_at_every_call(&empty, &init(&empty));
    let (mut lab, first) = lab();
    kill_at_every_call(&lab, &forget(&lab, &first, ""));
    lab.done(&["forget", &first]);
    let tree = lab.live.remove(&first).expect("it was taken");
    let mut scenario = Scenario::new(&lab, &format!("undelete {first}"));
    let live = scenario.expected.after.live.as_mut().expect("there is a repository");
    live.insert(first, tree);
    kill_at_every_call(&lab, &scenario);
}

// A kill right before each call of a prune that drops, rewrites and deletes.
#[test]
fn kills_at_every_call_of_a_prune() {
    if strace::is_available() {
        let (mut lab, first) = lab();
        lab.done(&["forget", &first]);
        lab.live.remove(&first);
        kill_at_every_call(&lab, &Scenario::new(&lab, PRUNE));
    }
}

// A kill right before each call that changes keys: one that opens is always there.
#[test]
fn kills_at_every_call_of_changes_of_keys() {
    if !strace::is_available() {
        return;
    }
    let (lab, _) = lab();
    let new = lab.place.secret("second", b"another key file, long enough for one");
    for (verb, stays) in [("add", true), ("passwd", false), ("rotate", false)] {
        let arguments = format!("key {verb} --new-key-file {}", new.display());
        let mut scenario = Scenario::new(&lab, &arguments);
        if !stays {
            scenario.expected.after.keys.clear();
        }
        scenario.expected.after.keys.push(new.clone());
        kill_at_every_call(&lab, &scenario);
    }
}

// Whatever call of a snapshot fails: it fails and says so, or the snapshot is there and whole, or the files that it lacks are
// named; older ones stay whole and the next command works.
#[test]
fn errors_at_every_call_of_a_snapshot() {
    if !strace::is_available() {
        return;
    }
    let (lab, _) = lab();
    let scenario = snapshot(&lab);
    let (image, source) = (lab.place.path("image"), lab.place.source());
    fail_at_every_call(&lab, &scenario, &[&image, &source], |run, said| {
        let mut expected = scenario.expected(said);
        match (run.code, said) {
            (Some(0), Some(_)) => {}
            (Some(3), Some(said)) => {
                let id = text(said, "snapshot_id");
                let repository = open(&image.join("repository"), &lab.keys[0]).unwrap();
                let snapshot = repository.find_snapshot(&id).unwrap();
                let found = read_back(&repository, &snapshot, &source).unwrap_or_default();
                is_partly(&found, expected.perhaps.as_ref().expect("a snapshot"), &source, run);
                expected.after.live.as_mut().expect("a repository").insert(id, found);
            }
            (_, None) => is_told(run),
            other => panic!("{other:?}: {run:#?}"),
        }
        verify(&image, &source, &expected, said.is_some()).unwrap();
    });
}

// Whatever call of a forget with a prune fails: what was not forgotten is whole, and done means done.
#[test]
fn errors_at_every_call_of_forget_and_prune() {
    if !strace::is_available() {
        return;
    }
    let (lab, first) = lab();
    let options = PRUNE.replace("prune", " --prune");
    let scenario = forget(&lab, &first, &options);
    let image = lab.place.path("image");
    fail_at_every_call(&lab, &scenario, &[&image], |run, _| {
        let is_done = run.code == Some(0);
        if !is_done {
            is_told(run);
        }
        verify(&image, &lab.place.source(), &scenario.expected, is_done).unwrap();
    });
}

// Whatever call of a restore fails: exit 0 means that everything is back, 3 that what is missing was named.
#[test]
fn errors_at_every_call_of_a_restore() {
    if !strace::is_available() {
        return;
    }
    let (lab, first) = lab();
    let (image, target) = (lab.place.path("image"), lab.place.path("target"));
    let mut scenario = Scenario::new(&lab, "restore");
    let spec = format!("{first}:{}", lab.source());
    let target_text = target.display().to_string();
    scenario.arguments.extend([spec, "--target".into(), target_text]);
    let all = lab.live[&first].clone();
    let repository = scenario.start.below(Path::new("repository"));
    let judge = |run: &Run| {
        let found: Tree = match target.is_dir() {
            true => content(&target).into_iter().collect(),
            false => Tree::new(),
        };
        match run.code {
            Some(0) => assert!(found == all, "{run:#?}"),
            Some(3) => is_partly(&found, &all, &target, run),
            _ => is_told(run),
        }
        let now = Files::load(&image.join("repository")).unwrap();
        assert!(now == repository, "a restore changed the repository");
        if target.exists() {
            fs::remove_dir_all(&target).unwrap();
        }
    };
    fail_at_every_call(&lab, &scenario, &[&image, &target], |run, _| judge(run));
}
