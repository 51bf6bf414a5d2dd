//! The index in memory does what every index must.

use stillpoint_store::index::MemoryIndex;
use stillpoint_testkit::{IndexFixture, index_suite};

#[test]
fn memory_index_conforms() {
    index_suite(|| IndexFixture {
        open: Box::new(|| Box::new(MemoryIndex::new())),
        persistent: false,
        guard: Box::new(()),
    });
}
