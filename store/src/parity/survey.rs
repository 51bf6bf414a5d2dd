//! Healing without a catalogue: what the parity objects alone tell of packs.
//!
//! Their tables are in the clear, so nothing in them is believed: a pack that they give counts only if it opens as one
//! of this repository, footer and every frame.

use super::group::{Group, Place};
use super::heal::{Healed, Wanted};
use super::object::{Header, Table, read_table};
use crate::backend::{MemoryBackend, put};
use crate::error::{Error, Result};
use crate::id::{GroupId, ObjectKind, ObjectName, PackId, ParityId};
use crate::pack::{PackKey, read_footer};
use crate::repository::Repository;
use std::collections::{BTreeMap, BTreeSet};

/// A group as its objects describe it. Tables are read again when they are needed: all of them may be too much to keep.
struct Found {
    packs: Vec<PackId>,
    /// BLAKE3 of the table.
    table_hash: [u8; 32],
    parities: Vec<Option<ParityId>>,
}

impl Repository {
    /// Packs that the parity objects tell of, whatever the catalogue says: for when it is lost.
    ///
    /// # Errors
    /// Errors of listing. Parity objects that cannot be read are left out.
    pub fn packs_known_to_parity(&self) -> Result<BTreeSet<PackId>> {
        let groups = self.survey_parity()?;
        Ok(groups.into_values().flat_map(|found| found.packs).collect())
    }

    /// Like `heal_pack`, by parity objects alone. None where none tells of the pack.
    ///
    /// Holds the pack in memory, to open it before it gets its name: up to the limit on a pack's length.
    ///
    /// # Errors
    /// `Damaged` when too much is lost, or when what the parity gives is no pack of this repository.
    pub fn heal_pack_without_catalogue(&self, pack: PackId) -> Result<Option<Healed>> {
        let mut failed = None;
        for (id, found) in self.survey_parity()? {
            let Some(at) = found.packs.iter().position(|found| *found == pack) else { continue };
            match self.heal_by_survey(id, found, at) {
                Ok(healed) => return Ok(Some(healed)),
                Err(error) if error.is_damage() => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    fn heal_by_survey(&self, id: GroupId, found: Found, at: usize) -> Result<Healed> {
        let parity = *found.parities.iter().flatten().next().expect("one of them named the group");
        let object = ObjectName::Parity(parity);
        let size = self.backend.size_bytes(&object)?.ok_or_else(|| Error::missing(object))?;
        let (header, table) = read_table(&*self.backend, parity, size)?;
        if table_hash(&header, &table) != found.table_hash {
            return Err(Error::damaged(object, "it changed while it was read"));
        }
        let member = *table.members.get(at).expect("the table is still the one that was surveyed");
        let object = ObjectName::Pack(member.pack);
        let group = Group::new(&*self.backend, header, table, found.parities);
        let mut bytes = Vec::new();
        let rebuilt = group.rebuild(Place::Data(at), self.cancel(), &mut |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        self.open_whole(member.pack, &bytes)?;
        let (size_bytes, hash) = (member.size_bytes, member.hash);
        self.put_back(Wanted { object, group: id, size_bytes, hash }, |output| {
            output.write(&bytes)?;
            Ok(rebuilt)
        })
    }

    /// # Errors
    /// `Damaged` where these bytes are no pack of this name: its footer and all its frames must open.
    fn open_whole(&self, pack: PackId, bytes: &[u8]) -> Result<()> {
        let memory = MemoryBackend::new();
        put(&memory, &ObjectName::Pack(pack), bytes)?;
        let size = u64::try_from(bytes.len()).expect("64 bits hold any length");
        let footer = read_footer(&memory, &self.id(), &pack, size, &self.metadata)?;
        let key = PackKey::open(&pack, bytes, &self.id(), &self.domain)?;
        let mut frames = 0;
        for frame in key.walk(bytes) {
            frame?;
            frames += 1;
        }
        if frames < footer.frames().len() {
            let detail = "it has fewer frames than its footer says";
            return Err(Error::damaged(ObjectName::Pack(pack), detail));
        }
        Ok(())
    }

    /// Reads the tables of all parity objects. Objects that contradict the first of their group are left out.
    fn survey_parity(&self) -> Result<BTreeMap<GroupId, Found>> {
        let mut groups: BTreeMap<GroupId, Found> = BTreeMap::new();
        for (name, size) in self.backend.list(ObjectKind::Parity)? {
            self.cancel().check()?;
            let ObjectName::Parity(id) = name else { continue };
            let (header, table) = match read_table(&*self.backend, id, size) {
                Ok((_, table)) if table.repository != self.id() => continue,
                Ok(read) => read,
                Err(error) => {
                    tracing::debug!(%name, %error, "a parity object is left out");
                    continue;
                }
            };
            let table_hash = table_hash(&header, &table);
            let found = groups.entry(header.group).or_insert_with(|| Found {
                packs: table.members.iter().map(|member| member.pack).collect(),
                table_hash,
                parities: vec![None; header.parity.into()],
            });
            if found.table_hash == table_hash
                && let Some(slot) = found.parities.get_mut(usize::from(header.number))
            {
                *slot = Some(id);
            }
        }
        Ok(groups)
    }
}

/// The same for all objects of a group.
fn table_hash(header: &Header, table: &Table) -> [u8; 32] {
    *blake3::hash(&table.encode(&Header { number: 0, ..*header })).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::encode::{Encoded, Job, Output, encode};
    use super::super::object::Member;
    use super::*;
    use crate::backend::Backend;
    use crate::env::SystemEnv;
    use crate::record::{KdfCost, Secret};
    use crate::repository::{CreateOptions, OpenOptions};
    use std::sync::Arc;

    /// Parity objects can be forged by whoever can write to the storage: what they give is refused unless it opens.
    #[test]
    fn forged_packs_are_refused() {
        let backend = MemoryBackend::new();
        let options = CreateOptions { kdf: KdfCost::LEAST, ..CreateOptions::default() };
        let secret = Secret::key_file(&[7; 64]);
        let open = OpenOptions::in_memory();
        let shared = Arc::new(backend.clone());
        let repository =
            Repository::create(shared, Arc::new(SystemEnv), &secret, &options, open).unwrap();
        let (pack, content) = (PackId::from_bytes([9; 16]), vec![0x5a; 10_000]);
        put(&backend, &ObjectName::Pack(pack), &content).unwrap();
        let hash = *blake3::hash(&content).as_bytes();
        let group = GroupId::from_bytes([1; 16]);
        let job = Job {
            backend: &backend,
            cancel: repository.cancel(),
            repository: repository.id(),
            stripe_bytes: 4096,
            header: Header { group, data: 1, parity: 1, number: 0 },
            members: &[Member { pack, size_bytes: 10_000, hash }],
        };
        let parity = ObjectName::Parity(ParityId::from_bytes([2; 16]));
        let mut outputs = [Output::new(Some(backend.create(&parity).unwrap()))];
        assert!(matches!(encode(&job, &mut outputs).unwrap(), Encoded::Whole(_)));
        let [output] = outputs;
        output.writer.unwrap().finish().unwrap();
        assert!(repository.packs_known_to_parity().unwrap().contains(&pack));
        backend.remove(&ObjectName::Pack(pack)).unwrap();
        let before = backend.contents();
        let error = repository.heal_pack_without_catalogue(pack).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(backend.contents() == before, "nothing got the pack's name");
    }
}
