//! PostgreSQL: what is dumped is what the database held at the pin, whatever is written meanwhile.

use crate::streams;
use postgres::{Client, NoTls};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use stillpoint_capture::Error;
use stillpoint_capture::database::{
    DatabaseOptions, DatabaseSource, Environment, Restored, parse, restore_into,
};
use stillpoint_testkit::servers::PostgresServer;

fn connect(server: &PostgresServer, database: &str) -> Client {
    Client::connect(&server.url(database), NoTls).unwrap()
}

fn create(server: &PostgresServer, database: &str, sql: &str) -> Client {
    connect(server, "postgres").batch_execute(&format!("CREATE DATABASE \"{database}\"")).unwrap();
    let mut client = connect(server, database);
    client.batch_execute(sql).unwrap();
    client
}

/// Options that know nothing of the environment the tests run in.
fn options() -> DatabaseOptions {
    let mut environment = Environment::own().with("HOME", "/nonexistent");
    for name in ["PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSERVICE", "PGOPTIONS"]
    {
        environment = environment.without(name);
    }
    DatabaseOptions { environment, ..DatabaseOptions::default() }
}

fn source(server: &PostgresServer, database: &str) -> Box<dyn DatabaseSource> {
    parse(&server.url(database), options()).unwrap()
}

/// Restores the files of a dump into a new database with PostgreSQL's own program, and connects to it.
#[track_caller]
fn restore(server: &PostgresServer, files: &BTreeMap<String, Vec<u8>>, database: &str) -> Client {
    connect(server, "postgres").batch_execute(&format!("CREATE DATABASE {database}")).unwrap();
    let temp = tempfile::tempdir().unwrap();
    for path in streams::write(files, temp.path()) {
        let mut psql = Command::new(PostgresServer::programs().unwrap().join("psql"));
        psql.args(["-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-f"]).arg(path);
        let output = psql.arg("-d").arg(server.url(database)).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    connect(server, database)
}

fn number(client: &mut Client, query: &str) -> i64 {
    client.query_one(query, &[]).unwrap().get(0)
}

/// Writers that put the same number into two tables, from many connections, until they are told to stop.
struct Writers<'a> {
    stop: &'a AtomicBool,
    /// The highest number whose transaction is known to be committed.
    committed: &'a AtomicI64,
}

const SHOP: &str = "\
CREATE TABLE orders (n bigint PRIMARY KEY, id bigserial, note text);
CREATE TABLE lines (n bigint REFERENCES orders, part int, PRIMARY KEY (n, part));
CREATE TABLE totals (one int PRIMARY KEY, orders bigint, lines bigint);
INSERT INTO totals VALUES (1, 0, 0);";

impl Writers<'_> {
    /// One transaction after the other: an order, its lines and the totals.
    fn write(&self, server: &PostgresServer, database: &str) {
        let mut client = connect(server, database);
        for n in 1.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let mut work = client.transaction().unwrap();
            work.execute("INSERT INTO orders (n, note) VALUES ($1, repeat('x', 100))", &[&n])
                .unwrap();
            work.execute("INSERT INTO lines SELECT $1, generate_series(1, 3)", &[&n]).unwrap();
            work.execute("UPDATE totals SET orders = orders + 1, lines = lines + 3", &[]).unwrap();
            work.commit().unwrap();
            self.committed.store(n, Ordering::SeqCst);
        }
    }

    /// Waits until this many are committed.
    fn wait_for(&self, n: i64) {
        while self.committed.load(Ordering::SeqCst) < n {
            std::thread::yield_now();
        }
    }
}

/// All rows up to some number are there and none after it, in every table; gives that number.
#[track_caller]
fn check_shop(client: &mut Client) -> i64 {
    let orders = number(client, "SELECT count(*) FROM orders");
    assert_eq!(
        number(client, "SELECT coalesce(max(n), 0) FROM orders"),
        orders,
        "a row is missing"
    );
    assert_eq!(number(client, "SELECT count(*) FROM lines"), 3 * orders);
    assert_eq!(number(client, "SELECT orders FROM totals"), orders);
    assert_eq!(number(client, "SELECT lines FROM totals"), 3 * orders);
    orders
}

