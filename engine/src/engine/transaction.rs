//! Transactions: appends and settles that a crash makes happen all or not at all.

use super::Engine;
use crate::error::EngineError;
use crate::format::record_size;
use crate::ids::BatchId;
use crate::record::{RecordKind, SETTLED_RUN_SIZE, TARGET_SIZE};

/// What a transaction is going to do, to reserve room for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionSize {
    /// Messages to append.
    pub messages: usize,
    /// Queues they go to, each as often as it is named.
    pub targets: usize,
    /// Bytes of the messages.
    pub bytes: usize,
    /// Messages to settle.
    pub settles: usize,
}

impl Engine {
    /// Begins a transaction: what is appended and settled from here to
    /// [`Engine::end_transaction`] happens whole or not at all, whatever crashes. Nothing else may
    /// be called in between but reads. Room for all of it is reserved, so that what follows does
    /// not fail half way.
    ///
    /// # Errors
    /// The log is poisoned, or has no room for so much; nothing has changed then.
    ///
    /// # Panics
    /// If a transaction is open.
    pub fn begin_transaction(&mut self, size: TransactionSize) -> Result<(), EngineError> {
        assert!(!self.in_transaction, "one transaction at a time");
        self.check_alive()?;
        // Earlier settles stay outside, lest they depend on what comes now.
        self.flush_settles()?;
        let records = size.messages * record_size(0) + size.targets * TARGET_SIZE + size.bytes;
        let settles = size.settles * SETTLED_RUN_SIZE * 2;
        // A record that does not fit leaves at most its own length unused.
        let room = 2 * (records + settles) + 2 * self.config.batch_size_max;
        self.wal.reserve(room as u64, self.storage.as_mut())?;
        self.log(RecordKind::Begin, 0, &[])?;
        self.in_transaction = true;
        Ok(())
    }

    /// Ends the transaction. It is durable with the resulting batch.
    ///
    /// # Errors
    /// The log failed, and is poisoned now: the next start will not have the transaction.
    ///
    /// # Panics
    /// If none is open.
    pub fn end_transaction(&mut self) -> Result<BatchId, EngineError> {
        assert!(self.in_transaction, "a transaction was begun");
        self.in_transaction = false;
        let ended = self.flush_settles().and_then(|()| self.log(RecordKind::End, 0, &[]));
        if let Err(error) = ended {
            // What is in memory is not what the log says.
            self.poisoned = true;
            return Err(error);
        }
        Ok(self.batch())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Next, Recovered};
    use super::*;
    use crate::config::EngineConfig;
    use crate::ids::{QueueId, Seq};
    use crate::storage::SimDisk;

    const MOVED: usize = 40;

    fn open(disk: &SimDisk) -> (Engine, Recovered) {
        Engine::open_on(Box::new(disk.storage()), EngineConfig::tiny()).expect("the log is sound")
    }

    fn counts(recovered: &Recovered) -> Vec<u64> {
        recovered.queues.iter().map(|queue| queue.messages).collect()
    }

    /// Takes everything out of `from` and puts as much into `to`, in one transaction.
    fn transfer(engine: &mut Engine, from: QueueId, to: QueueId) -> BatchId {
        let size =
            TransactionSize { messages: MOVED, targets: MOVED, bytes: MOVED << 11, settles: MOVED };
        engine.begin_transaction(size).expect("there is room");
        for i in 0..MOVED {
            engine.append(&[&vec![7; 1 << 11]], true, &[to]).expect("room was reserved");
            let seq = Seq(i as u64);
            let Next::Entry { addr, .. } = engine.next(from, seq) else { panic!("message {i}") };
            engine.settle(from, seq, addr, 3);
        }
        engine.end_transaction().expect("room was reserved")
    }

    /// Goal: whatever part of a transaction of many batches reached the disk, it happened whole or
    /// not at all, also when the log goes on behind the part; once durable it happened.
    #[test]
    fn a_transaction_happens_whole_or_not_at_all() {
        let (mut before, mut after) = (0, 0);
        for seed in 0..60 {
            let disk = SimDisk::new(seed);
            let (mut engine, _) = open(&disk);
            let from = engine.create_queue(true).expect("there is room");
            let to = engine.create_queue(true).expect("there is room");
            for _ in 0..MOVED {
                engine.append(&[b"old"], true, &[from]).expect("there is room");
            }
            engine.sync().expect("a working disk");
            let batch = transfer(&mut engine, from, to);
            for tick in 0..seed % 12 {
                engine.submit(tick << 30).expect("a working disk");
                engine.complete().expect("a working disk");
            }
            let durable = batch <= engine.durable();
            disk.power_cut();
            let (mut engine, recovered) = open(&disk);
            match counts(&recovered)[..] {
                [40, 0] if !durable => before += 1,
                [0, 40] => after += 1,
                ref other => panic!("seed {seed}: half a transaction: {other:?}"),
            }
            engine.append(&[b"new"], true, &[from]).expect("there is room");
            engine.sync().expect("a working disk");
            drop(engine);
            let (_, again) = open(&disk);
            let [first, second] = counts(&recovered)[..] else { panic!("two queues") };
            assert_eq!(counts(&again), [first + 1, second], "seed {seed}");
        }
        assert!(5 < before && 5 < after, "{before} cut off, {after} durable");
    }

    #[test]
    fn a_transaction_without_room_changes_nothing() {
        let disk = SimDisk::new(1);
        let (mut engine, _) = open(&disk);
        let queue = engine.create_queue(true).expect("there is room");
        disk.set_capacity(disk.used());
        let size = TransactionSize { messages: 1, targets: 1, bytes: 1 << 20, settles: 0 };
        assert!(matches!(engine.begin_transaction(size), Err(EngineError::Full)));
        assert_eq!(engine.messages(queue), 0);
        disk.set_capacity(u64::MAX);
        for second in 0..100 {
            engine.submit(second << 30).expect("a working disk");
            engine.complete().expect("a working disk");
        }
        engine.begin_transaction(size).expect("there is room again");
        engine.append(&[b"x"], true, &[queue]).expect("room was reserved");
        engine.end_transaction().expect("room was reserved");
    }
}
