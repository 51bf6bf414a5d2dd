//! Freezing real files on real file systems, with real writers.

use super::*;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command};
use stillpoint_archive::path::{is_within, key_from_path};
use stillpoint_archive::{
    BackupReport, ManifestSchema, ParentChoice, ReadClock, RestoreOptions, Silent, backup,
    backup_changes, restore,
};
use stillpoint_store::backend::MemoryBackend;
use stillpoint_store::check::CheckOptions;
use stillpoint_store::record::{KdfCost, Secret};
use stillpoint_store::repository::CreateOptions;
use stillpoint_store::tree::{Root, Tree};
use stillpoint_store::{OpenOptions, Repository, Snapshot, SystemEnv, Timestamp, WriteOptions};

/// So late that no file is racy.
const LATE: Timestamp = Timestamp { seconds: 40_000_000_000, nanos: 0 };
/// What a freeze may take: 5 ms, and 0.2 ms for each file.
const FREEZE_MAX: Duration = Duration::from_millis(5);
const FREEZE_FILE_MAX: Duration = Duration::from_micros(200);
/// What one large file may take.
const LARGE_MAX: Duration = Duration::from_millis(20);
const LARGE_BYTES: u64 = 1 << 30;
/// A cost is the least of so many attempts: other programs run as well.
const ATTEMPTS: usize = 5;
/// Writes a large file out in full instead of reserving room for it.
const REAL_VARIABLE: &str = "STILLPOINT_FREEZE_REAL";
const BREAK_TIME: &str = "/proc/sys/fs/lease-break-time";

/// A repository in memory and a directory on some file system, with a spool beside the sources.
struct Lab {
    repository: Arc<Repository>,
    dir: PathBuf,
    base: PathBuf,
}

impl Lab {
    fn at(dir: &Path) -> Self {
        let options = CreateOptions { kdf: KdfCost::LEAST, ..CreateOptions::default() };
        let repository = Repository::create(
            Arc::new(MemoryBackend::new()),
            Arc::new(SystemEnv),
            &Secret::key_file(&[7; 64]),
            &options,
            OpenOptions::in_memory(),
        );
        let dir = dir.canonicalize().unwrap();
        let base = dir.join("source");
        std::fs::create_dir(&base).unwrap();
        std::fs::create_dir(dir.join("spool")).unwrap();
        Self { repository: repository.unwrap(), dir, base }
    }

    fn options(&self) -> BackupOptions {
        BackupOptions {
            roots: vec![self.base.clone()],
            clock: ReadClock::Fixed(LATE),
            parent: ParentChoice::Nothing,
            write: WriteOptions { threads: 2, ..WriteOptions::default() },
            ..BackupOptions::default()
        }
    }

    fn freezer(&self, options: FreezeOptions) -> Freezer {
        let spool = vec![self.dir.join("spool")];
        Freezer::new(&self.options(), FreezeOptions { spool, ..options }).unwrap()
    }

    fn key(&self, name: &str) -> Vec<u8> {
        key_from_path(&self.base.join(name)).unwrap()
    }

    fn keys(&self, names: &[&str]) -> BTreeSet<Vec<u8>> {
        names.iter().map(|name| self.key(name)).collect()
    }

    fn full(&self) -> Snapshot {
        let report = backup(&self.repository, self.options(), &Silent).unwrap();
        assert_eq!(report.problems, []);
        self.snapshot(&report)
    }

    fn snapshot(&self, report: &BackupReport) -> Snapshot {
        let id = report.snapshot.unwrap();
        self.repository.snapshots().unwrap().into_iter().find(|found| found.id == id).unwrap()
    }

    fn delta(&self, base: &Snapshot, frozen: Frozen) -> BackupReport {
        let changes = frozen.into_changes();
        backup_changes(&self.repository, base, changes, self.options(), &Silent).unwrap()
    }

