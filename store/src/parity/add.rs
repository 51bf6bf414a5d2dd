//! Forming groups: announce, write, complete. The order is explained in the module above.

use super::encode::{Encoded, Job, Output, encode};
use super::entry::{ParityEntry, ParityObjects};
use super::object::{Header, Member};
use super::plan::{Except, ParityPlan, plan};
use super::{ParityOptions, STRIPE_BYTES};
use crate::catalogue::Key;
use crate::error::{Error, Finding, Result};
use crate::id::{GroupId, ObjectName, PackId, ParityId};
use crate::limits::{PARITY_DATA_MAX, PARITY_OBJECTS_MAX};
use crate::repository::{Attempt, CatalogueEdit, HeadView, Repository};
use std::sync::Arc;

/// How far a run has come: packs covered and packs to be covered.
pub type ParityProgress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// What a run did, or would do.
#[derive(Debug, Clone, Default)]
pub struct ParityReport {
    /// What there was to do at the first look.
    pub plan: ParityPlan,
    /// Groups that were formed.
    pub groups: u64,
    /// Packs in them.
    pub packs: u64,
    /// Bytes of these packs.
    pub data_bytes: u64,
    /// Bytes of parity that were written.
    pub parity_bytes: u64,
    /// Groups that were given up because they protect nothing, or nothing that others do not.
    pub dissolved: u64,
    /// Groups that another run took over meanwhile.
    pub overtaken: u64,
    /// Packs that are lost or damaged, and are therefore in no new group.
    pub findings: Vec<Finding>,
}

impl ParityOptions {
    /// # Errors
    /// `Invalid` when a group cannot have so many packs or parity objects.
    fn check(&self) -> Result<()> {
        let limits = [
            ("packs", self.data, PARITY_DATA_MAX),
            ("parity objects", self.parity, PARITY_OBJECTS_MAX),
        ];
        for (what, count, most) in limits {
            if count == 0 || count > most {
                let detail = format!("a parity group has 1 to {most} {what}, not {count}");
                return Err(Error::Invalid(detail));
            }
        }
        Ok(())
    }
}

impl Repository {
    /// Forms groups of the live packs that none covers, and gives up groups that protect nothing.
    ///
    /// # Errors
    /// Errors of the storage; `Cancelled`. Groups that were completed before stay. Damaged packs are findings.
    pub fn add_parity(
        self: &Arc<Self>,
        options: &ParityOptions,
        progress: ParityProgress<'_>,
    ) -> Result<ParityReport> {
        options.check()?;
        let announced = self.head()?.parity_groups()?.into_iter();
        let announced = announced.filter(|(_, entry)| !entry.is_complete()).map(|(id, _)| id);
        let except = Except { abandoned: announced.collect(), ..Except::default() };
        let (repository, report) = (Arc::clone(self), ParityReport::default());
        let mut run = Run { repository, options: *options, except, report };
        let mut is_first = true;
        loop {
            self.cancel().check()?;
            let base = self.head()?;
            let groups = base.parity_groups()?;
            // Completed meanwhile: then its run is alive, and it is a group like any other.
            let is_open = |id: &GroupId| groups.get(id).is_some_and(|entry| !entry.is_complete());
            run.except.abandoned.retain(is_open);
            let plan = plan(base.packs()?, &groups, options, &run.except);
            if is_first {
                run.report.plan = plan.clone();
            }
            is_first = false;
            if options.dry_run {
                return Ok(run.report);
            }
            if !plan.form.is_empty() {
                run.form_all(&base, &plan, progress)?;
                continue;
            }
            if !plan.dissolve.is_empty() {
                let edit = removing(&plan.dissolve);
                if let Attempt::Lost { .. } = self.attempt(&base, &edit)? {
                    continue;
                }
            }
            run.report.dissolved = u64::try_from(plan.dissolve.len()).unwrap_or(u64::MAX);
            self.remove_unnamed_parity()?;
            return Ok(run.report);
        }
    }
}

/// The edit that takes these groups out of the catalogue.
pub(super) fn removing<'g>(groups: impl IntoIterator<Item = &'g GroupId>) -> CatalogueEdit {
    let mut edit = CatalogueEdit::default();
    groups.into_iter().for_each(|id| edit.remove(Key::Parity(*id)));
    edit
}

/// One run of `parity add`.
struct Run {
    repository: Arc<Repository>,
    options: ParityOptions,
    except: Except,
    report: ParityReport,
}

/// A group whose announcement is durable.
struct Announced {
    id: GroupId,
    entry: ParityEntry,
    members: Vec<Member>,
    data_bytes: u64,
}

/// What became of a group.
enum Outcome {
    Complete(ParityObjects),
    /// The announcement is gone: its objects can never be named again.
    Overtaken,
    /// These packs are not what the catalogue says.
    Damaged(Vec<(PackId, Error)>),
}

