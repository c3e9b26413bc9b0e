//! `basic.publish`: from the content that came in to entries in queues.
//!
//! A channel remembers the bytes of its last publish method and where it led: while they repeat and
//! no definition changed, a message is checked, routed and permitted by one comparison.

use super::reply_to::PSEUDO_QUEUE;
use crate::broker::access::Access;
use crate::broker::exception::{Exception, Outcome};
use crate::broker::ids::{ChannelId, ConnectionId, ExchangeKey};
use crate::broker::message::{MessageMeta, NO_EXPIRATION, split_routing};
use crate::broker::queue::Stored;
use crate::broker::router::{Routable, Route};
use crate::broker::{Broker, Context, Waiter};
use leveret_engine::QueueId;
use leveret_protocol::content::Publish;
use leveret_protocol::field::{FieldTable, FieldValue};
use leveret_protocol::frame::{Return, encode_return};
use leveret_protocol::method::MethodId;
use leveret_protocol::properties::BasicProperties;
use leveret_protocol::reply::ReplyCode;
use std::rc::Rc;

/// RabbitMQ's longest `expiration`: ten years in milliseconds.
const EXPIRATION_MAX_MS: u64 = 315_360_000_000;

/// Where the last publish of a channel went.
#[derive(Debug)]
pub struct RouteCache {
    /// The method's bytes as they came.
    method: Vec<u8>,
    /// What the definitions' generation was.
    generation: u64,
    exchange: ExchangeKey,
    targets: Targets,
}

impl Default for RouteCache {
    fn default() -> RouteCache {
        RouteCache {
            method: Vec::new(),
            generation: 0,
            exchange: ExchangeKey(u32::MAX),
            targets: Targets::default(),
        }
    }
}

/// The queues of one message.
#[derive(Debug, Default)]
pub(in crate::broker) struct Targets {
    /// Their keys, and what else the message is for.
    pub(in crate::broker) route: Route,
    /// Reply consumers it is for, by name.
    pub(in crate::broker) replies: Vec<Rc<str>>,
    /// Their logs, in the same order.
    pub(in crate::broker) logs: Vec<QueueId>,
    /// One of them is durable.
    pub(in crate::broker) durable: bool,
    /// One of them stores everything persistently.
    pub(in crate::broker) quorum: bool,
    /// One of them keeps messages by priority; its log is that of those that have none.
    pub(in crate::broker) prioritized: bool,
    /// Messages of one of them expire.
    pub(in crate::broker) watched: bool,
    /// One of them holds only so many messages or bytes.
    pub(in crate::broker) limited: bool,
}

impl Targets {
    /// Whether the message goes nowhere: what `mandatory` is about.
    pub(in crate::broker) fn is_empty(&self) -> bool {
        self.route.is_empty() && self.replies.is_empty()
    }

    /// Whether the log gets a message of these queues.
    #[inline]
    pub(in crate::broker) fn is_persistent(&self, meta: &MessageMeta) -> bool {
        self.durable && (meta.persistent || self.quorum)
    }
}

/// What the properties of a publish say that concerns the broker.
struct Checked<'a> {
    meta: MessageMeta,
    /// Routing keys besides the method's: headers `CC` and `BCC`.
    has_more_keys: bool,
    properties: BasicProperties<'a>,
    /// What is stored in their place.
    rewritten: Option<Vec<u8>>,
}

impl Broker {
    /// `basic.publish` with its content.
    ///
    /// # Errors
    /// What RabbitMQ refuses: a missing or internal exchange, no permission, bad properties.
    pub fn publish(
        &mut self,
        connection: ConnectionId,
        publish: &Publish<'_>,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let index = self.channel_index(connection, publish.channel);
        self.publish_on(index, publish, ctx)
            .map_err(|exception| exception.caused_by(MethodId::BASIC_PUBLISH))
    }

    fn publish_on(
        &mut self,
        index: usize,
        publish: &Publish<'_>,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let generation = self.generation();
        let cache = &self.channels[index].route;
        if cache.generation != generation || cache.method != publish.method {
            self.resolve(index, publish, generation)?;
        }
        let checked = self.check_properties(index, publish.properties, ctx)?;
        let mut targets = std::mem::take(&mut self.channels[index].route.targets);
        let reusable = targets.route.cacheable && !checked.has_more_keys;
        if !reusable {
            self.route_message(index, publish, &checked, &mut targets);
        }
        let parts = Parts {
            routing: publish.routing(),
            properties: checked.rewritten.as_deref().unwrap_or(publish.properties),
            body: publish.body,
        };
        let stored = if self.channels[index].transaction.is_some() {
            self.buffer_publish(index, checked.meta, publish.mandatory(), &parts, &targets);
            Ok(Stored::default())
        } else {
            let stored = self.store(&checked.meta, &parts, &targets, None, ctx);
            if let Ok(stored) = stored {
                let exchange = self.channels[index].route.exchange;
                self.topology.count_publish(exchange, targets.route.queues.len() as u64);
                self.on_published(index, stored, publish.mandatory(), &parts, &targets, ctx);
                if targets.limited {
                    self.enforce_limits(&targets, ctx);
                }
            }
            stored
        };
        if self.traced_vhosts != 0 && stored.is_ok() {
            let id = self.channels[index].id;
            if self.is_traced(self.vhost_of(id.connection)) {
                self.trace_publish(id, &parts, &targets, ctx);
            }
        }
        let cache = &mut self.channels[index].route;
        cache.targets = targets;
        if checked.has_more_keys {
            // What these targets are holds for this message alone.
            cache.method.clear();
        }
        stored.map(|_| ())
    }

