//! A disk on which the real binary works, and what must hold of it after any crash: what was acknowledged restores, a check
//! is clean, and the next command works without any step by hand.

use crate::strace;
use crate::support::{Place, content, messages, noise, run, text};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use stillpoint_archive::listing::{Depth, list};
use stillpoint_archive::{BackupOptions, Silent, backup, root_key, write_content};
use stillpoint_store::backend::{Backend, LocalBackend};
use stillpoint_store::check::CheckOptions;
use stillpoint_store::record::Secret;
use stillpoint_store::repository::CreateOptions;
use stillpoint_store::{Env, Error, OpenOptions, Repository, Snapshot, SystemEnv};
use stillpoint_testkit::power::{Files, Recording, STRACE_CALLS, parse};

/// Files of a source by their path below it.
pub type Tree = BTreeMap<PathBuf, Vec<u8>>;

/// The place with its disk (repository and cache) and what was acknowledged so far.
pub struct Lab {
    pub place: Place,
    /// Snapshots that are live, by id.
    pub live: BTreeMap<String, Tree>,
    /// Files that hold the secrets which open the repository.
    pub keys: Vec<PathBuf>,
}

/// What is known to be true.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct State {
    /// None: there is no repository yet.
    pub live: Option<BTreeMap<String, Tree>>,
    pub keys: Vec<PathBuf>,
}

/// What was true before a command, and what must be true once it has said that it is done. Until then anything in
/// between may be.
#[derive(Clone, Default)]
pub struct Expected {
    pub before: State,
    pub after: State,
    /// The files of a snapshot of which nobody may have been told.
    pub perhaps: Option<Tree>,
}

impl Lab {
    pub fn new() -> Self {
        let place = Place::empty_in_memory();
        fs::create_dir(place.path("disk")).unwrap();
        let keys = vec![place.path("key")];
        Self { place, live: BTreeMap::new(), keys }
    }

    /// With a repository.
    pub fn with_repository() -> Self {
        let lab = Self::new();
        lab.done(&["init"]);
        lab
    }

    /// The command for the disk at `disk`. It works from the root folder: every path that it uses is absolute.
    pub fn stillpoint(&self, disk: &Path, arguments: &[&str]) -> Command {
        let mut command = self.place.stillpoint(arguments);
        command
            .env("STILLPOINT_REPOSITORY", disk.join("repository"))
            .env("STILLPOINT_CACHE_DIR", disk.join("cache"))
            .env("STILLPOINT_KEY_FILE", self.keys.last().expect("a key"))
            .current_dir("/");
        command
    }

    pub fn disk(&self) -> PathBuf {
        self.place.path("disk")
    }

    pub fn source(&self) -> String {
        self.place.source().display().to_string()
    }

    /// Replaces the source by these files, each with its seed and length.
    pub fn fill_source(&self, files: &[(&str, u64, usize)]) -> Tree {
        fs::remove_dir_all(self.place.source()).unwrap();
        fs::create_dir(self.place.source()).unwrap();
        for (name, seed, len) in files {
            self.place.file(name, &noise(*seed, *len));
        }
        content(&self.place.source()).into_iter().collect()
    }

    pub fn state(&self) -> State {
        State { live: Some(self.live.clone()), keys: self.keys.clone() }
    }

    /// Runs a command on the disk, which must succeed, and gives what it printed.
    pub fn done(&self, arguments: &[&str]) -> Vec<serde_json::Value> {
        let mut command = self.stillpoint(&self.disk(), arguments);
        messages(&run(command.arg("--json")).with_code(0).stdout)
    }

    /// Takes a snapshot of these files; gives its id.
    pub fn take(&mut self, files: &[(&str, u64, usize)]) -> String {
        let tree = self.fill_source(files);
        let said = self.done(&["snapshot", &self.source()]);
        let id = text(said.last().unwrap(), "snapshot_id");
        self.live.insert(id.clone(), tree);
        id
    }

    /// Runs a command below strace; gives what it printed and what it did to the disk.
    pub fn record(&self, arguments: &[&str]) -> (Vec<serde_json::Value>, Recording) {
        let (disk, trace) = (self.disk(), self.place.path("trace"));
        let start = Files::load(&disk).unwrap();
        let mut command = self.stillpoint(&disk, arguments);
        command.arg("--json");
        let options = ["-xx", "-s", "67108864", "-e", STRACE_CALLS];
        let run = run(&mut strace::around(&command, &trace, &options)).with_code(0);
        let trace = fs::read_to_string(trace).unwrap();
        let recording = parse(&trace, &disk, start);
        let said = messages(&run.stdout);
        assert!(!said.is_empty(), "{run:#?}");
        (said, recording)
    }

