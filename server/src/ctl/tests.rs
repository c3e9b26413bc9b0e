//! Command lines from outside: what they print and how they exit, against canned rows.

use super::find::Surroundings;
use super::tool::Tool;
use super::{Streams, run};
use crate::http::fake::Fake;
use crate::node_name::node_name;
use crate::runtime_record::RuntimePlaces;
use std::path::Path;

/// What a command line did.
pub(super) struct Ran {
    pub(super) code: u8,
    pub(super) out: String,
    pub(super) err: String,
}

/// Surroundings in which only the broker in a directory can be found.
fn surroundings(dir: &Path) -> Surroundings {
    Surroundings {
        data_dir: Some(dir.as_os_str().to_owned()),
        working_dir: dir.to_owned(),
        places: RuntimePlaces {
            override_dir: Some(dir.join("run").into_os_string()),
            xdg_runtime_dir: None,
            uid: 1,
        },
    }
}

/// Runs the words of a command line with an input.
fn run_words(fake: &Fake, tool: Tool, words: &[&str], input: &str) -> Ran {
    run_in(fake.dir.path(), tool, words, input)
}

/// The same for the broker in a directory.
pub(super) fn run_in(dir: &Path, tool: Tool, words: &[&str], input: &str) -> Ran {
    let words = words.iter().map(ToString::to_string).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut input = input.as_bytes();
    let streams = Streams { out: &mut out, err: &mut err, input: &mut input };
    let code = run(tool, words, &surroundings(dir), streams);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code, out: text(out), err: text(err) }
}

fn ctl(fake: &Fake, line: &str) -> Ran {
    let words: Vec<&str> = line.split_whitespace().collect();
    run_words(fake, Tool::Rabbitmqctl, &words, "")
}

/// A command line that succeeds prints exactly this.
fn check(fake: &Fake, line: &str, expected: &str) {
    let ran = ctl(fake, line);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{line}");
    assert_eq!(ran.out, expected, "{line}");
}

/// One command line of a transcript, and what it must print.
#[derive(Default)]
struct Scene {
    words: Vec<String>,
    input: String,
    out: String,
    err: String,
    /// Only the beginning of `err` is known.
    err_goes_on: bool,
    code: u8,
}

/// Splits a command line at its blanks; what is between apostrophes is one word.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, behind) = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').expect("an apostrophe closes"),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = behind.trim_start();
    }
    words
}

/// Reads a transcript: `< input`, `$ command line`, lines of standard output, `! ` lines of standard
/// error (`!...`: and more), `? exit code`. A blank line ends a scene; what is in front of the first
/// scene is prose.
fn scenes(text: &str) -> Vec<Scene> {
    let mut scenes = Vec::new();
    let mut input = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(line) = line.strip_prefix("< ") {
            input = format!("{line}\n");
        }
        let Some(command) = line.strip_prefix("$ ") else { continue };
        let input = std::mem::take(&mut input);
        let mut scene = Scene { words: split(command), input, ..Scene::default() };
        while let Some(line) =
            lines.next_if(|line| !line.starts_with("$ ") && !line.starts_with("< "))
        {
            match line {
                "!..." => scene.err_goes_on = true,
                _ if line.starts_with("! ") => scene.err.extend([&line[2..], "\n"]),
                _ if line.starts_with("? ") => scene.code = line[2..].parse().unwrap(),
                _ => scene.out.extend([line, "\n"]),
            }
        }
        // The blank line in front of the next scene.
        if scene.out == "\n" || scene.out.ends_with("\n\n") {
            scene.out.pop();
        }
        scenes.push(scene);
    }
    scenes
}

/// Runs a transcript against a broker. `NODE` is the node this machine would have, `PID` this
/// process.
fn play(text: &str) {
    let fake = Fake::with_broker();
    let text = text.replace("NODE", &node_name()).replace("PID", &std::process::id().to_string());
    let scenes = scenes(&text);
    assert!(5 < scenes.len(), "a transcript was not understood");
    for scene in scenes {
        let line = scene.words.join(" ");
        let tool = Tool::of_program(scene.words[0].as_ref()).expect("a tool's name");
        let words: Vec<&str> = scene.words[1..].iter().map(String::as_str).collect();
        let ran = run_words(&fake, tool, &words, &scene.input);
        assert_eq!(ran.out, scene.out, "standard output of {line}; {}", ran.err);
        if scene.err_goes_on {
            assert!(ran.err.starts_with(&scene.err), "standard error of {line}: {}", ran.err);
        } else {
            assert_eq!(ran.err, scene.err, "standard error of {line}");
        }
        assert_eq!(ran.code, scene.code, "exit code of {line}");
    }
}

