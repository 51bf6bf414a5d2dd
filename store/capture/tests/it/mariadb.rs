//! MariaDB: what is dumped is what the database held at the pin, whatever is written meanwhile.

use crate::streams;
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use stillpoint_capture::Error;
use stillpoint_capture::database::{
    DatabaseOptions, DatabaseSource, Environment, Restored, parse, restore_into,
};
use stillpoint_testkit::servers::MariadbServer;

fn connect(server: &MariadbServer, database: Option<&str>) -> Conn {
    let socket = server.socket().to_str().unwrap().to_owned();
    let options = OptsBuilder::new().user(Some("root")).socket(Some(socket)).db_name(database);
    Conn::new(options).unwrap()
}

/// Runs statements, each of which must succeed.
#[track_caller]
fn run(session: &mut Conn, sql: &str) {
    let mut result = session.query_iter(sql).unwrap();
    while let Some(set) = result.iter() {
        set.for_each(|row| drop(row.unwrap()));
    }
}

fn create(server: &MariadbServer, database: &str, sql: &str) -> Conn {
    let name = database.replace('`', "``");
    connect(server, None)
        .query_drop(format!("CREATE DATABASE `{name}` CHARACTER SET utf8mb4"))
        .unwrap();
    let mut session = connect(server, Some(database));
    run(&mut session, sql);
    session
}

/// Options that know nothing of the environment the tests run in.
fn options() -> DatabaseOptions {
    let mut environment = Environment::own().with("HOME", "/nonexistent");
    for name in ["MYSQL_PWD", "MYSQL_HOST", "MYSQL_TCP_PORT", "MYSQL_UNIX_PORT"] {
        environment = environment.without(name);
    }
    DatabaseOptions { environment, ..DatabaseOptions::default() }
}

fn source(server: &MariadbServer, database: &str) -> Box<dyn DatabaseSource> {
    parse(&server.url(database), options()).unwrap()
}

fn number(session: &mut Conn, query: &str) -> i64 {
    session.query_first(query).unwrap().unwrap()
}

fn restore(url: &str, bytes: &[u8]) -> Result<Restored, Error> {
    restore_into(url, &options(), &mut |out| {
        out.write_all(bytes).map_err(|error| stillpoint_store::Error::io("writing", "dump", error))
    })
}

fn dumped(source: &mut dyn DatabaseSource) -> Vec<u8> {
    streams::read(source.dump().unwrap()).unwrap().into_values().next().unwrap()
}

const SHOP: &str = "\
CREATE TABLE orders (n BIGINT PRIMARY KEY, id BIGINT AUTO_INCREMENT UNIQUE, note TEXT);
CREATE TABLE `lines` (n BIGINT, part INT, PRIMARY KEY (n, part), FOREIGN KEY (n) REFERENCES orders (n));
CREATE TABLE totals (orders BIGINT, `lines` BIGINT); INSERT INTO totals VALUES (0, 0);";

/// One transaction after the other, until somebody says stop.
fn write(server: &MariadbServer, stop: &AtomicBool, committed: &AtomicI64) {
    let mut session = connect(server, Some("shop"));
    for n in 1.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        session
            .query_drop(format!(
                "START TRANSACTION; INSERT INTO orders (n, note) VALUES ({n}, REPEAT('x', 100)); \
             INSERT INTO `lines` VALUES ({n}, 1), ({n}, 2), ({n}, 3); \
             UPDATE totals SET orders = orders + 1, `lines` = `lines` + 3; COMMIT"
            ))
            .unwrap();
        committed.store(n, Ordering::SeqCst);
    }
}

fn wait_for(committed: &AtomicI64, n: i64) {
    while committed.load(Ordering::SeqCst) < n {
        std::thread::yield_now();
    }
}

