//! `headers`: to bindings whose arguments the message's headers match.
//!
//! The argument `x-match` says how: `all` (the default) of the other arguments must be there and
//! equal, or `any` one of them; arguments that begin with `x-` do not count unless it says
//! `all-with-x` or `any-with-x`. An argument of type void asks only whether the header is there.
//! Values are equal as RabbitMQ 3.10 has it: by value, not by type, see [`equal`].

use super::super::binding::{Bindings, Chain};
use super::super::erlang;
use super::super::exception::Exception;
use super::super::router::Trail;
use super::Visit;
use leveret_protocol::field::{FieldTable, FieldValue};

const X_MATCH: &str = "x-match";

/// How many arguments must match, and which count. The numbers stand in [`Binding::place`].
///
/// [`Binding::place`]: super::super::binding::Binding::place
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum MatchMode {
    All,
    Any,
    AllWithX,
    AnyWithX,
}

const MODES: [(MatchMode, &str); 4] = [
    (MatchMode::All, "all"),
    (MatchMode::Any, "any"),
    (MatchMode::AllWithX, "all-with-x"),
    (MatchMode::AnyWithX, "any-with-x"),
];

/// What `x-match` says.
///
/// # Errors
/// 406: none of the four.
pub(super) fn match_mode(arguments: FieldTable<'_>) -> Result<MatchMode, Exception> {
    let Some(value) = arguments.get(X_MATCH) else { return Ok(MatchMode::All) };
    let Some(text) = value.as_longstr() else {
        return Err(Exception::precondition(format!(
            "Invalid x-match field type {} (value {}); expected longstr",
            value.type_name(),
            value
        )));
    };
    let found = MODES.into_iter().find(|(_, name)| name.as_bytes() == text);
    found.map(|(mode, _)| mode).ok_or_else(|| {
        Exception::precondition(format!(
            "Invalid x-match field value {}; expected all, any, all-with-x, or any-with-x",
            erlang::binary(&String::from_utf8_lossy(text))
        ))
    })
}

pub(super) fn insert(slot: u32, bindings: &mut Bindings) {
    let mode = match_mode(bindings.get(slot).arguments.as_ref()).expect("the binding was checked");
    bindings.get_mut(slot).place = mode as u32;
}

pub(super) fn route(visit: &Visit<'_>, trail: &mut Trail<'_>) {
    trail.forbid_caching();
    let mut headers: Vec<_> = visit.message.headers().iter().collect();
    headers.sort_by_key(|(key, _)| *key); // stable: of repeated keys the first counts
    for (_, binding) in visit.bindings.chain(Chain::Source, visit.outgoing.first) {
        let (mode, _) = MODES[binding.place as usize];
        if matches(mode, binding.arguments.as_ref(), &headers) {
            trail.follow(binding.destination);
        }
    }
}