#[test]
fn users_are_administered_as_with_rabbitmqctl() {
    play(include_str!("transcripts/users.txt"));
}

#[test]
fn permissions_are_administered_as_with_rabbitmqctl() {
    play(include_str!("transcripts/permissions.txt"));
}

#[test]
fn virtual_hosts_are_administered_as_with_rabbitmqctl() {
    play(include_str!("transcripts/vhosts.txt"));
}

#[test]
fn policies_and_parameters_are_administered_as_with_rabbitmqctl() {
    play(include_str!("transcripts/policies.txt"));
}

#[test]
fn queues_and_connections_are_administered_as_with_rabbitmqctl() {
    play(include_str!("transcripts/queues.txt"));
}

#[test]
fn health_checks_answer_as_rabbitmq_diagnostics() {
    play(include_str!("transcripts/checks.txt"));
}

#[test]
fn a_node_is_stopped_drained_and_waited_for_as_with_rabbitmqctl() {
    play(include_str!("transcripts/lifecycle.txt"));
}

#[test]
fn plugins_are_kept_as_with_rabbitmq_plugins() {
    play(include_str!("transcripts/plugins.txt"));
}

#[test]
fn a_report_holds_what_helpers_ask_for() {
    let fake = Fake::start();
    let ran = ctl(&fake, "report");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    for part in [
        "Reporting server status of node rabbit@box ...\n\nStatus of node rabbit@box ...\n",
        "Cluster status of node rabbit@box ...\n",
        "Application environment of node rabbit@box ...\n[{rabbit,\n     [{'heartbeat',<<\"60\">>}]}]\n",
        "Listing connections ...\nuser\tpeer_host",
        "Listing queues for vhost / ...\nname\ttype",
        "Listing queues for vhost shop ...\n",
        "Listing permissions for vhost \"/\" ...\n",
    ] {
        assert!(ran.out.contains(part), "{part} in {}", ran.out);
    }
}

#[test]
fn memory_is_broken_down_by_size() {
    let fake = Fake::start();
    let ran = ctl(&fake, "memory_breakdown --unit mb");
    let mut lines = ran.out.lines();
    assert_eq!(lines.next(), Some("Reporting memory breakdown on node rabbit@box..."));
    let first = lines.next().unwrap();
    assert!(first.contains(": ") && first.contains(" mb (") && first.ends_with("%)"), "{first}");
    assert!(ran.out.ends_with("\n\n"), "a blank line ends it");
    let json: serde_json::Value =
        serde_json::from_str(&ctl(&fake, "memory_breakdown --formatter json").out).unwrap();
    assert!(json.as_object().unwrap().values().all(|part| part["percentage"].is_number()));
}

#[test]
fn top_without_a_terminal_shows_one_look() {
    let fake = Fake::start();
    let ran = ctl(&fake, "top --sort ready --count 2");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].ends_with(" on rabbit@box"), "{}", ran.out);
    assert_eq!(lines[1], "1 connections, 1 channels, 1 consumers, 3 queues");
    assert!(lines[2].starts_with("21 messages: 15 ready, 6 unacknowledged;"), "{}", lines[2]);
    assert!(lines[4].contains(">ready") && lines[4].ends_with("  queue"), "{}", lines[4]);
    assert_eq!(lines.len(), 7, "two rows");
    assert!(lines[5].starts_with("          7          5          2"), "{}", lines[5]);
    assert_eq!(ctl(&fake, "top --sort nope").code, 64);
}

#[test]
fn the_doctor_finds_what_is_wrong_and_says_so_by_its_exit_code() {
    let well = Fake::with_broker();
    check(&well, "doctor", "Examining node rabbit@box ...\nNothing is wrong.\n");
    let fake = Fake::start();
    let ran = ctl(&fake, "doctor --formatter json");
    assert_eq!(ran.code, 69);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["findings"][0]["severity"], "problem");
}

