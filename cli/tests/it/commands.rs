//! Each option is wired to what it says.

use crate::support::{Place, content, messages, noise};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// The files of the newest snapshot, relative to the source.
#[track_caller]
fn saved(place: &Place) -> Vec<String> {
    let list = place.run(["ls", "latest"]).with_code(0);
    let root = format!("{}/", place.source().display());
    list.stdout.lines().filter_map(|line| line.strip_prefix(&root)).map(str::to_owned).collect()
}

fn tree() -> Place {
    let place = Place::new();
    place.file("a.txt", b"text");
    place.file("b.o", b"object");
    place.file("C.ISO", b"image");
    place.file("large", &noise(1, 5000));
    place.file("cache/CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55\n");
    place.file("cache/junk", b"junk");
    place.file("marked/.nobackup", b"");
    place.file("marked/secret", b"secret");
    place.file("dir/keep.o", b"kept");
    place
}

// Everything that leaves something out leaves out that and nothing else.
#[test]
fn excludes() {
    let check = |arguments: &[&str], gone: &[&str]| {
        let place = tree();
        place.secret("patterns", b"# a comment\n*.o\n!keep.o\n");
        let mut all = vec!["snapshot", "source"];
        all.extend(arguments);
        place.run(&all).with_code(0);
        let saved = saved(&place);
        let before = tree();
        before.snapshot();
        let missing: Vec<_> =
            self::saved(&before).into_iter().filter(|name| !saved.contains(name)).collect();
        assert_eq!(missing, gone, "{arguments:?}");
    };
    check(&["--exclude", "*.o"], &["b.o", "dir/keep.o"]);
    check(&["-e", "*.o", "-e", "!keep.o"], &["b.o"]);
    check(&["--iexclude", "*.iso"], &["C.ISO"]);
    check(&["--exclude-file", "patterns"], &["b.o"]);
    check(&["--exclude-caches"], &["cache/junk"]);
    check(&["--exclude-if-present", ".nobackup"], &["marked/secret"]);
    check(&["--exclude-larger-than", "4k"], &["large"]);
}

// Several paths, lists of paths, commands and standard input, all in one snapshot.
#[test]
fn everything_in_one_snapshot() {
    use std::io::Write;
    let place = Place::new();
    place.file("one/a", b"1");
    place.file("two/b", b"2");
    place.secret("list", b"# more paths\nsource/two\n");
    let arguments = [
        "snapshot",
        "source/one",
        "--files-from",
        "list",
        "--command",
        "dump.sql=echo rows",
        "--command",
        "sub/other=printf other",
        "--stdin",
        "--stdin-filename",
        "in.bin",
    ];
    let mut child =
        place.stillpoint(arguments).stdin(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&noise(3, 3_000_000)).unwrap();
    assert!(child.wait().unwrap().success());

    assert_eq!(place.run(["dump", "latest", "dump.sql"]).with_code(0).stdout, "rows\n");
    assert_eq!(place.run(["dump", "latest", "/sub/other"]).with_code(0).stdout, "other");
    place.run(["dump", "latest", "in.bin", "--target", "out.bin"]).with_code(0);
    assert!(fs::read(place.path("out.bin")).unwrap() == noise(3, 3_000_000));
    let back = place.restore("latest", "back");
    assert_eq!(content(&back).len(), 2);
    place.check();
}

// The command after two dashes is run as it stands, without a shell.
#[test]
fn a_command_after_two_dashes() {
    let place = Place::new();
    let arguments = ["snapshot", "--stdin-from-command", "--", "printf", "%s", "a  $b; c"];
    place.run(arguments).with_code(0);
    assert_eq!(place.run(["dump", "latest", "stdin"]).with_code(0).stdout, "a  $b; c");
}

// Labels, host, time and description are recorded, and the filters find them.
#[test]
fn labels() {
    let place = Place::new();
    place.file("a", b"1");
    let arguments = [
        "snapshot",
        "source",
        "--tag",
        "x,y",
        "--tag",
        "z",
        "--host",
        "web1",
        "--time",
        "2026-01-02 03:04:05",
        "--description",
        "before the move",
    ];
    place.run(arguments).with_code(0);
    place.snapshot();
    let found = |arguments: &[&str]| {
        let mut all = vec!["snapshots", "--json"];
        all.extend(arguments);
        messages(&place.run(&all).with_code(0).stdout)
    };
    let labelled = found(&["--host", "web1"]).pop().unwrap();
    assert_eq!(labelled["tags"], serde_json::json!(["x", "y", "z"]));
    assert_eq!(labelled["time"], "2026-01-02T03:04:05.000000000Z");
    assert_eq!(labelled["description"], "before the move");
    assert_eq!(found(&["--tag", "x,z"]).len(), 1);
    assert_eq!(found(&["--tag", "x,other"]).len(), 0);
    assert_eq!(found(&["--path", place.source().to_str().unwrap()]).len(), 2);
    assert_eq!(found(&["--latest", "1"]).len(), 2, "two hosts");
}

