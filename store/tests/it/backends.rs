//! The backends do what every backend must, and so do the doubles that wrap one.

use std::sync::Arc;
use stillpoint_store::backend::{Backend, LocalBackend, MemoryBackend};
use stillpoint_testkit::{BackendFixture, CrashBackend, FaultBackend, backend_suite};

fn handle_on<B: Backend + Clone + 'static>(backend: B) -> BackendFixture {
    let open = move || Arc::new(backend.clone()) as Arc<dyn Backend>;
    BackendFixture { open: Box::new(open), guard: Box::new(()) }
}

#[test]
fn memory_backend_conforms() {
    backend_suite(|| handle_on(MemoryBackend::new()));
}

#[test]
fn local_backend_conforms() {
    backend_suite(|| {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a folder/repository");
        let open = move || Arc::new(LocalBackend::new(&root)) as Arc<dyn Backend>;
        BackendFixture { open: Box::new(open), guard: Box::new(dir) }
    });
}

#[test]
fn fault_backend_conforms_without_a_fault() {
    backend_suite(|| handle_on(FaultBackend::new(Arc::new(MemoryBackend::new()))));
}

#[test]
fn crash_backend_conforms() {
    backend_suite(|| handle_on(CrashBackend::new(Default::default())));
}
