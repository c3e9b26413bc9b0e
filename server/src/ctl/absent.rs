//! Commands that have no sense on one node without Erlang. Each says so in one line, which is also
//! its line in the list of commands.

use super::command::{Command, Group, Needs, Session};
use super::failure::{EX_UNAVAILABLE, Failure};
use super::status::is_serving;
use super::tool::Tool::{Diagnostics, Queues, Rabbitmqctl, Streams};

const CTL: &[super::Tool] = &[Rabbitmqctl];
const BOTH: &[super::Tool] = &[Rabbitmqctl, Diagnostics];
const DIAGNOSTICS: &[super::Tool] = &[Diagnostics];
const QUEUES: &[super::Tool] = &[Queues];
const STREAMS: &[super::Tool] = &[Streams];

/// A command that is refused, and why.
const fn absent(
    name: &'static str,
    tools: &'static [super::Tool],
    group: Group,
    usage: &'static str,
    arity: (usize, usize),
    why: &'static str,
) -> Command {
    Command::new(name, tools, group, usage, why, arity, refuse).needs(Needs::Nothing)
}

/// One that RabbitMQ refuses while the node serves.
const fn absent_while_serving(
    name: &'static str,
    usage: &'static str,
    arity: (usize, usize),
    why: &'static str,
) -> Command {
    Command::new(name, CTL, Group::Cluster, usage, why, arity, refuse_stopped).needs(Needs::Broker)
}

const NO_CLUSTER: &str = "Not here: a Leveret node is no member of a cluster";
const NO_ERLANG: &str = "Not here: there is no Erlang runtime to look into";
const NO_COOKIE: &str =
    "Not here: there is no Erlang cookie, the control socket is open to the broker's user and root";
const NO_MEMBERS: &str = "Not here: on one node a queue has exactly one member";
const NO_MIRRORS: &str = "Not here: on one node no queue is mirrored";
const NO_STREAMS: &str = "Not here: this node serves no stream queues";
const NO_TLS: &str = "Not here: this node has no TLS listeners";
const NO_CIPHERS: &str = "Not here: values in configuration files are not encrypted";
const NO_SOURCES: &str = "Not here: login attempts are counted by protocol only";

