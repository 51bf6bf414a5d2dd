//! The pipeline on real files, with nodes and chunks kept in memory.

use super::*;
use crate::change::ChangeRules;
use crate::entry::{ContentItem, ContentSchema, ManifestSchema};
use crate::filter::{Filter, FilterOptions};
use crate::observer::{Event, Silent};
use crate::scan::{ScanRules, root_key, stations};
use crate::source::{ReadClock, ReaderSource};
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use stillpoint_chunker::{ChunkId, Chunker, Gear, IdKey};
use stillpoint_store::tree::memory::MemoryNodes;
use stillpoint_store::tree::{Root, Tree, TreeParams};
use stillpoint_testkit::tree::{Shape, TreeSpec};

/// So late that nothing is racy.
const LATE: Timestamp = Timestamp { seconds: 40_000_000_000, nanos: 0 };

/// A store in memory.
struct Rig {
    nodes: MemoryNodes,
    chunks: HashMap<ChunkId, Vec<u8>>,
    /// Bytes given to the store, known or not.
    bytes_given: u64,
    threads: usize,
    clock: ReadClock,
    rules: ChangeRules,
    observer: &'static (dyn Observer + Sync),
    extras: Vec<(Vec<u8>, Extra)>,
    nodes_known: usize,
}

impl Rig {
    fn new(threads: usize) -> Self {
        Self {
            nodes: MemoryNodes::new(IdKey::new([1; 32])),
            chunks: HashMap::new(),
            bytes_given: 0,
            threads,
            clock: ReadClock::Fixed(LATE),
            rules: ChangeRules::default(),
            observer: &Silent,
            extras: Vec::new(),
            nodes_known: 0,
        }
    }

    fn backup(&mut self, base: &Path, parent: Option<Root>) -> Result<Built> {
        let keys = if base.as_os_str().is_empty() { vec![] } else { vec![root_key(base)?] };
        let filter = Filter::new(&FilterOptions::default())?;
        let scan = Scan::new(stations(&keys), ScanRules { filter, devices: None });
        let gear = Arc::new(Gear::published());
        let chunkers = Chunkers::new(|profile| {
            Ok(Chunker::new(Arc::clone(&gear), profile.params(), IdKey::new([2; 32])))
        })?;
        let readers = Readers { chunkers, names: Names::default(), clock: self.clock };
        let params = TreeParams::new([3; 32]);
        let (mut manifest_nodes, mut content_nodes) = (&self.nodes, &self.nodes);
        let (chunks, given) = (&mut self.chunks, &mut self.bytes_given);
        let input = Input {
            scan: &scan,
            parent: parent
                .map(|root| Parent::open(root, &self.nodes, LATE, self.rules))
                .transpose()?,
            changed: None,
            extras: self.extras.drain(..).collect(),
            time: LATE,
            readers: &readers,
            observer: self.observer,
            know_node: &mut |_| self.nodes_known += 1,
            lose_parent: &mut |error| panic!("the parent is lost: {error}"),
            threads: self.threads,
        };
        let mut data = |batch: &stillpoint_chunker::ChunkBatch| {
            for chunk in &batch.chunks {
                chunks.insert(chunk.id, batch.slice(chunk).to_vec());
                *given += u64::from(chunk.len);
            }
            Ok(())
        };
        let sinks = Sinks { params: &params, data: &mut data, content_nodes: &mut content_nodes };
        run(input, Box::new(Anew::new(&params, &mut manifest_nodes)), sinks)
    }

    fn entries(&self, root: Root) -> BTreeMap<PathBuf, Entry> {
        let mut entries = BTreeMap::new();
        let mut cursor = Tree::<ManifestSchema>::open(root, &self.nodes).iter().unwrap();
        while let Some((key, value)) = cursor.next().unwrap() {
            entries.insert(path::path_from_key(&key), Entry::decode(&value).unwrap());
        }
        entries
    }

