//! The comparison with peers: one command, one table.
//!
//! `cargo run --release -p stillpoint-benches --bin compare -- --size small --out docs/performance-small.md`

use clap::Parser;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use stillpoint_benches::corpus::{Place, Scale};
use stillpoint_benches::run::{Settings, prepare, run};
use stillpoint_benches::scenario::Data;
use stillpoint_benches::tool::{Tool, all};
use stillpoint_benches::{At, Failure, Result, report};

/// Compares stillpoint with other backup programs on the same data.
#[derive(Parser)]
struct Options {
    /// How much data: small, home or full.
    #[arg(long, default_value = "small")]
    size: String,
    /// The corpora, by comma: home, dumps, tiny, image [default: home,dumps; all of them with --size full].
    #[arg(long, value_delimiter = ',')]
    sets: Vec<String>,
    /// The tools, by comma [default: every one that is installed].
    #[arg(long, value_delimiter = ',')]
    tools: Vec<String>,
    /// The folder for corpora and, unless --work is given, for repositories.
    #[arg(long, default_value = "target/bench-data")]
    data: PathBuf,
    /// The folder for repositories and restored copies; its contents are removed.
    #[arg(long)]
    work: Option<PathBuf>,
    /// A folder with real files for the home-like tree; may be repeated.
    #[arg(long)]
    sources: Vec<PathBuf>,
    /// A folder with real packages; may be repeated.
    #[arg(long)]
    packages: Vec<PathBuf>,
    /// The private root that holds peers.
    #[arg(long, default_value = "target/peers")]
    peers: PathBuf,
    /// Only make the corpora.
    #[arg(long)]
    prepare: bool,
    /// The stillpoint program [default: beside this program].
    #[arg(long)]
    stillpoint: Option<PathBuf>,
    /// Open stillpoint's repository with a key file, as bupstash does, instead of a passphrase.
    #[arg(long)]
    key_file: bool,
    /// The zstd level for every tool that lets one choose.
    #[arg(long, default_value_t = 3)]
    level: u8,
    /// How often a repeatable step is run; the best figure counts.
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// Write the tables to this file too.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write the measurements as JSON lines to this file.
    #[arg(long)]
    raw: Option<PathBuf>,
}

fn main() -> ExitCode {
    match compare(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("compare: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<()> {
    let scale = match options.size.as_str() {
        "small" => Scale::small(),
        "home" => Scale::home(),
        "full" => Scale::full(),
        other => return Err(Failure::Other(format!("no such size: {other}"))),
    };
    let own = match &options.stillpoint {
        Some(path) => path.clone(),
        None => std::env::current_exe().at(Path::new("this program"))?.with_file_name("stillpoint"),
    };
    let tools = chosen_tools(options, &own)?;
    let settings = Settings {
        corpora: corpora(options),
        work: options.work.clone().unwrap_or_else(|| options.data.join("work")),
        scale,
        level: options.level,
        repeat: options.repeat.max(1),
        say: |what| eprintln!("{what}"),
    };
    if options.prepare {
        return chosen_data(options)?
            .into_iter()
            .try_for_each(|data| prepare(&settings, data).map(drop));
    }
    let mut text = heading(&settings, &tools);
    if options.key_file {
        text.push_str("stillpoint opens its repository with a key file.\n");
    }
    let mut raw = String::new();
    for data in chosen_data(options)? {
        let found = run(&settings, data, &tools)?;
        for measurement in &found {
            let line = serde_json::to_string(measurement).expect("plain numbers and words");
            writeln!(raw, "{line}").expect("a string takes everything");
        }
        text.push('\n');
        text.push_str(&report::section(data, &found));
        write(options.out.as_deref(), &text)?;
        write(options.raw.as_deref(), &raw)?;
    }
    println!("{text}");
    Ok(())
}

fn write(path: Option<&Path>, text: &str) -> Result<()> {
    path.map_or(Ok(()), |path| fs::write(path, text).at(path))
}

fn chosen_data(options: &Options) -> Result<Vec<Data>> {
    let default: &[&str] = if options.size == "full" {
        &["home", "dumps", "tiny", "image"]
    } else {
        &["home", "dumps"]
    };
    let names: Vec<&str> = if options.sets.is_empty() {
        default.to_vec()
    } else {
        options.sets.iter().map(String::as_str).collect()
    };
    let find = |name: &str| {
        Data::from_name(name).ok_or_else(|| Failure::Other(format!("no such corpus: {name}")))
    };
    names.into_iter().map(find).collect()
}

fn chosen_tools(options: &Options, own: &Path) -> Result<Vec<Box<dyn Tool>>> {
    let mut tools = all(&options.peers, own, options.key_file);
    if options.tools.is_empty() {
        tools.retain(|tool| version(tool.as_ref()).is_some());
        return Ok(tools);
    }
    tools.retain(|tool| options.tools.iter().any(|name| name == tool.name()));
    for name in &options.tools {
        let tool = tools.iter().find(|tool| tool.name() == name);
        if tool.and_then(|tool| version(tool.as_ref())).is_none() {
            return Err(Failure::Other(format!(
                "{name} is unknown or not installed; `make peers` installs peers"
            )));
        }
    }
    Ok(tools)
}

fn corpora(options: &Options) -> Place {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let mut sources = options.sources.clone();
    let mut packages = options.packages.clone();
    if sources.is_empty() {
        sources =
            vec![options.data.join("linux"), home.join(".cargo/registry/src"), "/usr/share".into()];
        if options.size == "small" {
            sources.remove(0);
        }
    }
    if packages.is_empty() {
        packages = vec![home.join(".cargo/registry/cache"), options.data.join("download")];
    }
    Place { data: options.data.clone(), sources, packages }
}

fn heading(settings: &Settings, tools: &[Box<dyn Tool>]) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor =
        processor.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown");
    let mut text = format!(
        "Size `{}`, zstd level {}, {cores} cores ({processor}), best of {} for repeatable steps.\nTools: ",
        settings.scale.name, settings.level, settings.repeat
    );
    let versions: Vec<_> = tools.iter().filter_map(|tool| version(tool.as_ref())).collect();
    text.push_str(&versions.join("; "));
    text.push_str(".\n");
    text
}

fn version(tool: &dyn Tool) -> Option<String> {
    let version = tool.version();
    let output = Command::new(&version.program).args(&version.args).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_string();
    output.status.success().then_some(if text.contains(char::is_alphabetic) {
        text
    } else {
        format!("{} {text}", tool.name())
    })
}
