//! Hello world and the work queue in Node with amqplib.

use crate::support::broker::Broker;
use crate::support::clients::Node;
use crate::support::program::{Program, run};

#[test]
fn hello_world_with_amqplib() {
    let Some(node) = Node::find() else { return };
    let broker = Broker::start();
    assert_eq!(run(&mut node.command("send.js", &broker)), [" [x] Sent Hello World!"]);
    let mut receive = Program::start(&mut node.command("receive.js", &broker));
    receive.expect_line(" [x] Received Hello World!");
    run(&mut node.command("send.js", &broker));
    receive.expect_line(" [x] Received Hello World!");
}

/// Tasks that were confirmed survive the broker's death; two workers share them; the task of one
/// that dies goes to the other.
#[test]
fn work_queue_with_amqplib() {
    let Some(node) = Node::find() else { return };
    let mut broker = Broker::start();
    let printed =
        run(node.command("new_task.js", &broker).arg("slow".to_owned() + &".".repeat(60)));
    assert_eq!(printed.len(), 1, "{printed:?}");
    broker.kill();
    broker.start_again();
    let mut first = Program::start(&mut node.command("worker.js", &broker));
    first.expect_lines(" [x] Received slow", 1);
    let mut second = Program::start(&mut node.command("worker.js", &broker));
    for number in 1..=3 {
        run(node.command("new_task.js", &broker).arg(format!("quick {number}")));
    }
    assert_eq!(second.expect_lines(" [x] Received quick ", 3), ["1", "2", "3"]);
    first.kill();
    second.expect_lines(" [x] Received slow", 1);
}
