//! A backend that counts every call and fails the one it is told to.
//!
//! Calls are numbered from 0 in the order in which they arrive, writes and finishes of objects included. So a test
//! runs a scenario once to learn the number of calls, then once more for every number and every kind of failure.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use stillpoint_store::backend::{Backend, ObjectBytes, ObjectWriter, Swap};
use stillpoint_store::{Error, ObjectKind, ObjectName, Result};

/// The calls that can be counted and failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallKind {
    /// [`Backend::initialise`].
    Initialise,
    /// [`Backend::create`] and [`Backend::replace`].
    Create,
    /// [`ObjectWriter::write`].
    Write,
    /// [`ObjectWriter::finish`].
    Finish,
    /// [`Backend::read`].
    Read,
    /// [`Backend::size_bytes`].
    SizeBytes,
    /// [`Backend::list`].
    List,
    /// [`Backend::remove`].
    Remove,
    /// [`Backend::read_head`].
    ReadHead,
    /// [`Backend::swap_head`].
    SwapHead,
}

/// Which calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Only the one.
    Once,
    /// The one and all after it.
    ForEver,
}

/// What a failing call does before it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// All of it: the answer was lost. Only `finish`, `remove` and `swap_head` can do this; other calls do nothing.
    Done,
}

/// A planned failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The number of the call, from 0.
    pub call: u64,
    /// This call alone, or all from here on.
    pub repeat: Repeat,
    /// Whether the first failing call takes effect.
    pub effect: Effect,
    /// The operating system's error number, such as `ENOSPC`.
    pub errno: rustix::io::Errno,
}

impl Fault {
    /// Every fault for a scenario of this many calls: once and for ever, with and without effect, full disk and I/O
    /// error in turn.
    pub fn every(calls: u64) -> impl Iterator<Item = Self> {
        use rustix::io::Errno;
        (0..calls).flat_map(|call| {
            [Repeat::Once, Repeat::ForEver].into_iter().flat_map(move |repeat| {
                [Effect::None, Effect::Done].into_iter().map(move |effect| {
                    let errno = if call % 2 == 0 { Errno::NOSPC } else { Errno::IO };
                    Self { call, repeat, effect, errno }
                })
            })
        })
    }
}

/// How often and how much was asked of a backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls by kind, failed ones included.
    pub calls: BTreeMap<CallKind, u64>,
    /// Bytes given out by `read` and `read_head`.
    pub read_bytes: u64,
    /// Bytes taken by `write` and `swap_head`.
    pub written_bytes: u64,
}

impl Counts {
    /// Calls of one kind.
    pub fn of(&self, kind: CallKind) -> u64 {
        self.calls.get(&kind).copied().unwrap_or_default()
    }

    /// Calls of all kinds.
    pub fn total(&self) -> u64 {
        self.calls.values().sum()
    }
}

#[derive(Default)]
struct Ledger {
    counts: Counts,
    /// Calls since the fault was planned.
    number: u64,
    fault: Option<Fault>,
    struck: bool,
}

/// A backend that counts calls and fails those it is told to. Clones share counts and plan.
#[derive(Clone)]
pub struct FaultBackend {
    inner: Arc<dyn Backend>,
    ledger: Arc<Mutex<Ledger>>,
}

/// What a call has to do.
enum Verdict {
    Pass,
    Fail { first: bool, fault: Fault },
}

