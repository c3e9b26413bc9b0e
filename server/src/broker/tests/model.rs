//! One queue with priorities against a plain list, under random commands and restarts.

use super::*;
use proptest::prelude::*;

/// What a message is in the model: how often it was delivered, its priority, its number.
type Entry = (bool, u8, u32);

#[derive(Clone, Debug)]
enum Step {
    Publish(u8),
    Get,
    Ack(usize),
    Requeue(usize),
    Drop(usize),
    RequeueAll,
    Purge,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..7_u8).prop_map(Step::Publish),
        6 => Just(Step::Get),
        3 => (0..8_usize).prop_map(Step::Ack),
        3 => (0..8_usize).prop_map(Step::Requeue),
        1 => (0..8_usize).prop_map(Step::Drop),
        1 => Just(Step::RequeueAll),
        1 => Just(Step::Purge),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

/// The queue as it should be: ready messages by priority and number, and what is outstanding by
/// delivery tag.
#[derive(Default)]
struct Model {
    ready: Vec<Entry>,
    outstanding: Vec<(u64, Entry)>,
    /// Below so many messages of a priority everything may have been delivered before a restart.
    seen: [u32; 4],
    published: u32,
    tag: u64,
}

impl Model {
    fn put(&mut self, entry: Entry) {
        let key = |entry: &Entry| (std::cmp::Reverse(entry.1), entry.2);
        let at = self.ready.partition_point(|other| key(other) < key(&entry));
        self.ready.insert(at, entry);
    }

    fn take(&mut self, index: usize) -> Option<(u64, Entry)> {
        (index < self.outstanding.len()).then(|| self.outstanding.remove(index))
    }

    fn requeue(&mut self, entries: impl IntoIterator<Item = (u64, Entry)>) {
        for (_, (_, priority, number)) in entries {
            self.put((true, priority, number));
        }
    }

    /// What was delivered is marked, with all that was before it in its log.
    fn restart(&mut self) {
        let outstanding = std::mem::take(&mut self.outstanding);
        self.requeue(outstanding);
        for entry in &mut self.ready {
            entry.0 |= entry.2 <= self.seen[usize::from(entry.1)];
        }
        self.tag = 0;
    }
}

struct Pair {
    node: Node,
    id: ConnectionId,
    model: Model,
}

impl Pair {
    fn new() -> Pair {
        let mut node = Node::new();
        let id = node.connect(0);
        let table = FieldTableBuilder::new().with("x-max-priority", FieldValue::I32(3)).build();
        node.call(id, declare_with("q", true, table.as_ref())).expect("declared");
        node.settle();
        Pair { node, id, model: Model::default() }
    }

    fn apply(mut self, step: &Step) -> Pair {
        let Pair { node, id, model } = &mut self;
        let id = *id;
        match *step {
            Step::Publish(priority) => {
                model.published += 1;
                let properties = PropertiesWriter {
                    priority: Some(priority),
                    delivery_mode: Some(2),
                    ..PropertiesWriter::default()
                };
                let body = model.published.to_string();
                node.send(id, ("", "q"), &properties, &body).expect("published");
                model.put((false, priority.min(3), model.published));
            }
            Step::Get => self.get(),
            Step::Ack(index) => {
                if let Some((tag, _)) = model.take(index) {
                    node.call(id, ack(tag, false)).expect("outstanding");
                }
            }
            Step::Requeue(index) | Step::Drop(index) => {
                let requeue = matches!(step, Step::Requeue(_));
                if let Some((tag, entry)) = model.take(index) {
                    let nack = BasicNack { delivery_tag: tag, multiple: false, requeue };
                    node.call(id, Method::BasicNack(nack)).expect("outstanding");
                    model.requeue(requeue.then_some((tag, entry)));
                }
            }
            Step::RequeueAll => {
                node.call(id, Method::BasicRecover(BasicRecover { requeue: true })).expect("fine");
                let outstanding = std::mem::take(&mut model.outstanding);
                model.requeue(outstanding);
            }
            Step::Purge => {
                let purge = QueuePurge { queue: "q", no_wait: true };
                node.call(id, Method::QueuePurge(purge)).expect("purged");
                model.ready.clear();
            }
            Step::Restart => {
                node.settle();
                node.engine.checkpoint().expect("a working disk"); // as a clean stop does
                let mut node = self.node.restarted();
                let id = node.connect(0);
                self.model.restart();
                return Pair { node, id, model: self.model };
            }
        }
        self
    }

    /// Gets one message and holds it against the model.
    fn get(&mut self) {
        let Pair { node, id, model } = self;
        node.settle();
        node.out(*id);
        node.call(*id, Method::BasicGet(BasicGet { queue: "q", no_ack: false })).expect("gets");
        node.settle();
        let out = node.out(*id);
        if model.ready.is_empty() {
            assert_eq!(out, [Out::Method(1, "BasicGetEmpty".to_owned())]);
            return;
        }
        let entry @ (redelivered, priority, number) = model.ready.remove(0);
        let [Out::Method(1, method), Out::Body(body)] = &out[..] else { panic!("{out:?}") };
        assert_eq!(str::from_utf8(body), Ok(&*number.to_string()));
        assert!(method.contains(&format!("redelivered: {redelivered}")), "{method}");
        assert!(method.contains(&format!("message_count: {}", model.ready.len())), "{method}");
        model.tag += 1;
        model.outstanding.push((model.tag, entry));
        let seen = &mut model.seen[usize::from(priority)];
        *seen = (*seen).max(number);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Goal: whatever is published, given back, dropped, purged or interrupted by a restart, the
    /// queue gives out what a plain list would, in its order, with its counts and marks.
    #[test]
    fn a_priority_queue_matches_a_plain_list(steps in steps()) {
        let pair = steps.iter().fold(Pair::new(), Pair::apply);
        let mut pair = pair;
        for _ in 0..=pair.model.ready.len() {
            pair.get();
        }
    }
}
