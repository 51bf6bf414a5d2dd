//! The figures of a backup, as its record has them.

use crate::pipeline::{Built, Tally};
use stillpoint_store::record::Summary;
use stillpoint_store::write::Writer;

/// What the pipeline and the writer counted. Where a manifest was made from that of `base`, what was not looked at
/// counts as unmodified.
pub(super) fn of(built: &Built, base: Option<&Summary>, writer: &Writer) -> Summary {
    let (mut counts, stats) = (built.counts, writer.stats());
    if let (Some(grown), Some(base)) = (built.grown, base) {
        let rest = |before: [u64; 3], by: i64, now: Tally| {
            let all = before.iter().fold(0, |sum: u64, part| sum.saturating_add(*part));
            all.saturating_add_signed(by).saturating_sub(now.new.saturating_add(now.changed))
        };
        let files = [base.files_new, base.files_changed, base.files_unmodified];
        counts.files.unmodified = rest(files, grown.files, counts.files);
        let directories = [base.dirs_new, base.dirs_changed, base.dirs_unmodified];
        counts.directories.unmodified = rest(directories, grown.directories, counts.directories);
        counts.others.unmodified = rest([base.others, 0, 0], grown.others, counts.others);
        counts.bytes_total = built.root.bytes;
    }
    Summary {
        files_new: counts.files.new,
        files_changed: counts.files.changed,
        files_unmodified: counts.files.unmodified,
        dirs_new: counts.directories.new,
        dirs_changed: counts.directories.changed,
        dirs_unmodified: counts.directories.unmodified,
        others: counts.others.new + counts.others.changed + counts.others.unmodified,
        bytes_total: counts.bytes_total,
        bytes_read: counts.bytes_read,
        bytes_added: stats.bytes_new,
        bytes_stored: stats.bytes_stored,
        chunks_new: stats.chunks_new,
        duration_ns: 0,
        problems: counts.problems,
    }
}
