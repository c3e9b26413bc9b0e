//! Who is served: single active, exclusive and prioritized consumers, recovery, limits.

use super::*;

fn single_active(kind: &str) -> OwnedTable {
    FieldTableBuilder::new()
        .with("x-single-active-consumer", FieldValue::Bool(true))
        .with("x-queue-type", FieldValue::LongStr(kind.as_bytes()))
        .build()
}

impl Node {
    fn consume_with(
        &mut self,
        (id, channel): (ConnectionId, u16),
        (queue, tag): (&str, &str),
        exclusive: bool,
        priority: i32,
    ) -> Result<(), Exception> {
        let table = FieldTableBuilder::new().with("x-priority", FieldValue::I32(priority)).build();
        let Method::BasicConsume(mut method) = consume(queue, tag, false) else { unreachable!() };
        method.exclusive = exclusive;
        method.arguments = table.as_ref();
        self.call_on(id, channel, Method::BasicConsume(method))
    }

    fn cancel(&mut self, id: ConnectionId, consumer_tag: &str) {
        let cancel = BasicCancel { consumer_tag, no_wait: true };
        self.call(id, Method::BasicCancel(cancel)).expect("cancels");
    }

    /// Publishes one message and says which consumer got it, with all that went to others.
    fn served(&mut self, id: ConnectionId, queue: &str) -> Vec<String> {
        self.out(id);
        self.publish(id, "", queue, true, "x");
        self.settle();
        let tags = self.out(id).into_iter().filter_map(|out| match out {
            Out::Method(_, text) => {
                let tag = text.split("consumer_tag: \"").nth(1)?;
                Some(tag.split('"').next()?.to_owned())
            }
            Out::Body(_) => None,
        });
        tags.collect()
    }
}

#[test]
fn one_consumer_is_active_and_the_first_in_line_follows_it() {
    let mut node = Node::new();
    let id = node.connect(0);
    let table = single_active("classic");
    node.call(id, declare_with("q", true, table.as_ref())).expect("declared");
    for (tag, priority) in [("a", 0), ("b", 0), ("c", 5), ("d", 5)] {
        node.consume_with((id, 1), ("q", tag), false, priority).expect("consumes");
        node.settle();
    }
    assert_eq!(node.served(id, "q"), ["a"]);
    assert_eq!(node.served(id, "q"), ["a"], "a newcomer of higher priority waits too");
    let rows = node.with(|broker, _| broker.consumer_rows(None));
    let states: Vec<_> = rows.iter().map(|row| (row.active, row.activity_status)).collect();
    assert_eq!(states[0], (true, "single_active"));
    assert_eq!(states[1], (false, "waiting"));
    node.cancel(id, "a");
    assert_eq!(node.served(id, "q"), ["c"]);
    node.cancel(id, "d");
    assert_eq!(node.served(id, "q"), ["c"]);
    node.cancel(id, "c");
    assert_eq!(node.served(id, "q"), ["b"]);
    let refused = node.consume_with((id, 1), ("q", "e"), true, 0).expect_err("not exclusive");
    assert_eq!(refused.text, "queue 'q' in vhost '/' in exclusive use");
}

#[test]
fn nobody_steps_in_for_an_active_consumer_that_is_at_its_limit() {
    let mut node = Node::new();
    let id = node.connect(0);
    let table = single_active("classic");
    node.call(id, declare_with("q", true, table.as_ref())).expect("declared");
    node.call(id, qos(1, false)).expect("set");
    node.call(id, consume("q", "a", false)).expect("consumes");
    node.call(id, consume("q", "b", false)).expect("consumes");
    node.settle();
    assert_eq!(node.served(id, "q"), ["a"]);
    assert_eq!(node.served(id, "q"), [""; 0]);
    node.call(id, ack(1, false)).expect("known");
    assert_eq!(node.served(id, "q"), ["a"], "one of the two that wait");
}

#[test]
fn on_a_quorum_queue_a_higher_priority_takes_over_once_the_active_one_is_done() {
    let mut node = Node::new();
    let id = node.connect(0);
    let table = single_active("quorum");
    node.call(id, declare_with("q", true, table.as_ref())).expect("declared");
    node.consume_with((id, 1), ("q", "low"), false, 0).expect("consumes");
    node.settle();
    assert_eq!(node.served(id, "q"), ["low"]);
    node.consume_with((id, 1), ("q", "high"), false, 1).expect("consumes");
    assert_eq!(node.served(id, "q"), [""; 0], "the first is being drained");
    node.call(id, ack(1, false)).expect("known");
    node.settle();
    assert_eq!(node.bodies(id).len(), 1);
    assert_eq!(node.served(id, "q"), ["high"]);
    let get = BasicGet { queue: "q", no_ack: true };
    let refused = node.call(id, Method::BasicGet(get)).expect_err("refused");
    assert_eq!(refused.code.value(), 405);
}

