//! `eval`: the few expressions that scripts are known to ask. There is no Erlang to evaluate others.

use super::command::{Command, Group, Needs, Session};
use super::failure::{EX_DATAERR, EX_UNAVAILABLE, Failure};
use super::tool::Tool::Rabbitmqctl;
use serde_json::Value;
use std::io::Read;

pub(super) const COMMANDS: &[Command] = &[Command::new(
    "eval",
    &[Rabbitmqctl],
    Group::Operations,
    "<expression>",
    "Answers the expressions that probes and provisioning tools are known to use",
    (0, 100),
    eval,
)
.needs(Needs::Broker)];

/// Bytes of an expression at most.
const EXPRESSION_SIZE_MAX: u64 = 64 << 10;

fn eval(session: &mut Session<'_>) -> Result<(), Failure> {
    let mut expression = session.words().join(" ");
    if expression.is_empty() {
        session
            .input
            .take(EXPRESSION_SIZE_MAX)
            .read_to_string(&mut expression)
            .map_err(|error| Failure::error(EX_DATAERR, format!("cannot read: {error}")))?;
    }
    let bare: String = expression.chars().filter(|c| !c.is_whitespace()).collect();
    if bare.is_empty() {
        let text = "Expression to evaluate is not provided via argument or stdin";
        return Err(Failure::error(EX_DATAERR, text));
    }
    let Some(bare) = bare.strip_suffix('.') else {
        return Err(Failure::usage("\"syntax error before: \""));
    };
    let answer = answer(session, bare)?.ok_or_else(|| {
        let text = format!(
            "there is no Erlang here, and `{}` is none of the expressions that are answered",
            expression.trim()
        );
        Failure::error(EX_UNAVAILABLE, text)
    })?;
    session.done_with(&answer)
}

fn answer(session: &Session<'_>, expression: &str) -> Result<Option<String>, Failure> {
    let overview =
        session.broker().get("/overview?columns=node,cluster_name,rabbitmq_version,listeners")?;
    let word = |key: &str| overview[key].as_str().unwrap_or_default().to_owned();
    Ok(Some(match expression {
        "rabbit_nodes:reached_target_cluster_size()" | "rabbit:is_running()" => "true".to_owned(),
        "node()" | "erlang:node()" => word("node"),
        "nodes()" | "erlang:nodes()" => "[]".to_owned(),
        "rabbit_nodes:all()"
        | "rabbit_nodes:all_running()"
        | "rabbit_nodes:list_running()"
        | "rabbit_nodes:list_members()"
        | "rabbit_mnesia:cluster_nodes(all)"
        | "rabbit_mnesia:cluster_nodes(running)" => format!("[{}]", word("node")),
        "rabbit_nodes:cluster_name()" => format!("<<{:?}>>", word("cluster_name")),
        "rabbit_misc:version()" | "rabbit:product_version()" => {
            format!("{:?}", word("rabbitmq_version"))
        }
        "application:get_env(rabbit,tcp_listeners)" => {
            format!("{{ok,[{}]}}", amqp_listeners(&overview).join(","))
        }
        _ => return Ok(None),
    }))
}

fn amqp_listeners(overview: &Value) -> Vec<String> {
    let listeners = overview["listeners"].as_array().into_iter().flatten();
    listeners
        .filter(|listener| listener["protocol"] == "amqp")
        .map(|listener| format!("{{{},{}}}", listener["ip_address"], listener["port"]))
        .collect()
}
