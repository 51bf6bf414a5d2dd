//! A second, smaller model: the objects that each attempt writes for itself (a snapshot's record, nodes of the
//! catalogue), and who may remove them.
//!
//! Mirrors `repository/view.rs` (an attempt that certainly lost removes what it wrote) and `prune/garbage.rs` (a prune
//! removes what no head names and none can ever name). What must never be: a head that names an object that is not there.

use super::search::Model;
use super::state::Who;

/// A set of objects, one bit each.
type Objects = u16;
/// More than any run of the model writes.
const OBJECTS_MAX: u8 = 16;

/// The rules of the smaller model; each is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectRule {
    /// A head names only what was stored with an acknowledgement.
    PutBeforeSwap,
    /// Only an attempt that certainly lost removes what it wrote.
    UnsureIsKept,
    /// A prune leaves what was written on top of the head that it sees: that attempt may still succeed.
    CurrentIsKept,
    /// A prune leaves what the head names.
    NamedIsKept,
}

impl ObjectRule {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::PutBeforeSwap, Self::UnsureIsKept, Self::CurrentIsKept, Self::NamedIsKept];
}

/// The smaller model, whole or with one rule broken.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnObjects {
    /// The rule that does not hold.
    pub broken: Option<ObjectRule>,
    /// Requests that go without an answer.
    pub timeouts: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum At {
    /// About to read the head.
    #[default]
    Look,
    /// Has an object to store.
    Put,
    /// Swaps the head for one that names it.
    Swap,
    /// That swap gave no answer.
    Unsure,
    /// Lost, and removes what it wrote.
    Clean,
    /// Committed, or gave up.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Writer {
    at: At,
    object: u8,
    fresh: bool,
    landed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Request {
    Put(u8),
    Remove(u8),
    Swap(u8, Objects),
}

/// Everything at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectsState {
    named: Objects,
    exists: Objects,
    /// Objects that were written on top of a head that is not the current one.
    outdated: Objects,
    count: u8,
    writers: [Writer; 2],
    /// What the prune still removes; None before it has looked and after it has finished.
    garbage: Option<Objects>,
    prunes: u8,
    removals: u8,
    in_flight: Option<Request>,
    timeouts: u8,
}

/// One step of somebody.
pub type ObjectStep = super::protocol::Step;

impl ObjectsState {
    fn take_effect(&mut self, request: Request, is_current: bool) -> bool {
        match request {
            Request::Put(object) => self.exists |= 1 << object,
            Request::Remove(object) => self.exists &= !(1 << object),
            Request::Swap(..) if !is_current => return false,
            Request::Swap(writer, named) => self.move_head(Some(writer), named),
        }
        true
    }

    fn move_head(&mut self, by: Option<u8>, named: Objects) {
        self.named = named;
        if let Some(writer) = by {
            self.writers[usize::from(writer)].landed = true;
        }
        self.outdated = (1 << self.count) - 1;
        self.writers.iter_mut().for_each(|writer| writer.fresh = false);
        self.in_flight.take_if(|request| matches!(request, Request::Swap(..)));
    }

    fn send(&self, request: Request, is_current: bool) -> Vec<(Self, Option<bool>)> {
        let mut answered = *self;
        let done = answered.take_effect(request, is_current);
        let mut ways = vec![(answered, Some(done))];
        if self.timeouts > 0 {
            let timeouts = self.timeouts - 1;
            ways.push((Self { timeouts, ..answered }, None));
            // A swap that is lost now is lost later too.
            if self.in_flight.is_none() && done {
                ways.push((Self { timeouts, in_flight: Some(request), ..*self }, None));
            }
        }
        ways
    }

    fn with(&self, number: usize, writer: Writer) -> Self {
        let mut next = *self;
        next.writers[number] = writer;
        next
    }
}

impl OwnObjects {
    fn holds(&self, rule: ObjectRule) -> bool {
        self.broken != Some(rule)
    }

