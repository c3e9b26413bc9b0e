//! Requests and what RabbitMQ answered them, replayed against a broker in order.

use super::fake::Fake;
use serde_json::{Value, json};

/// Plays lines of `METHOD path [body] -> status [reason or Location or body]`.
///
/// A line that begins with `name|` is sent as that user, whose password is the name. The reason is
/// compared with the reply's `reason`; after `=` the whole body is compared instead.
fn replay(fake: &Fake, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (request, expected) = line.rsplit_once(" -> ").expect("a line has an arrow");
        let (user, request) = match request.split_once('|') {
            Some((user, rest)) if !user.contains(' ') => (user, rest),
            Some(_) | None => ("guest", request),
        };
        let mut words = request.splitn(3, ' ');
        let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
        let body = words.next().unwrap_or("");
        let answer = fake.request_as(&format!("{user}:{user}"), method, path, "", body);
        let (status, rest) = expected.split_once(' ').unwrap_or((expected, ""));
        assert_eq!(answer.status.to_string(), status, "{line}: {}", answer.body);
        if let Some(location) = rest.strip_prefix("Location: ") {
            let wanted = format!("location: {location}").to_ascii_lowercase();
            assert!(answer.head.lines().any(|header| header == wanted), "{line}: {}", answer.head);
        } else if let Some(body) = rest.strip_prefix('=') {
            let body: Value = serde_json::from_str(body).expect("expectations are JSON");
            assert_eq!(answer.json(), body, "{line}");
        } else if !rest.is_empty() {
            let reason: Value = serde_json::from_str(rest).unwrap_or_else(|_| Value::from(rest));
            assert_eq!(answer.json()["reason"], reason, "{line}");
        }
    }
}

