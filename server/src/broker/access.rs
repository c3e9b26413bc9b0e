//! Who may do what: the questions handlers ask before they change anything.
//!
//! Decisions are made in `permission.rs`; a channel's route keeps the one about publishing until
//! [`Broker::generation`] moves.

pub(super) use super::permission::{Access, ResourceKind};

use super::auth::{AuthSettings, Login, Verdict};
use super::binding::{BindingRequest, DestinationName};
use super::connection::ConnectionInfo;
use super::exception::{Exception, Outcome};
use super::exchange::ExchangeType;
use super::ids::{ConnectionId, ExchangeKey, VhostKey};
use super::limits::{Limit, VhostLimits};
use super::queue::Declaration;
use super::vhost::VhostDefinition;
use super::{Broker, Context};
use leveret_protocol::FieldValue;
use std::net::IpAddr;

impl Broker {
    /// Judges a SASL response from `peer`, which is `None` on a Unix socket.
    pub fn login(
        &mut self,
        mechanism: &str,
        response: &[u8],
        peer: Option<IpAddr>,
        ctx: &mut Context<'_>,
    ) -> Login {
        let login = self.authenticator.login(&self.users, mechanism, response, peer, ctx.now.ms);
        let user = match &login.verdict {
            Verdict::Accepted { user } => user,
            Verdict::Refused { .. } | Verdict::Malformed { .. } => "",
        };
        self.amqp_logins.count(!user.is_empty());
        self.emit_login(user, mechanism, ctx);
        login
    }

    /// Replaces how one logs in.
    pub fn configure_auth(&mut self, settings: AuthSettings) {
        self.authenticator.configure(settings);
    }

    /// Moves with everything that routes and permissions depend on.
    #[inline]
    pub(super) fn generation(&self) -> u64 {
        // Both only grow, so their sum repeats only when neither moved.
        self.topology.generation() + self.permissions.generation()
    }

    /// May a user that just logged in enter the virtual host?
    pub(super) fn authorize_vhost(
        &self,
        info: &ConnectionInfo,
        vhost: VhostKey,
        name: &str,
    ) -> Outcome {
        let of_vhost = self.connections.values().filter(|one| one.vhost == vhost).count();
        limits_of(self.topology.vhost(vhost)).check_connection(
            of_vhost as u64,
            name,
            &info.user,
        )?;
        if let Some(user) = self.users.get(&info.user) {
            let of_user = self.connections.values().filter(|one| *one.user == info.user).count();
            user.limits.check_connection(of_user as u64, &info.user)?;
        }
        self.permissions.check_vhost(&info.user, name)
    }

    /// May the connection open one more channel?
    pub(super) fn check_channel_limit(&self, id: ConnectionId) -> Outcome {
        let connection = &self.connections[&id];
        let open = connection.channels.len();
        let channel_max = usize::from(connection.info.channel_max);
        if channel_max != 0 && channel_max <= open {
            return Err(Exception::not_allowed(format!(
                "number of channels opened ({open}) has reached the negotiated channel_max \
                 ({channel_max})"
            )));
        }
        let Some(user) = self.users.get(&connection.user) else { return Ok(()) };
        if user.limits.max_channels.value().is_none() {
            return Ok(());
        }
        let of_user = self.connections.values().filter(|one| one.user == connection.user);
        let count: usize = of_user.map(|one| one.channels.len()).sum();
        user.limits.check_channel(count as u64, &connection.user)
    }

    /// May the connection's user do this to the exchange of that name?
    pub(super) fn authorize_exchange(
        &self,
        connection: ConnectionId,
        access: Access,
        name: &str,
    ) -> Outcome {
        self.authorize(connection, access, ResourceKind::Exchange, name)
    }

    /// May the connection's user do this to the queue of that name?
    pub(super) fn authorize_queue(
        &self,
        connection: ConnectionId,
        access: Access,
        name: &str,
    ) -> Outcome {
        self.authorize(connection, access, ResourceKind::Queue, name)
    }

    fn authorize(
        &self,
        connection: ConnectionId,
        access: Access,
        kind: ResourceKind,
        name: &str,
    ) -> Outcome {
        let connection = &self.connections[&connection];
        let vhost = &self.topology.vhost(connection.vhost).name;
        self.permissions.check(&connection.user, vhost, access, kind, name)
    }

    /// May the connection's user publish (`Write`) or bind (`Read`) with this key? Only exchanges of
    /// type topic are asked.
    pub(super) fn authorize_topic(
        &self,
        connection: ConnectionId,
        access: Access,
        exchange: ExchangeKey,
        key: &str,
    ) -> Outcome {
        let definition = &self.topology.exchange(exchange).definition;
        if definition.kind != ExchangeType::Topic {
            return Ok(());
        }
        let connection = &self.connections[&connection];
        let vhost = &self.topology.vhost(connection.vhost).name;
        self.permissions.check_topic(&connection.user, vhost, access, &definition.name, key)
    }

    /// Binding takes write on the destination and read on the source.
    pub(super) fn authorize_binding(
        &self,
        connection: ConnectionId,
        request: &BindingRequest<'_>,
    ) -> Outcome {
        super::exchange::refuse_default_exchange(request.source)?;
        match request.destination {
            DestinationName::Queue(name) => {
                self.authorize_queue(connection, Access::Write, name)?;
            }
            DestinationName::Exchange(name) => {
                super::exchange::refuse_default_exchange(name)?;
                self.authorize_exchange(connection, Access::Write, name)?;
            }
        }
        self.authorize_exchange(connection, Access::Read, request.source)?;
        let vhost = self.vhost_of(connection);
        match self.topology.lookup_exchange(vhost, request.source) {
            Some(source) => self.authorize_topic(connection, Access::Read, source, request.key),
            None => Ok(()),
        }
    }

    /// A queue with a dead-letter exchange takes read on itself and write on that.
    pub(super) fn check_dead_letter_access(
        &self,
        connection: ConnectionId,
        declaration: &Declaration<'_>,
    ) -> Outcome {
        let arguments = declaration.arguments.as_ref();
        let Some(exchange) = arguments.get("x-dead-letter-exchange").and_then(FieldValue::as_str)
        else {
            return Ok(());
        };
        self.authorize_queue(connection, Access::Read, declaration.name)?;
        self.authorize_exchange(connection, Access::Write, exchange)
    }

    /// A message may claim no other user than the one that sends it, but for impersonators.
    pub(super) fn check_user_id(&self, connection: ConnectionId, user_id: &[u8]) -> Outcome {
        let user = &self.connections[&connection].user;
        let may_impersonate = || self.users.get(user).is_some_and(|one| one.tags.is_impersonator());
        if user.as_bytes() == user_id || may_impersonate() {
            return Ok(());
        }
        Err(Exception::precondition(format!(
            "user_id property set to '{}' but authenticated user was '{user}'",
            String::from_utf8_lossy(user_id)
        )))
    }

    /// A virtual host may limit its queues.
    pub(super) fn check_queue_limit(&self, vhost: VhostKey, queue: &str) -> Outcome {
        let count = self.topology.queue_count(vhost) as u64;
        let vhost = self.topology.vhost(vhost);
        limits_of(vhost).check_queue(count, queue, &vhost.name)
    }
}

/// The limits a virtual host was given.
pub(super) fn limits_of(vhost: &VhostDefinition) -> VhostLimits {
    let limit = |count: Option<u32>| count.map_or(Limit::NONE, |count| Limit::new(count.into()));
    VhostLimits {
        max_connections: limit(vhost.max_connections),
        max_queues: limit(vhost.max_queues),
    }
}
