//! What is done with each corpus, as data.

use crate::corpus::Mutation;

/// A corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// The home-like tree.
    Home,
    /// Three dumps of one database, as streams.
    Dumps,
    /// The tree of tiny files.
    Tiny,
    /// The disk image.
    Image,
}

impl Data {
    /// The name on the command line and in headings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Dumps => "dumps",
            Self::Tiny => "tiny",
            Self::Image => "image",
        }
    }

    /// The corpus of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Home, Self::Dumps, Self::Tiny, Self::Image]
            .into_iter()
            .find(|data| data.name() == name)
    }
}

/// One step, which every tool takes before any tool takes the next.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// Change the tree.
    Mutate(Mutation),
    /// Change the disk image.
    ChangeImage,
    /// Back up the tree.
    Backup(Kind),
    /// Back up this dump from standard input.
    Stream(u8),
    /// Restore the newest snapshot and compare it.
    Restore,
    /// Write this dump, the newest snapshot, to a file and compare it.
    RestoreStream(u8),
    /// List the snapshots.
    List,
    /// Check with all data read.
    Check,
    /// Drop the older half of the snapshots and free their space.
    Prune,
}

/// What a backup finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An empty repository.
    First,
    /// Nothing changed.
    Unchanged,
    /// Something changed, in words.
    Changed(&'static str),
}

impl Step {
    /// The row's title; none for a step that is not measured.
    pub fn title(&self) -> Option<String> {
        match self {
            Self::Mutate(_) | Self::ChangeImage => None,
            Self::Backup(Kind::First) => Some("first backup".into()),
            Self::Backup(Kind::Unchanged) => Some("unchanged backup".into()),
            Self::Backup(Kind::Changed(what)) => Some(format!("backup after {what}")),
            Self::Stream(number) => Some(format!("dump {}", number + 1)),
            Self::Restore => Some("restore".into()),
            Self::RestoreStream(_) => Some("restore the last dump".into()),
            Self::List => Some("list snapshots".into()),
            Self::Check => Some("check, all data read".into()),
            Self::Prune => Some("drop half the snapshots and prune".into()),
        }
    }

    /// The first goal that counts as done: own figure over the best peer's, for CPU or wall time.
    pub fn first_goal(&self) -> Option<f64> {
        match self {
            Self::Backup(Kind::First) | Self::Restore => Some(0.8),
            Self::Backup(Kind::Unchanged) => Some(0.5),
            Self::Backup(Kind::Changed(_)) => Some(0.7),
            Self::Check | Self::Prune => Some(1.0),
            _ => None,
        }
    }
}

/// The steps for a corpus; `edits` adds the two rounds of small scattered edits.
pub fn steps(data: Data, edits: bool) -> Vec<Step> {
    let mutate = |seed, scattered_edits, moves| {
        Step::Mutate(Mutation { seed, scattered_edits, edit_one_in: 100, moves })
    };
    let mut steps = Vec::new();
    match data {
        Data::Home => {
            steps.extend([Step::Backup(Kind::First), Step::Backup(Kind::Unchanged), Step::Restore]);
            if edits {
                let ten = Kind::Changed("10 scattered edits, 1 % of files");
                let hundred = Kind::Changed("100 scattered edits, 1 % of files");
                steps.extend([
                    mutate(21, 10, false),
                    Step::Backup(ten),
                    mutate(22, 100, false),
                    Step::Backup(hundred),
                ]);
            }
            steps.extend([
                mutate(23, 100, true),
                Step::Backup(Kind::Changed("a day")),
                Step::Restore,
            ]);
            steps.extend([Step::List, Step::Check, Step::Prune, Step::Restore]);
        }
        Data::Dumps => {
            steps.extend((0..3).map(Step::Stream));
            steps.extend([
                Step::RestoreStream(2),
                Step::Check,
                Step::Prune,
                Step::RestoreStream(2),
            ]);
        }
        Data::Tiny => {
            steps.extend([Step::Backup(Kind::First), Step::Backup(Kind::Unchanged)]);
            steps
                .extend([mutate(24, 0, false), Step::Backup(Kind::Changed("1 % of files edited"))]);
            steps.extend([Step::Restore, Step::Check, Step::Prune]);
        }
        Data::Image => {
            steps.extend([Step::Backup(Kind::First), Step::ChangeImage]);
            steps.extend([Step::Backup(Kind::Changed("new blocks")), Step::Restore, Step::Check]);
        }
    }
    steps
}
