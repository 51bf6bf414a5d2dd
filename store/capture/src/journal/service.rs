//! The journal as a service: one process that keeps what changed for every later snapshot, and the client's end.
//!
//! Lives in a state directory: a lock file that says whether one runs, and a socket to ask it. It survives nothing that it cannot
//! survive: after a restart it is another journal, and positions of the one before are answered with a gap.

use super::log::{Log, Position};
use super::wire::{self, ANSWER_BYTES_MAX, Answer, QUESTION_BYTES_MAX, Question};
use super::{ChangeSet, Gap, Journal, Options};
use crate::error::{Error, Result};
use rustix::fs::FlockOperation;
use serde_bytes::ByteBuf;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use stillpoint_archive::path::{is_within, path_from_key};

pub use super::wire::Status;

/// The folder of the state directory.
pub(super) const FOLDER: &str = "journal";
const SOCKET: &str = "socket";
const LOCK: &str = "lock";
/// How long one client may keep the others waiting.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long reading the kernel's queue may take for one answer.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

fn failed(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let what = format!("{what} {}", path.display());
    move |error| Error::Failed(format!("{what}: {error}"))
}

/// What a running journal answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What changed since the position that was named; without one, or after a restart of the journal, it has a gap.
    pub changes: ChangeSet,
    /// Where the journal is now: the position to name the next time. Take it before a walk that reads everything.
    pub position: Position,
}

