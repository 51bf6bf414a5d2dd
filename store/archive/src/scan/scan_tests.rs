use super::*;
use crate::filter::{Filter, FilterOptions};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn rules(options: &FilterOptions) -> ScanRules {
    ScanRules { filter: Filter::new(options).unwrap(), devices: None }
}

/// Everything that a walk meets below `roots`, with this many threads reading ahead.
fn walk(roots: &[&Path], options: &FilterOptions, threads: usize) -> Vec<(Vec<u8>, Option<u64>)> {
    let keys: Vec<_> = roots.iter().map(|root| root_key(root).unwrap()).collect();
    let scan = Scan::new(stations(&keys), rules(options));
    let mut met = Vec::new();
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(|| scan.work())));
        let mut walk = scan.walk();
        while let Some(next) = walk.next() {
            met.push(match next {
                Met::Path(place) => (place.key.to_vec(), Some(place.stat.inode)),
                Met::Problem { key, .. } | Met::Gone { key } => (key.to_vec(), None),
            });
        }
        scan.stop();
    });
    met
}

/// The same by the standard library, recursively.
fn expected(path: &Path, out: &mut Vec<(Vec<u8>, Option<u64>)>) {
    use std::os::unix::fs::MetadataExt;
    let metadata = path.symlink_metadata().unwrap();
    out.push((path::key_from_path(path).unwrap(), Some(metadata.ino())));
    if metadata.is_dir() {
        let mut names: Vec<_> =
            path.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        names.iter().for_each(|name| expected(&path.join(name), out));
    }
}

fn relative(met: &[(Vec<u8>, Option<u64>)], base: &Path) -> Vec<String> {
    let base = path::key_from_path(base).unwrap();
    met.iter()
        .filter(|(key, _)| path::is_within(key, &base))
        .map(|(key, _)| {
            let rest = key.get(base.len() + 1..).unwrap_or_default();
            String::from_utf8_lossy(rest).replace('\0', "/")
        })
        .collect()
}

fn touch(base: &Path, paths: &[&str]) {
    for path in paths {
        let path = base.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"x").unwrap();
    }
}

// The walk meets exactly what is there, in ascending order of keys, however many threads read ahead; a directory
// with more names than a batch, and names that sort around the separator, included.
#[test]
fn every_path_once_and_in_order() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    touch(&base, &["a/b/c", "a.b", "a/\u{1}x", "a\u{1}", "a b/c", "z/y/x/w", "e"]);
    std::fs::create_dir(base.join("empty")).unwrap();
    std::fs::write(base.join(std::ffi::OsStr::from_bytes(b"\xff\n")), b"").unwrap();
    let large = base.join("large");
    std::fs::create_dir(&large).unwrap();
    for n in 0..listing::STAT_BATCH * 2 + 3 {
        std::fs::write(large.join(format!("{n}")), b"").unwrap();
    }
    for n in 0..40 {
        touch(&base, &[&format!("many/{n}/f"), &format!("many/{n}/g/h")]);
    }
    let mut wanted = Vec::new();
    expected(&base, &mut wanted);
    for threads in [0, 1, 4] {
        let met = walk(&[&base], &FilterOptions::default(), threads);
        assert!(met.is_sorted(), "{threads} threads");
        let parents = met.len() - wanted.len();
        assert_eq!(met[parents..], wanted, "{threads} threads");
        assert!(met[..parents].iter().all(|(key, _)| path::is_within(&wanted[0].0, key)));
        assert_eq!(met[0].0, b"", "the root directory comes first");
    }
}

// Several roots give one ascending walk with every parent once.
#[test]
fn several_roots_merge() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    touch(&base, &["one/f", "one/sub/g", "two/h", "three"]);
    let roots =
        [base.join("two"), base.join("one/sub"), base.join("three"), base.join("one/sub/g")];
    let roots: Vec<&Path> = roots.iter().map(|root| &**root).collect();
    let met = walk(&roots, &FilterOptions::default(), 2);
    assert!(met.is_sorted());
    assert_eq!(relative(&met, &base), ["", "one", "one/sub", "one/sub/g", "three", "two", "two/h"]);
}

// A root that is not there is named; the others are walked.
#[test]
fn missing_roots_are_problems() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    touch(&base, &["there/f"]);
    let met = walk(&[&base.join("gone/x"), &base.join("there")], &FilterOptions::default(), 1);
    let problems: Vec<_> = met.iter().filter(|(_, inode)| inode.is_none()).collect();
    assert_eq!(problems.len(), 2, "the path and the directory that should lead to it");
    assert_eq!(relative(&met, &base), ["", "gone", "gone/x", "there", "there/f"]);
}