#[test]
fn consumers_of_a_higher_priority_are_served_while_they_can_take() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.call(id, declare("q", false)).expect("declared");
    node.call(id, qos(2, false)).expect("set");
    node.consume_with((id, 1), ("q", "low"), false, -1).expect("consumes");
    node.consume_with((id, 1), ("q", "high"), false, 3).expect("consumes");
    let served: Vec<_> = (0..5).flat_map(|_| node.served(id, "q")).collect();
    assert_eq!(served, ["high", "high", "low", "low"]);
}

#[test]
fn recover_gives_back_to_anyone_or_to_the_consumer_that_had_it() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.call(id, declare("q", false)).expect("declared");
    node.call(id, consume("q", "a", false)).expect("consumes");
    node.call(id, consume("q", "b", false)).expect("consumes");
    assert_eq!(node.served(id, "q"), ["a"]);
    assert_eq!(node.served(id, "q"), ["b"]);
    assert_eq!(node.served(id, "q"), ["a"]);
    node.call(id, Method::BasicRecover(BasicRecover { requeue: false })).expect("recovers");
    node.settle();
    let text = format!("{:?}", node.out(id));
    assert!(text.starts_with("[Method(1, \"BasicRecoverOk\")"), "{text}");
    let tags: Vec<_> = text.matches("consumer_tag: \\\"a").collect();
    assert_eq!((tags.len(), text.matches("redelivered: true").count()), (2, 3), "{text}");
    node.call(id, Method::BasicRecoverAsync(BasicRecoverAsync { requeue: true })).expect("fine");
    node.settle();
    let text = format!("{:?}", node.out(id));
    assert!(!text.contains("BasicRecoverOk"), "{text}");
    assert_eq!(text.matches("redelivered: true").count(), 3, "{text}");
    node.call(id, ack(9, true)).expect("three times three deliveries");
}

#[test]
fn a_paused_channel_gets_nothing_until_it_goes_on() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.call(id, declare("q", false)).expect("declared");
    node.call(id, consume("q", "a", true)).expect("consumes");
    let flow = |active| Method::ChannelFlow(ChannelFlow { active });
    node.call(id, flow(false)).expect("pauses");
    assert_eq!(node.served(id, "q"), [""; 0]);
    node.call(id, flow(true)).expect("goes on");
    node.settle();
    assert_eq!(node.names(id), ["ChannelFlowOk", "BasicDeliver"]);
}

#[test]
fn a_limit_of_the_whole_channel_holds_for_all_its_consumers_on_any_queue_type() {
    let mut node = Node::new();
    let id = node.connect(0);
    let quorum =
        FieldTableBuilder::new().with("x-queue-type", FieldValue::LongStr(b"quorum")).build();
    node.call(id, declare_with("q", true, quorum.as_ref())).expect("declared");
    node.call(id, declare("c", false)).expect("declared");
    node.call(id, qos(2, true)).expect("set");
    node.call(id, consume("q", "a", false)).expect("consumes");
    node.call(id, consume("c", "b", false)).expect("consumes");
    node.settle();
    assert_eq!(node.served(id, "q"), ["a"]);
    assert_eq!(node.served(id, "c"), ["b"]);
    assert_eq!(node.served(id, "q"), [""; 0]);
    assert_eq!(node.served(id, "c"), [""; 0]);
    node.call(id, qos(3, true)).expect("raised");
    node.settle();
    assert_eq!(node.bodies(id).len(), 1);
    node.call(id, qos(1, false)).expect("ends the limit of the channel");
    node.settle();
    assert_eq!(node.bodies(id).len(), 1);
}

#[test]
fn exclusive_use_is_for_one_and_quorum_queues_know_none() {
    let mut node = Node::new();
    let id = node.connect(0);
    let quorum =
        FieldTableBuilder::new().with("x-queue-type", FieldValue::LongStr(b"quorum")).build();
    node.call(id, declare_with("q", true, quorum.as_ref())).expect("declared");
    node.call(id, declare("c", false)).expect("declared");
    for tag in ["a", "b"] {
        node.consume_with((id, 1), ("q", tag), true, 0).expect("the flag is ignored");
    }
    node.consume_with((id, 1), ("c", "c"), true, 0).expect("the first");
    let refused = node.consume_with((id, 1), ("c", "d"), false, 0).expect_err("held");
    assert_eq!(refused.text, "queue 'c' in vhost '/' in exclusive use");
    node.cancel(id, "c");
    node.consume_with((id, 1), ("c", "d"), false, 0).expect("free again");
    node.consume_with((id, 1), ("c", "e"), true, 0).expect_err("somebody is there");
}