impl Run {
    /// Announces the groups of a plan and forms them one by one. Nothing is done when somebody moved the head.
    fn form_all(
        &mut self,
        base: &HeadView,
        plan: &ParityPlan,
        progress: ParityProgress<'_>,
    ) -> Result<()> {
        let Some(mut groups) = self.announce(base, plan)? else { return Ok(()) };
        let count = |group: &Announced| u64::try_from(group.members.len()).unwrap_or(u64::MAX);
        let all = self.report.packs + groups.iter().map(count).sum::<u64>();
        groups.reverse();
        while let Some(group) = groups.pop() {
            match self.form(&group) {
                Ok(Outcome::Complete(objects)) => {
                    let written = u64::try_from(objects.hashes.len()).unwrap_or(u64::MAX);
                    self.report.groups += 1;
                    self.report.packs += count(&group);
                    self.report.data_bytes += group.data_bytes;
                    self.report.parity_bytes += objects.size_bytes * written;
                }
                Ok(Outcome::Overtaken) => {
                    self.report.overtaken += 1;
                    self.remove_objects(&group);
                }
                Ok(Outcome::Damaged(packs)) => {
                    self.retract(std::slice::from_ref(&group))?;
                    for (pack, error) in packs {
                        let (object, detail) = (Some(ObjectName::Pack(pack)), error.to_string());
                        self.report.findings.push(Finding { object, snapshot: None, detail });
                        self.except.packs.insert(pack);
                    }
                }
                Err(error) => {
                    groups.push(group);
                    // Best effort: what stays is taken over by the next run.
                    let _ = self.retract(&groups);
                    return Err(error);
                }
            }
            progress(self.report.packs, all);
        }
        Ok(())
    }

    /// Puts the groups of a plan into the catalogue, under fresh names; None when somebody else moved the head.
    fn announce(&self, base: &HeadView, plan: &ParityPlan) -> Result<Option<Vec<Announced>>> {
        let env = &*self.repository.env;
        let packs = base.packs()?;
        let mut groups = Vec::with_capacity(plan.form.len());
        for planned in &plan.form {
            let id = GroupId::random(env);
            let parities = (0..self.options.parity).map(|_| ParityId::random(env)).collect();
            let members = planned.packs.clone();
            let entry = ParityEntry { members, parities, announced: env.now(), objects: None };
            let member = |pack: &PackId| {
                let entry = packs.get(pack)?;
                Some(Member { pack: *pack, size_bytes: entry.size_bytes, hash: entry.hash })
            };
            let members = planned.packs.iter().filter_map(member).collect();
            groups.push(Announced { id, entry, members, data_bytes: planned.data_bytes });
        }
        let Some(first) = groups.first() else { return Ok(None) };
        let mut edit = CatalogueEdit::witnessed_by(Key::Parity(first.id));
        for id in &self.except.abandoned {
            edit.remove(Key::Parity(*id));
        }
        for group in &groups {
            edit.put(Key::Parity(group.id), &group.entry);
        }
        match self.repository.attempt(base, &edit)? {
            Attempt::Committed(_) => Ok(Some(groups)),
            Attempt::Lost { .. } => Ok(None),
        }
    }

    /// Writes the parity objects of a group durably, then makes it complete.
    fn form(&self, group: &Announced) -> Result<Outcome> {
        let backend = &*self.repository.backend;
        let count = |len: usize| u16::try_from(len).expect("limited by the options");
        let job = Job {
            backend,
            cancel: self.repository.cancel(),
            repository: self.repository.id(),
            stripe_bytes: STRIPE_BYTES,
            header: Header {
                group: group.id,
                data: count(group.members.len()),
                parity: count(group.entry.parities.len()),
                number: 0,
            },
            members: &group.members,
        };
        let mut outputs = Vec::with_capacity(group.entry.parities.len());
        for id in &group.entry.parities {
            outputs.push(Output::new(Some(backend.create(&ObjectName::Parity(*id))?)));
        }
        if let Encoded::Damaged(packs) = encode(&job, &mut outputs)? {
            return Ok(Outcome::Damaged(packs));
        }
        let size_bytes = outputs.first().map_or(0, Output::size_bytes);
        let hashes =
            outputs.iter().map(|output| serde_bytes::ByteArray::new(output.hash())).collect();
        for writer in outputs.into_iter().filter_map(|output| output.writer) {
            writer.finish()?;
        }
        self.complete(group, ParityObjects { size_bytes, hashes })
    }

    fn complete(&self, group: &Announced, objects: ParityObjects) -> Result<Outcome> {
        let complete = ParityEntry { objects: Some(objects.clone()), ..group.entry.clone() };
        let mut edit = CatalogueEdit::default();
        edit.put(Key::Parity(group.id), &complete);
        loop {
            let base = self.repository.head()?;
            let found = base.parity_group(group.id)?;
            if found.as_ref() == Some(&complete) {
                // The answer of an earlier attempt was lost; its effect was not.
                return Ok(Outcome::Complete(objects));
            }
            if found.as_ref() != Some(&group.entry) {
                return Ok(Outcome::Overtaken);
            }
            if let Attempt::Committed(_) = self.repository.attempt(&base, &edit)? {
                return Ok(Outcome::Complete(objects));
            }
        }
    }

    /// Takes announcements back, and removes what was written for them.
    fn retract(&self, groups: &[Announced]) -> Result<()> {
        loop {
            let base = self.repository.head()?;
            let announced = base.parity_groups()?;
            let mine = groups.iter().filter(|group| announced.get(&group.id) == Some(&group.entry));
            let mine: Vec<&Announced> = mine.collect();
            if mine.is_empty() {
                return Ok(());
            }
            let edit = removing(mine.iter().map(|group| &group.id));
            if let Attempt::Committed(_) = self.repository.attempt(&base, &edit)? {
                mine.into_iter().for_each(|group| self.remove_objects(group));
                return Ok(());
            }
        }
    }

    /// Removes objects that no head names any more. Best effort: prune and the next run remove what stays behind.
    fn remove_objects(&self, group: &Announced) {
        for id in &group.entry.parities {
            let _ = self.repository.backend.remove(&ObjectName::Parity(*id));
        }
    }
}