#[test]
fn queues_and_exchanges() {
    let fake = Fake::with_broker();
    replay(
        &fake,
        r#"
PUT /api/queues/%2F/q1 {"durable":true,"arguments":{"x-message-ttl":600000}} -> 201
PUT /api/queues/%2F/q1 {"durable":true,"auto_delete":false,"arguments":{"x-message-ttl":600000}} -> 204
PUT /api/queues/%2F/q1 {"durable":false} -> 400 inequivalent arg 'durable' for queue 'q1' in vhost '/': received 'false' but current is 'true'
PUT /api/queues/%2F/q1 {"durable":true,"arguments":{}} -> 400 inequivalent arg 'x-message-ttl' for queue 'q1' in vhost '/': received none but current is the value '600000' of type 'long'
PUT /api/queues/%2F/bad1 {"durable":"yes"} -> 400 ["not_boolean","yes"]
PUT /api/queues/%2F/bad1 {"durable":"true"} -> 201
PUT /api/queues/%2F/bad2 {"durable":false,"arguments":{"x-queue-type":"quorum"}} -> 400 invalid property 'non-durable' for queue 'bad2' in vhost '/'
PUT /api/queues/%2F/amq.foo {} -> 401 Access refused.
PUT /api/queues/%2F/bad3 -> 201
PUT /api/queues/%2F/bad3 {"arguments":[]} -> 204
PUT /api/queues/novhost/q {} -> 404 vhost_not_found
PUT /api/queues/%2F/bad5 {"arguments":{"x-message-ttl":-1}} -> 400 invalid arg 'x-message-ttl' for queue 'bad5' in vhost '/': {value_negative,-1}
PUT /api/queues/%2F/bad5 {"arguments":{"x-message-ttl":"abc"}} -> 400 "invalid arg 'x-message-ttl' for queue 'bad5' in vhost '/': \"expected integer, got longstr\""
PUT /api/queues/%2F/bad5 {"arguments":{"x-overflow":"nope"}} -> 400 invalid arg 'x-overflow' for queue 'bad5' in vhost '/': invalid_overflow
PUT /api/queues/%2F/bad5 {"arguments":{"x-unknown":"nope"}} -> 201
GET /api/queues/%2F/bad5?columns=name,arguments,durable,auto_delete,exclusive -> 200 ={"arguments":{"x-unknown":"nope"},"auto_delete":false,"durable":false,"exclusive":false,"name":"bad5"}
DELETE /api/queues/%2F/bad3 -> 204
DELETE /api/queues/%2F/bad3 -> 404 Not Found
DELETE /api/queues/%2F/nope/contents -> 404 Not Found
PUT /api/exchanges/%2F/orders {"type":"topic","durable":true,"arguments":{"alternate-exchange":"amq.fanout"}} -> 201
PUT /api/exchanges/%2F/orders {"type":"topic","durable":true,"arguments":{"alternate-exchange":"amq.fanout"}} -> 204
PUT /api/exchanges/%2F/orders {"type":"direct"} -> 400 inequivalent arg 'type' for exchange 'orders' in vhost '/': received 'direct' but current is 'topic'
PUT /api/exchanges/%2F/bx {"type":"nope"} -> 400 invalid exchange type 'nope'
PUT /api/exchanges/%2F/bx {} -> 201
PUT /api/exchanges/%2F/bx {"type":"fanout","internal":true} -> 400 inequivalent arg 'type' for exchange 'bx' in vhost '/': received 'fanout' but current is 'direct'
PUT /api/exchanges/%2F/amq.foo {"type":"direct"} -> 401 Access refused.
PUT /api/exchanges/%2F/amq.default {"type":"direct"} -> 401 Access refused.
DELETE /api/exchanges/%2F/amq.direct -> 401 Access refused.
DELETE /api/exchanges/%2F/bx -> 204
DELETE /api/exchanges/%2F/bx -> 404 Not Found
POST /api/bindings/%2F/e/orders/q/nope {} -> 404 no queue 'nope' in vhost '/'
POST /api/bindings/%2F/e/nope/q/q1 {} -> 404 no exchange 'nope' in vhost '/'
POST /api/bindings/%2F/e/amq.default/q/q1 {"routing_key":"x"} -> 401 Access refused.
POST /api/bindings/%2F/e/orders/q/q1 {} -> 201 Location: q1/~
POST /api/bindings/%2F/e/orders/q/q1 -> 201 Location: q1/~
POST /api/bindings/%2F/e/orders/q/q1 {"routing_key":"a b/c~d"} -> 201 Location: q1/a%2Bb%252Fc%257Ed
DELETE /api/exchanges/%2F/orders?if-unused=true -> 400 exchange 'orders' in vhost '/' in use
GET /api/bindings/%2F/e/orders/q/q1/~ -> 200 ={"source":"orders","vhost":"/","destination":"q1","destination_type":"queue","routing_key":"","arguments":{},"properties_key":"~"}
DELETE /api/bindings/%2F/e/orders/q/q1/a%2520b%252Fc%257Ed -> 404 Not Found
DELETE /api/bindings/%2F/e/orders/q/q1/a%2Bb%252Fc%257Ed -> 204
GET /api/bindings/%2F/e/amq.default/q/q1 -> 200 =[{"source":"","vhost":"/","destination":"q1","destination_type":"queue","routing_key":"q1","arguments":{},"properties_key":"q1"}]
GET /api/bindings/%2F/e/orders/q/nope -> 200 =[]
"#,
    );
}

