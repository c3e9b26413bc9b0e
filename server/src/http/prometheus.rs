//! The metrics listener: `/metrics`, `/metrics/per-object` and `/metrics/detailed` as RabbitMQ's
//! Prometheus plugin serves them, and our own metrics beside.
//!
//! The whole node costs the event loop a few sums; single objects cost a row each, made a stretch
//! at a time. Channels do not count by exchange and queue: what RabbitMQ labels so is given for
//! the channel as a whole, without those labels.

mod figures;
mod own;
mod rabbitmq;
mod text;

use super::RABBITMQ_VERSION;
use super::auth::{Origin, Principal};
use super::node::ProcessState;
use super::overview::{ERLANG_VERSION, cluster_name_of};
use super::query::Query;
use super::response::{ApiError, Body, Outcome, empty, json_bytes, set};
use super::server::{Replying, Server, unix_ms};
use crate::broker::snapshot::{
    ChannelRow, DeadLetters, ExchangeRow, Logins, MessageStats, OverviewRow, Sums,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use figures::{ChannelFigures, ConnectionFigures, Node, QueueFigures};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use regex::{Regex, RegexBuilder};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;
use text::{Block, Column, Exposition, Kind, Table, float, labels, seconds};

/// How the metrics are served.
#[derive(Clone, Debug)]
pub struct PrometheusSettings {
    /// Where, e.g. `/metrics`.
    pub path: String,
    /// `/metrics` shows single objects.
    pub per_object: bool,
    /// A login with the tag `monitoring` is needed.
    pub authentication: bool,
}

/// What scrapes of one sort took so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Telemetry {
    count: u64,
    size: u64,
    duration_ns: u64,
}

/// Where each scrape's telemetry is kept, by [`Registry::name`].
pub(super) type Telemetries = BTreeMap<&'static str, Telemetry>;

/// What a scrape shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Registry {
    Aggregated,
    PerObject,
    Detailed,
}

impl Registry {
    /// As `registry` labels name it.
    fn name(self) -> &'static str {
        match self {
            Registry::Aggregated => "default",
            Registry::PerObject => "per-object",
            Registry::Detailed => "detailed",
        }
    }

    /// As `rabbitmq_endpoint` labels name it.
    fn endpoint(self) -> &'static str {
        match self {
            Registry::Aggregated => "aggregated",
            Registry::PerObject => "per-object",
            Registry::Detailed => "detailed",
        }
    }
}

/// The version of the text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4";
/// A pattern that compiles to more than this is refused.
const PATTERN_COMPILED_MAX: usize = 1 << 20; // bytes

/// The metrics listener.
pub(super) fn serve(server: Rc<Server>, origin: Origin, request: Request<Incoming>) -> Replying {
    Box::pin(async move {
        let mut response = match answer(&server, origin, &request).await {
            Ok(response) => response,
            Err(error) => error.into_response(),
        };
        set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        response
    })
}

async fn answer(server: &Rc<Server>, origin: Origin, request: &Request<Incoming>) -> Outcome {
    let settings = &server.settings.prometheus;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(ApiError::MethodNotAllowed("GET, HEAD".to_owned()));
    }
    let path = request.uri().path();
    if path == "/" {
        return Ok(landing_page(&settings.path));
    }
    let below = path.strip_prefix(settings.path.as_str()).ok_or(ApiError::NotFound)?;
    if settings.authentication {
        let principal = Principal::identify(&server.control, origin, request.headers()).await?;
        if !principal.is_monitor() {
            return Err(ApiError::NotAuthorised("Not monitor user"));
        }
    }
    let query = Query::parse(request.uri().query().unwrap_or(""));
    let registry = match below.trim_end_matches('/') {
        "" if settings.per_object => Registry::PerObject,
        "" => Registry::Aggregated,
        "/per-object" => Registry::PerObject,
        "/detailed" => Registry::Detailed,
        _ if below.starts_with('/') => return Ok(unknown_registry()),
        _ => return Err(ApiError::NotFound),
    };
    let started = Instant::now();
    let blocks = match registry {
        Registry::Aggregated => aggregated(server).await?,
        Registry::PerObject => per_object(server).await?,
        Registry::Detailed => detailed(server, &query).await?,
    };
    Ok(exposition(server, registry, started, blocks))
}