    /// What a manifest says below `base`; above it are directories that other tests change.
    fn below(&self, built: &Built, base: &Path) -> BTreeMap<PathBuf, Entry> {
        let mut entries = self.entries(built.root);
        entries.retain(|path, _| path.starts_with(base));
        entries
    }

    fn items(&self, entry: &Entry) -> Vec<ContentItem> {
        match &entry.kind {
            EntryKind::File(Content::Chunks(items)) => items.clone(),
            EntryKind::File(Content::Tree(root)) => {
                let mut cursor = Tree::<ContentSchema>::open(*root, &self.nodes).iter().unwrap();
                let mut items = Vec::new();
                while let Some((_, value)) = cursor.next().unwrap() {
                    items.push(ContentItem::decode(&value).unwrap());
                }
                items
            }
            _ => vec![],
        }
    }

    fn content(&self, entry: &Entry) -> Vec<u8> {
        if let EntryKind::File(Content::Inline(bytes)) = &entry.kind {
            return bytes.clone();
        }
        let mut bytes = Vec::new();
        for item in self.items(entry) {
            match item {
                ContentItem::Data { id, .. } => bytes.extend(&self.chunks[&id]),
                ContentItem::Hole { len } => {
                    bytes.resize(bytes.len() + usize::try_from(len).unwrap(), 0);
                }
            }
        }
        bytes
    }

    /// Everything below `base` is in the manifest as it is on disk, and nothing else.
    fn check_against_disk(&self, built: &Built, base: &Path) {
        let entries = self.entries(built.root);
        let mut on_disk = Vec::new();
        list(base, &mut on_disk);
        let saved: Vec<_> = entries.keys().filter(|path| path.starts_with(base)).collect();
        assert_eq!(saved.len(), on_disk.len(), "as many entries as there are on disk");
        for path in &on_disk {
            let (entry, meta) = (&entries[path], path.symlink_metadata().unwrap());
            let numbers = (entry.mode, entry.uid, entry.gid, entry.inode, entry.device);
            let expected = (meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.ino(), meta.dev());
            assert_eq!(numbers, expected, "{path:?}");
            let nanos = u32::try_from(meta.mtime_nsec()).unwrap();
            assert_eq!((entry.mtime.seconds, entry.mtime.nanos), (meta.mtime(), nanos));
            assert_eq!(u64::from(entry.nlink), meta.nlink(), "{path:?}");
            assert!(!entry.racy, "{path:?}");
            match &entry.kind {
                EntryKind::File(_) => {
                    assert_eq!(entry.size, meta.len());
                    assert!(self.content(entry) == std::fs::read(path).unwrap(), "{path:?}");
                }
                EntryKind::Symlink { target } => {
                    use std::os::unix::ffi::OsStrExt;
                    assert_eq!(target, path.read_link().unwrap().as_os_str().as_bytes());
                }
                EntryKind::Directory => assert!(meta.is_dir()),
                other => assert!(!meta.is_dir() && !meta.is_file(), "{other:?}"),
            }
        }
        let total: u64 = entries.values().map(|entry| entry.size).sum();
        assert_eq!(built.root.bytes, total);
        assert_eq!(built.counts.bytes_total, total);
    }
}

fn list(path: &Path, out: &mut Vec<PathBuf>) {
    out.push(path.to_path_buf());
    if path.symlink_metadata().unwrap().is_dir() {
        path.read_dir().unwrap().for_each(|entry| list(&entry.unwrap().path(), out));
    }
}

fn temp() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().canonicalize().unwrap();
    (temp, path)
}

/// Bytes that neither repeat nor compress.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    stillpoint_testkit::Random::new(seed).bytes(len)
}

// Everything that is there is saved as it is; the result is the same for any number of threads.
#[test]
fn trees_are_saved_exactly_whatever_the_threads() {
    for seed in 0..6 {
        let shape = if seed % 2 == 0 { Shape::odd(120) } else { Shape::home(400) };
        let (_temp, base) = temp();
        TreeSpec::seeded(seed, &shape).materialise(&base).unwrap();
        let mut saved = Vec::new();
        for threads in [1, 4] {
            let mut rig = Rig::new(threads);
            let built = rig.backup(&base, None).unwrap();
            assert_eq!(built.problems, vec![], "seed {seed}");
            rig.check_against_disk(&built, &base);
            saved.push(rig.below(&built, &base));
        }
        assert!(saved[0] == saved[1], "seed {seed}");
    }
}