/// Pins while somebody writes, and gives what was committed before and after the pin, and the files of the dump.
fn capture(
    server: &PostgresServer,
    source: &mut dyn DatabaseSource,
) -> (i64, i64, BTreeMap<String, Vec<u8>>) {
    let (stop, committed) = (AtomicBool::new(false), AtomicI64::new(0));
    let writers = Writers { stop: &stop, committed: &committed };
    std::thread::scope(|scope| {
        scope.spawn(|| writers.write(server, "shop"));
        writers.wait_for(50);
        source.rehearse().unwrap();
        writers.wait_for(100);
        let before = committed.load(Ordering::SeqCst);
        source.pin().unwrap();
        let after = committed.load(Ordering::SeqCst);
        writers.wait_for(after + 200);
        let files = source.dump().and_then(|dump| Ok(streams::read(dump)?));
        stop.store(true, Ordering::Relaxed);
        (before, after, files.unwrap())
    })
}

// Writers go on; the dump holds exactly what was committed at the pin, in all tables, and the sequence as it stood.
#[test]
fn the_dump_shows_the_pinned_instant() {
    let Some(server) = PostgresServer::start() else { return };
    create(&server, "shop", SHOP);
    let mut source = source(&server, "shop");
    let (before, after, files) = capture(&server, &mut *source);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["shop.sql"]);
    let mut restored = restore(&server, &files, "back");
    let pinned = check_shop(&mut restored);
    assert!((before..=after + 1).contains(&pinned), "{before} <= {pinned} <= {after}");
    // Writers do not hold still here: sequences are read right after the snapshot, and never before it.
    let next = number(&mut restored, "SELECT nextval('orders_id_seq')");
    assert!((pinned + 1..=after + 2).contains(&next), "{pinned} < {next} <= {after} + 2");
    let report = source.report();
    assert!(report.held.unwrap() > report.pin.unwrap());
    eprintln!(
        "pinned in {:?}, vacuum held back for {:?}",
        report.pin.unwrap(),
        report.held.unwrap()
    );
}

// No snapshot sees a TRUNCATE: it has to wait until everything is dumped.
#[test]
fn truncate_waits_for_the_dump() {
    let Some(server) = PostgresServer::start() else { return };
    let sql = "CREATE TABLE a AS SELECT generate_series(1, 1000) AS n;
        CREATE TABLE parts (n int) PARTITION BY RANGE (n);
        CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
        INSERT INTO parts VALUES (1), (2);";
    let mut client = create(&server, "shop", sql);
    let mut source = source(&server, "shop");
    source.rehearse().unwrap();
    source.pin().unwrap();
    client.batch_execute("SET lock_timeout = '20ms'").unwrap();
    for table in ["a", "parts", "part1"] {
        let refused = client.batch_execute(&format!("TRUNCATE {table}")).unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "55P03", "{table} does not wait");
    }
    client.batch_execute("SET lock_timeout = 0").unwrap();
    let files = std::thread::scope(|scope| {
        let truncates = scope.spawn(|| client.batch_execute("TRUNCATE a, parts"));
        let files = streams::read(source.dump().unwrap()).unwrap();
        truncates.join().unwrap().unwrap();
        files
    });
    assert_eq!(number(&mut client, "SELECT count(*) FROM a"), 0);
    let mut restored = restore(&server, &files, "back");
    assert_eq!(number(&mut restored, "SELECT count(*) FROM a"), 1000);
    assert_eq!(number(&mut restored, "SELECT count(*) FROM parts"), 2);
}

// Sequences run on after the pin, whatever transactions do; the notes set them back.
#[test]
fn sequences_are_those_of_the_pin() {
    let Some(server) = PostgresServer::start() else { return };
    let sql = "CREATE SCHEMA \"odd 'schema\";
        CREATE SEQUENCE plain; SELECT nextval('plain'), nextval('plain');
        CREATE SEQUENCE \"odd 'schema\".\"Seq\"\"\\é\" START 40 INCREMENT -3 MINVALUE -100 MAXVALUE 100;
        CREATE SEQUENCE untouched START 9;
        CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY); INSERT INTO t DEFAULT VALUES;";
    let mut client = create(&server, "shop", sql);
    let mut source = source(&server, "shop");
    source.rehearse().unwrap();
    source.pin().unwrap();
    let odd = "nextval('\"odd ''schema\".\"Seq\"\"\\é\"')";
    client.batch_execute(&format!("SELECT nextval('plain'), {odd}, {odd}, nextval('untouched'); INSERT INTO t DEFAULT VALUES")).unwrap();
    let files = streams::read(source.dump().unwrap()).unwrap();
    let mut restored = restore(&server, &files, "back");
    assert_eq!(number(&mut restored, "SELECT nextval('plain')"), 3);
    assert_eq!(number(&mut restored, &format!("SELECT {odd}")), 40);
    assert_eq!(number(&mut restored, "SELECT nextval('untouched')"), 9);
    assert_eq!(number(&mut restored, "SELECT count(*) FROM t"), 1);
    let id = "INSERT INTO t DEFAULT VALUES RETURNING id::bigint";
    assert_eq!(number(&mut restored, id), 2);
}

