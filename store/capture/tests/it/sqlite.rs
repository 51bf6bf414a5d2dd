//! SQLite: what is dumped is what the file held at the pin, whatever is written meanwhile.

use crate::streams;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use stillpoint_capture::Error;
use stillpoint_capture::database::{DatabaseOptions, DatabaseSource, parse, restore_into};

const SHOP: &str = "PRAGMA journal_mode = WAL; CREATE TABLE orders (n INTEGER PRIMARY KEY, note TEXT); \
    CREATE TABLE lines (n INTEGER, part INTEGER); CREATE TABLE totals (orders INTEGER, lines INTEGER); INSERT INTO totals VALUES (0, 0);";

fn create(path: &Path, sql: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(sql).unwrap();
    connection
}

fn source(path: &Path) -> Box<dyn DatabaseSource> {
    parse(&format!("sqlite:{}", path.display()), DatabaseOptions::default()).unwrap()
}

fn number(connection: &Connection, query: &str) -> i64 {
    connection.query_row(query, [], |row| row.get(0)).unwrap()
}

/// Writes the dump into a file of its own and opens it.
fn restored(source: &mut dyn DatabaseSource, directory: &Path) -> Connection {
    let files = streams::read(source.dump().unwrap()).unwrap();
    let (_, bytes) = files.into_iter().next().unwrap();
    let path = directory.join("back.db");
    restore(&path, &bytes).unwrap();
    Connection::open(path).unwrap()
}

fn restore(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let url = format!("sqlite:{}", path.display());
    let restored = restore_into(&url, &DatabaseOptions::default(), &mut |out| {
        out.write_all(bytes).map_err(|error| stillpoint_store::Error::io("writing", "dump", error))
    });
    restored.map(drop)
}

/// One transaction after the other, with checkpoints in between, until somebody says stop.
fn write(path: &Path, stop: &AtomicBool, committed: &AtomicI64) {
    let mut connection = Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 20").unwrap();
    for n in 1.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let work = connection.transaction().unwrap();
        work.execute("INSERT INTO orders VALUES (?1, printf('%.500c', 'x'))", [n]).unwrap();
        for part in 0..3 {
            work.execute("INSERT INTO lines VALUES (?1, ?2)", [n, part]).unwrap();
        }
        work.execute("UPDATE totals SET orders = orders + 1, lines = lines + 3", []).unwrap();
        work.commit().unwrap();
        committed.store(n, Ordering::SeqCst);
    }
}

fn wait_for(committed: &AtomicI64, n: i64) {
    while committed.load(Ordering::SeqCst) < n {
        std::thread::yield_now();
    }
}

// Writers and checkpoints go on; the dump holds exactly what was committed at the pin, in all tables.
#[test]
fn the_dump_shows_the_pinned_instant() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("odd näme%41.db");
    create(&path, SHOP);
    let url = format!("sqlite:{}/odd%20n%C3%A4me%2541.db", temp.path().display());
    let mut source = parse(&url, DatabaseOptions::default()).unwrap();
    let (stop, committed) = (AtomicBool::new(false), AtomicI64::new(0));
    let (before, after, restored) = std::thread::scope(|scope| {
        scope.spawn(|| write(&path, &stop, &committed));
        wait_for(&committed, 100);
        source.rehearse().unwrap();
        wait_for(&committed, 200);
        let before = committed.load(Ordering::SeqCst);
        source.pin().unwrap();
        let after = committed.load(Ordering::SeqCst);
        wait_for(&committed, after + 500);
        let restored = restored(&mut *source, temp.path());
        stop.store(true, Ordering::Relaxed);
        (before, after, restored)
    });
    let pinned = number(&restored, "SELECT count(*) FROM orders");
    assert!((before..=after + 1).contains(&pinned), "{before} <= {pinned} <= {after}");
    assert_eq!(number(&restored, "SELECT max(n) FROM orders"), pinned);
    assert_eq!(number(&restored, "SELECT count(*) FROM lines"), 3 * pinned);
    assert_eq!(number(&restored, "SELECT orders + lines FROM totals"), 4 * pinned);
    let report = source.report();
    assert!(report.held.unwrap() > report.pin.unwrap());
    eprintln!("pinned in {:?}, held for {:?}", report.pin.unwrap(), report.held.unwrap());
}

