//! `rabbitmq-plugins`, on the `enabled_plugins` file: what RabbitMQ's plugins bring is built into
//! Leveret or missing from it, so enabling one changes the file and nothing else, and says so.

use super::client::segment;
use super::command::{Command, Group, Needs, Session};
use super::failure::{EX_DATAERR, EX_SOFTWARE, EX_UNAVAILABLE, Failure};
use super::find::{DATA_DIR_DEFAULT, wanted_node};
use super::output::Format;
use super::tool::Tool::Plugins;
use crate::enabled_plugins::{self, BUILT_IN};
use crate::http::RABBITMQ_VERSION;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const TOOLS: &[super::Tool] = &[Plugins];
const MODES: &[&str] = &["all", "offline", "online"];

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "list",
        TOOLS,
        Group::Plugins,
        "[pattern] [--verbose] [--minimal] [--enabled] [--implicitly-enabled]",
        "Lists plugins: which are asked for, and which Leveret has",
        (0, 1),
        list,
    )
    .options(&["enabled", "implicitly-enabled", "minimal", "verbose"])
    .needs(Needs::Nothing),
    Command::new(
        "enable",
        TOOLS,
        Group::Plugins,
        "<plugin1> [ <plugin2>] | --all [--offline] [--online]",
        "Adds plugins to those that are asked for",
        (0, 100),
        |session| change(session, Change::Enable),
    )
    .options(MODES)
    .needs(Needs::Nothing),
    Command::new(
        "disable",
        TOOLS,
        Group::Plugins,
        "<plugin1> [ <plugin2>] | --all [--offline] [--online]",
        "Takes plugins from those that are asked for",
        (0, 100),
        |session| change(session, Change::Disable),
    )
    .options(MODES)
    .needs(Needs::Nothing),
    Command::new(
        "set",
        TOOLS,
        Group::Plugins,
        "[<plugin1> [ <plugin2>]] [--offline] [--online]",
        "Replaces the plugins that are asked for",
        (0, 100),
        |session| change(session, Change::Set),
    )
    .options(&["offline", "online"])
    .needs(Needs::Nothing),
    Command::new(
        "is_enabled",
        TOOLS,
        Group::Monitoring,
        "<plugin1> [ <plugin2>] [--offline] [--online]",
        "Fails unless plugins are asked for",
        (1, 100),
        is_enabled,
    )
    .options(&["offline", "online"])
    .needs(Needs::Nothing),
];

/// RabbitMQ's plugins, each with the plugins it cannot do without.
const KNOWN: &[(&str, &[&str])] = &[
    ("rabbitmq_amqp1_0", &[]),
    ("rabbitmq_auth_backend_cache", &[]),
    ("rabbitmq_auth_backend_http", &[]),
    ("rabbitmq_auth_backend_internal_loopback", &[]),
    ("rabbitmq_auth_backend_ldap", &[]),
    ("rabbitmq_auth_backend_oauth2", &[]),
    ("rabbitmq_auth_mechanism_ssl", &[]),
    ("rabbitmq_consistent_hash_exchange", &[]),
    ("rabbitmq_delayed_message_exchange", &[]),
    ("rabbitmq_event_exchange", &[]),
    ("rabbitmq_federation", &[]),
    ("rabbitmq_federation_management", &["rabbitmq_federation", "rabbitmq_management"]),
    ("rabbitmq_jms_topic_exchange", &[]),
    ("rabbitmq_management", &["rabbitmq_management_agent", "rabbitmq_web_dispatch"]),
    ("rabbitmq_management_agent", &["rabbitmq_web_dispatch"]),
    ("rabbitmq_mqtt", &[]),
    ("rabbitmq_peer_discovery_aws", &["rabbitmq_peer_discovery_common"]),
    ("rabbitmq_peer_discovery_common", &[]),
    ("rabbitmq_peer_discovery_consul", &["rabbitmq_peer_discovery_common"]),
    ("rabbitmq_peer_discovery_etcd", &["rabbitmq_peer_discovery_common"]),
    ("rabbitmq_peer_discovery_k8s", &["rabbitmq_peer_discovery_common"]),
    ("rabbitmq_prometheus", &["rabbitmq_management_agent", "rabbitmq_web_dispatch"]),
    ("rabbitmq_random_exchange", &[]),
    ("rabbitmq_recent_history_exchange", &[]),
    ("rabbitmq_sharding", &[]),
    ("rabbitmq_shovel", &[]),
    ("rabbitmq_shovel_management", &["rabbitmq_management", "rabbitmq_shovel"]),
    ("rabbitmq_shovel_prometheus", &["rabbitmq_prometheus", "rabbitmq_shovel"]),
    ("rabbitmq_stomp", &[]),
    ("rabbitmq_stream", &[]),
    ("rabbitmq_stream_management", &["rabbitmq_management", "rabbitmq_stream"]),
    ("rabbitmq_top", &["rabbitmq_management"]),
    ("rabbitmq_tracing", &["rabbitmq_management"]),
    ("rabbitmq_trust_store", &[]),
    ("rabbitmq_web_dispatch", &[]),
    ("rabbitmq_web_mqtt", &["rabbitmq_mqtt", "rabbitmq_web_dispatch"]),
    ("rabbitmq_web_mqtt_examples", &["rabbitmq_web_dispatch", "rabbitmq_web_mqtt"]),
    ("rabbitmq_web_stomp", &["rabbitmq_stomp", "rabbitmq_web_dispatch"]),
    ("rabbitmq_web_stomp_examples", &["rabbitmq_web_dispatch", "rabbitmq_web_stomp"]),
];

