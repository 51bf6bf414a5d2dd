//! Forgetting, taking it back, and protecting from it.

use crate::lab::{self, assert_whole, create, files, memory, open, restore_by_id, snapshot};
use std::sync::Arc;
use std::time::Duration;
use stillpoint_store::prune::{MaxUnused, PruneOptions};
use stillpoint_store::{Error, Repository, WriteOptions};

fn prune(repository: &Arc<Repository>, keep_forgotten: Duration) -> u64 {
    let options = PruneOptions {
        keep_forgotten,
        grace: Duration::ZERO,
        orphan_grace: Duration::ZERO,
        max_unused: MaxUnused::Bytes(0),
        ..PruneOptions::default()
    };
    repository.prune(&options).unwrap().expired
}

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// A forgotten snapshot is off the list and whole, and comes back, until a prune finds that its time is over.
#[test]
fn forgotten_snapshots_come_back_until_their_time_is_over() {
    let (backend, env) = memory();
    let repository = create(&backend, &env);
    let content = files(0..40);
    let gone = snapshot(&repository, &content).unwrap();
    let kept = snapshot(&repository, &files(40..50)).unwrap();
    assert_eq!(repository.forget(&[gone]).unwrap(), [gone]);
    assert!(matches!(restore_by_id(&repository, gone), Err(Error::NoSuchSnapshot { .. })));
    assert_eq!(prune(&repository, WEEK), 0);
    let list = repository.forgotten().unwrap();
    assert_eq!(list.iter().map(|one| one.snapshot.id).collect::<Vec<_>>(), [gone]);
    assert_eq!(repository.find_forgotten(&gone.to_string()[..8]).unwrap().snapshot.id, gone);

    // Another process brings it back; doing it twice changes nothing.
    let other = open(&backend, &env).unwrap();
    assert_eq!(other.undelete(&[gone]).unwrap(), [gone]);
    assert_eq!(other.undelete(&[gone]).unwrap(), []);
    assert!(repository.forgotten().unwrap().is_empty());
    assert_eq!(restore_by_id(&repository, gone).unwrap(), content);
    assert_whole(&repository);

    repository.forget(&[gone]).unwrap();
    assert_eq!(prune(&repository, Duration::ZERO), 1);
    assert!(repository.forgotten().unwrap().is_empty());
    assert!(matches!(repository.undelete(&[gone]), Err(Error::NoSuchSnapshot { .. })));
    assert!(matches!(repository.undelete(&[kept, gone]), Err(Error::NoSuchSnapshot { .. })));
    assert_eq!(restore_by_id(&repository, kept).unwrap(), files(40..50));
    assert_whole(&repository);
}

/// A protected snapshot stays, and so do those that were to be forgotten with it.
#[test]
fn protected_snapshots_are_not_forgotten() {
    let (backend, env) = memory();
    let repository = create(&backend, &env);
    let (one, two) = (
        snapshot(&repository, &files(0..3)).unwrap(),
        snapshot(&repository, &files(3..5)).unwrap(),
    );
    assert_eq!(repository.protect(&[two], true).unwrap(), [two]);
    assert_eq!(repository.protect(&[two], true).unwrap(), []);
    let refused = repository.forget(&[one, two]);
    assert!(matches!(refused, Err(Error::Protected { snapshot }) if snapshot == two));
    let flags: Vec<_> =
        repository.snapshots().unwrap().iter().map(|one| (one.id, one.protected)).collect();
    assert_eq!(flags, [(one, false), (two, true)]);
    assert_eq!(repository.protect(&[one, two], false).unwrap(), [two]);
    assert_eq!(repository.forget(&[one, two]).unwrap(), [one, two]);
    assert!(matches!(repository.protect(&[one], true), Err(Error::NoSuchSnapshot { .. })));
}

