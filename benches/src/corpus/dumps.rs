//! Three consecutive dumps of one busy PostgreSQL database.

use super::home::once;
use super::{Place, Scale};
use crate::Result;
use crate::measure::{Invocation, run_all};
use std::path::{Path, PathBuf};

/// Makes `0.sql`, `1.sql` and `2.sql` if they are not there yet, with `dumps.sh` beside this crate.
pub fn dumps(place: &Place, scale: &Scale) -> Result<PathBuf> {
    once(&place.corpus(scale, "dumps"), |making| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("dumps.sh");
        let make = Invocation::new("bash")
            .args([script.as_os_str(), making.as_os_str()])
            .args([scale.dump_rows.to_string()]);
        run_all(&[make], &making.with_extension("log")).map(drop)
    })
}
