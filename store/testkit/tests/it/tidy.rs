//! The habits that a compiler does not keep: who imports whom, file sizes, module documentation, words.
//!
//! Reads the checkout's own files. A rule that must be broken is broken in a table here, with its reason.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What stands at the top of the checkout, besides hidden files.
const TOP_LEVEL: [&str; 21] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "FORMAT.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "benches",
    "chunker",
    "cli",
    "clippy.toml",
    "deny.toml",
    "docs",
    "fuzz",
    "rustfmt.toml",
    "server",
    "store",
    "target",
];

/// Which of our own crates a crate may import, as in ARCHITECTURE.md.
const LAYERS: [(&str, &[&str]); 12] = [
    ("chunker", &[]),
    ("store", &["chunker"]),
    ("store/rocks", &["store"]),
    ("store/archive", &["store", "chunker"]),
    ("store/capture", &["archive", "store"]),
    ("store/testkit", &["store", "archive", "chunker"]),
    ("server/wire", &["store"]),
    ("server/client", &["wire", "store"]),
    ("server", &["wire", "client", "capture", "archive", "rocks", "store", "chunker"]),
    ("cli", &["server", "client", "wire", "capture", "archive", "rocks", "store", "chunker"]),
    ("benches", &["client", "wire", "capture", "archive", "rocks", "store", "chunker"]),
    ("fuzz", &["testkit"]),
];

/// Longest source file, tests not counted.
const LINES_MAX: usize = 400;
/// Files that are longer, each with its reason.
const LONGER: [(&str, usize, &str); 4] = [
    ("store/archive/src/entry/codec.rs", 500, "writing and reading a field stand side by side"),
    (
        "store/archive/src/target/metadata.rs",
        450,
        "one call of the kernel after another, in their order",
    ),
    ("store/src/pack/footer.rs", 450, "writing and reading a field stand side by side"),
    ("store/src/pack/frame.rs", 450, "sealing and opening a frame stand side by side"),
];

/// Crates that may print.
const MAY_PRINT: [&str; 4] = ["cli", "benches", "fuzz", "store/testkit"];

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the checkout exists")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file of the checkout with one of these extensions, relative to its root; nothing that was built.
fn files(extensions: &[&str]) -> Vec<PathBuf> {
    let (root, mut found) = (root(), Vec::new());
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir()
                && !name.starts_with("target")
                && !matches!(name, ".git" | "corpus" | "artifacts")
            {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|found| extensions.iter().any(|wanted| found == *wanted))
            {
                found.push(path.strip_prefix(&root).unwrap().to_path_buf());
            }
        }
    }
    assert!(!found.is_empty(), "no file ends in {extensions:?}");
    found.sort();
    found
}

/// Our own crates named in one section of a manifest, without their prefix.
fn imports(manifest: &str, section: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim() == section;
        }
        if let Some(rest) = line.strip_prefix("stillpoint-").filter(|_| inside) {
            found.push(rest.split(['.', ' ', '=']).next().unwrap().to_string());
        }
    }
    found
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// Test code: in a `tests` folder, or a module file of its own.
fn is_test(path: &Path) -> bool {
    let text = path.to_str().unwrap();
    text.contains("/tests/") || text.ends_with("tests.rs") || text.ends_with("test_env.rs")
}

/// The lines before an inline test module.
fn without_tests(text: &str) -> &str {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    &text[..end]
}

/// No crate imports more than its layer allows; only testkit and the crate's own layer may be added for tests.
#[test]
fn layers() {
    let mut problems = Vec::new();
    for (folder, allowed) in LAYERS {
        let path = root().join(folder).join("Cargo.toml");
        let manifest = read(&path);
        for import in imports(&manifest, "[dependencies]") {
            if !allowed.contains(&import.as_str()) {
                problems.push(format!("{folder} must not import {import}"));
            }
        }
        for import in imports(&manifest, "[dev-dependencies]") {
            if import != "testkit" && !allowed.contains(&import.as_str()) {
                problems.push(format!("{folder} must not import {import}, not even for tests"));
            }
        }
    }
    let workspace = read(&root().join("Cargo.toml"));
    let members: Vec<&str> =
        LAYERS.iter().map(|layer| layer.0).filter(|folder| *folder != "fuzz").collect();
    for member in &members {
        assert!(
            workspace.contains(&format!("\"{member}\"")),
            "{member} is no member of the workspace"
        );
    }
    let manifests = files(&["toml"]).iter().filter(|path| path.ends_with("Cargo.toml")).count();
    assert_eq!(manifests, LAYERS.len() + 1, "a crate is missing in the table of layers");
    report(&problems);
}