/// A reader goes on under the head it began with while a prune without any grace moves and deletes packs: what
/// a live snapshot needs, it finds elsewhere.
#[test]
fn readers_follow_moved_chunks() {
    let (backend, env) = memory();
    let repository = create(&backend, &env);
    let all = files(0..60);
    let kept = files((0..60).filter(|seed| seed % 3 == 0));
    let gone = snapshot(&repository, &all).unwrap();
    let keep = snapshot(&repository, &kept).unwrap();
    let reading = open(&backend, &env).unwrap();
    let reader = reading.reader().unwrap();
    let root = reading.find_snapshot(&keep.to_string()).unwrap().record.root;
    // The index of the reader is brought up before the packs go.
    assert_eq!(crate::lab::restore_with(&reader, root).unwrap(), kept);
    let reader = reading.reader_of(Arc::clone(reader.view()));
    repository.forget(&[gone]).unwrap();
    prune(&repository, Duration::ZERO);
    assert_eq!(crate::lab::restore_with(&reader, root).unwrap(), kept);
    assert_eq!(reading.notices(), Vec::<String>::new());
}

/// The same whatever the reader's index reflects when the chunks have moved: nothing yet, the head that the reader is
/// pinned to, one between that and the newest, or the newest.
#[test]
fn readers_follow_moved_chunks_whatever_their_index_knows() {
    for case in ["nothing", "pinned", "between", "newest"] {
        let (backend, env) = memory();
        let repository = create(&backend, &env);
        let kept = files((0..60).filter(|seed| seed % 3 == 0));
        let gone = snapshot(&repository, &files(0..60)).unwrap();
        let keep = snapshot(&repository, &kept).unwrap();
        let reading = open(&backend, &env).unwrap();
        let pinned = Arc::new(reading.head().unwrap());
        let root = reading.find_snapshot(&keep.to_string()).unwrap().record.root;
        let bring_up = |at: &str| {
            if at == case {
                let newest = reading.reader().unwrap();
                crate::lab::restore_with(&newest, root).unwrap();
            }
        };
        bring_up("pinned");
        repository.forget(&[gone]).unwrap();
        snapshot(&repository, &files(100..103)).unwrap();
        bring_up("between");
        prune(&repository, Duration::ZERO);
        bring_up("newest");
        let reader = reading.reader_of(pinned);
        assert_eq!(crate::lab::restore_with(&reader, root).unwrap(), kept, "{case}");
        assert_eq!(reading.notices(), Vec::<String>::new(), "{case}");
    }
}

/// A draft is on no list of live snapshots and survives a prune; the commit that replaces it removes it for good, and what
/// both hold is kept.
#[test]
fn drafts_serve_until_they_are_replaced() {
    let (backend, env) = memory();
    let repository = create(&backend, &env);
    let commit = |content: lab::Files, options: WriteOptions| {
        let writer = repository.writer(options).unwrap();
        let record = lab::fill(&writer, &repository, &content).unwrap();
        writer.commit(record).unwrap().0
    };
    let draft = |content| commit(content, WriteOptions { draft: true, ..WriteOptions::default() });
    let first = draft(files(0..4));
    let second = draft(files(0..6));
    assert!(repository.snapshots().unwrap().is_empty());
    prune(&repository, WEEK);
    let drafts: Vec<_> =
        repository.forgotten().unwrap().into_iter().map(|one| one.snapshot.id).collect();
    assert_eq!(drafts.len(), 2);
    assert!(drafts.contains(&first) && drafts.contains(&second));

    let supersedes = vec![first, second];
    let last = commit(files(0..7), WriteOptions { supersedes, ..WriteOptions::default() });
    assert!(repository.forgotten().unwrap().is_empty());
    prune(&repository, Duration::ZERO);
    assert_eq!(restore_by_id(&repository, last).unwrap(), files(0..7));
    assert_whole(&repository);
    let gone = repository.undelete(&[first]).unwrap_err();
    assert!(matches!(gone, Error::NoSuchSnapshot { .. }), "{gone}");
}