// A second backup of what did not change reads nothing and gives the same manifest; one of an edited tree gives the
// manifest that a fresh backup gives.
#[test]
fn increments() {
    for seed in 0..6 {
        let shape = if seed % 2 == 0 { Shape::odd(150) } else { Shape::home(400) };
        let (_temp, base) = temp();
        let spec = TreeSpec::seeded(seed, &shape);
        spec.materialise(&base).unwrap();
        let mut rig = Rig::new(2);
        let first = rig.backup(&base, None).unwrap();
        let again = rig.backup(&base, Some(first.root)).unwrap();
        assert!(rig.below(&again, &base) == rig.below(&first, &base), "seed {seed}");
        assert_eq!(again.counts.bytes_read, 0);
        assert_eq!((again.counts.files.new, again.counts.files.changed), (0, 0));
        assert_eq!(again.counts.directories.new, 0);
        assert!(rig.nodes_known > 0);

        let edited = spec.edited(seed + 100, 12, &shape);
        spec.become_on_disk(&edited, &base).unwrap();
        let second = rig.backup(&base, Some(first.root)).unwrap();
        rig.check_against_disk(&second, &base);
        assert!(second.counts.bytes_read < first.counts.bytes_read / 2, "seed {seed}");
        let fresh = rig.backup(&base, None).unwrap();
        assert!(rig.below(&second, &base) == rig.below(&fresh, &base), "seed {seed}");
    }
}

// A file is read anew whatever its times say when it could have changed unseen the last time.
#[test]
fn racy_files_are_read_again() {
    let (_temp, base) = temp();
    let file = base.join("f");
    std::fs::write(&file, noise(5000, 1)).unwrap();
    let mut rig = Rig::new(1);
    let changed = file.metadata().unwrap();
    let nanos = u32::try_from(changed.ctime_nsec()).unwrap();
    rig.clock = ReadClock::Fixed(Timestamp { seconds: changed.ctime(), nanos });
    let first = rig.backup(&base, None).unwrap();
    assert!(rig.entries(first.root)[&file].racy);
    rig.clock = ReadClock::Fixed(LATE);
    let second = rig.backup(&base, Some(first.root)).unwrap();
    assert_eq!((second.counts.bytes_read, second.counts.files.unmodified), (5000, 1));
    let third = rig.backup(&base, Some(second.root)).unwrap();
    assert_eq!(third.counts.bytes_read, 0);
}

// Holes are recorded, not read: at the front, in the middle and at the end, of small and of long files.
#[test]
fn holes_are_recorded() {
    let (_temp, base) = temp();
    for (name, scale) in [("small", 1u64), ("long", 64)] {
        let file = std::fs::File::create(base.join(name)).unwrap();
        let block = 64 << 10;
        file.write_all_at(&noise(1000, 1), 2 * block * scale).unwrap();
        file.write_all_at(&noise(70_000, 2), 5 * block * scale).unwrap();
        file.set_len(9 * block * scale).unwrap();
    }
    std::fs::File::create(base.join("empty hole")).unwrap().set_len(1 << 40).unwrap();
    let mut rig = Rig::new(2);
    let built = rig.backup(&base, None).unwrap();
    assert!(rig.bytes_given < 400_000, "{} bytes", rig.bytes_given);
    let entries = rig.entries(built.root);
    for name in ["small", "long"] {
        let entry = &entries[&base.join(name)];
        assert!(rig.content(entry) == std::fs::read(base.join(name)).unwrap(), "{name}");
        let items = rig.items(entry);
        let holes = items.iter().filter(|i| matches!(i, ContentItem::Hole { .. })).count();
        assert_eq!(holes, 3, "{name}: {items:?}");
    }
    let hole = &entries[&base.join("empty hole")];
    assert_eq!(rig.items(hole), [ContentItem::Hole { len: 1 << 40 }]);
}

