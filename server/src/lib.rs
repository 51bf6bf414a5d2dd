//! Jobs, checkpoints and remote push over HTTP, as a library that the `stillpoint` program starts.
//!
//! Owns: tenants, plans, jobs and the HTTP interfaces; the only place where code is asynchronous. Must not know
//! terminals. Nothing is served yet: today every repository lies on a local disk.
