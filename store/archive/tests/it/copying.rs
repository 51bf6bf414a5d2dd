//! Copies between repositories: what comes out is what went in, stored once, whatever else goes on.

use crate::restore_lab::{Draft, Lab, Piece, noise};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use stillpoint_archive::copy::{Copied, Copier, CopyFigures, CopyStep};
use stillpoint_archive::{
    BackupOptions, Content, ContentItem, ContentSchema, Entry, EntryKind, Event, ManifestSchema,
    Observer, ParentChoice, ReadClock, Silent, backup, write_content,
};
use stillpoint_store::backend::{Backend, MemoryBackend};
use stillpoint_store::check::CheckOptions;
use stillpoint_store::prune::{MaxUnused, PruneOptions};
use stillpoint_store::record::{KdfCost, Original, Secret, Sizes};
use stillpoint_store::repository::CreateOptions;
use stillpoint_store::tree::{Root, Tree};
use stillpoint_store::{
    Error, ObjectKind, OpenOptions, Reader, Repository, Result, Snapshot, SnapshotId,
    SnapshotRecord, SystemEnv, Timestamp, WriteOptions,
};
use stillpoint_testkit::tree::{Shape, TreeSpec};

/// So late that no file is racy.
const LATE: Timestamp = Timestamp { seconds: 40_000_000_000, nanos: 0 };

fn create(options: &CreateOptions) -> (Arc<MemoryBackend>, Arc<Repository>) {
    let backend = Arc::new(MemoryBackend::new());
    let secret = Secret::key_file(&[9; 64]);
    let options = CreateOptions { kdf: KdfCost::LEAST, ..options.clone() };
    let open = OpenOptions::in_memory();
    let env = Arc::new(SystemEnv);
    let repository = Repository::create(backend.clone(), env, &secret, &options, open);
    (backend, repository.unwrap())
}

fn fresh() -> Arc<Repository> {
    create(&CreateOptions::default()).1
}

/// Chunks and nodes of other sizes than usual.
fn other_sizes() -> CreateOptions {
    let mut options = CreateOptions::default();
    options.chunks.general = Sizes { min: 2048, avg: 8192, max: 32768 };
    options.nodes = Sizes { min: 4096, avg: 8192, max: 16384 };
    options
}

fn assert_whole(repository: &Arc<Repository>) {
    let report = repository.check(CheckOptions::read_all(), &|_, _| {}).unwrap();
    assert_eq!(report.findings, []);
}

/// Saves a directory under this host.
fn save(repository: &Arc<Repository>, base: &Path, parent: ParentChoice) -> Snapshot {
    let options = BackupOptions {
        roots: vec![base.to_owned()],
        clock: ReadClock::Fixed(LATE),
        host: "host".into(),
        user: "user".into(),
        tags: vec!["tag".into()],
        description: "words".into(),
        program: "program 1".into(),
        parent,
        write: WriteOptions { threads: 2, ..WriteOptions::default() },
        ..BackupOptions::default()
    };
    let report = backup(repository, options, &Silent).unwrap();
    assert_eq!(report.problems, []);
    find(repository, report.snapshot.unwrap())
}

fn find(repository: &Arc<Repository>, id: SnapshotId) -> Snapshot {
    repository.find_snapshot(&id.to_string()).unwrap()
}

fn copier<'a>(from: &'a Arc<Repository>, to: &'a Arc<Repository>) -> Copier<'a> {
    Copier::new(from, to, WriteOptions { threads: 2, ..WriteOptions::default() }).unwrap()
}

/// Copies one snapshot; gives it as it lies in the destination.
#[track_caller]
fn copy(from: &Arc<Repository>, to: &Arc<Repository>, id: SnapshotId) -> (Snapshot, CopyFigures) {
    let wanted = find(from, id);
    match copier(from, to).copy(&wanted, &Silent).unwrap() {
        Copied::Done { id, figures, .. } => (find(to, id), figures),
        other => panic!("{other:?}"),
    }
}

