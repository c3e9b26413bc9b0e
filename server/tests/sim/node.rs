//! One life of the broker's process: the real broker and engine on a simulated disk.
//!
//! What the event loop does around them is done here, tick by tick, with a clock that is told.

use std::collections::BTreeMap;

use leveret_engine::storage::SimDisk;
use leveret_engine::{BatchId, Engine, EngineConfig, EngineError};
use leveret_protocol::content::Publish;
use leveret_protocol::field::{FieldTable, FieldTableBuilder, FieldValue, OwnedTable};
use leveret_protocol::method::{BasicPublish, Method};
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

use crate::heard::{Ears, Heard};
use crate::random::Random;

/// A process that has not died yet.
#[derive(Debug)]
pub(crate) struct Node {
    broker: Broker,
    pub(crate) engine: Engine,
    effects: Effects,
    now_ns: u64,
    random: Random,
    durable: BatchId,
    connections: BTreeMap<ConnectionId, Link>,
    /// Damaged messages the broker told the operator of.
    pub(crate) reports: Vec<String>,
}

#[derive(Debug, Default)]
struct Link {
    ears: Ears,
    /// Bytes of the outbox that were heard and are not sent yet.
    heard: usize,
}

/// Why a process ended by itself.
#[derive(Debug)]
pub(crate) struct Died(pub(crate) String);

impl From<EngineError> for Died {
    fn from(error: EngineError) -> Died {
        Died(error.to_string())
    }
}

impl Node {
    /// Starts a process on what the disk holds.
    ///
    /// # Errors
    /// The log is refused, or the disk failed.
    pub(crate) fn start(disk: &SimDisk, now_ns: u64, random: Random) -> Result<Node, Died> {
        let (engine, recovered) = Engine::open_on(Box::new(disk.storage()), EngineConfig::tiny())?;
        let settings = BrokerSettings {
            message_size_max: 128 << 20,
            cluster_name: "rabbit@sim".to_owned(),
            auth: AuthSettings::default(),
            trust_x_death: false,
        };
        let broker = Broker::new(settings, &recovered, now_ns / 1_000_000, 1)
            .map_err(|error| Died(error.to_string()))?;
        let mut node = Node {
            broker,
            engine,
            effects: Effects::new(),
            now_ns,
            random,
            durable: BatchId(0),
            connections: BTreeMap::new(),
            reports: Vec::new(),
        };
        if node.broker.is_empty() {
            node.seed()?;
        }
        Ok(node)
    }

    fn seed(&mut self) -> Result<(), Died> {
        let user = User {
            name: "guest".into(),
            password: PasswordHash::new(HashingAlgorithm::Sha256, [1, 2, 3, 4], "guest"),
            tags: Tags::new(["administrator"]).expect("a tag"),
            limits: UserLimits::default(),
        };
        self.with(|broker, ctx| broker.seed("/", user, Permission::full(), ctx))
            .map_err(|exception| Died(exception.text))?;
        Ok(self.engine.sync()?)
    }

