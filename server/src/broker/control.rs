//! What HTTP and the command line may ask of the broker, and what it answers.
//!
//! Requests travel to the event loop by channel and are answered between two ticks; nothing outside
//! the loop touches broker state.

use super::alarm::Threshold;
use super::definitions::Step;
use super::exception::Exception;
use super::service::Service;
use super::snapshot::{
    BindingRow, Browsed, ChannelRow, ConnectionRow, ConsumerRow, ExchangeRow, LoginRow, MessageRow,
    MetricsRow, OverviewRow, ParameterRow, PermissionRow, PolicyRow, QueueRow, Redriven, Sums,
    TopicPermissionRow, UserRow, VhostRow,
};
use leveret_protocol::field::OwnedTable;
use serde_json::Value;

/// On whose behalf an order is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The operator on the control socket: nothing is refused for lack of permission.
    Operator,
    /// A user, with its permissions.
    User(String),
}

/// What RabbitMQ calls the author of changes made from the command line.
const OPERATOR_NAME: &str = "rmq-cli";

impl Actor {
    /// The name that stands in what it makes.
    pub fn name(&self) -> &str {
        match self {
            Actor::Operator => OPERATOR_NAME,
            Actor::User(name) => name,
        }
    }
}

/// A question or an order. Names are checked by the broker; `vhost: None` means all of them.
#[derive(Clone, Debug)]
pub enum ControlRequest {
    /// Is this user and password right, and who is it? Answered by [`ControlReply::Login`].
    Authenticate {
        /// User name.
        user: String,
        /// Password as typed.
        password: String,
        /// The peer is on this machine.
        loopback: bool,
    },
    /// Counts of everything, but for messages in queues: those are [`ControlRequest::Sums`].
    Overview,
    /// Sums over queues and channels, one stretch at a time.
    Sums {
        /// Where the stretch begins: 0, then [`Sums::next`].
        from: usize,
    },
    /// Measures that no listing shows.
    Metrics,
    /// Queues, in no order, one stretch at a time; answered by [`ControlReply::QueueStretch`].
    Queues {
        /// Virtual host.
        vhost: Option<String>,
        /// Where the stretch begins: 0, then what the last reply said.
        from: usize,
    },
    /// Those of these queues that are there: virtual hosts and names. The first virtual host must
    /// exist.
    QueuesNamed {
        /// Which.
        names: Vec<(String, String)>,
    },
    /// The names of all queues, in no order, one stretch at a time.
    QueueNames {
        /// The version the asker knows: if it is still right, no names are returned.
        known: Option<u64>,
        /// Where the stretch begins: 0, then what the last reply said.
        from: usize,
    },
    /// Exchanges, all or one by name.
    Exchanges {
        /// Virtual host.
        vhost: Option<String>,
        /// Only this one.
        name: Option<String>,
    },
    /// Bindings.
    Bindings {
        /// Virtual host.
        vhost: Option<String>,
    },
    /// Connections.
    Connections,
    /// Channels.
    Channels,
    /// Consumers.
    Consumers {
        /// Virtual host.
        vhost: Option<String>,
    },
    /// Virtual hosts.
    Vhosts,
    /// Users.
    Users,
    /// Permissions.
    Permissions,
    /// Topic permissions.
    TopicPermissions,
    /// Policies, or operator policies.
    Policies {
        /// Operator policies.
        operator: bool,
    },
    /// Declares a queue as `queue.declare` does.
    DeclareQueue {
        /// Who asks.
        actor: Actor,
        /// Virtual host.
        vhost: String,
        /// Name.
        name: String,
        /// Survives a restart.
        durable: bool,
        /// Goes with its last consumer.
        auto_delete: bool,
        /// Arguments.
        arguments: OwnedTable,
    },
    /// Deletes a queue; answered by [`ControlReply::Count`] (its ready messages).
    DeleteQueue {
        /// Who asks.
        actor: Actor,
        /// Virtual host.
        vhost: String,
        /// Name.
        name: String,
        /// Only without consumers.
        if_unused: bool,
        /// Only without ready messages.
        if_empty: bool,
    },
    /// Drops the ready messages of a queue; answered by [`ControlReply::Count`].
    PurgeQueue {
        /// Who asks.
        actor: Actor,
        /// Virtual host.
        vhost: String,
        /// Name.
        name: String,
    },
    /// Declares an exchange as `exchange.declare` does.
    DeclareExchange {
        /// Who asks.
        actor: Actor,
        /// Virtual host.
        vhost: String,
        /// Name.
        name: String,
        /// Type.
        kind: String,
        /// Survives a restart.
        durable: bool,
        /// Goes with its last binding.
        auto_delete: bool,
        /// Clients cannot publish to it.
        internal: bool,
        /// Arguments.
        arguments: OwnedTable,
    },
    /// Deletes an exchange.
    DeleteExchange {
        /// Who asks.
        actor: Actor,
        /// Virtual host.
        vhost: String,
        /// Name.
        name: String,
        /// Only without bindings from it.
        if_unused: bool,
    },
    /// Makes or removes a binding.
    Bind {
        /// Who asks.
        actor: Actor,
        /// The binding.
        binding: BindingRow,
        /// Remove it.
        unbind: bool,
    },
    /// Closes a connection as its operator would.
    CloseConnection {
        /// Its slot.
        id: u32,
        /// Text behind `CONNECTION_FORCED - `.
        reason: String,
    },
    /// Runtime parameters of all virtual hosts.
    Parameters,
    /// Parameters of the whole node.
    GlobalParameters,
    /// The definitions of the node, or of one virtual host; answered by [`ControlReply::Text`].
    Export {
        /// Only of this one.
        vhost: Option<String>,
    },
    /// Carries out changes in order; answered by [`ControlReply::Created`] when the last of them
    /// made something. The first that is refused ends it, those before it stay.
    Apply {
        /// What to do.
        steps: Vec<Step>,
    },
    /// Sets where alarms begin, until the next start; `None` leaves one as it is.
    SetWatermarks {
        /// Memory in use.
        memory: Option<Threshold>,
        /// Disk free.
        disk_free: Option<Threshold>,
    },
    /// Lets clients in, or not.
    Serve(Service),
    /// Removes something.
    Remove(Removal),
    /// Publishes one message; answered by [`ControlReply::Routed`].
    Publish {
        /// Who asks.
        actor: Actor,
        /// Virtual host.
        vhost: String,
        /// Exchange.
        exchange: String,
        /// Routing key.
        routing_key: String,
        /// Property flags and values as on the wire.
        properties: Vec<u8>,
        /// Body.
        body: Vec<u8>,
    },
    /// Looks at ready messages and changes nothing; answered by [`ControlReply::Browsed`].
    Browse(Browse),
    /// Sends dead letters back; answered by [`ControlReply::Redriven`].
    Redrive(Redrive),
    /// Takes or looks at messages at the head of a queue.
    Get {
        /// Who asks.
        actor: Actor,
        /// Virtual host.
        vhost: String,
        /// Queue.
        queue: String,
        /// At most so many.
        count: u32,
        /// What becomes of them.
        mode: GetMode,
        /// Body bytes of each message to return at most.
        truncate: Option<u64>,
    },
}