    fn entries(&self, root: Root) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let reader = self.repository.reader().unwrap();
        let mut cursor = Tree::<ManifestSchema>::open(root, &reader).iter().unwrap();
        let mut entries = BTreeMap::new();
        while let Some((key, value)) = cursor.next().unwrap() {
            if is_within(&key, &self.key("")) {
                entries.insert(key, value);
            }
        }
        entries
    }

    fn assert_same(&self, delta: Root, full: Root) {
        let (delta, full) = (self.entries(delta), self.entries(full));
        for key in delta.keys().chain(full.keys()) {
            let decode = |value: Option<&Vec<u8>>| {
                value.map(|value| stillpoint_archive::Entry::decode(value).unwrap())
            };
            let path = path_from_key(key);
            assert_eq!(decode(delta.get(key)), decode(full.get(key)), "{}", path.display());
        }
        let report = self.repository.check(CheckOptions::read_all(), &|_, _| {}).unwrap();
        assert_eq!(report.findings, []);
    }

    /// The content of a file after a restore.
    fn restored(&self, root: Root, name: &str) -> Vec<u8> {
        let target = tempfile::tempdir_in(&self.dir).unwrap();
        let target = target.path().join("out");
        let options =
            RestoreOptions { subtree: self.key(""), ..RestoreOptions::new(root, target.clone()) };
        let report = restore(&self.repository, &options, &Silent).unwrap();
        assert_eq!(report.problems, []);
        std::fs::read(target.join(name)).unwrap()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.base.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// Bytes that differ from seed to seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// A program of its own that appends to a file.
fn writer(path: &Path) -> Child {
    let script = "printf appended >> \"$1\"";
    Command::new("sh").args(["-c", script, "sh"]).arg(path).spawn().unwrap()
}

struct Place {
    name: &'static str,
    dir: PathBuf,
    base: tempfile::TempDir,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        let _ = &self.base;
    }
}

fn run(command: &mut Command) -> std::result::Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(text) }
}

/// File systems of our own in a mount namespace of this thread; why one cannot be had is printed.
fn places(wanted: &[&'static str]) -> Vec<Place> {
    // SAFETY: only this thread, which made no other use of its namespace, gets a new one.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
    if !unshared || run(Command::new("mount").args(["--make-rprivate", "/"])).is_err() {
        eprintln!("skipped: no mount namespace, so no file systems of our own");
        return Vec::new();
    }
    let made = |name: &&'static str| match place(name) {
        Ok(place) => Some(place),
        Err(why) => {
            eprintln!("skipped: no {name}: {why}");
            None
        }
    };
    wanted.iter().filter_map(made).collect()
}

fn place(name: &'static str) -> std::result::Result<Place, String> {
    let base = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (dir, image) = (base.path().join("mounted"), base.path().join("image"));
    std::fs::create_dir(&dir).map_err(|error| error.to_string())?;
    let maker: &[&str] = match name {
        "ext4" => &["mkfs.ext4", "-q", "-F"],
        "XFS" => &["mkfs.xfs", "-q", "-f"],
        "Btrfs" => &["mkfs.btrfs", "-q", "-f"],
        _ => &[],
    };
    let Some((program, arguments)) = maker.split_first() else {
        let options = if name == "tiny" { "size=1m" } else { "size=2g" };
        run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(&dir))?;
        return Ok(Place { name, dir, base });
    };
    let file = File::create(&image).map_err(|error| error.to_string())?;
    file.set_len(3 << 30).map_err(|error| error.to_string())?;
    run(Command::new(program).args(arguments).arg(&image))?;
    run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&dir))?;
    Ok(Place { name, dir, base })
}

/// Everything that can be held, in one of its versions.
fn scene(lab: &Lab, version: u64) {
    let seed = |number: u64| version * 100 + number;
    lab.write("small", &noise(seed(1), 1000));
    lab.write("tiny", &noise(seed(2), 100));
    lab.write("empty", b"");
    lab.write("middle", &noise(seed(3), 300_000));
    lab.write("big", &noise(seed(4), 3 << 20));
    lab.write("open", &noise(seed(5), 2 << 20));
    lab.write("dir/inner", &noise(seed(6), 5000));
    lab.write("linked", &noise(seed(7), 200_000));
    let sparse = File::create(lab.base.join("sparse")).unwrap();
    sparse.set_len(4 << 20).unwrap();
    sparse.write_all_at(&noise(seed(8), 9000), version << 20).unwrap();
    let link = lab.base.join("link");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(format!("target {version}"), &link).unwrap();
    let value = version.to_le_bytes();
    for name in ["small", "dir", "big"] {
        let file = File::open(lab.base.join(name)).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        if let Err(errno) = rustix::fs::fsetxattr(&file, "user.test", &value, flags) {
            eprintln!("skipped: no attributes on {}: {errno}", lab.dir.display());
        }
    }
}

