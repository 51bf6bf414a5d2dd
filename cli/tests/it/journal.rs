//! `journal`: started, asked, audited and ended by the binary.

use crate::support::{Place, messages};
use std::fs;

// The journal goes on in the background until it is told to end; an audit finds that it named every change.
#[test]
fn life_of_a_journal() {
    let place = Place::new();
    let journal = |arguments: &[&str]| {
        let all = ["journal", "--state-dir", "state"].into_iter().chain(arguments.iter().copied());
        place.run(all)
    };
    journal(&["status"]).with_code(1).says("no journal runs");
    journal(&["stop"]).with_code(0).prints("no journal runs");
    journal(&["start", "nowhere"]).with_code(1).says("nowhere");
    fs::create_dir_all(place.path("home/d")).unwrap();
    let started = journal(&["start", "home"]);
    if started.code != Some(0) {
        return eprintln!("skipped: {}", started.stderr);
    }
    started.prints("watches");
    journal(&["start", "home"]).with_code(1).says("already");
    journal(&["status"]).with_code(0).prints("home");
    journal(&["audit"]).with_code(0).prints("the next audit compares");
    fs::write(place.path("home/d/file"), b"1").unwrap();
    fs::rename(place.path("home/d"), place.path("home/e")).unwrap();
    let audit = journal(&["audit", "--json"]).with_code(0);
    let audit = messages(&audit.stdout);
    assert_eq!(
        (audit[0]["compared"].as_bool(), audit[0]["misses"].as_u64()),
        (Some(true), Some(0))
    );
    assert_eq!(audit[0]["changed"].as_u64(), Some(4));
    journal(&["stop"]).with_code(0).prints("has ended");
    journal(&["status"]).with_code(1);
    // Another journal knows nothing of what was kept before.
    journal(&["start", "home"]).with_code(0);
    journal(&["audit"]).with_code(0).prints("nothing to compare");
    journal(&["stop"]).with_code(0);
}
