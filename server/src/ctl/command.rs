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

impl Command {
    /// A command that needs a broker that serves, has no options of its own and prints a table.
    pub(crate) const fn new(
        name: &'static str,
        tools: &'static [Tool],
        group: Group,
        usage: &'static str,
        summary: &'static str,
        arity: (usize, usize),
        run: fn(&mut Session<'_>) -> Result<(), Failure>,
    ) -> Command {
        let (needs, format) = (Needs::Service, Format::Table);
        Command { name, tools, group, usage, summary, options: &[], arity, needs, format, run }
    }

    /// The same with options of its own.
    pub(crate) const fn options(self, options: &'static [&'static str]) -> Command {
        Command { options, ..self }
    }

    /// The same with other needs.
    pub(crate) const fn needs(self, needs: Needs) -> Command {
        Command { needs, ..self }
    }

    /// The same with another format where none is asked for.
    pub(crate) const fn format(self, format: Format) -> Command {
        Command { format, ..self }
    }
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
    /// Which command it is.
    pub(crate) command: &'static Command,
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
        command: &'static Command,
        arguments: &'a Arguments,
        surroundings: &'a Surroundings,
        out: Output<'a>,
        err: &'a mut dyn Write,
        input: &'a mut dyn BufRead,
    ) -> Session<'a> {
        Session { tool, command, arguments, surroundings, out, err, input, broker: None }
    }

    /// Finds the broker, if that has not been done.
    pub(crate) fn find_broker(&mut self) -> Result<&Client, Failure> {
        let broker = match self.broker.take() {
            Some(broker) => broker,
            None => find::find(self.arguments, self.surroundings)?,
        };
        Ok(self.broker.insert(broker))
    }

    /// The broker. Only for commands that need one. A dry run ends at the first request behind a
    /// banner.
    pub(crate) fn broker(&self) -> &Client {
        let broker = self.broker.as_ref().expect("found before a command that needs it runs");
        if self.out.has_announced() && self.arguments.flag("dry-run") {
            broker.refuse_requests();
        }
        broker
    }

    /// Runs another command of the same tool, with the same options.
    pub(crate) fn run_other(&mut self, words: &[&str], vhost: Option<&str>) -> Result<(), Failure> {
        let command = super::commands()
            .find(|command| command.name == words[0])
            .expect("a command of our own is asked for");
        let arguments = self.arguments.for_command(words, vhost);
        let mut other = Session {
            tool: self.tool,
            command,
            arguments: &arguments,
            surroundings: self.surroundings,
            out: self.out.again(),
            err: &mut *self.err,
            input: &mut *self.input,
            broker: self.broker.take(),
        };
        let outcome = (command.run)(&mut other);
        let broker = other.broker.take();
        self.broker = broker;
        outcome
    }

    /// The broker has gone: it is to be found anew.
    pub(crate) fn forget_broker(&mut self) {
        self.broker = None;
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

    /// Ends a command that has nothing to say but that it is done. Programs that read JSON are told
    /// so; nobody else is.
    pub(crate) fn done(&mut self) -> Result<(), Failure> {
        if self.out.format() != Format::Json {
            return Ok(());
        }
        let json = serde_json::json!({"node": self.node()?, "result": "ok"});
        Ok(self.out.result("", &json)?)
    }

    /// Ends a command with a line that is a message to people and to programs.
    pub(crate) fn done_with(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.out.result(text, &serde_json::json!({"message": text}))?)
    }

    /// Whether nothing is to be changed.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.arguments.flag("dry-run")
    }
}
