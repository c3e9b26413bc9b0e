//! RabbitMQ's own `rabbitmqadmin`, and requests as other management tools send them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::support::broker::Broker;
use crate::support::clients::has_rabbitmqadmin;
use crate::support::program::run;

fn admin(broker: &Broker, arguments: &[&str]) -> Vec<String> {
    let port = broker.management_port().to_string();
    run(Command::new("rabbitmqadmin").args(["-H", "127.0.0.1", "-P", &port]).args(arguments))
}

/// Arguments and what it says to them.
const MADE: &[(&[&str], &str)] = &[
    (&["declare", "vhost", "name=shop"], "vhost declared"),
    (&["declare", "user", "name=ann", "password=x", "tags=monitoring"], "user declared"),
    (
        &["declare", "permission", "vhost=/", "user=ann", "configure=.*", "write=.*", "read=.*"],
        "permission declared",
    ),
    (&["declare", "exchange", "name=orders", "type=topic"], "exchange declared"),
    (&["declare", "queue", "name=q", "durable=true"], "queue declared"),
    (
        &["declare", "binding", "source=orders", "destination=q", "routing_key=order.#"],
        "binding declared",
    ),
    (
        &["declare", "policy", "name=p", "pattern=^q", "definition={\"max-length\":9}"],
        "policy declared",
    ),
    (
        &["declare", "vhost_limit", "vhost=shop", "name=max-queues", "value=5"],
        "vhost_limit declared",
    ),
    (
        &["publish", "exchange=orders", "routing_key=order.new", "payload=hello"],
        "Message published",
    ),
    (&["purge", "queue", "name=q"], "queue purged"),
    (&["publish", "routing_key=q", "payload=again"], "Message published"),
];

/// Declares, lists, publishes, gets, exports, imports and deletes everything that it can.
#[test]
fn rabbitmqadmin_manages_the_broker() {
    if !has_rabbitmqadmin() {
        return;
    }
    let broker = Broker::start();
    for (arguments, answer) in MADE {
        assert_eq!(admin(&broker, arguments), [*answer], "{arguments:?}");
    }
    let tsv = |arguments: &[&str]| admin(&broker, &[&["-f", "tsv"], arguments].concat());
    assert_eq!(tsv(&["list", "queues", "name", "messages"]), ["name\tmessages", "q\t1"]);
    let got = tsv(&["get", "queue=q", "ackmode=ack_requeue_false"]);
    assert!(got[1].contains("again"), "{got:?}");
    for kind in [
        "exchanges",
        "bindings",
        "connections",
        "channels",
        "consumers",
        "nodes",
        "users",
        "vhosts",
        "permissions",
        "policies",
        "parameters",
    ] {
        tsv(&["list", kind]);
    }
    assert!(tsv(&["show", "overview"])[0].contains("rabbitmq_version"));
    let file = broker.folder().join("definitions.json");
    let file = file.to_str().expect("a text");
    admin(&broker, &["export", file]);
    assert_eq!(admin(&broker, &["delete", "queue", "name=q"]), ["queue deleted"]);
    admin(&broker, &["import", file]);
    assert_eq!(tsv(&["list", "queues", "name"]), ["name", "q"]);
    let binding = [
        "delete",
        "binding",
        "source=orders",
        "destination_type=queue",
        "destination=q",
        "properties_key=order.%23",
    ];
    assert_eq!(admin(&broker, &binding), ["binding deleted"]);
}

/// Sends one request as `guest` and returns status and body.
fn request(broker: &Broker, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", broker.management_port())).expect("listens");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\
         connection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("takes it");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("answers");
    let status = reply.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = reply.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.expect("a status"), body.to_owned())
}

/// What Terraform's provider sends to make, read and destroy resources, in its order, and what it
/// takes for success; then how KEDA, Flower and a load balancer ask.
#[test]
fn other_tools_requests_are_answered_as_they_expect() {
    let broker = Broker::start();
    for (method, path, body, status) in [
        ("GET", "/api/overview", "", 200),
        ("PUT", "/api/vhosts/tf", "", 201),
        ("GET", "/api/vhosts/tf", "", 200),
        ("PUT", "/api/users/tf", r#"{"password":"x","tags":"administrator,management"}"#, 201),
        ("PUT", "/api/permissions/tf/tf", r#"{"configure":".*","write":".*","read":".*"}"#, 201),
        ("GET", "/api/users/tf/permissions", "", 200),
        ("PUT", "/api/permissions/tf/guest", r#"{"configure":".*","write":".*","read":".*"}"#, 204),
        (
            "PUT",
            "/api/exchanges/tf/x",
            r#"{"type":"fanout","durable":false,"auto_delete":true}"#,
            201,
        ),
        ("PUT", "/api/queues/tf/q", r#"{"durable":true,"arguments":{"x-max-length":5}}"#, 201),
        ("POST", "/api/bindings/tf/e/x/q/q", r##"{"routing_key":"#","arguments":{}}"##, 201),
        ("GET", "/api/bindings/tf/e/x/q/q/%23", "", 404),
        ("GET", "/api/bindings/tf/e/x/q/q/%2523", "", 200),
        (
            "PUT",
            "/api/policies/tf/p",
            r#"{"pattern":".*","apply-to":"all","priority":0,"definition":{"max-length":9}}"#,
            201,
        ),
        (
            "PUT",
            "/api/topic-permissions/tf/tf",
            r#"{"exchange":"amq.topic","write":".*","read":".*"}"#,
            201,
        ),
        ("PUT", "/api/vhost-limits/tf/max-queues", r#"{"value":9}"#, 204),
        ("GET", "/api/queues/tf/q", "", 200),
        (
            "GET",
            "/api/queues/tf?page=1&use_regex=true&pagination=false&name=%5Eq%24&page_size=100",
            "",
            200,
        ),
        ("GET", "/api/queues/tf", "", 200),
        ("GET", "/api/health/checks/ready-to-serve-clients", "", 200),
        ("DELETE", "/api/policies/tf/p", "", 204),
        ("DELETE", "/api/queues/tf/q", "", 204),
        ("GET", "/api/queues/tf/q", "", 404),
        ("DELETE", "/api/users/tf", "", 204),
        ("DELETE", "/api/vhosts/tf", "", 204),
        ("GET", "/api/vhosts/tf", "", 404),
    ] {
        let (found, reply) = request(&broker, method, path, body);
        assert_eq!(found, status, "{method} {path}: {reply}");
    }
}
