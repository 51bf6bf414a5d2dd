//! Groups on a backend in memory: whatever is lost within what the parity allows comes back byte for byte.

use super::encode::{Encoded, Job, Output, encode};
use super::group::{Group, Place};
use super::object::{Header, Member, object_len};
use crate::backend::{Backend, MemoryBackend, put};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::id::{GroupId, ObjectName, PackId, ParityId, RepositoryId};
use proptest::prelude::*;

const GROUP: GroupId = GroupId::from_bytes([1; 16]);
const STRIPE: u32 = 4096;

/// A group on a backend, and what its objects must be.
struct Lab {
    backend: MemoryBackend,
    members: Vec<Member>,
    parities: Vec<ParityId>,
    /// Packs, then parity objects.
    objects: Vec<(ObjectName, Vec<u8>)>,
}

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

impl Lab {
    fn new(sizes: &[usize], parity: usize) -> Self {
        let backend = MemoryBackend::new();
        let mut objects = Vec::new();
        let mut members = Vec::new();
        for (name, size) in (0..).zip(sizes) {
            let (pack, content) = (PackId::from_bytes([name; 16]), bytes(name, *size));
            let hash = *blake3::hash(&content).as_bytes();
            put(&backend, &ObjectName::Pack(pack), &content).unwrap();
            members.push(Member { pack, size_bytes: u64::try_from(*size).unwrap(), hash });
            objects.push((ObjectName::Pack(pack), content));
        }
        let parities: Vec<_> =
            (0..parity).map(|at| ParityId::from_bytes([u8::try_from(at).unwrap(); 16])).collect();
        let mut lab = Self { backend, members, parities, objects };
        let outputs = lab.encode().unwrap();
        for (id, output) in lab.parities.clone().iter().zip(outputs) {
            let (name, hash, size) = (ObjectName::Parity(*id), output.hash(), output.size_bytes());
            output.writer.unwrap().finish().unwrap();
            let stored = lab.backend.read(&name, 0..size).unwrap().to_vec();
            assert_eq!(*blake3::hash(&stored).as_bytes(), hash);
            lab.objects.push((name, stored));
        }
        lab
    }

    /// Writes the parity objects; the writers are not finished. The error is the names of damaged packs.
    fn encode(&self) -> Result<Vec<Output>, Vec<PackId>> {
        let count = |len: usize| u16::try_from(len).unwrap();
        let job = Job {
            backend: &self.backend,
            cancel: &Cancel::new(),
            repository: RepositoryId::from_bytes([3; 16]),
            stripe_bytes: STRIPE,
            header: Header {
                group: GROUP,
                data: count(self.members.len()),
                parity: count(self.parities.len()),
                number: 0,
            },
            members: &self.members,
        };
        let writer = |id| self.backend.create(&ObjectName::Parity(id)).unwrap();
        let mut outputs: Vec<_> =
            self.parities.iter().map(|id| Output::new(Some(writer(*id)))).collect();
        match encode(&job, &mut outputs).unwrap() {
            Encoded::Whole(table) => {
                let len = object_len(&table.layout(), self.members.len(), self.parities.len());
                assert!(outputs.iter().all(|output| output.size_bytes() == len));
                Ok(outputs)
            }
            Encoded::Damaged(packs) => Err(packs.into_iter().map(|(pack, _)| pack).collect()),
        }
    }

    fn place(&self, at: usize) -> Place {
        match at.checked_sub(self.members.len()) {
            None => Place::Data(at),
            Some(number) => Place::Parity(number),
        }
    }

    /// Rebuilds the object; for parity objects its parity bytes.
    fn rebuild(&self, at: usize) -> Result<(Vec<u8>, u64)> {
        let group = Group::open(&self.backend, GROUP, &self.parities)?;
        let mut rebuilt = Vec::new();
        let outcome = group.rebuild(self.place(at), &Cancel::new(), &mut |part| {
            rebuilt.extend_from_slice(part);
            Ok(())
        })?;
        Ok((rebuilt, outcome.computed))
    }

    fn expected(&self, at: usize) -> Vec<u8> {
        let whole = &self.objects[at].1;
        match self.place(at) {
            Place::Data(_) => whole.clone(),
            Place::Parity(_) => {
                let sizes = self.members.iter().map(|member| member.size_bytes).collect();
                let layout = super::layout::Layout::new(STRIPE, sizes);
                whole[32..32 + usize::try_from(layout.parity_bytes()).unwrap()].to_vec()
            }
        }
    }

    /// A copy in which these objects are lost.
    fn without(&self, lost: &[usize]) -> Self {
        let backend = MemoryBackend::with_contents(self.backend.contents());
        for at in lost {
            backend.remove(&self.objects[*at].0).unwrap();
        }
        let (members, parities, objects) =
            (self.members.clone(), self.parities.clone(), self.objects.clone());
        Self { backend, members, parities, objects }
    }
}

/// All subsets of `0..count` with at most `max` elements.
fn subsets(count: usize, max: usize) -> Vec<Vec<usize>> {
    let all =
        (0..1usize << count).map(|bits| (0..count).filter(|at| bits >> at & 1 == 1).collect());
    all.filter(|subset: &Vec<usize>| subset.len() <= max).collect()
}

