//! `topic`: to bindings whose pattern the key matches.
//!
//! Keys and patterns are words between dots; the empty one has none. In a pattern `*` stands for
//! any one word and `#` for any number of words. A run of both means "at least as many words as
//! stars" if there is a `#` in it, so it is stored as its stars and then one `#`: that alone makes
//! `#.#.*.#` as cheap as `*.#`.
//!
//! Patterns are a trie of words. A key walks all its branches at once, a word at a time, with the
//! set of nodes it can be at. A node is in the set once however many ways lead to it, and a `#`
//! once reached stays reached to the end, so a key of W words costs at most W visits a node: there
//! is no pattern or key that makes it more. Without wildcards it is one node a word. And a node
//! from which every way leads to a `#` reached before is left alone, so that a pattern with any
//! number of `#` costs a visit or two a word.

mod trie;

use super::super::binding::{Bindings, Chain};
use super::super::router::Trail;
use super::Visit;
use trie::{ROOT, Trie, WordId};

/// Longest routing key, in bytes. The routing key of a message is no longer anyway; one in a `CC`
/// header that is matches nothing.
const KEY_SIZE_MAX: usize = 255;

/// The bindings of a topic exchange by pattern.
#[derive(Debug, Default)]
pub(in super::super) struct Topic {
    trie: Trie,
    walk: Walk,
}

/// Where a key can be in the trie. Reused from key to key.
#[derive(Debug, Default)]
struct Walk {
    /// Number of the word position being visited; grows for ever.
    position: u64,
    /// The first position of this key.
    start: u64,
    /// Nodes that the words so far lead to.
    current: Vec<u32>,
    /// Nodes that the words so far and the next one lead to.
    next: Vec<u32>,
    /// `#` nodes reached that patterns go on from.
    open: Vec<u32>,
}

impl Topic {
    pub(super) fn insert(&mut self, slot: u32, bindings: &mut Bindings) {
        let node = self.trie.add(canonical(&bindings.get(slot).key));
        bindings.get_mut(slot).place = node;
        bindings.append(self.trie.list_mut(node), Chain::Kind, slot);
    }

    pub(super) fn remove(&mut self, slot: u32, bindings: &mut Bindings) {
        let node = bindings.get(slot).place;
        bindings.unlink(self.trie.list_mut(node), Chain::Kind, slot);
        self.trie.prune(node);
    }

    pub(super) fn route(&mut self, visit: &Visit<'_>, trail: &mut Trail<'_>) {
        for key in visit.message.keys {
            if key.len() <= KEY_SIZE_MAX {
                self.walk(key, &mut |node, trie| {
                    let first = trie.list(node).first;
                    for (_, binding) in visit.bindings.chain(Chain::Kind, first) {
                        trail.follow(binding.destination);
                    }
                });
            }
        }
    }

    /// Calls `matched` for every node whose pattern matches `key`, once each.
    fn walk(&mut self, key: &str, matched: &mut impl FnMut(u32, &Trie)) {
        let Topic { trie, walk } = self;
        walk.begin();
        walk.enter(ROOT, trie, matched);
        std::mem::swap(&mut walk.current, &mut walk.next);
        for word in words(key) {
            if walk.current.is_empty() && walk.open.is_empty() {
                return;
            }
            walk.step(trie.word(word), trie, matched);
        }
        for node in &walk.current {
            matched(*node, trie);
        }
    }
}

impl Walk {
    fn begin(&mut self) {
        self.position += 1;
        self.start = self.position;
        self.current.clear();
        self.next.clear();
        self.open.clear();
    }

    /// Goes one word on. `word` is `None` for one that no pattern has.
    fn step(
        &mut self,
        word: Option<WordId>,
        trie: &mut Trie,
        matched: &mut impl FnMut(u32, &Trie),
    ) {
        self.position += 1;
        self.next.clear();
        self.open.retain(|node| !trie.is_spent(*node, self.start));
        // What this word opens is not for this word.
        let open = self.open.len();
        for index in 0..self.current.len() {
            let node = self.current[index];
            if let Some(child) = trie.star(node) {
                self.enter(child, trie, matched);
            }
            if let Some(child) = word.and_then(|word| trie.child(node, word)) {
                self.enter(child, trie, matched);
            }
        }
        for index in 0..open {
            if let Some(child) = word.and_then(|word| trie.child(self.open[index], word)) {
                self.enter(child, trie, matched);
            }
        }
        std::mem::swap(&mut self.current, &mut self.next);
    }

