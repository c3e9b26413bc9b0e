//! What the loop measures of itself: a few additions a tick, never one per message.

use std::collections::VecDeque;

use leveret_engine::BatchId;

use super::EventLoop;
use crate::broker::control::ControlReply;
use crate::broker::ids::ConnectionId;
use crate::broker::snapshot::{ConnectionRow, LoopRow};

/// Batches whose first tick is remembered; more are under way only when the disk stands still.
const BATCHES_MAX: usize = 1024;

/// The loop's own measures.
#[derive(Debug, Default)]
pub(super) struct Measures {
    row: LoopRow,
    /// When the loop woke last.
    woke_ns: u64,
    /// When the first publish of a batch came, oldest first.
    filling: VecDeque<(BatchId, u64)>,
    /// When the commit in flight was handed to the disk.
    submitted_ns: Option<u64>,
    commits: u64,
    log_bytes: u64,
}

impl Measures {
    /// The loop goes to sleep.
    pub(super) fn on_sleep(&mut self, now_ns: u64) {
        self.row.busy_ns += now_ns - self.woke_ns;
        self.woke_ns = now_ns;
        self.row.ticks += 1;
    }

    /// The loop woke.
    pub(super) fn on_wake(&mut self, now_ns: u64) {
        self.row.idle_ns += now_ns - self.woke_ns;
        self.woke_ns = now_ns;
    }

    /// A tick that may have published into `batch` is about to be submitted.
    fn on_filled(&mut self, batch: BatchId) {
        let known = self.filling.back().is_some_and(|(last, _)| batch <= *last);
        if !known && self.filling.len() < BATCHES_MAX {
            self.filling.push_back((batch, self.woke_ns));
        }
    }

    /// The log was offered what is staged, and has counted its commits.
    fn on_submitted(&mut self, now_ns: u64, commits: u64, log_bytes: u64) {
        if self.commits < commits {
            self.submitted_ns = Some(now_ns);
            self.row.batch_size.observe(log_bytes - self.log_bytes);
        }
        self.commits = commits;
        self.log_bytes = log_bytes;
    }

    /// Everything up to `durable` is on disk; `confirmed` says whether a publisher heard of it.
    pub(super) fn on_durable(&mut self, durable: BatchId, now_ns: u64, confirmed: bool) {
        if let Some(submitted_ns) = self.submitted_ns.take() {
            self.row.sync.observe(now_ns - submitted_ns);
        }
        let mut oldest_ns = None;
        while let Some((_, first_ns)) = self.filling.pop_front_if(|(batch, _)| *batch <= durable) {
            oldest_ns = oldest_ns.or(Some(first_ns));
        }
        if let (Some(oldest_ns), true) = (oldest_ns, confirmed) {
            self.row.publish_to_confirm.observe(now_ns - oldest_ns);
        }
    }
}

impl EventLoop {
    /// Notes when what waits for the disk came.
    pub(super) fn measure_filled(&mut self) {
        if 0 < self.core.engine.staged_bytes() {
            self.measures.on_filled(self.core.engine.batch());
        }
    }

    /// Notes a batch that was handed to the disk in the middle of a tick.
    pub(super) fn measure_early(&mut self, batch: BatchId, now_ns: u64) {
        self.measures.on_filled(batch);
        self.measure_submitted(now_ns);
    }

    /// Notes what was handed to the disk.
    pub(super) fn measure_submitted(&mut self, now_ns: u64) {
        let (commits, log_bytes) = self.core.engine.commit_counts();
        self.measures.on_submitted(now_ns, commits, log_bytes);
    }

    /// Adds to a reply what only the loop knows.
    pub(super) fn complete_reply(&self, reply: &mut ControlReply) {
        if let ControlReply::Connections(rows) = reply {
            for row in rows {
                self.complete_connection(row);
            }
        } else if let ControlReply::Metrics(row) = reply {
            row.event_loop = self.loop_row();
        }
    }

    fn complete_connection(&self, row: &mut ConnectionRow) {
        let Some(connection) = self.connections.get(ConnectionId(row.id).index()) else { return };
        let traffic = connection.link.traffic;
        row.recv_oct = traffic.recv_oct;
        row.recv_cnt = traffic.recv_cnt;
        row.send_oct = traffic.send_oct;
        row.send_cnt = traffic.send_cnt;
    }

    fn loop_row(&self) -> LoopRow {
        let mut row = self.measures.row.clone();
        for (slot, connection) in &self.connections {
            let (sum, one) = (&mut row.traffic, &connection.link.traffic);
            sum.recv_oct += one.recv_oct;
            sum.recv_cnt += one.recv_cnt;
            sum.send_oct += one.send_oct;
            sum.send_cnt += one.send_cnt;
            let outbox = self.core.effects.outbox(ConnectionId::from_index(slot));
            row.pending += outbox.len() as u64;
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_measured_from_its_oldest_publish() {
        let mut measures = Measures::default();
        measures.on_wake(1_000_000);
        measures.on_filled(BatchId(1));
        measures.on_submitted(1_100_000, 1, 4096);
        measures.on_sleep(1_200_000);
        measures.on_wake(2_000_000);
        measures.on_filled(BatchId(2));
        measures.on_filled(BatchId(2));
        measures.on_durable(BatchId(2), 3_000_000, true);
        let row = &measures.row;
        assert_eq!((row.publish_to_confirm.count(), row.publish_to_confirm.sum()), (1, 2_000_000));
        assert_eq!((row.sync.count(), row.sync.sum()), (1, 1_900_000));
        assert_eq!((row.batch_size.count(), row.batch_size.sum()), (1, 4096));
        assert_eq!((row.busy_ns, row.idle_ns, row.ticks), (200_000, 1_800_000, 1));
        measures.on_durable(BatchId(3), 4_000_000, true);
        assert_eq!(measures.row.publish_to_confirm.count(), 1, "nothing was published in between");
    }
}
