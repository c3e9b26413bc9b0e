//! Messages on their way to a dead-letter exchange.

use super::*;
use leveret_protocol::field::FieldArray;
use leveret_protocol::properties::BasicProperties;

/// A delivered message: where it came from, its headers and its body.
#[derive(Debug)]
struct Letter {
    routing_key: String,
    properties: Vec<u8>,
    body: String,
}

impl Letter {
    fn properties(&self) -> BasicProperties<'_> {
        BasicProperties::parse(&self.properties).expect("our own properties")
    }

    fn header(&self, name: &str) -> Option<String> {
        let value = self.properties().headers()?.get(name)?;
        Some(value.as_str().map_or_else(|| format!("{value:?}"), str::to_owned))
    }

    /// `queue reason count` of every death, the latest first.
    fn deaths(&self) -> Vec<String> {
        let headers = self.properties().headers();
        let deaths = headers.and_then(|headers| headers.get("x-death")?.as_array());
        let deaths = deaths.into_iter().flat_map(FieldArray::iter);
        let deaths = deaths.map(|death| {
            let death = death.as_table().expect("a table");
            let text = |key: &str| death.get(key).and_then(FieldValue::as_str).expect("a text");
            let count = death.get("count").and_then(FieldValue::as_i64).expect("a number");
            format!("{} {} {count}", text("queue"), text("reason"))
        });
        deaths.collect()
    }
}

impl Node {
    /// Gets the only message of a queue.
    fn letter(&mut self, id: ConnectionId, queue: &str) -> Letter {
        self.settle();
        self.out(id);
        let get = Method::BasicGet(BasicGet { queue, no_ack: true });
        self.call(id, get).expect("its queue");
        self.settle();
        let bytes = self.effects.outbox(id).bytes[self.effects.outbox(id).sent..].to_vec();
        let mut input = &bytes[..];
        let mut letter =
            Letter { routing_key: String::new(), properties: Vec::new(), body: String::new() };
        while let Some(frame) = split_frame(&mut input, usize::MAX, 0).expect("our own frames") {
            match frame.kind {
                1 => {
                    let method = Method::decode(frame.payload).expect("our own methods");
                    let Method::BasicGetOk(ok) = method else { panic!("no message: {method:?}") };
                    assert!(!ok.redelivered, "a dead letter is new");
                    letter.routing_key = ok.routing_key.to_owned();
                }
                2 => letter.properties = frame.payload[12..].to_vec(),
                _ => letter.body = String::from_utf8(frame.payload.to_vec()).expect("text"),
            }
        }
        self.out(id);
        letter
    }

    fn reject(&mut self, id: ConnectionId, queue: &str) {
        self.out(id);
        self.call(id, Method::BasicGet(BasicGet { queue, no_ack: false })).expect("there");
        self.settle();
        let index = self.broker.channel_index(id, 1);
        let tag = self.broker.channels[index].next_delivery_tag - 1;
        let reject = BasicReject { delivery_tag: tag, requeue: false };
        self.call(id, Method::BasicReject(reject)).expect("outstanding");
        self.settle();
    }
}

const TO_DEAD: &str = r#"{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}"#;

fn with(more: &str) -> String {
    format!("{}, {more}}}", TO_DEAD.trim_end_matches('}'))
}

#[test]
fn a_rejected_message_tells_its_story() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", r#"{"x-dead-letter-exchange": "amq.fanout"}"#);
    node.declare_json(id, "dead", "{}");
    let bind = QueueBind {
        queue: "dead",
        exchange: "amq.fanout",
        routing_key: "",
        no_wait: true,
        arguments: FieldTable::EMPTY,
    };
    node.call(id, Method::QueueBind(bind)).expect("bound");
    let headers = FieldTableBuilder::new()
        .with("z", FieldValue::I32(1))
        .with("x-death", FieldValue::LongStr(b"forged"))
        .with("a", FieldValue::I32(1))
        .build();
    let properties = PropertiesWriter {
        headers: Some(headers.as_ref()),
        expiration: Some(b"100000"),
        message_id: Some(b"id"),
        delivery_mode: Some(2),
        ..PropertiesWriter::default()
    };
    node.send(id, ("", "q"), &properties, "body").expect("published");
    node.reject(id, "q");
    let letter = node.letter(id, "dead");
    assert_eq!((letter.routing_key.as_str(), letter.body.as_str()), ("q", "body"));
    assert_eq!(letter.properties().expiration(), None);
    assert_eq!(letter.properties().message_id(), Some(&b"id"[..]));
    assert_eq!(letter.properties().delivery_mode(), Some(2));
    assert_eq!(letter.deaths(), ["q rejected 1"]);
    for (name, value) in [("reason", "rejected"), ("queue", "q"), ("exchange", "")] {
        for which in ["first", "last"] {
            let header = format!("x-{which}-death-{name}");
            assert_eq!(letter.header(&header).as_deref(), Some(value), "{header}");
        }
    }
    let names = letter.properties().headers().expect("headers");
    let names: Vec<_> = names.iter().map(|(key, _)| key).collect();
    assert!(names.is_sorted(), "{names:?}");
    let death = letter.header("x-death").expect("a death");
    assert!(death.contains("original-expiration"), "{death}");
}

