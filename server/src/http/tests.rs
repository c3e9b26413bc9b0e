//! The API from outside: requests over its sockets, answered by canned rows.

use super::fake::Fake;
use super::{resources, route};
use crate::broker::control::{Actor, ControlRequest};
use leveret_protocol::FieldValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const SHAPES: &str = include_str!("shapes.txt");

/// The fields RabbitMQ's reply of a kind has, with the types each may have.
fn shape(kind: &str) -> BTreeMap<&'static str, &'static str> {
    let header = format!("[{kind}]");
    let lines = SHAPES.lines().skip_while(|line| *line != header).skip(1);
    let fields: BTreeMap<_, _> = lines
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(' '))
        .collect();
    assert!(!fields.is_empty(), "no shape of {kind}");
    fields
}

/// All values at a path like `listeners[].port`.
fn values<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    path.split('.').fold(vec![value], |values, step| {
        let (key, depth) = (step.trim_end_matches("[]"), step.matches("[]").count());
        let mut values: Vec<&Value> = values.iter().filter_map(|value| value.get(key)).collect();
        for _ in 0..depth {
            values = values.iter().filter_map(|value| value.as_array()).flatten().collect();
        }
        values
    })
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Fields that our canned rows have no reason to show.
const NOT_HERE: &[&str] = &["contexts[].protocol", "idle_since"];

fn check_shape(kind: &str, value: &Value) {
    let mut wrong = Vec::new();
    for (path, types) in shape(kind) {
        let (types, rate) = match types.split_once(' ') {
            Some((types, _)) => (types, true),
            None => (types, false),
        };
        let found = values(value, path);
        if found.is_empty() && !NOT_HERE.contains(&path) {
            wrong.push(format!("{path} is missing"));
        }
        for value in found {
            if !types.split('|').any(|one| one == type_of(value)) {
                wrong.push(format!("{path} is {}, not {types}", type_of(value)));
            }
        }
        if rate && !values(value, &format!("{path}_details.rate")).iter().all(|rate| rate.is_f64())
        {
            wrong.push(format!("{path}_details.rate is no float"));
        }
    }
    assert!(wrong.is_empty(), "{kind}: {}", wrong.join("; "));
}

/// Goal: whoever reads RabbitMQ's replies finds all fields in ours, with the types they expect.
/// Method: shapes taken from captured replies of RabbitMQ 3.10, against replies made of canned rows.
#[test]
fn replies_have_the_fields_of_rabbitmqs() {
    let fake = Fake::start();
    let connection = "127.0.0.1%3A49202%20-%3E%20127.0.0.1%3A5672";
    for (kind, path) in [
        ("overview", "/api/overview"),
        ("node", "/api/nodes/rabbit%40box"),
        ("memory", "/api/nodes/rabbit%40box/memory"),
        ("queue_classic", "/api/queues/%2F/q1"),
        ("queue_quorum", "/api/queues/%2F/qq1"),
        ("queue_exclusive", "/api/queues/%2F/excl1"),
        ("exchange", "/api/exchanges/%2F/orders"),
        ("binding", "/api/bindings/%2F/e/orders/q/q1/~"),
        ("connection", &format!("/api/connections/{connection}")),
        ("channel", &format!("/api/channels/{connection}%20(1)")),
        ("vhost", "/api/vhosts/%2F"),
        ("user", "/api/users/guest"),
        ("permission", "/api/permissions/%2F/guest"),
        ("topic_permission", "/api/topic-permissions/%2F/guest/amq.topic"),
        ("whoami", "/api/whoami"),
        ("page", "/api/queues?page=1"),
    ] {
        check_shape(kind, &fake.get(path));
    }
    for consumer in fake.get("/api/consumers").as_array().unwrap() {
        check_shape("consumer", consumer);
    }
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect()
}

