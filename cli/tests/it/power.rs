//! Power cuts while the real binary works on a real directory.
//!
//! Its system calls are recorded, and every state in which a power cut could have left the disk is laid out: what was
//! not fsynced may be there, lost, torn or zeros (see `stillpoint_testkit::power`). `STILLPOINT_POWER_IMAGES=all` takes
//! every image, a number that many of each command; `STILLPOINT_POWER_COMMANDS` as well for the real command.

use crate::crash_lab::{Expected, Lab, last_word, verify, verify_command};
use crate::strace;
use crate::support::text;
use std::collections::HashSet;
use stillpoint_testkit::power::{Action, Files, Images, PowerImage, Recording};
use stillpoint_testkit::{Random, with_label};

/// Images of each command that are verified through the library, where nothing else is asked for.
const IMAGES: usize = 100;
/// Images of each command that the real command works on.
const COMMANDS: usize = 6;
/// Random images at each moment.
const MIXTURES: usize = 2;
/// What holds nothing of worth.
const COARSE: [&str; 2] = ["repository/tmp", "cache"];

/// A recorded command.
struct Recorded {
    name: &'static str,
    recording: Recording,
    expected: Expected,
}

fn wanted(variable: &str, usual: usize) -> usize {
    match std::env::var(variable).as_deref() {
        Ok("all") => usize::MAX,
        Ok(number) => number.parse().unwrap_or_else(|_| panic!("{variable}={number}")),
        Err(_) => usual,
    }
}

fn images(recorded: &Recorded) -> Vec<PowerImage> {
    let mut images = Vec::new();
    Images::new(&recorded.recording, &COARSE, MIXTURES).each(|image| images.push(image));
    images
}

/// A seeded choice, in their order.
fn some(mut images: Vec<PowerImage>, count: usize, seed: u64) -> Vec<PowerImage> {
    let mut random = Random::new(seed);
    while images.len() > count {
        images.remove(random.index(images.len()));
    }
    images
}

/// True when the command had said that it is done.
fn was_said(image: &PowerImage) -> bool {
    last_word(&image.said.concat()).is_some()
}

/// Lays out every chosen image of a command and verifies it.
fn verify_images(lab: &Lab, recorded: &Recorded) {
    // The recording saw everything: its end is what lies on the disk.
    let end = Images::new(&recorded.recording, &COARSE, 0).final_state();
    assert!(
        end == Files::load(&lab.disk()).unwrap(),
        "the recording of {} misses a change",
        recorded.name
    );
    let all = images(recorded);
    let found = all.len();
    let chosen = some(all, wanted("STILLPOINT_POWER_IMAGES", IMAGES), 1);
    let commands = wanted("STILLPOINT_POWER_COMMANDS", COMMANDS);
    for image in &chosen {
        with_label(format!("{}, {}", recorded.name, image.label), || {
            let disk = lab.lay_out(&image.files);
            verify(&disk, &lab.place.source(), &recorded.expected, was_said(image)).unwrap();
        });
    }
    let verified = chosen.len();
    let chosen = some(chosen, commands, 2);
    for image in &chosen {
        with_label(format!("command after {}, {}", recorded.name, image.label), || {
            let disk = lab.lay_out(&image.files);
            verify_command(lab, &disk, &recorded.expected, was_said(image));
        });
    }
    eprintln!(
        "{}: {found} images, {verified} verified, {} of them by the command as well",
        recorded.name,
        chosen.len()
    );
}

impl Lab {
    /// Records a command whose outcome is the lab's own state afterwards.
    fn step(
        &mut self,
        name: &'static str,
        arguments: &[&str],
        change: impl FnOnce(&mut Self, &[serde_json::Value]),
    ) -> Recorded {
        let before = self.state();
        let (said, recording) = self.record(arguments);
        change(self, &said);
        let expected = Expected { before, after: self.state(), perhaps: None };
        Recorded { name, recording, expected }
    }

    fn init(&mut self) -> Recorded {
        let mut recorded = self.step("init", &["init"], |_, _| {});
        recorded.expected.before.live = None;
        recorded
    }

    fn snapshot(&mut self, name: &'static str, files: &[(&str, u64, usize)]) -> Recorded {
        let tree = self.fill_source(files);
        let source = self.source();
        self.step(name, &["snapshot", &source], |lab, said| {
            lab.live.insert(text(said.last().unwrap(), "snapshot_id"), tree);
        })
    }

    fn forget(&mut self, id: &str) -> Recorded {
        self.step("forget", &["forget", id], |lab, _| {
            lab.live.remove(id);
        })
    }
}

