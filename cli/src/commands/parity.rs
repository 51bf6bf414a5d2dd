//! `stillpoint parity`: adds, shows and gives up what heals lost and damaged packs.

use crate::context::Context;
use crate::exit::Outcome;
use crate::failure::Problem;
use crate::progress::Progress;
use crate::text::{self, Align, Table};
use anyhow::Result;
use clap::{Args, Subcommand, value_parser};
use serde::Serialize;
use stillpoint_store::id::GroupId;
use stillpoint_store::parity::{
    GroupStatus, ParityOptions, ParityRemoval, ParityReport, ParityStatus,
};

/// Options of `parity`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Packs are gathered into groups of up to K, and each group gets M parity objects beside them: any M objects of a group \
may be lost, or damaged anywhere, and `stillpoint repair` puts them back byte for byte. 10 and 2 take 20% more space. \
Parity heals bad sectors and lost files; it is no second copy on another disk.

Parity covers what was stored before it was added: run `parity add` again after snapshots, from the same script. \
Everything else may go on meanwhile.

Examples:
  stillpoint parity add
  stillpoint parity add --data 20 --parity 3
  stillpoint parity status")]
pub struct ParityArgs {
    #[command(subcommand)]
    command: ParityCommand,
}

#[derive(Debug, Subcommand)]
enum ParityCommand {
    /// Add parity for all packs that have none yet
    Add(AddArgs),
    /// Show what is covered, and what each group could still lose
    Status,
    /// Give groups up and remove their parity; without IDs or --all those that protect nothing any more
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
struct AddArgs {
    /// Packs in a group, at most (1 to 128)
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = value_parser!(u16).range(1..=128))]
    data: u16,

    /// Parity objects of each group: as many of its objects may be lost (1 to 32)
    #[arg(long, value_name = "M", default_value_t = 2, value_parser = value_parser!(u16).range(1..=32))]
    parity: u16,

    /// Form groups anew that lost packs to a prune, have less parity, or are small enough to be put together
    #[arg(long)]
    regroup: bool,

    /// Show what would be done; change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct RemoveArgs {
    /// Groups to give up, by id or its first digits
    #[arg(value_name = "ID")]
    groups: Vec<String>,

    /// Give up all groups
    #[arg(long, conflicts_with = "groups")]
    all: bool,

    /// Show what would be removed; change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Adds, shows or gives up parity.
pub fn run(context: &Context, args: &ParityArgs) -> Result<Outcome> {
    match &args.command {
        ParityCommand::Add(args) => add(context, args),
        ParityCommand::Status => status(context),
        ParityCommand::Remove(args) => remove(context, args),
    }
}

fn packs(count: u64) -> String {
    text::count(count, "pack", "packs")
}

fn groups(count: u64) -> String {
    text::count(count, "group", "groups")
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn add(context: &Context, args: &AddArgs) -> Result<Outcome> {
    let AddArgs { data, parity, regroup, dry_run } = *args;
    let repository = context.open()?;
    let options = ParityOptions { data: data.into(), parity: parity.into(), regroup, dry_run };
    let progress = Progress::start(&context.output, &context.cancel, "parity");
    let report = repository.add_parity(&options, &|done, all| progress.set_items(done, all))?;
    progress.finish();
    for finding in &report.findings {
        #[derive(Serialize)]
        struct Found<'a> {
            object: Option<String>,
            message: &'a str,
        }
        let object = finding.object.map(|object| object.to_string());
        let place = object.as_deref().unwrap_or("repository");
        let detail = text::safe(&finding.detail);
        context.output.line(format!("damage: {place}: {detail}; no group covers it"))?;
        context.output.message("finding", &Found { object, message: &finding.detail })?;
    }
    show_added(context, &report, dry_run)?;
    Ok(Outcome::unless(!report.findings.is_empty()))
}

