//! kill -9 of the real binary at random moments, in all commands that write.
//!
//! `STILLPOINT_KILLS` says how many processes are killed; 100 where nothing is said.

use crate::crash_lab::{Expected, Lab, State, Tree, last_word, verify, working_keys};
use crate::support::{Run, content, noise, run, text};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use stillpoint_testkit::{Random, with_label};

const KILLS: usize = 100;
const UNTIL_AT_FIRST: Duration = Duration::from_millis(30);
/// Worlds that are worked on at the same time, each with its own seed.
const WORLDS: u64 = 2;
/// Snapshots that a world keeps at most.
const SNAPSHOTS_MAX: usize = 5;

/// A command that can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Init,
    Snapshot,
    Stream,
    Forget,
    Undelete,
    Protect,
    Prune,
    KeyAdd,
    KeyPasswd,
    KeyRotate,
}

struct World {
    lab: Lab,
    random: Random,
    expected: Expected,
    /// Snapshots that were forgotten since the last prune, and what they hold.
    forgotten: BTreeMap<String, Tree>,
    /// Until when each command is killed, at random: longer after each kill that met it, shorter after each that did
    /// not, so that about half of them do.
    durations: BTreeMap<Step, Duration>,
    secrets: usize,
    kills: usize,
}

/// A command, and what must be true once it is done.
struct Planned {
    arguments: Vec<String>,
    after: State,
    /// What its snapshot holds.
    tree: Option<Tree>,
    /// The snapshot that it protects.
    protected: Option<String>,
}

/// What a killed command printed, and whether the kill met it.
struct Outcome {
    said: Option<serde_json::Value>,
    killed: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let lab = Lab::new();
        let mut expected = Expected::default();
        expected.before.keys = lab.keys.clone();
        Self {
            lab,
            random: Random::new(seed),
            expected,
            forgotten: BTreeMap::new(),
            durations: BTreeMap::new(),
            secrets: 0,
            kills: 0,
        }
    }

    fn live(&mut self) -> &mut BTreeMap<String, Tree> {
        self.expected.before.live.as_mut().expect("there is a repository")
    }

    fn choose(&mut self) -> Step {
        let Some(live) = &self.expected.before.live else { return Step::Init };
        let may_forget = live.len() > 1;
        loop {
            let step = match self.random.below(20) {
                0..7 => Step::Snapshot,
                7 => Step::Stream,
                8..10 => Step::Forget,
                10 => Step::Protect,
                11..13 => Step::Undelete,
                13..17 => Step::Prune,
                17 => Step::KeyAdd,
                18 => Step::KeyPasswd,
                _ => Step::KeyRotate,
            };
            let possible = match step {
                Step::Forget | Step::Protect => may_forget,
                Step::Undelete => !self.forgotten.is_empty(),
                _ => true,
            };
            if possible {
                return step;
            }
        }
    }

    /// Changes a few files of the source; gives all of them.
    fn edit(&mut self) -> Tree {
        for _ in 0..1 + self.random.below(3) {
            let name = format!("dir-{}/file-{}", self.random.below(3), self.random.below(6));
            let len = self.random.index(80_000);
            self.lab.place.file(name, &noise(self.random.next_u64(), len));
        }
        content(&self.lab.place.source()).into_iter().collect()
    }

    /// What a command is given, and what must be true once it is done.
    fn plan(&mut self, step: Step) -> Planned {
        let mut after = self.expected.before.clone();
        let live = after.live.get_or_insert_default();
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<String>>();
        let (mut tree, mut protected) = (None, None);
        let mut random = self.random.fork();
        let mut any = |ids: Vec<&String>| (*random.pick(&ids)).clone();
        let arguments = match step {
            Step::Init => words("init"),
            Step::Snapshot => {
                tree = Some(self.edit());
                vec!["snapshot".into(), self.lab.source()]
            }
            // A stream beside the files, so that there is a command to be killed together with its reader.
            Step::Stream => {
                tree = Some(self.edit());
                let stream = "x=head -c 300000 /dev/zero".into();
                vec!["snapshot".into(), "--command".into(), stream, self.lab.source()]
            }
            Step::Forget => {
                let id = any(live.keys().collect());
                live.remove(&id);
                vec!["forget".into(), id]
            }
            Step::Protect => {
                let id = any(live.keys().collect());
                protected = Some(id.clone());
                vec!["protect".into(), id]
            }
            Step::Undelete => {
                let id = any(self.forgotten.keys().collect());
                live.insert(id.clone(), self.forgotten[&id].clone());
                vec!["undelete".into(), id]
            }
            Step::Prune => {
                self.forgotten.clear();
                words("prune --now --max-unused 0%")
            }
            Step::KeyAdd | Step::KeyPasswd | Step::KeyRotate => {
                self.plan_key(step, &mut after.keys)
            }
        };
        Planned { arguments, after, tree, protected }
    }

    /// A change of keys: a new key file is added, replaces the one in use, or replaces all.
    fn plan_key(&mut self, step: Step, keys: &mut Vec<PathBuf>) -> Vec<String> {
        self.secrets += 1;
        let name = format!("secret-{}", self.secrets);
        let path = self.lab.place.secret(&name, &noise(self.random.next_u64(), 64));
        let verb = match step {
            Step::KeyAdd => "add",
            Step::KeyPasswd => {
                keys.pop();
                "passwd"
            }
            _ => {
                keys.clear();
                "rotate"
            }
        };
        keys.push(path.clone());
        let mut arguments = vec!["key".into(), verb.into()];
        if step == Step::KeyRotate {
            arguments.push("--drop-other-keys".into());
        }
        arguments.extend(["--new-key-file".into(), path.display().to_string()]);
        arguments
    }

    /// Runs one command and kills it at a random moment; then everything that was acknowledged must hold.
    fn step(&mut self) {
        let step = self.choose();
        let Planned { arguments, mut after, tree, protected } = self.plan(step);
        let outcome = self.kill(step, &arguments);
        if let (Some(said), Some(tree)) = (&outcome.said, &tree) {
            let live = after.live.get_or_insert_default();
            live.insert(text(said, "snapshot_id"), tree.clone());
        }
        let was_said = outcome.said.is_some();
        self.expected.after = after;
        self.expected.perhaps = tree;
        self.kills += usize::from(outcome.killed);
        let what = format!("kill {}: {step:?}, said {was_said}", self.kills);
        with_label(what, || self.settle(was_said));
        if let Some(id) = protected {
            self.lab.done(&["unprotect", &id]);
        }
    }

    /// Verifies, and takes what is there now for what is known.
    fn settle(&mut self, was_said: bool) {
        let (disk, source) = (self.lab.disk(), self.lab.place.source());
        // The command itself comes first: nothing has been opened, swept or mended by anybody else.
        let key = working_keys(&disk.join("repository"), &self.expected);
        if let Some(key) = key.last() {
            let mut check = self.lab.stillpoint(&disk, &["check", "--read-data"]);
            check.env("STILLPOINT_KEY_FILE", key);
            run(&mut check).with_code(0);
        }
        let found = verify(&disk, &source, &self.expected, was_said).unwrap();
        let (before, after) = (&self.expected.before, &self.expected.after);
        for live in before.live.iter().chain(after.live.iter()) {
            let gone = live.iter().filter(|(id, _)| !found.contains_key(*id));
            self.forgotten.extend(gone.map(|(id, tree)| (id.clone(), tree.clone())));
        }
        self.forgotten.retain(|id, _| !found.contains_key(id));
        self.expected.before.live = Some(found);
        let working = working_keys(&disk.join("repository"), &self.expected);
        self.expected.before.keys = working;
        self.lab.keys = self.expected.before.keys.clone();
        while self.live().len() > SNAPSHOTS_MAX {
            let (id, tree) = self.live().pop_first().expect("there are some");
            self.lab.done(&["forget", &id]);
            self.forgotten.insert(id, tree);
        }
    }

    fn kill(&mut self, step: Step, arguments: &[String]) -> Outcome {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = self.lab.stillpoint(&self.lab.disk(), &arguments);
        command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
        let until = *self.durations.entry(step).or_insert(UNTIL_AT_FIRST);
        let mut child = command.spawn().unwrap();
        // The moment of the kill is the point, not a wait for something.
        thread::sleep(until * u32::try_from(self.random.below(1000)).unwrap() / 1000);
        child.kill().unwrap();
        let run = Run::from(child.wait_with_output().unwrap());
        let killed = run.code.is_none();
        assert!(killed || run.code == Some(0), "{step:?}: {run:#?}");
        self.durations.insert(step, if killed { until * 5 / 4 } else { until * 3 / 4 });
        assert!(!run.stderr.contains("panicked"), "{run:#?}");
        Outcome { said: last_word(&run.stdout), killed }
    }
}

