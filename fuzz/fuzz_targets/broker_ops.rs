//! The broker itself: any sequence of well-formed methods from two connections, crashes included.
//!
//! What a client can say is encoded and goes through a session, as it would from a socket; the
//! engine is the real one, over a simulated disk. Checked: no panic, no reply that the session cannot
//! carry, and a broker that opens again after every kill.
#![no_main]

use std::rc::Rc;

use arbitrary::Arbitrary;
use leveret_engine::storage::SimDisk;
use leveret_engine::{Engine, EngineConfig, Recovered};
use leveret_protocol::field::OwnedTable;
use leveret_protocol::method::{
    BasicAck, BasicCancel, BasicConsume, BasicGet, BasicNack, BasicPublish, BasicQos, BasicRecover,
    ConfirmSelect, ExchangeBind, ExchangeDeclare, ExchangeDelete, QueueBind, QueueDeclare,
    QueueDelete, QueuePurge, QueueUnbind,
};
use leveret_protocol::{
    Event, FieldTable, FieldTableBuilder, FieldValue, Method, PropertiesWriter, Scope, Session,
    SessionSettings,
};
use leveret_server::broker::auth::AuthSettings;
use leveret_server::broker::connection::ConnectionInfo;
use leveret_server::broker::effect::{Effects, Request};
use leveret_server::broker::exception::Exception;
use leveret_server::broker::ids::ConnectionId;
use leveret_server::broker::limits::UserLimits;
use leveret_server::broker::permission::Permission;
use leveret_server::broker::user::password::{HashingAlgorithm, PasswordHash};
use leveret_server::broker::user::{Tags, User};
use leveret_server::broker::{Broker, BrokerSettings, Context, Now};
use libfuzzer_sys::fuzz_target;

const FRAME_MAX: u32 = 4096; // bytes
const HANDSHAKE: &[u8] = b"AMQP\0\0\x09\x01\
    \x01\0\0\0\0\0\x24\0\x0a\0\x0b\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US\xce\
    \x01\0\0\0\0\0\x0c\0\x0a\0\x1f\0\x04\0\0\x10\0\0\0\xce\
    \x01\0\0\0\0\0\x08\0\x0a\0\x28\x01/\0\0\xce\
    \x01\0\x01\0\0\0\x05\0\x14\0\x0a\0\xce";
const CHANNEL_OPEN: &[u8] = b"\x01\0\x01\0\0\0\x05\0\x14\0\x0a\0\xce";
const CHANNEL_CLOSE_OK: &[u8] = b"\x01\0\x01\0\0\0\x04\0\x14\0\x29\xce";
const NAMES: [&str; 6] = ["", "a", "b", "c", "amq.topic", "amq.rabbitmq.reply-to"];
const KEYS: [&str; 5] = ["", "a", "a.b", "#", "*.b"];
const TYPES: [&str; 7] =
    ["direct", "fanout", "topic", "headers", "x-consistent-hash", "x-delayed-message", "none"];
const ARGUMENTS: [&str; 12] = [
    "x-message-ttl",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-queue-type",
    "x-overflow",
    "x-single-active-consumer",
    "x-delivery-limit",
    "alternate-exchange",
];
const TEXTS: [&str; 6] = ["a", "b", "classic", "quorum", "drop-head", "reject-publish-dlx"];

#[derive(Arbitrary, Debug)]
enum Operation {
    Declare { queue: u8, flags: u8, arguments: Vec<(u8, Value)> },
    Delete { queue: u8, flags: u8 },
    Purge { queue: u8 },
    DeclareExchange { exchange: u8, kind: u8, flags: u8, arguments: Vec<(u8, Value)> },
    DeleteExchange { exchange: u8, flags: u8 },
    Bind { queue: u8, exchange: u8, key: u8, to_exchange: bool },
    Unbind { queue: u8, exchange: u8, key: u8 },
    Publish { exchange: u8, key: u8, flags: u8, priority: u8, expiration: u8, size: u16 },
    Consume { queue: u8, tag: u8, flags: u8, arguments: Vec<(u8, Value)> },
    Cancel { tag: u8 },
    Get { queue: u8, no_ack: bool },
    Ack { tag: u8, multiple: bool },
    Nack { tag: u8, flags: u8 },
    Recover { requeue: bool },
    Qos { count: u8, global: bool },
    Confirm,
    Tx { what: u8 },
    Raw { bytes: Vec<u8> },
    Tick { ms: u16 },
    Disconnect,
    Kill,
}

