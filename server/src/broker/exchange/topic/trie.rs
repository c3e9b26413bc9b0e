//! The patterns of a topic exchange as a trie of words.
//!
//! A node is a number; its children by word are found through one index over (parent, word) for
//! the whole trie, its children by wildcard directly. Words are numbers too, counted by the nodes
//! that stand for them: a key's word is looked up once, however many nodes are asked for it.

use super::super::super::binding::List;
use super::super::super::slot_index::{SlotIndex, hash_of};
use super::Token;
use slab::Slab;

/// The node that all patterns start from.
pub(super) const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;

/// A word of some pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct WordId(u32);

/// What leads to a node from its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    Word(WordId),
    Star,
    Hash,
    /// Nothing: it is the root.
    Root,
}

#[derive(Debug)]
struct Node {
    /// The last word position at which a key was here.
    mark: u64,
    /// The key that `spent` is about.
    spent_for: u64,
    /// How many children have nothing new for that key.
    spent: u32,
    parent: u32,
    edge: Edge,
    star: u32,
    hash: u32,
    /// How many children have words.
    words: u32,
    /// The bindings whose pattern ends here.
    list: List,
}

#[derive(Debug)]
struct Word {
    text: Box<str>,
    /// How many nodes it leads to.
    count: u32,
}

/// A trie of patterns.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Slab<Node>,
    /// (parent, word) -> node.
    children: SlotIndex,
    words: Slab<Word>,
    /// Of `words`, by text.
    word_index: SlotIndex,
}

impl Default for Trie {
    fn default() -> Trie {
        let mut nodes = Slab::new();
        let root = nodes.insert(Node::new(NONE, Edge::Root));
        assert_eq!(root, ROOT as usize);
        Trie {
            nodes,
            children: SlotIndex::default(),
            words: Slab::new(),
            word_index: SlotIndex::default(),
        }
    }
}

impl Node {
    fn new(parent: u32, edge: Edge) -> Node {
        let list = List::default();
        let (mark, spent_for, spent) = (0, 0, 0);
        Node { mark, spent_for, spent, parent, edge, star: NONE, hash: NONE, words: 0, list }
    }

    fn child_count(&self) -> u32 {
        self.words + u32::from(self.star != NONE) + u32::from(self.hash != NONE)
    }

    /// Whether a key gets nothing from being here but what it gets from the children.
    fn leads_on_only(&self) -> bool {
        match self.edge {
            Edge::Word(_) | Edge::Star => self.list.is_empty(),
            // Its own bindings are found when it is reached, and it is reached once.
            Edge::Hash => true,
            Edge::Root => false,
        }
    }
}

