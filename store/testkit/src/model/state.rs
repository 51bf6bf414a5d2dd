//! What the model's repository and its actors are at one moment.
//!
//! Sets of packs and of chunks are bits. There are no sequence numbers: a head that somebody read is either still the
//! current one (`fresh`) or it is not, and only the order of births counts.

/// Packs that one state can tell apart; the scopes are small enough for it.
pub const PACKS_MAX: usize = 16;
/// Snapshots 1 and 2 belong to the writers, if there are any.
pub const SNAPSHOTS: usize = 3;
/// Requests that can be on their way at once.
pub const IN_FLIGHT_MAX: usize = 2;
/// Actors of each kind.
pub const ACTORS_MAX: usize = 2;

/// A set of packs, one bit each.
pub type Packs = u16;
/// A set of chunks, one bit each.
pub type Chunks = u8;
/// A set of snapshots, one bit each.
pub type Snapshots = u8;
/// A moment in the order of heads; packs carry that of their birth.
pub type Birth = u8;

/// The packs of a set, by number.
pub fn each(packs: Packs) -> impl Iterator<Item = usize> {
    (0..PACKS_MAX).filter(move |pack| packs >> pack & 1 == 1)
}

/// The set of one pack.
pub fn one(pack: usize) -> Packs {
    1 << pack
}

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Who {
    /// Nobody of whom it matters.
    #[default]
    Nobody,
    /// A backup.
    Writer(u8),
    /// A prune.
    Pruner(u8),
    /// Somebody who brings a forgotten snapshot back.
    Keeper,
}

impl std::fmt::Display for Who {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nobody => write!(formatter, "storage"),
            Self::Writer(number) => write!(formatter, "writer {}", number + 1),
            Self::Pruner(number) => write!(formatter, "prune {}", number + 1),
            Self::Keeper => write!(formatter, "undelete"),
        }
    }
}

/// The head and the catalogue that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Head {
    /// Live snapshots.
    pub snapshots: Snapshots,
    /// Forgotten snapshots that can be brought back.
    pub forgotten: Snapshots,
    /// Live packs.
    pub live: Packs,
    /// Packs with a tombstone: they may still exist.
    pub condemned: Packs,
    /// The fence: packs born at this moment or before are no longer admitted.
    pub fenced: Birth,
}

/// One request that changes the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    /// Store this pack.
    Put(u8),
    /// Remove this pack.
    Remove(u8),
    /// Replace the head that the sender looked at last. Once the head has moved it can only be lost, so the head to
    /// compare with need not be kept.
    Swap(Who, Head),
}

/// One immutable pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Pack {
    /// What it holds.
    pub chunks: Chunks,
    /// When its session began.
    pub born: Birth,
}

/// Where a writer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum WriterAt {
    /// It has not begun.
    #[default]
    Begin,
    /// It has a pack to store.
    Put,
    /// It is about to read the head and to make its packs live without a snapshot.
    CheckpointLook,
    /// It looked and swaps the head for its packs.
    CheckpointSwap,
    /// That swap gave no answer.
    CheckpointUnsure,
    /// It is about to read the head and to compare it with what it relies on.
    Look,
    /// Something that it relies on is gone.
    Repair,
    /// Everything stands: it swaps the head for its snapshot.
    Swap,
    /// That swap gave no answer.
    Unsure,
    /// It said that the snapshot is safe.
    Done,
    /// It gave up and said so.
    Failed,
}

/// A backup that stores one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Writer {
    /// What it does next.
    pub at: WriterAt,
    /// Its packs that are durable and not live as far as it knows.
    pub own: Packs,
    /// Live packs in which it found chunks.
    pub relied: Packs,
    /// It takes what snapshot 0 holds for granted as long as that is live.
    pub on_parent: bool,
    /// A pack that it relied on is not live any more, and so never will be.
    pub shaken: bool,
    /// The pack to store.
    pub pack: u8,
    /// The birth of its packs.
    pub born: Birth,
    /// The head that it looked at last is the current one.
    pub fresh: bool,
    /// Its last swap took place, whether it knows that or not.
    pub landed: bool,
    /// It may still make its packs live without a snapshot.
    pub checkpoints: bool,
}

/// Where a prune stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum PrunerAt {
    /// It is about to look which forgotten snapshots it lets go, if any.
    #[default]
    Expire,
    /// It swaps the head for one without them.
    ExpireSwap,
    /// That swap gave no answer.
    ExpireUnsure,
    /// It is about to list the packs.
    List,
    /// It is about to read the head and to mark.
    Mark,
    /// It has a pack to store.
    Put,
    /// It swaps the head for its verdict.
    Condemn,
    /// That swap gave no answer.
    Unsure,
    /// It is about to read which packs are condemned.
    Sweep,
    /// It deletes condemned packs.
    Delete,
    /// It is about to look which tombstones name packs that are gone.
    Names,
    /// It swaps the head for one without those tombstones.
    ForgetNames,
    /// It has finished, or gave up.
    Done,
}

