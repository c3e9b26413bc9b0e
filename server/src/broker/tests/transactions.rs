//! Channels in transaction mode.

use super::*;

impl Node {
    fn ready_in(&mut self, queue: &str) -> u64 {
        let rows = self.with(|broker, ctx| broker.queue_rows(None, None, ctx));
        rows.iter().find(|row| row.name == queue).expect("the queue").messages_ready
    }

    /// A connection in transaction mode that has three messages of `work` outstanding.
    fn transactional(&mut self) -> ConnectionId {
        let id = self.connect(0);
        self.call(id, declare("work", true)).expect("declared");
        self.call(id, declare("done", true)).expect("declared");
        for body in ["1", "2", "3"] {
            self.publish(id, "", "work", true, body);
        }
        self.settle();
        self.call(id, Method::TxSelect).expect("selected");
        self.call(id, consume("work", "c", false)).expect("consumes");
        self.settle();
        self.out(id);
        id
    }
}

fn nack(delivery_tag: u64, requeue: bool) -> Method<'static> {
    Method::BasicNack(BasicNack { delivery_tag, multiple: false, requeue })
}

#[test]
fn a_commit_makes_publishes_and_acks_happen_and_answers_when_they_are_durable() {
    let mut node = Node::new();
    let id = node.transactional();
    node.publish(id, "", "done", true, "a");
    node.publish(id, "", "done", false, "b");
    node.call(id, ack(1, false)).expect("known");
    let refused = node.call(id, ack(1, false)).expect_err("the tag is taken");
    assert_eq!(refused.text, "unknown delivery tag 1");
    node.settle();
    assert_eq!(node.ready_in("done"), 0, "nothing before the commit");
    node.call(id, Method::TxCommit).expect("commits");
    node.tick();
    assert_eq!(node.ready_in("done"), 2);
    assert_eq!(node.names(id), [""; 0], "not durable yet");
    node.sync();
    assert_eq!(node.names(id), ["TxCommitOk"]);
    node.call(id, Method::TxCommit).expect("an empty one");
    assert_eq!(node.names(id), ["TxCommitOk"], "nothing to wait for");
    let mut node = node.restarted();
    assert_eq!((node.ready_in("work"), node.ready_in("done")), (2, 1));
}

#[test]
fn a_rollback_forgets_publishes_and_gives_deliveries_back_to_the_channel() {
    let mut node = Node::new();
    let id = node.transactional();
    node.publish(id, "", "done", true, "a");
    node.call(id, ack(2, false)).expect("known");
    node.call(id, nack(1, true)).expect("known");
    node.call(id, Method::TxRollback).expect("rolls back");
    assert_eq!(node.names(id), ["TxRollbackOk"]);
    node.tick();
    assert_eq!(node.bodies(id), [""; 0], "outstanding, not requeued");
    node.call(id, ack(3, true)).expect("all three are there again");
    node.call(id, Method::TxCommit).expect("commits");
    node.sync();
    assert_eq!((node.ready_in("work"), node.ready_in("done")), (0, 0));
}

#[test]
fn a_closed_channel_rolls_back_and_requeues() {
    let mut node = Node::new();
    let id = node.transactional();
    node.publish(id, "", "done", true, "a");
    node.call(id, ack(2, false)).expect("known");
    node.with(|broker, ctx| broker.close_channel(id, 1, ctx));
    assert_eq!((node.ready_in("work"), node.ready_in("done")), (3, 0));
}

#[test]
fn nacks_take_effect_with_the_commit() {
    let mut node = Node::new();
    let id = node.transactional();
    node.call(id, qos(3, true)).expect("set");
    node.call(id, nack(1, true)).expect("known");
    node.call(id, nack(2, false)).expect("known");
    node.tick();
    assert_eq!(node.bodies(id), [""; 0], "the limit of the channel counts them still");
    node.call(id, Method::TxCommit).expect("commits");
    node.settle();
    assert_eq!(node.bodies(id), ["1"]);
}

#[test]
fn modes_exclude_each_other() {
    let mut node = Node::new();
    let id = node.connect(0);
    for method in [Method::TxCommit, Method::TxRollback] {
        let refused = node.call(id, method).expect_err("no tx.select yet");
        assert_eq!(refused.text, "channel is not transactional");
    }
    node.call(id, Method::TxSelect).expect("selected");
    node.call(id, Method::TxSelect).expect("selected twice");
    let confirm = || Method::ConfirmSelect(ConfirmSelect { no_wait: false });
    let refused = node.call(id, confirm()).expect_err("refused");
    assert_eq!(refused.text, "cannot switch from tx to confirm mode");
    node.with(|broker, ctx| broker.open_channel(id, 2, ctx)).expect("opens");
    node.call_on(id, 2, confirm()).expect("selected");
    let refused = node.call_on(id, 2, Method::TxSelect).expect_err("refused");
    assert_eq!(refused.text, "cannot switch from confirm to tx mode");
}

#[test]
fn returns_come_with_the_commit_and_before_its_answer() {
    let mut node = Node::new();
    let id = node.connect(0);
    node.call(id, Method::TxSelect).expect("selected");
    node.out(id);
    node.publish(id, "amq.direct", "nowhere", true, "x");
    assert_eq!(node.names(id), [""; 0]);
    node.call(id, Method::TxCommit).expect("commits");
    node.sync();
    assert_eq!(node.names(id), ["BasicReturn", "TxCommitOk"]);
}

#[test]
fn a_queue_deleted_before_the_commit_is_left_out() {
    let mut node = Node::new();
    let id = node.transactional();
    node.publish(id, "", "done", true, "a");
    node.call(id, ack(1, false)).expect("known");
    for queue in ["done", "work"] {
        let delete = QueueDelete { queue, if_unused: false, if_empty: false, no_wait: true };
        node.call(id, Method::QueueDelete(delete)).expect("deleted");
    }
    // The slot of one of them has a new tenant now.
    node.call(id, declare("other", true)).expect("declared");
    node.call(id, Method::TxCommit).expect("commits");
    node.sync();
    assert_eq!(node.ready_in("other"), 0);
}
