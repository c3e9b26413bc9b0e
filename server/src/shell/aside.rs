//! What a connection sent while publishers are held back, in order, until they are not.
//!
//! On a connection that also consumes, reading goes on so that acknowledgements get through; what
//! it publishes meanwhile is kept here, and so is what must not overtake it on its channel.

use std::collections::VecDeque;

use leveret_protocol::constants::FRAME_HEADER_SIZE;
use leveret_protocol::content::Publish;
use leveret_protocol::method::Method;
use rustc_hash::FxHashMap;

/// Set-aside commands of one connection.
#[derive(Debug)]
pub(super) struct Aside {
    entries: VecDeque<Entry>,
    /// How many commands of each channel are here.
    channels: FxHashMap<u16, usize>,
    /// Bytes of all entries, their own size included.
    size: usize,
    /// From so many bytes on the connection is not read any more.
    size_max: usize,
}

/// One command, owned.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its channel.
    pub(super) channel: u16,
    /// Payload of the method frame, then properties and body of a publish.
    bytes: Box<[u8]>,
    method_len: usize,
    /// Of a publish.
    properties_len: Option<usize>,
}

/// A command as the broker takes it.
#[derive(Debug)]
pub(super) enum Command<'a> {
    /// `basic.publish` with its content.
    Publish(Publish<'a>),
    /// The payload of any other method.
    Method(&'a [u8]),
}

impl Entry {
    /// A message.
    pub(super) fn of_publish(publish: &Publish<'_>) -> Entry {
        Entry {
            channel: publish.channel,
            bytes: [publish.method, publish.properties, publish.body].concat().into(),
            method_len: publish.method.len(),
            properties_len: Some(publish.properties.len()),
        }
    }

    /// Any other command.
    pub(super) fn of_method(channel: u16, method: &Method<'_>) -> Entry {
        let mut frame = Vec::new();
        method.encode(channel, &mut frame);
        let bytes: Box<[u8]> = frame[FRAME_HEADER_SIZE..frame.len() - 1].into();
        Entry { channel, method_len: bytes.len(), bytes, properties_len: None }
    }

    /// What it was.
    pub(super) fn command(&self) -> Command<'_> {
        let (method, rest) = self.bytes.split_at(self.method_len);
        let Some(properties_len) = self.properties_len else { return Command::Method(method) };
        let (properties, body) = rest.split_at(properties_len);
        Command::Publish(Publish { channel: self.channel, method, properties, body })
    }

    fn size(&self) -> usize {
        self.bytes.len() + size_of::<Entry>()
    }
}

impl Aside {
    /// Nothing yet; full at `size_max` bytes.
    pub(super) fn new(size_max: usize) -> Aside {
        Aside { entries: VecDeque::new(), channels: FxHashMap::default(), size: 0, size_max }
    }

    /// Puts a command behind the others.
    pub(super) fn push(&mut self, entry: Entry) {
        self.size += entry.size();
        *self.channels.entry(entry.channel).or_default() += 1;
        self.entries.push_back(entry);
    }

    /// Takes the oldest command.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.size -= entry.size();
        let count = self.channels.get_mut(&entry.channel).expect("counted when it came");
        *count -= 1;
        if *count == 0 {
            self.channels.remove(&entry.channel);
        }
        Some(entry)
    }

    /// Takes all commands of one channel, in order.
    pub(super) fn take_channel(&mut self, channel: u16) -> Vec<Entry> {
        if self.channels.remove(&channel).is_none() {
            return Vec::new();
        }
        let mut taken = Vec::new();
        for entry in std::mem::take(&mut self.entries) {
            if entry.channel == channel {
                taken.push(entry);
            } else {
                self.entries.push_back(entry);
            }
        }
        self.size = self.entries.iter().map(Entry::size).sum();
        taken
    }

    /// Whether a command of this channel is here.
    pub(super) fn holds(&self, channel: u16) -> bool {
        self.channels.contains_key(&channel)
    }

    /// Nothing more may be read from the connection.
    pub(super) fn is_full(&self) -> bool {
        self.size_max <= self.size
    }

    /// Bytes of all commands, their own size included.
    pub(super) fn size(&self) -> usize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use leveret_protocol::method::MethodId;

    use super::*;

    fn publish(channel: u16, body: &'static [u8]) -> Entry {
        Entry::of_publish(&Publish { channel, method: b"method", properties: b"props", body })
    }

    #[test]
    fn commands_come_out_as_they_went_in() {
        let mut aside = Aside::new(1000);
        aside.push(publish(1, b"body"));
        aside.push(Entry::of_method(2, &Method::TxSelect));
        assert!(aside.holds(2) && !aside.holds(3));
        let entry = aside.pop().unwrap();
        let Command::Publish(first) = entry.command() else { panic!("{entry:?}") };
        assert_eq!((first.channel, first.method), (1, &b"method"[..]));
        assert_eq!((first.properties, first.body), (&b"props"[..], &b"body"[..]));
        let entry = aside.pop().unwrap();
        let Command::Method(method) = entry.command() else { panic!("{entry:?}") };
        assert_eq!(Method::decode(method).unwrap().id(), Method::TxSelect.id());
        assert_eq!(MethodId { class: 90, method: 10 }, Method::TxSelect.id());
        assert!(aside.pop().is_none());
        assert_eq!(aside.size(), 0);
    }

    #[test]
    fn a_channel_leaves_with_all_its_commands_and_their_size() {
        let mut aside = Aside::new(1);
        for channel in [1, 2, 1, 3] {
            aside.push(publish(channel, b"x"));
        }
        assert!(aside.is_full());
        assert_eq!(aside.take_channel(1).len(), 2);
        assert_eq!(aside.size(), 2 * publish(2, b"x").size());
        assert!(!aside.holds(1) && aside.holds(3));
        assert!(Aside::new(0).is_full(), "who only publishes is not read at all");
    }
}