const SCENE: [&str; 14] = [
    "",
    "small",
    "tiny",
    "empty",
    "middle",
    "big",
    "open",
    "dir",
    "dir/inner",
    "linked",
    "other",
    "sparse",
    "link",
    "never there",
];

fn check_instant(dir: &Path, name: &str, options: FreezeOptions) -> Figures {
    let lab = Lab::at(dir);
    scene(&lab, 1);
    lab.write("gone/x", b"x");
    lab.write("old/below", &noise(9, 400_000));
    std::fs::hard_link(lab.base.join("linked"), lab.base.join("other")).unwrap();
    let base = lab.full();
    scene(&lab, 2);
    std::fs::remove_dir_all(lab.base.join("gone")).unwrap();
    std::fs::rename(lab.base.join("old"), lab.base.join("new")).unwrap();
    let writing = File::options().write(true).open(lab.base.join("open")).unwrap();

    let freezer = lab.freezer(options);
    let mut paths = lab.keys(&SCENE);
    paths.extend(lab.keys(&["gone", "old"]));
    let full = lab.full();
    let frozen = freezer.freeze(&paths, &lab.keys(&["new"])).unwrap();
    assert_eq!(frozen.problems, [], "on {name}");
    let figures = frozen.figures;
    // The application goes on: every file is overwritten, removed or moved.
    drop(writing);
    scene(&lab, 3);
    std::fs::rename(lab.base.join("new"), lab.base.join("newer")).unwrap();
    lab.write("newer/below", b"overwritten");
    std::fs::remove_file(lab.base.join("dir/inner")).unwrap();

    let report = lab.delta(&base, frozen);
    assert_eq!(report.problems, [], "on {name}");
    lab.assert_same(report.record.root, full.record.root);
    assert_eq!(lab.restored(report.record.root, "big"), noise(204, 3 << 20), "on {name}");
    assert_eq!(lab.restored(report.record.root, "new/below"), noise(9, 400_000), "on {name}");
    figures
}

// What is held is stored as it was, byte for byte, whatever becomes of the files: on each file system, by each method.
#[test]
fn held_files_are_stored_as_they_were() {
    let temp = tempfile::tempdir().unwrap();
    check_instant(temp.path(), "the usual place", FreezeOptions::default());
    for place in places(&["ext4", "tmpfs", "XFS", "Btrfs"]) {
        let makers: [(&str, FreezeOptions); 3] = [
            ("all", FreezeOptions::default()),
            ("clones", FreezeOptions { leases_max: 0, ..FreezeOptions::default() }),
            ("copies", FreezeOptions { leases_max: 0, clones: false, ..FreezeOptions::default() }),
        ];
        for (way, options) in makers {
            let dir = place.dir.join(way);
            std::fs::create_dir(&dir).unwrap();
            let figures = check_instant(&dir, place.name, options);
            eprintln!("{} {way}: {figures:?}", place.name);
            let clones = matches!(place.name, "XFS" | "Btrfs");
            assert_eq!((figures.memory.files, figures.names, figures.gone), (4, 1, 3));
            match way {
                // A file that is open for writing is not leased.
                "all" => assert_eq!(figures.lease.files, 5),
                "clones" if clones => assert_eq!(figures.clone.files, 6),
                _ => assert_eq!(figures.copy.files, 6),
            }
        }
    }
}

// Nothing fits into memory: everything is held by other means.
#[test]
fn memory_is_bounded() {
    let temp = tempfile::tempdir().unwrap();
    let options = FreezeOptions { memory_bytes_max: 1500, ..FreezeOptions::default() };
    let figures = check_instant(temp.path(), "the usual place", options);
    assert!(figures.memory.bytes <= 1500, "{figures:?}");
    assert_eq!(figures.files().files, 10);
}

