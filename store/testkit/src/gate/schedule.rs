//! Who goes next: seeded at random, or every order with few preemptions, one after the other.

use crate::random::Random;

/// Chooses the actor whose call is let through.
pub trait Scheduler {
    /// One of `ready`. `current` is the one that ran last, if it can go on.
    fn choose(&mut self, ready: &[usize], current: Option<usize>) -> usize;
}

/// Random choices from a seed. Some seeds switch at every call, others let an actor run on for long.
#[derive(Debug)]
pub struct Seeded {
    random: Random,
    stay_percent: u64,
}

impl Seeded {
    /// The schedule of this seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let stay_percent = *random.pick(&[0, 50, 80, 95]);
        Self { random, stay_percent }
    }
}

impl Scheduler for Seeded {
    fn choose(&mut self, ready: &[usize], current: Option<usize>) -> usize {
        match current {
            Some(current) if self.random.percent(self.stay_percent) => current,
            _ => *self.random.pick(ready),
        }
    }
}

/// One place where the next schedule may go another way.
#[derive(Debug)]
struct Fork {
    ways: Vec<usize>,
    taken: usize,
}

/// Every schedule with at most so many preemptions (switches away from an actor that could have gone on), depth
/// first. Most races need no more than two (Musuvathi and Qadeer, PLDI 2007).
///
/// Replays the choices of the schedule before, so the actors must do the same when they are run in the same order.
#[derive(Debug)]
pub struct Bounded {
    preemptions_max: usize,
    preemptions: usize,
    forks: Vec<Fork>,
    depth: usize,
    begun: bool,
}

impl Bounded {
    /// All schedules with at most this many preemptions.
    pub fn new(preemptions_max: usize) -> Self {
        Self { preemptions_max, preemptions: 0, forks: Vec::new(), depth: 0, begun: false }
    }

    /// Goes to the next schedule; false when there is none left.
    pub fn begin(&mut self) -> bool {
        self.forks.truncate(self.depth);
        (self.depth, self.preemptions) = (0, 0);
        if !std::mem::replace(&mut self.begun, true) {
            return true;
        }
        while let Some(fork) = self.forks.last_mut() {
            fork.taken += 1;
            if fork.taken < fork.ways.len() {
                return true;
            }
            self.forks.pop();
        }
        false
    }
}

impl Scheduler for Bounded {
    fn choose(&mut self, ready: &[usize], current: Option<usize>) -> usize {
        if self.depth == self.forks.len() {
            let may_preempt = self.preemptions < self.preemptions_max;
            let ways = match current {
                Some(current) if may_preempt => {
                    let others = ready.iter().copied().filter(|other| *other != current);
                    std::iter::once(current).chain(others).collect()
                }
                Some(current) => vec![current],
                None => ready.to_vec(),
            };
            self.forks.push(Fork { ways, taken: 0 });
        }
        let fork = &self.forks[self.depth];
        self.depth += 1;
        let planned = fork.ways[fork.taken];
        let chosen = if ready.contains(&planned) { planned } else { current.unwrap_or(ready[0]) };
        if current.is_some_and(|current| current != chosen) {
            self.preemptions += 1;
        }
        chosen
    }
}
