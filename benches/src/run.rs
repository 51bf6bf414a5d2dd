//! Takes every tool through every step of a scenario, in the same order on the same data.

use crate::corpus::{self, Scale};
use crate::measure::{Cost, Invocation, run_all};
use crate::same::{same_file, same_tree};
use crate::scenario::{Data, Step, steps};
use crate::tool::{Place, Tool};
use crate::{At, Failure, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// What a run needs to know.
pub struct Settings {
    /// Where corpora come from.
    pub corpora: corpus::Place,
    /// Where repositories and restored copies go; emptied before and after.
    pub work: PathBuf,
    /// How much of everything.
    pub scale: Scale,
    /// The zstd level.
    pub level: u8,
    /// How often a repeatable step is run; the best figure counts.
    pub repeat: u32,
    /// Tells the person what happens now.
    pub say: fn(&str),
}

/// One measured cell of the table.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Measurement {
    /// The corpus.
    pub data: String,
    /// The step's position within its scenario.
    pub position: usize,
    /// The step, in words.
    pub step: String,
    /// The tool; `limit` for what no backup tool can undercut.
    pub tool: String,
    /// What it cost.
    pub cost: Cost,
    /// Bytes in the repository afterwards.
    pub repository_bytes: u64,
    /// What was not restored exactly although the tool calls it done.
    pub remark: String,
}

/// One tool's state within a scenario.
struct Seat<'a> {
    tool: &'a dyn Tool,
    place: Place,
    labels: Vec<String>,
}

/// One corpus in work.
struct Table<'a> {
    settings: &'a Settings,
    data: Data,
    live: PathBuf,
    out: PathBuf,
    seats: Vec<Seat<'a>>,
}

/// Runs one corpus with these tools and gives every measurement.
///
/// # Errors
/// A tool that fails, and a restore that differs.
pub fn run(settings: &Settings, data: Data, tools: &[Box<dyn Tool>]) -> Result<Vec<Measurement>> {
    let mut table = Table::laid(settings, data, tools)?;
    let mut found = Vec::new();
    let mut restored_once = false;
    for (position, step) in steps(data, settings.scale.name == "small").into_iter().enumerate() {
        match step {
            Step::Mutate(mutation) => corpus::mutate(&table.live, mutation)?,
            Step::ChangeImage => corpus::change_image(&table.live)?,
            _ => found.extend(table.step(position, step)?),
        }
        if let Some(cost) = table.limit(step, restored_once)? {
            found.push(table.measurement(position, step, "limit", cost));
        }
        restored_once |= matches!(step, Step::Restore);
    }
    corpus::remove(&settings.work.join(data.name()))?;
    Ok(found)
}

/// Makes one corpus if it is not there yet, and gives its folder.
///
/// # Errors
/// A source that cannot be read, a program that is missing, a full disk.
pub fn prepare(settings: &Settings, data: Data) -> Result<PathBuf> {
    (settings.say)(&format!("{}: making the corpus", data.name()));
    match data {
        Data::Home => corpus::home(&settings.corpora, &settings.scale),
        Data::Dumps => corpus::dumps(&settings.corpora, &settings.scale),
        Data::Tiny => corpus::tiny(&settings.corpora, &settings.scale),
        Data::Image => corpus::image(&settings.corpora, &settings.scale),
    }
}

impl<'a> Table<'a> {
    fn laid(settings: &'a Settings, data: Data, tools: &'a [Box<dyn Tool>]) -> Result<Self> {
        let corpus = prepare(settings, data)?;
        let base = settings.work.join(data.name());
        corpus::remove(&base)?;
        fs::create_dir_all(&base).at(&base)?;
        let base = fs::canonicalize(&base).at(&base)?;
        let live = base.join("live");
        run_all(
            &[Invocation::new("cp").args(["-a"]).args([&corpus, &live])],
            &base.join("setup.log"),
        )?;
        let mut table = Self { settings, data, live, out: base.join("out"), seats: Vec::new() };
        for tool in tools {
            let seat = Seat::new(tool.as_ref(), &base, settings.level)?;
            run_all(&seat.tool.init(&seat.place), &seat.log())?;
            table.seats.push(seat);
        }
        Ok(table)
    }

    fn measurement(&self, position: usize, step: Step, tool: &str, cost: Cost) -> Measurement {
        Measurement {
            data: self.data.name().into(),
            position,
            step: step.title().unwrap_or_default(),
            tool: tool.into(),
            cost,
            repository_bytes: 0,
            remark: String::new(),
        }
    }

    fn step(&mut self, position: usize, step: Step) -> Result<Vec<Measurement>> {
        let mut found = Vec::new();
        for number in 0..self.seats.len() {
            let name = self.seats[number].tool.name();
            (self.settings.say)(&format!(
                "{}: {}: {name}",
                self.data.name(),
                step.title().unwrap_or_default()
            ));
            let mut best: Option<Cost> = None;
            let mut remark = String::new();
            for _ in 0..if repeatable(step) { self.settings.repeat } else { 1 } {
                let Some((cost, now)) = self.once(number, step)? else { break };
                best = Some(best.map_or(cost, |before| before.better(cost)));
                remark = now;
            }
            let Some(cost) = best else { continue };
            let mut measurement = self.measurement(position, step, name, cost);
            measurement.repository_bytes =
                corpus::tree_bytes(&self.seats[number].place.repository)?.1;
            measurement.remark = remark;
            found.push(measurement);
        }
        Ok(found)
    }