// Tables that come and go between rehearsal and pin do not matter, nor does a connection that was cut.
#[test]
fn a_pin_sees_what_is_there_now() {
    let Some(server) = PostgresServer::start() else { return };
    let mut client = create(&server, "shop", "CREATE TABLE old (n int); CREATE SEQUENCE gone");
    let mut source = source(&server, "shop");
    source.rehearse().unwrap();
    client
        .batch_execute(
            "DROP TABLE old; DROP SEQUENCE gone; CREATE TABLE \"new\"\"é\" AS SELECT 7 AS n",
        )
        .unwrap();
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'stillpoint'";
    assert_eq!(number(&mut client, cut), 1);
    let gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stillpoint'";
    while number(&mut client, gone) > 0 {}
    // The end of a connection is noticed here or by the server's answer.
    if source.pin().is_err() {
        source.pin().unwrap();
    }
    client.batch_execute("CREATE TABLE later (n int)").unwrap();
    let files = streams::read(source.dump().unwrap()).unwrap();
    let mut restored = restore(&server, &files, "back");
    assert_eq!(number(&mut restored, "SELECT sum(n) FROM \"new\"\"é\""), 7);
    let tables = "SELECT count(*) FROM pg_class WHERE relname IN ('old', 'gone', 'later')";
    assert_eq!(number(&mut restored, tables), 0);
}

#[track_caller]
fn refused(result: Result<(), Error>, what: &str, hint: &str) {
    match result {
        Err(Error::Refused { what: found, hint: Some(told) }) => {
            assert!(found.contains(what), "{found}");
            assert!(told.contains(hint), "{told}");
            assert!(!found.contains("hunter2") && !told.contains("hunter2"), "{found} {told}");
        }
        other => panic!("{other:?}"),
    }
}

// Whatever would fail under the lock or after it is refused before, and says what to do.
#[test]
fn rehearsals_refuse_what_would_fail() {
    let Some(server) = PostgresServer::start() else { return };
    let sql = "CREATE ROLE secret LOGIN PASSWORD 'right'; CREATE ROLE poor LOGIN;
        CREATE TABLE hidden (n int); CREATE TABLE shown (n int); GRANT SELECT ON shown TO poor;";
    let mut client = create(&server, "shop", sql);
    let rehearse = |url: &str, options: DatabaseOptions| parse(url, options).unwrap().rehearse();
    let host = server.socket().display();
    let secret = |password: &str| format!("postgresql://secret:{password}@/shop?host={host}");
    refused(rehearse(&secret("hunter2"), options()), "password", "PGPASSWORD");
    refused(rehearse(&server.url_as("secret", "shop"), options()), "password", "PGPASSWORD");
    refused(
        rehearse(&server.url_as("poor", "shop"), options()),
        "public.hidden",
        "pg_read_all_data",
    );
    refused(rehearse(&server.url("nothing"), options()), "nothing", "psql -l");
    refused(rehearse(&server.url_as("nobody", "shop"), options()), "nobody", "role");
    refused(
        rehearse("postgresql://me@/shop?host=/nonexistent", options()),
        "/nonexistent",
        "server runs",
    );
    let nowhere = tempfile::tempdir().unwrap();
    let without = DatabaseOptions { programs: Some(nowhere.path().into()), ..options() };
    refused(rehearse(&server.url("shop"), without), "pg_dump was not found", "postgresql-client");
    client
        .batch_execute(
            "ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; GRANT SELECT ON hidden TO poor",
        )
        .unwrap();
    refused(rehearse(&server.url_as("poor", "shop"), options()), "policies", "BYPASSRLS");
    client.batch_execute("ALTER TABLE hidden DISABLE ROW LEVEL SECURITY").unwrap();
    rehearse(&server.url_as("poor", "shop"), options()).unwrap();
    // With the right password from the URL and from the environment everything goes, the dump program included.
    client.batch_execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO secret").unwrap();
    rehearse(&secret("right"), options()).unwrap();
    let environment = options().environment.with("PGPASSWORD", "right");
    let by_environment = DatabaseOptions { environment, ..options() };
    rehearse(&server.url_as("secret", "shop"), by_environment).unwrap();
}