    /// Lays out a disk beside the lab's own.
    pub fn lay_out(&self, files: &Files) -> PathBuf {
        let at = self.place.path("image");
        if at.exists() {
            fs::remove_dir_all(&at).unwrap();
        }
        files.store(&at).unwrap();
        at
    }
}

/// The message that says that a command is done. A last line that was cut short does not count.
pub fn last_word(stdout: &str) -> Option<serde_json::Value> {
    let (complete, _) = stdout.rsplit_once('\n')?;
    let last: serde_json::Value = serde_json::from_str(complete.lines().last()?).unwrap();
    let done = ["summary", "initialized", "key_added", "key_rotated"];
    let is_done = done.iter().any(|word| last["message_type"] == *word);
    is_done.then_some(last)
}

/// The library's view of a repository, without any cache.
pub fn open(repository: &Path, key: &Path) -> Result<Arc<Repository>, Error> {
    let backend: Arc<dyn Backend> = Arc::new(LocalBackend::new(repository));
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    let secret = Secret::key_file(&fs::read(key).expect("the key file is there"));
    Repository::open(backend, env, &secret, OpenOptions::in_memory())
}

/// A new repository where an earlier attempt was cut short.
fn create(repository: &Path, key: &Path) -> Result<Arc<Repository>, Error> {
    let backend: Arc<dyn Backend> = Arc::new(LocalBackend::new(repository));
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    let secret = Secret::key_file(&fs::read(key).expect("the key file is there"));
    let options = CreateOptions::default();
    Repository::create(backend, env, &secret, &options, OpenOptions::in_memory())
}

/// The files of a snapshot below one of its paths.
pub fn read_back(
    repository: &Arc<Repository>,
    snapshot: &Snapshot,
    source: &Path,
) -> Result<Tree, String> {
    let told = |error: Error| error.to_string();
    let reader = repository.reader().map_err(told)?;
    let key = root_key(source).map_err(told)?;
    let mut tree = Tree::new();
    list(&reader, snapshot.record.root, &key, Depth::All, &mut |key, entry| {
        if !entry.is_directory() {
            let path = Path::new("/").join(stillpoint_archive::path::path_from_key(key));
            let name = path.strip_prefix(source).expect("it lies below the source").to_owned();
            let mut bytes = Vec::new();
            write_content(&reader, entry, &mut bytes)?;
            tree.insert(name, bytes);
        }
        Ok(())
    })
    .map_err(told)?;
    Ok(tree)
}

/// What must hold, through the library: it opens, everything acknowledged is there and the same, a full check finds
/// nothing, a new snapshot can be taken and read back. Gives the snapshots that were there before the new one.
pub fn verify(
    disk: &Path,
    source: &Path,
    expected: &Expected,
    was_said: bool,
) -> Result<BTreeMap<String, Tree>, String> {
    let told = |error: Error| error.to_string();
    let repository = disk.join("repository");
    let repository = match working_key(&repository, expected, was_said)? {
        Some(key) => open(&repository, &key).map_err(told)?,
        None => create(&repository, &expected.after.keys[0]).map_err(told)?,
    };
    let found = verify_snapshots(&repository, source, expected, was_said)?;
    let whole = || -> Result<(), String> {
        let report = repository.check(CheckOptions::read_all(), &|_, _| {}).map_err(told)?;
        match report.findings.first() {
            None => Ok(()),
            Some(finding) => Err(format!("the check finds {finding:?}")),
        }
    };
    whole()?;
    let options = BackupOptions { roots: vec![source.to_owned()], ..BackupOptions::default() };
    let report = backup(&repository, options, &Silent).map_err(told)?;
    let id = report.snapshot.expect("nothing lets it be left out").to_string();
    let snapshot = repository.find_snapshot(&id).map_err(told)?;
    let now: Tree = content(source).into_iter().collect();
    if read_back(&repository, &snapshot, source)? != now {
        return Err("a new snapshot restores to something else".into());
    }
    repository.forget(&[snapshot.id]).map_err(told)?;
    whole()?;
    Ok(found)
}