/// A manifest without what depends on keys: entries, and for each file its bytes and its holes.
fn picture(repository: &Arc<Repository>, root: Root) -> BTreeMap<Vec<u8>, (Entry, Vec<u8>, Holes)> {
    let reader = repository.reader().unwrap();
    let mut cursor = Tree::<ManifestSchema>::open(root, &reader).iter().unwrap();
    let mut all = BTreeMap::new();
    while let Some((key, value)) = cursor.next().unwrap() {
        let mut entry = Entry::decode(&value).unwrap();
        let (mut bytes, mut holes) = (Vec::new(), Holes::new());
        if let EntryKind::File(content) = &entry.kind {
            if entry.size <= WRITTEN_BYTES_MAX {
                write_content(&reader, &entry, &mut bytes).unwrap();
            }
            holes = holes_of(&reader, content);
            entry.kind = EntryKind::File(Content::Inline(match content {
                Content::Inline(bytes) => bytes.clone(),
                _ => b"elsewhere".to_vec(),
            }));
        }
        all.insert(key, (entry, bytes, holes));
    }
    all
}

/// Longer files are compared by their holes alone: there is nothing else in them.
const WRITTEN_BYTES_MAX: u64 = 1 << 30;

/// Where holes are, and how long.
type Holes = Vec<(u64, u64)>;

fn holes_of(reader: &Reader, content: &Content) -> Holes {
    let items: Vec<ContentItem> = match content {
        Content::Inline(_) => vec![],
        Content::Chunks(items) => items.clone(),
        Content::Tree(root) => {
            let mut cursor = Tree::<ContentSchema>::open(*root, reader).iter().unwrap();
            let mut items = Vec::new();
            while let Some((_, value)) = cursor.next().unwrap() {
                items.push(ContentItem::decode(&value).unwrap());
            }
            items
        }
    };
    let mut at = 0;
    let mut holes = Holes::new();
    for item in items {
        if matches!(item, ContentItem::Hole { .. }) {
            holes.push((at, item.len_bytes()));
        }
        at += item.len_bytes();
    }
    holes
}

/// Both hold the same. (Whole pictures in a message would help nobody.)
#[track_caller]
fn assert_same(from: (&Arc<Repository>, Root), to: (&Arc<Repository>, Root)) {
    let (a, b) = (picture(from.0, from.1), picture(to.0, to.1));
    for (key, (entry, bytes, holes)) in &a {
        let name = String::from_utf8_lossy(key);
        let (found, found_bytes, found_holes) = b.get(key).unwrap_or_else(|| panic!("{name}"));
        assert_eq!((entry, holes), (found, found_holes), "{name}");
        assert!(bytes == found_bytes, "content of {name}");
    }
    assert_eq!(a.len(), b.len());
}

/// Kinds, metadata, attributes, hard links, holes, tiny files, long lists and long files.
fn odd_draft() -> Draft {
    let mut draft = Draft::default();
    draft.dir("").xattrs = vec![(b"user.a".to_vec(), vec![0, 255])];
    draft.dir("dir").mode = 0o1777;
    draft.file("dir/tiny", b"tiny".to_vec()).flags = 0x10;
    draft.file("dir/empty", Vec::new());
    draft.file("dir/small", noise(1, 5000)).racy = true;
    draft.file("dir/same as small.txt", noise(1, 5000)).btime = Some(LATE);
    draft.file("dump.sql", [b"insert into t values (1);\n".repeat(9000), noise(2, 9)].concat());
    draft.linked(&["l1", "dir/l2", "l3"], &noise(3, 150_000));
    draft.symlink("link", "dir/\u{fffd}");
    draft.put("fifo", 0o600, EntryKind::Fifo);
    draft.put("socket", 0o600, EntryKind::Socket);
    draft.put("tty", 0o620, EntryKind::CharDevice { major: 4, minor: 1 });
    draft.put("disk", 0o660, EntryKind::BlockDevice { major: 8, minor: 300 });
    let (hole, data) = (Piece::Hole(70_000), Piece::Data(noise(4, 200_000)));
    draft.pieces("sparse", vec![hole.clone(), data.clone(), hole.clone(), hole, data.clone()]);
    draft.pieces("only a hole", vec![Piece::Hole(1 << 40)]);
    draft.pieces("long list", vec![Piece::Repeated(noise(5, 3000), 500), Piece::Hole(9), data]);
    draft.file("long", noise(6, 40 << 20));
    let long = [Piece::Hole(5), Piece::Data(noise(7, 33 << 20)), Piece::Hole(1 << 26)];
    draft.pieces("long and sparse", long.to_vec());
    draft
}