/// Whatever objects are lost, as many as there are parity objects: each comes back byte for byte. One more: an error
/// that says so.
#[test]
fn every_loss_heals_up_to_the_parity() {
    let cases: [(&[usize], usize); 6] = [
        (&[20_000], 1),
        (&[5000], 3),
        (&[9000, 9000, 9000], 2),
        (&[10_000, 100, 4096, 8192], 2),
        (&[1, 70_000, 64], 2),
        (&[12_288, 5000, 300, 7, 4097], 3),
    ];
    for (sizes, parity) in cases {
        let lab = Lab::new(sizes, parity);
        let all = sizes.len() + parity;
        for lost in subsets(all, parity + 1) {
            let damaged = lab.without(&lost);
            // A table must be left.
            let tables = (sizes.len()..all).filter(|at| !lost.contains(at)).count();
            for at in &lost {
                let rebuilt = damaged.rebuild(*at);
                if lost.len() <= parity && tables > 0 {
                    let (rebuilt, computed) = rebuilt.unwrap();
                    assert!(rebuilt == lab.expected(*at), "{sizes:?}, {lost:?}: {at} differs");
                    assert!(computed > 0);
                } else if tables == 0 {
                    assert!(matches!(rebuilt, Err(Error::Damaged { .. })));
                } else {
                    let longest = sizes.iter().max().unwrap();
                    // Behind the end of the short packs zeros stand for them: only the long ones are lost.
                    match rebuilt {
                        Ok((rebuilt, _)) => {
                            assert!(rebuilt == lab.expected(*at));
                            assert!(
                                lost.iter().any(|at| sizes.get(*at).is_some_and(|s| s < longest))
                            );
                        }
                        Err(error) => {
                            assert!(error.to_string().contains("intact parts"), "{error}")
                        }
                    }
                }
            }
        }
    }
}

/// Flips in every object of the group heal as long as no stripe has more of them than there are parity objects.
#[test]
fn scattered_flips_heal() {
    let lab = Lab::new(&[40_000, 40_000, 40_000], 2);
    for at in 0..5 {
        // Two flips each, in stripes 2 at and 2 at + 1 of ten; the table stays whole.
        lab.backend.damage(&lab.objects[at].0, |bytes| {
            bytes[at * 8192 + 40] ^= 1;
            bytes[at * 8192 + 4096 + 40] ^= 0x80;
        });
    }
    for at in 0..5 {
        let (rebuilt, computed) = lab.rebuild(at).unwrap();
        assert!(rebuilt == lab.expected(at), "{at} differs");
        assert_eq!(computed, 2, "only the damaged stripes are computed");
    }
    // A third bad part in one stripe is too much for that stripe, and the error names it.
    for at in [1, 2] {
        lab.backend.damage(&lab.objects[at].0, |bytes| bytes[0] ^= 1);
    }
    let error = lab.rebuild(0).unwrap_err().to_string();
    assert!(error.contains("stripe 0") && error.contains("2 intact parts of 5"), "{error}");
}

/// One readable table is enough, wherever it stands; a table of another group is not taken.
#[test]
fn one_table_is_enough() {
    let lab = Lab::new(&[9000, 5000], 3);
    let (first, second) = (lab.objects[2].0, lab.objects[3].0);
    lab.backend.damage(&first, |bytes| *bytes.last_mut().unwrap() ^= 1);
    lab.backend.remove(&second).unwrap();
    assert!(lab.rebuild(0).is_ok());
    assert!(Group::open(&lab.backend, GroupId::from_bytes([2; 16]), &lab.parities).is_err());
    let mut swapped = lab.parities.clone();
    swapped.swap(1, 2);
    assert!(Group::open(&lab.backend, GROUP, &swapped).is_err(), "numbers must fit");
}

/// No parity is computed over packs that are not what the catalogue says.
#[test]
fn damaged_packs_get_no_parity() {
    let lab = Lab::new(&[9000, 5000, 7000], 2);
    let lost = lab.without(&[0, 3, 4]);
    lost.backend.damage(&lab.objects[2].0, |bytes| bytes[6999] ^= 1);
    assert_eq!(lost.encode().err().unwrap(), [lab.members[0].pack], "a lost pack is noticed first");
    put(&lost.backend, &lab.objects[0].0, &lab.objects[0].1).unwrap();
    assert_eq!(lost.encode().err().unwrap(), [lab.members[2].pack]);
    assert!(lost.backend.list(crate::id::ObjectKind::Parity).unwrap().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any flips, cuts and losses: what is rebuilt is right, or there is an error.
    #[test]
    fn never_wrong(
        sizes in prop::collection::vec(1usize..30_000, 1..6),
        parity in 1usize..4,
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..3), 0..8),
    ) {
        let lab = Lab::new(&sizes, parity);
        let mut hurt = std::collections::BTreeSet::new();
        for (object, place, kind) in damages {
            let at = object.index(lab.objects.len());
            hurt.insert(at);
            let name = lab.objects[at].0;
            match kind {
                0 => lab.backend.remove(&name).unwrap(),
                _ => {
                    lab.backend.damage(&name, |bytes| {
                        let place = if bytes.is_empty() { return } else { place.index(bytes.len()) };
                        match kind {
                            1 => bytes[place] ^= 4,
                            _ => bytes.truncate(place),
                        }
                    });
                }
            }
        }
        let whole_table = (sizes.len()..lab.objects.len()).any(|at| !hurt.contains(&at));
        for at in 0..lab.objects.len() {
            match lab.rebuild(at) {
                Ok((rebuilt, _)) => prop_assert!(rebuilt == lab.expected(at)),
                Err(error) => {
                    prop_assert!(matches!(error, Error::Damaged { .. }), "{}", error);
                    prop_assert!(hurt.len() > parity || !whole_table, "{}", error);
                }
            }
        }
    }
}
