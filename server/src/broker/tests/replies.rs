//! Direct reply-to.

use super::*;

const PSEUDO_QUEUE: &str = "amq.rabbitmq.reply-to";

impl Node {
    /// Makes `id` a consumer of replies; the name it gets.
    fn reply_name(&mut self, id: ConnectionId) -> String {
        self.call(id, consume(PSEUDO_QUEUE, "r", true)).expect("consumes");
        let channel = &self.broker.channels[self.broker.channel_index(id, 1)];
        channel.reply_consumer.as_ref().expect("just made").name.to_string()
    }
}

#[test]
fn a_name_cannot_be_guessed_from_another() {
    let mut node = Node::new();
    let (one, two) = (node.connect(0), node.connect(1));
    let (first, second) = (node.reply_name(one), node.reply_name(two));
    let secret = |name: &str| name.rsplit_once('.').expect("two parts").1.to_owned();
    assert_ne!(secret(&first), secret(&second));
    // The place of one with the secret of the other leads nowhere.
    let forged = first.replace(&secret(&first), &secret(&second));
    node.out(one);
    node.publish(two, "", &forged, false, "x");
    assert_eq!(node.bodies(one), [""; 0]);
    node.publish(two, "", &first, false, "y");
    assert_eq!(node.bodies(one), ["y"]);
}

#[test]
fn replies_end_with_their_channel() {
    let mut node = Node::new();
    let (one, two) = (node.connect(0), node.connect(1));
    let name = node.reply_name(one);
    node.with(|broker, ctx| broker.close_channel(one, 1, ctx));
    node.with(|broker, ctx| broker.open_channel(one, 1, ctx)).expect("opens again");
    node.out(one);
    node.publish(two, "", &name, false, "late");
    assert_eq!(node.bodies(one), [""; 0]);
    assert_eq!(node.names(two), ["BasicReturn"]);
}

#[test]
fn a_request_carries_the_name_and_needs_somebody_to_answer_to() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.call(id, declare("q", false)).expect("declared");
    let asks = PropertiesWriter {
        reply_to: Some(PSEUDO_QUEUE.as_bytes()),
        correlation_id: Some(b"7"),
        ..PropertiesWriter::default()
    };
    let refused = node.send(id, ("", "q"), &asks, "x").expect_err("nobody consumes replies");
    assert_eq!(refused.text, "fast reply consumer does not exist");
    let name = node.reply_name(id);
    node.send(id, ("", "q"), &asks, "x").expect("published");
    node.out(id);
    node.call(id, Method::BasicGet(BasicGet { queue: "q", no_ack: true })).expect("gets");
    let bytes = &node.effects.outbox(id).bytes;
    let found = bytes.windows(name.len()).filter(|window| *window == name.as_bytes()).count();
    assert_eq!(found, 1, "in the properties");
}

/// Goal: nobody can fill the memory of the broker with replies that their receiver does not read.
#[test]
fn replies_to_a_connection_that_does_not_read_are_dropped_at_a_limit() {
    let mut node = Node::new();
    let (one, two) = (node.connect(0), node.connect(1));
    let name = node.reply_name(one);
    let body = "x".repeat(1 << 20);
    for _ in 0..40 {
        node.publish(two, "", &name, false, &body);
    }
    let waiting = node.effects.outbox(one).len();
    assert!((16 << 20) < waiting && waiting < (18 << 20), "{waiting}");
}

#[test]
fn in_a_transaction_replies_leave_with_the_commit() {
    let mut node = Node::new();
    let (one, two) = (node.connect(0), node.connect(1));
    let name = node.reply_name(one);
    node.call(two, Method::TxSelect).expect("selected");
    node.out(one);
    node.publish(two, "", &name, false, "x");
    assert_eq!(node.bodies(one), [""; 0]);
    node.call(two, Method::TxCommit).expect("commits");
    assert_eq!(node.bodies(one), ["x"]);
}
