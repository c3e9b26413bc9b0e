//! Typed questions to the broker: each names its request once, with the reply that belongs to it.

use super::control::ControlHandle;
use super::response::ApiError;
use crate::broker::control::{ControlReply, ControlRequest};
use crate::broker::snapshot::{
    BindingRow, ChannelRow, ConnectionRow, ConsumerRow, ExchangeRow, OverviewRow, ParameterRow,
    PermissionRow, PolicyRow, QueueRow, TopicPermissionRow, UserRow, VhostRow,
};
use serde_json::Value;

/// A question for rows. The broker refuses one about a virtual host that is not there: 404.
macro_rules! questions {
    ($($(#[$doc:meta])*
       $name:ident($($argument:ident: $type:ty),*) $request:expr => $reply:ident($rows:ty);)*) => {
        impl ControlHandle {$(
            $(#[$doc])*
            pub(crate) async fn $name(&self $(, $argument: $type)*) -> Result<$rows, ApiError> {
                let reply = self.ask($request).await?;
                if let ControlReply::Refused(_) = reply {
                    return Err(ApiError::NotFound);
                }
                let ControlReply::$reply(rows) = reply else {
                    panic!("{} was answered by {reply:?}", stringify!($name));
                };
                Ok(rows)
            }
        )*}
    };
}

questions! {
    /// Counts of everything.
    overview() ControlRequest::Overview => Overview(Box<OverviewRow>);
    /// Queues, of one virtual host or all.
    queues(vhost: Option<String>)
        ControlRequest::Queues { vhost, name: None } => Queues(Vec<QueueRow>);
    /// The queue of a name, if there is one.
    queue_named(vhost: String, name: String)
        ControlRequest::Queues { vhost: Some(vhost), name: Some(name) } => Queues(Vec<QueueRow>);
    /// Exchanges, of one virtual host or all.
    exchanges(vhost: Option<String>)
        ControlRequest::Exchanges { vhost, name: None } => Exchanges(Vec<ExchangeRow>);
    /// The exchange of a name, if there is one.
    exchange_named(vhost: String, name: String)
        ControlRequest::Exchanges { vhost: Some(vhost), name: Some(name) }
        => Exchanges(Vec<ExchangeRow>);
    /// Bindings, of one virtual host or all.
    bindings(vhost: Option<String>) ControlRequest::Bindings { vhost } => Bindings(Vec<BindingRow>);
    /// Connections.
    connections() ControlRequest::Connections => Connections(Vec<ConnectionRow>);
    /// Channels.
    channels() ControlRequest::Channels => Channels(Vec<ChannelRow>);
    /// Consumers, of one virtual host or all.
    consumers(vhost: Option<String>)
        ControlRequest::Consumers { vhost } => Consumers(Vec<ConsumerRow>);
    /// Virtual hosts.
    vhosts() ControlRequest::Vhosts => Vhosts(Vec<VhostRow>);
    /// Users.
    users() ControlRequest::Users => Users(Vec<UserRow>);
    /// Permissions.
    permissions() ControlRequest::Permissions => Permissions(Vec<PermissionRow>);
    /// Topic permissions.
    topic_permissions()
        ControlRequest::TopicPermissions => TopicPermissions(Vec<TopicPermissionRow>);
    /// Policies, or operator policies.
    policies(operator: bool) ControlRequest::Policies { operator } => Policies(Vec<PolicyRow>);
    /// Runtime parameters.
    parameters() ControlRequest::Parameters => Parameters(Vec<ParameterRow>);
    /// Global parameters.
    global_parameters()
        ControlRequest::GlobalParameters => GlobalParameters(Vec<(String, Value)>);
}

impl ControlHandle {
    /// The queue of a name, or 404.
    pub(crate) async fn queue(&self, vhost: &str, name: &str) -> Result<QueueRow, ApiError> {
        let rows = self.queue_named(vhost.to_owned(), name.to_owned()).await?;
        rows.into_iter().next().ok_or(ApiError::NotFound)
    }

    /// The exchange of a name, or 404.
    pub(crate) async fn exchange(&self, vhost: &str, name: &str) -> Result<ExchangeRow, ApiError> {
        let rows = self.exchange_named(vhost.to_owned(), name.to_owned()).await?;
        rows.into_iter().next().ok_or(ApiError::NotFound)
    }

    /// The virtual host of a name, or 404.
    pub(crate) async fn vhost(&self, name: &str) -> Result<VhostRow, ApiError> {
        self.vhosts().await?.into_iter().find(|row| row.name == name).ok_or(ApiError::NotFound)
    }

    /// The user of a name, or 404.
    pub(crate) async fn user(&self, name: &str) -> Result<UserRow, ApiError> {
        self.users().await?.into_iter().find(|row| row.name == name).ok_or(ApiError::NotFound)
    }
}