    /// The words up to this position lead to `node`, and to the `#` behind it.
    fn enter(&mut self, node: u32, trie: &mut Trie, matched: &mut impl FnMut(u32, &Trie)) {
        if trie.is_spent(node, self.start) || trie.mark(node, self.position) == self.position {
            return;
        }
        self.next.push(node);
        let Some(hash) = trie.hash(node) else { return };
        if trie.mark(hash, self.position) < self.start {
            matched(hash, trie);
            if trie.has_words(hash) {
                self.open.push(hash);
            }
            trie.spend(hash, self.start);
        }
    }
}

/// The words of a key or pattern.
fn words(key: &str) -> impl Iterator<Item = &str> {
    key.split('.').take(if key.is_empty() { 0 } else { usize::MAX })
}

/// A step of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Star,
    Hash,
}

/// The tokens of a pattern, each run of wildcards as its stars and then at most one `#`.
fn canonical(pattern: &str) -> impl Iterator<Item = Token<'_>> {
    let mut words = words(pattern).peekable();
    let mut hash = false;
    std::iter::from_fn(move || {
        while words.next_if_eq(&"#").is_some() {
            hash = true;
        }
        if words.next_if_eq(&"*").is_some() {
            return Some(Token::Star);
        }
        if std::mem::take(&mut hash) {
            return Some(Token::Hash);
        }
        words.next().map(Token::Word)
    })
}

#[cfg(test)]
fn matches(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern, key) {
        ([], []) => true,
        (["#", rest @ ..], _) => {
            matches(rest, key) || (!key.is_empty() && matches(pattern, &key[1..]))
        }
        (["*", rest @ ..], [_, key @ ..]) => matches(rest, key),
        ([word, rest @ ..], [first, key @ ..]) => word == first && matches(rest, key),
        ([], [_, ..]) | ([_, ..], []) => false,
    }
}