#[test]
fn deaths_of_the_same_kind_are_counted_and_the_latest_stands_first() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", TO_DEAD);
    let back = r#"{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q",
        "x-message-ttl": 1000}"#;
    node.declare_json(id, "dead", back);
    node.publish(id, "", "q", true, "m");
    for _ in 0..3 {
        node.reject(id, "q");
        assert_eq!((node.count("q"), node.count("dead")), (0, 1));
        node.advance(2000);
        assert_eq!((node.count("q"), node.count("dead")), (1, 0), "the ladder leads back");
    }
    let letter = node.letter(id, "q");
    assert_eq!(letter.deaths(), ["dead expired 3", "q rejected 3"]);
    assert_eq!(letter.header("x-first-death-queue").as_deref(), Some("q"));
    assert_eq!(letter.header("x-last-death-queue").as_deref(), Some("dead"));
}

#[test]
fn a_circle_that_nobody_rejects_in_ends() {
    let mut node = Node::new();
    let id = node.connect(0);
    let to = |queue: &str| {
        format!(
            r#"{{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "{queue}",
                "x-message-ttl": 1000}}"#
        )
    };
    node.declare_json(id, "a", &to("b"));
    node.declare_json(id, "b", &to("a"));
    node.declare_json(id, "self", &to("self"));
    node.publish(id, "", "a", true, "m");
    node.publish(id, "", "self", true, "m");
    node.advance(1500);
    assert_eq!((node.count("a"), node.count("b"), node.count("self")), (0, 1, 0));
    node.advance(1500);
    assert_eq!((node.count("a"), node.count("b")), (0, 0));
    assert!(node.broker.queues.iter().all(|(_, queue)| queue.dead.is_empty()));
}

#[test]
fn full_queues_and_lost_patience_make_dead_letters() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "dead", "{}");
    node.declare_json(id, "full", &with(r#""x-max-length": 1"#));
    node.publish(id, "", "full", true, "a");
    node.publish(id, "", "full", true, "b");
    let letter = node.letter(id, "dead");
    assert_eq!((letter.body.as_str(), letter.deaths()), ("a", vec!["full maxlen 1".to_owned()]));
    let refusing = r#""x-max-length": 1, "x-overflow": "reject-publish-dlx""#;
    node.declare_json(id, "refusing", &with(refusing));
    node.publish(id, "", "refusing", true, "c");
    node.publish(id, "", "refusing", true, "d");
    let letter = node.letter(id, "dead");
    assert_eq!(letter.body, "d");
    assert_eq!(letter.deaths(), ["refusing maxlen 1"]);
    let limited = r#""x-delivery-limit": 2, "x-queue-type": "quorum""#;
    node.declare_json(id, "quorum", &with(limited));
    node.publish(id, "", "quorum", true, "e");
    for tag in 1..=3 {
        assert_eq!(node.count("quorum"), 1, "delivery {tag}");
        let get = BasicGet { queue: "quorum", no_ack: false };
        node.call(id, Method::BasicGet(get)).expect("there");
        node.settle();
        let index = node.broker.channel_index(id, 1);
        let delivery_tag = node.broker.channels[index].next_delivery_tag - 1;
        let nack = BasicNack { delivery_tag, multiple: false, requeue: true };
        node.call(id, Method::BasicNack(nack)).expect("outstanding");
        node.settle();
    }
    let letter = node.letter(id, "dead");
    assert_eq!(letter.deaths(), ["quorum delivery_limit 1"]);
    let counts = node.broker.overview().dead_letters;
    assert_eq!((counts.classic.max_length, counts.quorum.delivery_limit), (2, 1));
}

#[test]
fn a_quorum_queue_tells_how_often_a_message_came_back() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", r#"{"x-queue-type": "quorum"}"#);
    node.publish(id, "", "q", true, "m");
    for count in ["I64(0)", "I64(1)", "I64(2)"] {
        node.settle();
        node.out(id);
        node.call(id, Method::BasicGet(BasicGet { queue: "q", no_ack: false })).expect("there");
        let bytes = node.effects.outbox(id).bytes.clone();
        let mut input = &bytes[..];
        let mut found = None;
        while let Some(frame) = split_frame(&mut input, usize::MAX, 0).expect("our own frames") {
            if frame.kind == 2 {
                let properties = BasicProperties::parse(&frame.payload[12..]).expect("ours");
                let headers = properties.headers().expect("headers");
                found = headers.get("x-delivery-count").map(|value| format!("{value:?}"));
            }
        }
        assert_eq!(found.as_deref(), Some(count));
        let index = node.broker.channel_index(id, 1);
        let delivery_tag = node.broker.channels[index].next_delivery_tag - 1;
        let reject = BasicReject { delivery_tag, requeue: true };
        node.call(id, Method::BasicReject(reject)).expect("outstanding");
    }
}

