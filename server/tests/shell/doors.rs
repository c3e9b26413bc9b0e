//! The operator at the doors: `stop_app` and `start_app`, suspended listeners, maintenance, the end
//! by order.

use std::net::TcpStream;

use leveret_protocol::method::Method;

use crate::peer::Peer;
use crate::support::broker::Broker;

/// Runs a command line, which must end with a code; returns its standard output.
fn ctl(broker: &Broker, line: &str, code: i32) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let output = broker.ctl(&words);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line}: {stderr}");
    String::from_utf8(output.stdout).expect("leveretctl prints UTF-8")
}

fn lets_in(broker: &Broker) -> bool {
    TcpStream::connect(broker.amqp_address()).is_ok()
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
fn a_stopped_node_answers_its_operator_and_nobody_else() {
    let broker = Broker::start();
    let mut peer = Peer::open(broker.amqp_address(), 0);
    peer.declare("q");
    ctl(&broker, "stop_app", 0);
    let text = goodbye(peer);
    assert_eq!(text, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'");
    assert!(!lets_in(&broker));
    assert_eq!(ctl(&broker, "-q ping", 0), "Ping succeeded\n");
    ctl(&broker, "check_running", 69);
    ctl(&broker, "list_queues", 64);
    ctl(&broker, "start_app", 0);
    let mut peer = Peer::open(broker.amqp_address(), 0);
    peer.declare("q");
    assert_eq!(ctl(&broker, "-s list_queues name", 0), "q\n");
}

#[test]
fn suspended_listeners_let_nobody_in_and_keep_who_is_there() {
    let broker = Broker::start();
    let mut peer = Peer::open(broker.amqp_address(), 0);
    ctl(&broker, "suspend_listeners", 0);
    assert!(!lets_in(&broker));
    peer.declare("q");
    assert_eq!(ctl(&broker, "-s list_queues name", 0), "q\n");
    ctl(&broker, "check_port_connectivity", 69);
    ctl(&broker, "resume_listeners", 0);
    assert!(lets_in(&broker));
    ctl(&broker, "check_port_connectivity", 0);
}

#[test]
fn maintenance_sends_everybody_away_until_the_node_is_revived() {
    let broker = Broker::start();
    let peer = Peer::open(broker.amqp_address(), 0);
    ctl(&broker, "drain", 0);
    assert_eq!(goodbye(peer), "CONNECTION_FORCED - Node was put into maintenance mode");
    assert!(!lets_in(&broker));
    assert!(ctl(&broker, "status", 0).contains("Is under maintenance?: true\n"));
    ctl(&broker, "revive", 0);
    assert!(ctl(&broker, "status", 0).contains("Is under maintenance?: false\n"));
    drop(Peer::open(broker.amqp_address(), 0));
}

#[test]
fn doors_whose_port_was_taken_meanwhile_stay_closed_and_say_so() {
    let broker = Broker::start();
    ctl(&broker, "stop_app", 0);
    let taken = std::net::TcpListener::bind(broker.amqp_address()).expect("nobody has the port");
    let output = broker.ctl(&["start_app"]);
    assert_eq!(output.status.code(), Some(69));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(&format!("port {} is taken", broker.amqp_port())), "{stderr}");
    ctl(&broker, "check_running", 69);
    drop(taken);
    ctl(&broker, "start_app", 0);
    assert!(lets_in(&broker));
}

#[test]
fn a_shutdown_by_order_ends_the_process_as_a_signal_does() {
    let mut broker = Broker::start();
    let output = broker.ctl(&["shutdown", "--no-wait"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(broker.wait().code(), Some(0));
    let output = broker.ctl(&["-q", "ping"]);
    assert_eq!(output.status.code(), Some(69));
    broker.start_again();
    drop(Peer::open(broker.amqp_address(), 0));
}
