//! The same work on many things by several threads, in order of the list as far as that can be.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Most things that a thread takes at once.
const BATCH_MAX: usize = 16;

/// Calls `work` on each of `items`, on up to `threads` threads; threads take neighbouring items. Ends when all are
/// done.
pub(crate) fn for_each<T: Sync>(threads: usize, items: &[T], work: impl Fn(&T) + Sync) {
    let batch = (items.len() / (threads.max(1) * 4)).clamp(1, BATCH_MAX);
    let next = AtomicUsize::new(0);
    let run = || {
        loop {
            let start = next.fetch_add(batch, Ordering::Relaxed);
            let Some(rest) = items.get(start..).filter(|rest| !rest.is_empty()) else { break };
            rest.iter().take(batch).for_each(&work);
        }
    };
    if threads <= 1 || items.len() <= 1 {
        return run();
    }
    std::thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            scope.spawn(run);
        }
        run();
    });
}

#[cfg(test)]
mod tests {
    use super::for_each;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Each item is worked on exactly once, whatever the number of threads.
    #[test]
    fn each_item_comes_once() {
        for threads in [0, 1, 2, 7] {
            for count in [0u64, 1, 2, 15, 1000] {
                let items: Vec<u64> = (0..count).collect();
                let (sum, calls) = (AtomicU64::new(0), AtomicU64::new(0));
                for_each(threads, &items, |item| {
                    sum.fetch_add(*item, Ordering::Relaxed);
                    calls.fetch_add(1, Ordering::Relaxed);
                });
                assert_eq!(calls.into_inner(), count);
                assert_eq!(sum.into_inner(), items.iter().sum::<u64>());
            }
        }
    }
}
