//! Messages whose time is up, and queues that nobody uses.

use super::*;
use leveret_protocol::properties::PropertiesWriter;

impl Node {
    fn send_for(&mut self, id: ConnectionId, queue: &str, expiration: &str, body: &str) {
        let properties = PropertiesWriter {
            expiration: Some(expiration.as_bytes()),
            delivery_mode: Some(2),
            ..PropertiesWriter::default()
        };
        self.send(id, ("", queue), &properties, body).expect("published");
    }
}

#[test]
fn a_message_expires_at_its_time_wherever_it_stands() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", "{}");
    for (expiration, body) in [("90000", "a"), ("2000", "b"), ("60000", "c"), ("4000", "d")] {
        node.send_for(id, "q", expiration, body);
    }
    node.publish(id, "", "q", true, "e");
    node.sync();
    node.advance(1000);
    assert_eq!(node.count("q"), 5);
    node.advance(1500);
    assert_eq!(node.count("q"), 4, "b is gone from the middle");
    node.advance(2000);
    assert_eq!(node.count("q"), 3);
    assert_eq!(node.get_all(id, "q"), ["a", "c", "e"]);
}

#[test]
fn the_times_of_messages_survive_a_restart() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "own", "{}");
    node.declare_json(id, "shared", r#"{"x-message-ttl": 5000}"#);
    for (expiration, body) in [("90000", "a"), ("3000", "b"), ("60000", "c")] {
        node.send_for(id, "own", expiration, body);
    }
    for body in ["a", "b"] {
        node.publish(id, "", "shared", true, body);
    }
    node.sync();
    let mut node = node.restarted();
    let id = node.connect(0);
    node.advance(1000);
    assert_eq!((node.count("own"), node.count("shared")), (3, 2));
    node.advance(2500);
    assert_eq!((node.count("own"), node.count("shared")), (2, 2));
    node.advance(2500);
    assert_eq!((node.count("own"), node.count("shared")), (2, 0));
    assert_eq!(node.get_all(id, "own"), ["a", "c"]);
}

#[test]
fn a_message_out_of_time_is_never_delivered() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", "{}");
    node.send_for(id, "q", "1000", "late");
    node.send_for(id, "q", "100000", "early");
    node.tick();
    node.now_ms += 2000;
    node.call(id, consume("q", "c", false)).expect("consumes");
    node.tick();
    assert_eq!(node.bodies(id), ["early"]);
}

#[test]
fn an_unacknowledged_message_does_not_expire_until_it_comes_back() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", r#"{"x-message-ttl": 1000}"#);
    node.declare_json(id, "own", "{}");
    node.publish(id, "", "q", true, "a");
    node.send_for(id, "own", "1000", "b");
    for queue in ["q", "own"] {
        node.call(id, Method::BasicGet(BasicGet { queue, no_ack: false })).expect("there");
    }
    assert_eq!(node.bodies(id), ["a", "b"]);
    node.advance(5000);
    for tag in [1, 2] {
        let nack = BasicNack { delivery_tag: tag, multiple: false, requeue: true };
        node.call(id, Method::BasicNack(nack)).expect("outstanding");
    }
    node.advance(0);
    assert_eq!((node.count("q"), node.count("own")), (0, 0));
}

#[test]
fn without_time_a_message_is_for_a_consumer_that_is_there() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", r#"{"x-message-ttl": 0}"#);
    node.declare_json(id, "own", "{}");
    node.publish(id, "", "q", true, "nobody");
    node.send_for(id, "own", "0", "nobody");
    node.call(id, Method::BasicGet(BasicGet { queue: "q", no_ack: true })).expect("there");
    node.advance(0);
    assert_eq!(node.names(id).last().map(String::as_str), Some("BasicGetEmpty"));
    assert_eq!((node.count("q"), node.count("own")), (0, 0));
    node.call(id, consume("q", "c", true)).expect("consumes");
    node.call(id, consume("own", "d", true)).expect("consumes");
    node.publish(id, "", "q", true, "one");
    node.send_for(id, "own", "0", "two");
    node.tick();
    assert_eq!(node.bodies(id), ["one", "two"]);
}

#[test]
fn the_shorter_of_both_times_counts_and_a_policy_is_at_work_at_once() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", r#"{"x-message-ttl": 50000}"#);
    node.send_for(id, "q", "1000", "short");
    node.send_for(id, "q", "90000", "long");
    node.publish(id, "", "q", true, "none");
    node.advance(1500);
    assert_eq!(node.count("q"), 2);
    node.set_policy("ttl", "^q$", r#"{"message-ttl": 3000}"#);
    node.advance(2000);
    assert_eq!(node.count("q"), 0);
}

#[test]
fn many_messages_expire_in_steps() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", "{}");
    for at in 0..1000 {
        node.send_for(id, "q", if at % 2 == 0 { "500000" } else { "100000" }, "m");
    }
    node.sync();
    node.now_ms += 150_000;
    node.with(Broker::on_deadline);
    assert!((700..800).contains(&node.count("q")), "{}", node.count("q"));
    node.advance(0);
    assert_eq!(node.count("q"), 500);
    node.advance(500_000);
    assert_eq!(node.count("q"), 0);
}

#[test]
fn a_queue_nobody_uses_ends() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", r#"{"x-expires": 10000}"#);
    node.declare_json(id, "r", r#"{"x-expires": 10000}"#);
    let exists = |node: &Node, queue: &str| {
        node.broker.queues.iter().any(|(_, other)| &*other.definition.name == queue)
    };
    node.call(id, consume("r", "c", true)).expect("consumes");
    node.advance(6000);
    node.publish(id, "", "q", true, "publishing is no use");
    node.call(id, Method::BasicGet(BasicGet { queue: "q", no_ack: false })).expect("there");
    node.advance(6000);
    assert!(exists(&node, "q"), "the get was 6 seconds ago");
    node.publish(id, "", "q", true, "publishing is no use");
    node.advance(5000);
    assert!(!exists(&node, "q"));
    assert!(exists(&node, "r"), "it has a consumer");
    let cancel = BasicCancel { consumer_tag: "c", no_wait: true };
    node.call(id, Method::BasicCancel(cancel)).expect("cancels");
    node.advance(9000);
    node.declare_json(id, "r", r#"{"x-expires": 10000}"#);
    node.advance(9000);
    assert!(exists(&node, "r"), "it was declared again");
    node.advance(2000);
    assert!(!exists(&node, "r"));
    node.sync();
    assert_eq!(node.restarted().broker.queues.len(), 0);
}

/// Goal: due times of messages that were consumed do not pile up.
#[test]
fn due_times_of_consumed_messages_are_forgotten() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", "{}");
    node.call(id, consume("q", "c", true)).expect("consumes");
    for _ in 0..5000 {
        node.send_for(id, "q", "100000000", "m");
        node.tick();
        node.out(id);
    }
    let (_, queue) = node.broker.queues.iter().next().expect("the queue");
    assert!(queue.levels.first().due.len() < 600, "{}", queue.levels.first().due.len());
}
