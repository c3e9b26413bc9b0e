//! Opening a small log after every possible cut and every possible flipped bit.
//!
//! Goal: a cut log opens as what its whole batches say, or is refused where more than that is known
//! to be durable; a flipped bit changes nothing, or is found: the log is refused, the message is
//! reported damaged, or the last batch, of which nothing says that it was durable, is dropped
//! whole. Method: a log of a dozen batches with a checkpoint in its middle on [`SimDisk`], and the
//! state it stands for after each of them.

use leveret_engine::storage::SimDisk;
use leveret_engine::{
    Addr, Engine, EngineConfig, EngineError, Meta, Next, QueueId, Read, Recovered, Seq, Ticket,
};

/// What an opened log says. A message that is reported damaged is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    metas: Vec<Meta>,
    messages: Vec<(QueueId, Seq, Option<Vec<u8>>)>,
}

/// A log and the states it went through.
struct History {
    disk: SimDisk,
    /// Where each batch ends in the segment's file, and the state that stands there.
    batches: Vec<(usize, usize, State)>,
    segment: String,
}

fn open(disk: &SimDisk) -> Result<(Engine, Recovered), EngineError> {
    Engine::open_on(Box::new(disk.storage()), EngineConfig::tiny())
}

fn state(disk: &SimDisk) -> Result<State, EngineError> {
    let (mut engine, recovered) = open(disk)?;
    let mut messages = Vec::new();
    for queue in &recovered.queues {
        let mut from = Seq(0);
        while let Some((seq, addr)) = next(&mut engine, queue.id, from) {
            messages.push((queue.id, seq, read(&mut engine, addr)));
            from = seq.next();
        }
    }
    Ok(State { metas: recovered.metas, messages })
}

fn wait(engine: &mut Engine, ticket: Ticket) {
    while !engine.complete().expect("the disk works").loaded.contains(&ticket) {}
}

fn next(engine: &mut Engine, queue: QueueId, from: Seq) -> Option<(Seq, Addr)> {
    loop {
        match engine.next(queue, from) {
            Next::Entry { seq, addr } => return Some((seq, addr)),
            Next::End => return None,
            Next::Pending(ticket) => wait(engine, ticket),
        }
    }
}

fn read(engine: &mut Engine, addr: Addr) -> Option<Vec<u8>> {
    loop {
        match engine.read(addr) {
            Read::Ready(message) => return Some(message.to_vec()),
            Read::Corrupt(_) => return None,
            Read::Pending(ticket) => wait(engine, ticket),
        }
    }
}

/// The batches in a segment, by what the README says of their headers: start, bytes used, end.
fn batches(segment: &[u8]) -> Vec<(usize, usize, usize)> {
    let number = |at: usize| u32::from_le_bytes(segment[at..at + 4].try_into().expect("4 bytes"));
    let mut found = Vec::new();
    let mut at = 4096;
    while at < segment.len() && segment[at..at + 4] == *b"LvBt" {
        let [len, used] = [8, 12].map(|field| number(at + field) as usize);
        found.push((at, used, at + len));
        at += len;
    }
    found
}

/// The segment's file that holds batches.
fn segment_name(disk: &SimDisk) -> String {
    let segments = disk
        .names()
        .into_iter()
        .filter(|name| name.split_once('.').is_some_and(|(_, end)| end == "seg"));
    let contents = |name: &String| disk.contents(name).expect("it is listed");
    let mut filled = segments.filter(|name| !batches(&contents(name)).is_empty());
    filled.next().expect("something was written")
}

impl History {
    fn new() -> History {
        let disk = SimDisk::new(1);
        let (mut engine, _) = open(&disk).expect("an empty disk");
        let queues = [engine.create_queue(true), engine.create_queue(true)];
        let queues = queues.map(|queue| queue.expect("there is room"));
        let mut history = History { disk, batches: Vec::new(), segment: String::new() };
        for step in 0..5_u8 {
            engine.put_meta(&[step % 2], &[step; 3]).expect("there is room");
            let appended = engine.append(&[&[step; 20]], true, &queues).expect("there is room");
            engine.settle(queues[1], Seq(step.into()), appended.addr, appended.len);
            if step == 3 {
                let seq = engine.next(queues[0], Seq(1));
                let Next::Entry { seq, addr } = seq else { panic!("{seq:?}") };
                engine.settle(queues[0], seq, addr, 20);
            }
            if step < 4 {
                engine.sync().expect("the disk works");
            } else {
                // The last batch has no witness.
                engine.submit(1_000_000_000).expect("the disk works");
                while engine.durable() < engine.batch() && engine.staged_bytes() != 0 {
                    engine.complete().expect("the disk works");
                }
            }
            if step == 1 {
                engine.checkpoint().expect("the disk works");
            }
            history.note();
        }
        history
    }

