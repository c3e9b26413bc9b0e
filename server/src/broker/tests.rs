//! The broker driven without sockets: commands in, frames out of the outboxes.

use super::auth::AuthSettings;
use super::connection::ConnectionInfo;
use super::control::Removal;
use super::effect::{Effects, Request};
use super::exception::Exception;
use super::ids::ConnectionId;
use super::permission::Permission;
use super::user::password::{HashingAlgorithm, PasswordHash};
use super::user::{Tags, User};
use super::{Broker, BrokerSettings, Context, Now};
use leveret_engine::{Engine, EngineConfig};
use leveret_protocol::content::Publish;
use leveret_protocol::field::{FieldTable, FieldTableBuilder, FieldValue, OwnedTable};
use leveret_protocol::frame::split_frame;
use leveret_protocol::method::*;
use leveret_protocol::properties::PropertiesWriter;

mod consumers;
mod dead_letters;
mod delayed;
mod expiry;
mod limits;
mod model;
mod priorities;
mod replies;
mod timeouts;
mod told;
mod transactions;

impl Broker {
    /// Rows of the queues of one virtual host or all, or of one name, in the order of their names.
    fn queue_rows(
        &mut self,
        vhost: Option<super::ids::VhostKey>,
        name: Option<&str>,
        ctx: &mut Context<'_>,
    ) -> Vec<super::snapshot::QueueRow> {
        let (mut rows, next) = self.queue_rows_from(vhost, 0, ctx);
        assert_eq!(next, None, "tests have few queues");
        rows.retain(|row| name.is_none_or(|name| row.name == name));
        rows.sort_by(|one, other| (&one.vhost, &one.name).cmp(&(&other.vhost, &other.name)));
        rows
    }
}

/// A broker, its engine and its sink.
struct Node {
    broker: Broker,
    engine: Engine,
    effects: Effects,
    now_ms: u64,
    /// Answers `basic.get-empty` that were seen.
    gets_empty: u64,
    dir: tempfile::TempDir,
}

/// A frame that came out, as the tests look at it.
#[derive(Debug, PartialEq, Eq)]
enum Out {
    /// A method, as its debug text.
    Method(u16, String),
    /// A body.
    Body(Vec<u8>),
}

fn settings() -> BrokerSettings {
    BrokerSettings {
        message_size_max: 128 << 20,
        cluster_name: "rabbit@test".to_owned(),
        auth: AuthSettings::default(),
        trust_x_death: false,
    }
}

impl Node {
    fn new() -> Node {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (engine, recovered) =
            Engine::open(dir.path(), EngineConfig::default()).expect("an empty directory opens");
        let broker = Broker::new(settings(), &recovered, 0, 1).expect("nothing to restore");
        let effects = Effects::new();
        let mut node = Node { broker, engine, effects, now_ms: 1, gets_empty: 0, dir };
        let user = User {
            name: "guest".into(),
            password: PasswordHash::new(HashingAlgorithm::Sha256, [1, 2, 3, 4], "guest"),
            tags: Tags::new(["administrator"]).expect("a tag"),
            limits: super::limits::UserLimits::default(),
        };
        node.with(|broker, ctx| broker.seed("/", user, Permission::full(), ctx)).expect("seeds");
        node.sync();
        node
    }

    /// The node after its process ended and started again.
    fn restarted(self) -> Node {
        drop(self.engine);
        let (mut engine, recovered) =
            Engine::open(self.dir.path(), EngineConfig::default()).expect("it opens again");
        let broker = Broker::new(settings(), &recovered, self.now_ms, 1).expect("restored");
        broker.delete_orphans(&recovered, &mut engine).expect("a working log");
        let (effects, now_ms) = (Effects::new(), self.now_ms);
        Node { broker, engine, effects, now_ms, gets_empty: 0, dir: self.dir }
    }

