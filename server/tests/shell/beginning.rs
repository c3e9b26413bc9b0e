//! What a broker begins with: definitions, first users, and the limits it was configured with.

use std::path::Path;

use leveret_protocol::method::{Method, MethodId};

use crate::check_refused;
use crate::peer::Peer;
use crate::support::broker::Broker;

/// As charts write it: hashes, no vhost of their own, arguments, an operator policy.
const DEFINITIONS: &str = r#"{
  "rabbit_version": "3.10.8",
  "users": [
    {"name": "ann", "password_hash": "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR",
     "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ["administrator"]},
    {"name": "old", "password_hash": "kI3GChNpte2FApYFXScl+0dIluk=",
     "hashing_algorithm": "rabbit_password_hashing_md5", "tags": ""}
  ],
  "vhosts": [{"name": "shop"}],
  "permissions": [
    {"user": "ann", "vhost": "shop", "configure": ".*", "write": ".*", "read": ".*"}
  ],
  "policies": [
    {"vhost": "shop", "name": "ttl", "pattern": "^q", "apply-to": "queues",
     "definition": {"message-ttl": 300000}, "priority": 1}
  ],
  "queues": [
    {"name": "q1", "vhost": "shop", "durable": true, "auto_delete": false,
     "arguments": {"x-max-length": 1000}}
  ],
  "exchanges": [
    {"name": "orders", "vhost": "shop", "type": "topic", "durable": true, "auto_delete": false,
     "internal": false, "arguments": {}}
  ],
  "bindings": [
    {"source": "orders", "vhost": "shop", "destination": "q1", "destination_type": "queue",
     "routing_key": "order.#", "arguments": {}}
  ]
}"#;

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("a temporary folder can be written to");
    path.to_str().expect("its path is text").to_owned()
}

/// Goal: what definitions say is there when the first client can connect, and nothing else is; a
/// second start changes nothing.
#[test]
fn definitions_are_there_before_anybody_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "definitions.json", DEFINITIONS);
    let mut broker = Broker::start_with(&["--set", &format!("load_definitions={file}")]);
    for _ in 0..2 {
        let mut ann = Peer::open_in(broker.amqp_address(), "ann", "test12", "shop");
        assert_eq!(ann.declare_passive("q1"), Some(0));
        assert!(Peer::is_refused(broker.amqp_address(), "guest", "guest", "/"));
        assert_eq!(broker.ctl_stdout(&["-q", "list_vhosts", "name"]).trim(), "name\nshop");
        let bindings = broker.ctl_stdout(&["-q", "list_bindings", "-p", "shop", "routing_key"]);
        assert_eq!(bindings.matches("order.#").count(), 1, "{bindings}");
        assert_eq!(broker.terminate().code(), Some(0));
        broker.start_again();
    }
}

#[test]
fn a_folder_of_definitions_is_read_in_the_order_of_names() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "1-base.json", r#"{"vhosts": [{"name": "a"}]}"#);
    write(
        dir.path(),
        "2-queues.json",
        r#"{"queues": [{"name": "q", "vhost": "a", "durable": true, "auto_delete": false, "arguments": {}}]}"#,
    );
    write(dir.path(), "notes.txt", "not JSON");
    let path = format!("definitions.local.path={}", dir.path().display());
    let backend = "definitions.import_backend=local_filesystem";
    let broker = Broker::start_with(&["--set", backend, "--set", &path]);
    assert_eq!(broker.ctl_stdout(&["-q", "list_queues", "-p", "a", "name"]).trim(), "name\nq");
}

/// Goal: a broken file stops the start, is named with its entry, and leaves nothing behind.
#[test]
fn broken_definitions_are_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let check = |file: &str, parts: &[&str]| {
        // What a start that was refused left behind is another test's business.
        let _ = std::fs::remove_dir_all(data);
        let free =
            ["--data-dir", data, "--listen", "127.0.0.1:0", "--set", "management.tcp.port=0"];
        let set = format!("load_definitions={file}");
        check_refused(&[free.as_slice(), &["--set", &set]].concat(), parts);
    };
    let wrong = DEFINITIONS.replace("\"topic\"", "\"nonsense\"");
    let file = write(dir.path(), "type.json", &wrong);
    check(&file, &["type.json", "exchanges[0] 'orders'", "nonsense"]);
    let file =
        write(dir.path(), "vhost.json", &DEFINITIONS.replace("[{\"name\": \"shop\"}]", "[]"));
    check(&file, &["vhost.json", "permissions[0]", "virtual host \"shop\""]);
    check(&write(dir.path(), "cut.json", &DEFINITIONS[..300]), &["cut.json", "line "]);
    check("/nowhere.json", &["cannot read", "/nowhere.json"]);

    // Nothing of the broken files is there when the next start gets none.
    check(&write(dir.path(), "type.json", &wrong), &["type.json"]);
    let broker = Broker::start_with(&["--data-dir", data]);
    let vhosts = broker.http("GET", "/api/vhosts?columns=name", "");
    assert!(!vhosts.contains("shop"), "{vhosts}");
}

