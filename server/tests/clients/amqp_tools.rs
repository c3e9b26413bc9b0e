//! Debian's `amqp-tools`, which stand on librabbitmq.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::broker::Broker;
use crate::support::clients::has_amqp_tools;
use crate::support::program::run;

fn tool(name: &str, broker: &Broker) -> Command {
    let mut command = Command::new(name);
    command.arg("--url").arg(broker.amqp_url());
    command
}

/// Declare, publish, get, consume and delete from the shell.
#[test]
fn amqp_tools_talk_to_the_broker() {
    if !has_amqp_tools() {
        return;
    }
    let broker = Broker::start();
    assert_eq!(run(tool("amqp-declare-queue", &broker).args(["-d", "-q", "tools"])), ["tools"]);
    run(tool("amqp-publish", &broker).args(["-p", "-r", "tools", "-b", "one"]));
    let mut lines = tool("amqp-publish", &broker)
        .args(["-r", "tools", "-l"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("amqp-publish is installed");
    lines.stdin.take().expect("piped").write_all(b"two\nthree\n").expect("it reads its input");
    assert!(lines.wait().expect("our own child").success());
    assert_eq!(run(tool("amqp-get", &broker).args(["-q", "tools"])), ["one"]);
    let consume = &mut tool("amqp-consume", &broker);
    let printed = run(consume.args(["-q", "tools", "-c", "2", "-p", "1", "cat"]));
    assert_eq!(printed.concat().replace('\n', ""), "twothree");
    let empty = tool("amqp-get", &broker).args(["-q", "tools"]).status().expect("it runs");
    assert_eq!(empty.code(), Some(2), "amqp-get says so when there is nothing");
    assert_eq!(run(tool("amqp-delete-queue", &broker).args(["-q", "tools"])), ["0"]);
}
