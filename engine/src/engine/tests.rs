//! The engine over a simulated disk and over a real one.

use super::*;
use crate::storage::SimDisk;
use crate::{Appended, IoChoice};

fn open(disk: &SimDisk) -> (Engine, Recovered) {
    Engine::open_on(Box::new(disk.storage()), EngineConfig::tiny()).expect("the log is sound")
}

/// Reads a message, waiting for the disk as long as it takes.
fn read(engine: &mut Engine, addr: Addr) -> Vec<u8> {
    loop {
        match engine.read(addr) {
            Read::Ready(message) => return message.to_vec(),
            Read::Corrupt(corruption) => panic!("{corruption}"),
            Read::Pending(ticket) => while !engine.complete().unwrap().loaded.contains(&ticket) {},
        }
    }
}

/// All unsettled messages of a queue, in order.
fn messages(engine: &mut Engine, queue: QueueId) -> Vec<(Seq, Vec<u8>)> {
    let mut messages = Vec::new();
    let mut from = Seq(0);
    loop {
        match engine.next(queue, from) {
            Next::Entry { seq, addr } => {
                messages.push((seq, read(engine, addr)));
                from = seq.next();
            }
            Next::End => return messages,
            Next::Pending(ticket) => while !engine.complete().unwrap().loaded.contains(&ticket) {},
        }
    }
}

fn append(engine: &mut Engine, message: &[u8], queues: &[QueueId]) -> Appended {
    engine.append(&[message], true, queues).expect("there is room")
}

#[test]
fn one_body_serves_several_queues() {
    let (mut engine, _) = open(&SimDisk::new(1));
    let queues = [engine.create_queue(true).unwrap(), engine.create_queue(false).unwrap()];
    for persistent in [true, false] {
        let done = engine.append(&[b"he", b"llo"], persistent, &queues).unwrap();
        assert_eq!(done.addr.is_durable(), persistent);
        for queue in queues {
            let Next::Entry { seq, addr } = engine.next(queue, Seq(0)) else { panic!("empty") };
            assert_eq!(addr, done.addr);
            assert_eq!(engine.read(addr), Read::Ready(b"hello"));
            engine.settle(queue, seq, addr, done.len);
            assert_eq!(engine.next(queue, Seq(0)), Next::End);
        }
    }
    let batch = engine.batch();
    assert!(engine.durable() < batch);
    engine.sync().unwrap();
    assert!(batch <= engine.durable());
    assert_eq!(engine.stats().live_bytes, 0);
}

#[test]
fn everything_durable_is_back_after_a_restart() {
    let disk = SimDisk::new(7);
    let (mut engine, recovered) = open(&disk);
    assert_eq!(recovered, Recovered::default());
    let one = engine.create_queue(true).unwrap();
    let gone = engine.create_queue(false).unwrap();
    let two = engine.create_queue(true).unwrap();
    engine.put_meta(b"color", b"blue").unwrap();
    engine.put_meta(b"shape", b"round").unwrap();
    engine.put_meta(b"color", b"green").unwrap();
    engine.delete_meta(b"shape").unwrap();
    let first = append(&mut engine, b"first", &[one, two]);
    engine.append(&[b"in memory"], false, &[one]).unwrap();
    append(&mut engine, b"third", &[one, gone]);
    engine.note_delivered(one, Seq(2));
    engine.settle(one, Seq(0), first.addr, first.len);
    engine.sync().unwrap();
    disk.power_cut();

    let (mut engine, recovered) = open(&disk);
    assert_eq!(recovered.metas, [(b"color"[..].into(), b"green"[..].into())]);
    let [found_one, found_two] = recovered.queues[..] else { panic!("{:?}", recovered.queues) };
    assert_eq!((found_one.id, found_two.id), (one, two));
    assert_eq!((found_one.messages, found_one.bytes, found_one.tail), (1, 5, Seq(3)));
    assert_eq!((found_one.first, found_one.redelivered_below), (Seq(2), Seq(3)));
    assert_eq!((found_two.messages, found_two.bytes, found_two.tail), (1, 5, Seq(1)));
    assert_eq!(messages(&mut engine, one), [(Seq(2), b"third".to_vec())]);
    assert_eq!(messages(&mut engine, two), [(Seq(0), b"first".to_vec())]);
    assert_eq!(engine.create_queue(true).unwrap(), gone, "the id of a lost queue is free");
    assert_eq!(append(&mut engine, b"next", &[one]).len, 4);
    assert_eq!(messages(&mut engine, one)[1], (Seq(3), b"next".to_vec()));
}

