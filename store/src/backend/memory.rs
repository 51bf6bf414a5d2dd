//! A repository in memory: for tests, simulations and throw-away repositories.
//!
//! Owns nothing durable; what it promises (whole objects, names never reused, a head that swaps) is exactly what the
//! local directory promises, so the same conformance suite runs against both.

use super::{Backend, ObjectBytes, ObjectWriter, Swap};
use crate::error::{Error, Result};
use crate::id::{ObjectKind, ObjectName};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

/// Everything that a repository holds: a value that can be copied, compared and edited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The immutable objects.
    pub objects: BTreeMap<ObjectName, Arc<Vec<u8>>>,
    /// The head's bytes, None before the first commit.
    pub head: Option<Vec<u8>>,
}

/// A backend in memory. Clones share one store; [`MemoryBackend::contents`] takes a copy.
#[derive(Debug, Clone, Default)]
pub struct MemoryBackend {
    contents: Arc<Mutex<Contents>>,
}

impl MemoryBackend {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store that begins with these contents.
    pub fn with_contents(contents: Contents) -> Self {
        Self { contents: Arc::new(Mutex::new(contents)) }
    }

    /// A copy of everything stored; object bytes are shared, not copied.
    pub fn contents(&self) -> Contents {
        self.lock().clone()
    }

    /// Changes stored bytes behind the repository's back, as bit rot or an attacker would. False if there is no such
    /// object.
    pub fn damage(&self, name: &ObjectName, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        match self.lock().objects.get_mut(name) {
            Some(bytes) => {
                change(Arc::make_mut(bytes));
                true
            }
            None => false,
        }
    }

    /// Puts a head in place without comparing.
    pub fn set_head(&self, head: Option<Vec<u8>>) {
        self.lock().head = head;
    }

    fn writer(&self, name: &ObjectName, replaces: bool) -> Box<dyn ObjectWriter> {
        Box::new(MemoryWriter { store: self.clone(), name: *name, bytes: Vec::new(), replaces })
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().expect("no panic while the contents are locked")
    }
}

struct MemoryWriter {
    store: MemoryBackend,
    name: ObjectName,
    bytes: Vec<u8>,
    /// Takes the place of what has the name.
    replaces: bool,
}

impl ObjectWriter for MemoryWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let mut contents = self.store.lock();
        if !self.replaces && contents.objects.contains_key(&self.name) {
            return Err(Error::AlreadyExists { location: self.name.to_string() });
        }
        contents.objects.insert(self.name, Arc::new(self.bytes));
        Ok(())
    }
}

impl Backend for MemoryBackend {
    fn location(&self) -> String {
        "memory".into()
    }

    fn initialise(&self) -> Result<()> {
        let mut contents = self.lock();
        if contents.objects.contains_key(&ObjectName::Config) {
            return Err(Error::AlreadyExists { location: self.location() });
        }
        if contents.objects.keys().any(|name| super::KINDS_OF_DATA.contains(&name.kind())) {
            return Err(super::config_is_lost(&self.location()));
        }
        *contents = Contents::default();
        Ok(())
    }

    fn create(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        Ok(self.writer(name, false))
    }

    fn replace(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        Ok(self.writer(name, true))
    }

    fn read(&self, name: &ObjectName, range: Range<u64>) -> Result<ObjectBytes> {
        let bytes = self.lock().objects.get(name).cloned().ok_or_else(|| Error::missing(name))?;
        let window = match (usize::try_from(range.start), usize::try_from(range.end)) {
            (Ok(start), Ok(end)) => ObjectBytes::window(bytes.clone(), start..end),
            _ => None,
        };
        window.ok_or_else(|| super::too_short(name, bytes.len() as u64, &range))
    }

    fn size_bytes(&self, name: &ObjectName) -> Result<Option<u64>> {
        Ok(self.lock().objects.get(name).map(|bytes| bytes.len() as u64))
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<(ObjectName, u64)>> {
        let contents = self.lock();
        let of_kind = contents.objects.iter().filter(|(name, _)| name.kind() == kind);
        Ok(of_kind.map(|(name, bytes)| (*name, bytes.len() as u64)).collect())
    }

    fn remove(&self, name: &ObjectName) -> Result<()> {
        self.lock().objects.remove(name);
        Ok(())
    }

    fn read_head(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.lock().head.clone())
    }

    fn swap_head(&self, expected: Option<&[u8]>, new: &[u8]) -> Result<Swap> {
        let mut contents = self.lock();
        if contents.head.as_deref() != expected {
            return Ok(Swap::Lost);
        }
        contents.head = Some(new.to_vec());
        Ok(Swap::Done)
    }
}