/// RabbitMQ's rule in the fewest words, to compare with.
#[cfg(test)]
pub(in super::super) fn naive_topic_match(pattern: &str, key: &str) -> bool {
    matches(&words(pattern).collect::<Vec<_>>(), &words(key).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::super::super::topology::fixture::World;
    use super::super::{ExchangeKind, ExchangeType};
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    /// The patterns among `patterns` that the trie finds for `key`.
    fn found(topic: &mut Topic, nodes: &[(u32, String)], key: &str) -> Vec<String> {
        let mut hits = Vec::new();
        topic.walk(key, &mut |node, _| hits.push(node));
        let before = hits.len();
        hits.sort_unstable();
        hits.dedup();
        assert_eq!(before, hits.len(), "a node is reported once");
        let is_hit = |node: &u32| hits.binary_search(node).is_ok();
        nodes.iter().filter(|(node, _)| is_hit(node)).map(|(_, pattern)| pattern.clone()).collect()
    }

    fn trie_of(patterns: &[&str]) -> (Topic, Vec<(u32, String)>) {
        let mut topic = Topic::default();
        let nodes = patterns
            .iter()
            .map(|pattern| (topic.trie.add(canonical(pattern)), (*pattern).to_owned()))
            .collect();
        (topic, nodes)
    }

    fn check(pattern: &str, key: &str, expected: bool) {
        let (mut topic, nodes) = trie_of(&[pattern]);
        let hit = !found(&mut topic, &nodes, key).is_empty();
        assert_eq!(hit, expected, "pattern '{pattern}', key '{key}'");
        assert_eq!(
            naive_topic_match(pattern, key),
            expected,
            "the model: pattern '{pattern}', key '{key}'"
        );
    }

    /// Goal: the corner cases observed on RabbitMQ hold.
    #[test]
    fn wildcards_match_as_on_rabbitmq() {
        for key in ["", "a", ".", "a.b.c"] {
            check("#", key, true);
            check("#.#", key, true);
        }
        for (pattern, key, expected) in [
            ("*", "", false),
            ("*", "a", true),
            ("*", ".", false),
            ("#.*", "", false),
            ("#.*", "a", true),
            ("*.#", "a.b", true),
            ("a.#", "a", true),
            ("a.#", "b", false),
            ("a.#.b", "a.b", true),
            ("a.#.b", "a..b", true),
            ("a.#.b", "a.x.y.b", true),
            ("a.#.b", "a.x", false),
            ("*.*", ".", true),
            ("*.*", "a", false),
            ("a", "a.", false),
            ("a.*", "a.", true),
            ("*.", "a.", true),
            ("*.", ".", true),
            ("*.", "a", false),
            ("", "", true),
            ("", "a", false),
            ("", ".", false),
            ("a.b", "a.*", false),
            ("a.b", "a.#", false),
            ("ab*", "abc", false),
        ] {
            check(pattern, key, expected);
        }
    }

    #[test]
    fn runs_of_wildcards_become_one_form() {
        let tokens = |pattern| canonical(pattern).collect::<Vec<_>>();
        assert_eq!(tokens("#.*.#.*"), [Token::Star, Token::Star, Token::Hash]);
        assert_eq!(tokens("#.#"), [Token::Hash]);
        assert_eq!(
            tokens("a.#.*.b"),
            [Token::Word("a"), Token::Star, Token::Hash, Token::Word("b")]
        );
        assert_eq!(tokens(""), []);
        assert_eq!(tokens("."), [Token::Word(""), Token::Word("")]);
    }

    /// Goal: many ways through a pattern are one visit. Method: 40 `#` between equal words against
    /// a key of those words, which a backtracking matcher takes longer for than the sun will burn.
    #[test]
    fn many_hashes_cost_no_more_than_their_nodes() {
        let pattern = vec!["#"; 40].join(".a.");
        let (mut topic, nodes) = trie_of(&[&format!("{pattern}.b")]);
        let key = vec!["a"; 127].join(".");
        assert!(found(&mut topic, &nodes, &key).is_empty());
        assert!(topic.walk.current.len() <= 1 && topic.walk.open.len() <= 1, "{:?}", topic.walk);
        assert_eq!(
            found(&mut topic, &nodes, &format!("{}.b", &key[..199])),
            [format!("{pattern}.b")]
        );
    }

    fn few_words(max: usize) -> impl Strategy<Value = String> {
        vec(select(vec!["a", "b", "", "*", "#"]), 0..max).prop_map(|words| words.join("."))
    }

    proptest! {
        /// Goal: the trie finds what the naive matcher does, whatever else is in it or was, and is
        /// empty when the bindings are gone. Method: up to 40 patterns of few words, so that they
        /// share nodes, each bound to a queue of its own; then all unbound one by one.
        #[test]
        fn trie_agrees_with_the_naive_matcher(
            patterns in vec(few_words(7), 1..40),
            keys in vec(few_words(8), 1..10),
        ) {
            let mut world = World::with(ExchangeType::Topic, &["x"], &[]);
            let mut bound: Vec<(String, &str)> = Vec::new();
            for (number, pattern) in patterns.iter().enumerate() {
                let queue = format!("{number:02}");
                world.add_queue(&queue);
                world.bind("x", &queue, pattern);
                bound.push((queue, pattern));
            }
            loop {
                for key in &keys {
                    let matching = bound.iter().filter(|(_, pattern)| naive_topic_match(pattern, key));
                    let expected: Vec<&str> = matching.map(|(queue, _)| queue.as_str()).collect();
                    prop_assert_eq!(world.queues_of("x", key), expected, "key '{}'", key);
                }
                // From the middle, so that every order of removal comes up.
                let Some(index) = bound.len().checked_sub(1).map(|last| last / 2) else { break };
                let (queue, pattern) = bound.remove(index);
                world.unbind("x", &queue, pattern);
            }
            let exchange = world.topology.find_exchange(world.vhost, "x").unwrap();
            let ExchangeKind::Topic(topic) = &world.topology.exchange(exchange).kind else {
                panic!("x is a topic exchange");
            };
            prop_assert!(topic.trie.is_empty());
        }
    }
}
