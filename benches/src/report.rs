//! The table: absolute figures, and stillpoint's ratio to the best peer and to the limit.

use crate::run::Measurement;
use crate::scenario::{Data, steps};
use std::fmt::Write;

const OWN: &str = "stillpoint";
const LIMIT: &str = "limit";
const MEMORY_FIRST_GOAL_BYTES: f64 = 512.0 * 1024.0 * 1024.0;

/// What a row shows.
#[derive(Clone, Copy, PartialEq)]
enum Figure {
    Cpu,
    Wall,
    Peak,
    Repository,
}

impl Figure {
    fn title(self) -> &'static str {
        match self {
            Self::Cpu => "CPU s",
            Self::Wall => "wall s",
            Self::Peak => "peak MiB",
            Self::Repository => "repository MB",
        }
    }

    fn of(self, measurement: &Measurement) -> f64 {
        match self {
            Self::Cpu => measurement.cost.cpu_seconds,
            Self::Wall => measurement.cost.wall_seconds,
            Self::Peak => measurement.cost.peak_bytes as f64,
            Self::Repository => measurement.repository_bytes as f64,
        }
    }

    fn print(self, value: f64) -> String {
        match self {
            Self::Cpu | Self::Wall => format!("{value:.2}"),
            Self::Peak => format!("{:.0}", value / 1024.0 / 1024.0),
            Self::Repository => format!("{:.1}", value / 1e6),
        }
    }
}

/// A Markdown section for one corpus.
pub fn section(data: Data, measurements: &[Measurement]) -> String {
    let tools = tools(measurements);
    let mut text = format!("### {}\n\n| step | figure |", data.name());
    for tool in &tools {
        write!(text, " {tool} |").expect("a string takes everything");
    }
    text.push_str(" to best peer | to limit | first goal |\n|---|---|");
    text.push_str(&"---:|".repeat(tools.len() + 2));
    text.push_str("---|\n");
    let mut positions: Vec<_> = measurements.iter().map(|found| found.position).collect();
    positions.dedup();
    for position in positions {
        let step: Vec<_> = measurements.iter().filter(|found| found.position == position).collect();
        let changes_repository = step.iter().any(|found| found.step.starts_with("list"));
        for figure in [Figure::Cpu, Figure::Wall, Figure::Peak, Figure::Repository] {
            let grows = ["first", "unchanged", "backup", "dump", "drop"]
                .iter()
                .any(|word| step[0].step.starts_with(word));
            if figure == Figure::Repository && (!grows || changes_repository) {
                continue;
            }
            text.push_str(&row(data, figure, &step, &tools));
        }
    }
    for found in measurements.iter().filter(|found| !found.remark.is_empty()) {
        writeln!(text, "\n{}, {}: {}.", found.tool, found.step, found.remark)
            .expect("a string takes everything");
    }
    text
}

fn tools(measurements: &[Measurement]) -> Vec<String> {
    let mut tools: Vec<String> = Vec::new();
    for found in measurements {
        if !tools.contains(&found.tool) {
            tools.push(found.tool.clone());
        }
    }
    tools.sort_by_key(|tool| tool == LIMIT);
    tools
}

fn row(data: Data, figure: Figure, step: &[&Measurement], tools: &[String]) -> String {
    let of = |tool: &str| {
        let value = step.iter().find(|found| found.tool == tool).map(|found| figure.of(found));
        value.filter(|_| tool != LIMIT || figure == Figure::Cpu || figure == Figure::Wall)
    };
    let mut text = format!("| {} | {} |", step[0].step, figure.title());
    for tool in tools {
        write!(text, " {} |", of(tool).map_or("-".into(), |value| figure.print(value)))
            .expect("a string takes everything");
    }
    let peers = tools.iter().filter(|tool| *tool != OWN && *tool != LIMIT);
    let best = peers.filter_map(|tool| of(tool)).min_by(f64::total_cmp);
    let ratio = |other: Option<f64>| Some(of(OWN)? / other.filter(|value| *value > 0.0)?);
    let print = |ratio: Option<f64>| ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"));
    let goal = goal(data, figure, step[0]);
    let verdict = match (goal, of(OWN), ratio(best)) {
        (Some(Goal::Bytes(most)), Some(value), _) => holds(value <= most, "<= 512 MiB"),
        (Some(Goal::Ratio(most)), _, Some(ratio)) => holds(ratio <= most, &format!("<= {most}")),
        _ => String::new(),
    };
    writeln!(text, " {} | {} | {verdict} |", print(ratio(best)), print(ratio(of(LIMIT))))
        .expect("a string takes everything");
    text
}

fn holds(yes: bool, goal: &str) -> String {
    format!("{goal}: {}", if yes { "yes" } else { "**no**" })
}

enum Goal {
    Ratio(f64),
    Bytes(f64),
}

fn goal(data: Data, figure: Figure, measurement: &Measurement) -> Option<Goal> {
    let step = steps(data, true).into_iter().chain(steps(data, false));
    let step = step.into_iter().find(|step| step.title().as_deref() == Some(&measurement.step))?;
    let ratio = step.first_goal();
    match figure {
        Figure::Peak => Some(Goal::Bytes(MEMORY_FIRST_GOAL_BYTES)),
        Figure::Repository => Some(Goal::Ratio(1.0)),
        Figure::Wall => ratio.map(Goal::Ratio),
        // The goal for a restore is about elapsed time alone.
        Figure::Cpu => ratio.filter(|_| measurement.step != "restore").map(Goal::Ratio),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Cost;

    /// The ratio is taken to the best peer, not to the limit and not to itself, and the goal is judged by it.
    #[test]
    fn ratio_to_the_best_peer() {
        let found = |tool: &str, cpu_seconds| Measurement {
            data: "home".into(),
            position: 0,
            step: "first backup".into(),
            tool: tool.into(),
            cost: Cost { cpu_seconds, wall_seconds: 1.0, peak_bytes: 1 << 20 },
            repository_bytes: 10,
            remark: String::new(),
        };
        let all = [
            found("stillpoint", 2.0),
            found("restic", 8.0),
            found("borg", 4.0),
            found("limit", 1.0),
        ];
        let text = section(Data::Home, &all);
        let cpu = text.lines().find(|line| line.contains("CPU")).unwrap();
        assert_eq!(
            cpu,
            "| first backup | CPU s | 2.00 | 8.00 | 4.00 | 1.00 | 0.50 | 2.00 | <= 0.8: yes |"
        );
        let wall = text.lines().find(|line| line.contains("wall")).unwrap();
        assert!(wall.ends_with("1.00 | 1.00 | <= 0.8: **no** |"), "{wall}");
    }
}