const FIRST: [(&str, u64, usize); 3] = [("a", 1, 30_000), ("dir/b", 2, 50_000), ("tiny", 3, 20)];
const SECOND: [(&str, u64, usize); 3] = [("a", 1, 30_000), ("dir/c", 4, 50_000), ("tiny", 5, 20)];
const PRUNE: [&str; 7] = ["prune", "--keep-forgotten", "0s", "--grace", "0s", "--max-unused", "0%"];

// A new repository: it is there and opens once init has said so, and init can be run again before that.
#[test]
fn power_cuts_during_init() {
    if !strace::is_available() {
        return;
    }
    let mut lab = Lab::new();
    let recorded = lab.init();
    verify_images(&lab, &recorded);
}

// Snapshots: each restores byte for byte once it was told of, and the older ones always.
#[test]
fn power_cuts_during_snapshots() {
    if !strace::is_available() {
        return;
    }
    let mut lab = Lab::with_repository();
    for (name, files) in [("first snapshot", FIRST), ("second snapshot", SECOND)] {
        let recorded = lab.snapshot(name, &files);
        verify_images(&lab, &recorded);
    }
}

// Forgetting and pruning with rewriting: what was not forgotten restores, at every moment.
#[test]
fn power_cuts_during_forget_and_prune() {
    if !strace::is_available() {
        return;
    }
    let mut lab = Lab::with_repository();
    let oldest = lab.take(&FIRST);
    lab.take(&SECOND);
    let recorded = lab.forget(&oldest);
    verify_images(&lab, &recorded);
    let tree = recorded.expected.before.live.as_ref().expect("a repository")[&oldest].clone();
    let recorded = lab.step("undelete", &["undelete", &oldest], |lab, _| {
        lab.live.insert(oldest.clone(), tree);
    });
    verify_images(&lab, &recorded);
    lab.forget(&oldest);
    let recorded = lab.step("prune", &PRUNE, |_, said| {
        assert_eq!(said.last().unwrap()["packs_rewritten"], 1, "{said:?}");
    });
    verify_images(&lab, &recorded);
    let recorded = lab.step("prune again", &PRUNE, |_, _| {});
    verify_images(&lab, &recorded);
}

// Keys: one that opens is there at every moment, and one that was taken away does not come back.
#[test]
fn power_cuts_during_changes_of_keys() {
    if !strace::is_available() {
        return;
    }
    let mut lab = Lab::with_repository();
    lab.take(&FIRST);
    let second = lab.place.secret("second", b"another key file, long enough for one");
    let option = second.display().to_string();
    let recorded = lab.step("key add", &["key", "add", "--new-key-file", &option], |lab, _| {
        lab.keys.push(second.clone());
    });
    verify_images(&lab, &recorded);
    let third = lab.place.secret("third", b"a third key file, long enough as well");
    let option = third.display().to_string();
    let recorded =
        lab.step("key passwd", &["key", "passwd", "--new-key-file", &option], |lab, _| {
            lab.keys.pop();
            lab.keys.push(third.clone());
        });
    verify_images(&lab, &recorded);
    let rotate = ["key", "rotate", "--drop-other-keys"];
    let recorded = lab.step("key rotate", &rotate, |lab, _| lab.keys = vec![third.clone()]);
    verify_images(&lab, &recorded);
    let recorded = lab.snapshot("snapshot under the new key", &SECOND);
    verify_images(&lab, &recorded);
}

// The images can tell: a binary that leaves out any one fsync is caught, but for the two that repeat for safety what an
// earlier process has done already.
#[test]
fn every_fsync_of_a_snapshot_is_needed() {
    if !strace::is_available() {
        return;
    }
    let mut lab = Lab::with_repository();
    let recorded = lab.snapshot("first snapshot", &FIRST);
    let source = lab.place.source();
    let harmless: HashSet<[u8; 32]> =
        images(&recorded).into_iter().map(|image| image.fingerprint).collect();
    let (mut caught, mut missed) = (0, Vec::new());
    for number in 0.. {
        let Some((recording, left_out)) = recorded.recording.without_sync(number) else { break };
        let mutant = Recorded { name: "mutant", recording, expected: recorded.expected.clone() };
        let mut new = images(&mutant);
        new.retain(|image| !harmless.contains(&image.fingerprint));
        let is_caught = new.iter().any(|image| {
            let disk = lab.lay_out(&image.files);
            verify(&disk, &source, &mutant.expected, was_said(image)).is_err()
        });
        match is_caught {
            true => caught += 1,
            false => missed.push(left_out),
        }
    }
    eprintln!("{caught} syncs were left out and noticed");
    let repeated = ["repository/packs", "repository"];
    assert_eq!(missed, repeated.map(|folder| Action::SyncFolder(folder.into())));
    // Two packs, the record, the catalogue and the head: the file and then its folder.
    assert_eq!(caught, 10);
}
