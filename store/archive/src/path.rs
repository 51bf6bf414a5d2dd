//! Paths and keys of the manifest.
//!
//! A key is a path's components joined by 0x00, without the leading `/`; the root directory is the empty key.
//! Sorted as bytes, a directory stands right before everything below it, and a walk that sorts each directory's
//! names as bytes meets the keys in ascending order. Names are any bytes but 0x00 and `/`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use stillpoint_store::{Error, Result};

/// What stands between two components of a key.
pub const SEPARATOR: u8 = 0;

/// Longest name of one file that this program accepts from a repository; Linux allows 255 bytes.
pub const NAME_BYTES_MAX: usize = 4096;

/// The key of an absolute path. `.` and doubled slashes vanish.
///
/// # Errors
/// `Invalid` for a relative path, one with `..`, or one with a 0x00.
pub fn key_from_path(path: &Path) -> Result<Vec<u8>> {
    let invalid =
        |why: &str| Error::Invalid(format!("path {} {why}", path.as_os_str().to_string_lossy()));
    if !path.is_absolute() {
        return Err(invalid("is not absolute"));
    }
    let mut key = Vec::with_capacity(path.as_os_str().len());
    for component in path.components() {
        match component {
            Component::Normal(name) if name.as_bytes().contains(&SEPARATOR) => {
                return Err(invalid("contains a zero byte"));
            }
            Component::Normal(name) => push_name(&mut key, name.as_bytes()),
            Component::ParentDir => return Err(invalid("contains ..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(key)
}

/// The absolute path of a key. For a key that fails [`check_key`] the path is for display only.
pub fn path_from_key(key: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(key.len() + 1);
    bytes.push(b'/');
    bytes.extend(key.iter().map(|byte| if *byte == SEPARATOR { b'/' } else { *byte }));
    PathBuf::from(OsStr::from_bytes(&bytes))
}

/// Appends one name to a key, in place.
pub fn push_name(key: &mut Vec<u8>, name: &[u8]) {
    if !key.is_empty() {
        key.push(SEPARATOR);
    }
    key.extend_from_slice(name);
}

/// The key of `name` in the directory `parent`.
pub fn child_key(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(parent.len() + 1 + name.len());
    key.extend_from_slice(parent);
    push_name(&mut key, name);
    key
}

/// The key of the directory that holds this one; None for the root.
pub fn parent_key(key: &[u8]) -> Option<&[u8]> {
    if key.is_empty() {
        return None;
    }
    let end = key.iter().rposition(|byte| *byte == SEPARATOR).unwrap_or(0);
    key.get(..end)
}

/// The last component; empty for the root.
pub fn file_name(key: &[u8]) -> &[u8] {
    key.rsplit(|byte| *byte == SEPARATOR).next().unwrap_or_default()
}

/// The components from the root downwards; none for the root itself.
pub fn components(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    key.split(|byte| *byte == SEPARATOR).filter(move |_| !key.is_empty())
}

/// Whether `key` lies below the directory `ancestor` (or is it).
pub fn is_within(key: &[u8], ancestor: &[u8]) -> bool {
    match key.strip_prefix(ancestor) {
        Some(rest) => ancestor.is_empty() || rest.first().is_none_or(|byte| *byte == SEPARATOR),
        None => false,
    }
}

/// The half-open key range of everything below a directory, without the directory; no end for the root.
pub fn below(directory: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    if directory.is_empty() {
        return (vec![SEPARATOR + 1], None);
    }
    let with = |last: u8| {
        let mut key = directory.to_vec();
        key.push(last);
        key
    };
    (with(SEPARATOR), Some(with(SEPARATOR + 1)))
}

/// Refuses a key that no walk gives: empty, `.` or `..` components, a `/`, or a name that is too long. Call it on
/// every key of a manifest before the key turns into a path on a file system.
///
/// # Errors
/// `Damaged`, naming the key.
pub fn check_key(key: &[u8]) -> Result<()> {
    let bad = |name: &[u8]| {
        name.is_empty()
            || name == b"."
            || name == b".."
            || name.contains(&b'/')
            || name.len() > NAME_BYTES_MAX
    };
    if components(key).any(bad) {
        return Err(Error::damaged(
            "manifest",
            format!("impossible path {:?}", path_from_key(key).as_os_str()),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 1..6).prop_map(|mut bytes| {
            bytes.iter_mut().filter(|b| matches!(**b, 0 | b'/')).for_each(|b| *b = 1);
            if bytes == b"." || bytes == b".." { b"dots".to_vec() } else { bytes }
        })
    }

    proptest! {
        // A path survives the way to its key and back, whatever bytes its names have.
        #[test]
        fn path_to_key_and_back(names in proptest::collection::vec(name(), 0..5)) {
            let mut path = PathBuf::from("/");
            names.iter().for_each(|name| path.push(OsStr::from_bytes(name)));
            let key = key_from_path(&path).unwrap();
            prop_assert_eq!(components(&key).map(<[u8]>::to_vec).collect::<Vec<_>>(), names.clone());
            prop_assert_eq!(path_from_key(&key), path);
            prop_assert!(check_key(&key).is_ok());
            match names.split_last() {
                Some((last, rest)) => {
                    prop_assert_eq!(file_name(&key), &last[..]);
                    let parent = parent_key(&key).unwrap();
                    prop_assert_eq!(components(parent).count(), rest.len());
                    prop_assert_eq!(child_key(parent, last), key);
                }
                None => prop_assert_eq!(parent_key(&key), None),
            }
        }

        // A walk that sorts names within each directory meets keys in byte order.
        #[test]
        fn walk_order_is_key_order(mut paths in proptest::collection::vec(proptest::collection::vec(name(), 0..4), 0..20)) {
            paths.sort(); // component-wise order is depth-first order
            let keys: Vec<Vec<u8>> = paths.iter().map(|names| {
                let mut key = Vec::new();
                names.iter().for_each(|name| push_name(&mut key, name));
                key
            }).collect();
            prop_assert!(keys.is_sorted());
        }

        // The range below a directory holds its descendants and nothing else.
        #[test]
        fn range_below_is_the_subtree(dir in proptest::collection::vec(name(), 0..3), other in proptest::collection::vec(name(), 0..4)) {
            let join = |names: &[Vec<u8>]| names.iter().fold(Vec::new(), |mut key, name| { push_name(&mut key, name); key });
            let (dir_key, key) = (join(&dir), join(&other));
            let (start, end) = below(&dir_key);
            let inside = key >= start && end.is_none_or(|end| key < end);
            prop_assert_eq!(inside, other.len() > dir.len() && other.starts_with(&dir));
            prop_assert_eq!(is_within(&key, &dir_key), other.starts_with(&dir));
        }
    }

    // Keys that could leave the target of a restore are refused.
    #[test]
    fn impossible_keys_are_refused() {
        for key in [&b".."[..], b"a\0..", b"a\0\0b", b"a\0", b"\0a", b".", b"a/b", &[b'x'; 5000]] {
            assert!(check_key(key).is_err(), "{key:?}");
        }
        assert!(check_key(b"").is_ok() && check_key(b"...\0\xff").is_ok());
    }

    #[test]
    fn relative_and_parent_paths_are_refused() {
        assert!(key_from_path(Path::new("a/b")).is_err());
        assert!(key_from_path(Path::new("/a/../b")).is_err());
        assert_eq!(key_from_path(Path::new("//a/./b/")).unwrap(), b"a\0b");
    }
}