/// A connection to a running journal; good for one question.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects to the journal of this state directory; None when none runs.
    ///
    /// # Errors
    /// When there is one that cannot be talked to.
    pub fn connect(state: &Path) -> Result<Option<Self>> {
        let socket = state.join(FOLDER).join(SOCKET);
        match UnixStream::connect(&socket) {
            Ok(stream) => {
                let limit = Some(DRAIN_LIMIT + PATIENCE);
                stream.set_read_timeout(limit).map_err(failed("talking to", &socket))?;
                stream.set_write_timeout(limit).map_err(failed("talking to", &socket))?;
                Ok(Some(Self { stream }))
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
            {
                Ok(None)
            }
            Err(error) => Err(failed("connecting to", &socket)(error)),
        }
    }

    fn ask(mut self, question: &Question) -> Result<Answer> {
        wire::send(&mut self.stream, question)?;
        match wire::receive(&mut self.stream, ANSWER_BYTES_MAX)? {
            Answer::Refused(why) => Err(Error::Failed(format!("the journal refused: {why}"))),
            answer => Ok(answer),
        }
    }

    /// What changed below these roots (keys, see `archive::root_key`) since a position.
    ///
    /// # Errors
    /// When the journal ends meanwhile.
    pub fn changes(self, since: Option<&Position>, roots: &[Vec<u8>]) -> Result<Report> {
        let roots = roots.iter().cloned().map(ByteBuf::from).collect();
        let since = since.map(ToString::to_string);
        match self.ask(&Question::Changes { since, roots })? {
            Answer::Changes { set, position } => {
                let position = position.parse().map_err(Error::Failed)?;
                Ok(Report { changes: set.into(), position })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// How the journal is.
    ///
    /// # Errors
    /// As [`Self::changes`].
    pub fn status(self) -> Result<Status> {
        match self.ask(&Question::Status)? {
            Answer::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends the journal, and waits until it is gone.
    ///
    /// # Errors
    /// As [`Self::changes`].
    pub fn stop(mut self) -> Result<()> {
        wire::send(&mut self.stream, &Question::Stop)?;
        match wire::receive(&mut self.stream, ANSWER_BYTES_MAX)? {
            Answer::Stopped => {}
            other => return Err(unexpected(&other)),
        }
        // The service closes the connection when nothing of it is left.
        let _ = self.stream.read(&mut [0]);
        Ok(())
    }
}

fn unexpected(answer: &Answer) -> Error {
    Error::Failed(format!("the journal answered another question: {answer:?}"))
}

/// A journal that answers questions.
#[derive(Debug)]
pub struct Service {
    journal: Journal,
    log: Log,
    roots: Vec<Vec<u8>>,
    crosses_mounts: bool,
    listener: UnixListener,
    socket: PathBuf,
    /// Held locked for as long as the service runs.
    _lock: File,
}

impl Service {
    /// Starts watching, and makes the socket. `name` tells this journal from all others, before and after.
    ///
    /// # Errors
    /// `Refused` when one runs already in this state directory, and as [`Journal::start`].
    pub fn start(state: &Path, name: String, roots: &[PathBuf], options: &Options) -> Result<Self> {
        let folder = state.join(FOLDER);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(failed("creating", &folder))?;
        let lock = lock(&folder.join(LOCK))?;
        let journal = Journal::start_with(roots, options)?;
        let socket = folder.join(SOCKET);
        // Whoever made it is gone: we hold the lock.
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(failed("removing", &socket)(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&socket).map_err(failed("creating", &socket))?;
        let roots = journal.roots();
        Ok(Self {
            log: Log::new(name, roots.clone(), options.named_max),
            journal,
            roots,
            crosses_mounts: options.crosses_mounts,
            listener,
            socket,
            _lock: lock,
        })
    }

    /// Answers questions until it is told to stop. `tell` gets what went wrong with single clients.
    ///
    /// # Errors
    /// When no more clients can be heard.
    pub fn run(mut self, tell: &dyn Fn(&str)) -> Result<()> {
        loop {
            let accepted = self.listener.accept();
            let (mut stream, _) = accepted.map_err(failed("listening on", &self.socket))?;
            match self.serve(&mut stream) {
                Ok(true) => {}
                Ok(false) => {
                    // Gone before the connection closes: the lock and the marks, too.
                    let _ = std::fs::remove_file(&self.socket);
                    drop(self);
                    return Ok(());
                }
                Err(error) => tell(&error.to_string()),
            }
        }
    }

    /// One question of one client; false when it is the last.
    fn serve(&mut self, stream: &mut UnixStream) -> Result<bool> {
        let failed = |error: std::io::Error| Error::Failed(error.to_string());
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        let answer = match wire::receive(stream, QUESTION_BYTES_MAX)? {
            Question::Changes { since, roots } => self.changes(since.as_deref(), &roots),
            Question::Status => Answer::Status(self.status()),
            Question::Stop => Answer::Stopped,
        };
        wire::send(stream, &answer)?;
        Ok(answer != Answer::Stopped)
    }

    fn changes(&mut self, since: Option<&str>, roots: &[ByteBuf]) -> Answer {
        let set = self.journal.drain(DRAIN_LIMIT);
        let opaque = set.opaque;
        let position = self.log.push(set).to_string();
        let mut set = match since.map(str::parse::<Position>) {
            Some(Ok(since)) => self.log.since(&since),
            Some(Err(why)) => return Answer::Refused(why),
            None => ChangeSet { gap: Some(Gap::Interrupted), ..ChangeSet::default() },
        };
        set.opaque = opaque;
        let is_watched =
            |root: &&ByteBuf| self.roots.iter().any(|watched| is_within(root, watched));
        if let Some(root) = roots.iter().find(|root| !is_watched(root)) {
            let place = path_from_key(root);
            set.gap =
                Some(Gap::Unmarked(format!("{}: the journal does not watch it", place.display())));
        }
        narrow(&mut set, roots);
        Answer::Changes { set: set.into(), position }
    }

    fn status(&mut self) -> Status {
        let set = self.journal.drain(DRAIN_LIMIT);
        let (gap, opaque) = (set.gap.clone(), set.opaque);
        let position = self.log.push(set).to_string();
        Status {
            process: std::process::id(),
            roots: self.roots.iter().cloned().map(ByteBuf::from).collect(),
            crosses_mounts: self.crosses_mounts,
            position,
            named: u64::try_from(self.log.named()).unwrap_or(u64::MAX),
            gap,
            opaque,
        }
    }
}

/// Leaves what is about these roots: what is below them, and paths on the way to them.
fn narrow(set: &mut ChangeSet, roots: &[ByteBuf]) {
    let is_below = |key: &Vec<u8>| roots.iter().any(|root| is_within(key, root));
    let is_above = |key: &[u8]| roots.iter().any(|root| is_within(root, key));
    let held = roots.iter().filter(|root| set.trees.iter().any(|tree| is_within(root, tree)));
    let held: Vec<Vec<u8>> = held.map(|root| root.to_vec()).collect();
    set.trees.retain(is_below);
    set.trees.extend(held);
    set.paths.retain(|path| is_below(path) || is_above(path));
}

fn lock(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed("creating", path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Refused {
            what: "a journal runs already".into(),
            hint: Some(
                "`stillpoint journal status` shows it, `stillpoint journal stop` ends it".into(),
            ),
        }),
        Err(error) => Err(failed("locking", path)(error.into())),
    }
}