#[derive(Arbitrary, Debug)]
enum Value {
    Number(i16),
    Text(u8),
    Bool(bool),
}

fuzz_target!(|operations: Vec<(bool, Operation)>| {
    let mut world = World::new();
    for (second, operation) in operations.iter().take(64) {
        world.apply(ConnectionId(u32::from(*second)), operation);
    }
    world.restart();
});

struct World {
    disk: SimDisk,
    broker: Broker,
    engine: Engine,
    effects: Effects,
    sessions: Vec<Session>,
    now: Now,
}

fn open(disk: &SimDisk, now: Now) -> (Broker, Engine, Recovered) {
    let (engine, recovered) =
        Engine::open_on(Box::new(disk.storage()), EngineConfig::tiny()).expect("an honest disk");
    let settings = BrokerSettings {
        message_size_max: 1 << 20,
        cluster_name: "fuzz".into(),
        auth: AuthSettings::default(),
        trust_x_death: false,
    };
    let broker = Broker::new(settings, &recovered, now.unix_ms, 1).expect("its own definitions");
    (broker, engine, recovered)
}

impl World {
    fn new() -> World {
        let disk = SimDisk::new(11);
        let now = Now { ms: 1, unix_ms: 1_700_000_000_000, entropy: 1 };
        let (broker, engine, _) = open(&disk, now);
        let sessions = Vec::new();
        let mut world = World { disk, broker, engine, effects: Effects::new(), sessions, now };
        let user = User {
            name: "guest".into(),
            password: PasswordHash::new(HashingAlgorithm::default(), [0; 4], "guest"),
            tags: Tags::default(),
            limits: UserLimits::default(),
        };
        let all = Permission::new(".*", ".*", ".*").expect("valid patterns");
        let World { broker, engine, effects, now, .. } = &mut world;
        let mut ctx = Context { now: *now, engine, effects };
        broker.seed("/", user, all, &mut ctx).expect("the first user");
        world.connect_all();
        world
    }

    fn connect_all(&mut self) {
        self.effects = Effects::new();
        self.sessions.clear();
        for id in [ConnectionId(0), ConnectionId(1)] {
            self.sessions.push(new_session());
            self.effects.open(id);
            self.feed(id, HANDSHAKE);
        }
    }

    fn reconnect(&mut self, id: ConnectionId) {
        let World { broker, engine, effects, now, .. } = self;
        broker.connection_gone(id, &mut Context { now: *now, engine, effects });
        self.effects.close(id);
        self.effects.open(id);
        self.sessions[id.index()] = new_session();
        self.feed(id, HANDSHAKE);
    }

    /// The process dies; another opens what it left.
    fn restart(&mut self) {
        self.tick(1);
        self.disk.kill();
        let (broker, engine, _) = open(&self.disk, self.now);
        self.broker = broker;
        self.engine = engine;
        self.connect_all();
    }

    fn apply(&mut self, id: ConnectionId, operation: &Operation) {
        match operation {
            Operation::Tick { ms } => self.tick(u64::from(*ms)),
            Operation::Disconnect => self.reconnect(id),
            Operation::Kill => self.restart(),
            operation => {
                let bytes = encode(operation);
                self.feed(id, &bytes);
            }
        }
        self.tick(1);
    }

