//! Putting back lost and damaged objects, byte for byte.
//!
//! What a group gives counts only if its BLAKE3 is the catalogue's. It replaces the damaged object in one step, so the
//! good bytes are durable before the bad ones go. A pack that is put back although a prune just deleted it is removed
//! again by the next prune: its name never lives again.

use super::STRIPE_BYTES;
use super::encode::{Encoded, Job, Output, encode};
use super::entry::ParityEntry;
use super::group::{Group, Place, Rebuilt};
use super::object::{Header, Member};
use super::verify::hash_object;
use crate::catalogue::PackEntry;
use crate::error::{Error, Result};
use crate::id::{GroupId, ObjectName, PackId, ParityId};
use crate::repository::{HeadView, Repository};
use std::sync::Arc;

/// What healing an object took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Healed {
    /// The pack, or the parity object.
    pub object: ObjectName,
    /// The group that it belongs to.
    pub group: GroupId,
    /// Its length, bytes.
    pub size_bytes: u64,
    /// Stripes of the object.
    pub stripes: u64,
    /// Those among them that were lost or damaged, and computed from other objects.
    pub computed: u64,
    /// False where the stored object turned out to be intact.
    pub is_replaced: bool,
}

/// What an object must be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub object: ObjectName,
    pub group: GroupId,
    pub size_bytes: u64,
    pub hash: [u8; 32],
}

