//! What a command is, and what it has to work with.

use super::arguments::Arguments;
use super::client::Client;
use super::failure::Failure;
use super::find::{self, Surroundings};
use super::output::{Format, Output};
use super::tool::Tool;
use std::io::{BufRead, Write};

/// One command of the tools.
pub(crate) struct Command {
    /// What it is called.
    pub(crate) name: &'static str,
    /// The tools that have it besides `leveretctl`, which has all.
    pub(crate) tools: &'static [Tool],
    /// The heading it stands under in the list of commands.
    pub(crate) group: Group,
    /// Its own arguments and options, as the usage line shows them.
    pub(crate) usage: &'static str,
    /// What it does, in one line.
    pub(crate) summary: &'static str,
    /// Options it has besides those that all have.
    pub(crate) options: &'static [&'static str],
    /// Fewest and most arguments.
    pub(crate) arity: (usize, usize),
    /// What must be there before it starts.
    pub(crate) needs: Needs,
    /// The format of its result where none is asked for.
    pub(crate) format: Format,
    /// What runs.
    pub(crate) run: fn(&mut Session<'_>) -> Result<(), Failure>,
}

/// Headings of the list of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Help,
    Nodes,
    Cluster,
    Users,
    Access,
    Monitoring,
    Parameters,
    Policies,
    VirtualHosts,
    Configuration,
    Definitions,
    FeatureFlags,
    Operations,
    Queues,
    Plugins,
    Upgrade,
}

impl Group {
    /// In the order of the list.
    pub(crate) const ALL: [Group; 16] = [
        Group::Help,
        Group::Nodes,
        Group::Cluster,
        Group::Users,
        Group::Access,
        Group::Monitoring,
        Group::Parameters,
        Group::Policies,
        Group::VirtualHosts,
        Group::Configuration,
        Group::Definitions,
        Group::FeatureFlags,
        Group::Operations,
        Group::Queues,
        Group::Plugins,
        Group::Upgrade,
    ];

    /// As the list prints it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Group::Help => "Help",
            Group::Nodes => "Nodes",
            Group::Cluster => "Cluster",
            Group::Users => "Users",
            Group::Access => "Access Control",
            Group::Monitoring => "Monitoring, observability and health checks",
            Group::Parameters => "Parameters",
            Group::Policies => "Policies",
            Group::VirtualHosts => "Virtual hosts",
            Group::Configuration => "Configuration and Environment",
            Group::Definitions => "Definitions",
            Group::FeatureFlags => "Feature flags",
            Group::Operations => "Operations",
            Group::Queues => "Queues",
            Group::Plugins => "Plugin Management",
            Group::Upgrade => "Upgrade",
        }
    }
}

/// What must be there before a command starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing; it may look for the broker itself.
    Nothing,
    /// A broker that answers.
    Broker,
    /// A broker that answers and has not been told to stop serving.
    Service,
}

/// A command under way.
pub(crate) struct Session<'a> {
    /// What it was called as.
    pub(crate) tool: Tool,
    /// Arguments behind the command's name.
    pub(crate) arguments: &'a Arguments,
    /// Where to look for brokers.
    pub(crate) surroundings: &'a Surroundings,
    /// Where results go.
    pub(crate) out: Output<'a>,
    /// Where remarks go.
    pub(crate) err: &'a mut dyn Write,
    /// Where passwords and definitions may come from.
    pub(crate) input: &'a mut dyn BufRead,
    /// The broker, once found.
    broker: Option<Client>,
}

impl<'a> Session<'a> {
    /// A session that has not looked for its broker yet.
    pub(crate) fn new(
        tool: Tool,
        arguments: &'a Arguments,
        surroundings: &'a Surroundings,
        out: Output<'a>,
        err: &'a mut dyn Write,
        input: &'a mut dyn BufRead,
    ) -> Session<'a> {
        Session { tool, arguments, surroundings, out, err, input, broker: None }
    }

    /// Finds the broker, if that has not been done.
    pub(crate) fn find_broker(&mut self) -> Result<&Client, Failure> {
        let broker = match self.broker.take() {
            Some(broker) => broker,
            None => find::find(self.arguments, self.surroundings)?,
        };
        Ok(self.broker.insert(broker))
    }

    /// The broker. Only for commands that need one.
    pub(crate) fn broker(&self) -> &Client {
        self.broker.as_ref().expect("found before a command that needs it runs")
    }

    /// An argument that [`Command::arity`] promises.
    pub(crate) fn argument(&self, index: usize) -> &'a str {
        &self.arguments.positional[index + 1]
    }

    /// All arguments behind the command's name.
    pub(crate) fn words(&self) -> &'a [String] {
        &self.arguments.positional[1..]
    }

    /// The name of the node, as the broker says.
    pub(crate) fn node(&self) -> Result<String, Failure> {
        let overview = self.broker().get("/overview?columns=node")?;
        Ok(overview["node"].as_str().unwrap_or_default().to_owned())
    }
}