#[test]
fn messages() {
    let fake = Fake::with_broker();
    replay(
        &fake,
        r#"
PUT /api/queues/%2F/q {} -> 201
PUT /api/exchanges/%2F/inner {"type":"fanout","internal":true} -> 201
POST /api/exchanges/%2F/amq.default/publish {"properties":{},"routing_key":"nope","payload":"y","payload_encoding":"string"} -> 200 ={"routed":false}
POST /api/exchanges/%2F/nope/publish {"properties":{},"routing_key":"nope","payload":"y","payload_encoding":"string"} -> 400 404 NOT_FOUND - no exchange 'nope' in vhost '/'
POST /api/exchanges/%2F/inner/publish {"properties":{},"routing_key":"x","payload":"y","payload_encoding":"string"} -> 400 403 ACCESS_REFUSED - cannot publish to internal exchange 'inner' in vhost '/'
POST /api/exchanges/%2F/amq.default/publish {"routing_key":"nope","payload":"y","payload_encoding":"string"} -> 400 [{key_missing,properties}]
POST /api/exchanges/%2F/amq.default/publish {"properties":{},"routing_key":"x","payload":"***","payload_encoding":"base64"} -> 400 ["not_base64","***"]
POST /api/exchanges/%2F/amq.default/publish {"properties":{},"routing_key":"x","payload":"y","payload_encoding":"nope"} -> 400 ["unsupported_encoding","nope"]
POST /api/exchanges/%2F/amq.default/publish {"properties":{"user_id":"bob"},"routing_key":"q","payload":"x","payload_encoding":"string"} -> 400 406 PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was 'guest'
POST /api/exchanges/%2F/amq.default/publish {"properties":{"message_id":"m1"},"routing_key":"q","payload":"hello","payload_encoding":"string"} -> 200 ={"routed":true}
POST /api/exchanges/%2F/amq.default/publish {"properties":{},"routing_key":"q","payload":"AAH/","payload_encoding":"base64"} -> 200 ={"routed":true}
POST /api/queues/%2F/nope/get {"count":1,"ackmode":"ack_requeue_true","encoding":"auto"} -> 404 NOT_FOUND - no queue 'nope' in vhost '/'
POST /api/queues/%2F/q/get {"count":1} -> 400 [{key_missing,ackmode},{key_missing,encoding}]
POST /api/queues/%2F/q/get {"count":"x","ackmode":"ack_requeue_true","encoding":"auto"} -> 400 ["not_integer","x"]
POST /api/queues/%2F/q/get {"count":1,"ackmode":"ack_requeue_true","encoding":"nope"} -> 400 Unsupported encoding. Please use auto or base64.
POST /api/queues/%2F/q/get {"count":"0","ackmode":"ack_requeue_false","encoding":"auto"} -> 200 =[]
POST /api/queues/%2F/q/get {"count":10,"ackmode":"ack_requeue_true","encoding":"auto"} -> 200 =[{"payload_bytes":5,"redelivered":false,"exchange":"","routing_key":"q","message_count":1,"properties":{"message_id":"m1"},"payload":"hello","payload_encoding":"string"},{"payload_bytes":3,"redelivered":false,"exchange":"","routing_key":"q","message_count":0,"properties":{},"payload":"AAH/","payload_encoding":"base64"}]
POST /api/queues/%2F/q/get {"count":1,"requeue":false,"encoding":"base64","truncate":2} -> 200 =[{"payload_bytes":5,"redelivered":true,"exchange":"","routing_key":"q","message_count":1,"properties":{"message_id":"m1"},"payload":"aGU=","payload_encoding":"base64"}]
DELETE /api/queues/%2F/q?if-empty=true -> 400 queue 'q' in vhost '/' not empty
DELETE /api/queues/%2F/q/contents -> 204
DELETE /api/queues/%2F/q?if-empty=true&if-unused=true -> 204
"#,
    );
}

