//! Opening a log that somebody has scribbled on.
//!
//! A small real log is written to a simulated disk; then the fuzzer overwrites bytes in its files
//! and cuts them. Checked: opening never panics and never hangs; it either refuses, naming a place,
//! or gives an engine in which every message can be walked, read or reported as damaged.
#![no_main]

use arbitrary::Arbitrary;
use leveret_engine::storage::SimDisk;
use leveret_engine::{Engine, EngineConfig, Read, Seq};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Damage {
    Write { file: u8, offset: u16, bytes: [u8; 8] },
    Flip { file: u8, bit: u32 },
    Cut { file: u8, len: u32 },
    Remove { file: u8 },
}

fuzz_target!(|damages: Vec<Damage>| {
    let disk = SimDisk::new(7);
    write_log(&disk);
    for damage in damages.iter().take(16) {
        spoil(&disk, damage);
    }
    let Ok((mut engine, recovered)) =
        Engine::open_on(Box::new(disk.storage()), EngineConfig::tiny())
    else {
        return;
    };
    for queue in &recovered.queues {
        let mut from = queue.first;
        for _ in 0..64 {
            let Some(next) = next(&mut engine, queue.id, from) else { break };
            from = next;
        }
    }
});

/// Walks one message further; the place behind it.
fn next(engine: &mut Engine, queue: leveret_engine::QueueId, from: Seq) -> Option<Seq> {
    for _ in 0..64 {
        let found = match engine.next(queue, from) {
            leveret_engine::Next::Entry { seq, addr } => Some((seq, addr)),
            leveret_engine::Next::End => return None,
            leveret_engine::Next::Pending(_) => None,
        };
        if let Some((seq, addr)) = found {
            match engine.read(addr) {
                Read::Ready(_) | Read::Corrupt(_) => return Some(seq.next()),
                Read::Pending(_) => {}
            }
        }
        engine.submit(0).ok()?;
        engine.complete().ok()?;
    }
    panic!("a read never comes back");
}

fn write_log(disk: &SimDisk) {
    let (mut engine, _) = Engine::open_on(Box::new(disk.storage()), EngineConfig::tiny())
        .expect("an empty disk opens");
    let queues = [true, true].map(|durable| engine.create_queue(durable).expect("there is room"));
    engine.put_meta(b"key", b"value").expect("there is room");
    for number in 0..40_u8 {
        let body = [number; 300];
        let appended = engine.append(&[&body], true, &queues).expect("there is room");
        if number % 3 == 0 {
            engine.settle(queues[0], Seq(u64::from(number)), appended.addr, appended.len);
        }
        if number % 8 == 0 {
            engine.submit(u64::from(number) * 1_000_000).expect("the disk is well");
            engine.complete().expect("the disk is well");
        }
    }
}

fn spoil(disk: &SimDisk, damage: &Damage) {
    let names = disk.names();
    let name = |file: u8| names.get(usize::from(file) % names.len().max(1)).cloned();
    match *damage {
        Damage::Write { file, offset, bytes } => {
            change(disk, name(file), |contents| {
                let offset = usize::from(offset) % contents.len();
                for (old, new) in contents[offset..].iter_mut().zip(bytes) {
                    *old = new;
                }
            });
        }
        Damage::Flip { file, bit } => change(disk, name(file), |contents| {
            let bit = bit as usize % (contents.len() * 8);
            contents[bit / 8] ^= 1 << (bit % 8);
        }),
        Damage::Cut { file, len } => {
            change(disk, name(file), |contents| contents.truncate(len as usize));
        }
        Damage::Remove { file } => {
            if let Some(name) = name(file) {
                disk.delete(&name);
            }
        }
    }
}

fn change(disk: &SimDisk, name: Option<String>, change: impl FnOnce(&mut Vec<u8>)) {
    let Some(name) = name else { return };
    let Some(mut contents) = disk.contents(&name).filter(|contents| !contents.is_empty()) else {
        return;
    };
    change(&mut contents);
    disk.put(&name, contents);
}