/// A leased file that somebody wants to write to; the thread that serves it is held up meanwhile.
fn with_waiting_writer(lab: &Lab, freezer: &Freezer, then: impl FnOnce(&mut Child)) -> Frozen {
    let frozen = freezer.freeze(&lab.keys(&["big"]), &BTreeSet::new()).unwrap();
    assert_eq!((frozen.figures.lease.files, frozen.problems.len()), (1, 0));
    let gate = freezer.keeper.gate();
    let mut child = writer(&lab.base.join("big"));
    while !freezer.keeper.is_awaited() {
        std::thread::yield_now();
    }
    then(&mut child);
    drop(gate);
    assert!(child.wait().unwrap().success());
    frozen
}

// A real program that opens a leased file for writing waits until the file was put away, and then goes on.
#[test]
fn a_writer_waits_until_the_file_was_put_away() {
    let temp = tempfile::tempdir().unwrap();
    let lab = Lab::at(temp.path());
    lab.write("big", &noise(1, 100_000));
    let base = lab.full();
    lab.write("big", &noise(2, 3 << 20));
    let freezer = lab.freezer(FreezeOptions::default());
    let frozen = with_waiting_writer(&lab, &freezer, |child| {
        assert!(child.try_wait().unwrap().is_none(), "it waits");
        assert_eq!(std::fs::read(lab.base.join("big")).unwrap(), noise(2, 3 << 20));
    });
    assert_eq!(freezer.leases_broken(), 1);
    let on_disk = std::fs::read(lab.base.join("big")).unwrap();
    assert!(on_disk.ends_with(b"appended"));
    let report = lab.delta(&base, frozen);
    assert_eq!(report.problems, []);
    assert_eq!(lab.restored(report.record.root, "big"), noise(2, 3 << 20));
}

/// Changes how long the kernel waits before it breaks a lease by force; changes it back at the end.
struct BreakTime(String);

impl BreakTime {
    fn one_second() -> Option<Self> {
        let before = std::fs::read_to_string(BREAK_TIME).ok()?;
        std::fs::write(BREAK_TIME, "1").ok()?;
        Some(Self(before))
    }
}

impl Drop for BreakTime {
    fn drop(&mut self) {
        let _ = std::fs::write(BREAK_TIME, &self.0);
    }
}

/// The file is named as a problem, and the snapshot does not have it: never a mixture of two moments.
fn assert_lost(lab: &Lab, base: &Snapshot, frozen: Frozen, why: &str) {
    let report = lab.delta(base, frozen);
    let problem = report.problems.first().unwrap();
    assert_eq!((report.problems.len(), &problem.path), (1, &lab.base.join("big")));
    assert!(problem.what.contains(why), "{}", problem.what);
    assert!(!lab.entries(report.record.root).contains_key(&lab.key("big")));
}

