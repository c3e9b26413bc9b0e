//! The names one program answers to, and which commands each of them has.

use std::ffi::OsStr;
use std::path::Path;

/// A command-line tool of RabbitMQ's, or ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// `leveretctl`, or `leveret ctl`: has the commands of all others.
    Leveretctl,
    /// `rabbitmqctl`.
    Rabbitmqctl,
    /// `rabbitmq-diagnostics`.
    Diagnostics,
    /// `rabbitmq-queues`.
    Queues,
    /// `rabbitmq-streams`.
    Streams,
    /// `rabbitmq-plugins`.
    Plugins,
    /// `rabbitmq-upgrade`.
    Upgrade,
}

impl Tool {
    /// All of them, for making links.
    pub const ALL: [Tool; 7] = [
        Tool::Leveretctl,
        Tool::Rabbitmqctl,
        Tool::Diagnostics,
        Tool::Queues,
        Tool::Streams,
        Tool::Plugins,
        Tool::Upgrade,
    ];

    /// The tool a program was called as, by the last part of its first argument.
    pub fn of_program(argument: &OsStr) -> Option<Tool> {
        let name = Path::new(argument).file_name()?;
        Tool::ALL.into_iter().find(|tool| name == OsStr::new(tool.name()))
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Tool::Leveretctl => "leveretctl",
            Tool::Rabbitmqctl => "rabbitmqctl",
            Tool::Diagnostics => "rabbitmq-diagnostics",
            Tool::Queues => "rabbitmq-queues",
            Tool::Streams => "rabbitmq-streams",
            Tool::Plugins => "rabbitmq-plugins",
            Tool::Upgrade => "rabbitmq-upgrade",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_known_by_the_name_it_was_called() {
        let check = |path: &str, expected| {
            assert_eq!(Tool::of_program(OsStr::new(path)), expected, "{path}");
        };
        check("/usr/local/bin/rabbitmqctl", Some(Tool::Rabbitmqctl));
        check("rabbitmq-diagnostics", Some(Tool::Diagnostics));
        check("target/debug/leveretctl", Some(Tool::Leveretctl));
        check("leveret", None);
        check("/", None);
    }
}