// Whatever is killed whenever: nothing acknowledged is lost, nothing has to be unlocked, and a check is clean.
#[test]
fn kills_at_random_moments() {
    let wanted = std::env::var("STILLPOINT_KILLS").map_or(KILLS, |number| number.parse().unwrap());
    let share = wanted.div_ceil(usize::try_from(WORLDS).unwrap());
    let worlds: Vec<_> = (0..WORLDS)
        .map(|seed| {
            thread::spawn(move || {
                with_label(format!("world {seed}"), || {
                    let mut world = World::new(seed);
                    let mut steps = 0;
                    while world.kills < share {
                        world.step();
                        steps += 1;
                        assert!(steps < 100 + 10 * share, "hardly any kill meets its process");
                    }
                    (world.kills, steps)
                })
            })
        })
        .collect();
    let done: Vec<(usize, usize)> = worlds.into_iter().map(|world| world.join().unwrap()).collect();
    let (kills, steps) = done.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    eprintln!("{kills} processes killed in {steps} commands");
    assert!(kills >= wanted);
}

// A new repository, killed at random moments: the next init succeeds, or the repository is there.
#[test]
fn kills_of_init() {
    let wanted = std::env::var("STILLPOINT_KILLS").map_or(KILLS, |number| number.parse().unwrap());
    let mut random = Random::new(3);
    let (mut kills, mut durations) = (0, BTreeMap::new());
    for round in 0..wanted.div_ceil(4) {
        let mut world = World::new(random.next_u64());
        world.durations = durations;
        with_label(format!("round {round}"), || world.step());
        durations = world.durations;
        kills += world.kills;
    }
    eprintln!("init was killed {kills} times");
    assert!(kills * 20 > wanted, "hardly any kill met init");
}