#[test]
fn a_log_of_many_segments_reads_back_from_disk() {
    let disk = SimDisk::new(3);
    let (mut engine, _) = open(&disk);
    let queue = engine.create_queue(true).unwrap();
    let message = |i: u32| [&i.to_le_bytes()[..], &vec![7; 1000 + i as usize % 3000]].concat();
    for i in 0..300 {
        append(&mut engine, &message(i), &[queue]);
        engine.submit(u64::from(i) * 1_000_000).unwrap();
        engine.complete().unwrap();
    }
    engine.sync().unwrap();
    assert!(8 < engine.stats().segments);
    for round in 0..2 {
        let found = messages(&mut engine, queue);
        assert_eq!(found.len(), 300);
        for (i, (seq, bytes)) in (0..).zip(found) {
            assert_eq!((seq, bytes), (Seq(i.into()), message(i)), "round {round}");
        }
        assert!(0 < engine.stats().cold_reads);
        engine = open(&disk).0;
    }
}

#[test]
fn large_messages_come_back_whole() {
    let disk = SimDisk::new(5);
    let (mut engine, _) = open(&disk);
    let queues = [engine.create_queue(true).unwrap(), engine.create_queue(true).unwrap()];
    let large: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
    let appended = append(&mut engine, &large, &queues);
    assert_eq!(appended.len, 100_000);
    append(&mut engine, b"small", &queues);
    engine.sync().unwrap();
    let live = engine.stats().live_bytes;
    for _ in 0..2 {
        for queue in queues {
            let found = messages(&mut engine, queue);
            assert!(found == [(Seq(0), large.clone()), (Seq(1), b"small".to_vec())]);
        }
        engine = open(&disk).0;
        assert_eq!(engine.stats().live_bytes, live);
    }
    for queue in queues {
        engine.settle(queue, Seq(0), appended.addr, appended.len);
    }
    engine.sync().unwrap();
    assert!(engine.stats().live_bytes < 200, "its parts are given back");
    let engine = open(&disk).0;
    assert!(engine.stats().live_bytes < 200);
}

#[test]
fn a_move_is_one_step() {
    for (persistent, durable) in [(true, true), (false, true), (true, false)] {
        let disk = SimDisk::new(9);
        let (mut engine, _) = open(&disk);
        let from = engine.create_queue(true).unwrap();
        let to = engine.create_queue(durable).unwrap();
        let Appended { addr, len } = append(&mut engine, b"message", &[from]);
        engine.append_moved((from, Seq(0), addr, len), &[b"dead"], persistent, &[to]).unwrap();
        assert_eq!(messages(&mut engine, from), []);
        assert_eq!(messages(&mut engine, to), [(Seq(0), b"dead".to_vec())]);
        engine.sync().unwrap();
        let (mut engine, recovered) = open(&disk);
        assert_eq!(recovered.queues[0].messages, 0);
        if persistent && durable {
            assert_eq!(messages(&mut engine, to), [(Seq(0), b"dead".to_vec())]);
            assert_eq!(engine.stats().live_bytes, 44);
        } else {
            assert_eq!(engine.stats().live_bytes, 0);
        }
    }
}