// Dry runs change nothing; an unchanged source takes no snapshot if asked.
#[test]
fn runs_without_a_snapshot() {
    let place = Place::new();
    place.file("a", &noise(1, 100_000));
    let before = content(&place.repository());
    place.run(["snapshot", "source", "--dry-run"]).with_code(0).prints("dry run");
    assert!(content(&place.repository()) == before, "the repository changed");
    // A stream with a fixed time: the directories above a path may change at any moment.
    let snapshot = |output: &str| {
        let command = format!("out=echo {output}");
        let time = "2026-01-01 00:00:00";
        place.run(["snapshot", "--command", &command, "--time", time, "--skip-if-unchanged"])
    };
    snapshot("one").with_code(0).prints("saved in");
    snapshot("one").with_code(0).prints("nothing changed");
    assert_eq!(place.ids().len(), 1);
    snapshot("two").with_code(0).prints("saved in");
    assert_eq!(place.ids().len(), 2);
}

// Compression is as asked; all of it restores.
#[test]
fn compression() {
    let size = |how: &str| {
        let place = Place::new();
        place.file("a", "so much alike, ".repeat(50_000).as_bytes());
        place.run(["snapshot", "source", "--compression", how]).with_code(0);
        assert_eq!(content(&place.restore("latest", "back")), content(&place.source()));
        let packs = content(&place.repository().join("packs"));
        packs.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
    };
    let (off, auto) = (size("off"), size("auto"));
    assert!(auto * 5 < off, "off {off}, auto {auto}");
    for how in ["fast", "max", "5", "-3"] {
        assert!(size(how) * 5 < off, "{how}");
    }
}