#[test]
fn people() {
    let fake = Fake::with_broker();
    replay(
        &fake,
        r#"
PUT /api/users/new1 {} -> 400 tags_not_present
PUT /api/users/new1 {"password":"x"} -> 400 tags_not_present
PUT /api/users/new1 {"password_hash":"bad!","tags":""} -> 400 ["not_base64","bad!"]
PUT /api/users/new1 {"tags":"administrator"} -> 201
PUT /api/users/new1 {"password":"","tags":"monitoring,management"} -> 204
PUT /api/users/new2 {"password_hash":"","tags":""} -> 201
GET /api/users/new2 -> 200 ={"name":"new2","password_hash":"","hashing_algorithm":"rabbit_password_hashing_sha256","tags":[],"limits":{}}
PUT /api/users/new3 {"password_hash":"kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR","hashing_algorithm":"rabbit_password_hashing_sha512","tags":["x"]} -> 201
GET /api/users/new3 -> 200 ={"name":"new3","password_hash":"kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR","hashing_algorithm":"rabbit_password_hashing_sha512","tags":["x"],"limits":{}}
GET /api/users/without-permissions?columns=name -> 200 =[{"name":"new1"},{"name":"new2"},{"name":"new3"}]
POST /api/users/bulk-delete {"users":["new1","new2","new3","zzz"]} -> 400 ["no_such_user","zzz"]
POST /api/users/bulk-delete {} -> 400 [{key_missing,users}]
DELETE /api/users/nope -> 404 Not Found
PUT /api/users/alice {"password":"alice","tags":"management"} -> 201
PUT /api/permissions/%2F/alice {"configure":".*","write":".*"} -> 400 [{key_missing,read}]
PUT /api/permissions/%2F/alice {"configure":"[","write":".*","read":".*"} -> 400 ["invalid_regexp",[91],[[109,105,115,115,105,110,103,32,116,101,114,109,105,110,97,116,105,110,103,32,93,32,102,111,114,32,99,104,97,114,97,99,116,101,114,32,99,108,97,115,115],1]]
PUT /api/permissions/nope/alice {"configure":".*","write":".*","read":".*"} -> 400 vhost_or_user_not_found
PUT /api/permissions/%2F/nope {"configure":".*","write":".*","read":".*"} -> 400 vhost_or_user_not_found
alice|GET /api/queues/%2F -> 401 User not authorised to access virtual host
PUT /api/permissions/%2F/alice {"configure":"^a","write":".*","read":".*"} -> 201
PUT /api/permissions/%2F/alice {"configure":"^a","write":"^a","read":".*"} -> 204
alice|PUT /api/queues/%2F/b {} -> 401 Access refused.
alice|PUT /api/queues/%2F/a {} -> 201
PUT /api/queues/%2F/b {} -> 201
alice|DELETE /api/queues/%2F/b -> 401 Access refused.
alice|POST /api/bindings/%2F/e/amq.direct/q/b {} -> 401 Access refused.
alice|POST /api/exchanges/%2F/amq.direct/publish {"properties":{},"routing_key":"a","payload":"x","payload_encoding":"string"} -> 200 ={"routed":false}
alice|PUT /api/vhosts/z -> 401 Not administrator user
alice|PUT /api/policies/%2F/p {"pattern":"x","definition":{"max-length":1}} -> 401 User not authorised to access object
DELETE /api/permissions/%2F/mon -> 404 Not Found
PUT /api/topic-permissions/%2F/alice {"exchange":"amq.topic","write":"(","read":".*"} -> 400 ["invalid_regexp","(",[[109,105,115,115,105,110,103,32,41],1]]
PUT /api/topic-permissions/%2F/alice {"exchange":"","write":".*","read":".*"} -> 201
GET /api/topic-permissions/%2F/alice -> 200 =[{"user":"alice","vhost":"/","exchange":"","write":".*","read":".*"}]
DELETE /api/topic-permissions/%2F/alice -> 204
DELETE /api/topic-permissions/%2F/alice -> 404 Not Found
PUT /api/user-limits/nope/max-channels {"value":1} -> 400 ["no_such_user","nope"]
PUT /api/user-limits/alice/nope {"value":1} -> 400 Unrecognised terms [{<<"nope">>,1}] in user-limits
PUT /api/user-limits/alice/max-channels {"value":20} -> 204
GET /api/user-limits -> 200 =[{"user":"alice","value":{"max-channels":20}}]
alice|GET /api/whoami -> 200 ={"name":"alice","tags":["management"],"is_internal_user":false}
DELETE /api/user-limits/alice/max-channels -> 204
GET /api/user-limits/alice -> 200 =[]
DELETE /api/users/alice -> 204
alice|GET /api/whoami -> 401 Login failed
PUT /api/users/u%20x%2Fy {"password":"a","tags":""} -> 201
DELETE /api/users/u%20x%2Fy -> 204
"#,
    );
}

