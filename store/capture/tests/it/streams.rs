//! Reading the streams of a dump as a backup would.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use stillpoint_archive::StreamSource;

/// Reads every stream to its end and lets it judge itself.
pub fn read(
    streams: Vec<Box<dyn StreamSource>>,
) -> stillpoint_store::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for mut stream in streams {
        let (name, mut bytes) = (stream.name().to_owned(), Vec::new());
        stream
            .read_to_end(&mut bytes)
            .map_err(|error| stillpoint_store::Error::io("reading", &name, error))?;
        stream.finish()?;
        assert!(files.insert(name, bytes).is_none(), "two streams of one name");
    }
    Ok(files)
}

/// Writes files into a directory, as a restore does.
pub fn write(files: &BTreeMap<String, Vec<u8>>, directory: &Path) -> Vec<PathBuf> {
    let write = |(name, bytes): (&String, &Vec<u8>)| {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    };
    files.iter().map(write).collect()
}