// An inode with several names is read once, long or small, and all names are alike.
#[test]
fn hard_links_are_read_once() {
    let (_temp, base) = temp();
    for (name, len) in [("small", 30_000), ("long", 3 << 20)] {
        std::fs::write(base.join(name), noise(len, 5)).unwrap();
        for n in 0..3 {
            std::fs::hard_link(base.join(name), base.join(format!("{name}{n}"))).unwrap();
        }
    }
    let mut rig = Rig::new(2);
    let built = rig.backup(&base, None).unwrap();
    assert_eq!(built.counts.bytes_read, 30_000 + (3 << 20));
    assert_eq!(built.counts.files.new, 8);
    rig.check_against_disk(&built, &base);
    let again = rig.backup(&base, Some(built.root)).unwrap();
    assert_eq!(again.counts.bytes_read, 0);
    assert!(rig.below(&again, &base) == rig.below(&built, &base));
}

// A renamed directory is taken over from its old place without reading a file.
#[test]
fn renamed_directories_are_not_read() {
    let (_temp, base) = temp();
    std::fs::create_dir(base.join("old")).unwrap();
    TreeSpec::seeded(3, &Shape::home(200)).materialise(&base.join("old")).unwrap();
    let mut rig = Rig::new(2);
    let first = rig.backup(&base, None).unwrap();
    std::fs::rename(base.join("old"), base.join("new")).unwrap();
    let second = rig.backup(&base, Some(first.root)).unwrap();
    assert_eq!(second.counts.bytes_read, 0);
    rig.check_against_disk(&second, &base);
}

// Only metadata is gathered when only metadata can have changed.
#[test]
fn metadata_alone_is_gathered_when_ctime_is_ignored() {
    use std::os::unix::fs::PermissionsExt;
    let (_temp, base) = temp();
    std::fs::write(base.join("f"), noise(5000, 1)).unwrap();
    let mut rig = Rig::new(1);
    let first = rig.backup(&base, None).unwrap();
    std::fs::set_permissions(base.join("f"), std::fs::Permissions::from_mode(0o600)).unwrap();
    rig.rules.ignore_ctime = true;
    let second = rig.backup(&base, Some(first.root)).unwrap();
    assert_eq!((second.counts.bytes_read, second.counts.files.changed), (0, 1));
    assert_eq!(rig.entries(second.root)[&base.join("f")].mode, 0o600);
    rig.check_against_disk(&second, &base);
}

/// Does something once, when the first bytes of content have been taken.
struct OnFirstBytes<F>(F, AtomicBool);

impl<F: Fn() + Sync> Observer for OnFirstBytes<F> {
    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::Bytes(_)) && !self.1.swap(true, Ordering::Relaxed) {
            (self.0)();
        }
    }
}