fn show_added(context: &Context, report: &ParityReport, dry_run: bool) -> Result<()> {
    #[derive(Serialize)]
    struct Summary {
        dry_run: bool,
        groups: u64,
        packs: u64,
        bytes_covered: u64,
        bytes_parity: u64,
        groups_dissolved: u64,
        groups_overtaken: u64,
        num_errors: u64,
    }
    let planned = &report.plan.form;
    let mut summary = Summary {
        dry_run,
        groups: report.groups,
        packs: report.packs,
        bytes_covered: report.data_bytes,
        bytes_parity: report.parity_bytes,
        groups_dissolved: report.dissolved,
        groups_overtaken: report.overtaken,
        num_errors: number(report.findings.len()),
    };
    if dry_run {
        summary.groups = number(planned.len());
        summary.packs = planned.iter().map(|group| number(group.packs.len())).sum();
        summary.bytes_covered = planned.iter().map(|group| group.data_bytes).sum();
        summary.bytes_parity = planned.iter().map(|group| group.parity_bytes).sum();
        summary.groups_dissolved = number(report.plan.dissolve.len());
    }
    let output = &context.output;
    if summary.groups == 0 && report.findings.is_empty() {
        output.say("nothing to add: every pack is in a group")?;
    } else {
        output.say(format!(
            "{} {} ({}) in {} with {} of parity",
            if dry_run { "would cover" } else { "covered" },
            packs(summary.packs),
            text::size(summary.bytes_covered),
            groups(summary.groups),
            text::size(summary.bytes_parity),
        ))?;
    }
    if summary.groups_dissolved > 0 {
        let verb = if dry_run { "would give up" } else { "gave up" };
        let what = groups(summary.groups_dissolved);
        output.say(format!("{verb} {what} that protected nothing, or nothing alone"))?;
    }
    if summary.groups_overtaken > 0 {
        output.say(format!("{} left to another run", groups(summary.groups_overtaken)))?;
    }
    if dry_run {
        output.say("dry run: nothing was changed")?;
    }
    output.message("summary", &summary)?;
    Ok(())
}

#[derive(Serialize)]
struct Group {
    id: String,
    packs: u64,
    live_packs: u64,
    bytes_covered: u64,
    parity_objects: u64,
    bytes_parity: u64,
    complete: bool,
    survives: Option<u64>,
    lost: Vec<String>,
}

impl From<&GroupStatus> for Group {
    fn from(group: &GroupStatus) -> Self {
        Self {
            id: group.id.to_string(),
            packs: group.packs,
            live_packs: group.live_packs,
            bytes_covered: group.data_bytes,
            parity_objects: group.parity,
            bytes_parity: group.parity_bytes,
            complete: group.is_complete,
            survives: group.survives,
            lost: group.lost.iter().map(ToString::to_string).collect(),
        }
    }
}