    fn with<T>(&mut self, call: impl FnOnce(&mut Broker, &mut Context<'_>) -> T) -> T {
        self.now_ms += 1;
        let now = Now { ms: self.now_ms, unix_ms: self.now_ms, entropy: self.now_ms };
        let mut ctx = Context { now, engine: &mut self.engine, effects: &mut self.effects };
        call(&mut self.broker, &mut ctx)
    }

    /// Ends the tick without waiting for the disk.
    fn tick(&mut self) {
        self.with(Broker::end_of_read);
    }

    /// Ends the tick and waits for the disk.
    fn sync(&mut self) {
        self.tick();
        self.engine.sync().expect("a working disk");
        let durable = self.engine.durable();
        self.with(|broker, ctx| broker.on_durable(durable, ctx));
        self.tick();
    }

    /// Lets time pass, and everything happen that is due by then.
    fn advance(&mut self, ms: u64) {
        self.tick();
        self.now_ms += ms;
        // The clock of these tests moves with every call, so what is due at once comes to an end.
        for _ in 0..1000 {
            if self.broker.next_deadline().is_none_or(|at_ms| self.now_ms < at_ms) {
                break;
            }
            self.with(Broker::on_deadline);
            self.settle();
        }
    }

    /// Declares a durable queue with arguments, given as JSON.
    fn declare_json(&mut self, id: ConnectionId, queue: &str, arguments: &str) {
        let arguments: serde_json::Value = serde_json::from_str(arguments).expect("JSON");
        let mut table = FieldTableBuilder::new();
        for (key, value) in arguments.as_object().expect("an object") {
            let value = match (value.as_str(), value.as_i64(), value.as_bool()) {
                (Some(text), ..) => FieldValue::LongStr(text.as_bytes()),
                (_, Some(number), _) => FieldValue::I64(number),
                (_, _, value) => FieldValue::Bool(value.expect("a flag")),
            };
            table.insert(key, value);
        }
        self.call(id, declare_with(queue, true, table.build().as_ref())).expect("declared");
        self.sync();
    }

    /// Sets a policy for all queues of the names that `pattern` matches.
    fn set_policy(&mut self, name: &str, pattern: &str, definition: &str) {
        let text = format!(
            r#"{{"policies": [{{"vhost": "/", "name": "{name}", "pattern": "{pattern}",
                "apply-to": "queues", "priority": 0, "definition": {definition}}}]}}"#
        );
        import(self, &text);
    }

    /// The bodies of everything ready in a queue, which is left empty. Only what is outstanding on
    /// the connection stays.
    fn get_all(&mut self, id: ConnectionId, queue: &str) -> Vec<String> {
        self.settle();
        self.out(id);
        loop {
            let get = Method::BasicGet(BasicGet { queue, no_ack: true });
            self.call(id, get).expect("its queue");
            self.settle();
            let before = self.effects.outbox(id).len();
            assert!(0 < before, "an answer");
            if self.broker.totals.get_empty != self.gets_empty {
                self.gets_empty = self.broker.totals.get_empty;
                return self.bodies(id);
            }
        }
    }

    /// Ready messages of a queue.
    fn count(&self, queue: &str) -> u64 {
        let mut queues = self.broker.queues.iter().map(|(_, queue)| queue);
        let found = queues.find(|candidate| &*candidate.definition.name == queue);
        found.expect("a queue of that name").levels.ready_count()
    }

    /// Ends the tick, and goes on until nothing waits for the disk any more, reads included.
    fn settle(&mut self) {
        self.engine.submit(0).expect("a working disk");
        self.sync();
        while !self.broker.parked.is_empty() {
            let completed = self.engine.complete().expect("a working disk");
            if completed.loaded.is_empty() {
                // Waiting for a real disk takes none of the time of these tests.
                self.engine.submit(0).expect("a working disk");
                std::thread::yield_now();
                continue;
            }
            for ticket in completed.loaded {
                self.with(|broker, ctx| broker.on_loaded(ticket, ctx));
            }
            self.tick();
        }
    }

    fn connect(&mut self, slot: u32) -> ConnectionId {
        let id = ConnectionId(slot);
        self.effects.open(id);
        let info = ConnectionInfo {
            name: format!("127.0.0.1:{slot} -> 127.0.0.1:5672"),
            host: "127.0.0.1".into(),
            port: 5672,
            peer_host: "127.0.0.1".into(),
            peer_port: 1000,
            user: "guest".into(),
            mechanism: "PLAIN".into(),
            client_properties: OwnedTable::default(),
            consumer_cancel_notify: true,
            blocked_notify: true,
            frame_max: 131_072,
            channel_max: 2047,
            heartbeat_s: 60,
            connected_at_ms: 0,
        };
        self.with(|broker, ctx| broker.open_connection(id, "/", info, ctx)).expect("opens");
        self.with(|broker, ctx| broker.open_channel(id, 1, ctx)).expect("opens");
        id
    }

    fn call(&mut self, id: ConnectionId, method: Method<'_>) -> Result<(), Exception> {
        self.call_on(id, 1, method)
    }

    fn call_on(
        &mut self,
        id: ConnectionId,
        channel: u16,
        method: Method<'_>,
    ) -> Result<(), Exception> {
        self.with(|broker, ctx| broker.handle(id, channel, &method, ctx))
    }

    /// Publishes with any properties.
    fn send(
        &mut self,
        id: ConnectionId,
        (exchange, key): (&str, &str),
        properties: &PropertiesWriter<'_>,
        body: &str,
    ) -> Result<(), Exception> {
        let publish =
            BasicPublish { exchange, routing_key: key, mandatory: false, immediate: false };
        let mut frame = Vec::new();
        Method::BasicPublish(publish).encode(1, &mut frame);
        let method = &frame[7..frame.len() - 1];
        let properties = properties.to_bytes();
        let publish =
            Publish { channel: 1, method, properties: &properties, body: body.as_bytes() };
        self.with(|broker, ctx| broker.publish(id, &publish, ctx))
    }

    fn publish(
        &mut self,
        id: ConnectionId,
        exchange: &str,
        key: &str,
        persistent: bool,
        body: &str,
    ) {
        let publish =
            BasicPublish { exchange, routing_key: key, mandatory: true, immediate: false };
        let mut frame = Vec::new();
        Method::BasicPublish(publish).encode(1, &mut frame);
        let method = &frame[7..frame.len() - 1];
        let properties: &[u8] = if persistent { &[0x10, 0, 2] } else { &[0, 0] };
        let publish = Publish { channel: 1, method, properties, body: body.as_bytes() };
        self.with(|broker, ctx| broker.publish(id, &publish, ctx)).expect("published");
    }

    /// Everything sent to the connection since the last look.
    fn out(&mut self, id: ConnectionId) -> Vec<Out> {
        let bytes = self.effects.outbox(id).bytes[self.effects.outbox(id).sent..].to_vec();
        self.effects.take_dirty();
        self.effects.sent(id, bytes.len());
        let mut input = &bytes[..];
        let mut frames = Vec::new();
        while let Some(frame) = split_frame(&mut input, usize::MAX, 0).expect("our own frames") {
            match frame.kind {
                1 => {
                    let method = Method::decode(frame.payload).expect("our own methods");
                    frames.push(Out::Method(frame.channel, format!("{method:?}")));
                }
                3 => frames.push(Out::Body(frame.payload.to_vec())),
                _ => {}
            }
        }
        frames
    }

    fn bodies(&mut self, id: ConnectionId) -> Vec<String> {
        let bodies = self.out(id).into_iter().filter_map(|out| match out {
            Out::Body(body) => Some(String::from_utf8(body).expect("text")),
            Out::Method(..) => None,
        });
        bodies.collect()
    }

    fn names(&mut self, id: ConnectionId) -> Vec<String> {
        let methods = self.out(id).into_iter().filter_map(|out| match out {
            Out::Method(_, text) => Some(text.split(['(', ' ']).next().expect("a name").to_owned()),
            Out::Body(_) => None,
        });
        methods.collect()
    }
}