impl Trie {
    /// The node at the end of a pattern, made if need be.
    pub(super) fn add<'a>(&mut self, pattern: impl Iterator<Item = Token<'a>>) -> u32 {
        pattern.fold(ROOT, |node, token| match token {
            Token::Word(text) => {
                let word = self.word(text).unwrap_or_else(|| self.add_word(text));
                self.child(node, word).unwrap_or_else(|| self.add_child(node, Edge::Word(word)))
            }
            Token::Star => self.star(node).unwrap_or_else(|| self.add_child(node, Edge::Star)),
            Token::Hash => self.hash(node).unwrap_or_else(|| self.add_child(node, Edge::Hash)),
        })
    }

    /// Removes a node, and those that lead to it alone, if no pattern ends or goes on there.
    pub(super) fn prune(&mut self, mut node: u32) {
        while node != ROOT && self.node(node).child_count() == 0 && self.node(node).list.is_empty()
        {
            let Node { parent, edge, .. } = self.nodes.remove(node as usize);
            match edge {
                Edge::Word(word) => {
                    self.children.remove(hash_of((parent, word)), node);
                    self.node_mut(parent).words -= 1;
                    self.release(word);
                }
                Edge::Star => self.node_mut(parent).star = NONE,
                Edge::Hash => self.node_mut(parent).hash = NONE,
                Edge::Root => unreachable!("the root is never removed"),
            }
            node = parent;
        }
    }

    /// The word with this text, if a pattern has it.
    pub(super) fn word(&self, text: &str) -> Option<WordId> {
        let is_it = |slot: u32| *self.words[slot as usize].text == *text;
        self.word_index.find(hash_of(text), is_it).map(WordId)
    }

    /// The child of a node by a word.
    pub(super) fn child(&self, node: u32, word: WordId) -> Option<u32> {
        if self.node(node).words == 0 {
            return None;
        }
        self.children.find(hash_of((node, word)), |child| {
            let Node { parent, edge, .. } = *self.node(child);
            parent == node && edge == Edge::Word(word)
        })
    }

    /// The child of a node by `*`.
    pub(super) fn star(&self, node: u32) -> Option<u32> {
        Some(self.node(node).star).filter(|child| *child != NONE)
    }

    /// The child of a node by `#`.
    pub(super) fn hash(&self, node: u32) -> Option<u32> {
        Some(self.node(node).hash).filter(|child| *child != NONE)
    }

    /// Whether a node has children by words.
    pub(super) fn has_words(&self, node: u32) -> bool {
        0 < self.node(node).words
    }

    /// Notes that a key is at a node. Returns when one was there before.
    pub(super) fn mark(&mut self, node: u32, position: u64) -> u64 {
        std::mem::replace(&mut self.node_mut(node).mark, position)
    }

    /// Notes that a `#` has been reached by `key`: reaching it again is nothing new, nor is any
    /// node that leads to nothing else.
    pub(super) fn spend(&mut self, hash: u32, key: u64) {
        let mut child = hash;
        loop {
            let parent = self.node(child).parent;
            let node = self.node_mut(parent);
            if node.spent_for != key {
                node.spent_for = key;
                node.spent = 0;
            }
            node.spent += 1;
            // A `#` has been told of already, when it was reached.
            if !self.is_spent(parent, key) || self.node(parent).edge == Edge::Hash {
                return;
            }
            child = parent;
        }
    }

    /// Whether there is nothing new behind a node for `key`, wherever in its words it is.
    pub(super) fn is_spent(&self, node: u32, key: u64) -> bool {
        let node = self.node(node);
        node.spent_for == key && node.spent == node.child_count() && node.leads_on_only()
    }

    /// The bindings whose pattern ends at a node.
    pub(super) fn list(&self, node: u32) -> List {
        self.node(node).list
    }

    /// The same, to change it.
    pub(super) fn list_mut(&mut self, node: u32) -> &mut List {
        &mut self.node_mut(node).list
    }

    fn add_child(&mut self, parent: u32, edge: Edge) -> u32 {
        let node = u32::try_from(self.nodes.insert(Node::new(parent, edge)));
        let node = node.expect("memory ends before 2^32 nodes");
        match edge {
            Edge::Word(word) => {
                self.children.insert(hash_of((parent, word)), node);
                self.node_mut(parent).words += 1;
                self.words[word.0 as usize].count += 1;
            }
            Edge::Star => self.node_mut(parent).star = node,
            Edge::Hash => self.node_mut(parent).hash = node,
            Edge::Root => unreachable!("a child has a parent"),
        }
        node
    }

    fn add_word(&mut self, text: &str) -> WordId {
        let slot = u32::try_from(self.words.insert(Word { text: text.into(), count: 0 }));
        let slot = slot.expect("memory ends before 2^32 words");
        self.word_index.insert(hash_of(text), slot);
        WordId(slot)
    }

    fn release(&mut self, word: WordId) {
        let slot = word.0 as usize;
        self.words[slot].count -= 1;
        if self.words[slot].count == 0 {
            let Word { text, .. } = self.words.remove(slot);
            self.word_index.remove(hash_of(&*text), word.0);
        }
    }

    fn node(&self, node: u32) -> &Node {
        &self.nodes[node as usize]
    }

    fn node_mut(&mut self, node: u32) -> &mut Node {
        &mut self.nodes[node as usize]
    }

    /// Whether nothing but the root is left.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.len() == 1
            && self.children.len() == 0
            && self.words.is_empty()
            && self.word_index.len() == 0
    }
}