/// Goal: a dead letter is in one queue or in the other, whenever the process ends.
#[test]
fn dead_letters_survive_a_restart() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "dead", "{}");
    node.declare_json(id, "q", &with(r#""x-message-ttl": 1000"#));
    for at in 0..500 {
        node.publish(id, "", "q", true, &at.to_string());
    }
    node.advance(5000);
    assert_eq!((node.count("q"), node.count("dead")), (0, 500));
    node.sync();
    let mut node = node.restarted();
    let id = node.connect(0);
    node.advance(0);
    assert_eq!((node.count("q"), node.count("dead")), (0, 500));
    let letter = node.letter(id, "dead");
    assert_eq!((letter.body.as_str(), letter.deaths()), ("0", vec!["q expired 1".to_owned()]));
}

#[test]
fn without_a_dead_letter_exchange_that_exists_they_are_dropped() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", r#"{"x-dead-letter-exchange": "missing"}"#);
    node.publish(id, "", "q", true, "m");
    node.reject(id, "q");
    assert_eq!(node.count("q"), 0);
    let log = node.broker.queues.iter().next().expect("the queue").1.levels.first().log;
    assert_eq!(node.engine.messages(log), 0);
}

#[test]
fn what_comes_back_to_a_quorum_queue_may_have_to_wait() {
    let mut node = Node::new();
    let id = node.connect(0);
    let arguments = r#"{"x-queue-type": "quorum", "x-delayed-retry-type": "failed",
        "x-delayed-retry-min": 1000, "x-delayed-retry-max": 1500}"#;
    node.declare_json(id, "q", arguments);
    node.publish(id, "", "q", true, "m");
    node.call(id, consume("q", "c", false)).expect("consumes");
    node.settle();
    assert_eq!(node.bodies(id), ["m"]);
    let nack = BasicNack { delivery_tag: 1, multiple: false, requeue: true };
    node.call(id, Method::BasicNack(nack)).expect("outstanding");
    node.settle();
    assert_eq!(node.bodies(id), ["m"], "given back is not failed");
    for (tag, waits) in [(2, 1500), (3, 1500)] {
        let reject = BasicReject { delivery_tag: tag, requeue: true };
        node.call(id, Method::BasicReject(reject)).expect("outstanding");
        node.advance(waits - 200);
        assert_eq!(node.bodies(id), [""; 0], "delivery {tag}");
        let rows = node.with(|broker, ctx| broker.queue_rows(None, Some("q"), ctx));
        assert_eq!(rows[0].messages_ready, 1, "it is in the queue");
        node.advance(400);
        assert_eq!(node.bodies(id), ["m"]);
    }
    let reject = BasicReject { delivery_tag: 4, requeue: true };
    node.call(id, Method::BasicReject(reject)).expect("outstanding");
    node.sync();
    let mut node = node.restarted();
    let id = node.connect(0);
    assert_eq!(node.get_all(id, "q"), ["m"], "it was never out of the log");
}