#[test]
fn every_command_has_help() {
    let fake = Fake::start();
    for command in super::commands() {
        let ran = ctl(&fake, &format!("help {}", command.name));
        assert_eq!(ran.code, 0, "{}", command.name);
        assert!(ran.out.contains(&format!(" {}", command.name)), "{}", ran.out);
        assert_eq!(ctl(&fake, &format!("{} --help", command.name)).out, ran.out);
    }
    assert_eq!(ctl(&fake, "--version").out, "4.2.0\n");
}

#[test]
fn dead_letters_are_looked_at_and_sent_back() {
    let fake = Fake::with_broker();
    let definitions = r#"{"queues": [
        {"name": "work", "vhost": "/", "durable": true, "auto_delete": false, "arguments":
            {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}},
        {"name": "dead", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}}
    ]}"#;
    let ran = run_words(&fake, Tool::Rabbitmqctl, &["-q", "import_definitions"], definitions);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(ctl(&fake, "-q set_policy limit ^work$ {\"max-length\":1}").code, 0);
    for body in ["one", "two", "three"] {
        let message = format!(
            r#"{{"properties": {{}}, "routing_key": "work", "payload": "{body}", "payload_encoding": "string"}}"#
        );
        let path = "/api/exchanges/%2F/amq.default/publish";
        let answer = fake.request_as("guest:guest", "POST", path, "", &message);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    check(&fake, "-s browse dead routing_key payload", "dead\tone\ndead\ttwo\n");
    check(&fake, "-s browse dead payload --body tw", "two\n");
    check(&fake, "-s list_queues name messages", "dead\t2\nwork\t1\n");
    let peeked = ctl(&fake, "peek dead 2 --formatter csv");
    assert!(peeked.out.contains("\"payload\",\"two\"\n"), "{}", peeked.out);
    assert_eq!(ctl(&fake, "peek dead 3").code, 69);
    assert_eq!(ctl(&fake, "browse nope").code, 69);
    assert_eq!(ctl(&fake, "-q clear_policy limit").code, 0);
    check(
        &fake,
        "redrive dead --count 1",
        "Redriving messages of queue 'dead' in vhost '/' ...\n\
         1 messages were redriven, 0 were left where they are\n",
    );
    check(&fake, "-s list_queues name messages", "dead\t1\nwork\t2\n");
    check(&fake, "-s browse work payload", "three\none\n");
}

/// Goal: a broker that accepts and never answers is given up in time, with RabbitMQ's words.
#[test]
fn a_broker_that_does_not_answer_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let _silent = crate::control_socket::bind(dir.path()).unwrap();
    let node = node_name();
    let ran = run_in(dir.path(), Tool::Rabbitmqctl, &["list_users", "-t", "0.05"], "");
    assert_eq!((ran.code, ran.out.as_str()), (75, ""));
    let text =
        format!("Error: operation list_users on node {node} timed out. Timeout value used: 50\n");
    assert_eq!(ran.err, text);
    let ran = run_in(dir.path(), Tool::Diagnostics, &["-q", "ping", "-t", "0.05"], "");
    assert_eq!(ran.code, 69);
    let text = format!("Error:\nFailed to connect and authenticate to {node} in 50 ms\n");
    assert_eq!(ran.err, text);
}

