//! The six classic RabbitMQ tutorials and publisher confirms, in Python with pika.
//!
//! Tutorials 1, 2 and 6 come twice: on the classic queues older texts declare, and on the durable
//! quorum queues today's texts declare.

use crate::support::broker::Broker;
use crate::support::clients::Python;
use crate::support::program::{Program, run};

/// Where the programs that declare named queues lie.
const CLASSIC: &str = "tutorials";
const QUORUM: &str = "quorum";

#[test]
fn hello_world_on_a_classic_queue() {
    hello_world(CLASSIC);
}

#[test]
fn hello_world_on_a_quorum_queue() {
    hello_world(QUORUM);
}

/// A message sent before anybody listens arrives, and so does one sent while somebody does.
fn hello_world(folder: &str) {
    let Some(python) = Python::find() else { return };
    let broker = Broker::start();
    let send = || {
        let printed = run(&mut python.command(&format!("{folder}/send.py"), &broker));
        assert_eq!(printed, [" [x] Sent 'Hello World!'"]);
    };
    send();
    let mut receive = Program::start(&mut python.command(&format!("{folder}/receive.py"), &broker));
    receive.expect_line(" [x] Received Hello World!");
    send();
    receive.expect_line(" [x] Received Hello World!");
}

#[test]
fn work_queue_on_a_classic_queue() {
    work_queue(CLASSIC);
}

#[test]
fn work_queue_on_a_quorum_queue() {
    work_queue(QUORUM);
}

/// Idle workers share the tasks, a busy one gets no second, and the task of one that dies goes to
/// the other.
fn work_queue(folder: &str) {
    let Some(python) = Python::find() else { return };
    let broker = Broker::start();
    let new_task = |text: &str| {
        run(python.command(&format!("{folder}/new_task.py"), &broker).arg(text));
    };
    let worker = || {
        let command = &mut python.command(&format!("{folder}/worker.py"), &broker);
        let mut worker = Program::start(command);
        worker.expect_line(" [*] Waiting for messages. To exit press CTRL+C");
        worker
    };
    let mut first = worker();
    new_task("slow ........................................"); // four seconds, more than all else
    first.expect_lines(" [x] Received slow", 1);
    let mut second = worker();
    for number in 1..=4 {
        new_task(&format!("quick {number}"));
    }
    let quick = second.expect_lines(" [x] Received quick ", 4);
    assert_eq!(quick, ["1", "2", "3", "4"], "fair dispatch keeps the queue's order");
    first.kill();
    second.expect_lines(" [x] Received slow", 1);
}

#[test]
fn tasks_on_a_classic_queue_survive_the_broker() {
    tasks_survive(CLASSIC);
}

#[test]
fn tasks_on_a_quorum_queue_survive_the_broker() {
    tasks_survive(QUORUM);
}

/// Persistent tasks in a durable queue are there after an orderly stop and after `kill -9`.
fn tasks_survive(folder: &str) {
    let Some(python) = Python::find() else { return };
    let mut broker = Broker::start();
    let new_task = |broker: &Broker, text: &str| {
        run(python.command(&format!("{folder}/new_task.py"), broker).arg(text));
    };
    new_task(&broker, "one");
    assert_eq!(broker.terminate().code(), Some(0));
    broker.start_again();
    // Its connection's close-ok came after the sync that covers the task.
    new_task(&broker, "two");
    broker.kill();
    broker.start_again();
    let mut worker = Program::start(&mut python.command(&format!("{folder}/worker.py"), &broker));
    assert_eq!(worker.expect_lines(" [x] Received ", 2), ["one", "two"]);
}

/// Every listener gets every line that is sent while it listens.
#[test]
fn publish_subscribe() {
    let Some(python) = Python::find() else { return };
    let broker = Broker::start();
    let emit = |text: &str| {
        run(python.command("tutorials/emit_log.py", &broker).arg(text));
    };
    let listen = || {
        let mut listener =
            Program::start(&mut python.command("tutorials/receive_logs.py", &broker));
        listener.expect_line(" [*] Waiting for logs. To exit press CTRL+C");
        listener
    };
    emit("nobody hears this");
    let mut first = listen();
    emit("one hears this");
    first.expect_line(" [x] one hears this");
    let mut second = listen();
    emit("both hear this");
    assert_eq!(second.expect_lines(" [x] ", 1), ["both hear this"]);
    first.expect_line(" [x] both hear this");
}