fn on_first_bytes(act: impl Fn() + Sync + 'static) -> &'static (dyn Observer + Sync) {
    Box::leak(Box::new(OnFirstBytes(act, AtomicBool::new(false))))
}

/// A file so long that its reader still is busy with it when its first bytes are taken.
const BUSY_BYTES: usize = 32 << 20;

/// Saves a long file `a` and another one with one worker, which does `act` to the latter while it reads the former;
/// gives the one problem that must come of it.
fn check_misbehaving(name: &str, act: fn(&Path)) -> (Rig, Built, PathBuf) {
    let (dir, base) = temp();
    std::fs::write(base.join("a"), noise(BUSY_BYTES, 1)).unwrap();
    let victim = base.join(name);
    if name != "a" {
        std::fs::write(&victim, noise(5000, 2)).unwrap();
    }
    std::fs::write(base.join("z"), noise(5000, 3)).unwrap();
    let mut rig = Rig::new(1);
    let path = victim.clone();
    rig.observer = on_first_bytes(move || act(&path));
    let built = rig.backup(&base, None).unwrap();
    drop(dir);
    assert!(rig.entries(built.root).contains_key(&base.join("z")), "the rest is saved");
    (rig, built, victim)
}

// A file that vanishes before it is read is named, and not in the snapshot.
#[test]
fn vanished_files_are_named() {
    let (rig, built, victim) = check_misbehaving("b", |path| std::fs::remove_file(path).unwrap());
    assert_eq!(built.problems.len(), 1);
    assert_eq!(built.problems[0].path, victim);
    assert!(built.problems[0].what.contains("vanished"), "{:?}", built.problems);
    assert!(!rig.entries(built.root).contains_key(&victim));
}

// A file that turns into a fifo does not hold the backup up.
#[test]
fn files_that_become_fifos_are_named() {
    let (rig, built, victim) = check_misbehaving("b", |path| {
        std::fs::remove_file(path).unwrap();
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    });
    assert_eq!(built.problems.len(), 1, "{:?}", built.problems);
    assert!(!rig.entries(built.root).contains_key(&victim));
}

// A file that changes after it was scanned and before it is read is saved in its new state, which is no problem.
#[test]
fn files_that_change_before_they_are_read_are_simply_read() {
    let (rig, built, victim) =
        check_misbehaving("b", |path| std::fs::write(path, noise(7000, 9)).unwrap());
    assert_eq!(built.problems, vec![]);
    let entry = &rig.entries(built.root)[&victim];
    assert!(rig.content(entry) == noise(7000, 9) && entry.size == 7000);
}

// A file that shrinks while it is read is saved as it was read, marked, and named once.
#[test]
fn shrinking_files_are_saved_as_read() {
    let (rig, built, victim) = check_misbehaving("a", |path| {
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
    });
    assert_eq!(built.problems.len(), 1, "{:?}", built.problems);
    let entry = &rig.entries(built.root)[&victim];
    assert!(entry.racy && entry.size < BUSY_BYTES as u64 && entry.size > 0);
    assert!(noise(BUSY_BYTES, 1).starts_with(&rig.content(entry)));
}

// A file that grows while it is read is saved up to the size that it had.
#[test]
fn growing_files_are_saved_up_to_their_size() {
    let (rig, built, victim) = check_misbehaving("a", |path| {
        let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
        std::io::Write::write_all(&mut file, &[7; 100_000]).unwrap();
    });
    assert_eq!(built.problems.len(), 1, "{:?}", built.problems);
    assert!(built.problems[0].what.contains("changed while"));
    let entry = &rig.entries(built.root)[&victim];
    assert!(entry.racy && entry.size == BUSY_BYTES as u64);
    assert!(rig.content(entry) == noise(BUSY_BYTES, 1));
}

// The other names of an inode are saved even if the first one cannot be read.
#[test]
fn links_survive_the_loss_of_their_first_name() {
    let (_temp, base) = temp();
    std::fs::write(base.join("a"), noise(BUSY_BYTES, 1)).unwrap();
    std::fs::write(base.join("b"), noise(5000, 2)).unwrap();
    std::fs::hard_link(base.join("b"), base.join("c")).unwrap();
    let mut rig = Rig::new(1);
    let path = base.join("b");
    rig.observer = on_first_bytes(move || std::fs::remove_file(&path).unwrap());
    let built = rig.backup(&base, None).unwrap();
    assert_eq!(built.problems.len(), 1, "{:?}", built.problems);
    let entries = rig.entries(built.root);
    assert!(!entries.contains_key(&base.join("b")));
    assert!(rig.content(&entries[&base.join("c")]) == noise(5000, 2));
}

// A name that is given to another file before it is read says nothing about the other names of the old one.
#[test]
fn links_survive_the_replacement_of_their_first_name() {
    for len in [5000, 3 << 20] {
        let (_temp, base) = temp();
        std::fs::write(base.join("a"), noise(BUSY_BYTES, 1)).unwrap();
        std::fs::write(base.join("b"), noise(len, 2)).unwrap();
        std::fs::hard_link(base.join("b"), base.join("c")).unwrap();
        let (other, _other) = temp();
        let (new, path) = (other.path().join("new"), base.join("b"));
        std::fs::write(&new, noise(len, 9)).unwrap();
        let mut rig = Rig::new(1);
        rig.observer = on_first_bytes(move || std::fs::rename(&new, &path).unwrap());
        let built = rig.backup(&base, None).unwrap();
        assert_eq!(built.problems, vec![]);
        let entries = rig.entries(built.root);
        assert!(rig.content(&entries[&base.join("b")]) == noise(len, 9));
        assert!(rig.content(&entries[&base.join("c")]) == noise(len, 2));
    }
}

// More entries, more bytes and more long files than the window holds: the bounds are met and nothing is lost.
#[test]
fn the_window_is_bounded() {
    let (_temp, base) = temp();
    for n in 0..window::LONG_FILES_MAX + 3 {
        std::fs::write(base.join(format!("a{n}")), noise(3 << 20, 1)).unwrap();
    }
    for n in 0..60 {
        std::fs::write(base.join(format!("b{n}")), noise(1 << 20, 2)).unwrap();
    }
    for n in 0..window::WINDOW_ENTRIES_MAX + 100 {
        std::fs::write(base.join(format!("c{n}")), b"").unwrap();
    }
    for threads in [1, 3] {
        let mut rig = Rig::new(threads);
        let built = rig.backup(&base, None).unwrap();
        rig.check_against_disk(&built, &base);
    }
}

fn stream(name: &str, bytes: Vec<u8>) -> (Vec<u8>, Extra) {
    let source = ReaderSource::new(name, std::io::Cursor::new(bytes));
    (path::key_from_path(&Path::new("/").join(name)).unwrap(), Extra::Stream(Box::new(source)))
}

// Streams become files, with or without a walk beside them.
#[test]
fn streams_become_files() {
    let (_temp, base) = temp();
    std::fs::write(base.join("f"), b"file").unwrap();
    for walk in [base.as_path(), Path::new("")] {
        let mut rig = Rig::new(1);
        let bytes = noise(6 << 20, 4);
        rig.extras.push((b"0db".to_vec(), Extra::Directory));
        rig.extras.push(stream("0db/dump.sql", bytes.clone()));
        rig.extras.push(stream("zz", vec![]));
        let built = rig.backup(walk, None).unwrap();
        let entries = rig.entries(built.root);
        assert!(rig.content(&entries[Path::new("/0db/dump.sql")]) == bytes);
        assert_eq!(entries[Path::new("/zz")].size, 0);
        assert!(entries[Path::new("/0db")].is_directory());
        assert_eq!(entries.contains_key(&base.join("f")), !walk.as_os_str().is_empty());
    }
}

// A stream under the name of something else is refused.
#[test]
fn streams_do_not_replace_paths() {
    let (_temp, base) = temp();
    let mut rig = Rig::new(1);
    let name = base.to_str().unwrap().trim_start_matches('/').to_owned();
    rig.extras.push(stream(&name, vec![1]));
    assert!(matches!(rig.backup(&base, None), Err(Error::Invalid(_))));
}

/// A stream that fails at its end, or never says anything.
struct Bad {
    silent: bool,
}

impl Read for Bad {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        if self.silent {
            std::thread::park();
        }
        Ok(0)
    }
}