/// The checker sees an import: a manifest that breaks the table is reported.
#[test]
fn layers_are_seen() {
    let manifest = "[dependencies]\nstillpoint-rocks.workspace = true\nserde = \"1\"\n[dev-dependencies]\nstillpoint-testkit = { path = \"x\" }\n";
    assert_eq!(imports(manifest, "[dependencies]"), ["rocks"]);
    assert_eq!(imports(manifest, "[dev-dependencies]"), ["testkit"]);
}

/// The top level holds what is agreed and nothing else.
#[test]
fn top_level() {
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with('.') || TOP_LEVEL.contains(&name.as_str()),
            "{name} does not belong at the top level"
        );
    }
}

/// A file is one noun: at most 400 lines without its tests.
#[test]
fn file_sizes() {
    let longer: BTreeMap<&str, usize> =
        LONGER.iter().map(|(path, lines, _)| (*path, *lines)).collect();
    let mut problems = Vec::new();
    for path in files(&["rs"]).iter().filter(|path| !is_test(path)) {
        let lines = without_tests(&read(&root().join(path))).lines().count();
        let most = longer.get(path.to_str().unwrap()).copied().unwrap_or(LINES_MAX);
        if lines > most {
            problems.push(format!("{}: {lines} lines, at most {most}", path.display()));
        }
    }
    report(&problems);
}

/// Every source file starts by saying what it owns.
#[test]
fn module_documentation() {
    let undocumented = |path: &&PathBuf| {
        let text = read(&root().join(path));
        let first = text.lines().find(|line| !line.starts_with("#!["));
        !first.is_some_and(|line| line.starts_with("//! ") && line.len() > 15)
    };
    let found = files(&["rs"]);
    let problems: Vec<_> = found
        .iter()
        .filter(|path| !is_test(path))
        .filter(undocumented)
        .map(|path| format!("{} has no //!", path.display()))
        .collect();
    report(&problems);
}

/// No test is switched off, nothing is left for later, no library prints, no machine's paths are named.
#[test]
fn words() {
    let everywhere = [
        concat!("#[ign", "ore"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
    ];
    let printing = [concat!("print", "ln!("), concat!("print", "!(")];
    let mut problems = Vec::new();
    for path in files(&["rs", "md", "toml", "sh"]) {
        let text = read(&root().join(&path));
        let may_print = is_test(&path) || MAY_PRINT.iter().any(|folder| path.starts_with(folder));
        let tests_from = without_tests(&text).lines().count();
        for (number, line) in text.lines().enumerate() {
            let prints = !may_print && number < tests_from && !line.trim_start().starts_with("//");
            let mut words = everywhere.iter().chain(printing.iter().filter(|_| prints));
            if let Some(word) = words.find(|word| line.contains(**word)) {
                problems.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    report(&problems);
}

/// Decision notes are numbered without gaps, and each says what was decided and what else was considered.
#[test]
fn decision_notes() {
    let mut notes: Vec<PathBuf> =
        files(&["md"]).into_iter().filter(|path| path.starts_with("docs/decisions")).collect();
    notes.sort();
    let mut problems = Vec::new();
    for (number, path) in notes.iter().enumerate() {
        let expected = format!("{:04}-", number + 1);
        if !path.file_name().unwrap().to_str().unwrap().starts_with(&expected) {
            problems.push(format!("{}: expected number {expected}", path.display()));
        }
        let text = read(&root().join(path));
        for heading in ["# ", "## Decision", "## Considered"] {
            if !text.lines().any(|line| line.starts_with(heading)) {
                problems.push(format!("{}: no {heading:?}", path.display()));
            }
        }
    }
    report(&problems);
}