    /// Takes one step with one tool; none if the tool cannot do it.
    fn once(&mut self, number: usize, step: Step) -> Result<Option<(Cost, String)>> {
        let (live, out) = (self.live.clone(), self.out.clone());
        corpus::remove(&out)?;
        fs::create_dir_all(&out).at(&out)?;
        let seat = &mut self.seats[number];
        let stream = |dump: u8| live.join(format!("{dump}.sql"));
        let commands = match step {
            Step::Backup(_) => {
                let label = seat.next_label();
                seat.tool.backup(&seat.place, &label, &live)
            }
            Step::Stream(dump) => {
                let label = seat.next_label();
                seat.tool.backup_stream(&seat.place, &label, &stream(dump))
            }
            Step::Restore => seat.tool.restore(&seat.place, seat.newest(), &live, &out),
            Step::RestoreStream(_) => {
                seat.tool.restore_stream(&seat.place, seat.newest(), &out.join("dump.sql"))
            }
            Step::List => seat.tool.list(&seat.place),
            Step::Check => seat.tool.check(&seat.place),
            Step::Prune => {
                let dropped: Vec<_> = seat.labels.drain(..seat.labels.len() / 2).collect();
                seat.tool.prune(&seat.place, &dropped, seat.labels.len())
            }
            Step::Mutate(_) | Step::ChangeImage => Vec::new(),
        };
        if commands.is_empty() {
            return Ok(None);
        }
        let cost = run_all(&commands, &seat.log())?;
        let remark = match step {
            Step::Restore => verify(&live, &seat.tool.restored(&live, &out), seat.tool.name())?,
            Step::RestoreStream(dump) => {
                same_file(&stream(dump), &out.join("dump.sql"))?;
                String::new()
            }
            _ => String::new(),
        };
        corpus::remove(&out)?;
        Ok(Some((cost, remark)))
    }

    /// What no backup tool can undercut, measured on the same data.
    fn limit(&self, step: Step, restored_once: bool) -> Result<Option<Cost>> {
        use crate::scenario::Kind;
        let live = self.live.display();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let level = self.settings.level;
        let script = match step {
            Step::Backup(Kind::First) => format!(
                "tar -cf - '{live}' | zstd -q -{level} -T{cores} > '{}'",
                self.out.display()
            ),
            Step::Stream(dump) => {
                format!(
                    "zstd -q -{level} -T{cores} < '{live}/{dump}.sql' > '{}'",
                    self.out.display()
                )
            }
            Step::Backup(Kind::Unchanged) => {
                format!("find '{live}' -printf '%p %s %T@ %C@ %i\\n' > /dev/null")
            }
            Step::Restore if !restored_once => format!("cp -a '{live}' '{}'", self.out.display()),
            _ => return Ok(None),
        };
        corpus::remove(&self.out)?;
        let cost = run_all(
            &[Invocation::new("bash").args(["-c", &script])],
            &self.out.with_extension("log"),
        )?;
        if self.out.is_file() {
            fs::remove_file(&self.out).at(&self.out)?;
        }
        corpus::remove(&self.out)?;
        Ok(Some(cost))
    }
}

impl<'a> Seat<'a> {
    fn new(tool: &'a dyn Tool, base: &Path, level: u8) -> Result<Self> {
        let folder = base.join(tool.name());
        let home = folder.join("home");
        fs::create_dir_all(&home).at(&home)?;
        let passphrase = folder.join("passphrase");
        fs::write(
            &passphrase,
            "correct horse battery staple, and forty more characters of the same\n",
        )
        .at(&passphrase)?;
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&passphrase, owner_only).at(&passphrase)?;
        let place = Place { repository: folder.join("repository"), home, passphrase, level };
        Ok(Self { tool, place, labels: Vec::new() })
    }

    fn log(&self) -> PathBuf {
        self.place.home.with_extension("log")
    }

    fn next_label(&mut self) -> String {
        self.labels.push(format!("s{}", self.labels.len()));
        self.newest().to_string()
    }

    fn newest(&self) -> &str {
        self.labels.last().map_or("", String::as_str)
    }
}

fn repeatable(step: Step) -> bool {
    use crate::scenario::Kind;
    matches!(
        step,
        Step::Backup(Kind::Unchanged)
            | Step::Restore
            | Step::RestoreStream(_)
            | Step::List
            | Step::Check
    )
}

/// Compares a restored tree; stillpoint is held to times and owners too, the others get a remark.
fn verify(live: &Path, restored: &Path, tool: &str) -> Result<String> {
    let found = same_tree(live, restored)?;
    if found == crate::same::Differences::default() {
        return Ok(String::new());
    }
    let remark = format!("{} times and {} owners differ", found.times, found.owners);
    if tool == "stillpoint" {
        Err(Failure::Other(format!("stillpoint: restore: {remark}")))
    } else {
        Ok(remark)
    }
}
