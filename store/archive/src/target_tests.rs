use super::*;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

const BOTH: [Resolver; 2] = [Resolver::Openat2, Resolver::Stepwise];

fn target_in(base: &Path, resolver: Resolver) -> Target {
    Target::open(&base.join("target")).unwrap().with_resolver(resolver)
}

fn key(path: &str) -> Vec<u8> {
    path.bytes().map(|byte| if byte == b'/' { SEPARATOR } else { byte }).collect()
}

#[test]
fn links_below_the_target_are_never_followed() {
    // Whether the link is the last component or one before, absolute, relative or through ..: an error.
    for resolver in BOTH {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(base.path().join("outside/deep")).unwrap();
        std::fs::create_dir_all(base.path().join("target/real/deep")).unwrap();
        symlink(base.path().join("outside"), base.path().join("target/absolute")).unwrap();
        symlink("../outside", base.path().join("target/relative")).unwrap();
        symlink("real", base.path().join("target/inside")).unwrap();
        let target = target_in(base.path(), resolver);
        assert!(target.dir(&key("real/deep")).is_ok());
        for path in ["absolute", "absolute/deep", "relative/deep", "inside", "inside/deep"] {
            let error = target.dir(&key(path)).err().unwrap();
            assert!(matches!(error, Errno::LOOP | Errno::NOTDIR), "{path}: {error}");
        }
        for path in ["..", "real/../..", "/etc", "real//deep", "."] {
            assert!(target.dir(&key(path)).is_err(), "{path} was accepted");
        }
        assert_eq!(target.dir(&key("missing")).err(), Some(Errno::NOENT));
    }
}

#[test]
fn paths_beyond_path_max_are_stepped_through() {
    // 40 components of 250 bytes: more than twice PATH_MAX, and a cold cache must get there as well.
    for resolver in BOTH {
        let base = tempfile::tempdir().unwrap();
        let name = vec![b'n'; 250];
        let mut deep = Vec::new();
        let target = target_in(base.path(), resolver);
        for _ in 0..40 {
            target.dir(&deep).unwrap().make_dir(&name).unwrap();
            crate::path::push_name(&mut deep, &name);
        }
        target.forget_open();
        target.dir(&deep).unwrap().create_file(b"file").unwrap().write_all_at(b"x", 0).unwrap();
        assert_eq!(target.dir(&deep).unwrap().stat(b"file").unwrap().unwrap().st_size, 1);
        assert_eq!(target.root().remove_tree(&name).unwrap(), 41);
        assert!(target.root().names().unwrap().is_empty());
    }
}

#[test]
fn open_directories_are_bounded() {
    let base = tempfile::tempdir().unwrap();
    let target = target_in(base.path(), Resolver::Openat2);
    for number in 0..OPEN_DIRECTORIES_MAX * 2 {
        let name = number.to_string().into_bytes();
        target.root().make_dir(&name).unwrap();
        target.dir(&name).unwrap();
        assert!(target.open.lock().unwrap().len() <= OPEN_DIRECTORIES_MAX);
    }
}

#[test]
fn creation_is_exclusive() {
    // A planted link, pipe or file under the name is an error, and a pipe does not block.
    let base = tempfile::tempdir().unwrap();
    let target = target_in(base.path(), Resolver::Openat2);
    let root = target.root();
    root.make_node(b"link", Node::Symlink(b"/etc/passwd")).unwrap();
    root.make_node(b"pipe", Node::Fifo).unwrap();
    for name in [&b"link"[..], b"pipe"] {
        assert_eq!(root.create_file(name).err(), Some(Errno::EXIST));
        assert!(root.open_file(name, false).is_err());
    }
    let taken = std::cell::Cell::new(0);
    let (name, file) = root
        .with_temporary(|name| {
            taken.set(taken.get() + 1);
            if taken.get() == 1 { Err(Errno::EXIST) } else { root.create_file(name) }
        })
        .unwrap();
    assert_eq!(taken.get(), 2);
    drop(file);
    root.rename(&name, b"link").unwrap();
    assert_eq!(root.read_link(b"link").err(), Some(Errno::INVAL), "replaced by a file");
}