/// Goal: definitions that were exported to a file come back whole on another broker.
#[test]
fn exported_definitions_can_be_imported() {
    let (first, second) = (Fake::with_broker(), Fake::with_broker());
    let file = first.dir.path().join("definitions.json");
    let file = file.to_str().unwrap();
    assert_eq!(ctl(&first, "-q add_vhost shop --description things").code, 0);
    assert_eq!(ctl(&first, "-q add_user alice pw").code, 0);
    assert_eq!(ctl(&first, "-q set_permissions -p shop alice a b c").code, 0);
    let exported = ctl(&first, &format!("export_definitions {file}"));
    assert_eq!(
        (exported.code, exported.out),
        (0, format!("Exporting definitions in JSON to a file at \"{file}\" ...\n"))
    );
    assert_eq!(ctl(&second, &format!("-q import_definitions {file}")).code, 0);
    check(&second, "-s list_permissions -p shop", "alice\ta\tb\tc\n");
    check(&second, "-q authenticate_user alice pw", "Success\n");
    let again = ctl(&second, "export_definitions - --silent").out;
    let text = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
    assert_eq!(text(&again), text(&std::fs::read_to_string(file).unwrap()));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of commands and what they print")]
fn listings_print_what_rabbitmqctl_prints() {
    let fake = Fake::start();
    check(
        &fake,
        "list_queues",
        "Timeout: 60.0 seconds ...\nListing queues for vhost / ...\nname\tmessages\n\
         excl1\t7\nq1\t7\nqq1\t7\n",
    );
    check(
        &fake,
        "-q list_queues name messages_ready messages_unacknowledged",
        "name\tmessages_ready\tmessages_unacknowledged\nexcl1\t5\t2\nq1\t5\t2\nqq1\t5\t2\n",
    );
    check(&fake, "list_queues -s name,type", "excl1\tclassic\nq1\tclassic\nqq1\tquorum\n");
    check(
        &fake,
        "list_queues -p nope --timeout 5",
        "Timeout: 5.0 seconds ...\nListing queues for vhost nope ...\n",
    );
    check(
        &fake,
        "list_queues --formatter json name arguments policy operator_policy members",
        "[\n{\"name\":\"excl1\",\"arguments\":{\"x-max-length\":1000,\"x-mode\":\"lazy\"},\
         \"policy\":\"ttl\",\"operator_policy\":\"\",\"members\":\"\"}\n\
         ,{\"name\":\"q1\",\"arguments\":{\"x-max-length\":1000,\"x-mode\":\"lazy\"},\
         \"policy\":\"ttl\",\"operator_policy\":\"\",\"members\":\"\"}\n\
         ,{\"name\":\"qq1\",\"arguments\":{\"x-max-length\":1000,\"x-mode\":\"lazy\"},\
         \"policy\":\"ttl\",\"operator_policy\":\"\",\"members\":[\"rabbit@box\"]}\n]\n",
    );
    check(
        &fake,
        "list_exchanges",
        "Listing exchanges for vhost / ...\nname\ttype\n\ttopic\norders\ttopic\n",
    );
    check(
        &fake,
        "list_bindings",
        "Listing bindings for vhost /...\n\
         source_name\tsource_kind\tdestination_name\tdestination_kind\trouting_key\targuments\n\
         orders\texchange\tq1\tqueue\t\t[]\n\
         orders\texchange\tq1\tqueue\ta b/c~d\t[]\n\
         orders\texchange\tq1\tqueue\torder.#\t[{\"x-max-length\",1000},{\"x-mode\",\"lazy\"}]\n",
    );
    check(
        &fake,
        "list_connections",
        "Listing connections ...\nuser\tpeer_host\tpeer_port\tstate\n\
         guest\t127.0.0.1\t49202\trunning\n",
    );
    check(
        &fake,
        "list_connections --formatter=json peer_host protocol pid",
        "[\n{\"peer_host\":[127,0,0,1],\"protocol\":[0,9,1],\
         \"pid\":\"<rabbit@box.1795416263.7.0>\"}\n]\n",
    );
    check(
        &fake,
        "list_channels pid connection name",
        "Listing channels ...\npid\tconnection\tname\n<rabbit@box.1795416263.7.1>\t\
         <rabbit@box.1795416263.7.0>\t127.0.0.1:49202 -> 127.0.0.1:5672 (1)\n",
    );
    check(
        &fake,
        "list_consumers",
        "Listing consumers in vhost / ...\n\
         queue_name\tchannel_pid\tconsumer_tag\tack_required\tprefetch_count\tactive\targuments\n\
         q1\t<rabbit@box.1795416263.7.1>\tctag-1\ttrue\t5\ttrue\t\
         [{\"x-max-length\",1000},{\"x-mode\",\"lazy\"}]\n\
         qq1\t<rabbit@box.1795416263.7.1>\tctag-1\ttrue\t5\ttrue\t\
         [{\"x-max-length\",1000},{\"x-mode\",\"lazy\"}]\n",
    );
    check(
        &fake,
        "list_vhosts name tags cluster_state",
        "Listing vhosts ...\nname\ttags\tcluster_state\n/\t[]\t[{rabbit@box, running}]\n\
         shop\t[]\t[{rabbit@box, running}]\n",
    );
}

/// Goal: every column a listing knows is one the API answers, so that none is silently empty.
#[test]
fn every_column_has_a_value() {
    let fake = Fake::start();
    for command in
        ["list_queues", "list_exchanges", "list_bindings", "list_channels", "list_vhosts"]
    {
        let columns = super::lists::columns_of(command).unwrap();
        let ran = ctl(&fake, &format!("-q {command} {}", columns.join(" ")));
        assert_eq!(ran.code, 0, "{command}: {}", ran.err);
        let rows: Vec<Vec<&str>> = ran.out.lines().map(|row| row.split('\t').collect()).collect();
        for (index, column) in rows[0].iter().enumerate() {
            let empty = rows[1..].iter().all(|row| row[index].is_empty());
            assert_eq!(empty, EMPTY.contains(column), "{command} {column}");
        }
    }
}

/// Columns that are empty for our canned rows, or always.
const EMPTY: &[&str] = &[
    "head_message_timestamp",
    "mirror_pids",
    "operator_policy",
    "slave_pids",
    "synchronised_mirror_pids",
    "synchronised_slave_pids",
];

#[test]
fn wrong_usage_exits_64_and_shows_the_usage() {
    let fake = Fake::start();
    for (line, text) in [
        ("list_queues name nope", "Info key(s) nope are not supported"),
        ("list_queues --ram", "Invalid options for this command:"),
        ("list_queues --nope", "Invalid options for this command:"),
        ("status extra", "too many arguments."),
        ("list_queues --formatter nope", "formatter 'nope' is not supported"),
    ] {
        let ran = ctl(&fake, line);
        assert_eq!((ran.code, ran.out.as_str()), (64, ""), "{line}");
        let first = format!("Error (argument validation): {text}");
        assert!(ran.err.starts_with(&first), "{line}: {}", ran.err);
        assert!(ran.err.contains(&format!("Arguments given:\n\t{line}\n\nUsage\n\nrabbitmqctl ")));
    }
    assert_eq!(ctl(&fake, "nope_cmd").code, 64);
    assert_eq!(ctl(&fake, "").code, 64);
    assert_eq!(ctl(&fake, "help").code, 0);
    assert!(ctl(&fake, "help list_queues").out.contains("messages_unacknowledged"));
    assert_eq!(ctl(&fake, "version").out, "4.2.0\n");
}

#[test]
fn another_nodes_name_is_refused_and_ours_accepted() {
    let fake = Fake::start();
    assert_eq!(ctl(&fake, "-n rabbit@box list_queues").code, 0);
    for line in ["-n other@box list_queues", "status --node rabbit@elsewhere"] {
        let ran = ctl(&fake, line);
        assert_eq!((ran.code, ran.out.as_str()), (69, ""), "{line}");
        assert!(ran.err.starts_with("Error: unable to perform an operation on node '"), "{line}");
    }
    let ran = ctl(&fake, "-n other@box ping");
    assert_eq!(ran.code, 69);
    assert!(
        ran.err.starts_with("Error:\nFailed to connect and authenticate to other@box in 60000 ms")
    );
    let ran = ctl(&fake, "list_queues --data-dir /nowhere");
    assert_eq!(ran.code, 69);
    assert!(ran.err.contains("/nowhere"), "{}", ran.err);
}

#[test]
fn status_has_its_sections_and_ping_its_word() {
    let fake = Fake::start();
    let ran = ctl(&fake, "status");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.out.starts_with("Status of node rabbit@box ...\nRuntime\n\nOS PID: "),
        "{}",
        ran.out
    );
    for line in [
        "RabbitMQ version: 4.2.0\n",
        "Node name: rabbit@box\n",
        "Alarms\n\n(none)\n",
        "Queue count: 3\n",
        "Interface: 127.0.0.1, port: 5672, protocol: amqp, purpose: AMQP 0-9-1 and AMQP 1.0\n",
    ] {
        assert!(ran.out.contains(line), "{line} in {}", ran.out);
    }
    let json: serde_json::Value =
        serde_json::from_str(&ctl(&fake, "status --formatter json").out).unwrap();
    assert_eq!(json["rabbitmq_version"], "4.2.0");
    assert_eq!(json["pid"], std::process::id());
    assert_eq!(json["totals"]["queue_count"], 3);
    let ping = run_words(&fake, Tool::Diagnostics, &["-q", "ping"], "");
    assert_eq!((ping.code, ping.out.as_str()), (0, "Ping succeeded\n"));
    let cluster = ctl(&fake, "cluster_status");
    assert!(cluster.out.contains("Running Nodes\n\nrabbit@box\n"), "{}", cluster.out);
}
