//! A check while a prune removes at once what it looks at: no false alarm, and no damage overlooked.

use crate::lab::{self, files, memory, snapshot};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stillpoint_store::backend::{Backend, ObjectBytes, ObjectWriter, Swap};
use stillpoint_store::check::CheckOptions;
use stillpoint_store::prune::{MaxUnused, PruneOptions};
use stillpoint_store::{ObjectKind, ObjectName, Result};

/// A backend on which others do something right before each of the first reads of a pack.
struct Overtaken {
    inner: Arc<dyn Backend>,
    deeds: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
}

impl Backend for Overtaken {
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
        if name.kind() == ObjectKind::Pack {
            let deed = self.deeds.lock().unwrap().pop();
            deed.into_iter().for_each(|deed| deed());
        }
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
        self.inner.swap_head(expected, new)
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

/// A check of three snapshots; before its first two reads of packs, somebody forgets one of them, moves what the others
/// need and deletes the rest at once. Gives the findings.
fn check_overtaken(damage: bool) -> Vec<String> {
    let (inner, env) = memory();
    let repository = lab::create(&inner, &env);
    let ids: Vec<_> =
        (1..4).map(|seed| snapshot(&repository, &files([seed, 5])).unwrap()).collect();
    let victim = ids[2];
    let deeds: Vec<Box<dyn FnOnce() + Send>> = ids[..2]
        .iter()
        .map(|id| -> Box<dyn FnOnce() + Send> {
            let (id, repository, inner) = (*id, Arc::clone(&repository), Arc::clone(&inner));
            Box::new(move || {
                repository.forget(&[id]).unwrap();
                repository.prune(&prune_now()).unwrap();
                if damage {
                    inner.remove(&ObjectName::Snapshot(victim)).unwrap();
                }
            })
        })
        .collect();
    let backend: Arc<dyn Backend> = Arc::new(Overtaken { inner, deeds: Mutex::new(deeds) });
    let report = lab::open(&backend, &env).unwrap().check(CheckOptions::read_all(), &|_, _| {});
    let report = report.unwrap();
    assert_eq!(report.snapshots, 1, "the check looks at what is left");
    report.findings.iter().map(|finding| finding.detail.clone()).collect()
}

/// What was removed on purpose is not missed.
#[test]
fn a_prune_beside_a_check_raises_no_alarm() {
    assert_eq!(check_overtaken(false), [""; 0]);
}

/// What is lost beside that is found.
#[test]
fn damage_beside_a_prune_is_found() {
    let findings = check_overtaken(true);
    assert!(findings.iter().any(|detail| detail.contains("missing")), "{findings:?}");
}
