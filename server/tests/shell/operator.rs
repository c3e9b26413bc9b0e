//! The operator's tools against the real process, by the names that `leveret links` gives them.

use std::path::PathBuf;
use std::process::Command;

use leveret_protocol::method::Method;

use crate::peer::Peer;
use crate::support::broker::Broker;

/// A broker, and a folder with all tools.
struct Desk {
    broker: Broker,
    tools: PathBuf,
}

impl Desk {
    fn sit_down() -> Desk {
        let broker = Broker::start();
        let tools = broker.folder().join("bin");
        let links = Command::new(env!("CARGO_BIN_EXE_leveret")).arg("links").arg(&tools).output();
        assert!(links.expect("leveret runs").status.success());
        Desk { broker, tools }
    }

    /// What a command line prints, which must end with a code.
    fn run(&self, line: &str, code: i32) -> String {
        let mut words = line.split(' ');
        let tool = self.tools.join(words.next().expect("a tool comes first"));
        let output = Command::new(tool)
            .args(words)
            .env("LEVERET_DATA_DIR", self.broker.data_dir())
            .output()
            .expect("the tool runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {stderr}");
        String::from_utf8(output.stdout).expect("tools print UTF-8")
    }

    fn open(&self) -> Peer {
        Peer::open(self.broker.amqp_address(), 0)
    }
}

/// The text of the `connection.close` that comes next.
fn goodbye(mut peer: Peer) -> String {
    let frame = peer.frame().expect("a goodbye comes");
    let Method::ConnectionClose(close) = frame.method() else { panic!("{frame:?}") };
    let text = close.reply_text.to_owned();
    peer.call(0, &Method::ConnectionCloseOk);
    assert!(peer.is_closed());
    text
}

#[test]
fn every_tool_answers_by_its_name() {
    let desk = Desk::sit_down();
    assert_eq!(desk.run("rabbitmqctl version", 0), "4.2.0\n");
    assert_eq!(desk.run("rabbitmq-diagnostics -q ping", 0), "Ping succeeded\n");
    assert!(desk.run("rabbitmq-plugins -q list -E -m", 0).contains("rabbitmq_management\n"));
    assert!(desk.run("rabbitmq-queues help", 0).contains("quorum_status"));
    assert!(desk.run("rabbitmq-upgrade help", 0).contains("await_online_quorum_plus_one"));
    assert!(desk.run("rabbitmq-streams help", 0).contains("add_replica"));
    desk.run("rabbitmq-upgrade add_user x y", 64);
    desk.run("rabbitmq-diagnostics -q check_running", 0);
    desk.run("rabbitmq-diagnostics -q check_local_alarms", 0);
    desk.run("rabbitmq-diagnostics -q check_port_connectivity", 0);
}

#[test]
fn connections_are_closed_for_the_reason_given() {
    let desk = Desk::sit_down();
    let (one, two) = (desk.open(), desk.open());
    let port = one.socket.local_addr().expect("it is connected").port();
    let rows = desk.run("rabbitmqctl -s list_connections peer_port pid", 0);
    assert_eq!(rows.lines().count(), 2);
    let own = rows.lines().find_map(|row| row.strip_prefix(&format!("{port}\t")));
    let pid = own.expect("the first connection is listed");
    desk.run(&format!("rabbitmqctl close_connection {pid} maintenance"), 0);
    assert_eq!(goodbye(one), "CONNECTION_FORCED - maintenance");
    let out = desk.run("rabbitmqctl -q close_all_connections --limit 1 enough", 0);
    assert_eq!(out, "Closed 1 connections\n");
    assert_eq!(goodbye(two), "CONNECTION_FORCED - enough");
    let three = desk.open();
    desk.run("rabbitmqctl close_all_user_connections guest bye", 0);
    assert_eq!(goodbye(three), "CONNECTION_FORCED - bye");
}

#[test]
fn a_user_made_by_command_line_has_what_it_was_given() {
    let desk = Desk::sit_down();
    desk.run("rabbitmqctl -q add_vhost shop", 0);
    desk.run("rabbitmqctl -q add_user alice secret", 0);
    desk.run("rabbitmqctl -q authenticate_user alice wrong", 65);
    assert_eq!(desk.run("rabbitmqctl -q authenticate_user alice secret", 0), "Success\n");
    desk.run("rabbitmqctl -q set_permissions -p shop alice .* .* .*", 0);
    let rows = desk.run("rabbitmqctl -q list_user_permissions alice", 0);
    assert_eq!(rows, "vhost\tconfigure\twrite\tread\nshop\t.*\t.*\t.*\n");
}
