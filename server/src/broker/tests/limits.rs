//! Queues that hold only so much.

use super::*;

fn confirming(node: &mut Node, slot: u32) -> ConnectionId {
    let id = node.connect(slot);
    node.call(id, Method::ConfirmSelect(ConfirmSelect { no_wait: true })).expect("selected");
    id
}

#[test]
fn a_full_queue_drops_its_oldest() {
    let mut node = Node::new();
    let id = confirming(&mut node, 0);
    node.declare_json(id, "q", r#"{"x-max-length": 2}"#);
    node.sync();
    node.out(id);
    for body in ["a", "b", "c", "d"] {
        node.publish(id, "", "q", true, body);
    }
    assert_eq!(node.count("q"), 2, "before the tick ends");
    node.sync();
    assert_eq!(node.names(id), ["BasicAck"]);
    assert_eq!(node.get_all(id, "q"), ["c", "d"]);
}

#[test]
fn bytes_are_those_of_bodies_and_a_body_too_large_empties_the_queue() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", r#"{"x-max-length-bytes": 10}"#);
    for body in ["aaaa", "bbbb", "cc"] {
        node.publish(id, "", "q", true, body);
    }
    assert_eq!(node.count("q"), 3);
    node.publish(id, "", "q", true, "d");
    assert_eq!(node.count("q"), 3);
    node.sync();
    let mut node = node.restarted();
    let id = node.connect(0);
    node.advance(0);
    node.publish(id, "", "q", true, "eee");
    assert_eq!(node.count("q"), 4, "bbbb cc d eee are ten bytes");
    node.publish(id, "", "q", true, "f");
    assert_eq!(node.count("q"), 4);
    node.publish(id, "", "q", true, "ggggggggggg");
    assert_eq!(node.count("q"), 0);
}

#[test]
fn a_consumer_gets_what_a_queue_has_no_room_for() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", r#"{"x-max-length": 0}"#);
    node.publish(id, "", "q", true, "nobody");
    node.call(id, qos(2, false)).expect("set");
    node.call(id, consume("q", "c", false)).expect("consumes");
    for body in ["a", "b", "c"] {
        node.publish(id, "", "q", true, body);
    }
    node.tick();
    assert_eq!(node.bodies(id), ["a", "b"]);
    assert_eq!(node.count("q"), 0);
}

#[test]
fn a_queue_that_refuses_publishes_says_so() {
    let mut node = Node::new();
    let id = confirming(&mut node, 0);
    node.declare_json(id, "q", r#"{"x-max-length": 1, "x-overflow": "reject-publish"}"#);
    node.declare_json(id, "r", "{}");
    for queue in ["q", "r"] {
        let bind = QueueBind {
            queue,
            exchange: "amq.fanout",
            routing_key: "",
            no_wait: true,
            arguments: FieldTable::EMPTY,
        };
        node.call(id, Method::QueueBind(bind)).expect("bound");
    }
    node.sync();
    node.out(id);
    node.publish(id, "", "q", true, "a");
    node.publish(id, "", "q", true, "b");
    node.publish(id, "amq.fanout", "", true, "c");
    node.publish(id, "", "r", true, "d");
    node.sync();
    assert_eq!(node.names(id), ["BasicAck", "BasicNack", "BasicNack", "BasicAck"]);
    assert_eq!(node.get_all(id, "q"), ["a"]);
    assert_eq!(node.get_all(id, "r"), ["c", "d"]);
    node.publish(id, "", "q", false, "e");
    node.tick();
    assert_eq!(node.names(id), ["BasicAck"], "there is room again");
}

#[test]
fn a_returned_message_may_exceed_the_limit_of_a_queue_that_refuses() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", r#"{"x-max-length": 1, "x-overflow": "reject-publish"}"#);
    node.publish(id, "", "q", true, "a");
    node.call(id, Method::BasicGet(BasicGet { queue: "q", no_ack: false })).expect("there");
    node.publish(id, "", "q", true, "b");
    let nack = BasicNack { delivery_tag: 1, multiple: false, requeue: true };
    node.call(id, Method::BasicNack(nack)).expect("outstanding");
    assert_eq!(node.get_all(id, "q"), ["a", "b"]);
}

#[test]
fn a_policy_trims_a_long_queue_in_steps() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", "{}");
    for at in 0..1000 {
        node.publish(id, "", "q", true, &at.to_string());
    }
    node.set_policy("short", "q", r#"{"max-length": 3}"#);
    assert!(3 < node.count("q"));
    node.advance(0);
    assert_eq!(node.get_all(id, "q"), ["997", "998", "999"]);
    node.set_policy("short", "q", r#"{"max-length": 3, "overflow": "reject-publish"}"#);
    for at in 0..5 {
        node.publish(id, "", "q", true, &at.to_string());
    }
    assert_eq!(node.get_all(id, "q"), ["0", "1", "2"], "cached routes learn of it, too");
}

#[test]
fn the_highest_priority_is_the_head() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.declare_json(id, "q", r#"{"x-max-length": 2, "x-max-priority": 5}"#);
    for priority in [3, 1, 2, 0] {
        let properties = PropertiesWriter { priority: Some(priority), ..Default::default() };
        node.send(id, ("", "q"), &properties, &priority.to_string()).expect("published");
    }
    assert_eq!(node.get_all(id, "q"), ["1", "0"]);
}
