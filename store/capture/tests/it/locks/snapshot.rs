//! Snapshots: real ones of Btrfs, and by commands; under the lock of another adapter.

use super::mounted::{Mounted, run};
use super::place::{LONG, Place, keeper, silent};
use super::suite::{Fixture, suite};
use std::fs;
use std::path::{Path, PathBuf};
use stillpoint_capture::Error;
use stillpoint_capture::lock::none::NoLock;
use stillpoint_capture::lock::snapshot::{Snapshot, Snapshots};
use stillpoint_capture::lock::{Keeper, Level, LockAdapter, wait_until_drained};
use stillpoint_testkit::bitbucket::Behaviour;

struct Snapshotted {
    source: PathBuf,
    state: PathBuf,
    snapshots: Snapshots,
}

impl Fixture for Snapshotted {
    fn adapter(&self, keeper: Keeper) -> Box<dyn LockAdapter> {
        let (source, snapshots) = (self.source.clone(), self.snapshots.clone());
        Box::new(Snapshot::new(Box::new(NoLock), source, snapshots, keeper, silent()))
    }

    fn state_dir(&self) -> &Path {
        &self.state
    }

    fn keeper(&self) -> Keeper {
        keeper(&self.state)
    }

    // A snapshot outlives the unlock.
    fn is_locked(&self) -> Option<bool> {
        None
    }

    fn excludes_others(&self) -> bool {
        false
    }

    fn has_limit(&self) -> bool {
        false
    }
}

/// A subvolume with a directory in it.
fn btrfs() -> Option<(Mounted, PathBuf)> {
    let mounted = Mounted::new(&["mkfs.btrfs", "-q", "-f"])?;
    let subvolume = mounted.dir.join("volume");
    run(&["btrfs", "subvolume", "create", subvolume.to_str().unwrap()]).unwrap();
    let home = subvolume.join("srv/home");
    fs::create_dir_all(&home).unwrap();
    fs::write(home.join("file"), "before").unwrap();
    Some((mounted, home))
}

/// The names of the subvolumes that are there.
fn subvolumes(mounted: &Mounted) -> usize {
    let list = run(&["btrfs", "subvolume", "list", mounted.dir.to_str().unwrap()]).unwrap();
    list.lines().count()
}

// The suite; afterwards no snapshot is left, not even after both processes were killed.
#[test]
fn suite_of_adapters_on_btrfs() {
    let Some((mounted, source)) = btrfs() else { return };
    let state = mounted.outside().to_owned();
    let snapshots = Snapshots::Btrfs { folder: None };
    suite(&Snapshotted { source, state, snapshots });
    assert_eq!(subvolumes(&mounted), 1);
}

// The application's lock is given back while the snapshot stays; it shows the moment of `hold`; a snapshot that vanishes is
// noticed before anything is committed.
#[test]
fn views_outlive_the_lock() {
    let Some((mounted, home)) = btrfs() else { return };
    let place = Place::new(Behaviour::default());
    let inner = Box::new(place.adapter());
    let folder = Some(mounted.dir.clone());
    let snapshots = Snapshots::Btrfs { folder };
    let mut adapter = Snapshot::new(inner, home.clone(), snapshots, place.keeper(), silent());
    adapter.rehearse().unwrap();
    assert_eq!(adapter.level(), Level::Application);
    adapter.lock().unwrap();
    wait_until_drained(&mut adapter, LONG, &|| false).unwrap();
    assert!(adapter.complete().is_err(), "nothing was held");
    let views = adapter.hold().unwrap();
    let [view] = views.as_slice() else { panic!("{views:?}") };
    assert_eq!(view.of, home);
    adapter.complete().unwrap();
    adapter.unlock().unwrap();
    assert!(!place.simulator.state().is_locked);
    fs::write(home.join("file"), "after").unwrap();
    assert_eq!(fs::read_to_string(view.at.join("file")).unwrap(), "before");
    assert!(fs::write(view.at.join("file"), "").is_err(), "it is read-only");
    adapter.dismiss().unwrap();
    assert_eq!(subvolumes(&mounted), 1);

    adapter.rehearse().unwrap();
    adapter.lock().unwrap();
    wait_until_drained(&mut adapter, LONG, &|| false).unwrap();
    adapter.hold().unwrap();
    adapter.complete().unwrap();
    adapter.unlock().unwrap();
    let records = place.keeper().records().unwrap();
    let pid = records[0].record.as_ref().unwrap().pid;
    drop(records);
    super::place::signal(pid, rustix::process::Signal::TERM);
    super::place::wait_for_watchdogs(place.dir.path());
    assert_eq!(subvolumes(&mounted), 1);
    assert!(matches!(adapter.dismiss().unwrap_err(), Error::Lost(_)));
}

// A subvolume's own root is a source, too, and its snapshots are left out of what is saved; other file systems are refused.
#[test]
fn sources() {
    let Some((mounted, _)) = btrfs() else { return };
    let state = mounted.outside().to_owned();
    let of = |source: PathBuf| Snapshotted {
        source,
        state: state.clone(),
        snapshots: Snapshots::Btrfs { folder: None },
    };
    let root = of(mounted.dir.join("volume"));
    let mut adapter = root.adapter(root.keeper());
    let excludes = adapter.rehearse().unwrap().excludes;
    assert_eq!(excludes, ["/.stillpoint-snapshot-*"]);
    adapter.lock().unwrap();
    let views = adapter.hold().unwrap();
    assert!(views[0].at.join("srv/home/file").exists(), "{views:?}");
    adapter.unlock().unwrap();
    adapter.dismiss().unwrap();
    let elsewhere = of(state.clone());
    let error = elsewhere.adapter(elsewhere.keeper()).rehearse().unwrap_err();
    assert!(error.to_string().contains("not on Btrfs"), "{error}");
}

fn commands(dir: &Path, create: &str) -> Snapshotted {
    let shell =
        |script: &str| ["sh", "-c", script, dir.to_str().unwrap()].map(str::to_owned).to_vec();
    let release = "rm -rf \"$0/$STILLPOINT_SNAPSHOT_NAME\"";
    let snapshots =
        Snapshots::Commands { create: shell(create), release: shell(release), limit: LONG };
    fs::create_dir_all(dir.join("home")).unwrap();
    Snapshotted { source: dir.join("home"), state: dir.to_owned(), snapshots }
}

// Snapshots by commands: a copy stands in for one.
#[test]
fn suite_of_adapters_by_commands() {
    let dir = tempfile::tempdir().unwrap();
    let name = "\"$0/$STILLPOINT_SNAPSHOT_NAME\"";
    suite(&commands(dir.path(), &format!("cp -r \"$0/home\" {name} && echo {name}")));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the home and the state are left");
}

// A command that prints no directory has failed, and what it made is removed.
#[test]
fn commands_that_fail() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = commands(dir.path(), "mkdir \"$0/$STILLPOINT_SNAPSHOT_NAME\"; echo made");
    let mut adapter = fixture.adapter(fixture.keeper());
    adapter.rehearse().unwrap();
    adapter.lock().unwrap();
    let error = adapter.hold().unwrap_err().to_string();
    assert!(error.contains("absolute directory"), "{error}");
    adapter.unlock().unwrap();
    let _ = adapter.dismiss();
    drop(adapter);
    super::place::wait_for_watchdogs(dir.path());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}