    /// Counts, returns and confirms a publish that was accepted.
    pub(super) fn on_published(
        &mut self,
        index: usize,
        stored: Stored,
        mandatory: bool,
        parts: &Parts<'_>,
        targets: &Targets,
        ctx: &mut Context<'_>,
    ) {
        let Stored { batch, refused } = stored;
        let channel = &mut self.channels[index];
        channel.stats.publish += 1;
        channel.last_used_ms = ctx.now.unix_ms;
        if let Some(batch) = batch {
            channel.last_batch = batch;
        }
        self.totals.publish += 1;
        self.totals.publish_out += targets.route.queues.len() as u64;
        self.measures.size.observe(parts.body.len() as u64);
        let id = channel.id;
        if !targets.replies.is_empty() {
            self.deliver_replies(targets, parts, ctx);
        }
        let channel = &mut self.channels[index];
        if targets.is_empty() {
            channel.stats.return_unroutable += u64::from(mandatory);
            channel.stats.drop_unroutable += u64::from(!mandatory);
            self.totals.return_unroutable += u64::from(mandatory);
            self.totals.drop_unroutable += u64::from(!mandatory);
            if mandatory {
                self.send_return(id, index, parts, ctx);
            }
        }
        let channel = &mut self.channels[index];
        let Some(confirms) = &mut channel.confirms else { return };
        let is_first = if refused { confirms.on_refused() } else { confirms.on_publish(batch) };
        if !is_first {
            return;
        }
        match batch.filter(|_| !refused) {
            Some(batch) => self.wait(batch, Waiter::Confirms(index)),
            None if !channel.confirm_listed => {
                channel.confirm_listed = true;
                self.confirm_list.push(index);
            }
            None => {}
        }
    }

    fn send_return(
        &mut self,
        id: ChannelId,
        index: usize,
        parts: &Parts<'_>,
        ctx: &mut Context<'_>,
    ) {
        let frame_max = self.channels[index].frame_max;
        self.emit_when(id, None, ctx, |out| {
            encode_return(
                out,
                Return {
                    channel: id.number,
                    frame_max,
                    reply_code: ReplyCode::NoRoute,
                    routing: parts.routing,
                    properties: parts.properties,
                    body: parts.body,
                },
            );
        });
    }

    /// Refuses to publish to an exchange that only other exchanges may.
    ///
    /// # Errors
    /// 403.
    pub(in crate::broker) fn refuse_internal(&self, exchange: ExchangeKey) -> Outcome {
        let exchange = self.topology.exchange(exchange);
        if !exchange.definition.internal {
            return Ok(());
        }
        Err(Exception::refused(format!(
            "cannot publish to internal exchange '{}' in vhost '{}'",
            exchange.definition.name,
            self.topology.vhost(exchange.vhost).name
        )))
    }

    /// Finds out where publishes with these method bytes go, and whether they may.
    fn resolve(&mut self, index: usize, publish: &Publish<'_>, generation: u64) -> Outcome {
        let method = publish.decode().map_err(|error| {
            let reply = error.reply();
            Exception { code: reply.code, text: reply.text, method: reply.method }
        })?;
        let id = self.channels[index].id;
        if method.immediate {
            return Err(Exception::not_implemented("immediate=true"));
        }
        let vhost = self.vhost_of(id.connection);
        self.authorize_exchange(id.connection, Access::Write, method.exchange)?;
        let exchange = self.topology.find_exchange(vhost, method.exchange)?;
        self.refuse_internal(exchange)?;
        self.authorize_topic(id.connection, Access::Write, exchange, method.routing_key)?;
        let mut targets = std::mem::take(&mut self.channels[index].route.targets);
        let routable = Routable { keys: &[method.routing_key], properties: None };
        self.find_targets(exchange, &routable, &mut targets);
        let cache = &mut self.channels[index].route;
        cache.method.clear();
        cache.method.extend_from_slice(publish.method);
        cache.generation = generation;
        cache.exchange = exchange;
        cache.targets = targets;
        Ok(())
    }

    /// Routes a message whose properties or own routing keys count.
    fn route_message(
        &mut self,
        index: usize,
        publish: &Publish<'_>,
        checked: &Checked<'_>,
        targets: &mut Targets,
    ) {
        let routing_key = split_routing(publish.routing()).1;
        let exchange = self.channels[index].route.exchange;
        let properties = Some(checked.properties);
        if !checked.has_more_keys {
            let routable = Routable { keys: &[routing_key], properties };
            return self.find_targets(exchange, &routable, targets);
        }
        let mut keys = vec![routing_key];
        if let Some(headers) = checked.properties.headers() {
            for name in ["CC", "BCC"] {
                push_keys(headers, name, &mut keys);
            }
        }
        self.find_targets(exchange, &Routable { keys: &keys, properties }, targets);
    }