#[test]
fn virtual_hosts_policies_and_parameters() {
    let fake = Fake::with_broker();
    replay(
        &fake,
        r#"
PUT /api/vhosts/shop -> 201
PUT /api/vhosts/shop -> 204
PUT /api/vhosts/v3 {"tracing":true,"tags":["a","b"],"description":"d","default_queue_type":"quorum"} -> 201
GET /api/vhosts/v3?columns=name,description,tags,tracing,cluster_state -> 200 ={"name":"v3","description":"d","tags":["a","b"],"tracing":true,"cluster_state":{"rabbit@box":"running"}}
PUT /api/queues/shop/mine {} -> 201
POST /api/vhosts/shop/start/rabbit%40box -> 204
POST /api/vhosts/%2F/start/nope@x -> 400 Request to node nope@x failed with nodedown
POST /api/vhosts/v3/deletion/protection -> 204
DELETE /api/vhosts/v3 -> 412
DELETE /api/vhosts/v3/deletion/protection -> 204
DELETE /api/vhosts/v3 -> 204
DELETE /api/vhosts/v3 -> 404 Not Found
PUT /api/vhost-limits/shop/nope {"value":1} -> 400 "Validation failed\n\nUnrecognised terms [{<<\"nope\">>,1}] in limits\n"
PUT /api/vhost-limits/nope/max-queues {"value":1} -> 404 vhost_not_found
PUT /api/vhost-limits/shop/max-queues {"value":"x"} -> 400 "Validation failed\n\nmax-queues should be a number, actually was <<\"x\">>\n"
PUT /api/vhost-limits/shop/max-queues {} -> 400 [{key_missing,value}]
PUT /api/vhost-limits/shop/max-queues {"value":1} -> 204
GET /api/vhost-limits -> 200 =[{"vhost":"shop","value":{"max-queues":1}}]
PUT /api/queues/shop/more {} -> 400
DELETE /api/vhost-limits/shop/nope -> 204
DELETE /api/vhost-limits/shop/max-queues -> 204
GET /api/vhost-limits/shop -> 200 =[]
PUT /api/policies/%2F/p2 {"pattern":"x"} -> 400 [{key_missing,definition}]
PUT /api/policies/%2F/p2 {"pattern":"(","definition":{"message-ttl":1}} -> 400 "Validation failed\n\npattern should be regular expression but is invalid: {\"missing )\",1}\n"
PUT /api/policies/%2F/p2 {"pattern":"x","definition":{}} -> 400 "Validation failed\n\nno policy provided\n"
PUT /api/policies/%2F/p2 {"pattern":"x","definition":{"nope":1}} -> 400 "Validation failed\n\n[{&lt;&lt;\"nope\"&gt;&gt;,1}] are not recognised policy settings\n"
PUT /api/policies/%2F/p2 {"pattern":"x","definition":{"message-ttl":1},"priority":"1"} -> 400 "Validation failed\n\npriority should be a number, actually was &lt;&lt;\"1\"&gt;&gt;\n"
PUT /api/policies/%2F/p2 {"pattern":"^x","definition":{"max-length":5},"apply-to":"queues","priority":2} -> 201
PUT /api/policies/%2F/p2 {"pattern":"^x","definition":{"max-length":7},"apply-to":"queues","priority":2} -> 204
GET /api/policies/%2F/p2 -> 200 ={"vhost":"/","name":"p2","pattern":"^x","apply-to":"queues","definition":{"max-length":7},"priority":2}
PUT /api/operator-policies/%2F/o2 {"pattern":"x","definition":{"dead-letter-exchange":"x"}} -> 400 "Validation failed\n\n[{<<\"dead-letter-exchange\">>,<<\"x\">>}] are not recognised policy settings\n"
PUT /api/operator-policies/%2F/o2 {"pattern":".*","definition":{"max-length":6},"apply-to":"queues"} -> 201
PUT /api/queues/%2F/x1 {} -> 201
GET /api/queues/%2F/x1?columns=policy,operator_policy,effective_policy_definition -> 200 ={"policy":"p2","operator_policy":"o2","effective_policy_definition":{"max-length":6}}
GET /api/parameters/operator_policy -> 200 =[{"value":{"pattern":".*","definition":{"max-length":6},"priority":0,"apply-to":"queues"},"vhost":"/","component":"operator_policy","name":"o2"}]
DELETE /api/policies/%2F/p2 -> 204
DELETE /api/policies/%2F/p2 -> 404 Not Found
DELETE /api/operator-policies/%2F/o2 -> 204
PUT /api/policies/nope/p {"pattern":"x","definition":{"message-ttl":1}} -> 404 vhost_not_found
PUT /api/parameters/nope/%2F/s2 {"value":{}} -> 400 "Validation failed\n\ncomponent nope not found\n"
PUT /api/parameters/shovel/%2F/s2 {} -> 400 [{key_missing,value}]
PUT /api/parameters/federation-upstream/%2F/up {"value":{"uri":"amqp://h"}} -> 201
GET /api/parameters -> 200 =[{"value":{"uri":"amqp://h"},"vhost":"/","component":"federation-upstream","name":"up"}]
GET /api/parameters/nope -> 200 =[]
GET /api/parameters/nope/%2F/x -> 404 Not Found
DELETE /api/parameters/federation-upstream/%2F/up -> 204
DELETE /api/parameters/federation-upstream/%2F/up -> 404 Not Found
PUT /api/global-parameters/x {} -> 400 [{key_missing,value}]
PUT /api/global-parameters/x {"value":{"a":1}} -> 201
GET /api/global-parameters/x -> 200 ={"name":"x","value":{"a":1}}
DELETE /api/global-parameters/x -> 204
GET /api/global-parameters/x -> 404 Not Found
PUT /api/cluster-name {} -> 400 [{key_missing,name}]
PUT /api/cluster-name {"name":"hares"} -> 204
GET /api/cluster-name -> 200 ={"name":"hares"}
DELETE /api/vhosts/shop -> 204
GET /api/queues/shop -> 404 Not Found
"#,
    );
}