// Patterns, markers, cache tags and sizes leave out what they should, and nothing else.
#[test]
fn excludes() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    touch(&base, &["build/x", "src/a.o", "src/a.c", "skip/.nobackup", "skip/deep/f"]);
    touch(&base, &["cache/data", "fake/CACHEDIR.TAG", "fake/data"]);
    std::fs::write(base.join("cache/CACHEDIR.TAG"), filter_tag()).unwrap();
    std::fs::write(base.join("huge"), vec![0; 5000]).unwrap();
    let options = FilterOptions {
        excludes: vec!["build/".into(), "*.o".into()],
        if_present: vec![".nobackup".into()],
        caches: true,
        larger_than: Some(4999),
        ..Default::default()
    };
    let met = walk(&[&base], &options, 2);
    let wanted = [
        "",
        "cache",
        "cache/CACHEDIR.TAG",
        "fake",
        "fake/CACHEDIR.TAG",
        "fake/data",
        "skip",
        "skip/.nobackup",
        "src",
        "src/a.c",
    ];
    assert_eq!(relative(&met, &base), wanted);
    let counted = estimate(&[root_key(&base).unwrap()], &rules(&options), &|_| true).unwrap();
    assert!(counted.entries >= u64::try_from(met.len() - 1).unwrap());
}

fn filter_tag() -> Vec<u8> {
    [crate::filter::CACHE_SIGNATURE, b"\n# made by a test\n"].concat()
}

// A tree deeper than PATH_MAX is walked to its end, with few descriptors open.
#[test]
fn deeper_than_path_max() {
    const LEVELS: usize = 400;
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let name = "n".repeat(50);
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let mode = rustix::fs::Mode::RWXU;
    let mut dir = rustix::fs::open(&base, flags, mode).unwrap();
    for _ in 0..LEVELS {
        rustix::fs::mkdirat(&dir, &*name, mode).unwrap();
        rustix::fs::mkdirat(&dir, "zz", mode).unwrap();
        dir = rustix::fs::openat(&dir, &*name, flags, mode).unwrap();
    }
    for threads in [0, 3] {
        let met = walk(&[&base], &FilterOptions::default(), threads);
        assert!(met.iter().all(|(_, inode)| inode.is_some()));
        let below = relative(&met, &base);
        assert_eq!(below.len(), 1 + 2 * LEVELS);
        assert!(below.iter().any(|path| path.len() > 20_000));
    }
    remove_deep(&base, &name);
}

/// The standard library removes by descriptors too, but keeps one open for each level.
fn remove_deep(base: &Path, name: &str) {
    let top = base.join(name);
    while top.exists() {
        // Pull the second level up, then drop the emptied first one.
        let second = top.join(name);
        let aside = base.join("aside");
        if second.exists() {
            std::fs::rename(&second, &aside).unwrap();
        }
        std::fs::remove_dir_all(&top).unwrap();
        if aside.exists() {
            std::fs::rename(&aside, &top).unwrap();
        }
    }
}

// Whoever consumes nothing is run ahead of by a bounded amount.
#[test]
fn the_look_ahead_is_bounded() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let dirs = ahead::LOOKAHEAD_BATCHES_MAX * 2;
    (0..dirs).for_each(|n| std::fs::create_dir(base.join(format!("{n}"))).unwrap());
    let workers = 3;
    let scan = Scan::new(stations(&[root_key(&base).unwrap()]), rules(&FilterOptions::default()));
    std::thread::scope(|scope| {
        (0..workers).for_each(|_| drop(scope.spawn(|| scan.work())));
        let mut walk = scan.walk();
        // The second step below the root takes its listing, which gives the workers something to do.
        while !matches!(walk.next(), Some(Met::Path(place)) if place.key.ends_with(b"\x000")) {}
        let ready = loop {
            let (ready, idle) = scan.ahead.ready_and_idle();
            if idle == workers && ready > 0 {
                break ready;
            }
            std::thread::yield_now();
        };
        let most = ahead::LOOKAHEAD_BATCHES_MAX;
        assert!((most..most + workers).contains(&ready), "{ready} batches");
        let mut rest = 0;
        while walk.next().is_some() {
            rest += 1;
        }
        assert_eq!(rest, dirs - 1);
        scan.stop();
    });
}