    /// Fills `targets` with the queues of a message.
    pub(in crate::broker) fn find_targets(
        &mut self,
        exchange: ExchangeKey,
        message: &Routable<'_>,
        targets: &mut Targets,
    ) {
        self.topology.route(exchange, message, &mut targets.route);
        self.find_replies(exchange, message, targets);
        self.complete_targets(targets);
    }

    /// Checks what RabbitMQ checks of a message's properties.
    fn check_properties<'a>(
        &self,
        index: usize,
        properties: &'a [u8],
        ctx: &Context<'_>,
    ) -> Result<Checked<'a>, Exception> {
        let properties = BasicProperties::parse(properties)
            .map_err(|_| Exception::new(ReplyCode::InternalError, ""))?;
        let mut meta = MessageMeta {
            persistent: properties.delivery_mode() == Some(2),
            priority: properties.priority(),
            published_at_ms: ctx.now.unix_ms,
            expiration_ms: NO_EXPIRATION,
            dead_lettered: false,
        };
        let asks_for_replies = properties.reply_to() == Some(PSEUDO_QUEUE.as_bytes());
        if asks_for_replies && self.channels[index].reply_consumer.is_none() {
            return Err(Exception::precondition("fast reply consumer does not exist"));
        }
        if let Some(user_id) = properties.user_id() {
            self.check_user_id(self.channels[index].id.connection, user_id)?;
        }
        if let Some(expiration) = properties.expiration() {
            meta.expiration_ms = parse_expiration(expiration)?;
        }
        let mut has_more_keys = false;
        if let Some(headers) = properties.headers() {
            for name in ["CC", "BCC"] {
                has_more_keys |= check_keys(headers, name)?;
            }
        }
        let rewritten = if has_more_keys || asks_for_replies {
            self.rewritten_properties(index, properties)
        } else {
            None
        };
        Ok(Checked { meta, has_more_keys, properties, rewritten })
    }
}

/// The publisher's bytes of a message.
pub(in crate::broker) struct Parts<'a> {
    pub(in crate::broker) routing: &'a [u8],
    pub(in crate::broker) properties: &'a [u8],
    pub(in crate::broker) body: &'a [u8],
}

/// Whether header `name` adds routing keys.
fn check_keys(headers: FieldTable<'_>, name: &str) -> Result<bool, Exception> {
    match headers.get(name) {
        None => Ok(false),
        Some(FieldValue::Array(_)) => Ok(true),
        Some(other) => Err(Exception::precondition(format!(
            "invalid message: {{unacceptable_type_in_header,\"{name}\",{}}}",
            other.type_name()
        ))),
    }
}

fn push_keys<'a>(headers: FieldTable<'a>, name: &str, keys: &mut Vec<&'a str>) {
    let Some(FieldValue::Array(array)) = headers.get(name) else { return };
    for value in array {
        if let Some(key) = value.as_str() {
            keys.push(key);
        }
    }
}

/// Milliseconds of an `expiration` property.
///
/// # Errors
/// 406 with RabbitMQ's reason: what `string:to_integer` and its range check say.
pub(in crate::broker) fn parse_expiration(text: &[u8]) -> Result<u64, Exception> {
    let shown = String::from_utf8_lossy(text);
    let refused =
        |reason: String| Exception::precondition(format!("invalid expiration '{shown}': {reason}"));
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    if end == 0 {
        return Err(refused("no_integer".to_owned()));
    }
    let (number, leftover) = digits.split_at(end);
    let number = str::from_utf8(number).expect("digits");
    if !leftover.is_empty() {
        let leftover = String::from_utf8_lossy(leftover);
        return Err(refused(format!("{{leftover_string,\"{leftover}\"}}")));
    }
    let trimmed = number.trim_start_matches('0');
    if negative && !trimmed.is_empty() {
        return Err(refused(format!("{{value_negative,-{trimmed}}}")));
    }
    match number.parse::<u64>() {
        Ok(value) if value <= EXPIRATION_MAX_MS => Ok(value),
        Ok(_) | Err(_) => Err(refused(format!("{{value_too_large,{trimmed}}}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expirations_are_read_as_rabbitmq_reads_them() {
        let refused = |text: &str| parse_expiration(text.as_bytes()).expect_err("refused").text;
        assert_eq!(parse_expiration(b"60000"), Ok(60_000));
        assert_eq!(parse_expiration(b"+5"), Ok(5));
        assert_eq!(parse_expiration(b"0"), Ok(0));
        assert_eq!(refused(""), "invalid expiration '': no_integer");
        assert_eq!(refused(" 5"), "invalid expiration ' 5': no_integer");
        assert_eq!(refused("1.5"), "invalid expiration '1.5': {leftover_string,\".5\"}");
        assert_eq!(refused("-1"), "invalid expiration '-1': {value_negative,-1}");
        assert_eq!(
            refused("315360000001"),
            "invalid expiration '315360000001': {value_too_large,315360000001}"
        );
    }
}