    /// What the event loop does between two reads.
    fn tick(&mut self, ms: u64) {
        self.now.ms += ms;
        self.now.unix_ms += ms;
        for _ in 0..8 {
            let World { broker, engine, effects, now, .. } = self;
            let mut ctx = Context { now: *now, engine, effects };
            broker.on_deadline(&mut ctx);
            broker.end_of_read(&mut ctx);
            ctx.engine.submit(now.ms * 1_000_000).expect("the disk is well");
            let completed = ctx.engine.complete().expect("the disk is well");
            broker.on_durable(completed.durable, &mut ctx);
            for ticket in completed.loaded {
                broker.on_loaded(ticket, &mut ctx);
            }
            self.fulfil();
            self.drain();
        }
    }

    /// The sockets take all there is.
    fn drain(&mut self) {
        let dirty = self.effects.take_dirty();
        for id in &dirty {
            let size = self.effects.outbox(*id).len();
            if 0 < size && self.effects.sent(*id, size) {
                self.broker.on_drained(*id);
            }
        }
        self.effects.return_dirty(dirty);
    }

    fn fulfil(&mut self) {
        for request in std::mem::take(&mut self.effects.requests) {
            match request {
                Request::CloseChannel(channel, exception) => {
                    self.close_channel(channel.connection, channel.number, &exception);
                }
                Request::CloseConnection(id, _) | Request::Disconnect(id) => self.reconnect(id),
                Request::Poisoned(text) => panic!("the log failed: {text}"),
                _ => {} // what else there is concerns sockets and the operator
            }
        }
    }

    fn close_channel(&mut self, id: ConnectionId, channel: u16, exception: &Exception) {
        let Exception { code, text, method } = exception;
        let session = &mut self.sessions[id.index()];
        session.close_channel(channel, *code, text, *method, self.effects.out(id));
        self.feed(id, CHANNEL_CLOSE_OK);
        self.feed(id, CHANNEL_OPEN);
    }

    /// Hands bytes to a session and its events to the broker.
    fn feed(&mut self, id: ConnectionId, mut input: &[u8]) {
        loop {
            let World { broker, engine, effects, sessions, now, .. } = self;
            if effects.is_paused(id) {
                return self.tick(1);
            }
            let session = &mut sessions[id.index()];
            let Some(event) = session.poll(&mut input, now.ms, effects.out(id)) else { return };
            let mut ctx = Context { now: *now, engine, effects };
            let mut on_channel = 0;
            let outcome = match event {
                Event::Publish(publish) => {
                    on_channel = publish.channel;
                    broker.publish(id, &publish, &mut ctx)
                }
                Event::Method { channel, method } => {
                    on_channel = channel;
                    broker.handle(id, channel, &method, &mut ctx)
                }
                Event::Login { .. } => {
                    session.accept_login(ctx.effects.out(id));
                    Ok(())
                }
                Event::Open { vhost } => {
                    let opened = broker.open_connection(id, vhost, info(), &mut ctx);
                    session.accept_open(ctx.effects.out(id));
                    opened
                }
                Event::ChannelOpen { channel } => {
                    let opened = broker.open_channel(id, channel, &mut ctx);
                    session.channel_opened(channel, ctx.effects.out(id));
                    opened
                }
                Event::ChannelClose { channel } => {
                    broker.close_channel(id, channel, &mut ctx);
                    Ok(())
                }
                Event::Oversized { .. }
                | Event::ConnectionClose
                | Event::Failed
                | Event::Finished => return self.reconnect(id),
            };
            match outcome {
                Ok(()) => {}
                Err(refused) if refused.code.scope() == Scope::Channel && on_channel != 0 => {
                    broker.abort_channel(id, on_channel, &mut ctx);
                    return self.close_channel(id, on_channel, &refused);
                }
                Err(_) => return self.reconnect(id),
            }
        }
    }
}

fn new_session() -> Session {
    let settings = SessionSettings {
        server_properties: FieldTableBuilder::new().build(),
        mechanisms: "PLAIN".to_owned(),
        channel_max: 4,
        frame_max: FRAME_MAX,
        heartbeat_s: 0,
        handshake_timeout_ms: 10_000,
        max_message_size: 1 << 20,
    };
    Session::new(Rc::new(settings), 0)
}

