//! The table: every load on every contender, in turn, several rounds in one session.
//!
//! Contenders alternate within each load, and who begins changes with the round, so that a machine
//! that gets slower or busier does so for all. What counts are ratios within one session.

pub mod contender;
pub mod growth;
pub mod table;
pub mod workload;

use std::path::PathBuf;

use self::contender::{Contender, Rival};
use self::growth::{BURDENS, GrowthRow};
use self::table::Table;
use self::workload::{Ceiling, Figures, WORKLOADS, Workload};
use crate::bare::round_trip;
use crate::error::BenchError;
use crate::load::{Limit, Plan, run as run_load};
use crate::process::ProcessSample;
use crate::report::Outcome;

/// What to run, and on whom.
#[derive(Clone, Debug)]
pub struct Suite {
    /// Brokers that run already.
    pub rivals: Vec<Rival>,
    /// The `leveret` to start; the one beside this program if none is named.
    pub leveret: Option<PathBuf>,
    /// More options for it.
    pub leveret_options: Vec<String>,
    /// Where it keeps its data, and where the bare loop writes. A real disk.
    pub directory: PathBuf,
    /// Measured time of each load.
    pub run_ns: u64,
    /// Time before it.
    pub warmup_ns: u64,
    /// How often everything is done.
    pub rounds: usize,
    /// Only these rows; all if empty.
    pub only: Vec<String>,
}

/// What one contender did in one row: a figure, and what it cost.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Each round's figures.
    pub rounds: Vec<Figures>,
    /// Each round's load, as JSON.
    pub outcomes: Vec<serde_json::Value>,
    /// CPU time for each message, each round.
    pub cpu_ns: Vec<f64>,
    /// Resident memory at the load's end, each round.
    pub rss_bytes: Vec<u64>,
    /// Why there is no figure, if a round failed.
    pub failure: Option<String>,
}

impl Cell {
    fn empty() -> Self {
        Self {
            rounds: Vec::new(),
            outcomes: Vec::new(),
            cpu_ns: Vec::new(),
            rss_bytes: Vec::new(),
            failure: None,
        }
    }

    fn add(&mut self, workload: &Workload, plan: &Plan, outcome: &Outcome) {
        self.rounds.push(workload.measure.figures(outcome));
        self.outcomes.push(outcome.to_json(plan));
        self.cpu_ns.extend(outcome.broker_cpu_ns_per_message());
        self.rss_bytes.extend(outcome.broker.map(|(sample, _)| sample.rss_bytes));
    }

    /// The median of all rounds, if there were any.
    pub fn median(&self) -> Option<Figures> {
        (!self.rounds.is_empty()).then(|| Figures::median(&self.rounds))
    }
}

impl Suite {
    /// Runs everything; `progress` is told each figure as it comes.
    ///
    /// # Errors
    /// A contender cannot be started, or a named row does not exist. A load that fails only leaves
    /// its cell empty.
    pub fn run(&self, mut progress: impl FnMut(&str)) -> Result<Table, BenchError> {
        let workloads = self.selected()?;
        let mut contenders = self.contenders()?;
        let mut table = Table::new(&workloads, &contenders);
        for (index, contender) in contenders.iter().enumerate() {
            let sample = contender.pid.map(ProcessSample::read).transpose()?;
            table.idle_rss_bytes[index] = sample.map(|sample| sample.rss_bytes);
        }
        for round in 0..self.rounds {
            for (row, workload) in workloads.iter().enumerate() {
                if workload.ceiling == Ceiling::RoundTrip {
                    table.bare[row].push(round_trip(&self.directory, self.run_ns)?.rate());
                }
                for turn in 0..contenders.len() {
                    let column = (turn + round) % contenders.len();
                    let contender = &mut contenders[column];
                    let cell = &mut table.cells[row][column];
                    self.run_cell(workload, contender, cell);
                    let figure = cell
                        .rounds
                        .last()
                        .map(|figures| workload::format_figures(workload.measure, *figures));
                    let figure = figure.or_else(|| cell.failure.clone());
                    if let Some(figure) = figure {
                        let round = round + 1;
                        progress(&format!(
                            "round {round}: {}, {}: {figure}",
                            workload.name, contender.name
                        ));
                    }
                }
            }
        }
        Ok(table)
    }

    /// Measures how cost grows, on the first rival or else on a Leveret started here.
    ///
    /// # Errors
    /// The broker cannot be started, refuses a burden or fails under it.
    pub fn run_growth(&self, progress: impl FnMut(&str)) -> Result<Vec<GrowthRow>, BenchError> {
        let contender = match self.rivals.first() {
            Some(rival) => Contender::rival(rival),
            None => self.start_leveret()?,
        };
        let limit = Limit::Time { run_ns: self.run_ns, warmup_ns: self.warmup_ns };
        growth::measure(&contender, BURDENS, limit, progress)
    }

    /// The rows to run.
    fn selected(&self) -> Result<Vec<&'static Workload>, BenchError> {
        let known = |name: &String| WORKLOADS.iter().any(|workload| workload.name == name);
        if let Some(unknown) = self.only.iter().find(|name| !known(name)) {
            let names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
            let names = names.join(", ");
            return Err(BenchError::Setting(format!("no row `{unknown}`; there are {names}")));
        }
        let wanted = |name: &str| self.only.is_empty() || self.only.iter().any(|only| only == name);
        Ok(WORKLOADS.iter().filter(|workload| wanted(workload.name)).collect())
    }

    fn contenders(&self) -> Result<Vec<Contender>, BenchError> {
        let mut contenders = vec![Contender::start_floor()?, self.start_leveret()?];
        contenders.extend(self.rivals.iter().map(Contender::rival));
        Ok(contenders)
    }

    fn start_leveret(&self) -> Result<Contender, BenchError> {
        let program = self.leveret.as_deref();
        Contender::start_leveret(program, &self.leveret_options, &self.directory)
    }

    fn run_cell(&self, workload: &Workload, contender: &mut Contender, cell: &mut Cell) {
        if contender.is_floor && workload.ceiling != Ceiling::Floor || cell.failure.is_some() {
            return;
        }
        let mut plan = Plan::new(contender.endpoint.clone());
        plan.limit = Limit::Time { run_ns: self.run_ns, warmup_ns: self.warmup_ns };
        plan.pid = contender.pid;
        (workload.configure)(&mut plan);
        match run_load(&plan) {
            Ok(outcome) => cell.add(workload, &plan, &outcome),
            Err(_) if contender.has_ended() => cell.failure = Some("the process ended".into()),
            Err(error) => cell.failure = Some(error.to_string()),
        }
    }
}