/// Whether `headers`, sorted by key, match the arguments of a binding.
fn matches(
    mode: MatchMode,
    arguments: FieldTable<'_>,
    headers: &[(&[u8], FieldValue<'_>)],
) -> bool {
    let mut pairs = arguments.iter().filter(|(key, _)| match mode {
        MatchMode::All | MatchMode::Any => !key.starts_with(b"x-"),
        MatchMode::AllWithX | MatchMode::AnyWithX => *key != X_MATCH.as_bytes(),
    });
    let is_met = |(key, wanted): (&[u8], FieldValue<'_>)| {
        let at = headers.partition_point(|(header, _)| *header < key);
        let Some((_, value)) = headers.get(at).filter(|(header, _)| *header == key) else {
            return false;
        };
        wanted == FieldValue::Void || equal(wanted, *value)
    };
    match mode {
        MatchMode::All | MatchMode::AllWithX => pairs.all(is_met),
        MatchMode::Any | MatchMode::AnyWithX => pairs.any(is_met),
    }
}

/// Whether two values are equal by value: integers, timestamps and floats of any width by number,
/// strings and binaries by bytes. What is nested in arrays and tables must be of the same types,
/// too, and in the same order.
fn equal(one: FieldValue<'_>, other: FieldValue<'_>) -> bool {
    if let (Some(one), Some(other)) = (Number::of(one), Number::of(other)) {
        return one.equals(other);
    }
    if let (Some(one), Some(other)) = (bytes(one), bytes(other)) {
        return one == other;
    }
    if let (FieldValue::Array(one), FieldValue::Array(other)) = (one, other) {
        let same = |(one, other)| same_type(one, other) && equal(one, other);
        return one.iter().count() == other.iter().count() && one.iter().zip(other).all(same);
    }
    if let (FieldValue::Table(one), FieldValue::Table(other)) = (one, other) {
        let same = |((key, one), (other_key, other))| {
            key == other_key && same_type(one, other) && equal(one, other)
        };
        return one.iter().count() == other.iter().count() && one.iter().zip(other).all(same);
    }
    one == other
}

fn same_type(one: FieldValue<'_>, other: FieldValue<'_>) -> bool {
    one.type_name() == other.type_name()
}

fn bytes(value: FieldValue<'_>) -> Option<&[u8]> {
    if let FieldValue::LongStr(bytes) | FieldValue::Bytes(bytes) = value {
        Some(bytes)
    } else {
        None
    }
}

#[derive(Clone, Copy, Debug)]
enum Number {
    Integer(i128),
    Float(f64),
}

impl Number {
    fn of(value: FieldValue<'_>) -> Option<Number> {
        if let Some(integer) = value.as_i64() {
            return Some(Number::Integer(integer.into()));
        }
        if let FieldValue::Timestamp(seconds) = value {
            return Some(Number::Integer(seconds.into()));
        }
        if let FieldValue::F32(float) = value {
            return Some(Number::Float(float.into()));
        }
        if let FieldValue::F64(float) = value {
            return Some(Number::Float(float));
        }
        None
    }

    /// Exactly, also where a float cannot tell two integers apart.
    #[expect(clippy::float_cmp, reason = "equal is what the question is")]
    fn equals(self, other: Number) -> bool {
        match (self, other) {
            (Number::Integer(one), Number::Integer(other)) => one == other,
            (Number::Float(one), Number::Float(other)) => one == other,
            (Number::Float(float), Number::Integer(integer))
            | (Number::Integer(integer), Number::Float(float)) => {
                // A whole float is an i128 exactly, or saturates to what no field can be.
                #[expect(clippy::cast_possible_truncation, reason = "only whole floats are cast")]
                let whole = (float.trunc() == float).then_some(float as i128);
                whole == Some(integer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::topology::fixture::{Fields, World, text};
    use super::super::ExchangeType;
    use super::*;
    use leveret_protocol::field::{FieldArrayBuilder, FieldTableBuilder};

    fn check(arguments: Fields<'_>, headers: Fields<'_>, expected: bool) {
        let mut world = World::with(ExchangeType::Headers, &["x"], &["q"]);
        world.bind_with("x", "q", "key", arguments);
        let hit = !world.send("x", &["other"], headers).queues.is_empty();
        assert_eq!(hit, expected, "arguments {arguments:?}, headers {headers:?}");
    }

    /// Goal: the four modes, with and without `x-` arguments, as on RabbitMQ.
    #[test]
    fn modes_say_how_many_arguments_match() {
        let (a, b, x) = (("a", text("1")), ("b", text("2")), ("x-c", text("3")));
        let all = ("x-match", text("all"));
        let any = ("x-match", text("any"));
        let all_with_x = ("x-match", text("all-with-x"));
        let any_with_x = ("x-match", text("any-with-x"));
        for mode in [&[][..], &[all], &[all_with_x]] {
            let check = |arguments: Fields<'_>, headers: Fields<'_>, expected: bool| {
                check(&[mode, arguments].concat(), headers, expected);
            };
            check(&[], &[], true);
            check(&[], &[a], true);
            check(&[a, b], &[a, b], true);
            check(&[b, a], &[("z", text("9")), b, a], true);
            check(&[a, b], &[a], false);
            check(&[a], &[], false);
            check(&[a], &[("a", text("2"))], false);
        }
        for mode in [any, any_with_x] {
            check(&[mode], &[], false);
            check(&[mode], &[a], false);
            check(&[mode, a, b], &[b], true);
            check(&[mode, a, b], &[("a", text("2")), ("b", text("1"))], false);
        }
        check(&[a, x], &[a], true);
        check(&[all, x], &[], true);
        check(&[all_with_x, a, x], &[a], false);
        check(&[all_with_x, a, x], &[x, a], true);
        check(&[any, x], &[x], false);
        check(&[any_with_x, a, x], &[x], true);
        check(&[any_with_x, x], &[any_with_x], false);
        check(&[all_with_x, a], &[a, ("x-match", text("other"))], true);
    }

    /// Goal: of a header that is there twice the first counts.
    #[test]
    fn the_first_of_repeated_headers_counts() {
        let (one, two) = (("a", text("1")), ("a", text("2")));
        check(&[one], &[one, two], true);
        check(&[one], &[two, one], false);
    }

    /// Goal: values compare by value as on RabbitMQ 3.10, whichever side has which type.
    #[test]
    fn values_compare_by_value_not_by_type() {
        use FieldValue::*;
        let check = |one: FieldValue<'_>, other: FieldValue<'_>, expected: bool| {
            check(&[("a", one)], &[("a", other)], expected);
            check(&[("a", other)], &[("a", one)], expected);
        };
        let ones = [
            I8(1),
            U8(1),
            I16(1),
            U16(1),
            I32(1),
            U32(1),
            I64(1),
            Timestamp(1),
            F32(1.0),
            F64(1.0),
        ];
        for one in ones {
            for other in ones {
                check(one, other, true);
            }
            for other in [Bool(true), text("1"), I64(2), F64(1.5), Decimal { scale: 0, value: 1 }] {
                check(one, other, false);
            }
        }
        check(text("s"), Bytes(b"s"), true);
        check(text("s"), text("S"), false);
        check(Bool(true), Bool(true), true);
        check(Bool(true), Bool(false), false);
        check(F32(0.5), F64(0.5), true);
        check(F64(f64::NAN), F64(f64::NAN), false);
        check(F64(f64::INFINITY), I64(i64::MAX), false);
        check(Timestamp(u64::MAX), I64(-1), false);
        check(Timestamp(1 << 63), F64(9_223_372_036_854_775_808.0), true);
        check(I64((1 << 53) + 1), F64(9_007_199_254_740_992.0), false);
        check(Decimal { scale: 1, value: 10 }, Decimal { scale: 1, value: 10 }, true);
        check(Decimal { scale: 1, value: 10 }, Decimal { scale: 0, value: 1 }, false);
    }

    #[test]
    fn a_void_argument_asks_for_presence() {
        let void = ("a", FieldValue::Void);
        check(&[void], &[("a", text("any"))], true);
        check(&[void], &[void], true);
        check(&[void], &[("b", text("any"))], false);
        check(&[("a", text("1"))], &[void], false);
    }

    /// Goal: nested values compare in structure, their types included.
    #[test]
    fn nested_values_compare_in_structure() {
        let array = |values: &[FieldValue<'_>]| {
            let mut array = FieldArrayBuilder::new();
            for value in values {
                array.push(*value);
            }
            array.build()
        };
        let nested = |key: &str, value: FieldValue<'_>| {
            let mut table = FieldTableBuilder::new();
            table.insert(key, value);
            table.build()
        };
        let ints = array(&[FieldValue::I32(1), text("b")]);
        let same = array(&[FieldValue::I32(1), text("b")]);
        let longs = array(&[FieldValue::I64(1), text("b")]);
        let shorter = array(&[FieldValue::I32(1)]);
        let check_arrays = |one: &leveret_protocol::field::OwnedArray, other: &_, expected| {
            let (one, other): (_, &leveret_protocol::field::OwnedArray) = (one, other);
            let one = FieldValue::Array(one.as_ref());
            check(&[("a", one)], &[("a", FieldValue::Array(other.as_ref()))], expected);
        };
        check_arrays(&ints, &same, true);
        check_arrays(&ints, &longs, false);
        check_arrays(&ints, &shorter, false);
        check_arrays(&shorter, &ints, false);
        for (key, value, expected) in [
            ("k", FieldValue::I32(1), true),
            ("k", FieldValue::I32(2), false),
            ("k", FieldValue::I64(1), false),
            ("l", FieldValue::I32(1), false),
        ] {
            let (one, other) = (nested("k", FieldValue::I32(1)), nested(key, value));
            let (one, other) = (one.as_ref(), other.as_ref());
            check(&[("a", FieldValue::Table(one))], &[("a", FieldValue::Table(other))], expected);
        }
    }
}