fn declare(queue: &str, durable: bool) -> Method<'_> {
    declare_with(queue, durable, FieldTable::EMPTY)
}

fn declare_with<'a>(queue: &'a str, durable: bool, arguments: FieldTable<'a>) -> Method<'a> {
    Method::QueueDeclare(QueueDeclare {
        queue,
        passive: false,
        durable,
        exclusive: false,
        auto_delete: false,
        no_wait: false,
        arguments,
    })
}

fn consume<'a>(queue: &'a str, tag: &'a str, no_ack: bool) -> Method<'a> {
    Method::BasicConsume(BasicConsume {
        queue,
        consumer_tag: tag,
        no_local: false,
        no_ack,
        exclusive: false,
        no_wait: false,
        arguments: FieldTable::EMPTY,
    })
}

fn ack(delivery_tag: u64, multiple: bool) -> Method<'static> {
    Method::BasicAck(BasicAck { delivery_tag, multiple })
}

fn qos(prefetch_count: u16, global: bool) -> Method<'static> {
    Method::BasicQos(BasicQos { prefetch_size: 0, prefetch_count, global })
}

#[test]
fn declare_ok_of_a_durable_queue_waits_for_the_disk_and_nothing_overtakes_it() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.call(id, declare("d", true)).expect("declared");
    node.call(id, qos(1, false)).expect("set");
    node.tick();
    assert_eq!(node.names(id), [""; 0]);
    node.sync();
    assert_eq!(node.names(id), ["QueueDeclareOk", "BasicQosOk"]);
    node.call(id, declare("t", false)).expect("declared");
    assert_eq!(node.names(id), ["QueueDeclareOk"]);
}

