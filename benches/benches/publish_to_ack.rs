//! A message's whole way through session, broker and engine, without sockets: from the bytes of its
//! publish to the bytes of its delivery, and to its ack.
//!
//! One turn is what the event loop does with one full read: a block of publishes is fed to the
//! publisher's session, the queue is pumped, the consumer's outbox is emptied, and, where it acks,
//! one ack for each delivery is fed to the consumer's session.

use std::hint::black_box;
use std::path::PathBuf;
use std::rc::Rc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use leveret_benches::wire::{
    PROTOCOL_HEADER, method, put_content, put_longstr, put_method, put_shortstr,
};
use leveret_engine::{Engine, EngineConfig, IoChoice};
use leveret_protocol::field::{FieldTableBuilder, OwnedTable};
use leveret_protocol::session::{Event, Session, SessionSettings};
use leveret_server::broker::auth::AuthSettings;
use leveret_server::broker::connection::ConnectionInfo;
use leveret_server::broker::effect::Effects;
use leveret_server::broker::ids::ConnectionId;
use leveret_server::broker::limits::UserLimits;
use leveret_server::broker::permission::Permission;
use leveret_server::broker::user::password::{HashingAlgorithm, PasswordHash};
use leveret_server::broker::user::{Tags, User};
use leveret_server::broker::{Broker, BrokerSettings, Context, Now};

const FRAME_MAX: u32 = 128 * 1024; // bytes
/// What one read brings at most.
const READ_SIZE: usize = 256 * 1024; // bytes
const PUBLISHER: ConnectionId = ConnectionId(0);
const CONSUMER: ConnectionId = ConnectionId(1);
/// Bytes of a basic.ack frame, and where its tag lies.
const ACK_SIZE: usize = 21;
const ACK_TAG_AT: usize = 11;

struct World {
    broker: Broker,
    engine: Engine,
    effects: Effects,
    sessions: Vec<Session>,
    now: Now,
    directory: PathBuf,
}

impl World {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("leveret-{name}-{}", std::process::id()));
        let config = EngineConfig { io: IoChoice::Thread, ..EngineConfig::default() };
        let (mut engine, recovered) = Engine::open(&directory, config).expect("a fresh directory");
        let settings = BrokerSettings {
            message_size_max: 1 << 20,
            cluster_name: "bench".into(),
            auth: AuthSettings::default(),
            trust_x_death: false,
        };
        let mut broker = Broker::new(settings, &recovered, 0, 1).expect("nothing to restore");
        let mut effects = Effects::new();
        let now = Now { ms: 1, unix_ms: 1, entropy: 1 };
        let user = User {
            name: "guest".into(),
            password: PasswordHash::new(HashingAlgorithm::default(), [0; 4], "guest"),
            tags: Tags::default(),
            limits: UserLimits::default(),
        };
        let all = Permission::new(".*", ".*", ".*").expect("valid patterns");
        let mut ctx = Context { now, engine: &mut engine, effects: &mut effects };
        broker.seed("/", user, all, &mut ctx).expect("the first user");
        let mut world = Self { broker, engine, effects, sessions: Vec::new(), now, directory };
        let settings = Rc::new(SessionSettings {
            server_properties: FieldTableBuilder::new().build(),
            mechanisms: "PLAIN".into(),
            channel_max: 0,
            frame_max: FRAME_MAX,
            heartbeat_s: 0,
            handshake_timeout_ms: 10_000,
            max_message_size: 1 << 20,
        });
        for id in [PUBLISHER, CONSUMER] {
            world.effects.open(id);
            world.sessions.push(Session::new(settings.clone(), 0));
            world.feed(id, &handshake());
            world.drain(id);
        }
        world
    }

    /// Hands bytes to a session and its events to the broker.
    fn feed(&mut self, id: ConnectionId, mut input: &[u8]) {
        let Self { broker, engine, effects, sessions, now, .. } = self;
        let session = &mut sessions[id.index()];
        while let Some(event) = session.poll(&mut input, now.ms, effects.out(id)) {
            let mut ctx = Context { now: *now, engine, effects };
            let done = match event {
                Event::Publish(publish) => broker.publish(id, &publish, &mut ctx),
                Event::Method { channel, method } => broker.handle(id, channel, &method, &mut ctx),
                Event::Login { .. } => {
                    session.accept_login(effects.out(id));
                    Ok(())
                }
                Event::Open { vhost } => {
                    let opened = broker.open_connection(id, vhost, info(), &mut ctx);
                    session.accept_open(effects.out(id));
                    opened
                }
                Event::ChannelOpen { channel } => {
                    let opened = broker.open_channel(id, channel, &mut ctx);
                    session.channel_opened(channel, effects.out(id));
                    opened
                }
                other @ (Event::Oversized { .. }
                | Event::ChannelClose { .. }
                | Event::ConnectionClose
                | Event::Failed
                | Event::Finished) => panic!("unexpected: {other:?}"),
            };
            done.expect("nothing is refused");
        }
        assert!(input.is_empty(), "all is taken");
    }

    /// What the broker does at the end of a tick, and the socket taking all; the bytes it took.
    fn deliver(&mut self) -> usize {
        let mut size = 0;
        loop {
            let mut ctx =
                Context { now: self.now, engine: &mut self.engine, effects: &mut self.effects };
            self.broker.end_of_read(&mut ctx);
            match self.drain(CONSUMER) {
                0 => break,
                count => size += count,
            }
        }
        self.engine.submit(self.now.ms * 1_000_000).expect("the log is well");
        size
    }

    fn drain(&mut self, id: ConnectionId) -> usize {
        let dirty = self.effects.take_dirty();
        self.effects.return_dirty(dirty);
        let size = self.effects.outbox(id).len();
        if 0 < size {
            black_box(&self.effects.outbox(id).bytes);
            if self.effects.sent(id, size) {
                self.broker.on_drained(id);
            }
        }
        size
    }
}

