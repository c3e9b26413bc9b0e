//! Finds the broker that is meant: by its data directory, else the one that runs.

use super::arguments::Arguments;
use super::client::Client;
use super::failure::{EX_USAGE, Failure};
use crate::control_socket;
use crate::node_name::node_name;
use crate::runtime_record::{RuntimePlaces, RuntimeRecord, read_all};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Environment variable that names the data directory.
pub(crate) const DATA_DIR_VARIABLE: &str = "LEVERET_DATA_DIR";
/// The data directory where nothing is named.
pub(crate) const DATA_DIR_DEFAULT: &str = "leveret-data";

/// The surroundings of a command.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// `LEVERET_DATA_DIR`.
    pub(crate) data_dir: Option<OsString>,
    /// The working directory.
    pub(crate) working_dir: PathBuf,
    /// Where records of running brokers are.
    pub(crate) places: RuntimePlaces,
}

impl Surroundings {
    /// Those of this process.
    pub(crate) fn of_process() -> Surroundings {
        Surroundings {
            data_dir: std::env::var_os(DATA_DIR_VARIABLE).filter(|value| !value.is_empty()),
            working_dir: std::env::current_dir().unwrap_or_default(),
            places: RuntimePlaces::of_process(),
        }
    }
}

/// The node a command is about: the one it names, else the one of this machine.
pub(crate) fn wanted_node(arguments: &Arguments) -> String {
    let own = node_name();
    match arguments.option("node") {
        None => own,
        Some(name) if name.contains('@') => name.to_owned(),
        Some(name) => {
            let host = own.split_once('@').map_or("localhost", |(_, host)| host);
            format!("{name}@{host}")
        }
    }
}

/// Finds the broker and checks that it is the node that was named, if one was.
///
/// # Errors
/// Nothing answers (69), more than one does and none was named (64), or the node is another (69).
pub(crate) fn find(arguments: &Arguments, surroundings: &Surroundings) -> Result<Client, Failure> {
    let timeout_s = timeout_s(arguments)?;
    let node = arguments.option("node").map(|_| wanted_node(arguments));
    let data_dir = locate(arguments, surroundings, node.as_deref())?;
    let client = Client::new(data_dir, timeout_s);
    let client = if arguments.flag("dry-run") { client.without_changes() } else { client };
    if let Some(node) = node {
        let actual = client.get("/overview?columns=node")?;
        let actual = actual["node"].as_str().unwrap_or_default().to_owned();
        if actual != node {
            let tried = format!("{}: this node is {actual}", client.data_dir().display());
            return Err(Failure::NodeDown { tried });
        }
    }
    Ok(client)
}

/// Commands that RabbitMQ gives up by itself, which their banners tell, and after how many seconds.
const BOUNDED: &[(&str, f64)] = &[("list_queues", 60.0), ("ping", 60.0)];

/// Seconds a reply may take. No limit is a limit, too: the one that was asked for.
fn timeout_s(arguments: &Arguments) -> Result<Option<f64>, Failure> {
    if arguments.option("timeout").is_some() {
        return arguments.timeout_s();
    }
    let command = arguments.positional.first().map_or("", String::as_str);
    Ok(BOUNDED.iter().find(|(name, _)| *name == command).map(|(_, seconds)| *seconds))
}

/// The data directory of the broker that is meant.
fn locate(
    arguments: &Arguments,
    surroundings: &Surroundings,
    node: Option<&str>,
) -> Result<PathBuf, Failure> {
    let named = arguments.option("data-dir").map(OsString::from);
    if let Some(dir) = named.or_else(|| surroundings.data_dir.clone()) {
        let dir = surroundings.working_dir.join(dir);
        return match answers(&dir) {
            Ok(()) => Ok(dir),
            Err(why) => Err(Failure::NodeDown { tried: why }),
        };
    }
    let default = surroundings.working_dir.join(DATA_DIR_DEFAULT);
    let mut tried = match answers(&default) {
        Ok(()) => return Ok(default),
        Err(why) => vec![why],
    };
    let mut running: Vec<RuntimeRecord> = Vec::new();
    for record in read_all(&surroundings.places) {
        match answers(&record.data_dir) {
            Ok(()) if running.iter().all(|known| known.data_dir != record.data_dir) => {
                running.push(record);
            }
            Ok(()) => {}
            Err(why) => tried.push(why),
        }
    }
    if let Some(node) = node {
        running.retain(|record| record.node == node);
    }
    match running.as_slice() {
        [] => {
            tried.push("no running broker is on record for this user".to_owned());
            Err(Failure::NodeDown { tried: tried.join("\n") })
        }
        [only] => Ok(only.data_dir.clone()),
        several => Err(ambiguous(several)),
    }
}