#[test]
fn a_persistent_publish_is_confirmed_after_its_batch_and_delivered_before() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.call(id, declare("q", true)).expect("declared");
    node.sync();
    node.call(id, Method::ConfirmSelect(ConfirmSelect { no_wait: true })).expect("selected");
    node.call(id, consume("q", "c", true)).expect("consumes");
    node.out(id);
    node.publish(id, "", "q", true, "one");
    node.tick();
    assert_eq!(node.names(id), ["BasicDeliver"]);
    node.sync();
    assert_eq!(node.names(id), ["BasicAck"]);
    node.publish(id, "", "q", false, "two");
    node.tick();
    assert_eq!(node.names(id), ["BasicDeliver", "BasicAck"], "nothing to wait for");
}

#[test]
fn prefetch_bounds_what_is_outstanding_and_acks_let_more_through() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.call(id, declare("q", false)).expect("declared");
    node.call(id, qos(2, false)).expect("set");
    node.call(id, consume("q", "c", false)).expect("consumes");
    for body in ["1", "2", "3", "4"] {
        node.publish(id, "", "q", false, body);
    }
    node.tick();
    assert_eq!(node.bodies(id), ["1", "2"]);
    node.call(id, ack(2, true)).expect("known");
    node.tick();
    assert_eq!(node.bodies(id), ["3", "4"]);
    let refused = node.call(id, ack(2, false)).expect_err("settled already");
    assert_eq!(refused.text, "unknown delivery tag 2");
}

#[test]
fn what_a_closed_channel_had_outstanding_comes_back_in_order_and_redelivered() {
    let mut node = Node::new();
    let (first, second) = (node.connect(0), node.connect(1));
    node.call(first, declare("q", false)).expect("declared");
    for body in ["1", "2", "3"] {
        node.publish(first, "", "q", false, body);
    }
    node.call(first, qos(2, false)).expect("set");
    node.call(first, consume("q", "c", false)).expect("consumes");
    node.tick();
    assert_eq!(node.bodies(first), ["1", "2"]);
    node.with(|broker, ctx| broker.close_channel(first, 1, ctx));
    assert_eq!(node.names(first), ["ChannelCloseOk"]);
    node.call(second, consume("q", "c", true)).expect("consumes");
    node.tick();
    let out = node.out(second);
    let redelivered =
        |out: &Out| matches!(out, Out::Method(_, text) if text.contains("redelivered: true"));
    assert_eq!(out.iter().filter(|out| redelivered(out)).count(), 2);
    let bodies: Vec<_> = out.iter().filter(|out| matches!(out, Out::Body(_))).collect();
    assert_eq!(bodies, [&Out::Body(b"1".into()), &Out::Body(b"2".into()), &Out::Body(b"3".into())]);
}

