//! A group that can be read: gives back any of its objects, stripe by stripe, from the parts that are intact.
//!
//! Every part is compared with its checksum before it is used, so what is lost may be whole objects, or a few bytes of
//! many of them: a stripe needs as many intact parts as the group has packs. Knows nothing of heads and of liveness.

use super::code::Coder;
use super::layout::Layout;
use super::object::{HEADER_LEN, Header, Table, checksum, read_table};
use crate::backend::{Backend, ObjectBytes};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::id::{GroupId, ObjectName, ParityId};
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// Stripes that are worked on between two writes, at most.
const STRIPES_AT_ONCE: u64 = 16;
/// Bytes of packs that are in memory at the same time, unless one stripe alone has more: 32 MiB.
const WINDOW_BYTES_MAX: u64 = 32 << 20;

/// Stripes that are worked on at the same time in a group of this many packs.
pub(super) fn stripes_at_once(data: usize, stripe_bytes: u32) -> u64 {
    let stripe = u64::from(stripe_bytes).saturating_mul(u64::try_from(data).unwrap_or(u64::MAX));
    (WINDOW_BYTES_MAX / stripe.max(1)).clamp(1, STRIPES_AT_ONCE)
}

/// One of the objects of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A pack, by its place in the code.
    Data(usize),
    /// A parity object, by its number.
    Parity(usize),
}

/// What a rebuilt object took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rebuilt {
    /// Stripes of the object.
    pub stripes: u64,
    /// Those among them that had to be computed, because the object's own part was lost or damaged.
    pub computed: u64,
}

/// A group whose table could be read.
pub(super) struct Group<'a> {
    backend: &'a dyn Backend,
    pub header: Header,
    pub table: Table,
    layout: Layout,
    /// Its parity objects by number, where their names are known.
    parities: Vec<Option<ParityId>>,
    /// Objects that were found to be missing: packs, then parity objects. They are asked for once only.
    missing: Vec<AtomicBool>,
}