#[test]
fn a_deleted_queue_drains_and_its_id_comes_back() {
    let disk = SimDisk::new(11);
    let (mut engine, _) = open(&disk);
    let doomed = engine.create_queue(true).unwrap();
    let kept = engine.create_queue(true).unwrap();
    for i in 0..5000_u32 {
        append(&mut engine, &i.to_le_bytes(), &[doomed]);
    }
    append(&mut engine, b"kept", &[kept]);
    engine.delete_queue(doomed).unwrap();
    assert_ne!(engine.create_queue(false).unwrap(), doomed, "not before it is drained");
    engine.sync().unwrap();
    for crash in [true, false] {
        if crash {
            let (found, recovered) = open(&disk);
            assert_eq!(recovered.queues.len(), 1);
            engine = found;
        }
        engine.submit(5).unwrap();
        assert!(!engine.drains.is_empty(), "there is more to drain");
        engine.sync().unwrap();
    }
    while !engine.drains.is_empty() {
        engine.submit(5).unwrap();
        engine.complete().unwrap();
    }
    engine.sync().unwrap();
    assert_eq!(engine.stats().live_bytes, 44);
    assert_eq!(engine.create_queue(true).unwrap(), doomed);
    engine.sync().unwrap();
    let (mut engine, recovered) = open(&disk);
    assert_eq!(recovered.queues.len(), 2);
    assert_eq!(recovered.queues[0].tail, Seq(0));
    assert_eq!(messages(&mut engine, kept).len(), 1);
}

#[test]
fn a_range_is_settled_but_not_what_is_outside() {
    let disk = SimDisk::new(2);
    let (mut engine, _) = open(&disk);
    let queue = engine.create_queue(true).unwrap();
    for i in 0..100 {
        engine.append(&[&[i; 500]], i % 3 != 0, &[queue]).unwrap();
    }
    engine.sync().unwrap();
    engine.settle_range(queue, Seq(10), Seq(95));
    assert_eq!(engine.messages(queue), 15);
    engine.sync().unwrap();
    let (mut engine, _) = open(&disk);
    let left: Vec<u64> = messages(&mut engine, queue).iter().map(|(seq, _)| seq.0).collect();
    assert_eq!(left, [1, 2, 4, 5, 7, 8, 95, 97, 98]);
    engine.settle_range(queue, Seq(0), Seq(1000));
    assert_eq!((engine.messages(queue), engine.stats().live_bytes), (0, 0));
}

#[test]
fn a_failed_commit_poisons_for_good() {
    for fail in [SimDisk::fail_sync, SimDisk::fail_write] {
        let disk = SimDisk::new(13);
        let (mut engine, _) = open(&disk);
        let queue = engine.create_queue(true).unwrap();
        engine.sync().unwrap();
        let durable = engine.durable();
        fail(&disk, 0);
        append(&mut engine, b"lost", &[queue]);
        let error = engine.sync().unwrap_err();
        assert!(matches!(error, EngineError::Io { offset: Some(_), .. }), "{error}");
        assert!(error.to_string().contains(".seg at offset"), "{error}");
        let poisoned = |result| matches!(result, Err(EngineError::Poisoned { .. }));
        assert!(poisoned(engine.append(&[b"x"], true, &[queue]).map(|_| ())));
        assert!(poisoned(engine.submit(1).map(|_| ())));
        assert!(poisoned(engine.complete().map(|_| ())));
        assert!(poisoned(engine.put_meta(b"k", b"v").map(|_| ())));
        assert_eq!(engine.durable(), durable, "nothing was promised");
        assert!(engine.append(&[b"x"], false, &[queue]).is_ok(), "memory still works");
    }
}

#[test]
fn messages_read_apart_are_found_in_any_order() {
    let disk = SimDisk::new(3);
    let (mut engine, _) = open(&disk);
    let queue = engine.create_queue(true).unwrap();
    for i in 0..300_u32 {
        append(&mut engine, &[i.to_le_bytes(); 500].concat(), &[queue]);
        engine.submit(u64::from(i) * 1_000_000).unwrap();
        engine.complete().unwrap();
    }
    engine.sync().unwrap();
    let (mut engine, _) = open(&disk);
    for i in (0..300_u32).rev() {
        let addr = loop {
            match engine.next(queue, Seq(i.into())) {
                Next::Entry { addr, .. } => break addr,
                Next::End => panic!("message {i} is lost"),
                Next::Pending(ticket) => {
                    while !engine.complete().unwrap().loaded.contains(&ticket) {}
                }
            }
        };
        loop {
            match engine.read_apart(addr) {
                Read::Ready(message) => break assert_eq!(message, [i.to_le_bytes(); 500].concat()),
                Read::Corrupt(corruption) => panic!("{corruption}"),
                Read::Pending(ticket) => {
                    while !engine.complete().unwrap().loaded.contains(&ticket) {}
                }
            }
        }
    }
}