#[test]
fn an_unroutable_mandatory_message_is_returned_before_it_is_confirmed() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.call(id, Method::ConfirmSelect(ConfirmSelect { no_wait: true })).expect("selected");
    node.publish(id, "amq.direct", "nowhere", true, "x");
    node.tick();
    assert_eq!(node.names(id), ["BasicReturn", "BasicAck"]);
}

#[test]
fn exclusive_queues_go_with_their_connection_and_deleted_ones_cancel_their_consumers() {
    let mut node = Node::new();
    let (owner, other) = (node.connect(0), node.connect(1));
    let Method::QueueDeclare(mut exclusive) = declare("x", false) else { unreachable!() };
    exclusive.exclusive = true;
    node.call(owner, Method::QueueDeclare(exclusive)).expect("declared");
    let refused = node.call(other, consume("x", "c", true)).expect_err("not its own");
    assert_eq!(refused.code.value(), 405);
    node.call(other, declare("q", false)).expect("declared");
    node.call(other, consume("q", "c", true)).expect("consumes");
    node.out(other);
    let delete = QueueDelete { queue: "q", if_unused: false, if_empty: false, no_wait: false };
    node.call(owner, Method::QueueDelete(delete)).expect("deleted");
    assert_eq!(node.names(other), ["BasicCancel"]);
    node.with(|broker, ctx| broker.close_connection(owner, ctx));
    assert_eq!(node.names(owner).last().map(String::as_str), Some("ConnectionCloseOk"));
    assert!(matches!(node.effects.requests.pop(), Some(Request::Disconnect(id)) if id == owner));
    assert_eq!(node.broker.queues.len(), 0);
}

