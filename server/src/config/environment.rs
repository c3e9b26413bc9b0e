//! The environment variables of RabbitMQ, as settings.
//!
//! Those that RabbitMQ defines and that mean nothing on one node without Erlang (cookies,
//! distribution ports, plugin folders) are not looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::sources::{Origin, Setting};
use super::syntax::Name;
use crate::node_name;

/// Looks variables up: first the process's own, then those of `rabbitmq-env.conf`.
pub(super) struct Environment<'a> {
    process: &'a dyn Fn(&str) -> Option<String>,
    file: BTreeMap<String, String>,
}

/// Variables that set one key each.
const KEYS: &[(&str, &str)] = &[
    ("RABBITMQ_DEFAULT_USER", "default_user"),
    ("RABBITMQ_DEFAULT_PASS", "default_pass"),
    ("RABBITMQ_DEFAULT_VHOST", "default_vhost"),
    ("RABBITMQ_LOG_BASE", "log.dir"),
    ("RABBITMQ_VM_MEMORY_HIGH_WATERMARK", "vm_memory_high_watermark.relative"),
];

impl<'a> Environment<'a> {
    /// The process's variables, and those of the file `RABBITMQ_CONF_ENV_FILE` names or `fallback`.
    ///
    /// # Errors
    /// The named file cannot be read.
    pub(super) fn new(
        process: &'a dyn Fn(&str) -> Option<String>,
        fallback: Option<&Path>,
    ) -> Result<Environment<'a>, String> {
        let named = process("RABBITMQ_CONF_ENV_FILE").map(PathBuf::from);
        let path = named.or_else(|| fallback.filter(|path| path.exists()).map(Path::to_owned));
        let file = match path {
            None => BTreeMap::new(),
            Some(path) => std::fs::read_to_string(&path)
                .map(|text| read_shell_variables(&text))
                .map_err(|error| format!("{}: {error}", path.display()))?,
        };
        Ok(Environment { process, file })
    }

    /// The value of a variable that is set and not empty.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let short = name.strip_prefix("RABBITMQ_").unwrap_or(name);
        (self.process)(name)
            .or_else(|| self.file.get(short).or_else(|| self.file.get(name)).cloned())
            .filter(|value| !value.is_empty())
    }

    /// Settings that stand above the files.
    pub(super) fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        for (variable, key) in KEYS {
            if let Some(value) = self.get(variable) {
                settings.push(setting(variable, key, value));
            }
        }
        self.listener(&mut settings);
        self.log_targets(&mut settings);
        self.log_levels(&mut settings);
        self.erlang_arguments(&mut settings);
        settings
    }

    /// The node's name on the machine called `host`.
    pub(super) fn node_name(&self, host: &str) -> String {
        let wanted = self.get(node_name::NODE_NAME_VARIABLE).unwrap_or_default();
        node_name::compose(&wanted, host)
    }

    /// The data directory, where a variable names it.
    pub(super) fn data_dir(&self) -> Option<PathBuf> {
        let exact = self.get("LEVERET_DATA_DIR").or_else(|| self.get("RABBITMQ_MNESIA_DIR"));
        let base =
            || self.get("RABBITMQ_MNESIA_BASE").map(|base| PathBuf::from(base).join("leveret"));
        exact.map(PathBuf::from).or_else(base)
    }

    /// `RABBITMQ_NODE_IP_ADDRESS` and `RABBITMQ_NODE_PORT` make one listener together.
    fn listener(&self, settings: &mut Vec<Setting>) {
        let port = self.get("RABBITMQ_NODE_PORT");
        let address = self.get("RABBITMQ_NODE_IP_ADDRESS").filter(|address| address != "auto");
        let (variable, value) = match (address, port) {
            (None, None) => return,
            (None, Some(port)) => ("RABBITMQ_NODE_PORT", port),
            (Some(address), port) => {
                let port = port.unwrap_or_else(|| "5672".to_owned());
                ("RABBITMQ_NODE_IP_ADDRESS", format!("{address}:{port}"))
            }
        };
        settings.push(setting(variable, "listeners.tcp.default", value));
    }

    /// `RABBITMQ_LOGS`: `-` and `-stderr` are the console, anything else a file.
    fn log_targets(&self, settings: &mut Vec<Setting>) {
        let variable = "RABBITMQ_LOGS";
        let Some(target) = self.get(variable) else { return };
        let stream = match target.as_str() {
            "-" => "stdout",
            "-stderr" => "stderr",
            _ => {
                settings.push(setting(variable, "log.file", target));
                return;
            }
        };
        settings.push(setting(variable, "log.console", "true".to_owned()));
        settings.push(setting(variable, "log.console.stdio", stream.to_owned()));
        settings.push(setting(variable, "log.file", "false".to_owned()));
    }

    /// `RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-rabbit disk_free_limit 2147483648"`: what images are told
    /// that way. Arguments of the Erlang machine mean nothing here.
    fn erlang_arguments(&self, settings: &mut Vec<Setting>) {
        let variable = "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS";
        let text = self.get(variable).unwrap_or_default();
        let words: Vec<&str> = text.split_whitespace().collect();
        for window in words.windows(3) {
            let key = match window {
                ["-rabbit", "disk_free_limit", _] => "disk_free_limit.absolute",
                ["-rabbit", "vm_memory_high_watermark", _] => "vm_memory_high_watermark.relative",
                ["-rabbit", "consumer_timeout", _] => "consumer_timeout",
                _ => continue,
            };
            settings.push(setting(variable, key, window[2].to_owned()));
        }
    }

    /// `RABBITMQ_LOG=debug,+connection=warning`: a level, and levels of categories.
    fn log_levels(&self, settings: &mut Vec<Setting>) {
        let variable = "RABBITMQ_LOG";
        for part in self.get(variable).unwrap_or_default().split(',') {
            match part.trim_start_matches('+').split_once('=') {
                Some((category @ ("connection" | "channel"), level)) => {
                    let key = format!("log.{category}.level");
                    settings.push(setting(variable, &key, level.to_owned()));
                }
                Some(_) => {}
                None if part.is_empty() || part.starts_with(['+', '-']) => {}
                None => settings.push(setting(variable, "log.default.level", part.to_owned())),
            }
        }
    }
}