pub(super) const COMMANDS: &[Command] = &[
    absent_while_serving(
        "reset",
        "",
        (0, 0),
        "Not here: to begin anew, stop the node and remove its data directory",
    ),
    absent_while_serving(
        "force_reset",
        "",
        (0, 0),
        "Not here: to begin anew, stop the node and remove its data directory",
    ),
    absent_while_serving("force_boot", "", (0, 0), NO_CLUSTER),
    absent_while_serving(
        "join_cluster",
        "[--disc|--ram] <existing_cluster_member>",
        (1, 1),
        NO_CLUSTER,
    )
    .options(&["disc", "ram"]),
    absent_while_serving("change_cluster_node_type", "<disc | ram>", (1, 1), NO_CLUSTER),
    absent_while_serving("update_cluster_nodes", "<seed_node>", (1, 1), NO_CLUSTER),
    Command::new(
        "forget_cluster_node",
        CTL,
        Group::Cluster,
        "[--offline] <existing_cluster_member_node>",
        "Says that a node is not in the cluster, as no other is",
        (1, 1),
        forget_cluster_node,
    )
    .options(&["offline"])
    .needs(Needs::Broker),
    absent(
        "rename_cluster_node",
        CTL,
        Group::Cluster,
        "<oldnode1> <newnode1> [oldnode2] [newnode2] ...",
        (2, 100),
        "Not here: the node's name is a label, which RABBITMQ_NODENAME sets at the next start",
    ),
    absent("sync_queue", CTL, Group::Cluster, "[--vhost <vhost>] <queue>", (1, 1), NO_MIRRORS),
    absent(
        "cancel_sync_queue",
        CTL,
        Group::Cluster,
        "[--vhost <vhost>] <queue>",
        (1, 1),
        NO_MIRRORS,
    ),
    absent(
        "encode",
        CTL,
        Group::Configuration,
        "value passphrase [--cipher <cipher>] [--hash <hash>] [--iterations <iterations>]",
        (0, 2),
        NO_CIPHERS,
    )
    .options(&["cipher", "hash", "iterations"]),
    absent(
        "decode",
        CTL,
        Group::Configuration,
        "value passphrase [--cipher <cipher>] [--hash <hash>] [--iterations <iterations>]",
        (0, 2),
        NO_CIPHERS,
    )
    .options(&["cipher", "hash", "iterations"]),
    absent("list_ciphers", BOTH, Group::Monitoring, "", (0, 0), NO_CIPHERS),
    absent("list_hashes", BOTH, Group::Monitoring, "", (0, 0), NO_CIPHERS),
    absent("eval_file", CTL, Group::Operations, "<file path>", (1, 1), NO_ERLANG),
    absent("exec", CTL, Group::Operations, "<expr>", (1, 1), NO_ERLANG),
    absent("schema_info", BOTH, Group::Monitoring, "[<column> ...]", (0, 10), NO_ERLANG),
    absent(
        "observer",
        DIAGNOSTICS,
        Group::Monitoring,
        "[--interval <seconds>]",
        (0, 0),
        "Not here: there is no Erlang runtime to look into; leveretctl top shows queues and rates",
    ),
    absent("remote_shell", DIAGNOSTICS, Group::Monitoring, "", (0, 0), NO_ERLANG),
    absent("maybe_stuck", DIAGNOSTICS, Group::Monitoring, "", (0, 0), NO_ERLANG),
    absent(
        "runtime_thread_stats",
        DIAGNOSTICS,
        Group::Monitoring,
        "[--sample-interval <interval>]",
        (0, 0),
        NO_ERLANG,
    )
    .options(&["sample-interval"]),
    absent(
        "consume_event_stream",
        DIAGNOSTICS,
        Group::Monitoring,
        "[--duration|-d <seconds>] [--pattern <pattern>]",
        (0, 0),
        "Not here: bind a queue to the exchange amq.rabbitmq.event",
    )
    .options(&["duration", "pattern"]),
    absent(
        "list_network_interfaces",
        DIAGNOSTICS,
        Group::Monitoring,
        "",
        (0, 0),
        "Not here: ip address shows them",
    ),
    absent(
        "resolver_info",
        DIAGNOSTICS,
        Group::Configuration,
        "",
        (0, 0),
        "Not here: names are resolved by the system",
    ),
    absent("erlang_cookie_hash", DIAGNOSTICS, Group::Configuration, "", (0, 0), NO_COOKIE),
    absent("erlang_cookie_sources", BOTH, Group::Configuration, "", (0, 0), NO_COOKIE),
    absent(
        "cipher_suites",
        DIAGNOSTICS,
        Group::Monitoring,
        "[--format <openssl | erlang | map>] [--all]",
        (0, 0),
        NO_TLS,
    )
    .options(&["all", "format"]),
    absent("tls_versions", DIAGNOSTICS, Group::Monitoring, "", (0, 0), NO_TLS),
    absent("certificates", DIAGNOSTICS, Group::Configuration, "", (0, 0), NO_TLS),
    absent(
        "enable_auth_attempt_source_tracking",
        DIAGNOSTICS,
        Group::Configuration,
        "",
        (0, 0),
        NO_SOURCES,
    ),
    absent(
        "disable_auth_attempt_source_tracking",
        DIAGNOSTICS,
        Group::Configuration,
        "",
        (0, 0),
        NO_SOURCES,
    ),
    absent(
        "reset_node_auth_attempt_metrics",
        DIAGNOSTICS,
        Group::Configuration,
        "",
        (0, 0),
        NO_SOURCES,
    ),
    absent(
        "set_log_level",
        CTL,
        Group::Configuration,
        "<log_level>",
        (1, 1),
        "Not here: set log.console.level or log.file.level in the configuration and send SIGHUP",
    ),
    absent(
        "rotate_logs",
        CTL,
        Group::Nodes,
        "",
        (0, 0),
        "This command does not rotate logs anymore [deprecated]",
    ),
    absent(
        "add_member",
        QUEUES,
        Group::Cluster,
        "[--vhost <vhost>] <queue> <node>",
        (2, 2),
        NO_MEMBERS,
    )
    .options(&["membership"]),
    absent(
        "delete_member",
        QUEUES,
        Group::Cluster,
        "[--vhost <vhost>] <queue> <node>",
        (2, 2),
        NO_MEMBERS,
    ),
    absent(
        "grow",
        QUEUES,
        Group::Cluster,
        "<node> <all | even> [--vhost-pattern <pattern>] [--queue-pattern <pattern>]",
        (2, 2),
        NO_MEMBERS,
    )
    .options(&["errors-only", "membership", "queue-pattern", "vhost-pattern"]),
    absent("shrink", QUEUES, Group::Cluster, "<node>", (1, 1), NO_MEMBERS)
        .options(&["errors-only"]),
    absent(
        "reclaim_quorum_memory",
        &[Queues, Diagnostics],
        Group::Operations,
        "<quorum queue>",
        (1, 1),
        "Not here: queues keep only the ends of their index in memory",
    ),
    absent(
        "stream_status",
        &[Queues, Diagnostics, Streams],
        Group::Monitoring,
        "[--vhost <vhost>] <stream> [--tracking]",
        (1, 1),
        NO_STREAMS,
    ),
    absent(
        "add_replica",
        STREAMS,
        Group::Cluster,
        "[--vhost <vhost>] <stream> <node>",
        (2, 2),
        NO_STREAMS,
    ),
    absent(
        "delete_replica",
        STREAMS,
        Group::Cluster,
        "[--vhost <vhost>] <stream> <node>",
        (2, 2),
        NO_STREAMS,
    ),
    absent(
        "restart_stream",
        STREAMS,
        Group::Cluster,
        "<stream> [--vhost <vhost>]",
        (1, 1),
        NO_STREAMS,
    ),
    absent(
        "set_stream_retention_policy",
        STREAMS,
        Group::Policies,
        "[--vhost <vhost>] <name> <policy>",
        (2, 2),
        NO_STREAMS,
    ),
    absent("encrypt_conf_value", CTL, Group::Configuration, "value passphrase", (0, 2), NO_CIPHERS)
        .options(&["cipher", "hash", "iterations"]),
    absent("decrypt_conf_value", CTL, Group::Configuration, "value passphrase", (0, 2), NO_CIPHERS)
        .options(&["cipher", "hash", "iterations"]),
    absent("transfer_leadership", QUEUES, Group::Cluster, "<queue> <node>", (2, 2), NO_MEMBERS),
    absent(
        "force_checkpoint",
        QUEUES,
        Group::Cluster,
        "[--vhost-pattern <pattern>] [--queue-pattern <pattern>]",
        (0, 0),
        "Not here: one log serves all queues and is checkpointed as it grows",
    )
    .options(&["queue-pattern", "vhost-pattern"]),
    absent(
        "metadata_store_status",
        DIAGNOSTICS,
        Group::Monitoring,
        "",
        (0, 0),
        "Not here: definitions are records of the one log",
    ),
    Command::new(
        "hipe_compile",
        CTL,
        Group::Operations,
        "<directory>",
        "Does nothing; kept for old scripts",
        (1, 1),
        |session| {
            session.done_with(
                "This command is a no-op. HiPE is no longer supported by modern Erlang versions",
            )
        },
    )
    .needs(Needs::Nothing),
    Command::new(
        "force_gc",
        CTL,
        Group::Operations,
        "",
        "Does nothing: there is no garbage to collect",
        (0, 0),
        |session| {
            let node = session.node()?;
            session.out.banner(&format!(
                "Will ask all processes on node {node} to schedule a full sweep GC"
            ))?;
            session.done()
        },
    ),
];

fn refuse(session: &mut Session<'_>) -> Result<(), Failure> {
    Err(Failure::error(EX_UNAVAILABLE, session.command.summary))
}

fn refuse_stopped(session: &mut Session<'_>) -> Result<(), Failure> {
    if is_serving(session)? { Err(Failure::NotStopped) } else { refuse(session) }
}

fn forget_cluster_node(session: &mut Session<'_>) -> Result<(), Failure> {
    let node = session.argument(0);
    session.out.banner(&format!("Removing node {node} from the cluster"))?;
    let text = if node == session.node()? {
        "{:badrpc, 'The node cannot remove itself.'}"
    } else {
        "{:not_a_cluster_node, 'The node selected is not in the cluster.'}"
    };
    Err(Failure::error(EX_UNAVAILABLE, text))
}