#[test]
fn definitions() {
    let fake = Fake::with_broker();
    replay(
        &fake,
        r#"
POST /api/definitions nope -> 400 failed_to_parse_json
POST /api/definitions {"users":[{"name":"z"}]} -> 400 tags_not_present
POST /api/definitions {"queues":[{"name":"dq","vhost":"nope","durable":true,"auto_delete":false,"arguments":{}}]} -> 400 ["no_such_vhost","nope"]
POST /api/definitions {"queues":[{"name":"dq","vhost":"/","durable":true,"auto_delete":false,"arguments":{}}]} -> 204
POST /api/definitions/%2F {"queues":[{"name":"dq2","durable":true,"auto_delete":false,"arguments":{}}]} -> 204
POST /api/definitions {} -> 204
GET /api/definitions/nope -> 400 vhost_not_found
GET /api/queues?columns=name -> 200 =[{"name":"dq"},{"name":"dq2"}]
"#,
    );
    let whole = fake.get("/api/definitions");
    assert_eq!(
        whole["queues"][0],
        json!({
            "name": "dq", "vhost": "/", "type": "classic", "durable": true, "auto_delete": false,
            "arguments": {},
        })
    );
    assert_eq!(whole["users"][0]["name"], "guest");
    let part = fake.get("/api/definitions/%2F");
    assert_eq!(part["queues"][1]["name"], "dq2");
    assert_eq!(part["queues"][1]["vhost"], Value::Null);
    let answer = fake.request("GET", "/api/all-configuration?download=d.json", "");
    assert!(answer.head.contains("content-disposition: attachment; filename=d.json"));
}

