//! A process that writes to a local repository is killed at any moment: what it acknowledged is there and whole, and
//! nothing else is visible.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use stillpoint_store::backend::{Backend, LocalBackend, Swap, put, read_whole};
use stillpoint_store::{ObjectKind, ObjectName, PackId};
use stillpoint_testkit::{Random, with_label};

const DIR_VARIABLE: &str = "STILLPOINT_TEST_KILLED_DIR";
const KILLS: u64 = 15;
const OBJECT_BYTES_MAX: usize = 300_000;

fn name(number: u64) -> ObjectName {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&Random::new(number).next_u64().to_be_bytes());
    id[8..].copy_from_slice(&number.to_be_bytes());
    ObjectName::Pack(PackId::from_bytes(id))
}

fn bytes(number: u64) -> Vec<u8> {
    let mut random = Random::new(number);
    let len = random.index(OBJECT_BYTES_MAX);
    random.bytes(len)
}

fn head(backend: &dyn Backend) -> u64 {
    let head = backend.read_head().unwrap().unwrap_or_else(|| b"0".to_vec());
    String::from_utf8(head).unwrap().parse().unwrap()
}

/// Writes object after object, each followed by a head that names it, and says so on stdout.
fn write_until_killed(dir: &Path) -> ! {
    let backend = LocalBackend::new(dir);
    let mut last = head(&backend);
    loop {
        let expected = (last > 0).then(|| last.to_string().into_bytes());
        let mut next = last + 1;
        // A name is never used again: numbers whose object was written without a head are skipped.
        while backend.size_bytes(&name(next)).unwrap().is_some() {
            next += 1;
        }
        put(&backend, &name(next), &bytes(next)).unwrap();
        let swap = backend.swap_head(expected.as_deref(), next.to_string().as_bytes()).unwrap();
        assert_eq!(swap, Swap::Done);
        println!("{next}");
        last = next;
    }
}

#[test]
fn acknowledged_objects_survive_kills() {
    if let Some(dir) = std::env::var_os(DIR_VARIABLE) {
        write_until_killed(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    LocalBackend::new(dir.path()).initialise().unwrap();
    let mut random = Random::new(11);
    let mut acknowledged = Vec::new();
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::acknowledged_objects_survive_kills", "--nocapture"])
            .env(DIR_VARIABLE, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut numbers =
            output.lines().map_while(Result::ok).filter_map(|line| line.parse::<u64>().ok());
        acknowledged.extend(numbers.by_ref().take(1 + random.index(6)));
        (0..random.below(3_000_000)).for_each(|_| std::hint::spin_loop());
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(numbers);
        with_label(format_args!("kill {kill}"), || check(dir.path(), &acknowledged));
    }
    assert!(acknowledged.len() as u64 >= KILLS);
    // The next writer sweeps what the killed ones left behind.
    let backend = LocalBackend::new(dir.path());
    put(&backend, &ObjectName::Config, b"last").unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

fn check(dir: &Path, acknowledged: &[u64]) {
    let backend = LocalBackend::new(dir);
    let head = head(&backend);
    assert!(acknowledged.last().is_none_or(|last| head >= *last), "an acknowledged head stays");
    let mut listed: Vec<ObjectName> = Vec::new();
    for (object, size) in backend.list(ObjectKind::Pack).unwrap() {
        let ObjectName::Pack(id) = object else { panic!("{object} is no pack") };
        let number = u64::from_be_bytes(id.as_bytes()[8..].try_into().unwrap());
        assert_eq!(size, bytes(number).len() as u64, "{object} is visible only when it is whole");
        listed.push(object);
    }
    for number in acknowledged {
        assert!(listed.contains(&name(*number)));
        let stored = read_whole(&backend, &name(*number), OBJECT_BYTES_MAX).unwrap();
        assert!(*stored == *bytes(*number), "object {number} is whole");
    }
    assert!(head == 0 || listed.contains(&name(head)), "the head names an object that is there");
}