/// A prune.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Pruner {
    /// What it does next.
    pub at: PrunerAt,
    /// What existed when it listed.
    pub listed: Packs,
    /// Packs that it stored for this verdict or an earlier one, and that are not live as far as it knows.
    pub own: Packs,
    /// The pack to store.
    pub pack: u8,
    /// The birth of its packs; 0 before it has any.
    pub born: Birth,
    /// What it condemns.
    pub condemn: Packs,
    /// Forgotten snapshots that it lets go.
    pub expire: Snapshots,
    /// What it still has to delete, or, later, tombstones that it drops.
    pub left: Packs,
    /// The head that it looked at last is the current one.
    pub fresh: bool,
    /// Its last swap took place, whether it knows that or not.
    pub landed: bool,
}

/// Where somebody stands who brings a forgotten snapshot back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum KeeperAt {
    /// About to read the head.
    #[default]
    Look,
    /// Swaps the head for one in which the snapshot is live again.
    Swap,
    /// That swap gave no answer.
    Unsure,
    /// It is live again, or it was said that it cannot be.
    Done,
}

/// Somebody who brings a forgotten snapshot back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Keeper {
    /// What comes next.
    pub at: KeeperAt,
    /// The snapshot, once chosen.
    pub snapshot: Snapshots,
    /// The head that was looked at last is the current one.
    pub fresh: bool,
    /// An earlier attempt gave no answer.
    pub unsure: bool,
    /// The swap took place, whether this is known or not.
    pub landed: bool,
    /// It was said that the snapshot is live again.
    pub acknowledged: bool,
}

/// Everything at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    /// The current head.
    pub head: Head,
    /// The moment of the current head.
    pub now: Birth,
    /// Packs in storage.
    pub exists: Packs,
    /// Every pack that somebody can still name.
    pub packs: [Pack; PACKS_MAX],
    /// How many those are.
    pub pack_count: u8,
    /// Requests whose senders gave up waiting; each may arrive at any later time, or never.
    pub in_flight: [Option<Request>; IN_FLIGHT_MAX],
    /// The backups.
    pub writers: [Writer; ACTORS_MAX],
    /// The prunes.
    pub pruners: [Pruner; ACTORS_MAX],
    /// The one who undeletes.
    pub keeper: Keeper,
    /// Snapshots of which somebody was told that they are safe.
    pub acknowledged: Snapshots,
    /// Snapshots that were forgotten and not brought back since.
    pub dismissed: Snapshots,
    /// Snapshots that can still be forgotten in this run.
    pub forgets: u8,
    /// Requests that can still go without an answer in this run.
    pub timeouts: u8,
}

impl State {
    /// The chunks in these packs.
    pub fn chunks_in(&self, packs: Packs) -> Chunks {
        each(packs).fold(0, |chunks, pack| chunks | self.packs[pack].chunks)
    }

    /// Those of the packs that were born behind the fence.
    pub fn fenced_off(&self, packs: Packs) -> Packs {
        each(packs)
            .filter(|pack| self.packs[*pack].born <= self.head.fenced)
            .fold(0, |set, pack| set | one(pack))
    }

    /// Gives a pack a name that was never used.
    pub fn new_pack(&mut self, chunks: Chunks, born: Birth) -> u8 {
        let number = self.pack_count;
        self.packs[usize::from(number)] = Pack { chunks, born };
        self.pack_count += 1;
        number
    }

    /// The head moves: whatever anybody saw before is not current any more, and swaps on their way are lost.
    pub fn move_head(&mut self, by: Who, head: Head) {
        let returned = head.snapshots & !self.head.snapshots;
        self.dismissed &= !returned;
        match by {
            Who::Nobody => {}
            Who::Writer(number) => self.writers[usize::from(number)].landed = true,
            Who::Pruner(number) => self.pruners[usize::from(number)].landed = true,
            Who::Keeper => self.keeper.landed = true,
        }
        self.head = head;
        self.now += 1;
        self.writers.iter_mut().for_each(|writer| writer.fresh = false);
        self.pruners.iter_mut().for_each(|pruner| pruner.fresh = false);
        self.keeper.fresh = false;
        for request in &mut self.in_flight {
            request.take_if(|request| matches!(request, Request::Swap(..)));
        }
    }

    /// A request takes effect. False for a swap that is lost; `is_current` says whether its sender's head still is.
    pub fn take_effect(&mut self, request: Request, is_current: bool) -> bool {
        match request {
            Request::Put(pack) => self.exists |= one(pack.into()),
            Request::Remove(pack) => self.exists &= !one(pack.into()),
            Request::Swap(..) if !is_current => return false,
            Request::Swap(by, head) => self.move_head(by, head),
        }
        true
    }

    /// Every way in which a request can go: the state behind it, and the answer, None where there is none.
    pub fn send(
        &self,
        request: Request,
        is_current: bool,
    ) -> impl Iterator<Item = (Self, Option<bool>)> {
        let mut answered = *self;
        let done = answered.take_effect(request, is_current);
        let silent = (self.timeouts > 0).then(|| {
            let mut silent = answered;
            silent.timeouts -= 1;
            (silent, None)
        });
        // A swap that is lost now is lost later too.
        let late =
            self.in_flight.iter().position(Option::is_none).filter(|_| done && self.timeouts > 0);
        let late = late.map(|free| {
            let mut late = *self;
            late.timeouts -= 1;
            late.in_flight[free] = Some(request);
            (late, None)
        });
        std::iter::once((answered, Some(done))).chain(silent).chain(late)
    }
}
