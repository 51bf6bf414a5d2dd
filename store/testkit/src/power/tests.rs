use super::*;

const STORE: &str = "\
7 openat(AT_FDCWD, \"\\x2f\\x72\\x2f\\x74\", O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 3
7 write(3, \"\\x61\\x62\\x63\\x64\", 4) = 4
8 openat(AT_FDCWD, \"\\x2f\\x72\", O_RDONLY|O_CLOEXEC <unfinished ...>
7 fsync(3) = 0
8 <... openat resumed>) = 4
7 renameat2(AT_FDCWD, \"\\x2f\\x72\\x2f\\x74\", AT_FDCWD, \"\\x2f\\x72\\x2f\\x6f\", RENAME_NOREPLACE) = 0
7 unlink(\"\\x2f\\x72\\x2f\\x7a\") = -1 ENOENT (No such file or directory)
8 fsync(4) = 0
7 write(1, \"\\x64\\x6f\\x6e\\x65\\x0a\", 5) = 5
";

fn path(text: &str) -> PathBuf {
    text.into()
}

fn recording() -> Recording {
    parse(STORE, Path::new("/r"), Files::default())
}

/// All images: the files, and whether the program had said that it was done.
fn images(recording: &Recording) -> Vec<(Vec<(String, Vec<u8>)>, bool)> {
    let mut found = Vec::new();
    Images::new(recording, &[], 3).each(|image| {
        let files = image.files.files.iter();
        let files = files.map(|(path, bytes)| (path.display().to_string(), bytes.to_vec()));
        found.push((files.collect(), image.said == ["done\n"]));
    });
    found
}

/// Calls of several threads, split lines, failed calls and output are understood.
#[test]
fn traces_are_read() {
    let actions: Vec<Action> = recording().operations.into_iter().map(|op| op.action).collect();
    let file = FileId(0);
    let expected = [
        Action::Create(path("t")),
        Action::Write(file, 0, b"abcd".to_vec()),
        Action::SyncFile(file),
        Action::Rename(path("t"), path("o")),
        Action::SyncFolder(path("")),
        Action::Say("done\n".into()),
    ];
    assert_eq!(actions, expected);
    let state = Images::new(&recording(), &[], 0).final_state();
    let file = (path("o"), Arc::new(b"abcd".to_vec()));
    assert_eq!(state.files.into_iter().collect::<Vec<_>>(), [file]);
}

/// A file that is synced before it gets its name is there whole or not at all, and it is there once it was said.
#[test]
fn a_correct_program_leaves_whole_files() {
    let images = images(&recording());
    let (mut torn, mut early, mut late) = (0, 0, 0);
    for (files, said) in &images {
        let named = files.iter().find(|(name, _)| name == "o");
        assert!(named.is_none_or(|(_, bytes)| bytes == b"abcd"), "{files:?}");
        assert!(named.is_some() || !said, "it was said and is gone: {files:?}");
        torn += usize::from(files.iter().any(|(name, bytes)| name == "t" && bytes.len() < 4));
        early += usize::from(named.is_some() && !said);
        late += usize::from(*said);
    }
    assert!(torn > 0 && early > 0 && late > 0, "{images:?}");
}

/// The same program without one of its syncs is caught: a name without its bytes, or a promise that is broken.
#[test]
fn a_missing_sync_is_seen() {
    let (no_file_sync, left_out) = recording().without_sync(0).unwrap();
    assert!(matches!(left_out, Action::SyncFile(_)));
    let broken = |(files, _): &(Vec<(String, Vec<u8>)>, bool)| {
        files.iter().any(|(name, bytes)| name == "o" && bytes != b"abcd")
    };
    let found = images(&no_file_sync);
    assert!(found.iter().any(broken));
    let zeros = |(files, _): &(Vec<(String, Vec<u8>)>, bool)| {
        files.iter().any(|(name, bytes)| name == "o" && **bytes == [0; 4])
    };
    assert!(found.iter().any(zeros), "a length without its bytes: {found:?}");

    let (no_folder_sync, left_out) = recording().without_sync(1).unwrap();
    assert!(matches!(left_out, Action::SyncFolder(_)));
    let gone = |(files, said): &(Vec<(String, Vec<u8>)>, bool)| {
        *said && !files.iter().any(|(name, _)| name == "o")
    };
    assert!(images(&no_folder_sync).iter().any(gone));
    assert!(recording().without_sync(2).is_none());
}

/// A sync that began before a change returned promises nothing about it.
#[test]
fn a_sync_in_flight_covers_nothing_later() {
    let trace = STORE
        .replace("8 fsync(4) = 0\n", "8 <... fsync resumed>) = 0\n")
        .replace("7 renameat2", "8 fsync(4 <unfinished ...>\n7 renameat2");
    let recording = parse(&trace, Path::new("/r"), Files::default());
    let lost = |(files, said): &(Vec<(String, Vec<u8>)>, bool)| {
        *said && !files.iter().any(|(name, _)| name == "o")
    };
    assert!(images(&recording).iter().any(lost));
}

/// What was there before the recording is durable, and a replaced file is the old or the new one.
#[test]
fn a_replaced_file_is_old_or_new() {
    let mut start = Files::default();
    start.files.insert(path("o"), Arc::new(b"old".to_vec()));
    let trace = STORE.replace("renameat2", "renameat").replace(", RENAME_NOREPLACE", "");
    let recording = parse(&trace, Path::new("/r"), start);
    let mut seen = BTreeSet::new();
    for (files, said) in images(&recording) {
        let (_, bytes) = files.iter().find(|(name, _)| name == "o").expect("one of the two");
        assert!(!said || bytes == b"abcd");
        seen.insert(bytes.clone());
    }
    assert_eq!(seen, BTreeSet::from([b"old".to_vec(), b"abcd".to_vec()]));
}

/// Calls that the model does not know are refused where they concern the root.
#[test]
#[should_panic(expected = "the model does not know")]
fn unknown_calls_are_refused() {
    let trace = format!("{STORE}7 truncate(\"\\x2f\\x72\\x2f\\x6f\", 0) = 0\n");
    parse(&trace, Path::new("/r"), Files::default());
}
