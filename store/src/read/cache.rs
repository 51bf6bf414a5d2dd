//! A small cache that forgets what was used longest ago, bounded by weight.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;

struct Slot<V> {
    value: V,
    weight: usize,
    used: u64,
}

struct State<K, V> {
    slots: HashMap<K, Slot<V>>,
    weight: usize,
    clock: u64,
}

/// A cache shared between threads; values are cheap to clone.
pub(super) struct Cache<K, V> {
    state: Mutex<State<K, V>>,
    weight_max: usize,
}

impl<K: Hash + Eq + Copy, V: Clone> Cache<K, V> {
    pub fn new(weight_max: usize) -> Self {
        let state = State { slots: HashMap::new(), weight: 0, clock: 0 };
        Self { state: Mutex::new(state), weight_max }
    }

    pub fn get(&self, key: &K) -> Option<V> {
        let mut state = self.state.lock().expect("no panic while cached");
        state.clock += 1;
        let clock = state.clock;
        let slot = state.slots.get_mut(key)?;
        slot.used = clock;
        Some(slot.value.clone())
    }

    pub fn put(&self, key: K, value: V, weight: usize) {
        let mut state = self.state.lock().expect("no panic while cached");
        state.clock += 1;
        let used = state.clock;
        if let Some(old) = state.slots.insert(key, Slot { value, weight, used }) {
            state.weight -= old.weight;
        }
        state.weight += weight;
        if state.weight > self.weight_max {
            state.shrink(self.weight_max);
        }
    }
}

impl<K: Hash + Eq + Copy, V> State<K, V> {
    /// Drops the older half at once, so that the cost per insertion stays small.
    fn shrink(&mut self, weight_max: usize) {
        let mut ages: Vec<(u64, K)> =
            self.slots.iter().map(|(key, slot)| (slot.used, *key)).collect();
        ages.sort_unstable_by_key(|(used, _)| *used);
        for (_, key) in ages {
            if self.weight <= weight_max / 2 || self.slots.len() <= 1 {
                break;
            }
            if let Some(slot) = self.slots.remove(&key) {
                self.weight -= slot.weight;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cache;

    /// The weight never exceeds the limit by more than one value, and what was used last stays.
    #[test]
    fn keeps_what_was_used_last_within_its_weight() {
        let cache = Cache::new(100);
        for key in 0..1000u32 {
            cache.put(key, key, 10);
            assert_eq!(cache.get(&key), Some(key));
            assert!(cache.state.lock().unwrap().weight <= 100);
        }
        assert_eq!(cache.get(&999), Some(999));
        assert_eq!(cache.get(&0), None);
    }
}
