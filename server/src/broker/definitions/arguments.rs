//! Field tables as JSON and back, by RabbitMQ's rules.
//!
//! | JSON | field | back |
//! |---|---|---|
//! | string | long string | string; base64 where it is no UTF-8 |
//! | integer | signed 64 bit | integer, whatever the width |
//! | other number | double | number |
//! | true, false | bool | the same |
//! | array, object | array, table | the same |
//! | null | void (RabbitMQ refuses it) | null |
//!
//! A timestamp becomes an integer and stays one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use leveret_protocol::constants::SHORTSTR_SIZE_MAX;
use leveret_protocol::field::{
    FieldArray, FieldArrayBuilder, FieldTable, FieldTableBuilder, FieldValue, OwnedTable,
};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Why JSON cannot be a field table: the fault of whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgumentError {
    /// Neither an object nor an empty array.
    NotAnObject,
    /// A key longer than a short string.
    LongKey,
    /// An integer that 64 bits with a sign do not hold.
    LargeInteger(String),
    /// Nested too deep or too large; the protocol's words.
    BeyondLimits(String),
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArgumentError::NotAnObject => f.write_str("arguments must be an object"),
            ArgumentError::LongKey => {
                write!(f, "an argument's name is longer than {SHORTSTR_SIZE_MAX} bytes")
            }
            ArgumentError::LargeInteger(number) => {
                write!(f, "the integer {number} does not fit into 64 bits with a sign")
            }
            ArgumentError::BeyondLimits(reason) => write!(f, "arguments refused: {reason}"),
        }
    }
}

impl std::error::Error for ArgumentError {}

/// The arguments of a declaration: an object; an empty array is an empty one.
///
/// # Errors
/// See [`ArgumentError`].
pub fn arguments_from_json(value: &Value) -> Result<OwnedTable, ArgumentError> {
    match value {
        Value::Object(members) => table_from_json(members),
        Value::Array(items) if items.is_empty() => Ok(OwnedTable::default()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(ArgumentError::NotAnObject)
        }
    }
}

/// A field table with the members of an object.
///
/// # Errors
/// See [`ArgumentError`].
pub fn table_from_json(members: &Map<String, Value>) -> Result<OwnedTable, ArgumentError> {
    let table = build(members)?;
    // What is too deep or too large for the wire is so for a file.
    match FieldTable::parse(table.as_ref().as_bytes()) {
        Ok(_) => Ok(table),
        Err(error) => Err(ArgumentError::BeyondLimits(error.to_string())),
    }
}

fn build(members: &Map<String, Value>) -> Result<OwnedTable, ArgumentError> {
    let mut table = FieldTableBuilder::new();
    for (name, value) in members {
        if SHORTSTR_SIZE_MAX < name.len() {
            return Err(ArgumentError::LongKey);
        }
        with_field(value, &mut |value| {
            table.insert(name, value);
        })?;
    }
    Ok(table.build())
}