/// Every entry comes out as it went in, and the record says what it is a copy of. A second copy changes nothing, in
/// either direction, and a copy of a copy names the first one.
#[test]
fn copies_are_equal() {
    let lab = Lab::new();
    let draft = odd_draft();
    let root = draft.commit(&lab);
    let from = &lab.repository;
    let original = from.snapshots().unwrap().remove(0);
    let to = fresh();
    let (copied, figures) = copy(from, &to, original.id);
    assert_same((from, root), (&to, copied.record.root));
    assert_eq!(figures.entries, root.entries);
    // Of equal content one is read: three names of one file, and two files.
    assert_eq!(figures.files_read, 8);
    let named = Original { repository: from.id(), snapshot: original.id };
    assert_eq!(copied.record.original, Some(named));
    assert_whole(&to);

    for (source, other) in [(from, &to), (&to, from)] {
        let mut copier = copier(source, other);
        let chosen = copier.snapshots().to_vec();
        assert!(matches!(copier.plan(&chosen)[..], [CopyStep::There { .. }]));
        let again = copier.copy(&chosen[0], &Silent).unwrap();
        assert!(matches!(again, Copied::There { .. }), "{again:?}");
    }
    let third = create(&other_sizes()).1;
    let (again, _) = copy(&to, &third, copied.id);
    assert_same((from, root), (&third, again.record.root));
    assert_eq!(again.record.original, Some(named));
    let mut from_first = copier(from, &third);
    assert!(
        matches!(from_first.copy(&original, &Silent).unwrap(), Copied::There { id } if id == again.id)
    );
    assert_whole(&third);
    let same = Copier::new(from, from, WriteOptions::default());
    assert!(matches!(same, Err(Error::Invalid(_))));
}

/// A tree of files on disk.
struct Files {
    _temp: tempfile::TempDir,
    base: PathBuf,
}

impl Files {
    fn new(seed: u64, shape: &Shape) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap().join("base");
        std::fs::create_dir(&base).unwrap();
        TreeSpec::seeded(seed, shape).materialise(&base).unwrap();
        Self { _temp: temp, base }
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.base.join(name), bytes).unwrap();
    }
}

/// What a copy stores is what a backup of the same files into the destination stores, cut by cut: nothing is stored
/// twice, whether the sizes of chunks are the same or not. The record keeps what it said.
#[test]
fn copies_and_backups_share_everything() {
    let files = Files::new(11, &Shape::odd(300));
    for options in [CreateOptions::default(), other_sizes()] {
        let (from, to) = (fresh(), create(&options).1);
        let original = save(&from, &files.base, ParentChoice::Latest);
        let (copied, _) = copy(&from, &to, original.id);
        let (a, b) = (&original.record, &copied.record);
        assert_eq!((a.time, a.started, &a.host, &a.user), (b.time, b.started, &b.host, &b.user));
        assert_eq!((&a.paths, &a.tags, &a.description), (&b.paths, &b.tags, &b.description));
        assert_eq!((&a.program, &a.excludes), (&b.program, &b.excludes));
        assert_eq!(a.summary.files_new, b.summary.files_new);
        assert_eq!(a.summary.duration_ns, b.summary.duration_ns);

        let native = save(&to, &files.base, ParentChoice::Nothing);
        assert_eq!(native.record.summary.chunks_new, 0);
        assert_eq!(native.record.root, copied.record.root, "not a single node differs");
        // The copy is the parent of the next backup, which then reads nothing.
        let next = save(&to, &files.base, ParentChoice::Snapshot(copied.id));
        assert_eq!(next.record.summary.bytes_read, 0);
        assert_whole(&to);
    }
}