impl FaultBackend {
    /// Wraps a backend; nothing fails yet.
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self { inner, ledger: Arc::default() }
    }

    /// Plans a failure; the next call has number 0.
    pub fn plan(&self, fault: Fault) {
        let mut ledger = self.lock();
        ledger.number = 0;
        ledger.struck = false;
        ledger.fault = Some(fault);
    }

    /// Lets all calls pass again.
    pub fn heal(&self) {
        self.lock().fault = None;
    }

    /// True if the planned fault has struck.
    pub fn struck(&self) -> bool {
        self.lock().struck
    }

    /// Counts since the last [`Self::take_counts`].
    pub fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    /// Gives the counts and begins anew.
    pub fn take_counts(&self) -> Counts {
        std::mem::take(&mut self.lock().counts)
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no panic while the ledger is locked")
    }

    fn judge(&self, kind: CallKind) -> Verdict {
        let mut ledger = self.lock();
        *ledger.counts.calls.entry(kind).or_default() += 1;
        let number = ledger.number;
        ledger.number += 1;
        match ledger.fault {
            Some(fault)
                if number == fault.call
                    || (fault.repeat == Repeat::ForEver && number > fault.call) =>
            {
                let first = !ledger.struck;
                ledger.struck = true;
                Verdict::Fail { first, fault }
            }
            _ => Verdict::Pass,
        }
    }

    /// Runs a call without lasting effect.
    fn call<T>(
        &self,
        kind: CallKind,
        object: &dyn std::fmt::Display,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        match self.judge(kind) {
            Verdict::Pass => run(),
            Verdict::Fail { fault, .. } => Err(error(fault, object)),
        }
    }

    /// Runs a call whose answer may get lost.
    fn effect<T>(
        &self,
        kind: CallKind,
        object: &dyn std::fmt::Display,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        match self.judge(kind) {
            Verdict::Pass => run(),
            Verdict::Fail { first, fault } => {
                if first && fault.effect == Effect::Done {
                    run()?;
                }
                Err(error(fault, object))
            }
        }
    }
}

fn error(fault: Fault, object: &dyn std::fmt::Display) -> Error {
    Error::io("injected fault in", object, fault.errno.into())
}

struct FaultWriter {
    backend: FaultBackend,
    name: ObjectName,
    inner: Box<dyn ObjectWriter>,
}

impl ObjectWriter for FaultWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let inner = &mut self.inner;
        self.backend.call(CallKind::Write, &self.name, || inner.write(bytes))?;
        self.backend.lock().counts.written_bytes += bytes.len() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let Self { backend, name, inner } = *self;
        backend.effect(CallKind::Finish, &name, || inner.finish())
    }
}

impl Backend for FaultBackend {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn initialise(&self) -> Result<()> {
        self.call(CallKind::Initialise, &"repository", || self.inner.initialise())
    }

    fn create(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        let inner = self.call(CallKind::Create, name, || self.inner.create(name))?;
        Ok(Box::new(FaultWriter { backend: self.clone(), name: *name, inner }))
    }

    fn replace(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        let inner = self.call(CallKind::Create, name, || self.inner.replace(name))?;
        Ok(Box::new(FaultWriter { backend: self.clone(), name: *name, inner }))
    }

    fn read(&self, name: &ObjectName, range: Range<u64>) -> Result<ObjectBytes> {
        let bytes = self.call(CallKind::Read, name, || self.inner.read(name, range))?;
        self.lock().counts.read_bytes += bytes.len() as u64;
        Ok(bytes)
    }

    fn size_bytes(&self, name: &ObjectName) -> Result<Option<u64>> {
        self.call(CallKind::SizeBytes, name, || self.inner.size_bytes(name))
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(ObjectName, u64)>> {
        self.call(CallKind::List, &format!("{kind:?}"), || self.inner.list(kind))
    }

    fn remove(&self, name: &ObjectName) -> Result<()> {
        self.effect(CallKind::Remove, name, || self.inner.remove(name))
    }

    fn read_head(&self) -> Result<Option<Vec<u8>>> {
        let head = self.call(CallKind::ReadHead, &"head", || self.inner.read_head())?;
        self.lock().counts.read_bytes += head.as_ref().map_or(0, |head| head.len() as u64);
        Ok(head)
    }

    fn swap_head(&self, expected: Option<&[u8]>, new: &[u8]) -> Result<Swap> {
        let swap =
            self.effect(CallKind::SwapHead, &"head", || self.inner.swap_head(expected, new))?;
        self.lock().counts.written_bytes += new.len() as u64;
        Ok(swap)
    }
}