#[test]
fn real_storages_survive_a_restart() {
    for io in [IoChoice::Thread, IoChoice::Auto] {
        let dir = tempfile::tempdir().unwrap();
        let config = EngineConfig { io, ..EngineConfig::tiny() };
        let (mut engine, _) = Engine::open(dir.path(), config.clone()).unwrap();
        let queue = engine.create_queue(true).unwrap();
        for i in 0..500_u32 {
            append(&mut engine, &[i.to_le_bytes(); 200].concat(), &[queue]);
            engine.submit(u64::from(i) << 20).unwrap();
            engine.complete().unwrap();
        }
        engine.sync().unwrap();
        assert_eq!(messages(&mut engine, queue).len(), 500);
        let locked = Engine::open(dir.path(), config.clone()).unwrap_err();
        assert!(matches!(locked, EngineError::Locked { .. }));
        drop(engine);
        let (mut engine, recovered) = Engine::open(dir.path(), config).unwrap();
        assert_eq!(recovered.queues[0].messages, 500);
        let found = messages(&mut engine, queue);
        assert_eq!(found[499], (Seq(499), [499_u32.to_le_bytes(); 200].concat()));
        assert!(0 < engine.stats().cold_reads, "{}", engine.io_name());
    }
}

#[test]
fn misuse_is_refused_without_a_trace() {
    let (mut engine, _) = open(&SimDisk::new(1));
    let too_large = vec![0; EngineConfig::tiny().payload_size_max() + 1];
    assert!(matches!(engine.put_meta(b"", &too_large), Err(EngineError::TooLarge { .. })));
    let many: Vec<QueueId> = (0..2000).map(|_| engine.create_queue(true).unwrap()).collect();
    let refused = engine.append(&[b"x"], true, &many);
    assert!(matches!(refused, Err(EngineError::TooManyTargets { count: 2000 })));
    assert!(many.iter().all(|queue| engine.messages(*queue) == 0));
}

/// Runs the engine until it has nothing more to do by itself, as an event loop would.
fn settle_down(engine: &mut Engine, now_ns: u64) {
    for step in 0..200 {
        engine.submit(now_ns + step * 1_000_000).unwrap();
        engine.complete().unwrap();
    }
}

#[test]
fn a_checkpoint_spares_the_replay_and_frees_dead_segments() {
    let disk = SimDisk::new(21);
    let (mut engine, _) = open(&disk);
    let queue = engine.create_queue(true).unwrap();
    append(&mut engine, b"kept", &[queue]);
    engine.put_meta(b"color", b"blue").unwrap();
    for i in 0..200_u64 {
        let Appended { addr, len } = append(&mut engine, &[7; 2000], &[queue]);
        engine.settle(queue, Seq(i + 1), addr, len);
        engine.submit(i * 1_000_000).unwrap();
        engine.complete().unwrap();
    }
    assert!(engine.stats().segments < 6, "{} segments", engine.stats().segments);
    engine.checkpoint().unwrap();
    disk.power_cut();
    let found = recover(&mut disk.storage(), 1 << 16).unwrap();
    assert!(found.replayed <= 8192, "only the mark: {} bytes", found.replayed);
    let (mut engine, recovered) = open(&disk);
    assert_eq!(recovered.metas.len(), 1);
    assert_eq!((recovered.queues[0].first, recovered.queues[0].tail), (Seq(0), Seq(201)));
    assert_eq!(messages(&mut engine, queue), [(Seq(0), b"kept".to_vec())]);
    engine.settle_range(queue, Seq(0), Seq(1));
    settle_down(&mut engine, 20_000_000_000);
    engine.checkpoint().unwrap();
    settle_down(&mut engine, 40_000_000_000);
    assert_eq!(engine.stats().live_bytes, 0);
    assert!(engine.stats().segments <= 2, "{} segments", engine.stats().segments);
}

