//! What frameworks build out of queues: a bus of exchanges, remote calls, kombu by itself. Each
//! program prints the same against RabbitMQ 3.10.

use crate::support::broker::Broker;
use crate::support::clients::Python;
use crate::support::program::run;

fn check(program: &str, expected: &[&str]) {
    let Some(python) = Python::find() else { return };
    let broker = Broker::start();
    let printed = run(&mut python.command(&format!("patterns/{program}"), &broker));
    assert_eq!(printed, expected);
}

#[test]
fn a_bus_of_exchanges_bound_to_exchanges_retries_and_keeps_errors() {
    check(
        "bus.py",
        &[
            "billing {'id': 1} Contracts:OrderSubmitted",
            "retried {'id': 1} expired",
            "errors 1",
            "audit 1",
            "returned 1",
        ],
    );
}

#[test]
fn remote_calls_are_answered_directly_and_through_queues() {
    check("rpc.py", &["direct True", "temporary 50", "own queue 50"]);
}

#[test]
fn kombu_does_what_it_offers() {
    let expected =
        ["simple True 0", "priorities [5, 3, 1]", "returned ['tasks']", "broadcast hello hello"];
    check("kombu_client.py", &expected);
}
