//! Typed questions to the broker: each names its request once, with the reply that belongs to it.

use super::control::ControlHandle;
use super::response::ApiError;
use crate::broker::control::{ControlReply, ControlRequest};
use crate::broker::snapshot::{
    BindingRow, ChannelRow, ConnectionRow, ConsumerRow, ExchangeRow, MetricsRow, OverviewRow,
    ParameterRow, PermissionRow, PolicyRow, QueueRow, Sums, TopicPermissionRow, UserRow, VhostRow,
};
use serde_json::Value;

/// The names of all queues as they were a moment ago.
#[derive(Debug, Default)]
pub(crate) struct QueueNames {
    /// Moves when a queue comes or goes.
    pub(crate) version: u64,
    /// Virtual hosts and names, in that order.
    pub(crate) names: Vec<(String, String)>,
}

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
    /// Counts of everything but messages in queues.
    overview() ControlRequest::Overview => Overview(Box<OverviewRow>);
    /// Sums over one stretch of queues and channels.
    sums_from(from: usize) ControlRequest::Sums { from } => Sums(Box<Sums>);
    /// Measures that no listing shows.
    metrics() ControlRequest::Metrics => Metrics(Box<MetricsRow>);
    /// Those of these queues that are there; the first virtual host must be.
    queues_named(names: Vec<(String, String)>)
        ControlRequest::QueuesNamed { names } => Queues(Vec<QueueRow>);
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
    /// Virtual hosts, without what is in their queues.
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
    /// Sums over all queues and channels.
    pub(crate) async fn sums(&self) -> Result<Sums, ApiError> {
        let mut sums = *self.sums_from(0).await?;
        while let Some(from) = sums.next {
            sums.add(*self.sums_from(from).await?);
        }
        Ok(sums)
    }

    /// Counts of everything, messages in queues included.
    pub(crate) async fn overview_with_messages(&self) -> Result<OverviewRow, ApiError> {
        let mut row = *self.overview().await?;
        let sums = self.sums().await?;
        row.messages_ready = sums.queues.ready;
        row.messages_unacknowledged = sums.queues.unacknowledged;
        Ok(row)
    }

    /// Virtual hosts with the sums over their queues.
    pub(crate) async fn vhosts_with_messages(&self) -> Result<Vec<VhostRow>, ApiError> {
        let mut rows = self.vhosts().await?;
        let sums = self.sums().await?;
        for row in &mut rows {
            if let Some(sums) = sums.vhosts.get(&row.name) {
                row.messages_ready = sums.ready;
                row.messages_unacknowledged = sums.unacknowledged;
                row.stats = sums.stats;
            }
        }
        Ok(rows)
    }

    /// Queues, of one virtual host or all, in no order.
    pub(crate) async fn queues(&self, vhost: Option<String>) -> Result<Vec<QueueRow>, ApiError> {
        let mut rows = Vec::new();
        let mut from = Some(0);
        while let Some(start) = from {
            let (stretch, next) = self.queues_from(vhost.clone(), start).await?;
            rows.extend(stretch);
            from = next;
        }
        Ok(rows)
    }

    /// One stretch of queues, and where the next one begins.
    pub(crate) async fn queues_from(
        &self,
        vhost: Option<String>,
        from: usize,
    ) -> Result<(Vec<QueueRow>, Option<usize>), ApiError> {
        let reply = self.ask(ControlRequest::Queues { vhost, from }).await?;
        if let ControlReply::Refused(_) = reply {
            return Err(ApiError::NotFound);
        }
        let ControlReply::QueueStretch(rows, next) = reply else {
            panic!("queues were answered by {reply:?}");
        };
        Ok((rows, next))
    }

    /// The names of all queues, unless `known` is still their version.
    pub(crate) async fn queue_names(
        &self,
        known: Option<u64>,
    ) -> Result<Option<QueueNames>, ApiError> {
        let mut all = Vec::new();
        let (mut from, mut first) = (0, None);
        loop {
            let known = known.filter(|_| from == 0);
            let reply = self.ask(ControlRequest::QueueNames { known, from }).await?;
            let ControlReply::QueueNames { version, names, next } = reply else {
                panic!("names were answered by {reply:?}");
            };
            if known == Some(version) {
                return Ok(None);
            }
            // What came between two stretches is noticed by the next who asks.
            let version = *first.get_or_insert(version);
            all.extend(names);
            let Some(next) = next else {
                all.sort_unstable();
                return Ok(Some(QueueNames { version, names: all }));
            };
            from = next;
        }
    }

    /// The queue of a name, or 404.
    pub(crate) async fn queue(&self, vhost: &str, name: &str) -> Result<QueueRow, ApiError> {
        let rows = self.queues_named(vec![(vhost.to_owned(), name.to_owned())]).await?;
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
