//! For tests: an event loop without clients. It waits on its poll, takes requests from the inbox
//! and answers each over the same channel the real one uses, from canned rows or by a broker.

use super::control::{ControlCall, channel};
use super::{HttpListeners, HttpSettings, HttpThread, ListenerInfo, PrometheusSettings, start};
use crate::broker::auth::AuthSettings;
use crate::broker::control::{ControlReply, ControlRequest};
use crate::broker::effect::Effects;
use crate::broker::exception::Exception;
use crate::broker::limits::UserLimits;
use crate::broker::permission::Permission;
use crate::broker::snapshot::{
    BindingRow, Browsed, ChannelRow, ConnectionRow, ConsumerRow, ExchangeRow, LoginRow,
    MessageStats, OverviewRow, PermissionRow, QueueRow, QueueSums, Redriven, Sums,
    TopicPermissionRow, UserRow, VhostRow, VhostSums,
};
use crate::broker::user::password::{HashingAlgorithm, PasswordHash};
use crate::broker::user::{Tags, User};
use crate::broker::{Broker, BrokerSettings, Context, Now};
use crate::control_socket;
use leveret_engine::{Engine, EngineConfig};
use leveret_protocol::field::{FieldTableBuilder, FieldValue, OwnedTable};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Statistics in which no number is zero.
const BUSY: MessageStats = MessageStats {
    publish: 10,
    publish_out: 11,
    confirm: 12,
    return_unroutable: 13,
    drop_unroutable: 14,
    deliver: 15,
    deliver_no_ack: 16,
    get: 17,
    get_no_ack: 18,
    get_empty: 19,
    ack: 20,
    redeliver: 21,
    reject: 22,
};

/// An API that serves canned rows, on a port and on a socket.
pub(crate) struct Fake {
    address: SocketAddr,
    metrics_address: SocketAddr,
    /// Where its control socket is.
    pub(crate) dir: tempfile::TempDir,
    /// Every order it was given.
    pub(crate) orders: mpsc::Receiver<ControlRequest>,
    stop: Arc<AtomicBool>,
    waker: Arc<mio::Waker>,
    event_loop: Option<JoinHandle<()>>,
    _http: HttpThread,
}

impl Fake {
    /// One that answers from canned rows.
    pub(crate) fn start() -> Fake {
        Fake::answered_by(|_| |request| answer(&request))
    }

    /// One with a broker that has the user `guest` and the virtual host `/`.
    pub(crate) fn with_broker() -> Fake {
        Fake::answered_by(|dir| {
            let mut node = Node::new(dir);
            move |request| node.answer(request)
        })
    }