/// What is asked for where nobody ever asked.
const DEFAULT: &[&str] = &["rabbitmq_management", "rabbitmq_prometheus"];

/// Plugins and all that they need.
fn closure(names: &BTreeSet<String>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut open: Vec<String> = names.iter().cloned().collect();
    while let Some(name) = open.pop() {
        let needs =
            KNOWN.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, needs)| needs);
        open.extend(needs.iter().map(ToString::to_string));
        all.insert(name);
    }
    all
}

/// The file, and whether a node that runs was asked for it.
struct Place {
    file: PathBuf,
    node: String,
    online: bool,
}

/// Asks the node that runs for its file; offline, or where none runs, the surroundings tell.
fn place(session: &mut Session<'_>) -> Result<Place, Failure> {
    let (offline, must_be_online) =
        (session.arguments.flag("offline"), session.arguments.flag("online"));
    if offline && must_be_online {
        return Err(Failure::usage("\"Cannot set both online and offline\""));
    }
    if !offline {
        match session.find_broker() {
            Ok(_) => {
                let node = session.node()?;
                let path = format!("/nodes/{}?columns=enabled_plugins_file", segment(&node));
                let state = session.broker().get(&path)?;
                let file = state["enabled_plugins_file"].as_str().unwrap_or_default().into();
                return Ok(Place { file, node, online: true });
            }
            Err(Failure::NodeDown { .. }) if !must_be_online => {}
            Err(other) => return Err(other),
        }
    }
    let data_dir = session.arguments.option("data-dir").map(PathBuf::from);
    let data_dir = data_dir
        .or_else(|| session.surroundings.data_dir.clone().map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from(DATA_DIR_DEFAULT));
    let file = enabled_plugins::place(&session.surroundings.working_dir.join(data_dir));
    Ok(Place { file, node: wanted_node(session.arguments), online: false })
}

impl Place {
    /// What is asked for.
    fn read(&self) -> Result<BTreeSet<String>, Failure> {
        let names =
            enabled_plugins::read(&self.file).map_err(|error| self.failed("read", &error))?;
        Ok(names.map_or_else(
            || DEFAULT.iter().map(ToString::to_string).collect(),
            |names| names.into_iter().collect(),
        ))
    }

    fn write(&self, names: &BTreeSet<String>) -> Result<(), Failure> {
        let names: Vec<String> = names.iter().cloned().collect();
        if let Some(dir) = self.file.parent() {
            std::fs::create_dir_all(dir).map_err(|error| self.failed("write", &error))?;
        }
        enabled_plugins::write(&self.file, &names).map_err(|error| self.failed("write", &error))
    }

    fn failed(&self, what: &str, error: &std::io::Error) -> Failure {
        let file = self.file.display();
        Failure::error(EX_DATAERR, format!("cannot {what} {file}: {error}"))
    }
}

pub(super) fn directories(session: &mut Session<'_>) -> Result<(), Failure> {
    let place = place(session)?;
    session.out.banner(&if place.online {
        format!("Listing plugin directories used by node {}", place.node)
    } else {
        "Listing plugin directories inferred from local environment...".to_owned()
    })?;
    let dir = place.file.parent().unwrap_or(Path::new("")).display().to_string();
    let file = place.file.display().to_string();
    let text = format!(
        "Plugin archives directory: {dir}\nPlugin expansion directory: {dir}\n\
         Enabled plugins file: {file}"
    );
    let json = json!({
        "enabled_plugins_file": file, "plugins_dist_dir": dir, "plugins_expand_dir": dir,
    });
    Ok(session.out.result(&text, &json)?)
}

/// A plugin of a list.
struct Row {
    name: String,
    explicit: bool,
    implicit: bool,
    running: bool,
}

