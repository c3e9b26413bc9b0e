//! `x-delayed-message`: holds a message for as long as its `x-delay` header says, then routes it
//! as the type in the argument `x-delayed-type` does.
//!
//! Holding it is the caller's part ([`Route::delays`](super::super::router::Route::delays)): when
//! the time has come the message is routed again from this exchange, its `x-delay` negated, which
//! also tells consumers that it was held.

use super::super::exception::Exception;
use super::super::router::Trail;
use super::{ExchangeType, Visit};
use leveret_protocol::field::{FieldTable, FieldValue};

const DELAYED_TYPE: &str = "x-delayed-type";

/// The type that routes when the time has come.
///
/// # Errors
/// 406: the argument is missing, no string, or names no type or this one.
pub(super) fn inner_type(arguments: FieldTable<'_>) -> Result<ExchangeType, Exception> {
    let Some(FieldValue::LongStr(name) | FieldValue::Bytes(name)) = arguments.get(DELAYED_TYPE)
    else {
        return Err(Exception::precondition(format!(
            "Invalid argument, '{DELAYED_TYPE}' must be an existing exchange type"
        )));
    };
    let inner = ExchangeType::parse(&String::from_utf8_lossy(name))?;
    if inner == ExchangeType::DelayedMessage {
        return Err(Exception::precondition(format!(
            "Invalid argument, 'x-delayed-message' can't be used for '{DELAYED_TYPE}'"
        )));
    }
    Ok(inner)
}

/// Has the message held if it asks for it. Returns whether it does.
pub(super) fn hold(visit: &Visit<'_>, trail: &mut Trail<'_>) -> bool {
    trail.forbid_caching();
    let delay = visit.message.headers().get("x-delay").and_then(delay_of);
    match delay.and_then(|delay| u32::try_from(delay).ok()) {
        Some(ms) if 0 < ms => {
            trail.delay(visit.exchange, ms);
            true
        }
        Some(_) | None => false,
    }
}

/// A delay as the plugin reads it: any integer, a string of one, or a float cut short.
pub(in super::super) fn delay_of(value: FieldValue<'_>) -> Option<i64> {
    if let Some(text) = value.as_str() {
        return text.parse().ok();
    }
    let float = match value {
        FieldValue::F32(float) => f64::from(float),
        FieldValue::F64(float) => float,
        FieldValue::Bool(_)
        | FieldValue::I8(_)
        | FieldValue::U8(_)
        | FieldValue::I16(_)
        | FieldValue::U16(_)
        | FieldValue::I32(_)
        | FieldValue::U32(_)
        | FieldValue::I64(_)
        | FieldValue::Decimal { .. }
        | FieldValue::LongStr(_)
        | FieldValue::Bytes(_)
        | FieldValue::Array(_)
        | FieldValue::Table(_)
        | FieldValue::Timestamp(_)
        | FieldValue::Void => return value.as_i64(),
    };
    // Out of range saturates, and then is no delay.
    #[expect(clippy::cast_possible_truncation, reason = "saturating is what is wanted")]
    let whole = float as i64;
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::super::super::router::Delay;
    use super::super::super::topology::fixture::{World, exchange, table, text};
    use super::super::ExchangeDefinition;
    use super::*;

    fn world(inner: &str) -> World {
        let mut world = World::with(ExchangeType::Fanout, &["front"], &["q", "r"]);
        let arguments = table(&[("x-delayed-type", text(inner))]);
        let kind = ExchangeType::DelayedMessage;
        world.declare(ExchangeDefinition { arguments, ..exchange("x", kind) }).unwrap();
        world
    }

    /// Goal: without a delay, or with a past one, it is an exchange of the inner type.
    #[test]
    fn what_is_not_delayed_is_routed_by_the_inner_type() {
        let mut world = world("topic");
        world.bind("x", "q", "a.*");
        world.bind("x", "r", "b.#");
        assert_eq!(world.queues_of("x", "a.1"), ["q"]);
        for value in [FieldValue::I32(-5), FieldValue::I32(0), text("soon"), FieldValue::Void] {
            let route = world.send("x", &["b"], &[("x-delay", value)]);
            assert_eq!((world.names(&route), route.delays.len()), (vec!["r".to_owned()], 0));
        }
        world.unbind("x", "q", "a.*");
        assert!(world.queues_of("x", "a.1").is_empty());
    }

    /// Goal: a delay holds the message at the exchange, on whatever way it got there; that is not
    /// "nowhere", and other ways go on.
    #[test]
    fn what_is_delayed_waits() {
        let mut world = world("direct");
        world.bind_exchange("front", "x", "");
        world.bind("front", "r", "");
        world.bind("x", "q", "k");
        let x = world.topology.find_exchange(world.vhost, "x").unwrap();
        for (value, ms) in [
            (FieldValue::I32(1), 1),
            (FieldValue::I64(4_294_967_295), u32::MAX),
            (text("250"), 250),
            (FieldValue::F64(99.9), 99),
        ] {
            let route = world.send("x", &["k"], &[("x-delay", value)]);
            assert_eq!(route.delays, [Delay { exchange: x, ms }]);
            assert!(route.queues.is_empty() && !route.is_empty());
            let route = world.send("front", &["k"], &[("x-delay", value)]);
            assert_eq!((world.names(&route), route.delays.len()), (vec!["r".to_owned()], 1));
        }
        let too_long = world.send("x", &["k"], &[("x-delay", FieldValue::I64(4_294_967_296))]);
        assert_eq!(world.names(&too_long), ["q"], "as the plugin does");
    }
}