#[test]
fn browsing_and_redriving() {
    let fake = Fake::with_broker();
    replay(
        &fake,
        r#"
PUT /api/queues/%2F/work {"arguments":{"x-dead-letter-exchange":"","x-dead-letter-routing-key":"dead"}} -> 201
PUT /api/queues/%2F/dead {} -> 201
POST /api/exchanges/%2F/amq.default/publish {"properties":{"headers":{"a":1}},"routing_key":"work","payload":"one","payload_encoding":"string"} -> 200 ={"routed":true}
POST /api/exchanges/%2F/amq.default/publish {"properties":{},"routing_key":"work","payload":"two","payload_encoding":"string"} -> 200 ={"routed":true}
POST /api/exchanges/%2F/amq.default/publish {"properties":{},"routing_key":"dead","payload":"never died","payload_encoding":"string"} -> 200 ={"routed":true}
GET /api/queues/%2F/nope/messages -> 404 Not Found
GET /api/queues/%2F/work/messages?after=x -> 400 after is not a position
GET /api/queues/%2F/work/messages?count=x -> 400 count is not a number in range
GET /api/queues/%2F/work/messages?encoding=x -> 400 Unsupported encoding. Please use auto or base64.
POST /api/queues/%2F/work/get {"count":2,"ackmode":"reject_requeue_false","encoding":"auto"} -> 200
POST /api/queues/%2F/dead/redrive {"count":-1} -> 400 count is negative
POST /api/queues/%2F/dead/redrive {"exchange":"nope"} -> 404 no exchange 'nope' in vhost '/'
POST /api/queues/%2F/dead/redrive {"count":1} -> 200 ={"redriven":1,"skipped":1}
POST /api/queues/%2F/dead/redrive -> 200 ={"redriven":1,"skipped":1}
POST /api/queues/%2F/work/get {"count":5,"ackmode":"ack_requeue_true","encoding":"auto"} -> 200 =[{"payload_bytes":3,"redelivered":false,"exchange":"","routing_key":"work","message_count":1,"properties":{"headers":{"a":1}},"payload":"one","payload_encoding":"string"},{"payload_bytes":3,"redelivered":false,"exchange":"","routing_key":"work","message_count":0,"properties":{},"payload":"two","payload_encoding":"string"}]
POST /api/queues/%2F/work/redrive {"exchange":"amq.default","routing_key":"dead"} -> 200 ={"redriven":2,"skipped":0}
"#,
    );
    let list = fake.get("/api/queues/%2F/dead/messages?count=2");
    let payloads = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().expect("a list");
        items.iter().map(|item| item["payload"].as_str().expect("a text").to_owned()).collect()
    };
    assert_eq!(payloads(&list), ["never died", "one"]);
    assert_eq!(list["ready"], 3);
    let next = list["next"].as_str().expect("there is more");
    let rest = fake.get(&format!("/api/queues/%2F/dead/messages?after={next}"));
    assert_eq!(payloads(&rest), ["two"]);
    assert_eq!(rest["next"], Value::Null);
    for (query, expected) in [
        ("header=a%3D1", vec!["one"]),
        ("header=a%3D2", vec![]),
        ("body=died", vec!["never died"]),
        ("routing_key=ea&body=w", vec!["two"]),
        ("exchange=amq.default&count=1", vec!["never died"]),
        ("exchange=amq.topic", vec![]),
    ] {
        let found = fake.get(&format!("/api/queues/%2F/dead/messages?{query}"));
        assert_eq!(payloads(&found), expected, "{query}");
    }
}