/// Goal: extra users, limits and policies come with each new virtual host.
#[test]
fn new_virtual_hosts_begin_with_what_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(
        dir.path(),
        "x.conf",
        "default_users.ops.password = s3cret\n\
         default_users.ops.tags = monitoring\n\
         default_users.ops.vhost_pattern = ^dev\n\
         default_limits.vhosts.1.pattern = ^dev\n\
         default_limits.vhosts.1.max_queues = 1\n\
         default_policies.operator.cap.vhost_pattern = ^dev\n\
         default_policies.operator.cap.max_length = 10\n\
         vhost_max = 2\n",
    );
    let broker = Broker::start_with(&["--config", &file]);
    assert!(Peer::is_refused(broker.amqp_address(), "ops", "s3cret", "/"));
    let put = |path: &str, body: &str| broker.http("PUT", path, body);
    assert!(put("/api/vhosts/dev1", "{}").starts_with("HTTP/1.1 201"));
    let mut ops = Peer::open_in(broker.amqp_address(), "ops", "s3cret", "dev1");
    ops.declare("one");
    ops.send_declare("two");
    let frame = ops.frame().unwrap();
    let Method::ChannelClose(close) = frame.method() else { panic!("{:?}", frame.method()) };
    assert!(close.reply_text.contains("queue limit in vhost 'dev1' (1) is reached"));
    let policies = broker.http("GET", "/api/operator-policies/dev1/cap", "");
    assert!(policies.contains("\"max-length\":10"), "{policies}");
    let refused = put("/api/vhosts/dev2", "{}");
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
    assert!(refused.contains("cannot create vhost 'dev2': vhost limit of 2 is reached"));
}

#[test]
fn limits_of_the_node_are_refused_in_rabbitmqs_words() {
    let broker = Broker::start_with(&[
        "--set",
        "cluster_queue_limit=1",
        "--set",
        "consumer_max_per_channel=1",
        "--set",
        "channel_max_per_node=2",
    ]);
    let mut peer = Peer::open(broker.amqp_address(), 0);
    peer.declare("q");
    peer.call(2, &Method::ChannelOpen);
    peer.expect(MethodId::CHANNEL_OPEN_OK);
    peer.send_declare("r");
    let text =
        "PRECONDITION_FAILED - cannot declare queue 'r': queue limit in cluster (1) is reached";
    assert_eq!(peer.channel_close(), (406, text.to_owned()));
    peer.call(1, &Method::ChannelCloseOk);
    peer.call(1, &Method::ChannelOpen);
    peer.expect(MethodId::CHANNEL_OPEN_OK);
    peer.consume("q");
    peer.expect(MethodId::BASIC_CONSUME_OK);
    peer.consume_as("q", "d");
    let text = "NOT_ALLOWED - reached maximum (1) of consumers per channel";
    assert_eq!(peer.connection_close(), (530, text.to_owned()));

    let mut peer = Peer::open(broker.amqp_address(), 0);
    peer.call(2, &Method::ChannelOpen);
    peer.expect(MethodId::CHANNEL_OPEN_OK);
    peer.call(3, &Method::ChannelOpen);
    let (code, text) = peer.connection_close();
    assert_eq!(code, 530);
    assert!(text.contains("maximum allowed limit of (2)"), "{text}");
}

#[test]
fn passwords_follow_the_configured_rule_and_hash() {
    let broker = Broker::start_with(&[
        "--set",
        "credential_validator.validation_backend=rabbit_credential_validator_min_password_length",
        "--set",
        "credential_validator.min_length=8",
        "--set",
        "password_hashing_module=rabbit_password_hashing_sha512",
    ]);
    let refused = broker.http("PUT", "/api/users/ann", r#"{"password": "short", "tags": ""}"#);
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
    assert!(refused.contains("minimum required password length: 8"), "{refused}");
    assert!(!refused.contains("short"));
    let file = r#"{"users": [{"name": "bob", "password": "short", "tags": []}]}"#;
    let refused = broker.http("POST", "/api/definitions", file);
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
    let made = broker.http("PUT", "/api/users/ann", r#"{"password": "longenough", "tags": ""}"#);
    assert!(made.starts_with("HTTP/1.1 201"), "{made}");
    assert!(broker.http("GET", "/api/users/ann", "").contains("rabbit_password_hashing_sha512"));
}