fn status(context: &Context) -> Result<Outcome> {
    let status = context.open()?.parity_status()?;
    let output = &context.output;
    let columns = [
        ("Group", Align::Left),
        ("Packs", Align::Right),
        ("Size", Align::Right),
        ("Parity", Align::Right),
        ("Size", Align::Right),
        ("Can lose", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for group in &status.groups {
        let losses = match group.survives {
            _ if !group.is_complete => "not complete yet".to_owned(),
            None => "lost too much".to_owned(),
            Some(0) => "nothing more".to_owned(),
            Some(count) => text::count(count, "object", "objects"),
        };
        table.row([
            short(group.id),
            text::grouped(group.live_packs),
            text::size(group.data_bytes),
            text::grouped(group.parity),
            text::size(group.parity_bytes),
            losses,
        ]);
    }
    if !status.groups.is_empty() {
        output.lines(table.lines())?;
        output.line("")?;
    }
    for group in &status.groups {
        for lost in &group.lost {
            output.line(format!("group {}: {lost} is missing or cut", short(group.id)))?;
        }
        output.message("parity_group", &Group::from(group))?;
    }
    summarise_status(context, &status)?;
    Ok(Outcome::Complete)
}

fn summarise_status(context: &Context, status: &ParityStatus) -> Result<()> {
    #[derive(Serialize)]
    struct Summary {
        groups: u64,
        packs_covered: u64,
        bytes_covered: u64,
        packs_uncovered: u64,
        bytes_uncovered: u64,
        bytes_parity: u64,
    }
    let summary = Summary {
        groups: number(status.groups.len()),
        packs_covered: status.covered_packs,
        bytes_covered: status.covered_bytes,
        packs_uncovered: number(status.uncovered.len()),
        bytes_uncovered: status.uncovered_bytes,
        bytes_parity: status.groups.iter().map(|group| group.parity_bytes).sum(),
    };
    let output = &context.output;
    output.line(format!(
        "{} ({}) covered by {} of parity",
        packs(summary.packs_covered),
        text::size(summary.bytes_covered),
        text::size(summary.bytes_parity)
    ))?;
    if summary.packs_uncovered > 0 {
        output.line(format!(
            "{} ({}) not covered; `stillpoint parity add` covers them",
            packs(summary.packs_uncovered),
            text::size(summary.bytes_uncovered)
        ))?;
    }
    output.message("summary", &summary)?;
    Ok(())
}

fn short(id: GroupId) -> String {
    id.to_string().chars().take(8).collect()
}

fn remove(context: &Context, args: &RemoveArgs) -> Result<Outcome> {
    #[derive(Serialize)]
    struct Summary {
        dry_run: bool,
        groups: u64,
        objects: u64,
        bytes: u64,
    }
    let repository = context.open()?;
    let which = if args.all {
        ParityRemoval::All
    } else if args.groups.is_empty() {
        ParityRemoval::Spent
    } else {
        let known: Vec<GroupId> = repository.head()?.parity_groups()?.into_keys().collect();
        let ids = args.groups.iter().map(|text| find(text, &known));
        ParityRemoval::Groups(ids.collect::<Result<_>>()?)
    };
    let dry_run = args.dry_run;
    let removed = repository.remove_parity(&which, dry_run)?;
    let output = &context.output;
    if removed.groups == 0 && removed.objects == 0 {
        output.say(match which {
            ParityRemoval::Spent => {
                "nothing to remove: every group protects something (--all gives all of them up)"
            }
            _ => "nothing to remove: there is no parity",
        })?;
    } else {
        output.say(format!(
            "{} {} and {} of parity",
            if dry_run { "would remove" } else { "removed" },
            groups(removed.groups),
            text::size(removed.bytes)
        ))?;
    }
    if dry_run {
        output.say("dry run: nothing was changed")?;
    }
    let (groups, objects, bytes) = (removed.groups, removed.objects, removed.bytes);
    output.message("summary", &Summary { dry_run, groups, objects, bytes })?;
    Ok(Outcome::Complete)
}

/// The group whose id begins so.
fn find(text: &str, known: &[GroupId]) -> Result<GroupId> {
    let wanted = text.to_ascii_lowercase();
    let mut matches =
        known.iter().filter(|id| !wanted.is_empty() && id.to_string().starts_with(&wanted));
    match (matches.next(), matches.next()) {
        (Some(id), None) => Ok(*id),
        (Some(_), Some(_)) => Err(Problem::failed(
            format!("{text:?} is the beginning of several groups"),
            "give more digits of the id",
        )),
        (None, _) => Err(Problem::failed(
            format!("no parity group begins with {text:?}"),
            "`stillpoint parity status` lists the groups",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Beginnings of ids name a group when they name only one.
    #[test]
    fn groups_are_found_by_their_first_digits() {
        let known: Vec<_> = [0x10, 0x11, 0xab]
            .into_iter()
            .map(|byte| {
                GroupId::from_bytes(std::array::from_fn(|at| if at == 0 { byte } else { 0 }))
            })
            .collect();
        assert_eq!(find("AB", &known).unwrap(), known[2]);
        assert_eq!(find(&known[1].to_string(), &known).unwrap(), known[1]);
        for wrong in ["", "1", "2", "xyz"] {
            assert!(find(wrong, &known).is_err(), "{wrong}");
        }
    }
}