fn setting(variable: &'static str, key: &str, value: String) -> Setting {
    let name = Name::parse(key).expect("keys written here are well formed");
    Setting { name, value, origin: Origin::Variable(variable) }
}

/// The `NAME=value` lines of a shell file; quotes around a value and `export` in front are taken off.
fn read_shell_variables(text: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let line = line.strip_prefix("export ").unwrap_or(line);
        if let Some((name, value)) = line.split_once('=') {
            let value = value.trim();
            let unquoted = ['"', '\''].into_iter().find_map(|quote| {
                value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote))
            });
            variables.insert(name.trim().to_owned(), unquoted.unwrap_or(value).to_owned());
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings that `variables` make, as `key=value` texts.
    fn settings(variables: &[(&str, &str)]) -> Vec<String> {
        let process = variable_of(variables);
        let environment = Environment::new(&process, None).unwrap();
        let settings = environment.settings();
        settings.iter().map(|setting| format!("{}={}", setting.name, setting.value)).collect()
    }

    fn variable_of(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn variables_become_settings() {
        assert_eq!(settings(&[]), Vec::<String>::new());
        assert_eq!(
            settings(&[("RABBITMQ_NODE_PORT", "5673"), ("RABBITMQ_DEFAULT_USER", "u")]),
            ["default_user=u", "listeners.tcp.default=5673"]
        );
        assert_eq!(
            settings(&[("RABBITMQ_NODE_IP_ADDRESS", "::1")]),
            ["listeners.tcp.default=::1:5672"]
        );
        assert_eq!(settings(&[("RABBITMQ_LOGS", "/x.log")]), ["log.file=/x.log"]);
        assert_eq!(
            settings(&[("RABBITMQ_LOGS", "-"), ("RABBITMQ_LOG", "debug,+connection=error,-color")]),
            [
                "log.console=true",
                "log.console.stdio=stdout",
                "log.file=false",
                "log.default.level=debug",
                "log.connection.level=error",
            ]
        );
    }

    #[test]
    fn erlang_arguments_of_images_are_heeded() {
        assert_eq!(
            settings(&[(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+S 2:2 -rabbit disk_free_limit 2147483648 -setcookie x -rabbit log_levels []"
            )]),
            ["disk_free_limit.absolute=2147483648"]
        );
        assert_eq!(
            settings(&[("RABBITMQ_VM_MEMORY_HIGH_WATERMARK", "0.5")]),
            ["vm_memory_high_watermark.relative=0.5"]
        );
    }

    #[test]
    fn a_shell_file_stands_below_the_process() {
        let variables = read_shell_variables("# x\nNODE_PORT=1\nexport LOGS='-'\nA=\"b c\"\n");
        assert_eq!(variables["NODE_PORT"], "1");
        assert_eq!(variables["LOGS"], "-");
        assert_eq!(variables["A"], "b c");
        let process = |name: &str| (name == "RABBITMQ_LOGS").then(|| "/f".to_owned());
        let environment = Environment { process: &process, file: variables };
        assert_eq!(environment.get("RABBITMQ_LOGS").as_deref(), Some("/f"));
        assert_eq!(environment.get("RABBITMQ_NODE_PORT").as_deref(), Some("1"));
    }
}