/// Everything that must be listed is, nothing is that must not be, and all of it restores to what it was.
fn verify_snapshots(
    repository: &Arc<Repository>,
    source: &Path,
    expected: &Expected,
    was_said: bool,
) -> Result<BTreeMap<String, Tree>, String> {
    let no_snapshots = BTreeMap::new();
    let before = expected.before.live.as_ref().unwrap_or(&no_snapshots);
    let after = expected.after.live.as_ref().unwrap_or(&no_snapshots);
    let mut found = BTreeMap::new();
    for snapshot in repository.snapshots().map_err(|error| error.to_string())? {
        let id = snapshot.id.to_string();
        let known = match was_said {
            true => after.get(&id),
            false => before.get(&id).or(after.get(&id)).or(expected.perhaps.as_ref()),
        };
        let Some(known) = known else { return Err(format!("snapshot {id} came back")) };
        let tree = read_back(repository, &snapshot, source)?;
        if tree != *known {
            return Err(format!("snapshot {id} restores to something else"));
        }
        found.insert(id, tree);
    }
    let must: Vec<&String> = match was_said {
        true => after.keys().collect(),
        false => before.keys().filter(|id| after.contains_key(*id)).collect(),
    };
    match must.into_iter().find(|id| !found.contains_key(*id)) {
        Some(lost) => Err(format!("snapshot {lost} is lost")),
        None => Ok(found),
    }
}

/// The keys that open the repository now.
///
/// # Panics
/// When it cannot be opened for another reason than a wrong key or its absence.
pub fn working_keys(repository: &Path, expected: &Expected) -> Vec<PathBuf> {
    find_keys(repository, expected).unwrap().unwrap_or_default()
}

/// The keys that open the repository, in the order of the expected ones; None where there is no repository.
fn find_keys(repository: &Path, expected: &Expected) -> Result<Option<Vec<PathBuf>>, String> {
    let mut working = Vec::new();
    for key in expected.before.keys.iter().chain(&expected.after.keys) {
        match open(repository, key) {
            Ok(_) if working.contains(key) => {}
            Ok(_) => working.push(key.clone()),
            Err(Error::WrongSecret | Error::StaleSecret { .. }) => {}
            Err(Error::NoRepository { .. }) => return Ok(None),
            Err(error) => return Err(format!("it does not open: {error}")),
        }
    }
    Ok(Some(working))
}

/// A key that opens the repository; None where there is no repository yet, and none was promised.
fn working_key(
    repository: &Path,
    expected: &Expected,
    was_said: bool,
) -> Result<Option<PathBuf>, String> {
    let Some(working) = find_keys(repository, expected)? else {
        return match was_said || expected.before.live.is_some() {
            true => Err("the repository is gone".into()),
            false => Ok(None),
        };
    };
    let sorted = |keys: &[PathBuf]| keys.iter().cloned().collect::<BTreeSet<_>>();
    if was_said && sorted(&working) != sorted(&expected.after.keys) {
        return Err(format!("{working:?} open it, not {:?}", expected.after.keys));
    }
    working.last().cloned().map(Some).ok_or_else(|| "no key opens it".into())
}

/// What must hold for the command itself, with the cache that the crash left: no step by hand, a snapshot, a clean check,
/// and no false alarm.
pub fn verify_command(lab: &Lab, disk: &Path, expected: &Expected, was_said: bool) {
    let repository = disk.join("repository");
    let key = working_key(&repository, expected, was_said).unwrap();
    let stillpoint = |arguments: &[&str]| {
        let mut command = lab.stillpoint(disk, arguments);
        command.env("STILLPOINT_KEY_FILE", key.as_ref().unwrap_or(&lab.place.path("key")));
        run(&mut command)
    };
    if key.is_none() {
        stillpoint(&["init"]).with_code(0);
    }
    let source = lab.source();
    let taken = stillpoint(&["snapshot", &source, "--json"]).with_code(0);
    assert!(!taken.stderr.contains("older than this host"), "{taken:#?}");
    let id = text(messages(&taken.stdout).last().unwrap(), "snapshot_id");
    stillpoint(&["check", "--read-data"]).with_code(0);
    let target = lab.place.path("restored");
    if target.exists() {
        fs::remove_dir_all(&target).unwrap();
    }
    let target_text = target.display().to_string();
    let spec = format!("{id}:{source}");
    stillpoint(&["restore", &spec, "--target", &target_text]).with_code(0);
    assert!(content(&target) == content(Path::new(&source)), "the new snapshot differs");
}