/// Gives the field that `value` becomes to `take`; nested ones live only so long.
fn with_field(value: &Value, take: &mut dyn FnMut(FieldValue<'_>)) -> Result<(), ArgumentError> {
    match value {
        Value::Null => take(FieldValue::Void),
        Value::Bool(value) => take(FieldValue::Bool(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => take(FieldValue::I64(integer)),
            (None, Some(float)) if number.is_f64() => take(FieldValue::F64(float)),
            _ => return Err(ArgumentError::LargeInteger(number.to_string())),
        },
        Value::String(text) => take(FieldValue::LongStr(text.as_bytes())),
        Value::Array(items) => {
            let mut array = FieldArrayBuilder::new();
            for item in items {
                with_field(item, &mut |value| {
                    array.push(value);
                })?;
            }
            take(FieldValue::Array(array.build().as_ref()));
        }
        Value::Object(members) => take(FieldValue::Table(build(members)?.as_ref())),
    }
    Ok(())
}

/// A table as an object. Of a repeated name the first value counts, as everywhere.
pub fn table_to_json(table: FieldTable<'_>) -> Map<String, Value> {
    let mut members = Map::new();
    for (name, value) in table {
        members.entry(text(name)).or_insert_with(|| value_to_json(value));
    }
    members
}

fn array_to_json(array: FieldArray<'_>) -> Value {
    array.iter().map(value_to_json).collect()
}

fn value_to_json(value: FieldValue<'_>) -> Value {
    let float = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    match value {
        FieldValue::Bool(value) => value.into(),
        FieldValue::I8(number) => number.into(),
        FieldValue::U8(number) => number.into(),
        FieldValue::I16(number) => number.into(),
        FieldValue::U16(number) => number.into(),
        FieldValue::I32(number) => number.into(),
        FieldValue::U32(number) => number.into(),
        FieldValue::I64(number) => number.into(),
        FieldValue::Timestamp(seconds) => seconds.into(),
        FieldValue::F32(number) => float(number.into()),
        FieldValue::F64(number) => float(number),
        FieldValue::Decimal { scale, value } => {
            float(f64::from(value) / 10_f64.powi(i32::from(scale)))
        }
        FieldValue::LongStr(bytes) | FieldValue::Bytes(bytes) => text(bytes).into(),
        FieldValue::Array(array) => array_to_json(array),
        FieldValue::Table(table) => Value::Object(table_to_json(table)),
        FieldValue::Void => Value::Null,
    }
}

fn text(bytes: &[u8]) -> String {
    str::from_utf8(bytes).map_or_else(|_| STANDARD.encode(bytes), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn json_becomes_what_rabbitmq_makes_of_it() {
        let members = json!({"s": "é", "i": -1, "f": 1.5, "t": true, "v": null, "a": [1, {}]});
        let table = arguments_from_json(&members).expect("legal");
        let table = table.as_ref();
        assert_eq!(table.get("s"), Some(FieldValue::LongStr("é".as_bytes())));
        assert_eq!(table.get("i"), Some(FieldValue::I64(-1)));
        assert_eq!(table.get("f"), Some(FieldValue::F64(1.5)));
        assert_eq!(table.get("t"), Some(FieldValue::Bool(true)));
        assert_eq!(table.get("v"), Some(FieldValue::Void));
        assert_eq!(table.get("a").and_then(FieldValue::as_array).expect("array").iter().count(), 2);
        assert_eq!(Value::Object(table_to_json(table)), members);
        assert_eq!(arguments_from_json(&json!([])), Ok(OwnedTable::default()));
    }

    #[test]
    fn every_field_has_a_json_form() {
        for (field, value) in [
            (FieldValue::I8(-1), json!(-1)),
            (FieldValue::U8(255), json!(255)),
            (FieldValue::I16(-2), json!(-2)),
            (FieldValue::U16(2), json!(2)),
            (FieldValue::I32(-3), json!(-3)),
            (FieldValue::U32(3), json!(3)),
            (FieldValue::I64(i64::MIN), json!(i64::MIN)),
            (FieldValue::Timestamp(u64::MAX), json!(u64::MAX)),
            (FieldValue::F32(0.5), json!(0.5)),
            (FieldValue::F64(f64::NAN), json!(null)),
            (FieldValue::Decimal { scale: 2, value: 325 }, json!(3.25)),
            (FieldValue::Bytes(b"ab"), json!("ab")),
            (FieldValue::LongStr(b"\xff\xfe"), json!("//4=")),
            (FieldValue::Void, json!(null)),
        ] {
            let table = FieldTableBuilder::new().with("k", field).with("k", FieldValue::Void);
            assert_eq!(table_to_json(table.build().as_ref())["k"], value, "{field:?}");
        }
    }

    #[test]
    fn what_fits_no_table_is_refused() {
        let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
        for (value, text) in [
            (json!(1), "arguments must be an object"),
            (json!([1]), "arguments must be an object"),
            (json!({"n": u64::MAX}), "the integer 18446744073709551615 does not fit"),
            (json!({"x".repeat(256): 1}), "an argument's name is longer"),
            (json!({"d": deep}), "arguments refused"),
            (json!({"l": "x".repeat(2 << 20)}), "arguments refused"),
        ] {
            let error = arguments_from_json(&value).expect_err("refused").to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }

    /// Any JSON without integers beyond 64 bits or numbers whose text is not exact.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<i32>().prop_map(|n| Value::from(f64::from(n) / 4.0)),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map(".{0,8}", inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_survives_the_way_through_a_table(value in any_json()) {
            let members = json!({"value": value});
            let table = arguments_from_json(&members).expect("within limits");
            prop_assert_eq!(Value::Object(table_to_json(table.as_ref())), members);
        }
    }
}
