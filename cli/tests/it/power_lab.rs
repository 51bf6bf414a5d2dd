//! A disk that is recorded while the real binary works on it, and what must hold in every image of a power cut.

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
use stillpoint_store::{Env, OpenOptions, Repository, Snapshot, SystemEnv};
use stillpoint_testkit::power::{Files, PowerImage, Recording, STRACE_CALLS, parse};

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

/// What was true before a command, and what must be true once it has said that it is done.
#[derive(Clone, Default)]
pub struct State {
    /// None: there is no repository yet.
    pub live: Option<BTreeMap<String, Tree>>,
    pub keys: Vec<PathBuf>,
}

/// A recorded command.
pub struct Recorded {
    pub name: &'static str,
    pub recording: Recording,
    pub before: State,
    pub after: State,
}

impl Lab {
    pub fn new() -> Self {
        let place = Place::empty_in_memory();
        fs::create_dir(place.path("disk")).unwrap();
        let keys = vec![place.path("key")];
        Self { place, live: BTreeMap::new(), keys }
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

    /// Where an image is laid out.
    pub fn lay_out(&self, image: &PowerImage) -> PathBuf {
        let at = self.place.path("image");
        if at.exists() {
            fs::remove_dir_all(&at).unwrap();
        }
        image.files.store(&at).unwrap();
        at
    }
}

/// The library's view of a repository, without any cache.
pub fn open(repository: &Path, key: &Path) -> Result<Arc<Repository>, stillpoint_store::Error> {
    let backend: Arc<dyn Backend> = Arc::new(LocalBackend::new(repository));
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    let secret = Secret::key_file(&fs::read(key).expect("the key file is there"));
    Repository::open(backend, env, &secret, OpenOptions::in_memory())
}

/// A new repository where an earlier attempt was cut short.
fn create(repository: &Path, key: &Path) -> Result<Arc<Repository>, stillpoint_store::Error> {
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
    let told = |error: stillpoint_store::Error| error.to_string();
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

/// What must hold in every image, through the library: opens, everything acknowledged is there and the same, a full check
/// finds nothing, a new snapshot can be taken and read back.
pub fn verify(
    disk: &Path,
    source: &Path,
    recorded: &Recorded,
    was_said: bool,
) -> Result<(), String> {
    let told = |error: stillpoint_store::Error| error.to_string();
    let repository = disk.join("repository");
    let repository = match working_key(&repository, recorded, was_said)? {
        Some(key) => open(&repository, &key).map_err(told)?,
        None => create(&repository, &recorded.after.keys[0]).map_err(told)?,
    };
    let listed = repository.snapshots().map_err(told)?;
    verify_list(recorded, was_said, listed.iter().map(|snapshot| snapshot.id.to_string()))?;
    for snapshot in &listed {
        let tree = read_back(&repository, snapshot, source)?;
        let id = snapshot.id.to_string();
        let known = [&recorded.before, &recorded.after];
        let known = known.iter().find_map(|state| state.live.as_ref()?.get(&id));
        if known.is_some_and(|known| *known != tree) {
            return Err(format!("snapshot {id} restores to something else"));
        }
    }
    let whole = || -> Result<(), String> {
        let options = CheckOptions { read_data: true, ..CheckOptions::default() };
        let report = repository.check(options, &|_, _| {}).map_err(told)?;
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
    whole()
}

/// Everything that must be listed is, and nothing that must not be.
fn verify_list(
    recorded: &Recorded,
    was_said: bool,
    listed: impl Iterator<Item = String>,
) -> Result<(), String> {
    let listed: BTreeSet<String> = listed.collect();
    let ids = |state: &State| -> BTreeSet<String> {
        state.live.iter().flat_map(BTreeMap::keys).cloned().collect()
    };
    let (before, after) = (ids(&recorded.before), ids(&recorded.after));
    let (must, may): (BTreeSet<_>, BTreeSet<_>) = match was_said {
        true => (after.clone(), after),
        // A snapshot that nobody was told of may be there, too, and whole.
        false => (&before & &after, &before | &after),
    };
    if let Some(lost) = must.difference(&listed).next() {
        return Err(format!("snapshot {lost} is lost"));
    }
    match listed.difference(&may).next() {
        Some(more) => Err(format!("snapshot {more} came back")),
        None => Ok(()),
    }
}

/// A key that opens the repository in this image; None where there is no repository yet, and none was promised.
fn working_key(
    repository: &Path,
    recorded: &Recorded,
    was_said: bool,
) -> Result<Option<PathBuf>, String> {
    let may_be_absent = !was_said && recorded.before.live.is_none();
    let opens = |key: &&PathBuf| match open(repository, key) {
        Ok(_) => Ok(true),
        Err(stillpoint_store::Error::WrongSecret) => Ok(false),
        Err(error) => Err(error),
    };
    let both = recorded.before.keys.iter().chain(&recorded.after.keys);
    let mut working = BTreeSet::new();
    for key in both {
        match opens(&key) {
            Ok(true) => working.insert(key.clone()),
            Ok(false) => continue,
            Err(stillpoint_store::Error::NoRepository { .. }) if may_be_absent => return Ok(None),
            Err(error) => return Err(format!("it does not open: {error}")),
        };
    }
    let after: BTreeSet<PathBuf> = recorded.after.keys.iter().cloned().collect();
    if was_said && working != after {
        return Err(format!("{working:?} open it, not {after:?}"));
    }
    match working.pop_last() {
        Some(key) => Ok(Some(key)),
        None => Err("no key opens it".into()),
    }
}

/// What must hold in an image for the command itself, with the cache that the power cut left: no step by hand, a snapshot,
/// a clean check, and no false alarm.
pub fn verify_command(lab: &Lab, disk: &Path, recorded: &Recorded, was_said: bool) {
    let repository = disk.join("repository");
    let key = working_key(&repository, recorded, was_said).unwrap();
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