#[test]
fn long_queues_leave_memory_and_come_back() {
    let disk = SimDisk::new(22);
    let (mut engine, _) = open(&disk);
    let queues = [engine.create_queue(true).unwrap(), engine.create_queue(false).unwrap()];
    for i in 0..3000_u32 {
        let persistent = i % 5 != 0;
        engine.append(&[&i.to_le_bytes()], persistent, &queues).unwrap();
        engine.submit(u64::from(i) * 100_000).unwrap();
        engine.complete().unwrap();
    }
    settle_down(&mut engine, 1_000_000_000);
    assert!(queues.iter().all(|queue| engine.queue(*queue).pages_from(0).count() >= 22));
    for queue in queues {
        let found = messages(&mut engine, queue);
        let numbers = (0..3000_u32).map(|i| (Seq(i.into()), i.to_le_bytes().to_vec()));
        assert!(found.into_iter().eq(numbers));
    }
    engine.checkpoint().unwrap();
    disk.power_cut();
    let (mut engine, recovered) = open(&disk);
    assert_eq!(recovered.queues[0].messages, 2400);
    let found = messages(&mut engine, queues[0]);
    let durable = (0..3000_u32).filter(|i| i % 5 != 0);
    assert!(found.into_iter().eq(durable.map(|i| (Seq(i.into()), i.to_le_bytes().to_vec()))));
    assert!(!disk.names().iter().all(|name| !name.starts_with("index-")));
    engine.settle_range(queues[0], Seq(0), Seq(3000));
    settle_down(&mut engine, 2_000_000_000);
    assert_eq!((engine.messages(queues[0]), engine.stats().live_bytes), (0, 0));
    for _ in 0..2 {
        append(&mut engine, b"x", &[queues[0]]);
        engine.checkpoint().unwrap();
    }
    let index = disk.names().iter().filter(|name| name.starts_with("index-")).count();
    assert_eq!(index, 0, "the files are gone with the backlog");
}

#[test]
fn a_store_that_was_never_written_to_opens_again_and_again() {
    let disk = SimDisk::new(23);
    for _ in 0..5 {
        drop(open(&disk));
    }
    let (mut engine, _) = open(&disk);
    engine.create_queue(true).unwrap();
    engine.sync().unwrap();
    disk.power_cut();
    assert_eq!(open(&disk).1.queues.len(), 1);
}

/// Goal: index files are caches. Delete or damage them; every message is still there.
#[test]
fn lost_index_pages_are_rebuilt_from_the_log() {
    let disk = SimDisk::new(24);
    let (mut engine, _) = open(&disk);
    let queues = [engine.create_queue(true).unwrap(), engine.create_queue(true).unwrap()];
    for i in 0..3000_u32 {
        let done = append(&mut engine, &i.to_le_bytes(), &queues);
        if i % 3 == 0 {
            engine.settle(queues[1], Seq(i.into()), done.addr, done.len);
        }
        engine.submit(u64::from(i) * 100_000).unwrap();
        engine.complete().unwrap();
    }
    append(&mut engine, &vec![9; 100_000], &queues);
    engine.checkpoint().unwrap();
    let expected = queues.map(|queue| messages(&mut engine, queue));
    assert_eq!((expected[0].len(), expected[1].len()), (3001, 2001));
    let index: Vec<String> =
        disk.names().into_iter().filter(|name| name.starts_with("index-")).collect();
    assert!(4 < index.len());
    for damage in 0..3 {
        let fork = disk.fork();
        match damage {
            0 => index.iter().for_each(|name| fork.delete(name)),
            1 => fork.delete(&index[1]),
            _ => (0..8 * 8).for_each(|i| fork.flip_bit(&index[i / 8 % 4], 8 * 1024 * (i % 8) + i)),
        }
        let (mut engine, _) = open(&fork);
        let found = queues.map(|queue| messages(&mut engine, queue));
        assert!(found == expected, "damage {damage}");
        engine.checkpoint().unwrap();
        let (mut engine, _) = open(&fork);
        let found = queues.map(|queue| messages(&mut engine, queue));
        assert!(found == expected, "damage {damage}, second time");
    }
}
/// Goal: what is replayed is durable, whatever the dead process did to the page cache. Method: a
/// sync fails, whose pages count as clean from then on; the process is killed, another one starts
/// and goes on for a while, and then the power fails.
#[test]
fn what_a_failed_sync_left_in_the_page_cache_is_written_again() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let (mut engine, _) = open(&disk);
        let queue = engine.create_queue(true).unwrap();
        engine.sync().unwrap();
        append(&mut engine, &[7; 3000], &[queue]);
        disk.fail_sync(0);
        engine.sync().unwrap_err();
        disk.kill();
        let (mut engine, _) = open(&disk);
        let found = messages(&mut engine, queue);
        append(&mut engine, b"later", &[queue]);
        engine.sync().unwrap();
        disk.power_cut();
        let (mut engine, _) = open(&disk);
        assert_eq!(messages(&mut engine, queue)[..found.len()], found, "seed {seed}");
    }
}