    fn with<T>(&mut self, call: impl FnOnce(&mut Broker, &mut Context<'_>) -> T) -> T {
        let ms = self.now_ns / 1_000_000;
        let now = Now { ms, unix_ms: ms, entropy: self.random.next() };
        let mut ctx = Context { now, engine: &mut self.engine, effects: &mut self.effects };
        call(&mut self.broker, &mut ctx)
    }

    /// What the time is.
    pub(crate) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// One turn of the event loop, `elapsed_ns` after the one before.
    ///
    /// # Errors
    /// The log has failed, and the process with it.
    pub(crate) fn tick(&mut self, elapsed_ns: u64) -> Result<(), Died> {
        self.now_ns += elapsed_ns;
        let completed = self.engine.complete()?;
        self.durable = completed.durable;
        self.with(|broker, ctx| {
            broker.on_durable(completed.durable, ctx);
            for ticket in completed.loaded {
                broker.on_loaded(ticket, ctx);
            }
        });
        self.with(Broker::end_of_read);
        self.fulfil_requests()?;
        let now_ns = self.now_ns;
        self.engine.submit(now_ns)?;
        Ok(())
    }

    fn fulfil_requests(&mut self) -> Result<(), Died> {
        for request in std::mem::take(&mut self.effects.requests) {
            match request {
                Request::Poisoned(text) => return Err(Died(text)),
                Request::Report(text) => self.reports.push(text),
                // `is_paused` is asked before every command; the rest is for the log of events.
                Request::Resume(_)
                | Request::Alarms(_)
                | Request::Changed(_)
                | Request::Warn(_) => {}
                Request::CloseChannel(channel, exception) => {
                    panic!("{channel:?} is closed: {exception:?}")
                }
                Request::CloseConnection(id, exception) => {
                    panic!("{id:?} is closed: {exception:?}")
                }
                Request::Disconnect(id) => panic!("{id:?} did not say goodbye"),
            }
        }
        Ok(())
    }

    /// Everything on the way to clients that they have not heard, in the order of connections.
    pub(crate) fn hear(&mut self) -> Vec<(ConnectionId, u16, Heard)> {
        let mut events = Vec::new();
        let mut dirty = self.effects.take_dirty();
        dirty.sort_unstable();
        for id in &dirty {
            let Some(link) = self.connections.get_mut(id) else { continue };
            let outbox = self.effects.outbox(*id);
            let new = &outbox.bytes[outbox.sent + link.heard..];
            link.heard += new.len();
            events.extend(link.ears.listen(new).into_iter().map(|(number, h)| (*id, number, h)));
        }
        self.effects.return_dirty(dirty);
        events
    }

    /// The socket takes everything that waits.
    pub(crate) fn drain(&mut self, id: ConnectionId) {
        let waiting = self.effects.outbox(id).len();
        let link = self.connections.get_mut(&id).expect("an open connection");
        assert_eq!(link.heard, waiting, "everything is heard before it is sent");
        link.heard = 0;
        if 0 < waiting && self.effects.sent(id, waiting) {
            self.with(|broker, _| broker.on_drained(id));
        }
    }

    /// Whether the connection's next command must wait.
    pub(crate) fn is_paused(&self, id: ConnectionId) -> bool {
        self.effects.is_paused(id)
    }

    /// Whether publishers must wait for the disk.
    pub(crate) fn log_is_behind(&self) -> bool {
        self.engine.config().staged_bytes_max <= self.engine.staged_bytes()
    }

    pub(crate) fn connect(&mut self, id: ConnectionId) {
        self.effects.open(id);
        self.connections.insert(id, Link::default());
        let info = ConnectionInfo {
            name: format!("127.0.0.1:{} -> 127.0.0.1:5672", id.0),
            host: "127.0.0.1".into(),
            port: 5672,
            peer_host: "127.0.0.1".into(),
            peer_port: 1000,
            user: "guest".into(),
            mechanism: "PLAIN".into(),
            client_properties: OwnedTable::default(),
            consumer_cancel_notify: true,
            blocked_notify: true,
            frame_max: 4096,
            channel_max: 2047,
            heartbeat_s: 60,
            connected_at_ms: 0,
        };
        self.with(|broker, ctx| broker.open_connection(id, "/", info, ctx)).expect("opens");
    }

    /// The connection breaks.
    pub(crate) fn disconnect(&mut self, id: ConnectionId) {
        self.with(|broker, ctx| broker.connection_gone(id, ctx));
        self.effects.close(id);
        self.connections.remove(&id);
    }

    pub(crate) fn open_channel(&mut self, id: ConnectionId, number: u16) {
        self.with(|broker, ctx| broker.open_channel(id, number, ctx)).expect("opens");
    }

    pub(crate) fn close_channel(&mut self, id: ConnectionId, number: u16) {
        self.with(|broker, ctx| broker.close_channel(id, number, ctx));
    }

    /// What the shell does after an exception.
    pub(crate) fn abort_channel(&mut self, id: ConnectionId, number: u16) {
        self.with(|broker, ctx| broker.abort_channel(id, number, ctx));
    }

    pub(crate) fn call(
        &mut self,
        id: ConnectionId,
        number: u16,
        method: &Method<'_>,
    ) -> Result<(), Exception> {
        self.with(|broker, ctx| broker.handle(id, number, method, ctx))
    }

    pub(crate) fn publish(
        &mut self,
        id: ConnectionId,
        number: u16,
        exchange: &str,
        key: &str,
        persistent: bool,
        body: &[u8],
    ) -> Result<(), Exception> {
        let publish =
            BasicPublish { exchange, routing_key: key, mandatory: false, immediate: false };
        let mut frame = Vec::new();
        Method::BasicPublish(publish).encode(number, &mut frame);
        let method = &frame[7..frame.len() - 1];
        let properties: &[u8] = if persistent { &[0x10, 0, 2] } else { &[0, 0] };
        let publish = Publish { channel: number, method, properties, body };
        self.with(|broker, ctx| broker.publish(id, &publish, ctx))
    }
}

/// The arguments of a queue of `kind`.
pub(crate) fn queue_arguments(kind: &str) -> OwnedTable {
    let mut table = FieldTableBuilder::new();
    if kind != "classic" {
        table.insert("x-queue-type", FieldValue::LongStr(kind.as_bytes()));
    }
    table.build()
}

/// No arguments.
pub(crate) const NONE: FieldTable<'static> = FieldTable::EMPTY;
