//! The chapters of the manual are transcripts: every command in them is run, every answer compared.

use crate::support::Place;
use regex::Regex;
use std::fs;
use std::path::Path;

const CHAPTERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli");

// What the manual shows is what the program does, but for ids, times, sizes and the space between columns.
// (TRYCMD=overwrite writes what it does into the manual.)
#[test]
fn the_manual_is_true() {
    let overwrite = std::env::var_os("TRYCMD").is_some_and(|mode| mode == "overwrite");
    let temp = tempfile::tempdir().unwrap();
    let mut chapters = Vec::new();
    for entry in fs::read_dir(CHAPTERS).unwrap() {
        let chapter = entry.unwrap().path();
        let name = chapter.file_stem().unwrap().to_str().unwrap().to_owned();
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            let text = fs::read_to_string(&chapter).unwrap();
            let copy = temp.path().join(chapter.file_name().unwrap());
            fs::write(&copy, if overwrite { text } else { lenient(&text) }).unwrap();
            // Its presence makes the chapter run in a directory of its own.
            fs::create_dir(temp.path().join(format!("{name}.out"))).unwrap();
            chapters.push((chapter, copy));
        }
    }
    assert!(!chapters.is_empty());
    run(temp.path());
    if overwrite {
        for (chapter, copy) in chapters {
            fs::copy(copy, chapter).unwrap();
        }
    }
}

/// The chapter with `[..]` in its answers for what differs from run to run.
fn lenient(chapter: &str) -> String {
    let varies = Regex::new(concat!(
        r"(?:\b[0-9a-f]{8}([0-9a-f]{24})?\b",
        r"|\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{9}Z)?",
        r"|\d+(\.\d+)? (B|KiB|MiB|s|to 1)\b",
        r"|\d+\.\d+",
        r"|(inode|_packed|_added|blobs)\W+\d+",
        r"|\S+@\S+|\broot\b",
        r"|\bpacks/[0-9a-f]{2}/[0-9a-f]{32}|\d+ chunks?\b",
        // trycmd takes a backslash for a separator of paths.
        r#"|\\""#,
        // The directories above may change at any moment.
        r"|\d+ (new|changed) .* unchanged",
        r"| {2,}|-{8,})+",
    ));
    let varies = varies.unwrap();
    let mut inside = false;
    let mut out = String::new();
    for line in chapter.lines() {
        inside = if line.starts_with("```") { !inside } else { inside };
        let is_answer = inside && !line.starts_with(['$', '?', '`']);
        out.push_str(&if is_answer { varies.replace_all(line, "[..]") } else { line.into() });
        out.push('\n');
    }
    out
}

fn run(dir: &Path) {
    let set = |path: &str| dir.join(path).to_str().unwrap().to_owned();
    trycmd::TestCases::new()
        .register_bin("sh", Path::new("/bin/sh"))
        .env("PATH", format!("{}:/usr/bin:/bin", bin_dir()))
        .env("TZ", "UTC")
        .env("LC_ALL", "C.UTF-8")
        .env("HOME", set("home"))
        .env("STILLPOINT_REPOSITORY", "repository")
        .env("STILLPOINT_PASSWORD", "correct horse")
        .env("STILLPOINT_CACHE_DIR", "cache")
        .case(dir.join("*.md"))
        .run();
}

/// Where the binary lies, for the lines that the shell runs.
fn bin_dir() -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_stillpoint"));
    binary.parent().unwrap().to_str().unwrap().to_owned()
}

// Every command has a man page, and every completion script names the commands.
#[test]
fn pages_and_completions_are_made() {
    let place = Place::empty();
    place.run(["man", "--out", "man"]).with_code(0);
    for name in ["stillpoint", "stillpoint-snapshot", "stillpoint-key-add", "stillpoint-forget"] {
        let page = std::fs::read_to_string(place.path("man").join(format!("{name}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{name}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        place.run(["completions", shell]).with_code(0).prints("snapshots");
    }
}