/// Goal: the batch that is said to cover a settle does. Method: settles at every distance from the
/// end of a segment, and a power cut as soon as that batch is durable.
#[test]
fn a_settle_is_durable_with_its_batch() {
    let disk = SimDisk::new(17);
    let (mut engine, _) = open(&disk);
    let queue = engine.create_queue(true).unwrap();
    for i in 0..400_u64 {
        let Appended { addr, len } = append(&mut engine, b"to be settled", &[queue]);
        engine.sync().unwrap();
        let seq = Seq(engine.tail(queue).0 - 1);
        engine.settle(queue, seq, addr, len);
        let batch = engine.batch();
        for _ in 0..4 {
            append(&mut engine, &vec![7; 3000 + usize::try_from(i).unwrap() * 37 % 999], &[queue]);
        }
        while engine.durable() < batch {
            engine.submit(i * 1_000_000_000).unwrap();
            engine.complete().unwrap();
        }
        let fork = disk.fork();
        fork.power_cut();
        let (mut crashed, _) = open(&fork);
        let next = crashed.next(queue, seq);
        assert!(!matches!(next, Next::Entry { seq: at, .. } if at == seq), "{seq:?} is back");
        engine.settle_range(queue, Seq(0), engine.tail(queue));
    }
}

#[test]
fn a_place_that_was_lost_is_new_when_it_is_taken_again() {
    let disk = SimDisk::new(19);
    let (mut engine, _) = open(&disk);
    let queue = engine.create_queue(true).unwrap();
    let first = append(&mut engine, b"first", &[queue]);
    engine.append(&[b"in memory"], false, &[queue]).unwrap();
    engine.note_delivered(queue, Seq(1));
    engine.settle(queue, Seq(0), first.addr, first.len);
    engine.sync().unwrap();
    for _ in 0..2 {
        engine = open(&disk).0;
        append(&mut engine, b"new", &[queue]);
        engine.sync().unwrap();
    }
    let recovered = open(&disk).1;
    assert_eq!((recovered.queues[0].redelivered_below, recovered.queues[0].tail), (Seq(1), Seq(3)));
}

/// Transient messages `range` of about 500 bytes, through an event loop that is told not to take
/// more in than the disk takes out.
fn flood(engine: &mut Engine, queues: &[QueueId], range: std::ops::Range<u32>) {
    for i in range {
        while engine.is_behind() {
            engine.submit(1_000_000).unwrap();
            engine.complete().unwrap();
        }
        engine.append(&[&i.to_le_bytes(), &[7; 500]], false, queues).unwrap();
        engine.submit(1_000_000).unwrap();
        engine.complete().unwrap();
    }
}

fn number(message: &[u8]) -> u32 {
    u32::from_le_bytes(*message.first_chunk().unwrap())
}

#[test]
fn transient_messages_beyond_their_budget_go_to_files_and_come_back() {
    let disk = SimDisk::new(31);
    let (mut engine, _) = open(&disk);
    let queues = [engine.create_queue(true).unwrap(), engine.create_queue(false).unwrap()];
    let large = vec![9; 100_000];
    engine.append(&[&u32::MAX.to_le_bytes(), &large], false, &queues).unwrap();
    flood(&mut engine, &queues, 0..2000);
    let stats = engine.stats();
    let budget = engine.config().transient_bytes_max as u64;
    let bound = budget + engine.config().staged_bytes_max as u64 + 8192;
    assert!(stats.transient_bytes <= bound, "{stats:?}");
    assert!(900_000 < stats.spilled_bytes, "{stats:?}");
    for queue in queues {
        let found = messages(&mut engine, queue);
        assert_eq!(found[0].1.len(), 100_004);
        assert!(found[1..].iter().map(|(_, message)| number(message)).eq(0..2000));
    }
    engine.settle_range(queues[0], Seq(0), Seq(1500));
    settle_down(&mut engine, 1_000_000_000);
    engine.settle_range(queues[1], Seq(0), Seq(5000));
    settle_down(&mut engine, 2_000_000_000);
    let left = messages(&mut engine, queues[0]);
    assert!(left.iter().map(|(_, message)| number(message)).eq(1499..2000));
    assert!(engine.stats().spilled_bytes < 400_000, "what is settled is freed");
    engine.settle_range(queues[0], Seq(0), Seq(5000));
    settle_down(&mut engine, 3_000_000_000);
    assert_eq!(engine.stats().spilled_bytes, 0);
    assert!(disk.names().iter().all(|name| !name.starts_with("spill-")));
}