// A table that somebody has locked stops the rehearsal after the time that the options give, not for ever.
#[test]
fn locked_tables_are_waited_for_only_so_long() {
    let Some(server) = PostgresServer::start() else { return };
    let mut client = create(&server, "shop", "CREATE TABLE a (n int)");
    let mut work = client.transaction().unwrap();
    work.batch_execute("LOCK TABLE a").unwrap();
    let short = DatabaseOptions { lock_timeout: Duration::from_millis(50), ..options() };
    let mut source = parse(&server.url("shop"), short).unwrap();
    refused(source.rehearse(), "lock on a table", "");
    work.rollback().unwrap();
    source.rehearse().unwrap();
    let mut work = client.transaction().unwrap();
    work.batch_execute("LOCK TABLE a").unwrap();
    assert!(matches!(source.pin(), Err(Error::Failed(_))));
    assert!(source.dump().is_err(), "nothing is pinned");
    work.rollback().unwrap();
    source.pin().unwrap();
}

// A server that dies while it is dumped fails the stream, and so the snapshot; so does a session that is cut.
#[test]
fn a_dump_that_lost_its_server_fails() {
    let Some(mut server) = PostgresServer::start() else { return };
    let sql = "CREATE TABLE a AS SELECT repeat('x', 1000) AS text FROM generate_series(1, 100000)";
    let mut client = create(&server, "shop", sql);
    let mut source = source(&server, "shop");
    source.rehearse().unwrap();

    source.pin().unwrap();
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE application_name = 'stillpoint'";
    let mut dump = source.dump().unwrap();
    dump[0].read_exact(&mut vec![0; 1 << 20]).unwrap();
    assert_eq!(number(&mut client, cut), 1);
    let error = streams::read(dump).unwrap_err().to_string();
    assert!(error.contains("shop.sql"), "{error}");

    source.pin().unwrap();
    let mut dump = source.dump().unwrap();
    // More than pipes hold lies before the server still: it cannot have sent all.
    dump[0].read_exact(&mut vec![0; 1 << 20]).unwrap();
    server.kill();
    let error = streams::read(dump).unwrap_err().to_string();
    assert!(error.contains("shop.sql"), "{error}");
    assert!(source.pin().is_err());
}

/// What `pg_dump` says of a database, without the keys that differ each time.
fn described(server: &PostgresServer, database: &str) -> String {
    let mut command = Command::new(PostgresServer::programs().unwrap().join("pg_dump"));
    let output = command.arg(format!("--dbname={}", server.url(database))).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let is_kept =
        |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    text.lines().filter(is_kept).map(|line| format!("{line}\n")).collect()
}

const EVERYTHING: &str = r#"
CREATE ROLE "the owner"; CREATE SCHEMA "s p" AUTHORIZATION "the owner";
CREATE TYPE mood AS ENUM ('ok', 'it''s \ odd');
CREATE TABLE "s p"."T""é" ("a b" int PRIMARY KEY, "from" text, doubled int GENERATED ALWAYS AS ("a b" * 2) STORED,
  bytes bytea, moods mood[], at timestamptz, span interval, f float8, gone int);
ALTER TABLE "s p"."T""é" DROP COLUMN gone; ALTER TABLE "s p"."T""é" OWNER TO "the owner";
INSERT INTO "s p"."T""é" VALUES (1, E'tab\there\nline \\. back\\slash', DEFAULT, '\x00ff5c', '{ok,"it''s \\ odd"}',
  '2026-03-01 01:02:03.456789+02', '1 mon -3 days', 0.1 + 0.2), (2, NULL, DEFAULT, '', '{}', 'infinity', '0', 'NaN');
