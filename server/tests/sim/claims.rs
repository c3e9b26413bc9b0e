//! Promises that were broken once, each in a small world of its own.

use leveret_engine::storage::SimDisk;
use leveret_protocol::method::{BasicGet, Method, QueueDeclare, QueueDelete};
use leveret_server::broker::ids::ConnectionId;

use crate::heard::Heard;
use crate::node::{NONE, Node};
use crate::random::Random;

const ONE: ConnectionId = ConnectionId(1);
const TWO: ConnectionId = ConnectionId(2);

fn start() -> Node {
    let mut node = Node::start(&SimDisk::new(1), 1_000_000_000, Random::new(1)).expect("starts");
    for id in [ONE, TWO] {
        node.connect(id);
        node.open_channel(id, 1);
    }
    node
}

fn declare(node: &mut Node, id: ConnectionId) {
    let declare = QueueDeclare {
        queue: "queue",
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        no_wait: false,
        arguments: NONE,
    };
    node.call(id, 1, &Method::QueueDeclare(declare)).expect("declared");
}

fn delete(node: &mut Node, id: ConnectionId) {
    let delete = QueueDelete { queue: "queue", if_unused: false, if_empty: false, no_wait: false };
    node.call(id, 1, &Method::QueueDelete(delete)).expect("deleted");
}

/// Turns of the loop until something is heard.
fn hear(node: &mut Node) -> Vec<(ConnectionId, u16, Heard)> {
    for _ in 0..1000 {
        let heard = node.hear();
        if !heard.is_empty() {
            return heard;
        }
        node.tick(100_000).expect("the disk works");
    }
    panic!("nothing is said");
}

#[test]
fn nobody_hears_of_a_definition_that_somebody_elses_crash_can_undo() {
    let mut node = start();
    for change in [declare, delete] {
        change(&mut node, ONE);
        change(&mut node, TWO); // there already, or gone already: but not surely
        assert_eq!(node.hear(), [], "an -ok before the sync");
        let heard = hear(&mut node);
        assert_eq!(heard.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), [ONE, TWO]);
        change(&mut node, TWO);
        assert_eq!(node.hear().len(), 1, "now it is sure");
    }
}

#[test]
fn a_get_that_waits_for_the_disk_is_answered_when_its_queue_is_deleted() {
    let mut node = start();
    declare(&mut node, ONE);
    hear(&mut node);
    for _ in 0..100 {
        node.publish(ONE, 1, "", "queue", true, &[7; 1000]).expect("taken");
        node.tick(1_000_000).expect("the disk works");
    }
    node.hear();
    let get = Method::BasicGet(BasicGet { queue: "queue", no_ack: true });
    for _ in 0..50 {
        node.call(TWO, 1, &get).expect("asked");
        if node.is_paused(TWO) {
            break;
        }
        assert_eq!(node.hear().len(), 1, "from memory, at once");
    }
    assert!(node.is_paused(TWO), "most messages must come from disk");
    delete(&mut node, ONE);
    assert_eq!(node.hear(), [(TWO, 1, Heard::GetEmpty)]);
    assert!(!node.is_paused(TWO));
    declare(&mut node, ONE); // perhaps in the very slot of the old one
    assert_eq!(hear(&mut node).len(), 2);
}

#[test]
fn nothing_follows_the_close_of_a_channel_that_failed() {
    let mut node = start();
    declare(&mut node, ONE);
    let missing = BasicGet { queue: "missing", no_ack: true };
    node.call(ONE, 1, &Method::BasicGet(missing)).expect_err("there is no such queue");
    node.abort_channel(ONE, 1);
    node.open_channel(ONE, 1);
    for _ in 0..100 {
        node.tick(1_000_000).expect("the disk works");
    }
    assert_eq!(node.hear(), [], "the declare-ok was for another channel");
    declare(&mut node, ONE);
    assert_eq!(node.hear().len(), 1);
}
