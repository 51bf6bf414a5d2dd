//! `parity`: what is covered, and what happens when something is damaged.

use crate::support::{Place, messages, noise, text};
use std::fs;
use std::path::PathBuf;

fn place() -> Place {
    let place = Place::new();
    for number in 0..3 {
        place.file(format!("{number}"), &noise(number + 1, 300_000));
        place.snapshot();
    }
    place
}

fn packs(place: &Place) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for shard in fs::read_dir(place.repository().join("packs")).unwrap() {
        found.extend(
            fs::read_dir(shard.unwrap().path()).unwrap().map(|entry| entry.unwrap().path()),
        );
    }
    found.sort();
    found
}

fn parity(place: &Place) -> usize {
    fs::read_dir(place.repository().join("parity")).unwrap().count()
}

#[track_caller]
fn summary(place: &Place, arguments: &[&str], code: i32) -> serde_json::Value {
    let run = place.run([&["--json", "parity"], arguments].concat()).with_code(code);
    messages(&run.stdout).pop().expect("there is a summary")
}

// Added once, shown, added again for what is new, given up by id and all together.
#[test]
fn parity_is_added_shown_and_given_up() {
    let place = place();
    let planned = summary(&place, &["add", "--data", "4", "--dry-run"], 0);
    assert_eq!((&planned["groups"], parity(&place)), (&2.into(), 0));
    let added = summary(&place, &["add", "--data", "4"], 0);
    for field in ["groups", "packs", "bytes_covered", "bytes_parity"] {
        assert_eq!(added[field], planned[field], "{field}");
    }
    assert_eq!(parity(&place), 4);
    place.run(["parity", "add", "--data", "4"]).with_code(0).prints("nothing to add");
    place.file("new", &noise(9, 100_000));
    place.snapshot();
    let status = summary(&place, &["status"], 0);
    assert_eq!((&status["packs_covered"], &status["packs_uncovered"]), (&6.into(), &2.into()));
    assert_eq!(summary(&place, &["add"], 0)["packs"], 2);

    let list = place.run(["--json", "parity", "status"]).with_code(0);
    let groups: Vec<_> = messages(&list.stdout)
        .into_iter()
        .filter(|message| message["message_type"] == "parity_group")
        .collect();
    assert!(groups.iter().all(|group| group["survives"] == 2 && group["complete"] == true));
    let id = text(&groups[0], "id");
    place.run(["parity", "remove", &id[..6]]).with_code(0).prints("removed 1 group");
    place.run(["parity", "remove", &id]).with_code(1).says("no parity group begins");
    assert_eq!(summary(&place, &["remove"], 0)["groups"], 0);
    assert_eq!(summary(&place, &["remove", "--all"], 0)["groups"], 2);
    assert_eq!(parity(&place), 0);
    place.check();
}

// A damaged pack is named, gets no parity, and the code is 3; the others are covered.
#[test]
fn damaged_packs_are_named() {
    let place = place();
    let pack = packs(&place).swap_remove(0);
    let mut bytes = fs::read(&pack).unwrap();
    bytes[200] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let name = pack.strip_prefix(place.repository()).unwrap().to_str().unwrap().to_owned();
    let run = place.run(["parity", "add"]).with_code(3);
    assert!(run.stdout.contains(&format!("damage: {name}: ")), "{run:#?}");
    let status = place.run(["parity", "status"]).with_code(0);
    assert!(status.stdout.contains("1 pack (") && status.stdout.contains("not covered"));
}

// What cannot be is refused as a wrong command line, or with a hint.
#[test]
fn impossible_groups_are_refused() {
    let place = Place::new();
    place.run(["parity", "add", "--data", "0"]).with_code(2).says("1..=128");
    place.run(["parity", "add", "--parity", "33"]).with_code(2).says("1..=32");
    place.run(["parity", "remove", "--all", "ab"]).with_code(2);
    place.run(["parity", "remove", "ab"]).with_code(1).says("parity status");
}