// A file of the database that this process opens by another way takes the locks: that fails the dump, never spoils it.
#[test]
fn lost_locks_fail_the_dump() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("app.db");
    let writer = create(&path, SHOP);
    let mut source = source(&path);
    let names: Vec<PathBuf> =
        ["app.db", "app.db-wal", "app.db-shm"].map(|name| temp.path().join(name)).into();
    assert_eq!(source.files(), names);
    source.rehearse().unwrap();
    source.pin().unwrap();
    writer.execute("INSERT INTO orders VALUES (1, 'x')", []).unwrap();
    drop(std::fs::File::open(&names[2]).unwrap());
    let error = streams::read(source.dump().unwrap()).unwrap_err().to_string();
    assert!(error.contains("took its locks"), "{error}");
    source.pin().unwrap();
    assert_eq!(number(&restored(&mut *source, temp.path()), "SELECT count(*) FROM orders"), 1);
}

// A database that was replaced by another file is the one that is dumped.
#[test]
fn replaced_files_are_noticed() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("app.db");
    drop(create(&path, SHOP));
    let mut source = source(&path);
    source.rehearse().unwrap();
    let other = temp.path().join("other.db");
    drop(create(&other, &format!("{SHOP} INSERT INTO orders VALUES (7, 'new')")));
    std::fs::rename(&other, &path).unwrap();
    for ending in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(temp.path().join(format!("app.db{ending}")));
    }
    source.pin().unwrap();
    assert_eq!(number(&restored(&mut *source, temp.path()), "SELECT n FROM orders"), 7);
}

#[track_caller]
fn refused(result: Result<(), Error>, what: &str, hint: &str) {
    match result {
        Err(Error::Refused { what: found, hint: Some(told) }) => {
            assert!(found.contains(what) && told.contains(hint), "{found} / {told}");
        }
        other => panic!("{other:?}"),
    }
}

// What cannot be pinned is refused in the rehearsal; what exists is never restored over.
#[test]
fn refusals() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    drop(create(&path("old.db"), "CREATE TABLE a (n)"));
    refused(source(&path("old.db")).rehearse(), "not in WAL mode", "journal_mode=WAL");
    std::fs::write(path("text"), "no database, but a text that is long enough".repeat(100))
        .unwrap();
    refused(source(&path("text")).rehearse(), "not a database", "encrypted");
    refused(source(&path("missing")).rehearse(), "missing", "path");
    refused(source(temp.path()).rehearse(), "no file", "path");
    refused(parse("sqlite:app.db", DatabaseOptions::default()).map(drop), "whole path", "sqlite:/");
    let locked = create(&path("locked.db"), &format!("PRAGMA locking_mode = EXCLUSIVE; {SHOP}"));
    refused(source(&path("locked.db")).rehearse(), "locked", "EXCLUSIVE");
    drop(locked);
    let nowhere = DatabaseOptions { scratch: "/nonexistent".into(), ..DatabaseOptions::default() };
    drop(create(&path("app.db"), SHOP));
    let url = format!("sqlite:{}", path("app.db").display());
    refused(parse(&url, nowhere).unwrap().rehearse(), "/nonexistent", "another directory");

    let mut source = source(&path("app.db"));
    source.rehearse().unwrap();
    source.pin().unwrap();
    let bytes = streams::read(source.dump().unwrap()).unwrap().remove("app.sqlite").unwrap();
    refused(restore(&path("old.db"), &bytes), "exists already", "does not exist yet");
    refused(restore(&path("new.db"), b"CREATE TABLE"), "no dump", ".sqlite");
    let half = restore(&path("new.db"), &bytes[..bytes.len() / 2]).unwrap_err();
    assert!(matches!(half, Error::Failed(_)), "{half:?}");
    let left = std::fs::read_dir(temp.path()).unwrap().flatten();
    let left = left.filter(|entry| entry.file_name().to_string_lossy().contains(".stillpoint"));
    assert_eq!((left.count(), path("new.db").exists()), (0, false));
    restore(&path("new.db"), &bytes).unwrap();
}
