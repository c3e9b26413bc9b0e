//! Options, and what each subcommand does with them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use leveret_benches::bare::{BareOutcome, round_trip, write_loop};
use leveret_benches::client::{Argument, Endpoint};
use leveret_benches::clock::SECOND_NS;
use leveret_benches::error::BenchError;
use leveret_benches::load::{AckMode, Limit, Plan, run as run_load};
use leveret_benches::suite::Suite;
use leveret_benches::suite::contender::Rival;
use leveret_benches::suite::growth;
use serde_json::Value;

/// Load generator for any AMQP 0-9-1 broker
#[derive(Debug, Parser)]
#[command(name = "leveret-bench", version, about)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Puts one load on one broker
    Run(Box<RunOptions>),
    /// Runs the table of loads on a Leveret and a floor started here, and on brokers that run
    Suite(SuiteOptions),
    /// Measures how the cost of a message grows with queues, connections and backlogs
    Growth(BrokerOptions),
    /// Measures what durability costs at least on this disk
    #[command(subcommand)]
    Bare(BareCommand),
}

#[derive(Debug, Args)]
struct RunOptions {
    /// Host name or address of the broker
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port of the broker
    #[arg(long, default_value_t = 5672)]
    port: u16,
    /// User name
    #[arg(long, default_value = "guest")]
    user: String,
    /// Password
    #[arg(long, default_value = "guest")]
    password: String,
    /// Virtual host
    #[arg(long, default_value = "/")]
    vhost: String,
    /// Publishing connections
    #[arg(long, default_value_t = 1)]
    producers: usize,
    /// Consuming connections
    #[arg(long, default_value_t = 1)]
    consumers: usize,
    /// Queues, dealt in turn to producers and to consumers
    #[arg(long, default_value_t = 1)]
    queues: usize,
    /// Publish to a fanout exchange that every queue is bound to
    #[arg(long)]
    fanout: bool,
    /// Bytes of body
    #[arg(long, value_name = "BYTES", default_value_t = 16)]
    body_size: usize,
    /// Messages a second of all producers together; without it as many as possible
    #[arg(long)]
    rate: Option<u64>,
    /// Measured seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    duration: f64,
    /// Seconds before the measured ones
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    warmup: f64,
    /// Instead of a duration: end when this many messages are through
    #[arg(long, conflicts_with_all = ["duration", "warmup"])]
    count: Option<u64>,
    /// Publisher confirms, with at most this many messages in flight per producer
    #[arg(long, value_name = "WINDOW")]
    confirms: Option<u32>,
    /// Persistent messages (delivery mode 2)
    #[arg(long)]
    persistent: bool,
    /// Durable queues
    #[arg(long)]
    durable: bool,
    /// Acknowledge after every N deliveries (1: each by itself; more: with `multiple`); without it
    /// the broker needs no acks
    #[arg(long, value_name = "N")]
    ack: Option<u32>,
    /// Prefetch count of each consumer; 0 is no limit
    #[arg(long, default_value_t = 0)]
    prefetch: u16,
    /// An argument of every queue, such as x-max-length=1000; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_argument)]
    queue_argument: Vec<(String, Argument)>,
    /// Names of queues and of the exchange begin with this; they are deleted at the end
    #[arg(long, default_value = "b")]
    prefix: String,
    /// Threads that publish
    #[arg(long, default_value_t = 1)]
    producer_threads: usize,
    /// Threads that consume
    #[arg(long, default_value_t = 1)]
    consumer_threads: usize,
    /// Take delivery latencies though no rate is given (with one they are always taken)
    #[arg(long)]
    latency: bool,
    /// Process id of the broker, if it runs here: its CPU time and memory are reported too
    #[arg(long)]
    pid: Option<u32>,
    /// No line per second on standard error
    #[arg(long, short)]
    quiet: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct SuiteOptions {
    #[command(flatten)]
    broker: BrokerOptions,
    /// How often everything is run; the table shows medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only this row; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

/// What the suite and the growth table have in common.
#[derive(Debug, Args)]
struct BrokerOptions {
    /// A broker that runs, as NAME=HOST:PORT or, to see its CPU time and memory, NAME=HOST:PORT,PID.
    /// The suite takes several; the growth table takes one instead of Leveret
    #[arg(long, value_name = "NAME=ADDR[,PID]", value_parser = Rival::parse)]
    against: Vec<Rival>,
    /// The leveret to start; the one beside this program if none is named
    #[arg(long, value_name = "PROGRAM")]
    leveret: Option<PathBuf>,
    /// One more option for it; may be given several times
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    leveret_option: Vec<String>,
    /// Where it keeps its data and the bare loop writes: a directory on a real disk
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Measured seconds of each load
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    duration: f64,
    /// Seconds before the measured ones
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    warmup: f64,
    /// Write all results there as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum BareCommand {
    /// A TCP round trip with a write + fdatasync in its middle, one after the other
    RoundTrip(BareOptions),
    /// write + fdatasync, one after the other
    Write {
        #[command(flatten)]
        options: BareOptions,
        /// Bytes of each write, in whole blocks of 4096
        #[arg(long, value_name = "BYTES", default_value_t = 65536)]
        write_size: usize,
    },
}

#[derive(Debug, Args)]
struct BareOptions {
    /// Where the file to write is made (64 MiB), and removed at the end
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Measured seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    duration: f64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn parse_argument(text: &str) -> Result<(String, Argument), String> {
    let (key, value) = text.split_once('=').ok_or("an argument is KEY=VALUE")?;
    if key.is_empty() || 255 < key.len() {
        return Err("a key has 1 to 255 bytes".into());
    }
    Ok((key.into(), Argument::parse(value)))
}

/// Seconds as the clock counts them.
fn nanoseconds(seconds: f64) -> Result<u64, BenchError> {
    if !(0.0..=1e6).contains(&seconds) {
        return Err(BenchError::Setting("a time is 0 to 1000000 seconds".into()));
    }
    let duration = std::time::Duration::from_secs_f64(seconds);
    Ok(duration.as_secs() * SECOND_NS + u64::from(duration.subsec_nanos()))
}

impl RunOptions {
    fn into_plan(self) -> Result<Plan, BenchError> {
        let limit = match self.count {
            Some(count) => Limit::Count(count),
            None => Limit::Time {
                run_ns: nanoseconds(self.duration)?,
                warmup_ns: nanoseconds(self.warmup)?,
            },
        };
        let address = if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        };
        let (user, password, vhost) = (self.user, self.password, self.vhost);
        let endpoint = Endpoint { address, user, password, vhost };
        Ok(Plan {
            producers: self.producers,
            consumers: self.consumers,
            queues: self.queues,
            fanout: self.fanout,
            body_size: self.body_size,
            rate: self.rate,
            limit,
            confirm_window: self.confirms,
            persistent: self.persistent,
            durable: self.durable,
            ack: self.ack.map_or(AckMode::Auto, AckMode::Every),
            prefetch: self.prefetch,
            queue_arguments: self.queue_argument,
            prefix: self.prefix,
            producer_threads: self.producer_threads,
            consumer_threads: self.consumer_threads,
            latency: self.latency,
            pid: self.pid,
            live: !self.quiet,
            ..Plan::new(endpoint)
        })
    }
}

/// Does what the command line says.
pub(crate) fn run() -> Result<(), BenchError> {
    match Options::parse().command {
        Command::Run(options) => {
            let json = options.json;
            let plan = options.into_plan()?;
            let outcome = run_load(&plan)?;
            if json {
                println!("{:#}", outcome.to_json(&plan));
            } else {
                println!("{}", outcome.summary());
            }
        }
        Command::Suite(options) => run_suite(options)?,
        Command::Growth(options) => run_growth(options)?,
        Command::Bare(BareCommand::RoundTrip(options)) => {
            let outcome = round_trip(&options.directory, nanoseconds(options.duration)?)?;
            print_bare(&outcome, options.json);
        }
        Command::Bare(BareCommand::Write { options, write_size }) => {
            let run_ns = nanoseconds(options.duration)?;
            print_bare(&write_loop(&options.directory, write_size, run_ns)?, options.json);
        }
    }
    Ok(())
}

impl BrokerOptions {
    fn into_suite(self, rounds: usize, only: Vec<String>) -> Result<Suite, BenchError> {
        Ok(Suite {
            rivals: self.against,
            leveret: self.leveret,
            leveret_options: self.leveret_option,
            directory: self.directory,
            run_ns: nanoseconds(self.duration)?,
            warmup_ns: nanoseconds(self.warmup)?,
            rounds,
            only,
        })
    }
}

fn run_suite(options: SuiteOptions) -> Result<(), BenchError> {
    let json = options.broker.json.clone();
    let suite = options.broker.into_suite(options.rounds, options.only)?;
    let table = suite.run(|line| eprintln!("{line}"))?;
    println!("{}", table.to_markdown());
    write_json(json, &table.to_json())
}

fn run_growth(options: BrokerOptions) -> Result<(), BenchError> {
    let json = options.json.clone();
    let rows = options.into_suite(1, Vec::new())?.run_growth(|line| eprintln!("{line}"))?;
    println!("{}", growth::to_markdown(&rows));
    write_json(json, &growth::to_json(&rows))
}

/// Writes results where the option says, if it does.
fn write_json(path: Option<PathBuf>, value: &Value) -> Result<(), BenchError> {
    let Some(path) = path else { return Ok(()) };
    let written = std::fs::write(&path, format!("{value:#}\n"));
    written.map_err(|source| BenchError::io(format!("write {}", path.display()), source))
}

fn print_bare(outcome: &BareOutcome, json: bool) {
    if json {
        println!("{:#}", outcome.to_json());
    } else {
        println!("{}", outcome.summary());
    }
}