#[test]
fn arguments_are_refused_with_rabbitmqs_words() {
    let mut node = Node::new();
    let id = node.connect(0);
    let cases: [(&str, FieldValue<'_>, &str); 4] = [
        ("x-message-ttl", FieldValue::I32(-1), "{value_negative,-1}"),
        ("x-expires", FieldValue::I32(0), "{value_zero,0}"),
        ("x-max-length", FieldValue::LongStr(b"9"), "\"expected integer, got longstr\""),
        ("x-queue-type", FieldValue::LongStr(b"foo"), "\"unsupported queue type 'foo'\""),
    ];
    for (key, value, reason) in cases {
        let table = FieldTableBuilder::new().with(key, value).build();
        let Method::QueueDeclare(mut method) = declare("q", true) else { unreachable!() };
        method.arguments = table.as_ref();
        let refused = node.call(id, Method::QueueDeclare(method)).expect_err("refused");
        assert_eq!(
            refused.text,
            format!("invalid arg '{key}' for queue 'q' in vhost '/': {reason}")
        );
    }
    assert_eq!(node.broker.queues.len(), 0);
}

/// A virtual host with one of everything in it.
const SHOP: &str = r#"{
    "users": [{"name": "u", "password_hash": "trF6k2ZSaYFVucIqI5FFaxWaT8Kb0NUfbjvs29WKkhUk27eL",
               "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ["management"]}],
    "vhosts": [{"name": "shop", "description": "d", "tags": ["t"]}],
    "permissions": [{"user": "u", "vhost": "shop", "configure": "a", "write": "b", "read": "c"}],
    "topic_permissions":
        [{"user": "u", "vhost": "shop", "exchange": "x", "write": "w", "read": "r"}],
    "global_parameters": [{"name": "cluster_name", "value": "hares"}],
    "policies": [{"vhost": "shop", "name": "p", "pattern": "^x", "apply-to": "exchanges",
                  "priority": 3, "definition": {"alternate-exchange": "amq.fanout"}}],
    "parameters": [
        {"vhost": "shop", "component": "operator_policy", "name": "o", "value":
            {"pattern": ".*", "definition": {"max-length": 7}, "priority": 0, "apply-to": "queues"}},
        {"vhost": "shop", "component": "vhost-limits", "name": "limits",
         "value": {"max-queues": 5}},
        {"vhost": "shop", "component": "federation-upstream", "name": "f",
         "value": {"uri": "amqp://h"}}
    ],
    "exchanges": [{"name": "x", "vhost": "shop", "type": "topic", "durable": true,
                   "auto_delete": false, "internal": false, "arguments": {}}],
    "queues": [{"name": "q", "vhost": "shop", "durable": true, "auto_delete": false,
                "arguments": {}}],
    "bindings": [{"source": "x", "vhost": "shop", "destination": "q", "destination_type": "queue",
                  "routing_key": "k.#", "arguments": {}}]
}"#;

fn import(node: &mut Node, text: &str) {
    use super::definitions::{ParseOptions, Plan};
    let plan = Plan::parse(text.into(), ParseOptions::default()).expect("a sound file");
    for step in plan.steps() {
        node.with(|broker, ctx| broker.apply(step, ctx)).expect("applies");
    }
    node.sync();
}

fn export(node: &Node) -> String {
    node.broker.export(None).expect("the whole node")
}

/// Goal: what an administrator made is there after a restart, and is gone with its virtual host
/// and user, from memory and from the log.
#[test]
fn definitions_survive_a_restart_and_go_with_their_virtual_host() {
    let mut node = Node::new();
    let empty = export(&node);
    import(&mut node, SHOP);
    let full = export(&node);
    for name in ["shop", "federation-upstream", "max-queues", "hares", "k.#", "operator_policy"] {
        assert!(full.contains(name), "{name} in {full}");
    }
    import(&mut node, SHOP);
    assert_eq!(export(&node), full, "twice is once");
    let mut node = node.restarted();
    assert_eq!(export(&node), full);
    let rows = node.with(|broker, ctx| broker.queue_rows(None, None, ctx));
    assert_eq!(rows[0].operator_policy.as_deref(), Some("o"));
    let removals = [
        Removal::Vhost("shop".to_owned()),
        Removal::User("u".to_owned()),
        Removal::GlobalParameter("cluster_name".to_owned()),
    ];
    for removal in &removals {
        node.with(|broker, ctx| broker.remove(removal, ctx)).expect("removes");
        assert!(node.with(|broker, ctx| broker.remove(removal, ctx)).is_err(), "{removal:?}");
    }
    assert_eq!(export(&node), empty);
    node.sync();
    assert_eq!(export(&node.restarted()), empty);
}

#[test]
fn a_deleted_virtual_host_closes_its_connections() {
    let mut node = Node::new();
    let client = node.connect(1);
    node.call(client, declare("q", true)).expect("declared");
    node.call(client, consume("q", "c", false)).expect("consumes");
    let removal = Removal::Vhost("/".to_owned());
    node.with(|broker, ctx| broker.remove(&removal, ctx)).expect("removes");
    assert!(matches!(
        node.effects.requests.as_slice(),
        [Request::CloseConnection(id, _), Request::Changed(_)] if *id == client
    ));
    node.sync();
    assert!(node.broker.connection_rows(&node.effects).is_empty());
    node.with(|broker, ctx| broker.connection_gone(client, ctx));
}

#[test]
fn a_protected_virtual_host_stays() {
    let mut node = Node::new();
    let step = super::definitions::Step::Vhost(super::definitions::VhostStep {
        name: "/".into(),
        protected: Some(true),
        ..Default::default()
    });
    assert_eq!(node.with(|broker, ctx| broker.apply(step, ctx)), Ok(false));
    let removal = Removal::Vhost("/".to_owned());
    assert!(node.with(|broker, ctx| broker.remove(&removal, ctx)).is_err());
    assert!(export(&node).contains("\"name\":\"/\""));
}