impl Drop for World {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.directory).expect("it was made here");
    }
}

fn info() -> ConnectionInfo {
    ConnectionInfo {
        name: "bench".into(),
        host: "127.0.0.1".into(),
        port: 5672,
        peer_host: "127.0.0.1".into(),
        peer_port: 1,
        user: "guest".into(),
        mechanism: "PLAIN".into(),
        client_properties: OwnedTable::default(),
        consumer_cancel_notify: false,
        blocked_notify: false,
        frame_max: FRAME_MAX,
        channel_max: 0,
        heartbeat_s: 0,
        connected_at_ms: 1,
    }
}

/// All that a client says before its first own method.
fn handshake() -> Vec<u8> {
    let mut bytes = PROTOCOL_HEADER.to_vec();
    put_method(&mut bytes, 0, method::START_OK, |out| {
        out.extend_from_slice(&[0; 4]);
        put_shortstr(out, "PLAIN");
        put_longstr(out, b"\0guest\0guest");
        put_shortstr(out, "en_US");
    });
    put_method(&mut bytes, 0, method::TUNE_OK, |out| {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&FRAME_MAX.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
    });
    put_method(&mut bytes, 0, method::OPEN, |out| {
        put_shortstr(out, "/");
        out.extend_from_slice(&[0, 0]);
    });
    put_method(&mut bytes, 1, method::CHANNEL_OPEN, |out| out.push(0));
    bytes
}

/// Declares the queue `q` and subscribes to it.
fn subscribe(no_ack: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_method(&mut bytes, 1, method::QUEUE_DECLARE, |out| {
        out.extend_from_slice(&[0, 0]);
        put_shortstr(out, "q");
        out.extend_from_slice(&[0; 5]);
    });
    put_method(&mut bytes, 1, method::CONSUME, |out| {
        out.extend_from_slice(&[0, 0]);
        put_shortstr(out, "q");
        put_shortstr(out, "c");
        out.push(u8::from(no_ack) << 1);
        out.extend_from_slice(&[0; 4]);
    });
    bytes
}

/// As many publishes to `q` as one read brings, and their number.
fn publishes(body_size: usize) -> (Vec<u8>, u64) {
    let (mut bytes, mut count) = (Vec::new(), 0);
    while bytes.len() + body_size + 100 < READ_SIZE {
        put_method(&mut bytes, 1, method::PUBLISH, |out| {
            out.extend_from_slice(&[0, 0]);
            put_shortstr(out, "");
            put_shortstr(out, "q");
            out.push(0);
        });
        put_content(&mut bytes, 1, FRAME_MAX, false, &vec![b'x'; body_size]);
        count += 1;
    }
    (bytes, count)
}

/// An ack for each of `count` deliveries, tags still to be written.
fn acks(count: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..count {
        put_method(&mut bytes, 1, method::ACK, |out| out.extend_from_slice(&[0; 9]));
    }
    bytes
}

fn publish_to_ack(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish_to_ack");
    for body_size in [16, 1024] {
        for acked in [false, true] {
            let mode = if acked { "ack_each" } else { "auto_ack" };
            let mut world = World::new(&format!("{mode}-{body_size}"));
            world.feed(CONSUMER, &subscribe(!acked));
            world.drain(CONSUMER);
            let (block, count) = publishes(body_size);
            let mut acks = acks(count);
            let mut tag = 0_u64;
            group.throughput(Throughput::Elements(count));
            group.bench_function(format!("transient_{body_size}_{mode}"), |bencher| {
                bencher.iter(|| {
                    world.feed(PUBLISHER, &block);
                    assert!(block.len() < 2 * world.deliver(), "all is delivered");
                    if acked {
                        for ack in acks.chunks_exact_mut(ACK_SIZE) {
                            tag += 1;
                            ack[ACK_TAG_AT..ACK_TAG_AT + 8].copy_from_slice(&tag.to_be_bytes());
                        }
                        world.feed(CONSUMER, &acks);
                    }
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, publish_to_ack);
criterion_main!(benches);