impl Row {
    /// As tables mark it: asked for, and there.
    fn marks(&self) -> String {
        let configured = match (self.explicit, self.implicit) {
            (true, _) => 'E',
            (false, true) => 'e',
            (false, false) => ' ',
        };
        format!("[{configured}{}]", if self.running { '*' } else { ' ' })
    }

    fn json(&self) -> Value {
        let enabled = match (self.explicit, self.implicit) {
            (true, _) => "enabled",
            (false, true) => "implicit",
            (false, false) => "not_enabled",
        };
        json!({
            "enabled": enabled,
            "name": self.name,
            "running": self.running,
            "running_version": self.running.then_some(RABBITMQ_VERSION),
            "version": RABBITMQ_VERSION,
        })
    }

    /// At length.
    fn describe(&self) -> String {
        let needs = closure(&BTreeSet::from([self.name.clone()]));
        let needs: Vec<&str> =
            needs.iter().map(String::as_str).filter(|need| *need != self.name).collect();
        let built_in = BUILT_IN.contains(&self.name.as_str());
        format!(
            "{} {}\n     Version:     \t{RABBITMQ_VERSION}\n     Dependencies:\t[{}]\n     \
             Description: \t{}",
            self.marks(),
            self.name,
            needs.join(","),
            if built_in { "Built into Leveret" } else { "Not in Leveret" }
        )
    }
}

/// The plugins that a pattern and the options leave, by name.
fn rows(session: &Session<'_>, place: &Place, pattern: &str) -> Result<Vec<Row>, Failure> {
    let matcher = crate::broker::pattern::Pattern::new(pattern)
        .map_err(|error| Failure::bad_argument(&error.reason))?;
    let explicit = place.read()?;
    let all = closure(&explicit);
    let mut names: BTreeSet<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
    names.extend(all.iter().map(String::as_str));
    let rows = names.into_iter().filter(|name| matcher.matches(name)).map(|name| Row {
        name: name.to_owned(),
        explicit: explicit.contains(name),
        implicit: all.contains(name),
        running: place.online && BUILT_IN.contains(&name),
    });
    let only_explicit = session.arguments.flag("enabled");
    let only_enabled = session.arguments.flag("implicitly-enabled");
    Ok(rows
        .filter(|row| !only_explicit || row.explicit)
        .filter(|row| !only_enabled || row.implicit)
        .collect())
}

fn list(session: &mut Session<'_>) -> Result<(), Failure> {
    let pattern = session.words().first().map_or(".*", String::as_str);
    let place = place(session)?;
    let rows = rows(session, &place, pattern)?;
    session.out.banner(&format!("Listing plugins with pattern \"{pattern}\" ..."))?;
    if session.out.format() == Format::Json {
        let plugins: Vec<Value> = rows.iter().map(Row::json).collect();
        let status = if place.online { "running" } else { "node_down" };
        let json = json!({"format": "normal", "plugins": plugins, "status": status});
        return Ok(session.out.result("", &json)?);
    }
    if session.arguments.flag("minimal") {
        for row in rows {
            session.out.line(&row.name)?;
        }
        return Ok(());
    }
    let status = if place.online {
        format!("* = running on {}", place.node)
    } else {
        format!("[failed to contact {} - status not shown]", place.node)
    };
    let legend = " Configured: E = explicitly enabled; e = implicitly enabled";
    for line in [legend, &format!(" | Status: {status}"), " |/"] {
        session.out.remark(line)?;
    }
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    for row in rows {
        if session.arguments.flag("verbose") {
            session.out.line(&row.describe())?;
        } else {
            let (marks, name) = (row.marks(), &row.name);
            session.out.line(&format!("{marks} {name:width$} {RABBITMQ_VERSION}"))?;
        }
    }
    Ok(())
}

/// What is to become of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Enable,
    Disable,
    Set,
}

/// The plugins a command line names, which RabbitMQ must know; those to disable need not be.
fn named(session: &Session<'_>, change: Change) -> Result<BTreeSet<String>, Failure> {
    let words = session.words();
    let all = session.arguments.flag("all");
    match (change, words, all) {
        (Change::Enable | Change::Disable, [], false) => {
            return Err(Failure::usage("not enough arguments."));
        }
        (_, [_, ..], true) => {
            return Err(Failure::usage("\"Cannot set both --all and a list of plugins\""));
        }
        _ => {}
    }
    if all {
        return Ok(KNOWN.iter().map(|(name, _)| (*name).to_owned()).collect());
    }
    Ok(words.iter().cloned().collect())
}