    /// Notes the state after the batches that are new.
    fn note(&mut self) {
        self.segment = segment_name(&self.disk);
        let segment = self.disk.contents(&self.segment).expect("it is there");
        for (start, used, end) in batches(&segment).into_iter().skip(self.batches.len()) {
            // What only this batch and those before say.
            let cut = self.disk.fork();
            let mut bytes = segment.clone();
            bytes[end..].fill(0);
            cut.put(&self.segment, bytes);
            let said = state(&cut);
            let known = said.unwrap_or_else(|_| self.state().clone());
            self.batches.push((start, used, known));
        }
    }

    fn state(&self) -> &State {
        &self.batches.last().expect("there are batches").2
    }
}

/// Where replay starts, as an offset in the segment, by what the README says of checkpoints.
fn checkpoint_start(disk: &SimDisk) -> usize {
    let start = |slot| {
        let bytes = disk.contents(slot).expect("it is there");
        let start = u64::from_le_bytes(bytes[56..64].try_into().expect("8 bytes"));
        usize::try_from(start % EngineConfig::tiny().segment_size).expect("a small segment")
    };
    ["checkpoint.a", "checkpoint.b"].map(start).into_iter().max().expect("two slots")
}

/// A cut behind the start of the checkpoint is a torn tail. What is missing before it is not read
/// when the log is opened; whoever reads such a message is told.
#[test]
fn every_prefix_opens_as_what_is_whole() {
    let history = History::new();
    let segment = history.disk.contents(&history.segment).expect("it is there");
    let start = checkpoint_start(&history.disk);
    let mut before = State { metas: Vec::new(), messages: Vec::new() };
    let mut opened = 0;
    for (from, used, after) in &history.batches {
        for cut in *from..from + used {
            let disk = history.disk.fork();
            let mut bytes = segment.clone();
            bytes[cut..].fill(0);
            if bytes[*from..from + used] == segment[*from..from + used] {
                continue; // it ended in zeroes anyway
            }
            disk.put(&history.segment, bytes);
            let found = state(&disk).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
            if cut < start {
                let named = history.batches.iter().rfind(|(from, _, _)| *from < start);
                let (_, _, named) = named.expect("the checkpoint has something in it");
                assert_eq!(found.messages.len(), named.messages.len(), "cut at {cut}");
            } else {
                assert_eq!(found, before, "cut at {cut}");
            }
            opened += 1;
        }
        before.clone_from(after);
    }
    assert!(1500 < opened, "{opened} opened");
}

/// Flips each bit of `range` of a file. Returns how often the log opened as it was, opened without
/// its last batch, and was refused.
fn flip(history: &History, file: &str, range: std::ops::Range<usize>) -> [usize; 3] {
    let whole = history.state();
    let (_, _, before) = &history.batches[history.batches.len() - 2];
    let mut outcomes = [0; 3];
    for bit in range.start * 8..range.end * 8 {
        let disk = history.disk.fork();
        disk.flip_bit(file, bit);
        match state(&disk) {
            Ok(found) if is_but_damaged(&found, whole) => outcomes[0] += 1,
            Ok(found) => {
                assert_eq!(&found, before, "bit {bit} of {file}");
                outcomes[1] += 1;
            }
            Err(EngineError::Corrupt(_) | EngineError::Unsupported { .. }) => outcomes[2] += 1,
            Err(error) => panic!("bit {bit} of {file}: {error}"),
        }
    }
    outcomes
}

/// Whether two states are the same but for messages reported damaged.
fn is_but_damaged(found: &State, whole: &State) -> bool {
    let mut expected = whole.clone();
    if found.messages.len() != whole.messages.len() {
        return false;
    }
    for (message, expected) in found.messages.iter().zip(&mut expected.messages) {
        if message.2.is_none() {
            expected.2 = None;
        }
    }
    *found == expected
}

#[test]
fn every_flipped_bit_of_a_batch_is_harmless_or_found() {
    let history = History::new();
    let last = history.batches.len() - 1;
    for (index, (start, used, _)) in history.batches.iter().enumerate() {
        let [same, dropped, refused] = flip(&history, &history.segment, *start..start + used);
        // Up to 7 bytes behind a record are padding, which no checksum covers.
        let padding = 3 * 7 * 8;
        if index == last {
            assert!(same <= padding && refused == 0, "the last batch is dropped whole");
        } else {
            assert_eq!(dropped, 0, "batch {index} at {start} is known to be durable");
        }
        if history.batches.len() - 5 <= index && index < last {
            assert!(same <= padding, "batch {index} at {start} is replayed");
        }
    }
}

#[test]
fn every_flipped_bit_of_a_checkpoint_or_header_is_harmless_or_found() {
    let history = History::new();
    let [_, dropped, refused] = flip(&history, &history.segment, 0..96);
    assert_eq!(dropped, 0);
    assert!(0 < refused, "a segment that is needed has a damaged header");
    for slot in ["checkpoint.a", "checkpoint.b"] {
        let size = history.disk.contents(slot).expect("it is there").len();
        for range in [0..128, 4096..size] {
            let [_, dropped, _] = flip(&history, slot, range);
            assert_eq!(dropped, 0, "{slot}");
        }
    }
}
