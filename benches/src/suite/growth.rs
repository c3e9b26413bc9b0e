//! How the cost of a message grows with what else a broker holds.
//!
//! The same small load runs beside nothing, then beside burdens that have nothing to do with it:
//! queues declared, connections open, messages waiting. A broker whose every message costs the
//! same shows the same CPU time for each. The last rows let a backlog grow in the very queue: the
//! drain rate should stay what it was while publisher and consumer were in balance.

use std::fmt::Write;
use std::net::TcpStream;

use serde_json::{Value, json};

use super::contender::Contender;
use super::workload::format_rate;
use crate::client::{Client, Endpoint};
use crate::error::BenchError;
use crate::load::{Limit, Plan, run as run_load};
use crate::report::Outcome;

/// What a broker holds while the load runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Burden {
    /// Nothing.
    None,
    /// This many queues more.
    Queues(usize),
    /// This many connections more, each with a channel.
    Connections(usize),
    /// This many transient 16-byte messages in another queue.
    Waiting(u64),
    /// Four publishers for the one consumer.
    Backlog,
}

/// The burdens that are tried, lightest first of each kind.
pub const BURDENS: &[Burden] = &[
    Burden::None,
    Burden::Queues(1_000),
    Burden::Queues(100_000),
    Burden::Connections(1_000),
    Burden::Connections(10_000),
    Burden::Waiting(1_000_000),
    Burden::Waiting(10_000_000),
    Burden::Backlog,
];

/// Files a connection burden needs beyond its sockets.
const SPARE_FILES: u64 = 64;

impl Burden {
    fn title(self) -> String {
        match self {
            Self::None => "nothing else".into(),
            Self::Queues(count) => format!("{count} queues declared"),
            Self::Connections(count) => format!("{count} connections open"),
            Self::Waiting(count) => format!("{count} messages waiting"),
            Self::Backlog => "a backlog that grows: 4 publishers, 1 consumer".into(),
        }
    }

    /// The names of the queues it declares.
    fn queues(self) -> Vec<String> {
        let count = match self {
            Self::None | Self::Connections(_) | Self::Backlog => 0,
            Self::Queues(count) => count,
            Self::Waiting(_) => 1,
        };
        (0..count).map(|index| format!("burden-{index:06}")).collect()
    }
}

/// A burden and what the load cost beside it.
#[derive(Clone, Debug)]
pub struct GrowthRow {
    /// The burden.
    pub burden: Burden,
    /// The load.
    pub outcome: Outcome,
}

/// Runs the load beside each of `burdens` on `contender`.
///
/// # Errors
/// The broker refuses a burden or fails under it.
pub(crate) fn measure(
    contender: &Contender,
    burdens: &[Burden],
    limit: Limit,
    mut progress: impl FnMut(&str),
) -> Result<Vec<GrowthRow>, BenchError> {
    let mut rows = Vec::new();
    for &burden in burdens {
        let mut control = Client::connect(&contender.endpoint)?;
        let held = take_up(burden, &mut control, &contender.endpoint)?;
        let mut plan = Plan::new(contender.endpoint.clone());
        plan.limit = limit;
        plan.pid = contender.pid;
        if burden == Burden::Backlog {
            plan.producers = 4;
        }
        let outcome = run_load(&plan);
        drop(held);
        for queue in burden.queues() {
            control.delete_queue(&queue)?;
        }
        control.close()?;
        let outcome = outcome?;
        progress(&line(burden, &outcome));
        rows.push(GrowthRow { burden, outcome });
    }
    Ok(rows)
}

/// Puts a burden on the broker; the connections that must stay open.
fn take_up(
    burden: Burden,
    control: &mut Client,
    endpoint: &Endpoint,
) -> Result<Vec<TcpStream>, BenchError> {
    for queue in burden.queues() {
        control.declare_queue(&queue, false, &[])?;
    }
    match burden {
        Burden::None | Burden::Queues(_) | Burden::Backlog => Ok(Vec::new()),
        Burden::Connections(count) => {
            allow_files(count as u64 + SPARE_FILES)?;
            (0..count).map(|_| Ok(Client::connect(endpoint)?.into_parts().0)).collect()
        }
        Burden::Waiting(count) => {
            let mut plan = Plan::new(endpoint.clone());
            plan.limit = Limit::Count(count);
            plan.consumers = 0;
            plan.into_queue = burden.queues().pop();
            run_load(&plan)?;
            Ok(Vec::new())
        }
    }
}

/// Raises this process's limit of open files to what the system allows, if that is enough.
fn allow_files(count: u64) -> Result<(), BenchError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| count <= current) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|maximum| maximum < count) {
        return Err(BenchError::Setting(format!("{count} open files are not allowed here")));
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .map_err(|source| BenchError::io("raise the limit of open files", source))
}

fn line(burden: Burden, outcome: &Outcome) -> String {
    let cpu = outcome.broker_cpu_ns_per_message();
    let cpu = cpu.map_or("unknown".into(), |cpu| format!("{cpu:.0} ns"));
    format!(
        "{}: {cpu} CPU per message, published {}, delivered {}",
        burden.title(),
        format_rate(outcome.published_rate()),
        format_rate(outcome.delivered_rate())
    )
}

/// The rows for people; ratios are to the first, which is the load alone.
pub fn to_markdown(rows: &[GrowthRow]) -> String {
    let mut text = String::from(
        "| beside | CPU per message | to the smallest | published | delivered | to the first |\n",
    );
    text.push_str("|---|---|---|---|---|---|\n");
    let cpu = |row: &GrowthRow| row.outcome.broker_cpu_ns_per_message();
    let smallest = rows.iter().filter_map(cpu).fold(f64::INFINITY, f64::min);
    for row in rows {
        let (cost, ratio) = cpu(row).map_or(("?".into(), "?".into()), |cpu| {
            (format!("{cpu:.0} ns"), format!("{:.2}", cpu / smallest))
        });
        let delivered = row.outcome.delivered_rate();
        let _ = writeln!(
            text,
            "| {} | {cost} | {ratio} | {} | {} | {:.2} |",
            row.burden.title(),
            format_rate(row.outcome.published_rate()),
            format_rate(delivered),
            delivered / rows[0].outcome.delivered_rate()
        );
    }
    text
}

/// The rows for programs.
pub fn to_json(rows: &[GrowthRow]) -> Value {
    let rows = rows.iter().map(|row| {
        json!({
            "beside": row.burden.title(),
            "broker_cpu_ns_per_message": row.outcome.broker_cpu_ns_per_message(),
            "published_per_s": row.outcome.published_rate(),
            "delivered_per_s": row.outcome.delivered_rate(),
            "broker_rss_bytes": row.outcome.broker.map(|(sample, _)| sample.rss_bytes),
        })
    });
    rows.collect()
}
