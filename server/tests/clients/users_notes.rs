//! One evening with the tutorials, as a user's notes have it: the programs, and the command lines
//! of `rabbitmqctl`, which is `leveretctl` under that name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::broker::Broker;
use crate::support::clients::Python;
use crate::support::program::{Program, run};

/// A broker started in a folder without being told where its data goes, and the user's shell in
/// that folder.
struct Desk {
    broker: Broker,
    links: PathBuf,
    python: &'static Python,
}

impl Desk {
    fn sit_down() -> Option<Desk> {
        let python = Python::find()?;
        let broker = Broker::start();
        let links = broker.folder().join("bin");
        run(Command::new(env!("CARGO_BIN_EXE_leveret")).arg("links").arg(&links));
        Some(Desk { broker, links, python })
    }

    /// What a command line prints in the user's shell, with the tool's folder put on the path as
    /// the notes do it.
    fn shell(&self, line: &str) -> Vec<String> {
        let script = format!("export PATH={}:$PATH\n{line}", self.links.display());
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).current_dir(self.broker.folder());
        run(shell.env_remove("LEVERET_DATA_DIR"))
    }

    fn start(&self, program: &str) -> Program {
        Program::start(&mut self.python.command(&format!("users_notes/{program}"), &self.broker))
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Vec<String> {
        let program = format!("users_notes/{program}");
        run(self.python.command(&program, &self.broker).args(arguments))
    }
}

const WAITING: &str = " [*] Waiting for messages. To exit press CTRL+C";
const LIST_QUEUES_HEAD: [&str; 2] = ["Timeout: 60.0 seconds ...", "Listing queues for vhost / ..."];

/// "python send.py", "python receive.py", and "View available queues" in between.
#[test]
fn hello_world_and_list_queues() {
    let Some(desk) = Desk::sit_down() else { return };
    assert_eq!(desk.shell("rabbitmqctl list_queues"), LIST_QUEUES_HEAD);
    assert_eq!(desk.run("send.py", &[]), [" [x] Sent 'Hello World!'"]);
    let listed = desk.shell("rabbitmqctl list_queues");
    assert_eq!(listed[..2], LIST_QUEUES_HEAD);
    assert_eq!(listed[2..], ["name\tmessages", "hello\t1"]);
    let mut receive = desk.start("receive.py");
    receive.expect_line(" [x] Received b'Hello World!'");
    assert_eq!(desk.shell("rabbitmqctl list_queues")[2..], ["name\tmessages", "hello\t0"]);
}

/// "Messages are distributed to workers in a round robin".
#[test]
fn two_workers_and_five_tasks() {
    let Some(desk) = Desk::sit_down() else { return };
    let mut first = desk.start("worker.py");
    first.expect_line(WAITING);
    let mut second = desk.start("worker.py");
    second.expect_line(WAITING);
    for words in [
        "First message.",
        "Second message..",
        "Third message...",
        "Fourth message....",
        "Fifth message.....",
    ] {
        desk.run("new_task.py", &words.split(' ').collect::<Vec<_>>());
    }
    let received = first.expect_lines(" [x] Received ", 3);
    assert_eq!(received, ["b'First message.'", "b'Third message...'", "b'Fifth message.....'"]);
    let received = second.expect_lines(" [x] Received ", 2);
    assert_eq!(received, ["b'Second message..'", "b'Fourth message....'"]);
}

/// "It is common to forget acknowledgements, so use: `list_queues name messages_ready
/// messages_unacknowledged`".
#[test]
fn forgotten_acknowledgements_are_seen() {
    let Some(desk) = Desk::sit_down() else { return };
    let line = "rabbitmqctl list_queues name messages_ready messages_unacknowledged";
    // Seconds of work for one worker, which takes one task at a time.
    for _ in 0..3 {
        desk.run("durable_task.py", &[&".".repeat(400)]);
    }
    let head = "name\tmessages_ready\tmessages_unacknowledged";
    assert_eq!(desk.shell(line)[2..], [head, "task_queue\t3\t0"]);
    let mut worker = desk.start("durable_worker.py");
    worker.expect_lines(" [x] Received ", 1);
    assert_eq!(desk.shell(line)[2..], [head, "task_queue\t2\t1"]);
    worker.kill();
    let mut worker = desk.start("durable_worker.py");
    worker.expect_lines(" [x] Received ", 1);
    assert_eq!(desk.shell(line)[2..], [head, "task_queue\t2\t1"]);
}