// Signs of diff, with and without metadata.
#[test]
fn diff_signs() {
    let place = Place::new();
    for name in ["gone", "edited", "touched", "retyped", "same"] {
        place.file(name, b"content");
    }
    place.snapshot();
    fs::remove_file(place.source().join("gone")).unwrap();
    place.file("edited", b"other content");
    let touched = place.source().join("touched");
    fs::set_permissions(touched, fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(place.source().join("retyped")).unwrap();
    fs::create_dir(place.source().join("retyped")).unwrap();
    place.file("added", b"new");
    place.snapshot();

    let signs = |arguments: &[&str]| {
        let root = place.source().display().to_string();
        let (before, after) = (format!("latest~1:{root}"), format!("latest:{root}"));
        let mut all = vec!["diff", "-q", &before, &after];
        all.extend(arguments);
        let run = place.run(&all).with_code(0);
        let lines = run.stdout.lines().map(|line| line.replace(&format!(" {root}"), ""));
        lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(signs(&[]), ["+ /added", "M /edited", "- /gone", "T /retyped/"]);
    let with_metadata = ["U /", "+ /added", "MU /edited", "- /gone", "T /retyped/", "U /touched"];
    assert_eq!(signs(&["--metadata"]), with_metadata);
}

// What happens to what is there already.
#[test]
fn overwrite() {
    let place = Place::new();
    place.file("a", b"saved");
    place.snapshot();
    let check = |how: &[&str], there: &[u8], expected: &[u8]| {
        let target = place.path("target");
        fs::create_dir_all(&target).unwrap();
        fs::write(target.join("a"), there).unwrap();
        fs::write(target.join("stray"), b"stray").unwrap();
        let spec = format!("latest:{}", place.source().display());
        let mut all = vec!["restore", &spec, "--target", "target"];
        all.extend(how);
        place.run(&all).with_code(0);
        assert_eq!(fs::read(target.join("a")).unwrap(), expected, "{how:?}");
        assert_eq!(target.join("stray").exists(), !how.contains(&"--delete"), "{how:?}");
        fs::remove_dir_all(target).unwrap();
    };
    check(&[], b"other", b"saved");
    check(&["--overwrite", "never"], b"other", b"other");
    check(&["--overwrite", "if-newer"], b"other", b"other");
    check(&["--overwrite", "if-changed"], b"different length", b"saved");
    check(&["--delete"], b"other", b"saved");
    check(&["--dry-run", "--verify"], b"other", b"other");
}

// Parts of a snapshot, by path and by pattern.
#[test]
fn restore_parts() {
    let place = Place::new();
    place.file("docs/a.txt", b"1");
    place.file("docs/b.log", b"2");
    place.file("code/c.rs", b"3");
    place.snapshot();
    let restored = |arguments: &[&str]| {
        let target = place.path("part");
        let mut all = vec!["restore", "--target", "part"];
        all.extend(arguments);
        place.run(&all).with_code(0);
        let names = content(&target).into_iter().map(|(path, _)| path.display().to_string());
        let names: Vec<_> = names.collect();
        fs::remove_dir_all(target).unwrap();
        names
    };
    let all = format!("latest:{}", place.source().display());
    assert_eq!(restored(&[&format!("{all}/docs")]), ["a.txt", "b.log"]);
    assert_eq!(restored(&[&format!("{all}/docs/a.txt")]), ["a.txt"]);
    assert_eq!(restored(&[&all, "--include", "*.rs"]), ["code/c.rs"]);
    assert_eq!(restored(&[&all, "--exclude", "*.log"]), ["code/c.rs", "docs/a.txt"]);
}

// Holes stay holes, and runs of zeros become holes if asked.
#[test]
fn sparse_restore() {
    let place = Place::new();
    place.file("zeros", &vec![0; 4 << 20]);
    place.snapshot();
    let spec = format!("latest:{}", place.source().display());
    place.run(["restore", &spec, "--target", "sparse", "--sparse"]).with_code(0);
    let metadata = fs::metadata(place.path("sparse/zeros")).unwrap();
    assert_eq!(metadata.len(), 4 << 20);
    assert!(metadata.blocks() < 1024, "{} blocks", metadata.blocks());
}

// A directory comes out of dump as a tar archive that tar understands.
#[test]
fn dump_a_directory() {
    let place = Place::new();
    place.file("docs/a", &noise(1, 70_000));
    place.file("docs/sub/b", b"2");
    place.snapshot();
    let spec = format!("latest:{}", place.source().display());
    place.run(["dump", &spec, "docs", "--target", "docs.tar"]).with_code(0);
    let mut tar = std::process::Command::new("tar");
    let status = tar.arg("xf").arg(place.path("docs.tar")).arg("-C").arg(place.path("")).status();
    assert!(status.unwrap().success());
    assert!(fs::read(place.path("a")).unwrap() == noise(1, 70_000));
    assert_eq!(fs::read(place.path("sub/b")).unwrap(), b"2");
}

// Retention through the command line: a dry run changes nothing, the real run does what it showed.
#[test]
fn forget_and_prune() {
    let place = Place::new();
    for (day, seed) in ["2026-01-01", "2026-01-02", "2026-01-03"].iter().zip(1..) {
        place.file("a", &noise(seed, 200_000));
        place.run(["snapshot", "source", "--time", day]).with_code(0);
    }
    let ids = place.ids();
    let show = place.run(["forget", "--keep-last", "1", "-n"]).with_code(0);
    assert_eq!(show.stdout.matches("no rule keeps it").count(), 2, "{show:#?}");
    assert_eq!(place.ids(), ids);
    place.run(["forget", &ids[0][..8]]).with_code(0);
    assert_eq!(place.ids(), ids[1..]);
    place
        .run(["forget", "--keep-last", "1", "--prune", "--keep-forgotten", "0s", "--grace", "0s"])
        .with_code(0);
    assert_eq!(place.ids(), ids[2..]);
    place.run(["prune", "--keep-forgotten", "0s", "--grace", "0s"]).with_code(0);
    let packs = content(&place.repository().join("packs"));
    let stored: usize = packs.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(stored < 400_000, "{stored} bytes are left of three times 200,000");
    assert_eq!(content(&place.restore("latest", "back")), content(&place.source()));
    place.check();
}

// Found in all snapshots, by name and by path, with and without regard to case.
#[test]
fn find_names() {
    let place = Place::new();
    place.file("docs/Report.odt", b"1");
    place.snapshot();
    place.file("docs/other", b"2");
    place.snapshot();
    let count = |arguments: &[&str]| {
        let mut all = vec!["find", "-q"];
        all.extend(arguments);
        place.run(&all).with_code(0).stdout.lines().count()
    };
    assert_eq!(count(&["Report.odt"]), 2);
    assert_eq!(count(&["report.*"]), 0);
    assert_eq!(count(&["-i", "report.*"]), 2);
    assert_eq!(count(&["-s", "latest", "Report.odt"]), 1);
    assert_eq!(count(&["**/docs/other"]), 1);
    assert_eq!(count(&["--newest", "2000-01-01", "Report.odt"]), 0);
}
