//! The committed fuzz corpus, replayed without a fuzzer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use stillpoint_testkit::fuzz::{TARGETS, seeds};

/// Edited inputs for each target.
const EXECUTIONS: u64 = 3000;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// No input of the corpus breaks a property, and each seed is still accepted: the corpus reaches the inside of the
/// parsers, and what was written once is still read.
#[test]
fn corpus() {
    for (target, body) in TARGETS {
        let folder = fuzz().join("corpus").join(target);
        let mut seeds = 0;
        for file in
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = file.unwrap().path();
            let accepted = body(&fs::read(&path).unwrap());
            if path.file_name().unwrap().to_str().unwrap().starts_with("seed-") {
                assert!(accepted, "{} is refused", path.display());
                seeds += 1;
            }
        }
        assert!(seeds > 0, "{target} has no seed");
    }
}

/// The writers still write the committed seeds, byte for byte. A deliberate change of format runs this with
/// `STILLPOINT_WRITE_SEEDS=1` once, and says so in FORMAT.md.
#[test]
fn seeds_are_what_the_writers_write() {
    let write = std::env::var_os("STILLPOINT_WRITE_SEEDS").is_some();
    for (target, name, bytes) in seeds() {
        let path = fuzz().join("corpus").join(target).join(name);
        if write {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let committed =
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(committed == bytes, "{} is not what is written today", path.display());
    }
}

/// Each target has its file for cargo-fuzz and its entry in the manifest, and there are no others.
#[test]
fn targets() {
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for (target, _) in TARGETS {
        let text = fs::read_to_string(fuzz().join(format!("fuzz_targets/{target}.rs"))).unwrap();
        assert!(
            text.contains(&format!("fuzz::{target}(data)")),
            "{target}.rs calls something else"
        );
        assert!(
            manifest.contains(&format!("name = \"{target}\"\n")),
            "{target} is not in fuzz/Cargo.toml"
        );
    }
    assert_eq!(fs::read_dir(fuzz().join("fuzz_targets")).unwrap().count(), TARGETS.len());
}

/// Every prefix of every seed, and every seed with one byte changed (each byte of a short one, a sample of a long
/// one), is refused or accepted without a panic.
#[test]
fn near_seeds() {
    for (target, name, bytes) in seeds() {
        let body = TARGETS.iter().find(|found| found.0 == target).unwrap().1;
        let step = 1 + bytes.len() / 400;
        for place in (0..bytes.len()).step_by(step) {
            body(&bytes[..place]);
            for flip in [1, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[place] ^= flip;
                body(&changed);
            }
        }
        assert!(body(&bytes), "{target}/{name} is refused");
    }
}

/// Thousands of edited inputs break no property. `STILLPOINT_FUZZ_SECONDS` lets each target run so long instead, with
/// a seed from `STILLPOINT_FUZZ_SEED`.
#[test]
fn mutations() {
    let number = |variable: &str| -> Option<u64> {
        std::env::var(variable).ok().map(|text| text.parse().unwrap())
    };
    let seconds = number("STILLPOINT_FUZZ_SECONDS").map(Duration::from_secs);
    let seed = number("STILLPOINT_FUZZ_SEED").unwrap_or(1);
    for (target, body) in TARGETS {
        let folder = fs::read_dir(fuzz().join("corpus").join(target)).unwrap();
        let mut corpus: Vec<_> = folder.map(|file| file.unwrap().path()).collect();
        corpus.sort();
        let corpus: Vec<Vec<u8>> = corpus.iter().map(|path| fs::read(path).unwrap()).collect();
        let begun = Instant::now();
        let go_on = |executions| match seconds {
            Some(seconds) => begun.elapsed() < seconds,
            None => executions < EXECUTIONS,
        };
        let done = stillpoint_testkit::fuzz::fuzz(body, &corpus, seed, go_on);
        let took = begun.elapsed().as_secs_f64();
        eprintln!(
            "{target}: {} executions, {} accepted, {took:.1} s",
            done.executions, done.accepted
        );
        assert!(done.accepted > 0, "{target} accepts nothing");
    }
}