// Writers go on; the dump holds exactly what was committed at the pin, in all tables.
#[test]
fn the_dump_shows_the_pinned_instant() {
    let Some(server) = MariadbServer::start() else { return };
    create(&server, "shop", SHOP);
    let mut source = source(&server, "shop");
    let (stop, committed) = (AtomicBool::new(false), AtomicI64::new(0));
    let (before, after, bytes) = std::thread::scope(|scope| {
        scope.spawn(|| write(&server, &stop, &committed));
        wait_for(&committed, 50);
        source.rehearse().unwrap();
        wait_for(&committed, 100);
        let before = committed.load(Ordering::SeqCst);
        source.pin().unwrap();
        let after = committed.load(Ordering::SeqCst);
        wait_for(&committed, after + 200);
        let bytes = dumped(&mut *source);
        stop.store(true, Ordering::Relaxed);
        (before, after, bytes)
    });
    restore(&server.url("back"), &bytes).unwrap();
    let mut restored = connect(&server, Some("back"));
    let pinned = number(&mut restored, "SELECT COUNT(*) FROM orders");
    assert!((before..=after + 1).contains(&pinned), "{before} <= {pinned} <= {after}");
    assert_eq!(number(&mut restored, "SELECT MAX(n) FROM orders"), pinned);
    assert_eq!(number(&mut restored, "SELECT COUNT(*) FROM `lines`"), 3 * pinned);
    assert_eq!(number(&mut restored, "SELECT orders + `lines` FROM totals"), 4 * pinned);
    assert!(source.title().starts_with("MariaDB 1"), "{}", source.title());
    let report = source.report();
    assert!(report.held.unwrap() > report.pin.unwrap());
    eprintln!("pinned in {:?}, held for {:?}", report.pin.unwrap(), report.held.unwrap());
}

// What empties a table right after the pin waits until everything is dumped, and so does what changes one.
#[test]
fn truncate_waits_for_the_dump() {
    let Some(server) = MariadbServer::start() else { return };
    let sql = "CREATE TABLE a (n INT); INSERT INTO a SELECT seq FROM seq_1_to_1000; CREATE TABLE b (n INT); INSERT INTO b VALUES (1)";
    let mut session = create(&server, "shop", sql);
    let mut source = source(&server, "shop");
    source.rehearse().unwrap();
    source.pin().unwrap();
    run(&mut session, "INSERT INTO a VALUES (1001); SET lock_wait_timeout = 1");
    let error = session.query_drop("TRUNCATE a").unwrap_err().to_string();
    assert!(error.contains("timeout"), "{error}");
    run(&mut session, "SET lock_wait_timeout = 60");
    let bytes = std::thread::scope(|scope| {
        let changes =
            scope.spawn(|| session.query_drop("TRUNCATE a; ALTER TABLE b ADD COLUMN m INT"));
        let mut observer = connect(&server, None);
        let waiting = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE LIKE 'Waiting for table metadata lock'";
        while number(&mut observer, waiting) == 0 {}
        let bytes = dumped(&mut *source);
        changes.join().unwrap().unwrap();
        bytes
    });
    assert_eq!(number(&mut session, "SELECT COUNT(*) FROM a"), 0);
    restore(&server.url("back"), &bytes).unwrap();
    let mut restored = connect(&server, Some("back"));
    assert_eq!(number(&mut restored, "SELECT COUNT(*) FROM a"), 1000);
    let columns = "SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'back' AND TABLE_NAME = 'b'";
    assert_eq!(number(&mut restored, columns), 1);
}

