//! Standard input as a source that lets go when somebody asks to stop.

use crate::signals::Cancel;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use stillpoint_archive::source::StreamSource;
use stillpoint_store::Result;

/// How long one wait for bytes may last before the request to stop is looked at again, ms.
const WAIT_MS: i32 = 100;

/// A reader over a descriptor whose waiting ends when somebody asks to stop.
pub struct Interruptible<R> {
    inner: R,
    cancel: Cancel,
}

impl<R: Read + AsFd> Interruptible<R> {
    /// Reads from `inner` until `cancel` is requested.
    pub fn new(inner: R, cancel: Cancel) -> Self {
        Self { inner, cancel }
    }

    /// Waits until there is something to read, or the end.
    fn wait(&self) -> io::Result<()> {
        let mut poll =
            libc::pollfd { fd: self.inner.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        loop {
            if self.cancel.is_requested() {
                return Err(io::Error::other("interrupted"));
            }
            // SAFETY: one valid pollfd, whose descriptor stays open as long as `inner` is borrowed.
            match unsafe { libc::poll(&raw mut poll, 1, WAIT_MS) } {
                0 => {}
                number if number > 0 => return Ok(()),
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }
}

impl<R: Read + AsFd> Read for Interruptible<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait()?;
        self.inner.read(buffer)
    }
}

impl<R: StreamSource + AsFd> StreamSource for Interruptible<R> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Box::new(self.inner).finish()
    }
}

/// Standard input under a name; its end is its success.
pub struct Stdin {
    name: String,
    reader: Interruptible<File>,
}

impl Stdin {
    /// Standard input as the file `name`.
    ///
    /// # Errors
    /// The operating system's when there is no standard input.
    pub fn new(name: &str, cancel: &Cancel) -> io::Result<Self> {
        // A descriptor of our own: a buffer in between would hide bytes from the wait.
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self { name: name.to_owned(), reader: Interruptible::new(input, cancel.clone()) })
    }
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl StreamSource for Stdin {
    fn name(&self) -> &str {
        &self.name
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Whoever waits for bytes that never come still hears the request to stop.
    #[test]
    fn a_request_to_stop_ends_the_wait() {
        let (reader, _writer) = io::pipe().unwrap();
        let cancel = Cancel::default();
        let mut source = Interruptible::new(reader, cancel.clone());
        let waiting = std::thread::spawn(move || source.read(&mut [0; 8]));
        cancel.request();
        assert!(waiting.join().unwrap().is_err());
    }

    // Bytes and the end come through.
    #[test]
    fn bytes_come_through() {
        use std::io::Write as _;
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"bytes").unwrap();
        drop(writer);
        let mut text = String::new();
        Interruptible::new(reader, Cancel::default()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "bytes");
    }
}