/// A listener gets the lines of the severities it asked for and no others.
#[test]
fn routing() {
    let Some(python) = Python::find() else { return };
    let broker = Broker::start();
    let listen = |severities: &[&str]| {
        let command = &mut python.command("tutorials/receive_logs_direct.py", &broker);
        let mut listener = Program::start(command.args(severities));
        listener.expect_line(" [*] Waiting for logs. To exit press CTRL+C");
        listener
    };
    let mut errors = listen(&["error"]);
    let mut all = listen(&["info", "warning", "error"]);
    for (severity, text) in [("info", "a"), ("warning", "b"), ("debug", "c"), ("error", "d")] {
        run(python.command("tutorials/emit_log_direct.py", &broker).args([severity, text]));
    }
    assert_eq!(all.expect_lines(" [x] ", 3), ["info:a", "warning:b", "error:d"]);
    assert_eq!(errors.expect_lines(" [x] ", 1), ["error:d"]);
}

/// A listener gets the lines its patterns match, each once.
#[test]
fn topics() {
    let Some(python) = Python::find() else { return };
    let broker = Broker::start();
    let listen = |patterns: &[&str]| {
        let command = &mut python.command("tutorials/receive_logs_topic.py", &broker);
        let mut listener = Program::start(command.args(patterns));
        listener.expect_line(" [*] Waiting for logs. To exit press CTRL+C");
        listener
    };
    let mut all = listen(&["#"]);
    let mut kernel = listen(&["kern.*"]);
    let mut critical = listen(&["*.critical", "kern.#"]);
    for key in ["kern.critical", "cron.critical", "kern.info", "cron.info", "kern", "kern.a.b"] {
        run(python.command("tutorials/emit_log_topic.py", &broker).args([key, "x"]));
    }
    let keys = |listener: &mut Program, count| listener.expect_lines(" [x] ", count).join(" ");
    assert_eq!(
        keys(&mut all, 6),
        "kern.critical:x cron.critical:x kern.info:x cron.info:x kern:x kern.a.b:x"
    );
    assert_eq!(keys(&mut kernel, 2), "kern.critical:x kern.info:x");
    assert_eq!(
        keys(&mut critical, 5),
        "kern.critical:x cron.critical:x kern.info:x kern:x kern.a.b:x"
    );
    assert_eq!(kernel.printed(" [x] ").len(), 2);
}

#[test]
fn rpc_on_a_classic_queue() {
    rpc(CLASSIC);
}

#[test]
fn rpc_on_a_quorum_queue() {
    rpc(QUORUM);
}

/// Two servers share the calls; every caller gets the answer to its own.
fn rpc(folder: &str) {
    let Some(python) = Python::find() else { return };
    let broker = Broker::start();
    let servers = [(); 2].map(|()| {
        let command = &mut python.command(&format!("{folder}/rpc_server.py"), &broker);
        let mut server = Program::start(command);
        server.expect_line(" [x] Awaiting RPC requests");
        server
    });
    for (number, answer) in [(30, 832_040), (1, 1), (10, 55), (0, 0)] {
        let command = &mut python.command("tutorials/rpc_client.py", &broker);
        let printed = run(command.arg(number.to_string()));
        let expected = [format!(" [x] Requesting fib({number})"), format!(" [.] Got {answer}")];
        assert_eq!(printed, expected);
    }
    for mut server in servers {
        assert_eq!(server.printed(" [.] fib").len(), 2, "calls go round");
    }
}

/// Confirms one by one, with a return among them, and five hundred without waiting.
#[test]
fn publisher_confirms() {
    let Some(python) = Python::find() else { return };
    let broker = Broker::start();
    let printed = run(&mut python.command("tutorials/publisher_confirms.py", &broker));
    assert_eq!(
        printed,
        [
            "Published 500 messages individually",
            "Returned: 1",
            "Queued: 500",
            "Published 500 messages and handled confirms asynchronously",
            "Queued: 500",
        ]
    );
}