#[test]
fn a_spill_file_that_fails_stops_the_spilling_and_nothing_else() {
    let disk = SimDisk::new(32);
    let (mut engine, _) = open(&disk);
    let queue = engine.create_queue(true).unwrap();
    settle_down(&mut engine, 0);
    flood(&mut engine, &[queue], 0..300);
    assert!(0 < engine.stats().spilled_bytes);
    settle_down(&mut engine, 1_000_000_000);
    disk.fail_write(0);
    flood(&mut engine, &[queue], 300..1000);
    let failure = engine.spill_failure().expect("the write failed").to_owned();
    assert!(failure.contains("spill-"), "{failure}");
    disk.heal();
    append(&mut engine, &[1; 4], &[queue]);
    engine.sync().unwrap();
    let found = messages(&mut engine, queue);
    assert!(found[..1000].iter().map(|(_, message)| number(message)).eq(0..1000));
    drop(engine);
    let (mut engine, _) = open(&disk);
    assert!(disk.names().iter().all(|name| !name.starts_with("spill-")), "gone at the start");
    assert_eq!(messages(&mut engine, queue), [(Seq(1000), vec![1; 4])]);
}

#[test]
fn a_disk_too_full_for_spill_files_keeps_messages_in_memory_until_there_is_room() {
    let disk = SimDisk::new(33);
    let (mut engine, _) = open(&disk);
    let queue = engine.create_queue(false).unwrap();
    settle_down(&mut engine, 0);
    disk.set_capacity(disk.used());
    flood(&mut engine, &[queue], 0..500);
    assert_eq!((engine.stats().spilled_bytes, engine.spill_failure()), (0, None));
    disk.set_capacity(u64::MAX);
    flood(&mut engine, &[queue], 500..1500);
    assert!(400_000 < engine.stats().spilled_bytes, "{:?}", engine.stats());
    let found = messages(&mut engine, queue);
    assert!(found.iter().map(|(_, message)| number(message)).eq(0..1500));
}

/// Goal: a process that was killed may have made files whose names a power cut would still take;
/// what the next process writes into them must not go with the names.
#[test]
fn names_that_a_killed_process_left_are_durable_before_they_are_used() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let (mut engine, _) = open(&disk);
        let queue = engine.create_queue(true).unwrap();
        engine.sync().unwrap();
        for tick in 0..seed {
            engine.submit(tick * 1_000_000).unwrap(); // spares are being made
            engine.complete().unwrap();
        }
        disk.kill();
        let (mut engine, _) = open(&disk);
        append(&mut engine, b"kept", &[queue]);
        engine.sync().unwrap();
        disk.power_cut();
        let (mut engine, _) = open(&disk);
        assert_eq!(messages(&mut engine, queue).len(), 1, "seed {seed}");
    }
}

/// Goal: a full disk does not stop checkpoints for good: they take the place of a spare.
#[test]
fn a_checkpoint_finds_room_on_a_full_disk() {
    let disk = SimDisk::new(3);
    let (mut engine, _) = open(&disk);
    settle_down(&mut engine, 1); // spares are made
    for _ in 0..1100 {
        engine.create_queue(true).unwrap();
    }
    engine.put_meta(b"k", &[7; 8000]).unwrap();
    engine.sync().unwrap();
    disk.set_capacity(disk.used());
    settle_down(&mut engine, 1_000_000_000);
    let size = engine.stats().checkpoint_bytes;
    assert!(1100 * 64 < size, "{size}");
}