/// A word to whoever looks in with a browser.
fn landing_page(path: &str) -> Response<Body> {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Leveret</title>\
         </head><body><h1>Leveret metrics</h1><ul><li><a href=\"{path}\">{path}</a></li>\
         <li><a href=\"{path}/per-object\">{path}/per-object</a></li>\
         <li><a href=\"{path}/detailed?family=queue_coarse_metrics\">{path}/detailed</a></li>\
         </ul></body></html>\n"
    );
    let mut response = json_bytes(page.into_bytes());
    set(&mut response, header::CONTENT_TYPE, "text/html; charset=utf-8");
    response
}

fn unknown_registry() -> Response<Body> {
    let mut response = empty(StatusCode::NOT_FOUND);
    *response.body_mut() = Box::pin(Full::new(Bytes::from_static(b"Unknown Registry")));
    response
}

/// The reply of these blocks; what it took is told to the next scrape.
fn exposition(
    server: &Rc<Server>,
    registry: Registry,
    started: Instant,
    blocks: Vec<Block>,
) -> Response<Body> {
    let keeper = server.clone();
    let finish = move |size| {
        let mut telemetries = keeper.telemetries.borrow_mut();
        let telemetry = telemetries.entry(registry.name()).or_default();
        telemetry.count += 1;
        telemetry.size += size as u64;
        let duration_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        telemetry.duration_ns = telemetry.duration_ns.saturating_add(duration_ns);
    };
    let body: Body = match Exposition::new(blocks, Box::new(finish)).whole_or_rest() {
        Ok(text) => Box::pin(Full::new(Bytes::from(text))),
        Err(rest) => Box::pin(rest),
    };
    let mut response = Response::new(body);
    set(&mut response, header::CONTENT_TYPE, CONTENT_TYPE);
    set(&mut response, header::CONTENT_ENCODING, "identity");
    set(&mut response, header::CACHE_CONTROL, "no-cache");
    response
}

/// What is known of the node, and the sums over everything.
async fn node(server: &Server) -> Result<(Node, Sums), ApiError> {
    let sums = server.control.sums().await?;
    let metrics = *server.control.metrics().await?;
    let now_ms = unix_ms();
    let age = sums.oldest_message_ms.map_or(0, |oldest_ms| now_ms.saturating_sub(oldest_ms));
    let uptime = now_ms.saturating_sub(server.settings.started_unix_ms);
    let node = Node {
        overview: *server.control.overview().await?,
        metrics,
        channels: sums.channels,
        process: ProcessState::read(&server.settings.data_dir),
        uptime_s: float(uptime) / 1000.0,
        oldest_message_age_s: float(age) / 1000.0,
    };
    Ok((node, sums))
}

