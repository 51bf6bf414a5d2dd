//! Commits of others at the worst moments: just before and just after a swap of the head, with and without an answer.

use crate::lab::{self, assert_whole, files, memory, restore_by_id, snapshot};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stillpoint_store::backend::{Backend, ObjectBytes, ObjectWriter, Swap};
use stillpoint_store::prune::{MaxUnused, PruneOptions};
use stillpoint_store::{Env, Error, ObjectKind, ObjectName, Result, WriteOptions};
use stillpoint_testkit::SeededEnv;

pub type Deed = Box<dyn FnOnce() + Send>;

/// What happens around the next swap of the head.
#[derive(Default)]
pub struct Plan {
    pub before: Option<Deed>,
    pub after: Option<Deed>,
    /// The answer of the swap is lost, its effect is not.
    pub answer_lost: bool,
}

/// A backend whose next swap is accompanied by what others do.
pub struct Meddled {
    pub inner: Arc<dyn Backend>,
    pub plan: Mutex<Plan>,
}

impl Backend for Meddled {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn initialise(&self) -> Result<()> {
        self.inner.initialise()
    }

    fn create(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        self.inner.create(name)
    }

    fn replace(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        self.inner.replace(name)
    }

    fn read(&self, name: &ObjectName, range: Range<u64>) -> Result<ObjectBytes> {
        self.inner.read(name, range)
    }

