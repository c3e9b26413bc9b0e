//! Deliveries that wait too long for their acknowledgement.

use super::*;

impl Node {
    /// Lets time pass.
    fn wait_ms(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.now_ms += 10;
            self.with(Broker::on_deadline);
            self.tick();
        }
    }
}

fn consume_within(table: &OwnedTable) -> Method<'_> {
    let Method::BasicConsume(mut method) = consume("q", "c", false) else { unreachable!() };
    method.arguments = table.as_ref();
    Method::BasicConsume(method)
}

fn timeout(ms: i32) -> OwnedTable {
    FieldTableBuilder::new().with("x-consumer-timeout", FieldValue::I32(ms)).build()
}

/// Goal: a consumer argument takes one delivery back, its place in the prefetch is free, and the
/// late acknowledgement is accepted and settles nothing.
#[test]
fn a_late_delivery_is_taken_back_alone_and_its_ack_means_nothing() {
    let mut node = Node::new();
    let id = node.connect(0);
    let table = timeout(1000);
    node.call(id, declare("q", false)).expect("declared");
    node.call(id, qos(1, false)).expect("set");
    node.call(id, consume_within(&table)).expect("consumes");
    node.publish(id, "", "q", false, "slow");
    node.tick();
    assert_eq!(node.bodies(id), ["slow"]);
    node.wait_ms(900);
    assert_eq!(node.bodies(id), [""; 0]);
    node.wait_ms(200);
    let text = format!("{:?}", node.out(id));
    assert!(text.contains("delivery_tag: 2") && text.contains("redelivered: true"), "{text}");
    node.call(id, ack(1, false)).expect("late, and fine");
    let refused = node.call(id, ack(1, false)).expect_err("twice is not");
    assert_eq!(refused.text, "unknown delivery tag 1");
    node.publish(id, "", "q", false, "next");
    node.tick();
    assert_eq!(node.bodies(id), [""; 0], "the second delivery is outstanding");
    node.call(id, ack(2, false)).expect("in time");
    node.tick();
    assert_eq!(node.bodies(id), ["next"]);
    let rows = node.with(|broker, ctx| broker.queue_rows(None, None, ctx));
    assert_eq!((rows[0].messages_ready, rows[0].messages_unacknowledged), (0, 1));
}

#[test]
fn a_queue_argument_and_a_policy_hold_for_get_too() {
    let mut node = Node::new();
    let id = node.connect(0);
    let table = timeout(500);
    node.call(id, declare_with("q", false, table.as_ref())).expect("declared");
    node.call(id, declare("other", false)).expect("declared");
    for queue in ["q", "other"] {
        node.publish(id, "", queue, false, "x");
        node.call(id, Method::BasicGet(BasicGet { queue, no_ack: false })).expect("gets");
    }
    node.wait_ms(600);
    let ready = |node: &mut Node| {
        let rows = node.with(|broker, ctx| broker.queue_rows(None, None, ctx));
        rows.iter().map(|row| (row.name.clone(), row.messages_ready)).collect::<Vec<_>>()
    };
    assert_eq!(ready(&mut node), [("other".to_owned(), 0), ("q".to_owned(), 1)]);
    import(
        &mut node,
        r#"{"policies": [{"vhost": "/", "name": "p", "pattern": "other", "apply-to": "queues",
            "priority": 0, "definition": {"consumer-timeout": 300}}]}"#,
    );
    node.wait_ms(100);
    assert_eq!(ready(&mut node)[0].1, 1, "what was outstanding too long already");
    node.call(id, ack(0, true)).expect("both late");
    assert_eq!(ready(&mut node), [("other".to_owned(), 1), ("q".to_owned(), 1)]);
}

#[test]
fn the_configured_timeout_closes_the_channel() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.broker.node.limits.consumer_timeout_ms = Some(1000);
    node.call(id, declare("q", false)).expect("declared");
    node.call(id, consume("q", "c", false)).expect("consumes");
    node.publish(id, "", "q", false, "x");
    node.tick();
    node.wait_ms(900);
    assert!(node.effects.requests.is_empty());
    node.wait_ms(200);
    let Some(Request::CloseChannel(channel, exception)) = node.effects.requests.pop() else {
        panic!("the channel is closed")
    };
    assert_eq!((channel.number, exception.code.value(), exception.method.class), (1, 406, 0));
    assert!(exception.text.starts_with(
        "delivery acknowledgement on channel 1 timed out. Timeout value used: 1000 ms."
    ));
    let rows = node.with(|broker, ctx| broker.queue_rows(None, None, ctx));
    assert_eq!((rows[0].messages_ready, rows[0].consumers), (1, 0));
}

#[test]
fn a_settled_delivery_times_nothing_out() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.broker.node.limits.consumer_timeout_ms = Some(1000);
    let table = timeout(300);
    node.call(id, declare("q", false)).expect("declared");
    node.call(id, consume_within(&table)).expect("consumes");
    for _ in 0..20 {
        node.publish(id, "", "q", false, "x");
        node.tick();
        node.wait_ms(200);
        node.call(id, ack(0, true)).expect("in time");
    }
    assert_eq!(node.bodies(id).len(), 20);
    assert!(node.effects.requests.is_empty());
}

#[test]
fn a_timeout_that_is_none_is_refused() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.call(id, declare("q", false)).expect("declared");
    let table = timeout(-1);
    let refused = node.call(id, consume_within(&table)).expect_err("negative");
    assert_eq!(
        refused.text,
        "invalid arg 'x-consumer-timeout' for queue 'q' in vhost '/': {value_negative,-1}"
    );
}
