//! One set of tests for every storage: they keep the same contract.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};

use super::sim::SimDisk;
use super::*;

fn operation(token: u64, file: FileId, verb: Verb) -> Operation {
    Operation { token: Token(token), file, lane: Lane::Commit, verb }
}

/// Waits as the event loop would, on the event descriptor, until `count` operations are done.
fn finish(storage: &mut dyn Storage, count: usize) -> Vec<Completion> {
    let mut done = Vec::new();
    while done.len() < count {
        if let Some(event) = storage.event_fd() {
            let event = event.as_fd().try_clone_to_owned().unwrap();
            let ready = poll(&mut [PollFd::new(&event, PollFlags::IN)], None).unwrap();
            assert_eq!(ready, 1);
        }
        storage.poll(&mut done);
    }
    done.sort_by_key(|completion| completion.token);
    done
}

fn keeps_the_contract(mut storage: Box<dyn Storage>) {
    let storage = storage.as_mut();
    let file = storage.create("one", 64 << 10).unwrap();
    assert_eq!(storage.create("one", 1).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    storage.sync_directory().unwrap();
    assert_eq!(storage.list().unwrap(), ["one"]);
    assert_eq!(storage.size(file).unwrap(), 64 << 10);
    let mut zeroes = [1; 512];
    storage.read(file, 4096, &mut zeroes).unwrap();
    assert_eq!(zeroes, [0; 512]);

    let data = vec![Bytes::from(vec![7; 4096]), Bytes::from(vec![8; 8192])];
    assert!(!storage.has_finished());
    storage.submit(operation(1, file, Verb::WriteSync { offset: 4096, data }));
    while !storage.has_finished() {}
    let mut done = Vec::new();
    storage.wait(&mut done);
    assert_eq!(done.len(), 1);
    assert!(!storage.has_finished());
    let data = vec![Bytes::from_static(b"unsynced")];
    storage.submit(operation(2, file, Verb::Write { offset: 32768, data }));
    assert!(finish(storage, 1)[0].result.is_ok());
    storage.submit(operation(3, file, Verb::Load { offset: 4096, len: 12288 }));
    storage.submit(operation(4, file, Verb::Read { offset: 32768, len: 8 }));
    storage.submit(operation(5, file, Verb::Sync));
    storage.submit(operation(6, file, Verb::Load { offset: 60 << 10, len: 8192 }));
    let done = finish(storage, 4);
    let tokens: Vec<u64> = done.iter().map(|completion| completion.token.0).collect();
    assert_eq!(tokens, [3, 4, 5, 6]);
    let loaded = done[0].result.as_ref().unwrap();
    assert_eq!((&loaded[..4096], &loaded[4096..]), (&[7; 4096][..], &[8; 8192][..]));
    assert_eq!(done[1].result.as_ref().unwrap(), "unsynced");
    assert!(done[2].result.is_ok());
    let fault = done[3].result.as_ref().unwrap_err();
    assert_eq!((fault.op, fault.offset), ("read", 60 << 10), "reading past the end");

    assert!(!storage.reclaim(file) || storage.name() != "io_uring", "a view of it is alive");
    drop(done);
    assert!(storage.reclaim(file));

    let grown = storage.create("two", 0).unwrap();
    assert_eq!(storage.size(grown).unwrap(), 0);
    storage.submit(operation(7, grown, Verb::Reserve { len: 16384 }));
    assert!(finish(storage, 1)[0].result.is_ok());
    storage.submit(operation(8, grown, Verb::SyncDirectory));
    assert!(finish(storage, 1)[0].result.is_ok());
    assert_eq!(storage.size(grown).unwrap(), 16384);
    assert!(!storage.is_written(grown));
    for half in [0, 8192] {
        let data = vec![Bytes::from(vec![0; 8192])];
        storage.submit(operation(9, grown, Verb::WriteSync { offset: half, data }));
        assert!(finish(storage, 1)[0].result.is_ok());
    }
    assert!(storage.is_written(grown));
    storage.remove(grown).unwrap();

    storage.write(file, 0, b"blocking").unwrap();
    storage.sync(file).unwrap();
    let again = storage.open("one").unwrap();
    let mut bytes = [0; 8];
    storage.read(again, 0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"blocking");
    assert!(storage.path(again).ends_with("one"));
    storage.remove(again).unwrap();
    assert_eq!(storage.list().unwrap(), [""; 0]);
    assert!(storage.open("one").is_err());
    assert_ne!(storage.random(), storage.random());
}

#[test]
fn thread_storage_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_storage(dir.path(), IoChoice::Thread).unwrap();
    assert_eq!(storage.name(), "thread");
    keeps_the_contract(storage);
}

/// Where the kernel refuses `io_uring`, automatic choice must give the thread, and that is tested.
#[test]
fn automatic_storage_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let expected = open_storage(dir.path(), IoChoice::Uring).map_or("thread", |s| s.name());
    let storage = open_storage(dir.path(), IoChoice::Auto).unwrap();
    assert_eq!(storage.name(), expected);
    keeps_the_contract(storage);
}

#[test]
fn simulated_storage_keeps_the_contract() {
    for seed in 0..50 {
        keeps_the_contract(Box::new(SimDisk::new(seed).storage()));
    }
}

#[test]
fn a_power_cut_spares_what_was_synced_and_little_else() {
    let (mut lost, mut kept, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let mut storage = disk.storage();
        let file = storage.create("a", 4096).unwrap();
        storage.sync_directory().unwrap();
        storage.write(file, 0, &[1; 512]).unwrap();
        storage.sync(file).unwrap();
        storage.write(file, 512, &[2; 512]).unwrap();
        disk.power_cut();
        let bytes = disk.contents("a").unwrap();
        assert_eq!(bytes[..512], [1; 512]);
        match &bytes[512..1024] {
            sector if *sector == [0; 512] => lost += 1,
            sector if *sector == [2; 512] => kept += 1,
            _ => torn += 1,
        }
        assert_eq!(bytes[1024..], [0; 3072]);
    }
    assert!(20 < lost && 20 < kept && 5 < torn, "{lost} lost, {kept} kept, {torn} torn");
}

#[test]
fn a_failed_sync_is_never_made_good() {
    let lost = (0..100).filter(|seed| {
        let disk = SimDisk::new(*seed);
        let mut storage = disk.storage();
        let file = storage.create("a", 512).unwrap();
        storage.sync_directory().unwrap();
        storage.write(file, 0, &[1; 512]).unwrap();
        disk.fail_sync(0);
        assert!(storage.sync(file).is_err());
        storage.sync(file).unwrap();
        disk.power_cut();
        disk.contents("a").unwrap() != [1; 512]
    });
    assert!(20 < lost.count());
}

#[test]
fn a_full_disk_refuses_new_files_and_growth_only() {
    let disk = SimDisk::new(1);
    let mut storage = disk.storage();
    let file = storage.create("a", 4096).unwrap();
    disk.set_capacity(4096);
    assert_eq!(storage.create("b", 1).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(storage.write(file, 4000, &[1; 97]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    storage.write(file, 4000, &[1; 96]).unwrap();
    disk.fail_write(0);
    let data = vec![Bytes::from_static(b"x")];
    storage.submit(operation(1, file, Verb::Write { offset: 0, data }));
    assert_eq!(finish(&mut storage, 1)[0].result.as_ref().unwrap_err().op, "write");
}