INSERT INTO "s p"."T""é" ("a b", "from") VALUES (3, '\N');
CREATE TABLE child (n int REFERENCES "s p"."T""é" ("a b"), EXCLUDE (n WITH =)) WITH (fillfactor = 70);
INSERT INTO child VALUES (2), (1);
CREATE TABLE parts (n int, t text DEFAULT 'x') PARTITION BY LIST (n);
CREATE TABLE part1 PARTITION OF parts FOR VALUES IN (1); CREATE TABLE rest PARTITION OF parts DEFAULT;
INSERT INTO parts VALUES (1), (5);
CREATE TABLE base (n int); CREATE TABLE heir (m int) INHERITS (base); INSERT INTO base VALUES (1); INSERT INTO heir VALUES (2, 3);
CREATE TABLE empty (); INSERT INTO empty DEFAULT VALUES;
CREATE VIEW seen AS SELECT n FROM base; CREATE MATERIALIZED VIEW kept AS SELECT sum(n) FROM base;
CREATE FUNCTION twice(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN /*
\.
COPY x FROM stdin;
*/ RETURN n * 2; END $$;
CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
CREATE TRIGGER t BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION stop();
COMMENT ON TABLE child IS 'it''s a child'; GRANT SELECT ON child TO "the owner"; CREATE SEQUENCE own OWNED BY base.n;
"#;

// Whatever a database is made of comes back: PostgreSQL's own dump program sees no difference.
#[test]
fn everything_comes_back() {
    let Some(server) = PostgresServer::start() else { return };
    create(&server, "Odd näme", EVERYTHING);
    let options = DatabaseOptions { name: Some("the shop".into()), ..options() };
    let mut source = parse(&server.url("Odd%20n%C3%A4me"), options).unwrap();
    source.rehearse().unwrap();
    source.pin().unwrap();
    let files = streams::read(source.dump().unwrap()).unwrap();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["the shop.sql"]);
    let first = String::from_utf8_lossy(&files["the shop.sql"]).lines().next().unwrap().to_owned();
    assert!(first.contains("the owner") && first.contains("Odd näme"), "{first}");
    drop(restore(&server, &files, "back"));
    let (before, after) = (described(&server, "Odd%20n%C3%A4me"), described(&server, "back"));
    assert!(before.contains("it''s a child") && before.contains("\\x00ff5c"), "{before}");
    assert_eq!(before, after);
    assert!(source.title().contains("Odd näme"), "{}", source.title());
}

// What is not dumped is refused before anything is locked, and when it turns up only then.
#[test]
fn large_objects_are_refused() {
    let Some(server) = PostgresServer::start() else { return };
    let mut client = create(&server, "shop", "CREATE TABLE a (n int)");
    let mut source = source(&server, "shop");
    source.rehearse().unwrap();
    client.batch_execute("SELECT lo_create(0)").unwrap();
    assert!(source.pin().unwrap_err().to_string().contains("large objects"));
    refused(source.rehearse(), "large objects", "pg_dump");
}

fn restore_bytes(url: &str, bytes: &[u8]) -> Result<Restored, Error> {
    restore_into(url, &options(), &mut |out| {
        out.write_all(bytes)
            .map_err(|error| stillpoint_store::Error::io("writing", "the dump", error))
    })
}

#[track_caller]
fn dumped(server: &PostgresServer, database: &str) -> Vec<u8> {
    let mut source = source(server, database);
    source.rehearse().unwrap();
    source.pin().unwrap();
    streams::read(source.dump().unwrap()).unwrap().into_values().next().unwrap()
}

fn databases(server: &PostgresServer) -> i64 {
    number(&mut connect(server, "postgres"), "SELECT count(*) FROM pg_database")
}