impl<'a> Group<'a> {
    /// Reads the table of the group from the first of these parity objects that has one. Names and numbers must fit.
    ///
    /// # Errors
    /// `Damaged` when none has; errors of the storage are taken for damage.
    pub fn open(backend: &'a dyn Backend, id: GroupId, parities: &[ParityId]) -> Result<Self> {
        let mut reasons = Vec::new();
        for (number, parity) in parities.iter().enumerate() {
            let found = backend
                .size_bytes(&ObjectName::Parity(*parity))
                .and_then(|size| size.ok_or_else(|| Error::missing(ObjectName::Parity(*parity))))
                .and_then(|size| read_table(backend, *parity, size));
            match found {
                Ok((header, table)) => {
                    let expected = (id, usize::from(header.parity), usize::from(header.number));
                    if expected == (header.group, parities.len(), number) {
                        let parities = parities.iter().copied().map(Some).collect();
                        return Ok(Self::new(backend, header, table, parities));
                    }
                    reasons.push(format!("{parity} belongs elsewhere"));
                }
                Err(error @ (Error::Unsupported { .. } | Error::Cancelled)) => return Err(error),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        Err(Error::damaged(format!("parity group {id}"), reasons.join("; ")))
    }

    /// A group with this table.
    pub fn new(
        backend: &'a dyn Backend,
        header: Header,
        table: Table,
        parities: Vec<Option<ParityId>>,
    ) -> Self {
        let objects = table.members.len() + parities.len();
        let missing = (0..objects).map(|_| AtomicBool::new(false)).collect();
        let layout = table.layout();
        Self { backend, header, table, layout, parities, missing }
    }

    fn data(&self) -> usize {
        self.table.members.len()
    }

    /// The places in the order of the code: packs, then parity objects.
    fn places(&self) -> impl Iterator<Item = Place> + use<> {
        let parities = (0..self.parities.len()).map(Place::Parity);
        (0..self.data()).map(Place::Data).chain(parities)
    }

    fn name(&self, place: Place) -> Option<ObjectName> {
        match place {
            Place::Data(at) => {
                self.table.members.get(at).map(|member| ObjectName::Pack(member.pack))
            }
            Place::Parity(at) => self.parities.get(at)?.map(ObjectName::Parity),
        }
    }

    /// The object's part of a stripe if it is intact. What lies behind the end of a pack always is.
    fn part(&self, place: Place, stripe: u64) -> Option<ObjectBytes> {
        let header_len = u64::try_from(HEADER_LEN).expect("it is short");
        let at_stripe = usize::try_from(stripe).ok()?;
        let (range, expected, missing) = match place {
            Place::Data(at) => {
                let range = self.layout.data_range(at, stripe);
                if range.is_empty() {
                    return Some(Vec::new().into());
                }
                (range, self.table.data_checksums.get(at)?.get(at_stripe)?, at)
            }
            Place::Parity(at) => {
                let range = self.layout.parity_range(stripe);
                let range = range.start + header_len..range.end + header_len;
                (range, self.table.parity_checksums.get(at)?.get(at_stripe)?, self.data() + at)
            }
        };
        let (name, missing) = (self.name(place)?, self.missing.get(missing)?);
        if missing.load(Ordering::Relaxed) {
            return None;
        }
        match self.backend.read(&name, range) {
            Ok(part) => (checksum(&part) == *expected).then_some(part),
            Err(error) => {
                tracing::debug!(%name, stripe, %error, "a part is counted as lost");
                let is_missing = matches!(error, Error::Missing { .. });
                missing.fetch_or(is_missing, Ordering::Relaxed);
                None
            }
        }
    }

    /// The object's part of a stripe, computed from others where it is lost or damaged: then the second is true.
    fn rebuild_part(
        &self,
        coder: &mut Coder,
        target: Place,
        stripe: u64,
    ) -> Result<(ObjectBytes, bool)> {
        if let Some(part) = self.part(target, stripe) {
            return Ok((part, false));
        }
        let mut found = 0;
        let parts: Vec<Option<ObjectBytes>> = self
            .places()
            .map(|place| {
                let wanted = place != target && found < self.data();
                let part = if wanted { self.part(place, stripe) } else { None };
                found += usize::from(part.is_some());
                part
            })
            .collect();
        let damaged = |detail: String| {
            let object = self.name(target).map_or_else(|| "parity".into(), |name| name.path());
            Error::damaged(object, detail)
        };
        let len = usize::try_from(self.layout.code_len(stripe)).expect("a stripe fits into memory");
        let borrowed: Vec<Option<&[u8]>> = parts.iter().map(Option::as_deref).collect();
        let restored = coder.restore(&borrowed, len).ok_or_else(|| {
            let (all, data) = (self.data() + self.parities.len(), self.data());
            damaged(format!(
                "stripe {stripe} of its parity group has {found} intact parts of {all}, healing takes {data}"
            ))
        })?;
        let part = match target {
            Place::Data(at) => {
                let range = self.layout.data_range(at, stripe);
                let part = restored.into_iter().find(|(number, _)| *number == at);
                part.map(|(_, mut part)| {
                    part.truncate(usize::try_from(range.end - range.start).unwrap_or(len));
                    part
                })
            }
            Place::Parity(at) => {
                let mut data: Vec<&[u8]> =
                    borrowed.iter().take(self.data()).map(|part| part.unwrap_or(&[])).collect();
                for (number, part) in &restored {
                    if let Some(slot) = data.get_mut(*number) {
                        *slot = part;
                    }
                }
                coder.encode(&data, len).into_iter().nth(at)
            }
        };
        let part = part.ok_or_else(|| damaged("it is no part of its group".into()))?;
        let expected = match target {
            Place::Data(at) => self.table.data_checksums.get(at),
            Place::Parity(at) => self.table.parity_checksums.get(at),
        };
        let at_stripe = usize::try_from(stripe).unwrap_or(usize::MAX);
        if expected.and_then(|checksums| checksums.get(at_stripe)) != Some(&checksum(&part)) {
            return Err(damaged(format!("stripe {stripe} of its parity group contradicts itself")));
        }
        Ok((part.into(), true))
    }

    /// Gives the bytes of a pack, or the parity bytes of a parity object, in order.
    ///
    /// # Errors
    /// `Damaged` when a stripe has too few intact parts; what `sink` gives; `Cancelled`.
    pub fn rebuild(
        &self,
        target: Place,
        cancel: &Cancel,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<Rebuilt> {
        let stripes = match target {
            Place::Data(at) => self.layout.stripes_of(at),
            Place::Parity(_) => self.layout.stripes(),
        };
        let step = stripes_at_once(self.data(), self.table.stripe_bytes);
        let mut rebuilt = Rebuilt { stripes, computed: 0 };
        let mut start = 0;
        while start < stripes {
            cancel.check()?;
            let end = stripes.min(start + step);
            let coder = || Coder::new(self.data(), self.parities.len());
            let parts: Vec<(ObjectBytes, bool)> = (start..end)
                .into_par_iter()
                .map_init(coder, |coder, stripe| self.rebuild_part(coder, target, stripe))
                .collect::<Result<_>>()?;
            for (part, is_computed) in parts {
                sink(&part)?;
                rebuilt.computed += u64::from(is_computed);
            }
            start = end;
        }
        Ok(rebuilt)
    }
}