/// A copy builds on the nearest one that is there: only changed files are read, and the result is, node by node, that
/// of a copy from nothing. What was lost in the source comes back as it was.
#[test]
fn later_copies_read_what_changed() {
    const LEN: usize = 50_000;
    let files = Files::new(12, &Shape::home(1500));
    (0..4).for_each(|number| files.write(&format!("old {number}"), &noise(number, LEN)));
    let (from, to) = (fresh(), fresh());
    let mut originals = vec![save(&from, &files.base, ParentChoice::Latest)];
    for number in 0..3u64 {
        files.write(&format!("old {number}"), &noise(number + 10, LEN));
        files.write(&format!("new {number}"), &noise(number + 20, LEN));
        std::fs::remove_file(files.base.join("old 3")).unwrap_or_default();
        let mode = std::fs::Permissions::from_mode(0o600 + number as u32);
        std::fs::set_permissions(files.base.join(format!("old {}", (number + 1) % 3)), mode)
            .unwrap();
        originals.push(save(&from, &files.base, ParentChoice::Latest));
    }
    let full = copy(&from, &to, originals[3].id);
    to.forget(&[full.0.id]).unwrap();
    let mut copier = copier(&from, &to);
    let mut copied = Vec::new();
    for original in &originals {
        let Copied::Done { id, figures, .. } = copier.copy(original, &Silent).unwrap() else {
            panic!("{}", original.id);
        };
        if !copied.is_empty() {
            // Two files with content, one with another mode, their directory, and once the one that went.
            assert_eq!((figures.files_read, figures.bytes_read), (2, 2 * LEN as u64));
            assert!(figures.entries <= 5, "{figures:?}");
        }
        copied.push(find(&to, id));
    }
    for (number, (original, copy)) in originals.iter().zip(&copied).enumerate() {
        assert_same((&from, original.record.root), (&to, copy.record.root));
        let parent = number.checked_sub(1).map(|before| copied[before].id);
        assert_eq!(copy.record.parent, parent);
    }
    assert_eq!(copied[3].record.root, full.0.record.root);

    from.forget(&[originals[1].id]).unwrap();
    prune(&from);
    let (back, figures) = copy(&to, &from, copied[1].id);
    assert_eq!(back.record.root, originals[1].record.root);
    assert_eq!(back.record.original, copied[1].record.original);
    assert!(figures.entries <= 5, "{figures:?}");
    assert_whole(&to);
    assert_whole(&from);
}

fn prune(repository: &Arc<Repository>) {
    let options = PruneOptions {
        keep_forgotten: Duration::ZERO,
        grace: Duration::ZERO,
        max_unused: MaxUnused::Bytes(0),
        ..PruneOptions::default()
    };
    repository.prune(&options).unwrap();
}