    fn writer(&self, state: &ObjectsState, number: u8, out: &mut Vec<(ObjectStep, ObjectsState)>) {
        let place = usize::from(number);
        let writer = state.writers[place];
        let mut push = |what, next| out.push((ObjectStep { who: Who::Writer(number), what }, next));
        match writer.at {
            At::Look => {
                assert!(state.count < OBJECTS_MAX, "the model is small enough");
                let writer =
                    Writer { at: At::Put, object: state.count, fresh: true, landed: false };
                let mut next = state.with(place, writer);
                next.count += 1;
                push("reads the head", next);
            }
            At::Put => {
                for (next, answer) in state.send(Request::Put(writer.object), true) {
                    let counts = answer.is_some() || !self.holds(ObjectRule::PutBeforeSwap);
                    let at = if counts { At::Swap } else { At::Done };
                    push("stores its object", next.with(place, Writer { at, ..writer }));
                }
            }
            At::Swap => {
                let request = Request::Swap(number, state.named | 1 << writer.object);
                for (next, answer) in state.send(request, writer.fresh) {
                    let after = next.writers[place];
                    let (what, at) = match answer {
                        Some(true) => ("commits", At::Done),
                        Some(false) => ("lost the race", At::Clean),
                        None => ("gets no answer", At::Unsure),
                    };
                    push(what, next.with(place, Writer { at, ..after }));
                }
            }
            At::Unsure => {
                let mut go = |what, at| push(what, state.with(place, Writer { at, ..writer }));
                if writer.fresh {
                    go("sees that nothing happened and gives up", At::Done);
                    return;
                }
                match writer.landed {
                    true => go("learns that it committed", At::Done),
                    false => go("learns that it lost the race", At::Clean),
                }
                match self.holds(ObjectRule::UnsureIsKept) {
                    true => go("finds a head too new to tell", At::Look),
                    false => go("finds a head too new to tell", At::Clean),
                }
            }
            At::Clean => {
                for (next, _) in state.send(Request::Remove(writer.object), true) {
                    push("removes its object", next.with(place, Writer::default()));
                }
            }
            At::Done => {}
        }
    }

    fn prune(&self, state: &ObjectsState, out: &mut Vec<(ObjectStep, ObjectsState)>) {
        let mut push = |what, next| out.push((ObjectStep { who: Who::Pruner(0), what }, next));
        match state.garbage {
            None if state.prunes == 0 => {}
            None => {
                let mut garbage = state.exists;
                if self.holds(ObjectRule::NamedIsKept) {
                    garbage &= !state.named;
                }
                if self.holds(ObjectRule::CurrentIsKept) {
                    garbage &= state.outdated;
                }
                let prunes = state.prunes - 1;
                push("looks", ObjectsState { garbage: Some(garbage), prunes, ..*state });
            }
            Some(0) => push("has finished", ObjectsState { garbage: None, ..*state }),
            Some(garbage) => {
                let object = u8::try_from(garbage.trailing_zeros()).expect("a small number");
                for (next, _) in state.send(Request::Remove(object), true) {
                    let garbage = Some(garbage & !(1 << object));
                    push("removes an object", ObjectsState { garbage, ..next });
                }
            }
        }
    }
}

impl Model for OwnObjects {
    type State = ObjectsState;
    type Step = ObjectStep;

    fn start(&self) -> ObjectsState {
        ObjectsState {
            named: 1,
            exists: 1,
            outdated: 1,
            count: 1,
            writers: [Writer::default(); 2],
            garbage: None,
            prunes: 2,
            removals: 1,
            in_flight: None,
            timeouts: self.timeouts,
        }
    }

    fn successors(&self, state: &ObjectsState, out: &mut Vec<(ObjectStep, ObjectsState)>) {
        self.writer(state, 0, out);
        self.writer(state, 1, out);
        self.prune(state, out);
        let nobody = |what| ObjectStep { who: Who::Nobody, what };
        if state.removals > 0 && state.named != 0 {
            let mut next = *state;
            next.removals -= 1;
            next.move_head(None, state.named & (state.named - 1));
            out.push((nobody("sees an object let go"), next));
        }
        if let Some(request) = state.in_flight {
            let mut next = ObjectsState { in_flight: None, ..*state };
            next.take_effect(request, true);
            out.push((nobody("gets a late request"), next));
        }
    }

    fn violation(&self, state: &ObjectsState) -> Option<String> {
        let lost = state.named & !state.exists;
        (lost != 0).then(|| format!("the head names objects {lost:b}, which are not there"))
    }

    fn is_finished(&self, state: &ObjectsState) -> bool {
        state.writers.iter().all(|writer| writer.at == At::Done) && state.garbage.is_none()
    }
}
