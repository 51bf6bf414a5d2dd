//! The strategy files for Bitbucket's published scripts, in the least frame that calls them as those scripts do.

use crate::support::{Place, Run, content, is_root, messages, run, skipped};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use stillpoint_testkit::bitbucket::{Behaviour, Simulator};
use stillpoint_testkit::servers::PostgresServer;

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

/// Scripts, an instance with its home, and a repository.
struct Scripts {
    place: Place,
    simulator: Simulator,
    variables: Vec<(&'static str, String)>,
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

impl Scripts {
    /// None where a program is missing that the scripts need.
    fn new(variables: &[(&'static str, &str)]) -> Option<Self> {
        if let Some(missing) = ["bash", "curl", "jq"].into_iter().find(|program| !has(program)) {
            skipped(&format!("no {missing}, which the published scripts need"));
            return None;
        }
        let place = Place::new();
        let scripts = place.path("scripts");
        fs::create_dir(&scripts).unwrap();
        for folder in ["contrib/bitbucket", "tests/bitbucket"] {
            for entry in fs::read_dir(Path::new(CRATE).join(folder)).unwrap() {
                let path = entry.unwrap().path();
                fs::copy(&path, scripts.join(path.file_name().unwrap())).unwrap();
            }
        }
        let simulator = Simulator::start(Behaviour::default()).unwrap();
        let home = place.path("home [1]");
        for name in ["shared/data/repositories/1/HEAD", "shared/data/repositories/7/HEAD", "log/a"]
        {
            let path = home.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        let store = place.path("store/repositories/a/b/9");
        fs::create_dir_all(&store).unwrap();
        fs::write(store.join("HEAD"), "nine").unwrap();
        let variables =
            variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Some(Self { place, simulator, variables })
    }

    fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.variables.retain(|(found, _)| *found != name);
        self.variables.push((name, value.into()));
    }

    fn home(&self) -> PathBuf {
        self.place.path("home [1]")
    }

    /// Runs the frame with these variables.
    fn frame(&self, arguments: &[&str]) -> Run {
        let path = |name: &str| self.place.path(name).to_str().unwrap().to_owned();
        let mut vars = format!(
            "INSTANCE_NAME=bitbucket\nBITBUCKET_URL={}\nBITBUCKET_BACKUP_USER=admin\nBITBUCKET_BACKUP_PASS=secret\n\
             BITBUCKET_HOME='{}/'\nBITBUCKET_BACKUP_ROOT='{root}'\nBITBUCKET_BACKUP_HOME='{root}/bitbucket-home/'\n\
             BITBUCKET_DATA_STORES=('{}')\nBITBUCKET_BACKUP_EXCLUDE_REPOS=(7)\n\
             STILLPOINT_REPOSITORY='{}'\nSTILLPOINT_KEY_FILE='{}'\nSTILLPOINT_CACHE_DIR='{}'\nSTILLPOINT_PROGRAM='{}'\n",
            self.simulator.url(),
            self.home().display(),
            path("store"),
            path("repository"),
            path("key"),
            path("cache"),
            env!("CARGO_BIN_EXE_stillpoint"),
            root = path("work"),
        );
        for (name, value) in &self.variables {
            vars.push_str(&format!("{name}='{value}'\n"));
        }
        fs::write(self.place.path("scripts/vars.sh"), vars).unwrap();
        let mut command = Command::new("bash");
        command.arg(self.place.path("scripts/frame.sh")).args(arguments).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("LC_ALL", "C.UTF-8");
        let ended = run(&mut command);
        assert!(!self.simulator.state().is_locked, "left locked: {ended:#?}");
        ended
    }

    /// Makes a backup under this label.
    #[track_caller]
    fn backup(&mut self, label: &str) {
        self.set("SNAPSHOT_TAG_VALUE", label);
        self.frame(&["backup"]).with_code(0).prints("Successfully completed the backup");
    }

    /// The labels of the snapshots of a kind, oldest first.
    fn labels(&self, kind: &str) -> Vec<String> {
        let list = self.place.run(["snapshots", "--json", "--tag", &format!("kind={kind}")]);
        let of = |message: &serde_json::Value| message["tags"][1].as_str().unwrap().to_owned();
        messages(&list.with_code(0).stdout).iter().map(of).collect()
    }

    /// Takes away what was saved, as a lost machine does.
    fn lose(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let lost = content(&self.home());
        fs::remove_dir_all(self.home()).unwrap();
        fs::remove_dir_all(self.place.path("store")).unwrap();
        lost
    }
}

fn names(content: &[(PathBuf, Vec<u8>)]) -> Vec<&str> {
    content.iter().map(|(path, _)| path.to_str().unwrap()).collect()
}

/// Backs up twice, restores the first, and keeps what it must.
fn disk(generation: &str, strategy: &'static str) {
    let Some(mut scripts) = Scripts::new(&[("GENERATION", generation), (strategy, "stillpoint")])
    else {
        return;
    };
    scripts.backup("bitbucket-1");
    let head = scripts.home().join("shared/data/repositories/1/HEAD");
    fs::write(&head, "changed").unwrap();
    scripts.backup("bitbucket-2");
    assert_eq!(scripts.labels("disk"), ["bitbucket-1", "bitbucket-2"]);
    assert!(scripts.labels("warm").is_empty(), "what was saved before the lock is forgotten");
    assert!(scripts.simulator.state().percentages.ends_with(&[50, 50, 100]));

    scripts
        .frame(&["restore"])
        .with_code(99)
        .prints("Available backups:\nbitbucket-2\nbitbucket-1");
    scripts.frame(&["restore", "bitbucket-9"]).with_code(99).prints("Available backups:");
    scripts.frame(&["restore", "bitbucket-1"]).with_code(99).says("existing contents");
    scripts.lose();
    scripts.frame(&["restore", "bitbucket-1"]).with_code(0);
    let found = content(&scripts.home());
    assert_eq!(
        names(&found),
        ["shared/data/repositories/1/HEAD"],
        "logs and repository 7 are left out"
    );
    assert_eq!(found[0].1, b"shared/data/repositories/1/HEAD");
    let store = scripts.place.path("store/repositories/a/b/9/HEAD");
    assert_eq!(fs::read_to_string(store).unwrap(), "nine");

    // Others' labels are left alone.
    scripts.place.run(["snapshot", "source", "--tag", "kind=disk,other-0"]).with_code(0);
    scripts.set("KEEP_BACKUPS", "2");
    scripts.backup("bitbucket-3");
    let labels = scripts.labels("disk");
    assert_eq!(labels, ["bitbucket-2", "other-0", "bitbucket-3"]);
    scripts.place.check();
}

#[test]
fn disks_of_the_third_generation() {
    disk("3", "BACKUP_DISK_TYPE");
}

#[test]
fn homes_of_the_second_generation() {
    disk("2", "BACKUP_HOME_TYPE");
}

// What fails before the lock locks nothing; what fails under it unlocks, and leaves no backup.
#[test]
fn failures() {
    let variables = [("GENERATION", "3"), ("BACKUP_DISK_TYPE", "stillpoint")];
    let Some(mut scripts) = Scripts::new(&variables) else { return };
    scripts.set("BACKUP_ZERO_DOWNTIME", "true");
    scripts.frame(&["backup"]).with_code(99).says("not atomic");
    scripts.set("BACKUP_ZERO_DOWNTIME", "false");
    scripts.set("STILLPOINT_KEY_FILE", "/no/such/key");
    scripts.frame(&["backup"]).with_code(99).says("cannot be used");
    assert!(scripts.simulator.state().locked.is_empty());
    let key = scripts.place.path("key").to_str().unwrap().to_owned();
    scripts.set("STILLPOINT_KEY_FILE", key);
    scripts.set("BACKUP_DATABASE_TYPE", "broken");
    let broken = "function prepare_backup_db { no_op; }\nfunction backup_db { return 7; }\n";
    fs::write(scripts.place.path("scripts/database-broken.sh"), broken).unwrap();
    scripts.set("SNAPSHOT_TAG_VALUE", "bitbucket-1");
    scripts.frame(&["backup"]).with_code(1).says("Backing up failed: db");
    assert!(scripts.labels("disk").is_empty(), "the completed part is cleaned up");
    assert_eq!(scripts.simulator.state().locked.len(), 1);
    scripts.set("BACKUP_DATABASE_TYPE", "");
    unreadable(&mut scripts);
    scripts.frame(&["promote_home"]).with_code(99).says("not available");
}

/// A file that cannot be read fails the backup.
fn unreadable(scripts: &mut Scripts) {
    if is_root() {
        skipped("the superuser can read every file");
        return;
    }
    use std::os::unix::fs::PermissionsExt as _;
    let file = scripts.home().join("shared/secret");
    fs::write(&file, "x").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o0)).unwrap();
    scripts.frame(&["backup"]).with_code(1).says("failed with status 3");
    assert!(scripts.labels("disk").is_empty());
}

// Working copies of another strategy go through the repository and back.
#[test]
fn archives() {
    let variables =
        [("GENERATION", "3"), ("BACKUP_DISK_TYPE", "copy"), ("BACKUP_ARCHIVE_TYPE", "stillpoint")];
    let Some(mut scripts) = Scripts::new(&variables) else { return };
    scripts.set("KEEP_BACKUPS", "1");
    scripts.backup("bitbucket-1");
    scripts.backup("bitbucket-2");
    assert_eq!(scripts.labels("archive"), ["bitbucket-2"]);
    scripts.frame(&["restore"]).with_code(99).prints("bitbucket-2");
    let lost = scripts.lose();
    fs::remove_dir_all(scripts.place.path("work")).unwrap();
    scripts.frame(&["restore", "bitbucket-2"]).with_code(0);
    assert_eq!(content(&scripts.home()), lost);
}

// A PostgreSQL database goes into the repository and comes back as a new one; an existing one is refused.
#[test]
fn databases() {
    let variables = [
        ("GENERATION", "3"),
        ("BACKUP_DISK_TYPE", "stillpoint"),
        ("BACKUP_DATABASE_TYPE", "stillpoint"),
        ("BITBUCKET_DB", "bit bucket"),
        ("POSTGRES_USERNAME", "postgres"),
    ];
    let Some(mut scripts) = Scripts::new(&variables) else { return };
    let Some(server) = PostgresServer::start() else { return };
    let socket = server.socket().to_str().unwrap().to_owned();
    let psql = |database: &str, statement: &str| {
        let mut psql = Command::new("psql");
        psql.args([
            "-X",
            "-q",
            "-t",
            "-A",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-h",
            &socket,
        ]);
        run(psql.args(["-d", database, "-c", statement])).with_code(0).stdout
    };
    psql("postgres", "create database \"bit bucket\"");
    psql(
        "bit bucket",
        "create table t as select n, md5(n::text) as m from generate_series(1, 500) n",
    );
    let digest = "select count(*), md5(string_agg(m, ',' order by n)) from t";
    let before = psql("bit bucket", digest);
    scripts.set("POSTGRES_HOST", socket.clone());
    scripts.backup("bitbucket-1");
    scripts.lose();
    scripts.frame(&["restore", "bitbucket-1"]).with_code(99).says("existing database");
    psql("postgres", "drop database \"bit bucket\"");
    scripts.frame(&["backup"]).with_code(99).says("There is no database");
    scripts.lose_again();
    scripts.frame(&["restore", "bitbucket-1"]).with_code(0);
    assert_eq!(psql("bit bucket", digest), before);
}

impl Scripts {
    /// A restore that was refused has made the empty directories already.
    fn lose_again(&self) {
        for place in [self.home(), self.place.path("store")] {
            assert!(content(&place).is_empty());
        }
    }
}
