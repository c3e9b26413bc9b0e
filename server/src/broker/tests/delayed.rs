//! Exchanges that hold messages back.

use super::*;

impl Node {
    fn declare_delayed(&mut self, id: ConnectionId, exchange: &str, durable: bool) {
        let kind = FieldValue::LongStr(b"direct");
        let table = FieldTableBuilder::new().with("x-delayed-type", kind).build();
        let declare = ExchangeDeclare {
            exchange,
            kind: "x-delayed-message",
            passive: false,
            durable,
            auto_delete: false,
            internal: false,
            no_wait: false,
            arguments: table.as_ref(),
        };
        self.call(id, Method::ExchangeDeclare(declare)).expect("declared");
        self.sync();
    }

    fn bind_to(&mut self, id: ConnectionId, exchange: &str, queue: &str) {
        let bind = QueueBind {
            queue,
            exchange,
            routing_key: queue,
            no_wait: true,
            arguments: FieldTable::EMPTY,
        };
        self.call(id, Method::QueueBind(bind)).expect("bound");
        self.sync();
    }

    fn delay(&mut self, id: ConnectionId, exchange: &str, queue: &str, ms: i32, body: &str) {
        let table = FieldTableBuilder::new().with("x-delay", FieldValue::I32(ms)).build();
        let properties =
            PropertiesWriter { headers: Some(table.as_ref()), ..PropertiesWriter::default() };
        self.send(id, (exchange, queue), &properties, body).expect("published");
    }
}

#[test]
fn messages_come_when_their_time_has_come() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", "{}");
    node.declare_delayed(id, "x", true);
    node.bind_to(id, "x", "q");
    for (ms, body) in [(9000, "late"), (0, "now"), (-5, "past"), (3000, "soon"), (6000, "mid")] {
        node.delay(id, "x", "q", ms, body);
    }
    node.publish(id, "x", "q", true, "plain");
    assert_eq!(node.get_all(id, "q"), ["now", "past", "plain"]);
    node.advance(2000);
    assert_eq!(node.count("q"), 0);
    node.advance(1500);
    assert_eq!(node.get_all(id, "q"), ["soon"]);
    node.advance(9000);
    assert_eq!(node.get_all(id, "q"), ["mid", "late"]);
}

/// Goal: what is held is as durable as the exchange, whatever the publisher said.
#[test]
fn what_is_held_survives_a_restart() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", "{}");
    node.declare_delayed(id, "x", true);
    node.bind_to(id, "x", "q");
    node.call(id, Method::ConfirmSelect(ConfirmSelect { no_wait: true })).expect("selected");
    node.out(id);
    // Far off: the clock of these tests moves while they wait for the disk.
    for at in 0..1000 {
        node.delay(id, "x", "q", 1_000_000 + 10 * at, &at.to_string());
    }
    node.tick();
    assert_eq!(node.names(id), [""; 0], "a confirm waits for the disk");
    node.sync();
    assert_eq!(node.names(id), ["BasicAck"]);
    let mut node = node.restarted();
    let id = node.connect(0);
    node.advance(0);
    assert_eq!(node.count("q"), 0);
    node.advance(2_000_000);
    let bodies = node.get_all(id, "q");
    assert!(bodies.iter().map(String::as_str).eq((0..1000).map(|at| at.to_string())));
    node.sync();
    let mut node = node.restarted();
    let id = node.connect(0);
    node.advance(2_000_000);
    assert_eq!(node.get_all(id, "q"), [""; 0], "once is enough");
}

#[test]
fn what_is_held_goes_with_its_exchange() {
    for durable in [true, false] {
        let mut node = Node::new();
        let id = node.connect(0);
        node.declare_json(id, "q", "{}");
        node.declare_delayed(id, "x", durable);
        node.bind_to(id, "x", "q");
        node.delay(id, "x", "q", 5000, "m");
        let delete = ExchangeDelete { exchange: "x", if_unused: false, no_wait: true };
        node.call(id, Method::ExchangeDelete(delete)).expect("deleted");
        assert!(node.broker.holds.is_empty());
        node.advance(10_000);
        assert_eq!(node.count("q"), 0);
        node.sync();
        assert!(node.restarted().broker.holds.is_empty());
    }
}

/// Goal: the time to live of a delayed message begins when it reaches its queue.
#[test]
fn a_delayed_message_may_expire_later_or_be_a_dead_letter() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "dead", "{}");
    node.declare_delayed(id, "x", true);
    node.declare_json(
        id,
        "q",
        r#"{"x-dead-letter-exchange": "x", "x-message-ttl": 2000,
        "x-dead-letter-routing-key": "dead"}"#,
    );
    node.bind_to(id, "x", "q");
    node.bind_to(id, "x", "dead");
    node.delay(id, "x", "q", 5000, "m");
    node.advance(5500);
    assert_eq!((node.count("q"), node.count("dead")), (1, 0));
    node.advance(2000);
    assert_eq!((node.count("q"), node.count("dead")), (0, 1), "its delay is over for good");
}

#[test]
fn what_was_delayed_in_a_transaction_comes_after_the_commit() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", "{}");
    node.declare_delayed(id, "x", true);
    node.bind_to(id, "x", "q");
    node.call(id, Method::TxSelect).expect("selected");
    node.delay(id, "x", "q", 1000, "m");
    node.advance(3000);
    assert_eq!(node.count("q"), 0);
    node.call(id, Method::TxCommit).expect("committed");
    node.advance(500);
    assert_eq!(node.count("q"), 0);
    node.advance(1000);
    assert_eq!(node.count("q"), 1);
}

/// Goal: a queue bound late gets the last messages of the exchange first, and so does one behind
/// another exchange.
#[test]
fn a_recent_history_exchange_replays_to_what_is_bound_later() {
    let mut node = Node::new();
    let id = node.connect(0);
    for queue in ["early", "late", "behind"] {
        node.declare_json(id, queue, "{}");
    }
    let length =
        FieldTableBuilder::new().with("x-recent-history-length", FieldValue::I32(2)).build();
    for (exchange, kind, table) in
        [("recent", "x-recent-history", length.as_ref()), ("next", "fanout", FieldTable::EMPTY)]
    {
        let declare = ExchangeDeclare {
            exchange,
            kind,
            passive: false,
            durable: true,
            auto_delete: false,
            internal: false,
            no_wait: false,
            arguments: table,
        };
        node.call(id, Method::ExchangeDeclare(declare)).expect("declared");
    }
    node.bind_to(id, "recent", "early");
    for body in ["one", "two", "three"] {
        node.publish(id, "recent", "any", true, body);
    }
    node.bind_to(id, "recent", "late");
    node.bind_to(id, "next", "behind");
    let bind = ExchangeBind {
        destination: "next",
        source: "recent",
        routing_key: "",
        no_wait: true,
        arguments: FieldTable::EMPTY,
    };
    node.call(id, Method::ExchangeBind(bind)).expect("bound");
    assert_eq!(node.get_all(id, "early"), ["one", "two", "three"]);
    assert_eq!(node.get_all(id, "late"), ["two", "three"]);
    assert_eq!(node.get_all(id, "behind"), ["two", "three"]);
}
