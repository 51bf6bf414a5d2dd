//! A dump that a thread writes and a backup reads, with a pipe between.

use super::PinReport;
use crate::error::{Error, Result};
use std::io::{BufWriter, PipeReader, PipeWriter, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
use stillpoint_archive::StreamSource;

/// How much is given to the reader at once, bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// What a dump is written to.
pub(super) type Out = BufWriter<PipeWriter>;

/// The session that holds a pinned instant, until its dump ends in whatever way.
pub(super) struct Held<S> {
    session: Option<S>,
    since: Instant,
    report: Arc<Mutex<PinReport>>,
}

impl<S> Held<S> {
    pub(super) fn new(session: S, since: Instant, report: Arc<Mutex<PinReport>>) -> Self {
        Self { session: Some(session), since, report }
    }

    pub(super) fn session(&mut self) -> Result<&mut S> {
        self.session.as_mut().ok_or_else(|| Error::Failed("nothing is held".into()))
    }
}

impl<S> Drop for Held<S> {
    fn drop(&mut self) {
        // First the session: nothing is held any more once it is gone.
        self.session = None;
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.held = Some(self.since.elapsed());
    }
}

/// Writes bytes to a dump.
///
/// # Errors
/// When nobody reads it any more.
pub(super) fn put(out: &mut Out, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).map_err(|error| unread(&error))
}

fn unread(error: &std::io::Error) -> Error {
    Error::Failed(format!("nobody reads the dump any more: {error}"))
}

/// Starts `work` on a thread of its own and gives what it writes as a stream.
pub(super) fn start(
    name: String,
    work: impl FnOnce(&mut Out) -> Result<()> + Send + 'static,
) -> Result<Box<dyn StreamSource>> {
    let (reader, writer) = std::io::pipe()
        .map_err(|error| stillpoint_store::Error::io("making a pipe for", &name, error))?;
    let worker = std::thread::spawn(move || {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, writer);
        work(&mut out)?;
        out.flush().map_err(|error| unread(&error))
    });
    Ok(Box::new(Piped { name, reader, worker }))
}

/// A dump while it is made. Dropping it lets the worker find nobody who reads, and end.
struct Piped {
    name: String,
    reader: PipeReader,
    worker: JoinHandle<Result<()>>,
}

impl Read for Piped {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl StreamSource for Piped {
    fn name(&self) -> &str {
        &self.name
    }

    fn finish(self: Box<Self>) -> stillpoint_store::Result<()> {
        let Self { name, reader, worker } = *self;
        drop(reader);
        let done =
            worker.join().unwrap_or_else(|_| Err(Error::Failed("the dump broke off".into())));
        done.map_err(|error| match error {
            Error::Store(error) => error,
            other => {
                let told = std::io::Error::other(other.to_string());
                stillpoint_store::Error::io("dumping", name, told)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What is written comes through; an error and a panic of the worker fail the stream, and a dropped stream ends it.
    #[test]
    fn verdicts() {
        let check = |work: fn(&mut Out) -> Result<()>, bytes: &[u8], succeeds: bool| {
            let mut stream = start("x".into(), work).unwrap();
            let mut found = Vec::new();
            stream.read_to_end(&mut found).unwrap();
            assert_eq!((found.as_slice(), stream.finish().is_ok()), (bytes, succeeds));
        };
        check(|out| put(out, b"bytes"), b"bytes", true);
        check(|_| Err(Error::Failed("no".into())), b"", false);
        check(|_| panic!("on purpose"), b"", false);
        let (sender, receiver) = std::sync::mpsc::channel();
        let endless = start("x".into(), move |out| {
            let end = loop {
                if let Err(error) = put(out, &[0; 4096]) {
                    break error.to_string();
                }
            };
            sender.send(end).unwrap();
            Ok(())
        });
        drop(endless.unwrap());
        assert!(receiver.recv().unwrap().contains("nobody reads"));
    }
}