/// A table of one row without labels.
fn single<R>(prefix: &str, columns: &[&'static [Column<R>]], row: R) -> Block {
    Block::Table(Table::new(prefix, columns, [(String::new(), row)]))
}

const PREFIX: &str = "rabbitmq_";
const DETAILED_PREFIX: &str = "rabbitmq_detailed_";

async fn aggregated(server: &Server) -> Result<Vec<Block>, ApiError> {
    let (node, sums) = node(server).await?;
    let mut blocks = head_blocks(server, &node);
    let queues = QueueFigures::of_all(&sums);
    let channels = ChannelFigures { sums: sums.channels, ..ChannelFigures::default() };
    let event_loop = &node.metrics.event_loop;
    let connections = ConnectionFigures {
        traffic: event_loop.traffic,
        pending: event_loop.pending,
        channels: node.overview.channels,
    };
    blocks.push(single(PREFIX, QUEUE_COLUMNS, queues));
    blocks.push(single(PREFIX, CHANNEL_COLUMNS, channels));
    blocks.push(single(PREFIX, CONNECTION_COLUMNS, connections));
    blocks.push(single(PREFIX, &[rabbitmq::QUEUE_PUBLISHED], queues));
    blocks.extend(tail_blocks(server, Registry::Aggregated, node));
    Ok(blocks)
}

const QUEUE_COLUMNS: &[&[Column<QueueFigures>]] =
    &[rabbitmq::QUEUE_COARSE, rabbitmq::QUEUE_CONSUMERS, rabbitmq::QUEUE];
const CHANNEL_COLUMNS: &[&[Column<ChannelFigures>]] = &[
    rabbitmq::CHANNEL,
    rabbitmq::CHANNEL_EXCHANGE,
    rabbitmq::CHANNEL_PROCESS,
    rabbitmq::CHANNEL_QUEUE,
];
const CONNECTION_COLUMNS: &[&[Column<ConnectionFigures>]] =
    &[rabbitmq::CONNECTION_COARSE, rabbitmq::CONNECTION];

async fn per_object(server: &Server) -> Result<Vec<Block>, ApiError> {
    let (node, _) = node(server).await?;
    let mut blocks = head_blocks(server, &node);
    let queues = queue_figures(server, &Filter::default()).await?;
    let published: Vec<_> =
        queues.iter().map(|(key, figures)| (key.published(), *figures)).collect();
    let queues = queues.into_iter().map(|(key, figures)| (key.labels(), figures));
    blocks.push(Block::Table(Table::new(PREFIX, QUEUE_COLUMNS, queues)));
    for block in [
        Block::Table(Table::new(
            PREFIX,
            &[rabbitmq::CHANNEL, rabbitmq::CHANNEL_PROCESS],
            channel_figures(server, channel_labels).await?,
        )),
        Block::Table(Table::new(
            PREFIX,
            &[rabbitmq::CHANNEL_EXCHANGE, rabbitmq::CHANNEL_QUEUE],
            channel_figures(server, channel_vhost_labels).await?,
        )),
        Block::Table(Table::new(PREFIX, CONNECTION_COLUMNS, connection_figures(server).await?)),
        Block::Table(Table::new(PREFIX, &[rabbitmq::QUEUE_PUBLISHED], published)),
    ] {
        blocks.push(block);
    }
    blocks.extend(tail_blocks(server, Registry::PerObject, node));
    Ok(blocks)
}

/// Virtual host and name of a queue.
struct QueueLabel {
    vhost: String,
    name: String,
}

impl QueueLabel {
    fn labels(&self) -> String {
        labels(&[("vhost", &self.vhost), ("queue", &self.name)])
    }

    fn published(&self) -> String {
        labels(&[("queue_vhost", &self.vhost), ("queue", &self.name)])
    }
}

/// Which queues a scrape is about.
#[derive(Debug, Default)]
struct Filter {
    /// All where there is none.
    vhosts: Vec<String>,
    queue: Option<Regex>,
}

impl Filter {
    fn of(query: &Query) -> Result<Filter, ApiError> {
        let compile = |pattern| {
            RegexBuilder::new(pattern)
                .size_limit(PATTERN_COMPILED_MAX)
                .build()
                .map_err(|_| ApiError::bad_request("queue is not a regular expression"))
        };
        let queue = query.get("queue").map(compile).transpose()?;
        Ok(Filter { vhosts: query.all("vhost").map(str::to_owned).collect(), queue })
    }

    fn wants_vhost(&self, vhost: &str) -> bool {
        self.vhosts.is_empty() || self.vhosts.iter().any(|name| name == vhost)
    }

    fn wants(&self, vhost: &str, queue: &str) -> bool {
        self.wants_vhost(vhost) && self.queue.as_ref().is_none_or(|pattern| pattern.is_match(queue))
    }
}

async fn queue_figures(
    server: &Server,
    filter: &Filter,
) -> Result<Vec<(QueueLabel, QueueFigures)>, ApiError> {
    let mut all = Vec::new();
    let mut from = Some(0);
    while let Some(start) = from {
        let (rows, next) = server.control.queues_from(None, start).await?;
        from = next;
        for row in rows.into_iter().filter(|row| filter.wants(&row.vhost, &row.name)) {
            let figures = QueueFigures::of_one(&row);
            all.push((QueueLabel { vhost: row.vhost, name: row.name }, figures));
        }
    }
    all.sort_unstable_by(|(one, _), (other, _)| {
        (&one.vhost, &one.name).cmp(&(&other.vhost, &other.name))
    });
    Ok(all)
}

fn channel_labels(pid: &str, _: &ChannelRow) -> String {
    labels(&[("channel", pid)])
}

fn channel_vhost_labels(pid: &str, row: &ChannelRow) -> String {
    labels(&[("channel", pid), ("vhost", &row.vhost)])
}

async fn channel_figures(
    server: &Server,
    labels: fn(&str, &ChannelRow) -> String,
) -> Result<Vec<(String, ChannelFigures)>, ApiError> {
    let rows = server.control.channels().await?;
    let figures = rows.iter().map(|row| {
        let pid = server.channel_pid(row.connection_id, row.number);
        (labels(&pid, row), ChannelFigures::of_one(row))
    });
    Ok(figures.collect())
}

async fn connection_figures(server: &Server) -> Result<Vec<(String, ConnectionFigures)>, ApiError> {
    let rows = server.control.connections().await?;
    let figures = rows.iter().map(|row| {
        // RabbitMQ's plugin calls the label so for connections, too.
        let pid = server.connection_pid(row.id);
        (labels(&[("channel", &pid)]), ConnectionFigures::of_one(row))
    });
    Ok(figures.collect())
}

/// What comes before queues: the node.
fn head_blocks(server: &Server, node: &Node) -> Vec<Block> {
    let columns = &[
        rabbitmq::ALARMS,
        rabbitmq::CHURN,
        rabbitmq::NODE_COARSE,
        rabbitmq::NODE,
        rabbitmq::PERSISTER,
        rabbitmq::RAFT,
    ];
    let started_s = seconds(server.settings.started_unix_ms.saturating_mul(1_000_000));
    let mut blocks = vec![
        Block::samples(
            "process_start_time_seconds",
            Kind::Gauge,
            "Start time of the process since unix epoch in seconds.",
            &[(String::new(), started_s)],
        ),
        Block::Table(Table::new(PREFIX, columns, [(String::new(), node)])),
    ];
    blocks.extend(logins(PREFIX, node));
    blocks
}

fn logins(prefix: &str, node: &Node) -> Vec<Block> {
    type Part = fn(&Logins) -> u64;
    let parts: [(&str, &str, Part); 3] = [
        ("auth_attempts_total", "Total number of authorization attempts", |logins| {
            logins.succeeded + logins.failed
        }),
        (
            "auth_attempts_succeeded_total",
            "Total number of successful authentication attempts",
            |logins| logins.succeeded,
        ),
        (
            "auth_attempts_failed_total",
            "Total number of failed authentication attempts",
            |logins| logins.failed,
        ),
    ];
    let protocols = [("http", node.metrics.http_logins), ("amqp091", node.metrics.amqp_logins)];
    let block = |(name, help, part): (&str, &str, Part)| {
        let samples =
            protocols.map(|(name, logins)| (labels(&[("protocol", name)]), float(part(&logins))));
        Block::samples(&format!("{prefix}{name}"), Kind::Counter, help, &samples)
    };
    parts.into_iter().map(block).collect()
}

/// What comes behind single objects: totals, identity, counters of the protocol, our own.
fn tail_blocks(server: &Server, registry: Registry, node: Node) -> Vec<Block> {
    let mut blocks =
        vec![Block::Table(Table::new(PREFIX, &[rabbitmq::TOTALS], [(String::new(), &node)]))];
    blocks.extend(identity(server, registry, &node.overview));
    let protocol = labels(&[("protocol", "amqp091")]);
    blocks.push(Block::Table(Table::new(PREFIX, &[rabbitmq::GLOBAL], [(protocol.clone(), &node)])));
    blocks.push(by_queue_type(&node.overview.stats));
    blocks.extend(dead_letters(&node.overview.dead_letters));
    blocks.push(Block::histogram(
        "rabbitmq_message_size_bytes",
        "Size of messages received from publishers",
        &protocol,
        &node.metrics.messages.size,
        1.0,
        message_size_bound,
    ));
    blocks.extend(own::blocks(node));
    blocks.extend(telemetry(server, registry));
    blocks
}

/// As RabbitMQ's dashboards spell the bounds of this one histogram.
fn message_size_bound(size: u64) -> String {
    if size < 1_000_000 {
        return format!("{size}.0");
    }
    let zeros = size.ilog10();
    format!("{}e+{zeros:02}", size / 10_u64.pow(zeros))
}

fn identity(server: &Server, registry: Registry, overview: &OverviewRow) -> [Block; 2] {
    let build = labels(&[
        ("rabbitmq_version", RABBITMQ_VERSION),
        ("prometheus_plugin_version", RABBITMQ_VERSION),
        ("prometheus_client_version", env!("CARGO_PKG_VERSION")),
        ("erlang_version", ERLANG_VERSION),
        ("product_name", "Leveret"),
        ("product_version", env!("CARGO_PKG_VERSION")),
    ]);
    let settings = &server.settings;
    let place = format!("{}\0{}", settings.node, settings.data_dir.display());
    let digest = Sha256::digest(place);
    let id = format!("rabbitmq-cluster-id-{}", URL_SAFE_NO_PAD.encode(&digest[..16]));
    let identity = labels(&[
        ("rabbitmq_node", &settings.node),
        ("rabbitmq_cluster", cluster_name_of(server, overview)),
        ("rabbitmq_cluster_permanent_id", &id),
        ("rabbitmq_endpoint", registry.endpoint()),
    ]);
    [
        Block::samples(
            "rabbitmq_build_info",
            Kind::Untyped,
            "RabbitMQ & Erlang/OTP version info",
            &[(build, 1.0)],
        ),
        Block::samples(
            "rabbitmq_identity_info",
            Kind::Untyped,
            "RabbitMQ node & cluster identity info",
            &[(identity, 1.0)],
        ),
    ]
}

const CLASSIC: &str = "rabbit_classic_queue";
const QUORUM: &str = "rabbit_quorum_queue";
const STREAM: &str = "rabbit_stream_queue";

/// All queues are made of the same stuff here and counted together, as classic ones.
fn by_queue_type(stats: &MessageStats) -> Block {
    let nothing = MessageStats::default();
    let rows = [(CLASSIC, *stats), (QUORUM, nothing), (STREAM, nothing)]
        .map(|(kind, stats)| (labels(&[("protocol", "amqp091"), ("queue_type", kind)]), stats));
    Block::Table(Table::new(PREFIX, &[rabbitmq::GLOBAL_BY_TYPE], rows))
}

/// Dead-lettered messages by reason, with the combinations RabbitMQ has. What goes on here counts
/// as `at_most_once`, the strategy that RabbitMQ's classic queues have; what goes nowhere is not
/// counted.
fn dead_letters(stats: &DeadLetters) -> Vec<Block> {
    const ALL: &[&str] = &["at_least_once", "at_most_once", "disabled"];
    const UNSAFE: &[&str] = &["at_most_once", "disabled"];
    type Strategies = &'static [(&'static str, &'static [&'static str])];
    let reasons: [(&str, &str, Strategies); 5] = [
        ("confirmed", "and confirmed by target queues", &[(QUORUM, &["at_least_once"])]),
        ("delivery_limit", "due to delivery-limit exceeded", &[(QUORUM, ALL)]),
        ("expired", "due to message TTL exceeded", &[(CLASSIC, UNSAFE), (QUORUM, ALL)]),
        (
            "maxlen",
            "due to overflow drop-head or reject-publish-dlx",
            &[(CLASSIC, UNSAFE), (QUORUM, UNSAFE)],
        ),
        ("rejected", "due to basic.reject or basic.nack", &[(CLASSIC, UNSAFE), (QUORUM, ALL)]),
    ];
    let block = |(reason, help, strategies): (&str, &str, Strategies)| {
        let mut samples = Vec::new();
        for (kind, strategies) in strategies {
            for strategy in *strategies {
                let pair = [("queue_type", *kind), ("dead_letter_strategy", *strategy)];
                let by_kind = if *kind == QUORUM { stats.quorum } else { stats.classic };
                let count = match reason {
                    _ if *strategy != "at_most_once" => 0,
                    "delivery_limit" => by_kind.delivery_limit,
                    "expired" => by_kind.expired,
                    "maxlen" => by_kind.max_length,
                    "rejected" => by_kind.rejected,
                    _ => 0,
                };
                samples.push((labels(&pair), float(count)));
            }
        }
        let name = format!("rabbitmq_global_messages_dead_lettered_{reason}_total");
        let help = format!("Total number of messages dead-lettered {help}");
        Block::samples(&name, Kind::Counter, &help, &samples)
    };
    reasons.into_iter().map(block).collect()
}