    fn size_bytes(&self, name: &ObjectName) -> Result<Option<u64>> {
        self.inner.size_bytes(name)
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(ObjectName, u64)>> {
        self.inner.list(kind)
    }

    fn remove(&self, name: &ObjectName) -> Result<()> {
        self.inner.remove(name)
    }

    fn read_head(&self) -> Result<Option<Vec<u8>>> {
        self.inner.read_head()
    }

    fn swap_head(&self, expected: Option<&[u8]>, new: &[u8]) -> Result<Swap> {
        let plan = std::mem::take(&mut *self.plan.lock().unwrap());
        if let Some(deed) = plan.before {
            deed();
        }
        let swapped = self.inner.swap_head(expected, new)?;
        if let Some(deed) = plan.after {
            deed();
        }
        if plan.answer_lost {
            let source = std::io::Error::from_raw_os_error(5);
            return Err(Error::Io { action: "writing", object: "head".into(), source });
        }
        Ok(swapped)
    }
}

fn prune_now() -> PruneOptions {
    PruneOptions {
        keep_forgotten: Duration::ZERO,
        grace: Duration::ZERO,
        orphan_grace: Duration::ZERO,
        max_unused: MaxUnused::Bytes(0),
        ..PruneOptions::default()
    }
}

/// A forget whose answer is lost, and on whose head another snapshot is committed before it can look: both hold.
#[test]
fn a_lost_answer_under_a_later_head() {
    let (inner, env) = memory();
    let meddled = Arc::new(Meddled { inner: Arc::clone(&inner), plan: Mutex::default() });
    let backend: Arc<dyn Backend> = meddled.clone();
    let repository = lab::create(&backend, &env);
    // Enough snapshots for a catalogue of several nodes.
    let ids: Vec<_> = (0..60).map(|seed| snapshot(&repository, &files([seed])).unwrap()).collect();
    let other = lab::open(&inner, &env).unwrap();
    let later = Arc::new(Mutex::new(None));
    let (seen, theirs) = (Arc::clone(&later), Arc::clone(&other));
    *meddled.plan.lock().unwrap() = Plan {
        before: None,
        after: Some(Box::new(move || {
            *seen.lock().unwrap() = Some(snapshot(&theirs, &files(100..103)).unwrap());
        })),
        answer_lost: true,
    };
    assert_eq!(repository.forget(&[ids[7]]).unwrap(), [ids[7]]);
    let later = later.lock().unwrap().expect("the other snapshot was taken");
    for repository in [&repository, &other, &lab::open(&inner, &env).unwrap()] {
        assert_eq!(repository.snapshots().unwrap().len(), 60);
        assert_eq!(restore_by_id(repository, later).unwrap(), files(100..103));
        assert_eq!(restore_by_id(repository, ids[8]).unwrap(), files([8]));
        assert_whole(repository);
    }
}

/// A snapshot whose answer is lost, and on whose head another commits: it is found committed, once.
#[test]
fn a_committed_snapshot_is_recognised_under_a_later_head() {
    let (inner, env) = memory();
    let meddled = Arc::new(Meddled { inner: Arc::clone(&inner), plan: Mutex::default() });
    let backend: Arc<dyn Backend> = meddled.clone();
    let repository = lab::create(&backend, &env);
    let other = lab::open(&inner, &env).unwrap();
    let writer = repository.writer(WriteOptions::default()).unwrap();
    let record = lab::fill(&writer, &repository, &files(0..9)).unwrap();
    *meddled.plan.lock().unwrap() = Plan {
        before: None,
        after: Some(Box::new(move || {
            snapshot(&other, &files(20..22)).unwrap();
        })),
        answer_lost: true,
    };
    let id = writer.commit(record).unwrap().0;
    assert_eq!(repository.snapshots().unwrap().len(), 2);
    assert_eq!(restore_by_id(&repository, id).unwrap(), files(0..9));
    assert_whole(&repository);
}

/// A prune that rewrites and loses the race does not take its own new packs for orphans, whatever the graces.
#[test]
fn a_prune_that_lost_a_race_keeps_what_it_wrote() {
    let (inner, env) = memory();
    let meddled = Arc::new(Meddled { inner: Arc::clone(&inner), plan: Mutex::default() });
    let backend: Arc<dyn Backend> = meddled.clone();
    let repository = lab::create(&backend, &env);
    let gone = snapshot(&repository, &files(0..80)).unwrap();
    let kept = files((0..80).filter(|seed| seed % 3 == 0));
    let keep = snapshot(&repository, &kept).unwrap();
    repository.forget(&[gone]).unwrap();
    let other = lab::open(&inner, &env).unwrap();
    *meddled.plan.lock().unwrap() = Plan {
        before: Some(Box::new(move || {
            snapshot(&other, &files(200..204)).unwrap();
        })),
        ..Plan::default()
    };
    let report = repository.prune(&prune_now()).unwrap();
    assert!(!report.plan.rewrite.is_empty(), "the prune had something to rewrite");
    assert_eq!(report.orphans, 0);
    assert_eq!(restore_by_id(&repository, keep).unwrap(), kept);
    assert_eq!(repository.snapshots().unwrap().len(), 2);
    assert_whole(&repository);
    assert_whole(&lab::open(&inner, &env).unwrap());
}

/// A prune whose answer is lost, and after which somebody forgets what its new packs hold in part, looks at these packs
/// as at any other: what is still needed of them is moved, not left in packs that it condemns itself.
#[test]
fn a_prune_with_a_lost_answer_does_not_condemn_what_it_believes_to_hold() {
    let (inner, env) = memory();
    let meddled = Arc::new(Meddled { inner: Arc::clone(&inner), plan: Mutex::default() });
    let backend: Arc<dyn Backend> = meddled.clone();
    let repository = lab::create(&backend, &env);
    let every = |step: u64| files((0..80).filter(|seed| seed % step == 0));
    let all = snapshot(&repository, &every(1)).unwrap();
    let third = snapshot(&repository, &every(3)).unwrap();
    let sixth = snapshot(&repository, &every(6)).unwrap();
    repository.forget(&[all]).unwrap();
    let other = lab::open(&inner, &env).unwrap();
    *meddled.plan.lock().unwrap() = Plan {
        before: None,
        after: Some(Box::new(move || {
            assert_eq!(other.forget(&[third]).unwrap(), [third]);
        })),
        answer_lost: true,
    };
    repository.prune(&prune_now()).unwrap();
    assert_whole(&lab::open(&inner, &env).unwrap());
    assert_eq!(restore_by_id(&repository, sixth).unwrap(), every(6));
}

/// An undelete that hears nothing of its swap, while a prune lets the snapshot go for good, does not say that the
/// snapshot is back.
#[test]
fn an_undelete_without_an_answer_does_not_claim_what_is_gone() {
    let (inner, env) = memory();
    let meddled = Arc::new(Meddled { inner: Arc::clone(&inner), plan: Mutex::default() });
    let backend: Arc<dyn Backend> = meddled.clone();
    let repository = lab::create(&backend, &env);
    let gone = snapshot(&repository, &files(0..9)).unwrap();
    repository.forget(&[gone]).unwrap();
    let other = lab::open(&inner, &env).unwrap();
    *meddled.plan.lock().unwrap() = Plan {
        before: Some(Box::new(move || {
            assert_eq!(other.prune(&prune_now()).unwrap().expired, 1);
        })),
        after: None,
        answer_lost: true,
    };
    let undeleted = repository.undelete(&[gone]);
    assert!(matches!(undeleted, Err(Error::NoSuchSnapshot { .. })), "{undeleted:?}");
    assert_whole(&repository);
}

/// A prune whose answer is lost while the head moves on so far that it no longer tells, and the name of its first new
/// pack is forgotten, removes none of its new packs by hand: another one is live.
#[test]
fn a_prune_that_cannot_tell_removes_nothing() {
    let inner: Arc<dyn Backend> = memory().0;
    let clock = Arc::new(SeededEnv::new(3));
    let env: Arc<dyn Env> = clock.clone();
    let meddled = Arc::new(Meddled { inner: Arc::clone(&inner), plan: Mutex::default() });
    let backend: Arc<dyn Backend> = meddled.clone();
    let repository = lab::create(&backend, &env);
    // One pack of data and one of nodes, both sparse once the first snapshot is gone.
    let with_names = |seeds: &[u64], count: u32| {
        let names = (0..count).map(|number| (format!("name-{number:06}").into_bytes(), Vec::new()));
        files(seeds.iter().copied()).into_iter().chain(names).collect::<lab::Files>()
    };
    let all = snapshot(&repository, &with_names(&[7, 9, 33], 20_000)).unwrap();
    let large = snapshot(&repository, &files([33])).unwrap();
    let kept = with_names(&[9], 10_000);
    let small = snapshot(&repository, &kept).unwrap();
    repository.forget(&[all]).unwrap();
    let other = lab::open(&inner, &env).unwrap();
    let deed = move || {
        // The new pack of data is rewritten, its name forgotten; that of nodes has little to give and stays.
        other.forget(&[large]).unwrap();
        let sparse = PruneOptions { max_unused: MaxUnused::Percent(30.0), ..prune_now() };
        assert_eq!(other.prune(&sparse).unwrap().rewritten, 1);
        clock.advance_seconds(8 * 24 * 3600);
        other.prune(&sparse).unwrap();
        for round in 0..40 {
            other.protect(&[small], round % 2 == 0).unwrap();
        }
    };
    // Its first swap removes the forgotten snapshot, its second is the one of the rewriting.
    let later = Arc::clone(&meddled);
    *meddled.plan.lock().unwrap() = Plan {
        after: Some(Box::new(move || {
            *later.plan.lock().unwrap() =
                Plan { after: Some(Box::new(deed)), answer_lost: true, ..Plan::default() };
        })),
        ..Plan::default()
    };
    repository.prune(&prune_now()).unwrap();
    let again = lab::open(&inner, &env).unwrap();
    assert!(restore_by_id(&again, small).unwrap() == kept);
    assert_whole(&again);
}

/// A snapshot whose time was over, and that is brought back and forgotten again while a prune is about to let it go, has
/// its whole time before it.
#[test]
fn forgotten_again_is_not_expired() {
    let inner: Arc<dyn Backend> = memory().0;
    let clock = Arc::new(SeededEnv::new(4));
    let env: Arc<dyn Env> = clock.clone();
    let meddled = Arc::new(Meddled { inner: Arc::clone(&inner), plan: Mutex::default() });
    let backend: Arc<dyn Backend> = meddled.clone();
    let repository = lab::create(&backend, &env);
    let (kept, again) = (
        snapshot(&repository, &files(0..4)).unwrap(),
        snapshot(&repository, &files(2..9)).unwrap(),
    );
    repository.forget(&[again]).unwrap();
    clock.advance_seconds(8 * 24 * 3600);
    let other = lab::open(&inner, &env).unwrap();
    *meddled.plan.lock().unwrap() = Plan {
        before: Some(Box::new(move || {
            assert_eq!(other.undelete(&[again]).unwrap(), [again]);
            assert_eq!(other.forget(&[again]).unwrap(), [again]);
        })),
        ..Plan::default()
    };
    let week = Duration::from_secs(7 * 24 * 3600);
    let report = repository.prune(&PruneOptions { keep_forgotten: week, ..prune_now() }).unwrap();
    assert_eq!(report.expired, 0);
    assert_eq!(repository.undelete(&[again]).unwrap(), [again]);
    assert_eq!(restore_by_id(&repository, again).unwrap(), files(2..9));
    assert_eq!(restore_by_id(&repository, kept).unwrap(), files(0..4));
    assert_whole(&repository);
}