#[test]
fn lists_are_sorted_projected_and_paged() {
    let fake = Fake::start();
    assert_eq!(names(&fake.get("/api/queues")), ["excl1", "q1", "qq1"]);
    assert_eq!(names(&fake.get("/api/queues/%2F/?sort=name&sort_reverse=true"))[0], "qq1");
    assert_eq!(
        fake.get("/api/queues?columns=name,message_stats.publish_details.rate")[0],
        json!({"name": "excl1", "message_stats": {"publish_details": {"rate": 0.0}}})
    );
    let page = fake.get("/api/queues?page=1&page_size=2&name=Q&columns=name");
    assert_eq!(
        page,
        json!({
            "total_count": 3, "filtered_count": 2, "item_count": 2, "page": 1, "page_size": 2,
            "page_count": 1, "items": [{"name": "q1"}, {"name": "qq1"}],
        })
    );
    let answer = fake.request("GET", "/api/queues?page=9&page_size=2", "");
    let reason = "Page out of range, page: 9 page size: 2, len: 3";
    assert_eq!(answer.json(), json!({"error": "page_out_of_range", "reason": reason}));
    assert_eq!(fake.get("/api/queues/shop"), json!([]));
}

#[test]
fn who_may_not_is_told_in_rabbitmqs_words() {
    let fake = Fake::start();
    let check = |credentials: &str, path: &str, expected: Option<(&str, &str)>| {
        let answer = fake.request_as(credentials, "GET", path, "", "");
        match expected {
            None => assert_eq!(answer.status, 200, "{credentials} {path}: {}", answer.body),
            Some((error, reason)) => {
                assert_eq!(answer.status, 401, "{credentials} {path}");
                assert_eq!(answer.json(), json!({"error": error, "reason": reason}));
            }
        }
    };
    check("guest:guest", "/api/nodes", None);
    check("guest:wrong", "/api/nodes", Some(("not_authorized", "Login failed")));
    check("nobody:nobody", "/api/nodes", Some(("not_authorized", "Login failed")));
    check("alice:alice", "/api/overview", Some(("not_authorised", "Not management user")));
    check("mgr:mgr", "/api/overview", None);
    check("mgr:mgr", "/api/nodes", Some(("not_authorised", "Not monitor user")));
    check("mgr:mgr", "/api/users", Some(("not_authorised", "Not administrator user")));
    let no_vhost = "User not authorised to access virtual host";
    check("mon:mon", "/api/queues/%2F", Some(("not_authorised", no_vhost)));
    assert_eq!(fake.request_as("mon:mon", "GET", "/api/queues", "", "").json(), json!([]));
    assert_eq!(fake.request_as("mgr:mgr", "GET", "/api/connections", "", "").json(), json!([]));
    let open = fake.raw(b"GET /api/health/checks/is-in-service HTTP/1.0\r\n\r\n");
    assert!(open.starts_with("HTTP/1.0 200"), "{open}");
    let closed = fake.raw(b"GET /api/overview HTTP/1.0\r\n\r\n");
    assert!(closed.starts_with("HTTP/1.0 401"), "{closed}");
    assert!(closed.contains("www-authenticate: Basic realm=\"RabbitMQ Management\""), "{closed}");
}

#[test]
fn paths_that_name_nothing_are_not_found() {
    let fake = Fake::start();
    for path in [
        "/api/nope",
        "/api//queues",
        "/api/queues/novhost",
        "/api/queues/%2F/nope",
        "/api/exchanges/%2F/nope",
        "/api/bindings/%2F/e/orders/q/q1/nope",
        "/api/bindings/%2F/e/orders/q/q1/a%20b%2Fc%7Ed",
        "/api/connections/nope",
        "/api/channels/nope",
        "/api/nodes/other%40box",
        "/api/vhosts/nope",
        "/api/vhosts/nope/permissions",
        "/api/users/nope",
        "/api/permissions/%2F/mon",
        "/api/aliveness-test/nope",
        "/api/consumers/nope",
    ] {
        let answer = fake.request("GET", path, "");
        assert_eq!(answer.status, 404, "{path}: {}", answer.body);
        let expected = json!({"error": "Object Not Found", "reason": "Not Found"});
        assert_eq!(answer.json(), expected, "{path}");
    }
}

