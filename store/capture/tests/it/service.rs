//! The journal as a service, asked over its socket.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use stillpoint_archive::path::{is_within, key_from_path};
use stillpoint_capture::journal::service::{Client, Report, Service};
use stillpoint_capture::journal::{Gap, Options, Position};
use stillpoint_capture::{Error, Result};

struct Place {
    temp: tempfile::TempDir,
    root: PathBuf,
}

impl Place {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        Self { temp, root }
    }

    fn state(&self) -> PathBuf {
        self.temp.path().join("state")
    }

    fn start(&self, name: &str) -> Result<Service> {
        let roots = [self.root.clone()];
        Service::start(&self.state(), name.into(), &roots, &Options::default())
    }

    /// A service that runs; None where there can be no journal.
    fn run(&self, name: &str) -> Option<JoinHandle<Result<()>>> {
        match self.start(name) {
            Ok(service) => Some(std::thread::spawn(move || service.run(&|what| panic!("{what}")))),
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }

    fn client(&self) -> Client {
        Client::connect(&self.state()).unwrap().unwrap()
    }

    fn ask(&self, since: Option<&Position>) -> Report {
        self.client().changes(since, &[key(&self.root)]).unwrap()
    }

    fn stop(&self, service: JoinHandle<Result<()>>) {
        self.client().stop().unwrap();
        service.join().unwrap().unwrap();
        assert!(Client::connect(&self.state()).unwrap().is_none());
    }
}

fn key(path: &Path) -> Vec<u8> {
    key_from_path(path).unwrap()
}

/// The paths below the root that a report names.
fn named(place: &Place, report: &Report) -> Vec<Vec<u8>> {
    assert_eq!(report.changes.gap, None);
    let below = |path: &&Vec<u8>| is_within(path, &key(&place.root));
    report.changes.paths.iter().filter(below).cloned().collect()
}

/// Each snapshot gets what changed since its own position, however many others asked in between.
#[test]
fn positions() {
    let place = Place::new();
    let Some(service) = place.run("first") else { return };
    let start = place.ask(None);
    assert_eq!(start.changes.gap, Some(Gap::Interrupted));
    let (a, b) = (place.root.join("a"), place.root.join("sub/b"));
    fs::write(&a, b"1").unwrap();
    let one = place.ask(Some(&start.position));
    assert_eq!(named(&place, &one), [key(&place.root), key(&a)]);
    fs::write(&b, b"1").unwrap();
    let two = place.ask(Some(&one.position));
    assert_eq!(named(&place, &two), [key(&place.root.join("sub")), key(&b)]);
    let both = place.ask(Some(&start.position));
    assert_eq!(named(&place, &both).len(), 4);
    assert!(named(&place, &place.ask(Some(&two.position))).is_empty());
    place.stop(service);
}

/// After a restart a position means nothing any more, and the service says so.
#[test]
fn restarts_are_gaps() {
    let place = Place::new();
    let Some(service) = place.run("first") else { return };
    let position = place.ask(None).position;
    place.stop(service);
    fs::write(place.root.join("unseen"), b"").unwrap();
    let service = place.run("second").unwrap();
    let report = place.ask(Some(&position));
    assert_eq!(report.changes.gap, Some(Gap::Interrupted));
    assert!(named(&place, &place.ask(Some(&report.position))).is_empty());
    place.stop(service);
}

/// Answers are about the roots that were asked for; one that nobody watches is a gap.
#[test]
fn roots_of_a_question() {
    let place = Place::new();
    let Some(service) = place.run("first") else { return };
    let start = place.ask(None).position;
    let (inside, beside) = (place.root.join("sub/x"), place.root.join("y"));
    fs::write(&inside, b"").unwrap();
    fs::write(&beside, b"").unwrap();
    let ask = |root: &Path| place.client().changes(Some(&start), &[key(root)]).unwrap().changes;
    let sub = ask(&place.root.join("sub"));
    assert!(sub.names(&key(&inside)) && !sub.names(&key(&beside)), "{sub:?}");
    // The directory above changed, too, and is in the manifest.
    assert!(sub.names(&key(&place.root)) && sub.gap.is_none());
    fs::rename(place.root.join("sub"), place.root.join("moved")).unwrap();
    fs::rename(place.root.join("moved"), place.root.join("sub")).unwrap();
    assert_eq!(ask(&place.root.join("sub/x")).trees.into_iter().next(), Some(key(&inside)));
    assert!(matches!(ask(place.temp.path()).gap, Some(Gap::Unmarked(_))));
    place.stop(service);
}

/// There is one journal for each state directory; a socket that was left behind is no journal.
#[test]
fn one_at_a_time() {
    let place = Place::new();
    let Some(service) = place.run("first") else { return };
    let status = place.client().status().unwrap();
    assert_eq!(status.roots, [serde_bytes::ByteBuf::from(key(&place.root))]);
    assert_eq!((status.process, status.gap), (std::process::id(), None));
    match place.start("second") {
        Err(Error::Refused { what, hint }) => assert!(what.contains("already") && hint.is_some()),
        other => panic!("{other:?}"),
    }
    place.stop(service);
    // As after a kill: a socket without anybody behind it.
    drop(std::os::unix::net::UnixListener::bind(place.state().join("journal/socket")).unwrap());
    assert!(Client::connect(&place.state()).unwrap().is_none());
    let service = place.run("third").unwrap();
    place.stop(service);
}
