//! What an `x-recent-history` exchange keeps, and hands to destinations that are bound to it later.
//!
//! The exchange (`exchange/recent_history.rs`) keeps opaque bytes; here is what they are: a message
//! as the log has it.

use super::binding::{BindingRequest, DestinationName};
use super::channel::{Parts, Targets};
use super::exception::Outcome;
use super::ids::{ExchangeKey, VhostKey};
use super::message::{Message, MessageMeta, encode_header, split_routing};
use super::router::Routable;
use super::{Broker, Context};
use leveret_protocol::properties::BasicProperties;

impl Broker {
    /// Keeps a message that was stored for destinations to come.
    #[cold]
    pub(super) fn remember(&mut self, meta: &MessageMeta, parts: &Parts<'_>, targets: &Targets) {
        let header = encode_header(meta, parts.routing.len(), parts.properties.len());
        let message = [&header, parts.routing, parts.properties, parts.body].concat();
        for exchange in &targets.route.histories {
            self.topology.remember(*exchange, message.clone().into());
        }
    }

    /// Gives a new destination what its source has kept, oldest first. A message's time to live
    /// begins now.
    ///
    /// # Errors
    /// 506 when the log is full; the messages before are there.
    #[cold]
    pub(super) fn replay_history(
        &mut self,
        source: ExchangeKey,
        vhost: VhostKey,
        request: &BindingRequest<'_>,
        ctx: &mut Context<'_>,
    ) -> Outcome {
        let kept: Vec<Box<[u8]>> = self.topology.history(source).map(Into::into).collect();
        for stored in &kept {
            let message = Message::decode(stored).expect("encoded when it was kept");
            let mut targets = Targets::default();
            match request.destination {
                DestinationName::Queue(name) => {
                    targets.route.queues.extend(self.topology.queue(vhost, name));
                    self.complete_targets(&mut targets);
                }
                DestinationName::Exchange(name) => {
                    let Some(exchange) = self.topology.lookup_exchange(vhost, name) else { break };
                    let properties = BasicProperties::parse(message.properties).ok();
                    let keys = [split_routing(message.routing).1];
                    let routable = Routable { keys: &keys, properties };
                    self.find_targets(exchange, &routable, &mut targets);
                }
            }
            let meta = MessageMeta { published_at_ms: ctx.now.unix_ms, ..message.meta };
            let Message { routing, properties, body, .. } = message;
            let parts = Parts { routing, properties, body };
            self.store(&meta, &parts, &targets, None, ctx)?;
            if targets.limited {
                self.enforce_limits(&targets, ctx);
            }
        }
        Ok(())
    }
}