impl Repository {
    /// Puts back a live pack that is missing or damaged. None where no parity group covers it, or where it is not live.
    ///
    /// # Errors
    /// `Damaged` when its groups have lost too much; then nothing was changed. Errors of the storage; `Cancelled`.
    pub fn heal_pack(self: &Arc<Self>, pack: PackId) -> Result<Option<Healed>> {
        let view = self.head()?;
        let Some(entry) = view.packs()?.get(&pack).copied() else { return Ok(None) };
        let mut failed = None;
        for (id, group) in view.parity_groups()? {
            if !group.is_complete() || !group.members.contains(&pack) {
                continue;
            }
            match self.heal_pack_by(pack, &entry, id, &group) {
                Ok(healed) => return Ok(Some(healed)),
                Err(error) if error.is_damage() => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    fn heal_pack_by(
        &self,
        pack: PackId,
        entry: &PackEntry,
        id: GroupId,
        listed: &ParityEntry,
    ) -> Result<Healed> {
        let group = Group::open(&*self.backend, id, &listed.parities)?;
        let (object, size_bytes, hash) = (ObjectName::Pack(pack), entry.size_bytes, entry.hash);
        let at = group.table.members.iter().position(|found| {
            *found == Member { pack, size_bytes: entry.size_bytes, hash: entry.hash }
        });
        let place = at.map(Place::Data).ok_or_else(|| {
            Error::damaged(object, format!("its parity group {id} says something else of it"))
        })?;
        self.put_back(Wanted { object, group: id, size_bytes, hash }, |output| {
            group.rebuild(place, self.cancel(), &mut |part| output.write(part))
        })
    }

    /// Puts back the parity objects of a group that are missing or damaged. Those that were intact are not listed.
    ///
    /// # Errors
    /// `Damaged` when the group has lost too much; then nothing was changed.
    pub fn heal_parity(self: &Arc<Self>, id: GroupId) -> Result<Vec<Healed>> {
        let view = self.head()?;
        let mut bad = Vec::new();
        for (number, wanted) in parity_objects(&view)?.into_iter().filter(|(_, w)| w.group == id) {
            if !self.is_intact(&wanted)? {
                bad.push((number, wanted));
            }
        }
        let Some(listed) = view.parity_group(id)?.filter(|_| !bad.is_empty()) else {
            return Ok(Vec::new());
        };
        let group = match Group::open(&*self.backend, id, &listed.parities) {
            Ok(group) => group,
            Err(Error::Damaged { .. }) => return self.encode_again(&view, &listed, &bad),
            Err(error) => return Err(error),
        };
        let heal = |(number, wanted): (u16, Wanted)| {
            self.put_back(wanted, |output| {
                let header = Header { number, ..group.header };
                output.write(&header.encode())?;
                let place = Place::Parity(number.into());
                let sink = &mut |part: &[u8]| output.write(part);
                let rebuilt = group.rebuild(place, self.cancel(), sink)?;
                output.write(&group.table.encode(&header))?;
                Ok(rebuilt)
            })
        };
        bad.into_iter().map(heal).collect()
    }

    /// All tables of a group are lost: its parity is computed from its packs again.
    fn encode_again(
        &self,
        view: &HeadView,
        listed: &ParityEntry,
        wanted: &[(u16, Wanted)],
    ) -> Result<Vec<Healed>> {
        let group = wanted.first().map_or(GroupId::from_bytes([0; 16]), |(_, wanted)| wanted.group);
        let lost = |detail: String| Error::damaged(format!("parity group {group}"), detail);
        let packs = view.packs()?;
        let members = listed.members.iter().map(|pack| {
            let entry = packs.get(pack).ok_or_else(|| lost(format!("pack {pack} is not live")))?;
            Ok(Member { pack: *pack, size_bytes: entry.size_bytes, hash: entry.hash })
        });
        let members: Vec<Member> = members.collect::<Result<_>>()?;
        let count = |len: usize| u16::try_from(len).expect("limited by the catalogue's entry");
        let (data, parity) = (count(members.len()), count(listed.parities.len()));
        let job = Job {
            backend: &*self.backend,
            cancel: self.cancel(),
            repository: self.id(),
            stripe_bytes: STRIPE_BYTES,
            header: Header { group, data, parity, number: 0 },
            members: &members,
        };
        let mut outputs = Vec::new();
        for id in &listed.parities {
            outputs.push(Output::new(Some(self.backend.replace(&ObjectName::Parity(*id))?)));
        }
        let stripes = match encode(&job, &mut outputs)? {
            Encoded::Whole(table) => table.layout().stripes(),
            Encoded::Damaged(packs) => {
                let details: Vec<_> = packs.iter().map(|(_, error)| error.to_string()).collect();
                return Err(lost(details.join("; ")));
            }
        };
        let mut healed = Vec::new();
        for (output, (_, wanted)) in outputs.into_iter().zip(wanted) {
            let rebuilt = Rebuilt { stripes, computed: stripes };
            healed.push(self.finish_put_back(*wanted, output, rebuilt)?);
        }
        Ok(healed)
    }

    /// Writes an object that `fill` gives, and puts it in place if it is what it must be and the stored one is not.
    pub(super) fn put_back(
        &self,
        wanted: Wanted,
        fill: impl FnOnce(&mut Output) -> Result<Rebuilt>,
    ) -> Result<Healed> {
        let mut output = Output::new(Some(self.backend.replace(&wanted.object)?));
        let rebuilt = fill(&mut output)?;
        self.finish_put_back(wanted, output, rebuilt)
    }

    fn finish_put_back(&self, wanted: Wanted, output: Output, rebuilt: Rebuilt) -> Result<Healed> {
        let Wanted { object, group, size_bytes, hash } = wanted;
        if output.hash() != hash || output.size_bytes() != size_bytes {
            let detail = "what its parity group gives is not what was committed";
            return Err(Error::damaged(object, detail));
        }
        let Rebuilt { stripes, computed } = rebuilt;
        // Intact stripes are all of a pack, if nothing follows them that does not belong there.
        let is_replaced = computed > 0
            || !matches!(object, ObjectName::Pack(_))
            || self.backend.size_bytes(&object)? != Some(size_bytes);
        if let Some(writer) = output.writer.filter(|_| is_replaced) {
            writer.finish()?;
        }
        Ok(Healed { object, group, size_bytes, stripes, computed, is_replaced })
    }

    /// True where the object is what it must be. What cannot be read is not.
    fn is_intact(&self, wanted: &Wanted) -> Result<bool> {
        match self.verify_object(wanted, true) {
            Ok(()) => Ok(true),
            Err(error) if error.is_damage() || matches!(error, Error::Io { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// `Missing` or `Damaged` where the object is not what it must be; with `read_data` all of it is read.
    pub(super) fn verify_object(&self, wanted: &Wanted, read_data: bool) -> Result<()> {
        let (object, size) = (wanted.object, wanted.size_bytes);
        let found = self.backend.size_bytes(&object)?.ok_or_else(|| Error::missing(object))?;
        if found != size {
            let detail = format!("it is {found} bytes long instead of {size}");
            return Err(Error::damaged(object, detail));
        }
        if read_data && hash_object(self, &object, size)? != wanted.hash {
            return Err(Error::damaged(object, "its bytes are not those that were committed"));
        }
        Ok(())
    }
}

/// The parity objects of all complete groups with their numbers.
pub(super) fn parity_objects(view: &HeadView) -> Result<Vec<(u16, Wanted)>> {
    let mut found = Vec::new();
    for (group, entry) in view.parity_groups()? {
        let Some(objects) = entry.objects else { continue };
        let size_bytes = objects.size_bytes;
        let parities: Vec<(ParityId, [u8; 32])> =
            entry.parities.into_iter().zip(objects.hashes.into_iter().map(|h| *h)).collect();
        for (number, (id, hash)) in (0u16..).zip(parities) {
            let object = ObjectName::Parity(id);
            found.push((number, Wanted { object, group, size_bytes, hash }));
        }
    }
    Ok(found)
}
