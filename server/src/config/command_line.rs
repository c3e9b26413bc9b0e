//! The arguments of `leveret`, and what the name it was called by changes.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::ctl::Tool;

/// A RabbitMQ-compatible AMQP 0-9-1 broker.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "leveret", version, args_conflicts_with_subcommands = false)]
pub struct Arguments {
    /// Folder of the log and the control socket [default: ./leveret-data].
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// Where to listen for AMQP, instead of the configured listeners; may be repeated.
    /// A bare PORT is all interfaces [default: 127.0.0.1:5672 and `[::1]:5672`].
    #[arg(long, value_name = "ADDR:PORT", global = true)]
    pub listen: Vec<String>,
    /// A configuration file as rabbitmq.conf, or a folder of *.conf files; may be repeated.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Vec<PathBuf>,
    /// One key of the configuration, over all files; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    pub set: Vec<String>,
    /// Detach from the terminal (for those who call the program rabbitmq-server).
    #[arg(long, hide = true)]
    pub detached: bool,
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Ask a running broker, as rabbitmqctl does: `leveret ctl list_queues`.
    #[command(disable_help_flag = true)]
    Ctl {
        /// The arguments of leveretctl.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Make links by the names of RabbitMQ's tools in a folder, all to this program.
    Links {
        /// The folder; it is made if it is missing.
        dir: PathBuf,
    },
    /// Show what a data directory holds that no broker uses now.
    Inspect {
        /// The data directory.
        dir: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Read a data directory that no broker uses now and check every checksum of its log.
    Verify {
        /// The data directory.
        dir: PathBuf,
    },
    /// Check a configuration file, or show the effective configuration.
    Config {
        /// Which of the two.
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// The commands about configuration.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read FILE as it would be read at a start, and say what is wrong with it.
    Check {
        /// A file as rabbitmq.conf, or a folder of *.conf files.
        file: PathBuf,
    },
    /// Print every served key with its value and where that came from.
    Show,
}

/// What the program is, by the name it was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Persona {
    /// `leveret`, or any name that means nothing.
    Leveret,
    /// `rabbitmq-server`: the broker with RabbitMQ's defaults.
    RabbitmqServer,
    /// One of RabbitMQ's tools, or `leveretctl`.
    Tool(Tool),
}

impl Persona {
    /// `rabbitmq-server`, as a name to be called by.
    pub const SERVER: &'static str = "rabbitmq-server";

    /// Who is called by `program`, which may be a path.
    pub fn of(program: &OsStr) -> Persona {
        if Path::new(program).file_name() == Some(OsStr::new(Persona::SERVER)) {
            return Persona::RabbitmqServer;
        }
        Tool::of_program(program).map_or(Persona::Leveret, Persona::Tool)
    }
}

impl Arguments {
    /// Parses arguments, the program's name first. RabbitMQ's `-detached` is `--detached`.
    ///
    /// # Errors
    /// What clap says, help and version among it.
    pub fn read(arguments: impl Iterator<Item = OsString>) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(arguments.map(|argument| {
            if argument == "-detached" { OsString::from("--detached") } else { argument }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::read(arguments.iter().map(OsString::from))
    }

    #[test]
    fn flags_are_read() {
        let arguments =
            read(&["leveret", "--data-dir", "d", "--listen", "1", "--listen=2", "--set", "a=b"])
                .unwrap();
        assert_eq!(arguments.data_dir.as_deref(), Some(Path::new("d")));
        assert_eq!(arguments.listen, ["1", "2"]);
        assert_eq!(arguments.set, ["a=b"]);
        assert!(arguments.command.is_none());
        assert!(read(&["leveret", "--nonsense"]).is_err());
        assert!(read(&["rabbitmq-server", "-detached"]).unwrap().detached);
    }

    #[test]
    fn ctl_keeps_its_arguments() {
        let arguments = read(&["leveret", "ctl", "-q", "list_queues", "--help"]).unwrap();
        let Some(Command::Ctl { arguments }) = arguments.command else { panic!("not ctl") };
        assert_eq!(arguments, ["-q", "list_queues", "--help"]);
    }

    #[test]
    fn the_name_decides() {
        let of = |program: &str| Persona::of(OsStr::new(program));
        assert_eq!(of("/usr/sbin/rabbitmqctl"), Persona::Tool(Tool::Rabbitmqctl));
        assert_eq!(of("bin/rabbitmq-server"), Persona::RabbitmqServer);
        assert_eq!(of("./leveret"), Persona::Leveret);
    }
}
