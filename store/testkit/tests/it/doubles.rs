//! Faults, counts and crash images.

use std::collections::BTreeSet;
use std::sync::Arc;
use stillpoint_store::backend::{Backend, Contents, MemoryBackend, Swap, put};
use stillpoint_store::{Env, ObjectKind, ObjectName, PackId, Result};
use stillpoint_testkit::{CallKind, CrashBackend, Effect, Fault, FaultBackend, Repeat, SeededEnv};

fn pack(number: u8) -> ObjectName {
    ObjectName::Pack(PackId::from_bytes([number; 16]))
}

/// Five calls with lasting effects among others.
fn scenario(backend: &dyn Backend) -> Result<()> {
    put(backend, &pack(1), b"one")?;
    backend.swap_head(None, b"head")?;
    backend.read_head()?;
    backend.list(ObjectKind::Pack)?;
    backend.read(&pack(1), 0..3)?;
    backend.size_bytes(&pack(1))?;
    backend.remove(&pack(1))
}

/// Calls and bytes are counted by kind.
#[test]
fn calls_are_counted() {
    let backend = FaultBackend::new(Arc::new(MemoryBackend::new()));
    scenario(&backend).unwrap();
    let counts = backend.take_counts();
    assert_eq!(counts.total(), 9);
    for kind in [CallKind::Create, CallKind::Write, CallKind::Finish, CallKind::SwapHead] {
        assert_eq!(counts.of(kind), 1);
    }
    assert_eq!(counts.read_bytes, 7);
    assert_eq!(counts.written_bytes, 7);
    assert_eq!(backend.counts().total(), 0);
}

/// Each planned fault makes the scenario fail, whichever call it is.
#[test]
fn every_fault_strikes() {
    for fault in Fault::every(9) {
        let backend = FaultBackend::new(Arc::new(MemoryBackend::new()));
        backend.plan(fault);
        assert!(scenario(&backend).is_err(), "{fault:?}");
        assert!(backend.struck());
        let again = backend.list(ObjectKind::Pack);
        assert_eq!(again.is_err(), fault.repeat == Repeat::ForEver, "{fault:?}");
        backend.heal();
        backend.list(ObjectKind::Pack).unwrap();
    }
}

/// A lost answer: the call fails, and its effect is there.
#[test]
fn an_answer_can_get_lost() {
    let inner = MemoryBackend::new();
    let backend = FaultBackend::new(Arc::new(inner.clone()));
    for (effect, head) in [(Effect::None, None), (Effect::Done, Some(b"head".to_vec()))] {
        let errno = rustix::io::Errno::IO;
        backend.plan(Fault { call: 0, repeat: Repeat::Once, effect, errno });
        assert!(backend.swap_head(None, b"head").is_err());
        assert_eq!(inner.contents().head, head);
    }
}

/// The images of a put, a commit and a removal one after the other: each done or not, never out of order, and a
/// removal may be undone.
#[test]
fn images_of_sequential_operations() {
    let backend = CrashBackend::new(Contents::default());
    put(&backend, &pack(1), b"one").unwrap();
    assert_eq!(backend.swap_head(None, b"head").unwrap(), Swap::Done);
    backend.mark("committed");
    backend.remove(&pack(1)).unwrap();
    let images = backend.images();
    let states: BTreeSet<(bool, bool, bool, bool)> = images
        .iter()
        .map(|image| {
            let there = image.contents.objects.contains_key(&pack(1));
            let late = image.late_removals == [pack(1)];
            (there, image.contents.head.is_some(), !image.marks.is_empty(), late)
        })
        .collect();
    let wanted = [
        (false, false, false, false), // nothing yet
        (true, false, false, false),  // the pack
        (true, true, false, false),   // and the head
        (true, true, true, false),    // and the user knows
        (true, true, true, true),     // the removal was asked for, or undone
        (false, true, true, false),   // the removal happened
    ];
    assert_eq!(states, BTreeSet::from(wanted));
    for image in images {
        let after = image.backend();
        image.remove_late(&after).unwrap();
        if !image.late_removals.is_empty() {
            assert_eq!(after.list(ObjectKind::Pack).unwrap(), []);
        }
    }
}

/// Equal seeds give equal bytes, and the clock moves only when told.
#[test]
fn a_seeded_environment_repeats() {
    let draw = |seed| {
        let env = SeededEnv::new(seed);
        PackId::random(&env)
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let env = SeededEnv::new(1);
    let start = env.now();
    assert_eq!(env.now(), start);
    env.advance_seconds(-5);
    assert_eq!(env.now().seconds, start.seconds - 5);
}