/// The place of a message in a queue: its priority, then its number among those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Priority.
    pub level: u8,
    /// Number.
    pub seq: u64,
}

/// Which messages a browser wants to see; what is not said is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageFilter {
    /// Part of the routing key.
    pub routing_key: Option<String>,
    /// Exchange it was published to.
    pub exchange: Option<String>,
    /// A header and its value.
    pub header: Option<(String, String)>,
    /// Part of the body.
    pub body: Option<String>,
}

/// A look at the messages of a queue.
#[derive(Clone, Debug)]
pub struct Browse {
    /// Who asks.
    pub actor: Actor,
    /// Virtual host.
    pub vhost: String,
    /// Queue.
    pub queue: String,
    /// Behind this message; from the head where there is none.
    pub after: Option<Position>,
    /// Messages to show at most.
    pub limit: u32,
    /// Body bytes of each message to show at most.
    pub truncate: Option<u64>,
    /// Which.
    pub filter: MessageFilter,
}

/// Dead letters to be sent back.
#[derive(Clone, Debug)]
pub struct Redrive {
    /// Who asks.
    pub actor: Actor,
    /// Virtual host.
    pub vhost: String,
    /// The queue they are in.
    pub queue: String,
    /// Behind this message; from the head where there is none.
    pub after: Option<Position>,
    /// Messages to send at most.
    pub limit: u64,
    /// To this exchange, and not to the queue they died in.
    pub exchange: Option<String>,
    /// With this routing key, and not with that they had.
    pub routing_key: Option<String>,
}