/// What the vendor's dump program says of a database.
fn described(server: &MariadbServer, database: &str) -> String {
    let mut command = Command::new(MariadbServer::program("mariadb-dump").unwrap());
    command.args([
        "--no-defaults",
        "--user=root",
        "--skip-comments",
        "--hex-blob",
        "--routines",
        "--triggers",
        "--events",
    ]);
    command.arg(format!("--socket={}", server.socket().display())).arg(database);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const EVERYTHING: &str = r#"
CREATE TABLE `odd ``tab/le é` (`a b` INT AUTO_INCREMENT PRIMARY KEY, f FLOAT, d DOUBLE, x DECIMAL(30,10), bits BIT(9), j JSON, g GEOMETRY,
  latin VARCHAR(20) CHARACTER SET latin1, bytes VARBINARY(20), large LONGBLOB, at TIMESTAMP(6) NULL, day DATE, span TIME(3), y YEAR,
  e ENUM('a','it''s'), s SET('x','y'), hidden INT INVISIBLE DEFAULT 7, v INT AS (hidden + 1) VIRTUAL, u UUID, i INET6);
INSERT INTO `odd ``tab/le é` (f, d, x, bits, j, g, latin, bytes, large, at, day, span, y, e, s, hidden, u, i) VALUES
  (16777217, 0.1e-300, 12345678901234567890.0123456789, b'101010101', '{"a": "\\""}', POINT(1, 2), 'ümläut ''\\', x'00ff27', REPEAT(x'0a', 600000),
   '2026-03-29 02:30:00.123456', '2026-01-02', '-12:34:56.789', 1999, 'it''s', 'x,y', 8, '123e4567-e89b-12d3-a456-426655440000', '::1'),
  (NULL, NULL, NULL, NULL, NULL, NULL, '', '', '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO `odd ``tab/le é` (`a b`) VALUES (1000);
CREATE TABLE zero (id INT AUTO_INCREMENT PRIMARY KEY); SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'; INSERT INTO zero VALUES (0); SET sql_mode = DEFAULT;
CREATE TABLE child (n INT, FOREIGN KEY (n) REFERENCES `odd ``tab/le é` (`a b`)); INSERT INTO child VALUES (1000);"#;

// Whatever a database is made of comes back: the vendor's own dump program sees no difference.
#[test]
fn everything_comes_back() {
    let Some(server) = MariadbServer::start() else { return };
    let mut session = create(&server, "sh op`é", "SET NAMES utf8mb4");
    run(&mut session, EVERYTHING);
    for sql in [
        "CREATE VIEW z_view AS SELECT n FROM child",
        "CREATE VIEW a_view AS SELECT n, twice(n) AS t FROM z_view",
        "CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC BEGIN DECLARE r INT; SET r = n * 2; -- ;; é\n RETURN r; END",
        "CREATE PROCEDURE p() BEGIN SELECT 1; SELECT 'DELIMITER'; END",
        "CREATE TRIGGER t BEFORE INSERT ON child FOR EACH ROW SET NEW.n = NEW.n + 1",
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DISABLE DO DELETE FROM child",
    ] {
        if sql.contains("twice(n) AS") {
            run(&mut session, "CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN n");
            run(&mut session, sql);
            run(&mut session, "DROP FUNCTION twice");
        } else {
            run(&mut session, sql);
        }
    }
    let mut source = source(&server, "sh%20op%60%C3%A9");
    source.rehearse().unwrap();
    source.pin().unwrap();
    let bytes = dumped(&mut *source);
    restore(&server.url("back"), &bytes).unwrap();
    let (before, after) = (described(&server, "sh op`é"), described(&server, "back"));
    assert!(before.contains("0x00FF27") && before.contains("twice"), "{before}");
    assert_eq!(before, after);
    let mut restored = connect(&server, Some("back"));
    let f = "SELECT CAST(f + 0e0 AS INTEGER) FROM `odd ``tab/le é` WHERE `a b` = 1";
    assert_eq!(number(&mut restored, f), number(&mut session, f));
    assert_eq!(number(&mut restored, "SELECT t FROM a_view"), 2000);

    // What is not empty is not restored over; what fails leaves nothing.
    refused(restore(&server.url("back"), &bytes).map(drop), "not empty", "does not exist yet");
    let broken = String::from_utf8(bytes.clone())
        .unwrap()
        .replace("INSERT INTO `zero`", "INSERT INTO `none`");
    let error = restore(&server.url("new"), broken.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("none"), "{error}");
    refused(restore(&server.url("new"), b"SELECT 1;\n").map(drop), "no dump", "mariadb");
    let made = "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'new'";
    assert_eq!(number(&mut restored, made), 0);
}

#[track_caller]
fn refused(result: Result<(), Error>, what: &str, hint: &str) {
    match result {
        Err(Error::Refused { what: found, hint: Some(told) }) => {
            assert!(found.contains(what) && told.contains(hint), "{found} / {told}");
            assert!(!found.contains("hunter2") && !told.contains("hunter2"), "{found} / {told}");
        }
        other => panic!("{other:?}"),
    }
}

// Whatever would fail later is refused in the rehearsal, and says what to do.
#[test]
fn rehearsals_refuse_what_would_fail() {
    let Some(server) = MariadbServer::start() else { return };
    let mut session = create(&server, "shop", "CREATE TABLE a (n INT); CREATE TABLE b (n INT)");
    run(
        &mut session,
        "CREATE USER secret@localhost IDENTIFIED BY 'right'; GRANT SELECT ON shop.a TO secret@localhost; GRANT TRIGGER, EVENT ON shop.* TO secret@localhost",
    );
    let rehearse = |url: &str, options: DatabaseOptions| parse(url, options)?.rehearse();
    let right = server.url_as("secret:right", "shop");
    refused(rehearse(&server.url_as("secret:hunter2", "shop"), options()), "denied", "MYSQL_PWD");
    refused(rehearse(&right, options()), "SELECT, SHOW VIEW", "GRANT SELECT");
    refused(rehearse(&server.url("none"), options()), "none", "SHOW DATABASES");
    refused(
        rehearse("mysql://root@localhost/shop?socket=/nonexistent", options()),
        "/nonexistent",
        "server runs",
    );
    refused(rehearse("mysql://root@localhost/", options()), "no database", "mysql://");
    run(&mut session, "GRANT SELECT, SHOW VIEW ON shop.* TO secret@localhost");
    rehearse(&right, options()).unwrap();

    // The password from the environment, and user, socket and password from the option file.
    let environment = options().environment.with("MYSQL_PWD", "right");
    let by_environment = DatabaseOptions { environment, ..options() };
    rehearse(&server.url_as("secret", "shop"), by_environment).unwrap();
    let home = tempfile::tempdir().unwrap();
    let file =
        format!("[client]\nuser=secret\npassword=right\nsocket={}\n", server.socket().display());
    std::fs::write(home.path().join(".my.cnf"), file).unwrap();
    let environment = options().environment.with("HOME", home.path().to_str().unwrap());
    rehearse("mysql:///shop", DatabaseOptions { environment, ..options() }).unwrap();

    run(&mut session, "CREATE TABLE m (n INT) ENGINE = MyISAM; CREATE SEQUENCE s");
    refused(rehearse(&server.url("shop"), options()), "m (engine MyISAM), s (sequence)", "InnoDB");
}

// Tables that come and go between rehearsal and pin do not matter, nor does a connection that was cut; locks are not waited for for ever.
#[test]
fn a_pin_sees_what_is_there_now() {
    let Some(server) = MariadbServer::start() else { return };
    let mut session = create(&server, "shop", "CREATE TABLE old (n INT)");
    let short = DatabaseOptions { lock_timeout: Duration::from_secs(1), ..options() };
    let mut source = parse(&server.url("shop"), short).unwrap();
    source.rehearse().unwrap();
    run(&mut session, "DROP TABLE old; CREATE TABLE `new` AS SELECT 7 AS n");
    let id = number(
        &mut session,
        "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = 'shop' AND ID <> CONNECTION_ID()",
    );
    run(&mut session, &format!("KILL {id}"));
    source.pin().unwrap();
    let bytes = dumped(&mut *source);
    restore(&server.url("back"), &bytes).unwrap();
    let mut restored = connect(&server, Some("back"));
    assert_eq!(number(&mut restored, "SELECT SUM(n) FROM `new`"), 7);
    assert_eq!(
        number(
            &mut restored,
            "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'back'"
        ),
        1
    );

    run(&mut session, "LOCK TABLES `new` WRITE");
    assert!(source.pin().unwrap_err().to_string().contains("holds a lock"));
    assert!(source.dump().is_err(), "nothing is pinned");
    run(&mut session, "UNLOCK TABLES");
    source.pin().unwrap();
}

// A server that dies while it is dumped fails the stream, and so the snapshot.
#[test]
fn a_dump_that_lost_its_server_fails() {
    let Some(mut server) = MariadbServer::start() else { return };
    create(
        &server,
        "shop",
        "CREATE TABLE a (t TEXT); INSERT INTO a SELECT REPEAT('x', 1000) FROM seq_1_to_50000",
    );
    let mut source = source(&server, "shop");
    source.rehearse().unwrap();
    source.pin().unwrap();
    let mut dump = source.dump().unwrap();
    dump[0].read_exact(&mut vec![0; 1 << 20]).unwrap();
    server.kill();
    let error = streams::read(dump).unwrap_err().to_string();
    assert!(error.contains("shop.sql"), "{error}");
    assert!(source.pin().is_err());
}
