//! `kill -9` in the middle of confirmed publishing, again and again on the same data.
//!
//! After every death the broker is started again and everything it holds is compared with what it
//! had promised: no confirmed message is missing, none is back whose acknowledgement it had for
//! more than half a second, what is there is in order and whole, and so are the definitions.
//!
//! `LEVERET_CRASH_ROUNDS` sets how often it dies, `LEVERET_CRASH_SEED` replays the choices of a
//! run (not its timing).

mod client;
mod disk;
mod ledger;
mod random;
#[path = "../support/mod.rs"]
mod support;

use std::env;
use std::io::{self, Write};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::client::{Client, declare_queues};
use crate::ledger::Ledger;
use crate::random::Random;
use crate::support::broker::Broker;

const ROUNDS: u64 = 10;
/// How long publishing goes on before a kill.
const LIFE_MS: std::ops::Range<u64> = 50..1200;

#[tokio::test]
async fn promises_survive_kill_9_on_the_thread_storage() {
    survive("thread").await;
}

#[tokio::test]
async fn promises_survive_kill_9_on_io_uring() {
    if let Err(refusal) = Broker::try_start_with(&["--set", "engine.io=uring"]) {
        // Containers commonly forbid it. Said past the capture of test output.
        assert!(refusal.contains("io_uring"), "{refusal}");
        let _ =
            writeln!(io::stderr(), "\nleft out: crashes on io_uring, which this kernel refuses");
        return;
    }
    survive("uring").await;
}

async fn survive(storage: &str) {
    let rounds = number_from("LEVERET_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let seed = number_from("LEVERET_CRASH_SEED").unwrap_or_else(seed_from_clock);
    println!("storage {storage}, {rounds} rounds, LEVERET_CRASH_SEED={seed}");
    let mut random = Random::new(seed);
    let mut broker = Broker::start_with(&["--set", &format!("engine.io={storage}")]);
    declare_queues(&broker).await;
    let ledger = Ledger::shared();
    for round in 1..=rounds {
        let life = Duration::from_millis(random.between(LIFE_MS));
        let client = Client::start(&broker, ledger.clone(), random.fork(), round).await;
        let (dead, killed_at) = kill_after(broker, life).await;
        broker = dead;
        let definitions = client.stop().await;
        every_checksum_matches(&broker);
        broker.start_again();
        let found = client::inspect(&broker, &definitions).await;
        let summary = ledger.lock().expect("no client panics").settle_accounts(&found, killed_at);
        println!("round {round}: killed after {life:?}, {summary}");
    }
    everything_acknowledged_stays_away(broker, &ledger).await;
}

/// The last death: all is acknowledged, more than half a second passes, and nothing may be back.
async fn everything_acknowledged_stays_away(broker: Broker, ledger: &ledger::Shared) {
    client::acknowledge_all(&broker, ledger).await;
    let (mut broker, killed_at) = kill_after(broker, Duration::from_millis(800)).await;
    broker.start_again();
    let found = client::inspect(&broker, &client::Definitions::default()).await;
    assert!(found.values().all(Vec::is_empty), "acknowledged messages are back");
    ledger.lock().expect("no client panics").settle_accounts(&found, killed_at);
}

/// What a dead broker leaves behind is sound, but for the torn end that a start cuts off.
fn every_checksum_matches(dead: &Broker) {
    let leveret = || Command::new(env!("CARGO_BIN_EXE_leveret"));
    let verified = leveret().arg("verify").arg(dead.data_dir()).output().expect("it runs");
    assert!(verified.status.success(), "{verified:?}");
    let seen = leveret().args(["inspect", "--json"]).arg(dead.data_dir()).output();
    let seen = String::from_utf8(seen.expect("it runs").stdout).expect("text");
    for name in ["\"segments\"", "\"checkpoint\"", "\"durable\""] {
        assert!(seen.contains(name), "{seen}");
    }
}

async fn kill_after(mut broker: Broker, life: Duration) -> (Broker, Instant) {
    let killer = tokio::task::spawn_blocking(move || {
        thread::sleep(life);
        let killed_at = Instant::now();
        broker.kill();
        (broker, killed_at)
    });
    killer.await.expect("killing does not panic")
}

fn number_from(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {value}")))
}

fn seed_from_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970").subsec_nanos().into()
}