/// Ends a loop however its maker ends.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// While the destination is pruned without any grace and loses copies, what is copied is whole, or the copy says
/// clearly that it was not possible.
#[test]
fn copies_run_beside_prunes() {
    let files = Files::new(13, &Shape::home(400));
    let (from, to) = (fresh(), fresh());
    let mut originals = Vec::new();
    for number in 0..10 {
        files.write(&format!("file {}", number % 4), &noise(number, 200_000));
        originals.push(save(&from, &files.base, ParentChoice::Latest));
    }
    let (done, prunes) = (AtomicBool::new(false), AtomicU64::new(0));
    let copied = std::thread::scope(|scope| {
        let _ending = Ending(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                prune(&to);
                prunes.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut copier = copier(&from, &to);
        let mut copied: Vec<(usize, SnapshotId)> = Vec::new();
        for (number, original) in originals.iter().enumerate() {
            match copier.copy(original, &Silent) {
                Ok(Copied::Done { id, .. }) => copied.push((number, id)),
                Err(Error::Conflict { .. }) => {}
                other => panic!("{other:?}"),
            }
            if number % 2 == 1 && !copied.is_empty() {
                let (_, gone) = copied.remove(0);
                to.forget(&[gone]).unwrap();
            }
        }
        copied
    });
    assert!(copied.len() > 2 && prunes.into_inner() > 0, "{copied:?}");
    for (number, id) in copied {
        assert_same((&from, originals[number].record.root), (&to, find(&to, id).record.root));
    }
    assert_whole(&to);
}

/// Damage in the source names the file and costs the snapshots that need it, not the others.
#[test]
fn damage_refuses_one_snapshot() {
    let lab = Lab::new();
    let mut draft = Draft::default();
    draft.dir("");
    draft.file("a", noise(1, 300_000));
    let first = draft.commit(&lab);
    let before = lab.backend.list(ObjectKind::Pack).unwrap();
    draft.file("b/lost", noise(2, 300_000));
    draft.commit(&lab);
    let after = lab.backend.list(ObjectKind::Pack).unwrap();
    draft.entries.remove(&b"b\0lost"[..]);
    draft.file("c", noise(3, 300_000));
    let third = draft.commit(&lab);
    for (name, size) in after.into_iter().filter(|pack| !before.contains(pack)) {
        if size > 300_000 {
            lab.backend.damage(&name, |bytes| bytes[200_000] ^= 1);
        }
    }
    let (from, to) = (&lab.repository, fresh());
    let mut copier = copier(from, &to);
    let mut copy = |number: usize| {
        let snapshot = copier.snapshots()[number].clone();
        copier.copy(&snapshot, &Silent).unwrap()
    };
    for (number, expected) in [(0, Some(first)), (1, None), (2, Some(third)), (1, None)] {
        match (copy(number), expected) {
            (Copied::Done { id, .. }, Some(root)) => {
                assert_same((from, root), (&to, find(&to, id).record.root));
            }
            (Copied::Refused { problem }, None) => {
                assert_eq!(problem.path.to_str(), Some("/b/lost"), "{problem:?}");
                assert!(!problem.what.is_empty());
            }
            (other, _) => panic!("{other:?}"),
        }
    }
    assert_whole(&to);
}

/// Asks to stop after so many bytes.
struct Stopping {
    left: AtomicU64,
}

impl Observer for Stopping {
    fn event(&self, event: Event<'_>) {
        if let Event::Bytes(bytes) = event {
            let less = |left: u64| Some(left.saturating_sub(bytes));
            let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    fn cancelled(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

/// What an interrupted copy has stored in whole packs serves the next one.
#[test]
fn an_interrupted_copy_is_resumed() {
    const FILE: u64 = 40 << 20;
    let lab = Lab::new();
    let mut draft = Draft::default();
    draft.dir("");
    for seed in 0..3 {
        draft.file(&format!("f{seed}"), noise(seed, FILE as usize));
    }
    let root = draft.commit(&lab);
    let (from, to) = (&lab.repository, fresh());
    let original = from.snapshots().unwrap().remove(0);
    let stopping = Stopping { left: AtomicU64::new(2 * FILE + FILE / 2) };
    let stopped = copier(from, &to).copy(&original, &stopping);
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert_eq!(to.snapshots().unwrap().len(), 0);

    let (copied, figures) = copy(from, &to, original.id);
    assert_eq!(figures.bytes_read, 3 * FILE);
    let added = copied.record.summary.bytes_added;
    assert!(added < 3 * FILE - (32 << 20), "{added} bytes were stored again");
    assert_same((from, root), (&to, copied.record.root));
    assert_whole(&to);
}

/// A snapshot of the destination that says of itself that it is a copy, and is none, misleads no copy that builds on it.
#[test]
fn impostors_are_no_base() {
    let lab = Lab::new();
    let from = &lab.repository;
    let mut draft = Draft::default();
    draft.dir("");
    draft.file("a", noise(1, 9000));
    draft.commit(&lab);
    draft.file("b", noise(2, 9000));
    let root = draft.commit(&lab);
    let originals = from.snapshots().unwrap();
    let to = Lab::new();
    let mut other = Draft::default();
    other.dir("");
    other.file("other", noise(3, 5000));
    let writer = to.repository.writer(WriteOptions::default()).unwrap();
    let mut record = SnapshotRecord::new(originals[0].record.time, other.commit(&to));
    record.original = Some(Original { repository: from.id(), snapshot: originals[0].id });
    writer.commit(record).unwrap();
    let (copied, _) = copy(from, &to.repository, originals[1].id);
    assert_same((from, root), (&to.repository, copied.record.root));
    to.assert_whole();
}

/// A protected snapshot is protected where it is copied to.
#[test]
fn protection_goes_along() -> Result<()> {
    let files = Files::new(14, &Shape::home(20));
    let (from, to) = (fresh(), fresh());
    let first = save(&from, &files.base, ParentChoice::Latest);
    let second = save(&from, &files.base, ParentChoice::Latest);
    from.protect(&[second.id], true)?;
    assert!(!copy(&from, &to, first.id).0.protected);
    let (copied, _) = copy(&from, &to, second.id);
    assert!(copied.protected);
    assert!(matches!(to.forget(&[copied.id]), Err(Error::Protected { .. })));
    assert_whole(&to);
    Ok(())
}