/// Goal: a look leaves no trace. Method: everything a listing tells of the queue, and what a taker
/// gets, is the same with and without.
#[test]
fn browsing_changes_nothing() {
    let fake = Fake::with_broker();
    replay(
        &fake,
        r#"
PUT /api/queues/%2F/q {} -> 201
POST /api/exchanges/%2F/amq.default/publish {"properties":{},"routing_key":"q","payload":"x","payload_encoding":"string"} -> 200 ={"routed":true}
"#,
    );
    let before = fake.get("/api/queues/%2F/q");
    fake.get("/api/queues/%2F/q/messages");
    assert_eq!(fake.get("/api/queues/%2F/q"), before);
    replay(
        &fake,
        r#"
POST /api/queues/%2F/q/get {"count":1,"ackmode":"ack_requeue_false","encoding":"auto"} -> 200 =[{"payload_bytes":1,"redelivered":false,"exchange":"","routing_key":"q","message_count":0,"properties":{},"payload":"x","payload_encoding":"string"}]
"#,
    );
}

#[test]
fn upkeep() {
    let fake = Fake::with_broker();
    replay(
        &fake,
        r#"
PUT /api/feature-flags/quorum_queue/enable -> 204
PUT /api/feature-flags/nope/enable -> 400 unsupported
GET /api/feature-flags/nope/enable -> 405
POST /api/rebalance/queues -> 204
DELETE /api/reset -> 204
DELETE /api/reset/rabbit%40box -> 204
DELETE /api/reset/nope -> 404
GET /api/shovels -> 200 =[]
GET /api/shovels/nope -> 404 Not Found
GET /api/stream/connections -> 200 =[]
DELETE /api/auth/attempts/rabbit%40box -> 204
GET /api/auth/attempts/rabbit%40box -> 200 =[{"protocol":"amqp091","auth_attempts":0,"auth_attempts_failed":0,"auth_attempts_succeeded":0},{"protocol":"http","auth_attempts":1,"auth_attempts_failed":0,"auth_attempts_succeeded":1}]
GET /api/auth/attempts/rabbit%40box/source -> 200 =[]
GET /api/auth/attempts/nope -> 404 Not Found
PUT /api/queues/%2F/q {} -> 201
GET /api/queues?disable_stats=true&enable_queue_totals=true&columns=name,messages,memory -> 200 =[{"name":"q","messages":0}]
GET /api/queues?disable_stats=true&columns=name,messages -> 200 =[{"name":"q"}]
"#,
    );
    let hash = fake.get("/api/auth/hash_password/secret");
    assert_eq!(hash["ok"].as_str().expect("a hash").len(), 48);
    let login = |body: &str| {
        fake.raw(format!("POST /api/login HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes())
    };
    assert!(login("username=guest&password=guest").ends_with("\"ok\""));
    assert!(login("username=guest&password=no").starts_with("HTTP/1.1 401"));
    assert!(login("").starts_with("HTTP/1.1 401"));
}

#[test]
fn pages_of_other_sites_are_let_in_where_the_operator_lets_them() {
    let fake = Fake::start();
    let ask = |method: &str, origin: &str| {
        fake.request_as("guest:guest", method, "/api/whoami", &format!("origin: {origin}\r\n"), "")
            .head
    };
    let allowed = ask("GET", "https://console.example");
    assert!(allowed.contains("access-control-allow-origin: https://console.example"));
    assert!(allowed.contains("access-control-allow-credentials: true"));
    let asked_first = ask("OPTIONS", "https://console.example");
    assert!(asked_first.contains("access-control-allow-methods: head, get, options"));
    assert!(asked_first.contains("access-control-max-age: 60"));
    assert!(!ask("GET", "https://evil.example").contains("access-control"));
}
