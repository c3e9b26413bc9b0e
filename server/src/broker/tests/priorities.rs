//! Queues that keep their messages by priority.

use super::*;

fn prioritized<'a>(table: &'a OwnedTable, queue: &'a str) -> Method<'a> {
    declare_with(queue, true, table.as_ref())
}

fn levels(max: i32) -> OwnedTable {
    FieldTableBuilder::new().with("x-max-priority", FieldValue::I32(max)).build()
}

fn quorum() -> OwnedTable {
    FieldTableBuilder::new().with("x-queue-type", FieldValue::LongStr(b"quorum")).build()
}

impl Node {
    /// Publishes messages, each with its priority as body, `-` for none.
    fn prioritize(&mut self, id: ConnectionId, queue: &str, priorities: &str) {
        for body in priorities.split(' ') {
            let priority = body.split('.').next().and_then(|text| text.parse().ok());
            let properties = PropertiesWriter {
                priority,
                delivery_mode: Some(2),
                ..PropertiesWriter::default()
            };
            self.send(id, ("", queue), &properties, body).expect("published");
        }
    }

    /// The bodies of everything in the queue, in the order it is delivered.
    fn drain(&mut self, id: ConnectionId, queue: &str) -> String {
        self.settle();
        self.out(id);
        self.call(id, consume(queue, "drain", true)).expect("consumes");
        self.settle();
        let bodies = self.bodies(id);
        let cancel = BasicCancel { consumer_tag: "drain", no_wait: true };
        self.call(id, Method::BasicCancel(cancel)).expect("cancels");
        bodies.join(" ")
    }

    fn ready(&mut self, queue: &str) -> u64 {
        let rows = self.with(|broker, ctx| broker.queue_rows(None, None, ctx));
        rows.iter().find(|row| row.name == queue).expect("the queue").messages_ready
    }
}

#[test]
fn higher_priorities_come_first_and_equals_in_order() {
    let mut node = Node::new();
    let id = node.connect(0);
    let table = levels(10);
    node.call(id, prioritized(&table, "q")).expect("declared");
    node.prioritize(id, "q", "1 - 9 5 0 3 9.b 255 10 -");
    assert_eq!(node.ready("q"), 10, "one queue");
    assert_eq!(node.drain(id, "q"), "255 10 9 9.b 5 3 1 - 0 -");
}

#[test]
fn quorum_queues_have_priorities_without_an_argument() {
    let mut node = Node::new();
    let id = node.connect(0);
    let table = quorum();
    node.call(id, prioritized(&table, "q")).expect("declared");
    node.prioritize(id, "q", "0 - 4 5 31 200 3");
    assert_eq!(node.drain(id, "q"), "31 200 5 - 4 3 0");
}

#[test]
fn a_queue_without_priorities_ignores_them() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.call(id, declare("q", true)).expect("declared");
    node.prioritize(id, "q", "0 9 - 5");
    assert_eq!(node.drain(id, "q"), "0 9 - 5");
}

#[test]
fn what_comes_back_stands_in_its_old_place_of_its_priority() {
    let mut node = Node::new();
    let id = node.connect(0);
    let table = levels(5);
    node.call(id, prioritized(&table, "q")).expect("declared");
    node.prioritize(id, "q", "1 5.a 5.b 3");
    node.call(id, qos(3, false)).expect("set");
    node.call(id, consume("q", "c", false)).expect("consumes");
    node.settle();
    assert_eq!(node.bodies(id), ["5.a", "5.b", "3"]);
    let cancel = BasicCancel { consumer_tag: "c", no_wait: true };
    node.call(id, Method::BasicCancel(cancel)).expect("cancels");
    node.prioritize(id, "q", "5.c 4");
    let nack = BasicNack { delivery_tag: 3, multiple: true, requeue: true };
    node.call(id, Method::BasicNack(nack)).expect("known");
    assert_eq!(node.drain(id, "q"), "5.a 5.b 5.c 4 3 1");
}

#[test]
fn purge_delete_and_counts_see_one_queue() {
    let mut node = Node::new();
    let id = node.connect(0);
    let table = levels(255);
    node.call(id, prioritized(&table, "q")).expect("declared");
    node.prioritize(id, "q", "1 2 3 200");
    let get = BasicGet { queue: "q", no_ack: false };
    node.call(id, Method::BasicGet(get)).expect("gets");
    node.settle();
    let out = node.out(id);
    let text = format!("{out:?}");
    assert!(text.contains("message_count: 3"), "{text}");
    let purge = QueuePurge { queue: "q", no_wait: false };
    node.call(id, Method::QueuePurge(purge)).expect("purged");
    let text = format!("{:?}", node.out(id));
    assert!(text.contains("message_count: 3"), "{text}");
    node.call(id, ack(1, false)).expect("the one outstanding");
    node.prioritize(id, "q", "9 8");
    let delete = QueueDelete { queue: "q", if_unused: false, if_empty: false, no_wait: false };
    node.call(id, Method::QueueDelete(delete)).expect("deleted");
    node.settle();
    let text = format!("{:?}", node.out(id));
    assert!(text.contains("message_count: 2"), "{text}");
    node.settle();
    assert_eq!(node.engine.stats().live_bytes, 0, "nothing of it is left");
}

/// Goal: levels are found again after a restart, with what was in each; a message that was
/// delivered before is marked so.
#[test]
fn priorities_survive_a_restart() {
    let mut node = Node::new();
    let id = node.connect(0);
    let (table, quorum) = (levels(9), quorum());
    node.call(id, prioritized(&table, "q")).expect("declared");
    node.call(id, prioritized(&quorum, "r")).expect("declared");
    node.prioritize(id, "q", "1 9 5 - 9.b");
    node.prioritize(id, "r", "1 9 5 - 9.b");
    let get = BasicGet { queue: "q", no_ack: false };
    node.call(id, Method::BasicGet(get)).expect("gets the first 9");
    node.settle();
    let mut node = node.restarted();
    let id = node.connect(0);
    assert_eq!(node.ready("q"), 5);
    node.prioritize(id, "q", "7 5.b");
    assert_eq!(node.drain(id, "q"), "9 9.b 7 5 5.b 1 -");
    assert_eq!(node.drain(id, "r"), "9 9.b 5 - 1");
}
