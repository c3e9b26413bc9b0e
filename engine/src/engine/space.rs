//! Space on disk: segments that are given back, and what happens when there is no more.

use super::Engine;
use crate::error::EngineError;

impl Engine {
    /// Gives the file of a segment back that holds nothing alive and that no checkpoint needs.
    /// False if something of it is still being read: to be tried again later.
    ///
    /// # Errors
    /// The file is not wanted as a spare and cannot be removed.
    pub(crate) fn recycle(&mut self, segment: u64) -> Result<bool, EngineError> {
        let segments = &self.wal.segments;
        if !self.cold.forget(segments.start(segment), segments.end(segment)) {
            return Ok(false);
        }
        self.wal.recycle(segment, self.storage.as_mut())?;
        Ok(true)
    }

    /// Removes a spare file, so that a checkpoint finds room on a full disk. False if there is
    /// none left.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(crate) fn give_up_spare(&mut self) -> Result<bool, EngineError> {
        self.wal.give_up_spare(self.storage.as_mut())
    }

    /// Whether the disk is so full that durable messages and definitions are refused, or will be
    /// soon: whoever is told in time to wait meets no refusal. What makes room, settles above all,
    /// goes on.
    pub fn is_full(&self) -> bool {
        self.wal.is_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EngineConfig;
    use crate::ids::{Addr, QueueId, Seq};
    use crate::storage::SimDisk;
    use crate::{IoChoice, Next, Read};

    const MS: u64 = 1_000_000;

    fn open(disk: &SimDisk) -> Engine {
        Engine::open_on(Box::new(disk.storage()), EngineConfig::tiny()).unwrap().0
    }

    /// Ticks, a millisecond each, until everything appended so far is durable.
    fn run(engine: &mut Engine, now_ns: &mut u64) {
        let batch = engine.batch();
        for _ in 0..1000 {
            *now_ns += MS;
            engine.submit(*now_ns).unwrap();
            engine.complete().unwrap();
            if batch <= engine.durable() {
                return;
            }
        }
    }

    /// Publishes until the disk is full. Returns what is in the queue, and how many there were when
    /// publishers should have been told to wait.
    fn fill_up(
        engine: &mut Engine,
        queue: QueueId,
        now_ns: &mut u64,
    ) -> (Vec<(Seq, Addr, u32)>, Option<usize>) {
        let mut messages = Vec::new();
        let mut told_at = None;
        loop {
            if engine.is_full() {
                told_at = told_at.or(Some(messages.len()));
            }
            let tail = engine.tail(queue);
            match engine.append(&[&[7; 2000]], true, &[queue]) {
                Ok(done) => {
                    engine.note_delivered(queue, tail);
                    messages.push((tail, done.addr, done.len));
                }
                Err(EngineError::Full) => return (messages, told_at),
                Err(error) => panic!("{error}"),
            }
            run(engine, now_ns);
        }
    }

    fn fill(engine: &mut Engine, queue: QueueId, now_ns: &mut u64) -> Vec<(Seq, Addr, u32)> {
        fill_up(engine, queue, now_ns).0
    }

    #[test]
    fn a_full_disk_refuses_publishes_and_takes_settles_and_deletes() {
        for seed in 0..20 {
            let disk = SimDisk::new(seed);
            disk.set_capacity(8 * EngineConfig::tiny().segment_size);
            let mut engine = open(&disk);
            let mut now_ns = 0;
            let queue = engine.create_queue(true).unwrap();
            let other = engine.create_queue(true).unwrap();
            let (messages, told_at) = fill_up(&mut engine, queue, &mut now_ns);
            assert!(50 < messages.len());
            assert!(told_at.is_some_and(|told| told + 2 <= messages.len()), "{told_at:?}");
            assert!(engine.is_full());
            assert!(matches!(engine.put_meta(b"k", b"v"), Err(EngineError::Full)));
            assert!(matches!(engine.create_queue(true), Err(EngineError::Full)));
            // One by one, each with a commit of its own: 4 KiB for every acknowledgement.
            let (kept, settled) = messages.split_last().unwrap();
            for (index, (seq, addr, len)) in settled.iter().enumerate() {
                engine.settle(queue, *seq, *addr, *len);
                if index % 8 == 0 {
                    now_ns += 100 * MS;
                    run(&mut engine, &mut now_ns);
                }
            }
            engine.delete_meta(b"k").unwrap();
            engine.delete_queue(other).unwrap();
            engine.sync().unwrap();
            disk.power_cut();
            let (mut engine, recovered) =
                Engine::open_on(Box::new(disk.storage()), EngineConfig::tiny()).unwrap();
            assert_eq!(recovered.queues.len(), 1);
            assert_eq!(recovered.queues[0].messages, 1, "seed {seed}");
            let Next::Entry { seq, .. } = engine.next(queue, Seq(0)) else { panic!("it is gone") };
            assert_eq!(seq, kept.0);
        }
    }

    #[test]
    fn publishing_goes_on_when_the_disk_has_room_again() {
        for more_disk in [true, false] {
            let disk = SimDisk::new(5);
            let capacity = 8 * EngineConfig::tiny().segment_size;
            disk.set_capacity(capacity);
            let mut engine = open(&disk);
            let mut now_ns = 0;
            let queue = engine.create_queue(true).unwrap();
            let messages = fill(&mut engine, queue, &mut now_ns);
            if more_disk {
                disk.set_capacity(2 * capacity);
            } else {
                let size = EngineConfig::tiny().segment_size;
                let first = messages.iter().filter(|(_, addr, _)| addr.lsn().0 < 3 * size);
                for (seq, addr, len) in first {
                    engine.settle(queue, *seq, *addr, *len);
                }
                engine.sync().unwrap();
                assert!(engine.recycle(1).unwrap() && engine.recycle(2).unwrap());
            }
            for _ in 0..1000 {
                now_ns += MS;
                engine.submit(now_ns).unwrap();
                engine.complete().unwrap();
            }
            assert!(!engine.is_full());
            assert!(5 < fill(&mut engine, queue, &mut now_ns).len());
        }
    }

    #[test]
    fn what_is_appended_to_a_recycled_segment_is_read_back() {
        for io in [IoChoice::Thread, IoChoice::Auto] {
            let dir = tempfile::tempdir().unwrap();
            let config = EngineConfig { io, ..EngineConfig::tiny() };
            let (mut engine, _) = Engine::open(dir.path(), config).unwrap();
            let queue = engine.create_queue(true).unwrap();
            let mut messages = Vec::new();
            for i in 0..1000_u64 {
                let body = [i.to_le_bytes(); 250].concat();
                let done = engine.append(&[&body], true, &[queue]).unwrap();
                engine.note_delivered(queue, Seq(i));
                messages.push((Seq(i), done.addr, done.len, body));
                engine.sync().unwrap();
                engine.submit(i * MS).unwrap();
                engine.complete().unwrap();
                if messages.len() == 100 {
                    // The oldest half is read from disk once, then forgotten.
                    for (seq, addr, len, body) in messages.drain(..50) {
                        assert_eq!(read(&mut engine, addr), body);
                        engine.settle(queue, seq, addr, len);
                    }
                }
            }
            let files = std::fs::read_dir(dir.path().join("log")).unwrap().count();
            assert!(files < 32, "{files} files, {}", engine.io_name());
        }
    }

    fn read(engine: &mut Engine, addr: Addr) -> Vec<u8> {
        loop {
            match engine.read(addr) {
                Read::Ready(message) => return message.to_vec(),
                Read::Corrupt(corruption) => panic!("{corruption}"),
                Read::Pending(ticket) => {
                    while !engine.complete().unwrap().loaded.contains(&ticket) {}
                }
            }
        }
    }

    #[test]
    fn a_segment_that_is_still_being_read_is_not_recycled() {
        let mut engine = open(&SimDisk::new(1));
        let queue = engine.create_queue(true).unwrap();
        let done = engine.append(&[b"first"], true, &[queue]).unwrap();
        let mut now_ns = 0;
        for _ in 0..100 {
            engine.append(&[&[1; 2000]], true, &[queue]).unwrap();
            run(&mut engine, &mut now_ns);
        }
        let Read::Pending(ticket) = engine.read(done.addr) else { panic!("it is in memory") };
        engine.settle_range(queue, Seq(0), Seq(101));
        engine.sync().unwrap();
        if !engine.loaded.contains(&ticket) {
            assert!(!engine.recycle(1).unwrap());
        }
        while !engine.complete().unwrap().loaded.contains(&ticket) {}
        assert!(engine.recycle(1).unwrap());
        assert!(!engine.wal.segments.iter().any(|(number, _)| number == 1));
    }

    #[test]
    fn a_log_in_use_moves_to_written_blocks_as_soon_as_it_is_idle() {
        let disk = SimDisk::new(1);
        let mut engine = open(&disk);
        let queue = engine.create_queue(true).unwrap();
        let mut now_ns = 0;
        for _ in 0..4 {
            engine.append(&[b"message"], true, &[queue]).unwrap();
            for _ in 0..10 {
                run(&mut engine, &mut now_ns);
            }
        }
        let segments = engine.wal.segments.iter();
        let found: Vec<bool> = segments.map(|(_, segment)| segment.written).collect();
        assert_eq!(found, [false, true], "and not again: a written one is never left early");
        disk.power_cut();
        let engine = open(&disk);
        assert_eq!(engine.messages(queue), 4);
    }

    #[test]
    fn a_spare_is_given_up_for_a_checkpoint() {
        let disk = SimDisk::new(1);
        let mut engine = open(&disk);
        let mut now_ns = 0;
        for _ in 0..100 {
            now_ns += MS;
            engine.submit(now_ns).unwrap();
            engine.complete().unwrap();
        }
        assert_eq!(engine.stats().spare_segments, 3);
        let used = disk.used();
        assert!(engine.give_up_spare().unwrap());
        assert_eq!(disk.used(), used - EngineConfig::tiny().segment_size);
    }
}