fn telemetry(server: &Server, registry: Registry) -> [Block; 3] {
    let telemetries = server.telemetries.borrow();
    let known = telemetries.get(registry.name()).copied();
    let pair = [("registry", registry.name()), ("content_type", CONTENT_TYPE)];
    let encoded = [pair[0], pair[1], ("encoding", "identity")];
    let samples = |labels: String, sum: fn(&Telemetry) -> f64| -> Vec<(String, u64, f64)> {
        known.iter().map(|one| (labels.clone(), one.count, sum(one))).collect()
    };
    [
        Block::summary(
            "telemetry_scrape_size_bytes",
            "Scrape size, not encoded",
            &samples(labels(&pair), |one| float(one.size)),
        ),
        Block::summary(
            "telemetry_scrape_duration_seconds",
            "Scrape duration",
            &samples(labels(&pair), |one| seconds(one.duration_ns)),
        ),
        Block::summary(
            "telemetry_scrape_encoded_size_bytes",
            "Scrape size, encoded",
            &samples(labels(&encoded), |one| float(one.size)),
        ),
    ]
}

/// The families that were asked for, in no particular order.
async fn detailed(server: &Server, query: &Query) -> Result<Vec<Block>, ApiError> {
    let families: Vec<&str> = query.all("family").collect();
    let wants = |family: &str| families.contains(&family);
    let filter = Filter::of(query)?;
    let (node, _) = node(server).await?;
    let mut blocks = detailed_node(&wants, &node);
    blocks.extend(detailed_queues(server, &wants, &filter).await?);
    blocks.extend(detailed_clients(server, &wants, &filter).await?);
    blocks.extend(detailed_cluster(server, &wants, &filter).await?);
    blocks.extend(identity(server, Registry::Detailed, &node.overview));
    blocks.extend(telemetry(server, Registry::Detailed));
    Ok(blocks)
}

