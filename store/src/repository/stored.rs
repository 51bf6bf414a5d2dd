//! What lies where the head should be, readable or not, and putting another in its place: for repair.

use super::{HeadView, Repository};
use crate::backend::Swap;
use crate::error::{Error, Result};
use crate::id::{NodeId, TransactionId};
use crate::record::{Head, head};
use crate::tree::Root;
use std::sync::Arc;

/// What lies where the head should be.
pub(crate) struct StoredHead {
    /// Its bytes, for compare-and-swap; None where there is none.
    pub bytes: Option<Vec<u8>>,
    /// What it says, if it opens with any of the known keys, whether it is to be believed or not.
    pub opened: Option<Head>,
    /// It under its keys; or why it cannot be read or is not to be believed.
    pub view: Result<HeadView>,
    /// The version that it claims, where that is none that is known.
    pub newer_version: Option<u32>,
}

impl Repository {
    /// Reads what lies where the head should be. Neither remembers it nor compares it with what is remembered.
    ///
    /// # Errors
    /// `KeysRotated`; `Damaged` where this host has seen newer keys in use; `Unsupported` for one that opens and is of a
    /// newer format; errors of the storage.
    pub(crate) fn stored_head(self: &Arc<Self>) -> Result<StoredHead> {
        let Some(bytes) = self.backend.read_head()? else {
            let view = Err(Error::missing("head"));
            return Ok(StoredHead { bytes: None, opened: None, view, newer_version: None });
        };
        let mut newer_version = None;
        let opened = match Head::open(&bytes, self.id(), &self.metadata) {
            Ok(head) => Some(head),
            Err(Error::Unsupported { object, found, supported }) => {
                if head::generation_of(&bytes, self.id()).is_ok() {
                    return Err(Error::Unsupported { object, found, supported });
                }
                newer_version = Some(found);
                None
            }
            Err(_) => None,
        };
        let believed = self.believe(&bytes);
        let view = match believed.and_then(|found| self.view(bytes.clone(), found)) {
            Ok(view) => {
                self.refuse_older_keys(view.generation())?;
                Ok(view)
            }
            Err(error) if error.is_damage() || newer_version.is_some() => Err(error),
            Err(error) => return Err(error),
        };
        Ok(StoredHead { bytes: Some(bytes), opened, view, newer_version })
    }

    /// Puts a head in the place of what was stored, whatever that is; false where somebody was faster.
    ///
    /// # Errors
    /// Errors of the storage, where what was stored is still there: the new head may still arrive.
    pub(crate) fn put_head(self: &Arc<Self>, stored: &StoredHead, head: &Head) -> Result<bool> {
        let bytes = head.seal(self.id(), &self.metadata, &*self.env);
        match self.backend.swap_head(stored.bytes.as_deref(), &bytes) {
            Ok(Swap::Done) => {}
            Ok(Swap::Lost) => return Ok(false),
            Err(error) => {
                let now = self.backend.read_head()?;
                if now == stored.bytes {
                    return Err(error);
                }
                let ours = TransactionId::from_bytes(head.transaction);
                let now = Head::open(&now.unwrap_or_default(), self.id(), &self.metadata);
                if now.ok().and_then(|now| now.has(ours, head.seq - 1)) != Some(true) {
                    return Ok(false);
                }
            }
        }
        *self.pending() = None;
        let view = HeadView::new(Arc::clone(self), bytes, head.clone(), self.generation());
        let _ = self.remember_head(&view);
        Ok(true)
    }

    /// A view of an empty catalogue: for reading packs by their footers where there is no head.
    pub(crate) fn blank_view(self: &Arc<Self>) -> HeadView {
        let root = Root { id: NodeId::from_bytes([0; 32]), level: 0, entries: 0, bytes: 0 };
        let head = Head::first(root, TransactionId::from_bytes([0; 16]));
        HeadView::new(Arc::clone(self), Vec::new(), head, self.generation())
    }
}