fn info() -> ConnectionInfo {
    ConnectionInfo {
        name: "fuzz".into(),
        host: "127.0.0.1".into(),
        port: 5672,
        peer_host: "127.0.0.1".into(),
        peer_port: 1,
        user: "guest".into(),
        mechanism: "PLAIN".into(),
        client_properties: OwnedTable::default(),
        consumer_cancel_notify: true,
        blocked_notify: true,
        frame_max: FRAME_MAX,
        channel_max: 4,
        heartbeat_s: 0,
        connected_at_ms: 1,
    }
}

fn pick<'a>(from: &[&'a str], index: u8) -> &'a str {
    from[usize::from(index) % from.len()]
}

fn table(arguments: &[(u8, Value)]) -> OwnedTable {
    let mut builder = FieldTableBuilder::new();
    for (name, value) in arguments.iter().take(4) {
        let value = match *value {
            Value::Number(number) => FieldValue::I16(number),
            Value::Text(index) => FieldValue::LongStr(pick(&TEXTS, index).as_bytes()),
            Value::Bool(truth) => FieldValue::Bool(truth),
        };
        builder.insert(pick(&ARGUMENTS, *name), value);
    }
    builder.build()
}

/// The frames that say it.
fn encode(operation: &Operation) -> Vec<u8> {
    let bit = |flags: u8, index: u8| flags >> index & 1 == 1;
    let mut out = Vec::new();
    let mut say = |method: Method<'_>| method.encode(1, &mut out);
    match operation {
        Operation::Declare { queue, flags, arguments } => {
            let arguments = table(arguments);
            say(Method::QueueDeclare(QueueDeclare {
                queue: pick(&NAMES[..4], *queue),
                passive: bit(*flags, 0) && bit(*flags, 1),
                durable: bit(*flags, 2),
                exclusive: bit(*flags, 3),
                auto_delete: bit(*flags, 4),
                no_wait: bit(*flags, 5),
                arguments: arguments.as_ref(),
            }));
        }
        Operation::Delete { queue, flags } => say(Method::QueueDelete(QueueDelete {
            queue: pick(&NAMES, *queue),
            if_unused: bit(*flags, 0),
            if_empty: bit(*flags, 1),
            no_wait: bit(*flags, 2),
        })),
        Operation::Purge { queue } => {
            say(Method::QueuePurge(QueuePurge { queue: pick(&NAMES, *queue), no_wait: false }));
        }
        Operation::DeclareExchange { exchange, kind, flags, arguments } => {
            let arguments = table(arguments);
            say(Method::ExchangeDeclare(ExchangeDeclare {
                exchange: pick(&NAMES, *exchange),
                kind: pick(&TYPES, *kind),
                passive: bit(*flags, 0) && bit(*flags, 1),
                durable: bit(*flags, 2),
                auto_delete: bit(*flags, 3),
                internal: bit(*flags, 4),
                no_wait: bit(*flags, 5),
                arguments: arguments.as_ref(),
            }));
        }
        Operation::DeleteExchange { exchange, flags } => {
            say(Method::ExchangeDelete(ExchangeDelete {
                exchange: pick(&NAMES, *exchange),
                if_unused: bit(*flags, 0),
                no_wait: bit(*flags, 1),
            }));
        }
        Operation::Bind { queue, exchange, key, to_exchange: false } => {
            say(Method::QueueBind(QueueBind {
                queue: pick(&NAMES, *queue),
                exchange: pick(&NAMES, *exchange),
                routing_key: pick(&KEYS, *key),
                no_wait: false,
                arguments: FieldTable::EMPTY,
            }));
        }
        Operation::Bind { queue, exchange, key, to_exchange: true } => {
            say(Method::ExchangeBind(ExchangeBind {
                destination: pick(&NAMES, *queue),
                source: pick(&NAMES, *exchange),
                routing_key: pick(&KEYS, *key),
                no_wait: false,
                arguments: FieldTable::EMPTY,
            }));
        }
        Operation::Unbind { queue, exchange, key } => say(Method::QueueUnbind(QueueUnbind {
            queue: pick(&NAMES, *queue),
            exchange: pick(&NAMES, *exchange),
            routing_key: pick(&KEYS, *key),
            arguments: FieldTable::EMPTY,
        })),
        Operation::Consume { queue, tag, flags, arguments } => {
            let arguments = table(arguments);
            say(Method::BasicConsume(BasicConsume {
                queue: pick(&NAMES, *queue),
                consumer_tag: pick(&NAMES, *tag),
                no_local: bit(*flags, 0),
                no_ack: bit(*flags, 1),
                exclusive: bit(*flags, 2),
                no_wait: bit(*flags, 3),
                arguments: arguments.as_ref(),
            }));
        }
        Operation::Cancel { tag } => say(Method::BasicCancel(BasicCancel {
            consumer_tag: pick(&NAMES, *tag),
            no_wait: false,
        })),
        Operation::Get { queue, no_ack } => {
            say(Method::BasicGet(BasicGet { queue: pick(&NAMES, *queue), no_ack: *no_ack }));
        }
        Operation::Ack { tag, multiple } => {
            say(Method::BasicAck(BasicAck { delivery_tag: u64::from(*tag), multiple: *multiple }))
        }
        Operation::Nack { tag, flags } => say(Method::BasicNack(BasicNack {
            delivery_tag: u64::from(*tag),
            multiple: bit(*flags, 0),
            requeue: bit(*flags, 1),
        })),
        Operation::Recover { requeue } => {
            say(Method::BasicRecover(BasicRecover { requeue: *requeue }));
        }
        Operation::Qos { count, global } => say(Method::BasicQos(BasicQos {
            prefetch_size: 0,
            prefetch_count: u16::from(*count),
            global: *global,
        })),
        Operation::Confirm => say(Method::ConfirmSelect(ConfirmSelect { no_wait: false })),
        Operation::Tx { what } => say(match what % 3 {
            0 => Method::TxSelect,
            1 => Method::TxCommit,
            _ => Method::TxRollback,
        }),
        Operation::Raw { bytes } => {
            out.push(1);
            out.extend_from_slice(&[0, 1]);
            out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes());
            out.extend_from_slice(bytes);
            out.push(0xce);
        }
        publish @ Operation::Publish { .. } => encode_publish(publish, &mut out),
        Operation::Tick { .. } | Operation::Disconnect | Operation::Kill => {}
    }
    out
}

