//! The result of a suite, as markdown for people and as JSON for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::Cell;
use super::contender::Contender;
use super::workload::{Ceiling, Figures, Measure, Workload, format_bytes, format_figures};
use crate::clock::float;

/// Rows are loads, columns contenders; the first column is the floor, the second Leveret.
#[derive(Debug)]
pub struct Table {
    workloads: Vec<&'static Workload>,
    names: Vec<String>,
    /// By row, then column.
    pub(super) cells: Vec<Vec<Cell>>,
    /// By row: what the bare loop did in each round, if it is the row's ceiling.
    pub(super) bare: Vec<Vec<f64>>,
    /// By column: resident memory before the first load.
    pub(super) idle_rss_bytes: Vec<Option<u64>>,
}

/// The floor's column.
const FLOOR: usize = 0;
/// Leveret's column.
const LEVERET: usize = 1;

impl Table {
    pub(super) fn new(workloads: &[&'static Workload], contenders: &[Contender]) -> Self {
        Self {
            workloads: workloads.to_vec(),
            names: contenders.iter().map(|contender| contender.name.clone()).collect(),
            cells: vec![vec![Cell::empty(); contenders.len()]; workloads.len()],
            bare: vec![Vec::new(); workloads.len()],
            idle_rss_bytes: vec![None; contenders.len()],
        }
    }

    /// What limits a row on this machine.
    fn ceiling(&self, row: usize) -> Option<Figures> {
        match self.workloads[row].ceiling {
            Ceiling::Floor => self.cells[row][FLOOR].median(),
            Ceiling::RoundTrip => {
                let rounds: Vec<_> =
                    self.bare[row].iter().map(|&main| Figures { main, tail: None }).collect();
                (!rounds.is_empty()).then(|| Figures::median(&rounds))
            }
            Ceiling::None => None,
        }
    }

    /// Leveret's share of the ceiling; for latencies, how many times the ceiling's.
    fn ratio(&self, row: usize) -> Option<f64> {
        Some(self.cells[row][LEVERET].median()?.main / self.ceiling(row)?.main)
    }

    /// The table for people, medians of all rounds.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("{}\n\n| workload | limit |", machine_line());
        for name in &self.names[LEVERET..] {
            let _ = write!(text, " {name} |");
        }
        text.push_str(" Leveret to limit | goal | Leveret CPU per message |\n|---|");
        text.push_str(&"---|".repeat(self.names.len() + 3));
        text.push('\n');
        for (row, workload) in self.workloads.iter().enumerate() {
            let ceiling = self.ceiling(row).map_or(String::new(), |figures| {
                let bare = if workload.ceiling == Ceiling::RoundTrip { " (bare loop)" } else { "" };
                format_figures(workload.measure, figures) + bare
            });
            let _ = write!(text, "| {} | {ceiling} |", workload.title);
            for cell in &self.cells[row][LEVERET..] {
                let _ = write!(text, " {} |", cell_text(workload.measure, cell));
            }
            let ratio = self.ratio(row).map_or(String::new(), |ratio| format!("{ratio:.2}"));
            let cpu = median_of(&self.cells[row][LEVERET].cpu_ns);
            let cpu = cpu.map_or(String::new(), |cpu| format!("{cpu:.0} ns"));
            let _ = writeln!(text, " {ratio} | {} | {cpu} |", workload.goal);
        }
        self.write_memory(&mut text);
        text
    }

    /// The row of resident memory, if anything is known of it.
    fn write_memory(&self, text: &mut String) {
        let first = |column: usize| self.cells.first()?[column].rss_bytes.iter().max().copied();
        if self.idle_rss_bytes.iter().all(Option::is_none) {
            return;
        }
        let title = self.workloads.first().map_or("", |workload| workload.title);
        let both = |column: usize| {
            let show = |bytes: Option<u64>| bytes.map_or("?".into(), format_bytes);
            format!("{} / {}", show(self.idle_rss_bytes[column]), show(first(column)))
        };
        let _ = write!(text, "| resident memory: idle / after \"{title}\" | {} |", both(FLOOR));
        for column in LEVERET..self.names.len() {
            let _ = write!(text, " {} |", both(column));
        }
        text.push_str("  | 8 / 20 MB |  |\n");
    }

    /// Everything, each round of each cell with its whole outcome.
    pub fn to_json(&self) -> Value {
        let rows = self.workloads.iter().enumerate().map(|(row, workload)| {
            let cells = self.names.iter().zip(&self.cells[row]).map(|(name, cell)| {
                let median = cell.median();
                json!({
                    "contender": name,
                    "median": median.map(|figures| figures.main),
                    "median_p99": median.and_then(|figures| figures.tail),
                    "cpu_ns_per_message": median_of(&cell.cpu_ns),
                    "rounds": cell.outcomes,
                    "failure": cell.failure,
                })
            });
            json!({
                "workload": workload.name,
                "title": workload.title,
                "unit": if workload.measure.is_latency() { "us" } else { "messages/s" },
                "goal": workload.goal,
                "bare_loop_per_s": self.bare[row],
                "leveret_to_limit": self.ratio(row),
                "cells": cells.collect::<Vec<_>>(),
            })
        });
        let idle = self.names.iter().zip(&self.idle_rss_bytes);
        json!({
            "machine": machine_line(),
            "idle_rss_bytes": idle.map(|(name, bytes)| json!([name, bytes])).collect::<Vec<_>>(),
            "rows": rows.collect::<Vec<_>>(),
        })
    }
}

/// A cell as the table shows it.
fn cell_text(measure: Measure, cell: &Cell) -> String {
    match (&cell.failure, cell.median()) {
        (Some(failure), _) => failure.replace('|', "/"),
        (None, Some(figures)) => format_figures(measure, figures),
        (None, None) => String::new(),
    }
}

fn median_of(values: &[f64]) -> Option<f64> {
    let rounds: Vec<_> = values.iter().map(|&main| Figures { main, tail: None }).collect();
    (!rounds.is_empty()).then(|| Figures::median(&rounds).main)
}

/// Processor, cores, memory and kernel of this machine, as far as the system tells.
fn machine_line() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned())).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kilobytes: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
    format!(
        "{}, {cores} cores, {:.0} GB, Linux {}",
        field(&read("/proc/cpuinfo"), "model name"),
        float(kilobytes) / 1e6,
        read("/proc/sys/kernel/osrelease").trim()
    )
}