fn ambiguous(running: &[RuntimeRecord]) -> Failure {
    let lines: Vec<String> = running
        .iter()
        .map(|record| {
            let dir = record.data_dir.display();
            format!("  --data-dir {dir}  (pid {}, {})", record.pid, record.node)
        })
        .collect();
    let text = format!(
        "Several brokers are running. Name one of them with --data-dir:\n{}",
        lines.join("\n")
    );
    Failure::Plain { code: EX_USAGE, text }
}

/// Whether a broker answers in a directory, and why not.
fn answers(data_dir: &Path) -> Result<(), String> {
    control_socket::connect(data_dir)
        .map(|_| ())
        .map_err(|error| format!("{}: {error}", data_dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime_record::{self, RecordFile};
    use std::os::unix::net::UnixListener;

    struct World {
        root: tempfile::TempDir,
        surroundings: Surroundings,
        alive: Vec<(UnixListener, Option<RecordFile>)>,
    }

    impl World {
        fn new() -> World {
            let root = tempfile::tempdir().unwrap();
            let places = RuntimePlaces {
                override_dir: Some(root.path().join("run").into_os_string()),
                xdg_runtime_dir: None,
                uid: rustix::process::geteuid().as_raw(),
            };
            let working_dir = root.path().to_owned();
            let surroundings = Surroundings { data_dir: None, working_dir, places };
            World { root, surroundings, alive: Vec::new() }
        }

        /// A broker listens in `name`; `pid` if it is on record.
        fn broker(&mut self, name: &str, pid: Option<u32>) -> PathBuf {
            let data_dir = self.root.path().join(name);
            std::fs::create_dir_all(&data_dir).unwrap();
            let record = pid.map(|pid| {
                let node = "rabbit@h".to_owned();
                let record = RuntimeRecord { pid, data_dir: data_dir.clone(), node };
                runtime_record::write(&self.surroundings.places, &record).unwrap()
            });
            self.alive.push((control_socket::bind(&data_dir).unwrap(), record));
            data_dir
        }

        fn locate(&self, line: &str) -> Result<PathBuf, Failure> {
            let words = line.split_whitespace().map(str::to_owned).collect();
            locate(&Arguments::parse(words).unwrap(), &self.surroundings, None)
        }
    }

    #[test]
    fn a_named_directory_wins_then_the_environment_then_the_default() {
        let mut world = World::new();
        let recorded = world.broker("recorded", Some(1));
        assert_eq!(world.locate("x").unwrap(), recorded);
        let default = world.broker(DATA_DIR_DEFAULT, None);
        assert_eq!(world.locate("x").unwrap(), default);
        let environment = world.broker("environment", None);
        world.surroundings.data_dir = Some("environment".into());
        assert_eq!(world.locate("x").unwrap(), environment);
        let named = world.broker("named", None);
        assert_eq!(world.locate("x --data-dir named").unwrap(), named);
        assert!(matches!(
            world.locate("x --data-dir absent"),
            Err(Failure::NodeDown { tried }) if tried.contains("absent")
        ));
    }

    #[test]
    fn several_brokers_are_listed_and_dead_ones_are_not() {
        let mut world = World::new();
        world.broker("one", Some(1));
        world.broker("two", Some(2));
        let Err(Failure::Plain { code: 64, text }) = world.locate("x") else {
            panic!("one chosen")
        };
        assert!(text.contains("/one") && text.contains("/two"), "{text}");
        let (listener, record) = world.alive.remove(0);
        drop(listener);
        assert!(world.locate("x").unwrap().ends_with("two"), "its record is still there");
        drop(record);
        world.alive.clear();
        assert!(matches!(world.locate("x"), Err(Failure::NodeDown { .. })));
    }
}