fn encode_publish(operation: &Operation, out: &mut Vec<u8>) {
    let Operation::Publish { exchange, key, flags, priority, expiration, size } = operation else {
        unreachable!("the caller matched it");
    };
    let publish = BasicPublish {
        exchange: pick(&NAMES, *exchange),
        routing_key: pick(&KEYS, *key),
        mandatory: flags & 1 == 1,
        immediate: false,
    };
    Method::BasicPublish(publish).encode(1, out);
    let expiration = expiration.to_string();
    let properties = PropertiesWriter {
        delivery_mode: (flags & 2 == 2).then_some(2),
        priority: (flags & 4 == 4).then_some(*priority),
        expiration: (flags & 8 == 8).then_some(expiration.as_bytes()),
        reply_to: (flags & 16 == 16).then_some(b"amq.rabbitmq.reply-to"),
        ..PropertiesWriter::default()
    };
    let properties = properties.to_bytes();
    let body = vec![b'x'; usize::from(*size % 9000)];
    frame(out, 2, |out| {
        out.extend_from_slice(&[0, 60, 0, 0]);
        out.extend_from_slice(&(body.len() as u64).to_be_bytes());
        out.extend_from_slice(&properties);
    });
    for part in body.chunks(FRAME_MAX as usize - 8) {
        frame(out, 3, |out| out.extend_from_slice(part));
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[kind, 0, 1, 0, 0, 0, 0]);
    payload(out);
    let size = u32::try_from(out.len() - start - 7).expect("a small frame");
    out[start + 3..start + 7].copy_from_slice(&size.to_be_bytes());
    out.push(0xce);
}
