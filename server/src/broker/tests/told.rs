//! What the broker tells of itself: the firehose and the event exchange.

use super::*;
use crate::broker::control::{Actor, Browse, MessageFilter};
use crate::broker::snapshot::MessageRow;
use leveret_protocol::method::{ExchangeDeclare, QueueBind};
use leveret_protocol::properties::BasicProperties;

impl Node {
    fn bind_key(&mut self, id: ConnectionId, queue: &str, exchange: &str, key: &str) {
        let bind = QueueBind {
            queue,
            exchange,
            routing_key: key,
            no_wait: true,
            arguments: FieldTable::EMPTY,
        };
        self.call(id, Method::QueueBind(bind)).expect("bound");
    }

    /// Everything in a queue, left there.
    fn look(&mut self, queue: &str) -> Vec<MessageRow> {
        self.settle();
        let browse = Browse {
            actor: Actor::Operator,
            vhost: "/".to_owned(),
            queue: queue.to_owned(),
            after: None,
            limit: 100,
            truncate: None,
            filter: MessageFilter::default(),
        };
        let browsed = self.with(|broker, ctx| broker.browse(&browse, ctx)).expect("its queue");
        assert!(browsed.end, "few messages");
        browsed.rows.into_iter().map(|row| row.message).collect()
    }

    fn keys(&mut self, queue: &str) -> Vec<String> {
        self.look(queue).into_iter().map(|message| message.routing_key).collect()
    }

    fn trace(&mut self, tracing: bool) {
        let text = format!(r#"{{"vhosts": [{{"name": "/", "tracing": {tracing}}}]}}"#);
        import(self, &text);
    }
}

/// The headers of a message as text.
fn headers(message: &MessageRow) -> String {
    let properties = BasicProperties::parse(&message.properties).expect("ours");
    let headers = properties.headers().expect("told in headers");
    let mut texts = Vec::new();
    for (name, value) in headers {
        let name = String::from_utf8_lossy(name);
        if let Some(text) = value.as_str() {
            texts.push(format!("{name}={text}"));
        } else if let Some(number) = value.as_i64() {
            texts.push(format!("{name}={number}"));
        } else {
            texts.push(format!("{name}:{}", value.type_name()));
        }
    }
    texts.join(" ")
}

#[test]
fn a_traced_virtual_host_tells_of_publishes_and_deliveries() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.call(id, declare("q", true)).expect("declared");
    node.call(id, declare("trace", true)).expect("declared");
    node.bind_key(id, "trace", "amq.rabbitmq.trace", "#");
    node.publish(id, "", "q", true, "before");
    assert_eq!(node.keys("trace"), [""; 0], "nobody asked for it");
    node.trace(true);
    node.publish(id, "", "q", true, "one");
    node.call(id, Method::BasicGet(BasicGet { queue: "q", no_ack: true })).expect("got");
    node.call(id, consume("q", "c", false)).expect("consumes");
    let told = node.look("trace");
    let keys: Vec<&str> = told.iter().map(|message| message.routing_key.as_str()).collect();
    assert_eq!(keys, ["publish.", "deliver.q", "deliver.q"]);
    assert_eq!(told[0].body, b"one");
    assert_eq!(told[1].body, b"before");
    let connection = "127.0.0.1:0 -> 127.0.0.1:5672";
    assert_eq!(
        headers(&told[0]),
        format!(
            "exchange_name= routing_keys:array properties:table node=rabbit@test vhost=/ \
             connection={connection} channel=1 user=guest routed_queues:array"
        )
    );
    assert!(headers(&told[2]).contains("redelivered=0 vhost=/"), "{}", headers(&told[2]));
    node.trace(false);
    node.publish(id, "", "q", true, "after");
    assert_eq!(node.look("trace").len(), 3);
}

#[test]
fn the_firehose_does_not_tell_of_itself() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.call(id, declare("trace", true)).expect("declared");
    node.bind_key(id, "trace", "amq.rabbitmq.trace", "#");
    node.trace(true);
    node.call(id, consume("trace", "c", true)).expect("consumes");
    node.publish(id, "", "nowhere", true, "x");
    node.settle();
    assert_eq!(node.bodies(id).len(), 2, "the returned message and what was told of it");
    assert_eq!(node.count("trace"), 0);
}

#[test]
fn whoever_binds_to_the_event_exchange_hears_what_comes_and_goes() {
    let mut node = Node::new();
    let id = node.connect(0);
    let exchanges = |node: &mut Node| node.broker.topology.exchange_count();
    let before = exchanges(&mut node);
    node.call(id, declare("events", true)).expect("declared");
    assert_eq!(exchanges(&mut node), before, "there is no exchange before somebody names it");
    node.bind_key(id, "events", "amq.rabbitmq.event", "#");
    let other = node.connect(1);
    node.call(other, declare("q", false)).expect("declared");
    node.call(other, consume("q", "c", true)).expect("consumes");
    let declared = ExchangeDeclare {
        exchange: "x",
        kind: "fanout",
        passive: false,
        durable: false,
        auto_delete: false,
        internal: false,
        no_wait: true,
        arguments: FieldTable::EMPTY,
    };
    node.call(other, Method::ExchangeDeclare(declared)).expect("declared");
    node.bind_key(other, "q", "x", "k");
    node.set_policy("p", "^q$", r#"{"max-length": 5}"#);
    node.with(|broker, ctx| broker.connection_gone(other, ctx));
    let expected = [
        "binding.created",
        "connection.created",
        "channel.created",
        "queue.created",
        "consumer.created",
        "exchange.created",
        "binding.created",
        "policy.set",
        "consumer.deleted",
        "channel.closed",
        "connection.closed",
    ];
    assert_eq!(node.keys("events"), expected);
    let told = node.look("events");
    let about = |at: usize| headers(&told[at]);
    assert!(about(3).starts_with("name=q vhost=/ type=rabbit_classic_queue"), "{}", about(3));
    assert!(about(6).starts_with("source_name=x source_kind=exchange destination_name=q"));
    assert!(about(7).contains("name=p vhost=/"));
    assert!(about(1).contains("peer_host=127.0.0.1") && about(1).contains("timestamp_in_ms="));
}