impl StreamSource for Bad {
    fn name(&self) -> &str {
        "bad"
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Err(Error::Invalid("exit status 3".into()))
    }
}

// A stream that fails fails the backup.
#[test]
fn failing_streams_fail_the_backup() {
    let mut rig = Rig::new(1);
    rig.extras.push((b"bad".to_vec(), Extra::Stream(Box::new(Bad { silent: false }))));
    let error = rig.backup(Path::new(""), None).unwrap_err();
    assert_eq!(error.to_string(), "exit status 3");
}

/// Wants to stop after the first look.
struct Impatient(AtomicBool);

impl Observer for Impatient {
    fn event(&self, _: Event<'_>) {}

    fn cancelled(&self) -> bool {
        self.0.swap(true, Ordering::Relaxed)
    }
}

// A stream that is silent for ever does not keep the caller from stopping, nor do files in flight.
#[test]
fn cancelling_does_not_wait() {
    let mut rig = Rig::new(1);
    rig.observer = Box::leak(Box::new(Impatient(AtomicBool::new(false))));
    rig.extras.push((b"bad".to_vec(), Extra::Stream(Box::new(Bad { silent: true }))));
    assert!(matches!(rig.backup(Path::new(""), None), Err(Error::Cancelled)));

    let (_temp, base) = temp();
    for n in 0..8 {
        std::fs::write(base.join(format!("{n}")), noise(2 << 20, n)).unwrap();
    }
    let mut rig = Rig::new(2);
    rig.observer = Box::leak(Box::new(Impatient(AtomicBool::new(false))));
    assert!(matches!(rig.backup(&base, None), Err(Error::Cancelled)));
}

/// Counts the descriptors of this process at each entry.
struct Descriptors(std::sync::atomic::AtomicUsize);

impl Observer for Descriptors {
    fn event(&self, _: Event<'_>) {
        let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
        self.0.fetch_max(open, Ordering::Relaxed);
    }
}

// However many directories wait for their files to be read, few of them are open; and they are opened again where
// they are needed, deep down too.
#[test]
fn few_directories_are_open_at_once() {
    let (_temp, base) = temp();
    for n in 0..1500 {
        let dir = base.join(format!("{n:04}"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("f"), noise(300, n)).unwrap();
    }
    let mut deep = base.join("deep");
    for n in 0..300 {
        std::fs::create_dir(&deep).unwrap();
        std::fs::write(deep.join("a"), noise(300, n)).unwrap();
        std::fs::write(deep.join("z"), noise(300, n)).unwrap();
        deep.push("d");
    }
    for threads in [1, 4] {
        let counter = Box::leak(Box::new(Descriptors(std::sync::atomic::AtomicUsize::new(0))));
        let mut rig = Rig::new(threads);
        rig.observer = counter;
        let built = rig.backup(&base, None).unwrap();
        assert_eq!(built.problems, vec![]);
        rig.check_against_disk(&built, &base);
        let most = counter.0.load(Ordering::Relaxed);
        assert!(most < crate::source::OPEN_DIRS_MAX + 400, "{most} descriptors");
    }
}

/// Runs something on a thread that has another user's rights. False where this process may not do that.
fn as_nobody(work: impl FnOnce() + Send) -> bool {
    const NOBODY: libc::c_long = 65_534;
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: the bare system call changes this thread's ids only (the C library's function would change
            // those of all threads), and the thread ends with `work`.
            let code = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, 0) };
            assert_eq!(code, 0);
            work();
        });
    });
    true
}

// What may not be read is named once each, a closed directory itself is saved, and so is everything else.
#[test]
fn permission_denied_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let (_temp, base) = temp();
    let closed = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o000)).unwrap();
    };
    std::fs::create_dir(base.join("dir")).unwrap();
    for name in ["dir/f", "file", "open", "zz"] {
        std::fs::write(base.join(name), noise(1000, 1)).unwrap();
    }
    closed(&base.join("dir"));
    closed(&base.join("file"));
    std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o755)).unwrap();
    let ran = as_nobody(|| {
        let mut rig = Rig::new(2);
        let built = rig.backup(&base, None).unwrap();
        let named: Vec<_> = built.problems.iter().map(|problem| problem.path.clone()).collect();
        assert_eq!(named.len(), 2, "{:?}", built.problems);
        assert!(named.contains(&base.join("dir")) && named.contains(&base.join("file")));
        let saved: Vec<_> = rig.below(&built, &base).into_keys().collect();
        let wanted = ["", "dir", "open", "zz"].map(|name| match name {
            "" => base.clone(),
            name => base.join(name),
        });
        assert_eq!(saved, wanted);
    });
    if !ran {
        eprintln!("skipped: only root can become somebody else");
    }
}