/// "When RabbitMQ quits or crashes it will forget the queues and messages unless you tell it not
/// to": what is durable stays, what is not goes.
#[test]
fn durable_tasks_stay_and_the_rest_goes() {
    let Some(mut desk) = Desk::sit_down() else { return };
    desk.run("send.py", &[]);
    desk.run("durable_task.py", &["keep", "me"]);
    let both: BTreeSet<String> = desk.shell("rabbitmqctl -s list_queues").into_iter().collect();
    assert_eq!(both, ["hello\t1", "task_queue\t1"].map(str::to_owned).into());
    desk.broker.kill();
    desk.broker.start_again();
    assert_eq!(desk.shell("rabbitmqctl -s list_queues"), ["task_queue\t1"]);
    let mut worker = desk.start("durable_worker.py");
    worker.expect_line(" [x] Received b'keep me'");
}

/// "You can also deliver a message to multiple consumers", "List exchanges on a server" and "List
/// existing bindings".
#[test]
fn broadcast_and_lists() {
    let Some(desk) = Desk::sit_down() else { return };
    let mut listeners = [desk.start("listen.py"), desk.start("listen.py")];
    for listener in &mut listeners {
        listener.expect_line(" [*] Waiting for logs. To exit press CTRL+C");
    }
    desk.run("broadcast.py", &["to", "everybody"]);
    for listener in &mut listeners {
        listener.expect_line(" [x] b'to everybody'");
    }
    check_exchanges(&desk.shell("rabbitmqctl list_exchanges"));
    let queues = desk.shell("rabbitmqctl -s list_queues name");
    assert_eq!(queues.len(), 2, "each listener has its own queue: {queues:?}");
    assert!(queues.iter().all(|queue| queue.starts_with("amq.gen-")), "{queues:?}");
    check_bindings(&desk.shell("rabbitmqctl list_bindings"), &queues);
    // "Once a consumer connection is closed the queue should be deleted".
    listeners.iter_mut().for_each(Program::kill);
    wait_until_empty(&desk);
}

fn check_exchanges(listed: &[String]) {
    assert_eq!(listed[..2], ["Listing exchanges for vhost / ...", "name\ttype"]);
    let rows: BTreeSet<&str> = listed[2..].iter().map(String::as_str).collect();
    let expected = [
        "\tdirect",
        "amq.direct\tdirect",
        "amq.fanout\tfanout",
        "amq.headers\theaders",
        "amq.match\theaders",
        "amq.rabbitmq.trace\ttopic",
        "amq.topic\ttopic",
        "logs\tfanout",
    ];
    assert_eq!(rows, expected.into());
    assert_eq!(listed.len(), 2 + expected.len());
}

fn check_bindings(listed: &[String], queues: &[String]) {
    let head =
        "source_name\tsource_kind\tdestination_name\tdestination_kind\trouting_key\targuments";
    assert_eq!(listed[..2], ["Listing bindings for vhost /...", head]);
    let rows: BTreeSet<String> = listed[2..].iter().cloned().collect();
    let expected = queues.iter().flat_map(|queue| {
        [
            format!("\texchange\t{queue}\tqueue\t{queue}\t[]"),
            // pika binds under the queue's name when the program gives no key.
            format!("logs\texchange\t{queue}\tqueue\t{queue}\t[]"),
        ]
    });
    assert_eq!(rows, expected.collect());
}

/// A connection that is lost without a word is noticed when its socket closes, not at once.
fn wait_until_empty(desk: &Desk) {
    for _ in 0..100 {
        if desk.shell("rabbitmqctl -s list_queues name").is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("the listeners' queues outlived them");
}

/// The same command lines through a link made by hand, in a folder that is not the broker's, when
/// told where the data is.
#[test]
fn a_link_named_rabbitmqctl_is_rabbitmqctl() {
    let broker = Broker::start();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let link = folder.path().join("rabbitmqctl");
    std::os::unix::fs::symlink(Path::new(env!("CARGO_BIN_EXE_leveretctl")), &link)
        .expect("a link can be made");
    let mut command = Command::new(&link);
    command.args(["list_queues", "--data-dir"]).arg(broker.data_dir());
    assert_eq!(run(command.current_dir(folder.path())), LIST_QUEUES_HEAD);
}