// When the kernel lets a writer in by force, what was held counts as lost.
#[test]
fn a_lease_that_is_broken_by_force_is_lost() {
    let Some(_time) = BreakTime::one_second() else {
        eprintln!("skipped: {BREAK_TIME} cannot be changed, and its 45 seconds are too long");
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    let lab = Lab::at(temp.path());
    lab.write("big", &noise(2, 3 << 20));
    let base = lab.full();
    let freezer = lab.freezer(FreezeOptions::default());
    let frozen = with_waiting_writer(&lab, &freezer, |child| {
        assert!(child.wait().unwrap().success(), "the kernel lets it in");
    });
    assert_lost(&lab, &base, frozen, "by force");
}

// When there is no room to put a file away, the writer goes on at once, and what was held counts as lost.
#[test]
fn a_file_that_cannot_be_put_away_is_lost() {
    let temp = tempfile::tempdir().unwrap();
    let Some(tiny) = places(&["tiny"]).pop() else { return };
    let lab = Lab::at(temp.path());
    lab.write("big", &noise(2, 3 << 20));
    let base = lab.full();
    let options = FreezeOptions { spool: vec![tiny.dir.clone()], ..FreezeOptions::default() };
    let freezer = Freezer::new(&lab.options(), options).unwrap();
    let frozen = with_waiting_writer(&lab, &freezer, |_| {});
    assert_lost(&lab, &base, frozen, "cannot be put away");
}

// Leases are given back when nobody needs what is held any more.
#[test]
fn leases_end_with_what_is_held() {
    let temp = tempfile::tempdir().unwrap();
    let lab = Lab::at(temp.path());
    lab.write("big", &noise(2, 3 << 20));
    let freezer = lab.freezer(FreezeOptions::default());
    let frozen = freezer.freeze(&lab.keys(&["big"]), &BTreeSet::new()).unwrap();
    assert_eq!(freezer.keeper.leased(), 1);
    drop(frozen);
    assert_eq!(freezer.keeper.leased(), 0);
    assert!(writer(&lab.base.join("big")).wait().unwrap().success());
    assert_eq!(freezer.leases_broken(), 0);
}

// A spool that cannot be used is found out before anything is locked.
#[test]
fn unusable_spools_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let lab = Lab::at(temp.path());
    for spool in [vec![], vec![lab.dir.join("not there")]] {
        let options = FreezeOptions { spool, ..FreezeOptions::default() };
        let refused = Freezer::new(&lab.options(), options);
        assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    }
}

/// The least time of some attempts.
fn least(lab: &Lab, options: &FreezeOptions, names: &[&str]) -> Figures {
    let freezer = lab.freezer(options.clone());
    let keys = lab.keys(names);
    let attempt = || {
        let frozen = freezer.freeze(&keys, &BTreeSet::new()).unwrap();
        assert_eq!(frozen.problems, []);
        frozen.figures
    };
    (0..ATTEMPTS).map(|_| attempt()).min_by_key(|figures| figures.took).unwrap()
}

// A thousand small files: 5 ms and 0.2 ms for each.
#[test]
fn cost_of_a_thousand_small_files() {
    let temp = tempfile::tempdir().unwrap();
    let lab = Lab::at(temp.path());
    let names: Vec<String> = (0..1000).map(|n| format!("{}/{}/file {n}", n % 7, n % 30)).collect();
    names.iter().for_each(|name| lab.write(name, &noise(1, 4000)));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let figures = least(&lab, &FreezeOptions::default(), &names);
    eprintln!("1,000 small files: {:?}", figures.took);
    assert_eq!(figures.memory.files, 1000);
    assert!(figures.took <= FREEZE_MAX + FREEZE_FILE_MAX * 1000, "{:?}", figures.took);
}

// One file of 1 GB costs no more than 20 ms, leased or cloned.
#[test]
fn cost_of_a_large_file() {
    for place in places(&["ext4", "tmpfs", "XFS", "Btrfs"]) {
        let lab = Lab::at(&place.dir);
        let file = File::create(lab.base.join("large")).unwrap();
        if std::env::var_os(REAL_VARIABLE).is_some() {
            let piece = noise(1, 1 << 20);
            (0..LARGE_BYTES >> 20).for_each(|n| file.write_all_at(&piece, n << 20).unwrap());
        } else {
            let flags = rustix::fs::FallocateFlags::empty();
            rustix::fs::fallocate(&file, flags, 0, LARGE_BYTES).unwrap();
        }
        drop(file);
        let leased = least(&lab, &FreezeOptions::default(), &["large"]);
        eprintln!("{}: 1 GB leased in {:?}", place.name, leased.took);
        assert_eq!(leased.lease, Part { files: 1, bytes: LARGE_BYTES });
        assert!(leased.took <= LARGE_MAX, "{:?}", leased.took);
        if matches!(place.name, "XFS" | "Btrfs") {
            let options = FreezeOptions { leases_max: 0, ..FreezeOptions::default() };
            let cloned = least(&lab, &options, &["large"]);
            eprintln!("{}: 1 GB cloned in {:?}", place.name, cloned.took);
            assert_eq!(cloned.clone, Part { files: 1, bytes: LARGE_BYTES });
            assert!(cloned.took <= LARGE_MAX, "{:?}", cloned.took);
        }
    }
}
