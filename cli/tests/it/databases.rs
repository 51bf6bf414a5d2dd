//! Dumps of databases become new databases.

use crate::support::{Place, messages, text};

// The dump of a database becomes a new one; which dump, and what stands in the way, is said.
#[test]
fn databases_are_restored_into_new_ones() {
    let Some(server) = stillpoint_testkit::servers::PostgresServer::start() else { return };
    let place = Place::new();
    let origin = r#"-- stillpoint postgresql {"server":"15.0","database":"shop","encoding":"UTF8","collate":"C","ctype":"C","roles":[]}"#;
    let script = format!("{origin}\nCREATE TABLE a AS SELECT 7 AS n;\n");
    let dump = place.secret("script", script.as_bytes());
    let save = |name: &str| {
        let command = format!("{name}=cat {}", dump.display());
        place.run(["snapshot", "--command", &command]).with_code(0);
    };
    save("shop.sql");
    let url = server.url("new");
    place.run(["restore", "latest", "--into", &url]).with_code(0).prints("restored /shop.sql");
    place
        .run(["restore", "latest", "--into", &url])
        .with_code(1)
        .says("not empty")
        .says("does not exist yet");
    let other = server.url("other");
    let json = place.run(["restore", "latest:/shop.sql", "--into", &other, "--json"]).with_code(0);
    assert_eq!(text(&messages(&json.stdout)[0], "file"), "/shop.sql");

    let file = format!("sqlite:{}", place.path("new.db").display());
    place.run(["restore", "latest", "--into", &file]).with_code(1).says("no dump of a SQLite");
    assert!(!place.path("new.db").exists());
    place.run(["restore", "latest:/none.sql", "--into", &file]).with_code(1).says("none.sql");
    place.run(["restore", "latest", "--into", "oracle:x"]).with_code(1).says("oracle");
    place.run(["restore", "latest", "--into", &url, "--target", "x"]).with_code(2);
    place.run(["restore", "latest"]).with_code(2).says("--target");
    let two = ["snapshot", "--command", "a.sql=echo", "--command", "b.sql=echo"];
    place.run(two).with_code(0);
    place.run(["restore", "latest", "--into", &url]).with_code(2).says("a.sql").says("b.sql");
    place.snapshot();
    place.run(["restore", "latest", "--into", &url]).with_code(1).says("no dump of a database");
}