#[test]
fn methods_heads_and_headers_follow_the_rules() {
    let fake = Fake::start();
    let answer = fake.request("DELETE", "/api/overview", "");
    assert_eq!((answer.status, answer.body.as_str()), (405, ""));
    assert!(answer.head.contains("allow: head, get, options"), "{}", answer.head);
    let answer = fake.request("OPTIONS", "/api/queues/%2F/q1", "");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("allow: head, get, put, delete, options"), "{}", answer.head);
    let answer = fake.request("HEAD", "/api/whoami", "");
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert!(!answer.head.contains("content-length: 0"), "{}", answer.head);
    let whoami = fake.request("GET", "/api/whoami/", "");
    assert!(whoami.head.contains("content-type: application/json\r\n"), "{}", whoami.head);
    assert!(whoami.head.contains("cache-control: no-cache"), "{}", whoami.head);
    let html = fake.request_as("guest:guest", "GET", "/api/whoami", "accept: text/html\r\n", "");
    assert_eq!((html.status, html.body.as_str()), (406, ""));
    assert_eq!(fake.request("GET", "/", "").status, 200);
    let moved = fake.request("GET", "/api", "");
    assert!(moved.head.contains("location: /api/index.html"), "{}", moved.head);
}

#[test]
fn declarations_reach_the_broker_and_its_refusals_the_client() {
    let fake = Fake::start();
    let body =
        r#"{"durable":"true","auto_delete":false,"arguments":{"x-max-length":5},"vhost":"/"}"#;
    assert_eq!(fake.request("PUT", "/api/queues/%2F/new%2F1", body).status, 201);
    let ControlRequest::DeclareQueue { actor, vhost, name, durable, arguments, .. } =
        fake.last_order()
    else {
        panic!("no declaration")
    };
    assert_eq!((vhost.as_str(), name.as_str(), durable), ("/", "new/1", true));
    assert_eq!(actor, Actor::User("guest".to_owned()));
    assert_eq!(arguments.as_ref().get("x-max-length").and_then(FieldValue::as_i64), Some(5));
    assert_eq!(fake.request("PUT", "/api/queues/%2F/q1", "").status, 204);
    let refused = |method: &str, path: &str, body: &str| {
        let answer = fake.request(method, path, body);
        (answer.status, answer.json()["error"].clone(), answer.json()["reason"].clone())
    };
    let bad = |reason: Value| (400, json!("bad_request"), reason);
    let yes = json!(["not_boolean", "yes"]);
    assert_eq!(refused("PUT", "/api/queues/%2F/x", r#"{"durable":"yes"}"#), bad(yes));
    assert_eq!(refused("PUT", "/api/queues/%2F/x", "not json"), bad(json!("not_json")));
    assert_eq!(refused("PUT", "/api/queues/%2F/x", "[]"), bad(json!("not_json")));
    let node = json!("Node nope@x could not be contacted");
    assert_eq!(refused("PUT", "/api/queues/%2F/x", r#"{"node":"nope@x"}"#), bad(node));
    let long = format!("/api/queues/%2F/{}", "q".repeat(256));
    let text = json!("queue should be less than 255 bytes, actually was 256\n");
    assert_eq!(refused("PUT", &long, ""), bad(text));
    let denied = (401, json!("not_authorised"), json!("Access refused."));
    assert_eq!(refused("PUT", "/api/queues/%2F/amq.x", ""), denied);
    let no_vhost = (404, json!("not_found"), json!("vhost_not_found"));
    assert_eq!(refused("PUT", "/api/queues/nope/x", ""), no_vhost);
    let not_empty = json!("queue 'q1' in vhost '/' not empty");
    assert_eq!(refused("DELETE", "/api/queues/%2F/q1?if-empty=true", ""), bad(not_empty));
    let no_queue = (404, json!("not_found"), json!("no queue 'nope' in vhost '/'"));
    assert_eq!(refused("POST", "/api/bindings/%2F/e/orders/q/nope", "{}"), no_queue);
}

#[test]
fn bindings_are_named_by_where_they_are() {
    let fake = Fake::start();
    for (key, location) in [("", "q1/~"), ("a b/c~d", "q1/a%2bb%252fc%257ed"), ("~", "q1/%257e")] {
        let body = json!({"routing_key": key}).to_string();
        let answer = fake.request("POST", "/api/bindings/%2F/e/orders/q/q1", &body);
        assert_eq!(answer.status, 201);
        let line = answer.head.lines().find(|line| line.starts_with("location: ")).unwrap();
        assert_eq!(line, format!("location: {location}"));
    }
    let double = "/api/bindings/%2F/e/orders/q/q1/a%2Bb%252Fc%257Ed";
    assert_eq!(fake.request("DELETE", double, "").status, 204);
    let ControlRequest::Bind { binding, unbind: true, .. } = fake.last_order() else {
        panic!("no order")
    };
    assert_eq!(binding.routing_key, "a b/c~d");
}

#[test]
fn closing_a_connection_passes_the_reason_on() {
    let fake = Fake::start();
    let path = "/api/connections/127.0.0.1%3A49202%20-%3E%20127.0.0.1%3A5672";
    assert_eq!(fake.request("DELETE", path, "").status, 204);
    let ControlRequest::CloseConnection { id, reason } = fake.last_order() else { panic!() };
    assert_eq!((id, reason.as_str()), (7, "Closed via management plugin"));
    fake.request_as("guest:guest", "DELETE", path, "x-reason: bye\r\n", "");
    let ControlRequest::CloseConnection { reason, .. } = fake.last_order() else { panic!() };
    assert_eq!(reason, "bye");
    let answer = fake.request_as("mgr:mgr", "DELETE", path, "", "");
    assert_eq!(answer.status, 401);
}

#[test]
fn oversized_bodies_and_heads_are_refused() {
    let fake = Fake::start();
    let body = format!("{{\"x\":\"{}\"}}", "y".repeat(200_000));
    assert_eq!(fake.request("PUT", "/api/queues/%2F/x", &body).status, 413);
    let head = format!("x-long: {}\r\n", "z".repeat(200_000));
    assert_eq!(fake.request_as("guest:guest", "GET", "/api/whoami", &head, "").status, 431);
    assert_eq!(fake.request("GET", "/api/whoami", "").status, 200, "others are served");
}

#[test]
fn health_checks_answer_with_their_status() {
    let fake = Fake::start();
    let ok = json!({"status": "ok"});
    assert_eq!(fake.get("/api/health/checks/alarms"), ok);
    assert_eq!(fake.get("/api/healthchecks/node"), ok);
    assert_eq!(fake.get("/api/aliveness-test/%2F"), ok);
    let port = fake.get("/api/health/checks/port-listener/5672");
    assert_eq!(port, json!({"status": "ok", "port": 5672}));
    let answer = fake.request("GET", "/api/health/checks/port-listener/9999", "");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["missing"], 9999);
    let answer = fake.request("GET", "/api/health/checks/protocol-listener/stomp", "");
    assert_eq!((answer.status, &answer.json()["status"]), (503, &json!("failed")));
    assert_eq!(fake.request("GET", "/api/health/checks/port-listener/abc", "").status, 400);
    let bad = "/api/health/checks/certificate-expiration/1/nope";
    assert_eq!(fake.request("GET", bad, "").status, 400);
}

/// Goal: the control socket needs no password and is an administrator's.
#[test]
fn the_control_socket_is_the_operators() {
    let fake = Fake::start();
    let client = crate::ctl::client_of(fake.dir.path());
    assert_eq!(client.get("/whoami").unwrap()["name"], "rmq-cli");
    assert_eq!(names(&client.get("/users").unwrap()).len(), 4);
    let reply = client.request("PUT", "/queues/%2F/new", None).unwrap();
    assert_eq!(reply.status, 201);
    let ControlRequest::DeclareQueue { actor, .. } = fake.last_order() else { panic!() };
    assert_eq!(actor, Actor::Operator);
}

/// Goal: no route hides another, so that each can be reached.
#[test]
fn every_route_is_found_by_its_own_path() {
    for wanted in resources() {
        let segments: Vec<String> = wanted
            .path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| if part.starts_with('{') { "x-y-z".to_owned() } else { part.to_owned() })
            .collect();
        let found = route::find(resources(), &segments).expect("its own path fits");
        assert_eq!(found.route.path, wanted.path);
        let mut methods: Vec<_> =
            wanted.verbs.iter().map(|verb| format!("{:?}", verb.method)).collect();
        methods.sort_unstable();
        methods.dedup();
        assert_eq!(methods.len(), wanted.verbs.len(), "{}", wanted.path);
        assert!(wanted.verbs.iter().all(|verb| !verb.summary.is_empty()), "{}", wanted.path);
    }
}