    /// One that answers with what `make` makes, on the thread of the event loop.
    fn answered_by<A: FnMut(ControlRequest) -> ControlReply>(
        make: impl FnOnce(&std::path::Path) -> A + Send + 'static,
    ) -> Fake {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mut poll = mio::Poll::new().unwrap();
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let (handle, inbox) = channel(waker.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let (order_sender, orders) = mpsc::channel();
        let stopping = stop.clone();
        let event_loop = std::thread::spawn(move || {
            let mut answer = make(&data);
            let mut events = mio::Events::with_capacity(4);
            while !stopping.load(Ordering::Relaxed) {
                match poll.poll(&mut events, None) {
                    // An io_uring of this thread interrupts it.
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    other => other.unwrap(),
                }
                while let Some(ControlCall { request, responder }) = inbox.try_next() {
                    let _ = order_sender.send(request.clone());
                    responder.send(answer(request));
                }
            }
        });
        let management = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = management.local_addr().unwrap();
        let prometheus = TcpListener::bind("127.0.0.1:0").unwrap();
        let metrics_address = prometheus.local_addr().unwrap();
        let listeners = HttpListeners {
            management: vec![management],
            control: Some(control_socket::bind(dir.path()).unwrap()),
            prometheus: vec![prometheus],
        };
        let listener = |protocol, port| ListenerInfo { protocol, ip: "127.0.0.1".to_owned(), port };
        let settings = HttpSettings {
            node: "rabbit@box".to_owned(),
            data_dir: dir.path().to_owned(),
            config_files: vec!["/etc/rabbitmq.conf".into()],
            environment: vec![("heartbeat".to_owned(), "60".to_owned())],
            log_files: vec!["<stdout>".to_owned()],
            started_unix_ms: 1_795_416_263_000,
            listeners: vec![
                listener("amqp", 5672),
                listener("http", 15672),
                listener("http/prometheus", 15692),
            ],
            body_size_max: 100_000,
            credentials: super::CredentialRules::default(),
            cors: super::CorsSettings {
                origins: vec!["https://console.example".to_owned()],
                max_age_s: 60,
            },
            prometheus: PrometheusSettings {
                path: "/metrics".to_owned(),
                per_object: false,
                authentication: false,
            },
        };
        let http = start(settings, listeners, handle).unwrap();
        Fake {
            address,
            metrics_address,
            dir,
            orders,
            stop,
            waker,
            event_loop: Some(event_loop),
            _http: http,
        }
    }

    /// Sends bytes and returns all that comes back.
    pub(crate) fn raw(&self, request: &[u8]) -> String {
        Fake::exchange(self.address, request)
    }

    /// A `GET` from the metrics listener.
    pub(crate) fn scrape(&self, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        Answer::parse(&Fake::exchange(self.metrics_address, request.as_bytes()))
    }

    fn exchange(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        String::from_utf8(reply).unwrap()
    }

    /// A request as `user:password`, with further lines of the head.
    pub(crate) fn request_as(
        &self,
        credentials: &str,
        method: &str,
        path: &str,
        head: &str,
        body: &str,
    ) -> Answer {
        use base64::Engine as _;
        let token = base64::engine::general_purpose::STANDARD.encode(credentials);
        let text = self.raw(
            format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                 authorization: Basic {token}\r\n{head}content-length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        );
        Answer::parse(&text)
    }

    /// A request as the administrator.
    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> Answer {
        self.request_as("guest:guest", method, path, "", body)
    }

    /// The body of a `GET` that succeeds.
    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = self.request("GET", path, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    /// The last order that changes something.
    pub(crate) fn last_order(&self) -> ControlRequest {
        let is_question = |order: &ControlRequest| {
            matches!(
                order,
                ControlRequest::Authenticate { .. }
                    | ControlRequest::Overview
                    | ControlRequest::Sums { .. }
                    | ControlRequest::Metrics
                    | ControlRequest::Queues { .. }
                    | ControlRequest::QueuesNamed { .. }
                    | ControlRequest::QueueNames { .. }
                    | ControlRequest::Exchanges { .. }
                    | ControlRequest::Bindings { .. }
                    | ControlRequest::Vhosts
                    | ControlRequest::Permissions
            )
        };
        self.orders.try_iter().filter(|order| !is_question(order)).last().expect("an order")
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake().unwrap();
        self.event_loop.take().unwrap().join().unwrap();
    }
}

/// A broker on a disk of its own.
struct Node {
    broker: Broker,
    engine: Engine,
    effects: Effects,
    now_ms: u64,
}

impl Node {
    fn new(dir: &std::path::Path) -> Node {
        let (engine, recovered) = Engine::open(dir, EngineConfig::default()).unwrap();
        let settings = BrokerSettings {
            message_size_max: 1 << 20,
            cluster_name: "rabbit@box".to_owned(),
            auth: AuthSettings::default(),
            trust_x_death: false,
        };
        let broker = Broker::new(settings, &recovered, 0, 1).unwrap();
        let mut node = Node { broker, engine, effects: Effects::new(), now_ms: 1 };
        let user = User {
            name: "guest".into(),
            password: PasswordHash::new(HashingAlgorithm::Sha256, [1, 2, 3, 4], "guest"),
            tags: Tags::new(["administrator"]).unwrap(),
            limits: UserLimits::default(),
        };
        node.with(|broker, ctx| broker.seed("/", user, Permission::full(), ctx)).unwrap();
        node
    }

    fn with<T>(&mut self, call: impl FnOnce(&mut Broker, &mut Context<'_>) -> T) -> T {
        self.now_ms += 1;
        let now = Now { ms: self.now_ms, unix_ms: self.now_ms, entropy: self.now_ms };
        let mut ctx = Context { now, engine: &mut self.engine, effects: &mut self.effects };
        call(&mut self.broker, &mut ctx)
    }

    /// Answers when what the answer reports is durable.
    fn answer(&mut self, request: ControlRequest) -> ControlReply {
        let reply = self.with(|broker, ctx| broker.control(request, ctx));
        self.with(Broker::end_of_read);
        self.engine.sync().unwrap();
        let durable = self.engine.durable();
        self.with(|broker, ctx| broker.on_durable(durable, ctx));
        reply
    }
}

/// A reply, taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    fn parse(text: &str) -> Answer {
        let (head, body) = text.split_once("\r\n\r\n").expect("a head ends");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { unchunk(body) } else { body.to_owned() };
        Answer { status, head: head.to_ascii_lowercase(), body }
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

fn unchunk(mut text: &str) -> String {
    let mut whole = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.push_str(&rest[..size]);
        text = &rest[size + 2..];
    }
}

/// A table with one field of each common type.
fn table() -> OwnedTable {
    FieldTableBuilder::new()
        .with("x-max-length", FieldValue::I64(1000))
        .with("x-mode", FieldValue::LongStr(b"lazy"))
        .build()
}

/// Three queues: `q1` classic, `qq1` quorum, `excl1` exclusive.
pub(crate) fn queue(name: &str, kind: &'static str) -> QueueRow {
    let exclusive = name.starts_with("excl");
    QueueRow {
        vhost: "/".to_owned(),
        name: name.to_owned(),
        kind,
        durable: !exclusive,
        auto_delete: false,
        exclusive,
        owner: exclusive.then(|| CONNECTION.to_owned()),
        owner_id: exclusive.then_some(7),
        arguments: table(),
        policy: Some("ttl".to_owned()),
        operator_policy: None,
        effective_policy: serde_json::Map::new(),
        messages_ready: 5,
        messages_unacknowledged: 2,
        message_bytes_ready: 50,
        message_bytes_unacknowledged: 20,
        messages_persistent: 7,
        message_bytes_persistent: 70,
        messages_ram: 6,
        message_bytes_ram: 60,
        consumers: 1,
        consumer_capacity: Some(1.0),
        exclusive_consumer_tag: exclusive.then(|| "only".to_owned()),
        exclusive_consumer_channel: exclusive.then_some((7, 1)),
        single_active_consumer_tag: None,
        head_message_timestamp: None,
        oldest_message_ms: None,
        idle_since_ms: Some(1_795_416_429_189),
        memory: 1000,
        stats: BUSY,
    }
}

const CONNECTION: &str = "127.0.0.1:49202 -> 127.0.0.1:5672";

fn exchange(name: &str) -> ExchangeRow {
    ExchangeRow {
        vhost: "/".to_owned(),
        name: name.to_owned(),
        kind: "topic".to_owned(),
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: table(),
        policy: Some("ae".to_owned()),
        user_who_performed_action: "guest".to_owned(),
        stats: BUSY,
    }
}

fn binding(routing_key: &str, arguments: OwnedTable) -> BindingRow {
    BindingRow {
        vhost: "/".to_owned(),
        source: "orders".to_owned(),
        destination: "q1".to_owned(),
        destination_is_queue: true,
        routing_key: routing_key.to_owned(),
        arguments,
    }
}

fn connection() -> ConnectionRow {
    ConnectionRow {
        id: 7,
        name: CONNECTION.to_owned(),
        host: "127.0.0.1".to_owned(),
        port: 5672,
        peer_host: "127.0.0.1".to_owned(),
        peer_port: 49202,
        state: "running",
        channels: 1,
        user: "guest".to_owned(),
        vhost: "/".to_owned(),
        auth_mechanism: "PLAIN".to_owned(),
        heartbeat_s: 60,
        frame_max: 131_072,
        channel_max: 2047,
        client_properties: FieldTableBuilder::new()
            .with("connection_name", FieldValue::LongStr(b"sample"))
            .build(),
        recv_oct: 1,
        recv_cnt: 2,
        send_oct: 3,
        send_cnt: 4,
        connected_at_ms: 1_795_416_428_173,
        ..ConnectionRow::default()
    }
}

fn channel_row() -> ChannelRow {
    ChannelRow {
        connection_id: 7,
        connection: CONNECTION.to_owned(),
        peer_host: "127.0.0.1".to_owned(),
        peer_port: 49202,
        number: 1,
        user: "guest".to_owned(),
        vhost: "/".to_owned(),
        confirm: true,
        consumer_count: 1,
        prefetch_count: 5,
        state: "running",
        stats: BUSY,
        ..ChannelRow::default()
    }
}

fn consumer(queue: &str) -> ConsumerRow {
    ConsumerRow {
        vhost: "/".to_owned(),
        queue: queue.to_owned(),
        connection_id: 7,
        connection: CONNECTION.to_owned(),
        peer_host: "127.0.0.1".to_owned(),
        peer_port: 49202,
        channel: 1,
        user: "guest".to_owned(),
        consumer_tag: "ctag-1".to_owned(),
        exclusive: false,
        ack_required: true,
        prefetch_count: 5,
        active: true,
        activity_status: "up",
        arguments: table(),
    }
}

fn vhost(name: &str) -> VhostRow {
    VhostRow {
        name: name.to_owned(),
        description: "Default virtual host".to_owned(),
        tags: Vec::new(),
        default_queue_type: "classic".to_owned(),
        tracing: false,
        protected: false,
        limits: vec![("max-queues".to_owned(), 50)],
        messages_ready: 5,
        messages_unacknowledged: 2,
        stats: BUSY,
    }
}

fn user(name: &str, tag: &str) -> UserRow {
    UserRow {
        name: name.to_owned(),
        password_hash: "trF6k2ZSaYFVucIqI5FFaxWaT8Kb0NUfbjvs29WKkhUk27eL".to_owned(),
        hashing_algorithm: "rabbit_password_hashing_sha256".to_owned(),
        tags: vec![tag.to_owned()],
        limits: Vec::new(),
    }
}

/// `guest` administers, `mgr` manages, `mon` monitors without any permission, `alice` has no tag
/// that counts. Passwords are the names.
fn users() -> Vec<UserRow> {
    vec![
        user("guest", "administrator"),
        user("mgr", "management"),
        user("mon", "monitoring"),
        user("alice", "custom"),
    ]
}

fn permission(user: &str) -> PermissionRow {
    let all = || ".*".to_owned();
    PermissionRow {
        user: user.to_owned(),
        vhost: "/".to_owned(),
        configure: all(),
        write: all(),
        read: all(),
    }
}

fn permissions() -> Vec<PermissionRow> {
    let mut rows = ["guest", "mgr", "alice"].map(permission).to_vec();
    rows.push(PermissionRow { vhost: "shop".to_owned(), ..permission("guest") });
    rows
}

fn queues() -> Vec<QueueRow> {
    vec![queue("qq1", "quorum"), queue("q1", "classic"), queue("excl1", "classic")]
}

fn sums() -> Sums {
    let vhost = VhostSums { ready: 15, unacknowledged: 6, stats: BUSY };
    Sums {
        queues: QueueSums { ready: 15, unacknowledged: 6, ..QueueSums::default() },
        vhosts: [("/".to_owned(), vhost)].into(),
        ..Sums::default()
    }
}

fn overview() -> OverviewRow {
    OverviewRow {
        connections: 1,
        channels: 1,
        exchanges: 2,
        queues: 3,
        consumers: 1,
        messages_ready: 15,
        messages_unacknowledged: 6,
        stats: BUSY,
        connection_created: 1,
        ..OverviewRow::default()
    }
}

/// `/` and `shop` are there; `shop` is empty.
fn known(vhost: Option<&String>) -> bool {
    vhost.is_none_or(|name| name == "/" || name == "shop")
}

#[expect(clippy::too_many_lines, reason = "one arm for each request")]
fn answer(request: &ControlRequest) -> ControlReply {
    let in_root = |vhost: &Option<String>| vhost.as_ref().is_none_or(|name| name == "/");
    let is_named =
        |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|one| one == name);
    match request {
        ControlRequest::Authenticate { user, password, .. } => {
            let row = users().into_iter().find(|row| row.name == *user && user == password);
            ControlReply::Login(row.map(|row| {
                LoginRow {
                    vhosts: permissions()
                        .into_iter()
                        .filter(|permission| permission.user == row.name)
                        .map(|permission| permission.vhost)
                        .collect(),
                    name: row.name,
                    tags: row.tags,
                }
            }))
        }
        ControlRequest::Overview => ControlReply::Overview(Box::new(overview())),
        ControlRequest::Queues { vhost, .. }
        | ControlRequest::Exchanges { vhost, .. }
        | ControlRequest::Bindings { vhost }
        | ControlRequest::Consumers { vhost }
            if !known(vhost.as_ref()) =>
        {
            ControlReply::Refused(Exception::not_allowed("vhost not found"))
        }
        ControlRequest::QueuesNamed { names } if !known(names.first().map(|(vhost, _)| vhost)) => {
            ControlReply::Refused(Exception::not_allowed("vhost not found"))
        }
        ControlRequest::Sums { .. } => ControlReply::Sums(Box::new(sums())),
        ControlRequest::Metrics => ControlReply::Metrics(Box::default()),
        ControlRequest::Queues { vhost, from } => {
            // Two stretches, so that whoever forgets to ask for the second is found out.
            let mut rows =
                if *from == 0 { queues().split_off(1) } else { vec![queues().remove(0)] };
            rows.retain(|_| in_root(vhost));
            ControlReply::QueueStretch(rows, (*from == 0).then_some(1))
        }
        ControlRequest::QueuesNamed { names } => {
            let is = |row: &QueueRow, name: &(String, String)| {
                (&row.vhost, &row.name) == (&name.0, &name.1)
            };
            let rows =
                names.iter().filter_map(|name| queues().into_iter().find(|row| is(row, name)));
            ControlReply::Queues(rows.collect())
        }
        ControlRequest::QueueNames { known, .. } => {
            let all = queues().into_iter().map(|row| (row.vhost, row.name));
            let names = if known.is_some() { Vec::new() } else { all.collect() };
            ControlReply::QueueNames { version: 3, names, next: None }
        }
        ControlRequest::Exchanges { vhost, name } => {
            let mut rows = vec![exchange("orders"), exchange("")];
            rows.retain(|row| in_root(vhost) && is_named(name, &row.name));
            ControlReply::Exchanges(rows)
        }
        ControlRequest::Bindings { vhost } => {
            let mut rows = vec![
                binding("a b/c~d", OwnedTable::default()),
                binding("order.#", table()),
                binding("", OwnedTable::default()),
            ];
            rows.retain(|_| in_root(vhost));
            ControlReply::Bindings(rows)
        }
        ControlRequest::Connections => ControlReply::Connections(vec![connection()]),
        ControlRequest::Channels => ControlReply::Channels(vec![channel_row()]),
        ControlRequest::Consumers { vhost } => {
            let mut rows = vec![consumer("q1"), consumer("qq1")];
            rows.retain(|_| in_root(vhost));
            ControlReply::Consumers(rows)
        }
        ControlRequest::Vhosts => ControlReply::Vhosts(vec![vhost("/"), vhost("shop")]),
        ControlRequest::Users => ControlReply::Users(users()),
        ControlRequest::Permissions => ControlReply::Permissions(permissions()),
        ControlRequest::TopicPermissions => {
            let row = permission("guest");
            ControlReply::TopicPermissions(vec![TopicPermissionRow {
                user: row.user,
                vhost: row.vhost,
                exchange: "amq.topic".to_owned(),
                write: row.write,
                read: row.read,
            }])
        }
        ControlRequest::Policies { .. } => ControlReply::Policies(Vec::new()),
        ControlRequest::DeclareQueue { name, .. } if name == "q1" => ControlReply::Done,
        ControlRequest::DeclareQueue { name, .. } if name.starts_with("amq.") => {
            ControlReply::Refused(Exception::refused("reserved prefix"))
        }
        ControlRequest::DeclareQueue { .. } | ControlRequest::DeclareExchange { .. } => {
            ControlReply::Created
        }
        ControlRequest::Bind { binding, .. } if binding.destination == "nope" => {
            ControlReply::Refused(Exception::no_queue("nope", "/"))
        }
        ControlRequest::DeleteQueue { if_empty: true, .. } => {
            ControlReply::Refused(Exception::precondition("queue 'q1' in vhost '/' not empty"))
        }
        ControlRequest::DeleteQueue { .. } | ControlRequest::PurgeQueue { .. } => {
            ControlReply::Count(5)
        }
        ControlRequest::DeleteExchange { .. }
        | ControlRequest::Bind { .. }
        | ControlRequest::CloseConnection { .. }
        | ControlRequest::Remove(_)
        | ControlRequest::Serve(_)
        | ControlRequest::SetWatermarks { .. } => ControlReply::Done,
        ControlRequest::Publish { .. } => ControlReply::Routed(true),
        ControlRequest::Get { .. } => ControlReply::Messages(Vec::new()),
        ControlRequest::Browse(_) => {
            ControlReply::Browsed(Browsed { end: true, ..Browsed::default() })
        }
        ControlRequest::Redrive(_) => {
            ControlReply::Redriven(Redriven { end: true, ..Redriven::default() })
        }
        ControlRequest::Parameters => ControlReply::Parameters(Vec::new()),
        ControlRequest::GlobalParameters => ControlReply::GlobalParameters(Vec::new()),
        ControlRequest::Export { .. } => ControlReply::Text("{}".to_owned()),
        ControlRequest::Apply { .. } => ControlReply::Created,
    }
}