/// Tells whether a family was asked for.
type Wanted<'a> = &'a dyn Fn(&str) -> bool;

fn detailed_node(wants: Wanted<'_>, node: &Node) -> Vec<Block> {
    let families: [(&str, &[Column<Node>]); 6] = [
        ("alarm_metrics", rabbitmq::ALARMS),
        ("connection_churn_metrics", rabbitmq::CHURN),
        ("node_coarse_metrics", rabbitmq::NODE_COARSE),
        ("node_metrics", rabbitmq::NODE),
        ("node_persister_metrics", rabbitmq::PERSISTER),
        ("ra_metrics", rabbitmq::RAFT),
    ];
    let wanted = families.into_iter().filter(|(family, _)| wants(family));
    let table = |(_, columns)| {
        Block::Table(Table::new(DETAILED_PREFIX, &[columns], [(String::new(), node)]))
    };
    let mut blocks: Vec<Block> = wanted.map(table).collect();
    if wants("auth_attempt_metrics") {
        blocks.extend(logins(DETAILED_PREFIX, node));
    }
    blocks
}

async fn detailed_queues(
    server: &Server,
    wants: Wanted<'_>,
    filter: &Filter,
) -> Result<Vec<Block>, ApiError> {
    let families: [(&str, &'static [Column<QueueFigures>]); 4] = [
        ("queue_coarse_metrics", rabbitmq::QUEUE_COARSE),
        ("queue_consumer_count", rabbitmq::QUEUE_CONSUMERS),
        ("queue_metrics", rabbitmq::QUEUE),
        ("queue_delivery_metrics", rabbitmq::QUEUE_DELIVERY),
    ];
    let mut columns: Vec<&'static [Column<QueueFigures>]> =
        families.iter().filter(|(family, _)| wants(family)).map(|(_, columns)| *columns).collect();
    if wants("queue_metrics") && !wants("queue_consumer_count") {
        columns.push(rabbitmq::QUEUE_CONSUMERS);
    }
    let published = wants("channel_queue_exchange_metrics") || wants("queue_exchange_metrics");
    if columns.is_empty() && !published {
        return Ok(Vec::new());
    }
    let queues = queue_figures(server, filter).await?;
    let mut blocks = Vec::new();
    if published {
        let rows = queues.iter().map(|(key, figures)| (key.published(), *figures));
        blocks.push(Block::Table(Table::new(DETAILED_PREFIX, &[rabbitmq::QUEUE_PUBLISHED], rows)));
    }
    let rows = queues.into_iter().map(|(key, figures)| (key.labels(), figures));
    blocks.push(Block::Table(Table::new(DETAILED_PREFIX, &columns, rows)));
    Ok(blocks)
}

async fn detailed_clients(
    server: &Server,
    wants: Wanted<'_>,
    filter: &Filter,
) -> Result<Vec<Block>, ApiError> {
    let mut blocks = Vec::new();
    let channels: [(&str, &'static [Column<ChannelFigures>]); 4] = [
        ("channel_metrics", rabbitmq::CHANNEL),
        ("channel_process_metrics", rabbitmq::CHANNEL_PROCESS),
        ("channel_exchange_metrics", rabbitmq::CHANNEL_EXCHANGE),
        ("channel_queue_metrics", rabbitmq::CHANNEL_QUEUE),
    ];
    for (index, (_, columns)) in
        channels.into_iter().enumerate().filter(|(_, (family, _))| wants(family))
    {
        let label = if index < 2 { channel_labels } else { channel_vhost_labels };
        let rows = channel_figures(server, label).await?;
        blocks.push(Block::Table(Table::new(DETAILED_PREFIX, &[columns], rows)));
    }
    let connections: [(&str, &'static [Column<ConnectionFigures>]); 2] = [
        ("connection_coarse_metrics", rabbitmq::CONNECTION_COARSE),
        ("connection_metrics", rabbitmq::CONNECTION),
    ];
    for (_, columns) in connections.into_iter().filter(|(family, _)| wants(family)) {
        let rows = connection_figures(server).await?;
        blocks.push(Block::Table(Table::new(DETAILED_PREFIX, &[columns], rows)));
    }
    if wants("exchange_metrics") {
        blocks.push(exchange_metrics(server, filter).await?);
    }
    Ok(blocks)
}

async fn exchange_metrics(server: &Server, filter: &Filter) -> Result<Block, ApiError> {
    let rows = server.control.exchanges(None).await?;
    let samples: Vec<(String, f64)> = rows
        .iter()
        .filter(|row| filter.wants_vhost(&row.vhost))
        .map(|row| {
            let pair = [("vhost", row.vhost.as_str()), ("exchange", row.name.as_str())];
            (labels(&pair), float(row.stats.publish))
        })
        .collect();
    Ok(Block::samples(
        "rabbitmq_detailed_exchange_messages_published_total",
        Kind::Counter,
        "Total number of messages published into an exchange",
        &samples,
    ))
}

async fn detailed_cluster(
    server: &Server,
    wants: Wanted<'_>,
    filter: &Filter,
) -> Result<Vec<Block>, ApiError> {
    let mut blocks = Vec::new();
    if wants("vhost_status") {
        let rows = server.control.vhosts().await?;
        let wanted = rows.iter().filter(|row| filter.wants_vhost(&row.name));
        let samples: Vec<_> = wanted.map(|row| (labels(&[("vhost", &row.name)]), 1.0)).collect();
        blocks.push(Block::samples(
            "rabbitmq_cluster_vhost_status",
            Kind::Gauge,
            "Whether a given vhost is running",
            &samples,
        ));
    }
    if wants("exchange_names") || wants("exchange_bindings") {
        blocks.extend(exchange_topology(server, wants, filter).await?);
    }
    Ok(blocks)
}

async fn exchange_topology(
    server: &Server,
    wants: Wanted<'_>,
    filter: &Filter,
) -> Result<Vec<Block>, ApiError> {
    let mut exchanges = server.control.exchanges(None).await?;
    exchanges.retain(|row| !row.name.is_empty() && filter.wants_vhost(&row.vhost));
    let label = |row: &ExchangeRow| {
        labels(&[("vhost", &row.vhost), ("exchange", &row.name), ("type", &row.kind)])
    };
    let mut blocks = Vec::new();
    if wants("exchange_names") {
        let samples: Vec<_> = exchanges.iter().map(|row| (label(row), 1.0)).collect();
        blocks.push(Block::samples(
            "rabbitmq_cluster_exchange_name",
            Kind::Gauge,
            "Enumerates exchanges without any additional info. This value is cluster-wide. A \
             cheaper alternative to `exchange_bindings`",
            &samples,
        ));
    }
    if wants("exchange_bindings") {
        let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
        for row in server.control.bindings(None).await? {
            *counts.entry((row.vhost, row.source)).or_default() += 1;
        }
        let count = |row: &ExchangeRow| {
            float(*counts.get(&(row.vhost.clone(), row.name.clone())).unwrap_or(&0))
        };
        let samples: Vec<_> = exchanges.iter().map(|row| (label(row), count(row))).collect();
        blocks.push(Block::samples(
            "rabbitmq_cluster_exchange_bindings",
            Kind::Gauge,
            "Number of bindings for an exchange. This value is cluster-wide.",
            &samples,
        ));
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests;