fn check_known(names: &BTreeSet<String>) -> Result<(), Failure> {
    let unknown: Vec<String> = names
        .iter()
        .filter(|name| KNOWN.iter().all(|(known, _)| known != name))
        .map(|name| format!(":{name}"))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let text = format!("{{:plugins_not_found, [{}]}}", unknown.join(", "));
    Err(Failure::error(EX_SOFTWARE, text))
}

fn change(session: &mut Session<'_>, change: Change) -> Result<(), Failure> {
    let named = named(session, change)?;
    let place = place(session)?;
    let doing = if change == Change::Disable { "Disabling" } else { "Enabling" };
    let node = &place.node;
    if session.arguments.flag("all") {
        session.out.banner(&format!("{doing} ALL plugins on node {node}"))?;
    } else {
        session.out.banner(&format!("{doing} plugins on node {node}:"))?;
        for name in session.words() {
            session.out.banner(name)?;
        }
    }
    let before = place.read()?;
    let after: BTreeSet<String> = match change {
        Change::Enable => before.union(&named).cloned().collect(),
        Change::Disable => {
            let kept = before.iter();
            // What cannot do without a disabled plugin goes with it.
            kept.filter(|name| closure(&BTreeSet::from([(*name).clone()])).is_disjoint(&named))
                .cloned()
                .collect()
        }
        Change::Set => named.clone(),
    };
    if change != Change::Disable {
        check_known(&named)?;
    }
    if session.is_dry_run() {
        return Ok(());
    }
    place.write(&after)?;
    report_change(session, &place, change, &closure(&before), &closure(&after))?;
    for name in closure(&named)
        .iter()
        .filter(|name| change != Change::Disable && !BUILT_IN.contains(&name.as_str()))
    {
        writeln!(session.err, "warning: Leveret has no {name}: enabling it has no effect")?;
    }
    Ok(())
}

fn report_change(
    session: &mut Session<'_>,
    place: &Place,
    change: Change,
    before: &BTreeSet<String>,
    after: &BTreeSet<String>,
) -> Result<(), Failure> {
    let out = &mut session.out;
    if after.is_empty() {
        out.line("All plugins have been disabled.")?;
    } else {
        out.line("The following plugins have been configured:")?;
        for name in after {
            out.line(&format!("  {name}"))?;
        }
    }
    out.line(&format!("Applying plugin configuration to {}...", place.node))?;
    let started: Vec<&String> = after.difference(before).collect();
    let stopped: Vec<&String> = before.difference(after).collect();
    if started.is_empty() && stopped.is_empty() && change != Change::Set {
        return Ok(out.line("Plugin configuration unchanged.")?);
    }
    for (names, what) in [(&started, "enabled"), (&stopped, "disabled")] {
        if !names.is_empty() && (place.online || change != Change::Set) {
            out.line(&format!("The following plugins have been {what}:"))?;
            for name in names {
                out.line(&format!("  {name}"))?;
            }
            out.line("")?;
        }
    }
    if place.online {
        if !started.is_empty() || stopped.is_empty() {
            out.line(&format!("started {} plugins.", started.len()))?;
        }
        if !stopped.is_empty() {
            out.line(&format!("stopped {} plugins.", stopped.len()))?;
        }
        return Ok(());
    }
    if after.is_empty() {
        out.line("nothing to do.")?;
    } else {
        out.line(&format!("set {} plugins.", after.len()))?;
    }
    if change != Change::Set {
        out.line("Offline change; changes will take effect at broker restart.")?;
    }
    Ok(())
}

fn is_enabled(session: &mut Session<'_>) -> Result<(), Failure> {
    let place = place(session)?;
    let all = closure(&place.read()?);
    let names = session.words();
    let (noun, verb) = if names.len() == 1 { ("plugin", "is") } else { ("plugins", "are") };
    let (title, list, node) = (noun.replace('p', "P"), names.join(", "), &place.node);
    session.out.banner(&if place.online {
        format!("Asking node {node} if {noun} {list} {verb} enabled...")
    } else {
        format!("Inferring if {noun} {list} {verb} from local environment...")
    })?;
    let missing: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| !all.contains(*name)).collect();
    let on = if place.online { format!(" on node {node}") } else { String::new() };
    if missing.is_empty() {
        return session.done_with(&format!("{title} {list} {verb} enabled{on}"));
    }
    let (title, verb) = if missing.len() == 1 { ("Plugin", "is") } else { ("Plugins", "are") };
    let known: Vec<&str> = all.iter().map(String::as_str).collect();
    let text = format!(
        "{title} {} {verb} not enabled{on}. Enabled plugins and dependencies: {}",
        missing.join(", "),
        known.join(", ")
    );
    Err(Failure::error(EX_UNAVAILABLE, text))
}