// A restore makes a new database, with the encoding of the old one; what is there and not empty is never touched.
#[test]
fn restores_make_new_databases() {
    let Some(server) = PostgresServer::start() else { return };
    let sql =
        "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    connect(&server, "postgres").batch_execute(sql).unwrap();
    let sql = "CREATE TABLE \"ä\" AS SELECT 'ümläut' AS t, n FROM generate_series(1, 10) n";
    connect(&server, "latin").batch_execute(sql).unwrap();
    let dump = dumped(&server, "latin");
    let made = restore_bytes(&server.url("new%20%22one"), &dump).unwrap();
    assert!(made.title.contains("new \"one") && made.notes.is_empty(), "{made:?}");
    let mut client = connect(&server, "new%20%22one");
    assert_eq!(number(&mut client, "SELECT count(*) FROM \"ä\" WHERE t = 'ümläut'"), 10);
    let encoding = client.query_one("SHOW server_encoding", &[]).unwrap();
    assert_eq!(encoding.get::<_, String>(0), "LATIN1");

    // Not over something, not over itself; into an empty one that somebody made.
    client.batch_execute("DELETE FROM \"ä\" WHERE n > 5").unwrap();
    let again = restore_bytes(&server.url("new%20%22one"), &dump).map(drop);
    refused(again, "not empty", "does not exist yet");
    assert_eq!(number(&mut client, "SELECT count(*) FROM \"ä\""), 5);
    connect(&server, "postgres").batch_execute("CREATE DATABASE empty").unwrap();
    restore_bytes(&server.url("empty"), &dump).unwrap();
    assert_eq!(number(&mut connect(&server, "empty"), "SELECT count(*) FROM \"ä\""), 10);
}

// A restore that fails leaves no database behind, and says why.
#[test]
fn failed_restores_leave_nothing() {
    let Some(server) = PostgresServer::start() else { return };
    let sql = "CREATE ROLE \"own er\"; CREATE TABLE a (n int); INSERT INTO a SELECT generate_series(1, 100000); ALTER TABLE a OWNER TO \"own er\"";
    create(&server, "shop", sql);
    let dump = dumped(&server, "shop");
    let before = databases(&server);
    let url = server.url("back");
    let broken = String::from_utf8(dump.clone()).unwrap().replace("\n99999\n", "\nno number\n");
    let error = restore_bytes(&url, broken.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("psql failed") && error.contains("no number"), "{error}");
    refused(restore_bytes(&url, b"CREATE TABLE a (n int);").map(drop), "no dump", "psql");
    refused(restore_bytes(&url, b"").map(drop), "no dump", "psql");
    // The repository cannot give all of it.
    let half = restore_into(&url, &options(), &mut |out| {
        out.write_all(&dump[..dump.len() / 2]).unwrap();
        Err(stillpoint_store::Error::damaged("pack", "short"))
    });
    assert!(matches!(half, Err(Error::Store(stillpoint_store::Error::Damaged { .. }))), "{half:?}");
    let sql = "ALTER TABLE a OWNER TO postgres; DROP ROLE \"own er\"";
    connect(&server, "shop").batch_execute(sql).unwrap();
    refused(restore_bytes(&url, &dump).map(drop), "own er", "CREATE ROLE \"own er\";");
    assert_eq!(databases(&server), before);
    connect(&server, "shop").batch_execute("CREATE ROLE \"own er\"").unwrap();
    restore_bytes(&url, &dump).unwrap();
    assert_eq!(databases(&server), before + 1);
}

// Connections are encrypted and servers checked as the mode says, by us and by the programs that are started.
#[test]
fn encryption_is_what_the_mode_says() {
    let Some((server, port, certificate)) = PostgresServer::start_encrypted() else { return };
    let host = server.socket().display();
    let mut client =
        Client::connect(&format!("postgresql://postgres@/postgres?host={host}&port={port}"), NoTls)
            .unwrap();
    client.batch_execute("CREATE ROLE secret LOGIN PASSWORD 'right'; CREATE TABLE a (n int); GRANT SELECT ON a TO secret").unwrap();
    let rehearse = |host: &str, more: &str| {
        let url = format!("postgresql://secret:right@{host}:{port}/postgres?{more}");
        parse(&url, options()).unwrap().rehearse()
    };
    let roots = format!("sslrootcert={}", certificate.display());
    rehearse("localhost", "sslmode=require").unwrap();
    rehearse("localhost", "").unwrap();
    rehearse("localhost", &format!("sslmode=verify-full&{roots}")).unwrap();
    rehearse("127.0.0.1", &format!("sslmode=verify-ca&{roots}")).unwrap();
    refused(
        rehearse("127.0.0.1", &format!("sslmode=verify-full&{roots}")),
        "certificate",
        "sslrootcert",
    );
    refused(rehearse("localhost", "sslmode=verify-full"), "root certificate", "sslrootcert=FILE");
    refused(rehearse("localhost", "sslmode=disable"), "pg_hba.conf", "role");
    refused(rehearse("localhost", "sslrootcert=/nonexistent"), "/nonexistent", "PEM");
}