/// What becomes of messages that [`ControlRequest::Get`] shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetMode {
    /// They are taken.
    Acknowledge,
    /// They are rejected: dead-lettered where the queue says so, else dropped.
    Reject,
    /// They go back to where they were, marked as delivered before.
    Requeue,
}

/// Something an administrator takes away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// A user, with its permissions and connections.
    User(String),
    /// A virtual host, with everything in it.
    Vhost(String),
    /// A user's permission in a virtual host.
    Permission {
        /// Whose.
        user: String,
        /// Where.
        vhost: String,
    },
    /// A user's topic permissions in a virtual host.
    TopicPermission {
        /// Whose.
        user: String,
        /// Where.
        vhost: String,
        /// Only that on this exchange.
        exchange: Option<String>,
    },
    /// A policy.
    Policy {
        /// An operator policy.
        operator: bool,
        /// Where.
        vhost: String,
        /// Its name.
        name: String,
    },
    /// A runtime parameter.
    Parameter {
        /// Where.
        vhost: String,
        /// Its component.
        component: String,
        /// Its name.
        name: String,
    },
    /// A parameter of the whole node.
    GlobalParameter(String),
}

/// The answer to a [`ControlRequest`].
#[derive(Clone, Debug)]
pub enum ControlReply {
    /// Done.
    Done,
    /// Done, and it was not there before.
    Created,
    /// A number of messages.
    Count(u64),
    /// Whether a publish reached a queue.
    Routed(bool),
    /// Refused, as a client would have been.
    Refused(Exception),
    /// [`ControlRequest::Overview`].
    Overview(Box<OverviewRow>),
    /// Who logged in; none if the password is wrong.
    Login(Option<LoginRow>),
    /// [`ControlRequest::Sums`].
    Sums(Box<Sums>),
    /// [`ControlRequest::Metrics`].
    Metrics(Box<MetricsRow>),
    /// Rows.
    Queues(Vec<QueueRow>),
    /// Rows, and where the next stretch begins.
    QueueStretch(Vec<QueueRow>, Option<usize>),
    /// Virtual hosts and names.
    QueueNames {
        /// Moves when a queue comes or goes.
        version: u64,
        /// Of this stretch.
        names: Vec<(String, String)>,
        /// Where the next stretch begins.
        next: Option<usize>,
    },
    /// Rows.
    Exchanges(Vec<ExchangeRow>),
    /// Rows.
    Bindings(Vec<BindingRow>),
    /// Rows.
    Connections(Vec<ConnectionRow>),
    /// Rows.
    Channels(Vec<ChannelRow>),
    /// Rows.
    Consumers(Vec<ConsumerRow>),
    /// Rows.
    Vhosts(Vec<VhostRow>),
    /// Rows.
    Users(Vec<UserRow>),
    /// Rows.
    Permissions(Vec<PermissionRow>),
    /// Rows.
    TopicPermissions(Vec<TopicPermissionRow>),
    /// Rows.
    Policies(Vec<PolicyRow>),
    /// Rows.
    Parameters(Vec<ParameterRow>),
    /// Names and values.
    GlobalParameters(Vec<(String, Value)>),
    /// Rows.
    Messages(Vec<MessageRow>),
    /// One step of browsing.
    Browsed(Browsed),
    /// One step of sending back.
    Redriven(Redriven),
    /// Messages must be read from disk first: ask again in a moment.
    Loading,
    /// A text.
    Text(String),
}