#[test]
fn removal_neither_follows_links_nor_tires_of_depth() {
    let base = tempfile::tempdir().unwrap();
    let kept = base.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    std::fs::write(kept.join("file"), "x").unwrap();
    let target = target_in(base.path(), Resolver::Openat2);
    let mut deep = Vec::new();
    for level in 0..300 {
        let dir = target.dir(&deep).unwrap();
        dir.make_node(b"link", Node::Symlink(kept.as_os_str().as_bytes())).unwrap();
        dir.create_file(format!("file {level}").as_bytes()).unwrap();
        dir.make_dir(b"down").unwrap();
        crate::path::push_name(&mut deep, b"down");
    }
    let locked = target.dir(&key("down/down")).unwrap();
    rustix::fs::fchmod(locked.fd(), Mode::empty()).unwrap();
    assert_eq!(target.root().remove_tree(b"down").unwrap(), 300 + 299 * 2);
    assert_eq!(target.root().remove_tree(b"link").unwrap(), 1);
    target.root().remove_tree(b"not there").unwrap();
    assert_eq!(std::fs::read(kept.join("file")).unwrap(), b"x");
}

fn entry(mode: u32) -> crate::Entry {
    crate::Entry {
        kind: crate::EntryKind::File(crate::Content::Inline(vec![])),
        mode,
        mtime: stillpoint_store::Timestamp { seconds: -5, nanos: 123_456_789 },
        ..Default::default()
    }
}

#[test]
fn metadata_survives_in_the_right_order() {
    // Setuid after the owner, attributes on a file without write permission, times before the epoch.
    let base = tempfile::tempdir().unwrap();
    let target = target_in(base.path(), Resolver::Openat2);
    let path = base.path().join("target/file");
    let file = target.root().create_file(b"file").unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    let root = meta.uid() == 0;
    let mut entry = entry(0o4555);
    (entry.uid, entry.gid) = if root { (12345, 54321) } else { (meta.uid(), meta.gid()) };
    entry.xattrs = vec![(b"user.one".to_vec(), b"1".to_vec())];
    let writer = MetadataWriter { ownership: Ownership::Numeric, ..Default::default() };
    let fd = std::os::fd::AsFd::as_fd(&file);
    writer.apply(fd, &entry, Fresh::made_in(target.root()), &|| path.clone()).unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (entry.uid, entry.gid));
    assert_eq!(meta.permissions().mode() & 0o7777, 0o4555);
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (-5, 123_456_789));
    // Set again with other attributes: the old ones go.
    entry.xattrs = vec![(b"user.two".to_vec(), b"2".to_vec())];
    writer.apply(fd, &entry, Fresh::No, &|| path.clone()).unwrap();
    let mut list = [0u8; 256];
    let length = rustix::fs::flistxattr(fd, &mut list[..]).unwrap();
    let kept = writer.degraded.warnings().is_empty();
    assert!(!kept || list[..length].windows(8).any(|name| name == b"user.two"));
    assert!(!list[..length].windows(8).any(|name| name == b"user.one"));
}

#[test]
fn setuid_is_dropped_where_the_owner_is_another() {
    let base = tempfile::tempdir().unwrap();
    let target = target_in(base.path(), Resolver::Openat2);
    let path = base.path().join("target/file");
    let file = target.root().create_file(b"file").unwrap();
    let writer = MetadataWriter { ownership: Ownership::Mine, ..Default::default() };
    let fd = std::os::fd::AsFd::as_fd(&file);
    writer.apply(fd, &entry(0o6755), Fresh::made_in(target.root()), &|| path.clone()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
    let warnings = writer.degraded.warnings();
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].kind, DegradedKind::SetuidDropped);
}

#[test]
fn a_link_gets_its_own_metadata_not_that_of_its_target() {
    let base = tempfile::tempdir().unwrap();
    let target = target_in(base.path(), Resolver::Openat2);
    let victim = base.path().join("victim");
    std::fs::write(&victim, "x").unwrap();
    let before = std::fs::metadata(&victim).unwrap();
    target.root().make_node(b"link", Node::Symlink(victim.as_os_str().as_bytes())).unwrap();
    let node = target.root().open_node(b"link").unwrap();
    let mut entry = entry(0o777);
    entry.kind = crate::EntryKind::Symlink { target: vec![] };
    (entry.uid, entry.gid) = (before.uid(), before.gid());
    let writer = MetadataWriter { ownership: Ownership::Numeric, ..Default::default() };
    let fd = std::os::fd::AsFd::as_fd(&node);
    writer.apply_to_node(fd, &entry, &|| victim.clone()).unwrap();
    let link = std::fs::symlink_metadata(base.path().join("target/link")).unwrap();
    assert_eq!((link.mtime(), link.mtime_nsec()), (-5, 123_456_789));
    let after = std::fs::metadata(&victim).unwrap();
    assert_eq!((after.mtime(), after.mode()), (before.mtime(), before.mode()));
}
