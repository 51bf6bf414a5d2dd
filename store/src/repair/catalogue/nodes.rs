//! Reading nodes of the catalogue of which any may be damaged.

use crate::backend;
use crate::catalogue::{CatalogueNodes, CatalogueSchema};
use crate::check::is_finding;
use crate::crypto::{Generation, MetadataKey, RecordContext, RecordKind};
use crate::error::{Error, Result};
use crate::id::{NodeId, ObjectName};
use crate::limits::{NODE_BYTES_MAX, RECORD_BYTES_MAX};
use crate::repository::Repository;
use crate::tree::{self, NodeBytes, NodeSource, Root, Schema};

/// Reads nodes; what claims to be of an unknown version is damaged, and a device may fail once.
pub(super) struct Nodes<'a> {
    repository: &'a Repository,
    inner: CatalogueNodes<'a>,
}

/// What lies under the name of a node.
pub(super) enum Found {
    /// A node, as the root of all that lies below it.
    Node { generation: Generation, root: Root },
    /// Something that claims to be of this version, which is not known.
    Newer(u32),
    /// Nothing that can be read.
    Lost,
}

impl<'a> Nodes<'a> {
    /// The nodes of this repository; none is ever written with it.
    pub fn new(repository: &'a Repository) -> Self {
        let (backend, env) = (&*repository.backend, &*repository.env);
        let inner = CatalogueNodes::new(backend, repository.id(), &repository.metadata, env, 0);
        Self { repository, inner }
    }

    /// One node by itself.
    ///
    /// # Errors
    /// `StaleSecret` where newer keys seal it than these, `Unsupported` for a newer layout of nodes.
    pub fn top(&self, id: &NodeId) -> Result<Found> {
        match self.try_top(id) {
            Ok(found) => Ok(found),
            Err(error) if is_finding(&error) => Ok(Found::Lost),
            Err(error) => Err(error),
        }
    }

    fn try_top(&self, id: &NodeId) -> Result<Found> {
        let name = ObjectName::Catalogue(*id);
        let bytes = match self.load_twice(id) {
            Ok(bytes) => bytes,
            Err(Error::Unsupported { found, .. }) => return Ok(Found::Newer(found)),
            Err(error) => {
                self.refuse_newer_keys(id)?;
                return Err(error);
            }
        };
        let view = tree::children(id, &bytes)?;
        if view.schema != CatalogueSchema::NAME {
            return Err(Error::damaged(name, "it is no node of a catalogue"));
        }
        let entries = match view.level {
            0 => view.items,
            _ => view.children.iter().fold(0, |sum, child| child.entries.saturating_add(sum)),
        };
        let root = Root { id: *id, level: view.level, entries, bytes: 0 };
        Ok(Found::Node { generation: self.generation(id)?, root })
    }

    fn load_twice(&self, id: &NodeId) -> Result<NodeBytes> {
        match self.inner.load(id) {
            Err(Error::Io { .. }) => self.inner.load(id),
            other => other,
        }
    }

    /// The generation that the stored node names.
    fn generation(&self, id: &NodeId) -> Result<Generation> {
        let (repository, name) = (self.repository, ObjectName::Catalogue(*id));
        let limit = NODE_BYTES_MAX + RECORD_BYTES_MAX;
        let sealed = backend::read_whole(&*repository.backend, &name, limit)?;
        let (kind, name) = (RecordKind::Catalogue, id.as_bytes());
        let context = RecordContext { repository: repository.id(), kind, name };
        MetadataKey::generation_of(&context, &sealed)
    }

    /// A node that does not open may be sealed by newer keys; that it names some says nothing unless there are such.
    fn refuse_newer_keys(&self, id: &NodeId) -> Result<()> {
        let Ok(generation) = self.generation(id) else { return Ok(()) };
        let ours = self.repository.generation();
        if generation > ours && self.repository.was_rotated(generation)? {
            let detail = "parts of the catalogue are sealed by newer keys than it opens".into();
            return Err(Error::StaleSecret { detail });
        }
        Ok(())
    }
}

impl NodeSource for Nodes<'_> {
    fn load(&self, id: &NodeId) -> Result<NodeBytes> {
        self.load_twice(id).map_err(|error| match error {
            Error::Unsupported { found, .. } => {
                let detail = format!("it claims to be of version {found}");
                Error::damaged(ObjectName::Catalogue(*id), detail)
            }
            other => other,
        })
    }
}
