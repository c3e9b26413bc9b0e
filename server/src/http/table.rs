//! Field tables as JSON, and JSON as field tables, the way RabbitMQ maps them.
//!
//! Texts become long strings, whole numbers 64-bit integers, others doubles; null has no place in
//! a table. On the way out every integer is a number, bytes that are no UTF-8 become base64.

use super::response::ApiError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use leveret_protocol::field::{
    FieldArray, FieldArrayBuilder, FieldTable, FieldTableBuilder, FieldValue, OwnedTable,
};
use serde_json::{Map, Number, Value};

/// Longest name of a field, in bytes.
const NAME_SIZE_MAX: usize = 255;

/// A table as a JSON object. Where a name occurs twice its first value counts, as for routing.
pub(crate) fn to_json(table: FieldTable<'_>) -> Value {
    let mut map = Map::new();
    for (name, value) in table {
        map.entry(String::from_utf8_lossy(name).into_owned())
            .or_insert_with(|| value_to_json(value));
    }
    Value::Object(map)
}

fn array_to_json(array: FieldArray<'_>) -> Value {
    array.iter().map(value_to_json).collect()
}

fn value_to_json(value: FieldValue<'_>) -> Value {
    let float = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    match value {
        FieldValue::Bool(flag) => Value::from(flag),
        FieldValue::I8(number) => Value::from(number),
        FieldValue::U8(number) => Value::from(number),
        FieldValue::I16(number) => Value::from(number),
        FieldValue::U16(number) => Value::from(number),
        FieldValue::I32(number) => Value::from(number),
        FieldValue::U32(number) => Value::from(number),
        FieldValue::I64(number) => Value::from(number),
        FieldValue::Timestamp(seconds) => Value::from(seconds),
        FieldValue::F32(number) => float(f64::from(number)),
        FieldValue::F64(number) => float(number),
        FieldValue::Decimal { scale, value } => {
            float(f64::from(value) / 10_f64.powi(i32::from(scale)))
        }
        FieldValue::LongStr(bytes) | FieldValue::Bytes(bytes) => Value::from(text(bytes)),
        FieldValue::Array(array) => array_to_json(array),
        FieldValue::Table(table) => to_json(table),
        FieldValue::Void => Value::Null,
    }
}

/// Bytes as a text.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => STANDARD.encode(bytes),
    }
}

/// The arguments of a body: an object, or `[]`, which RabbitMQ takes for an empty one.
pub(crate) fn arguments(body: &Map<String, Value>, key: &str) -> Result<OwnedTable, ApiError> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(OwnedTable::default()),
        Some(Value::Object(map)) => from_json(map),
        Some(Value::Array(items)) if items.is_empty() => Ok(OwnedTable::default()),
        Some(_) => Err(ApiError::bad_request(format!("{key} must be a JSON object"))),
    }
}

/// A JSON object as a table.
pub(crate) fn from_json(map: &Map<String, Value>) -> Result<OwnedTable, ApiError> {
    let table = build(map)?;
    // The protocol's own limits on depth and size hold here, too.
    match FieldTable::parse(table.as_ref().as_bytes()) {
        Ok(_) => Ok(table),
        Err(error) => Err(ApiError::bad_request(format!("arguments refused: {error}"))),
    }
}

fn build(map: &Map<String, Value>) -> Result<OwnedTable, ApiError> {
    let mut table = FieldTableBuilder::new();
    for (name, value) in map {
        if NAME_SIZE_MAX < name.len() {
            return Err(ApiError::bad_request(format!(
                "argument name should be less than 255 bytes, actually was {}",
                name.len()
            )));
        }
        with_value(value, &mut |value| {
            table.insert(name, value);
        })?;
    }
    Ok(table.build())
}

/// Calls `take` with the field value of a JSON value.
fn with_value(value: &Value, take: &mut dyn FnMut(FieldValue<'_>)) -> Result<(), ApiError> {
    match value {
        Value::Null => return Err(ApiError::bad_request("null_not_allowed")),
        Value::Bool(flag) => take(FieldValue::Bool(*flag)),
        Value::Number(number) => take(match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => FieldValue::I64(integer),
            (None, Some(float)) => FieldValue::F64(float),
            (None, None) => return Err(ApiError::bad_request("number_out_of_range")),
        }),
        Value::String(text) => take(FieldValue::LongStr(text.as_bytes())),
        Value::Array(items) => {
            let mut array = FieldArrayBuilder::new();
            for item in items {
                with_value(item, &mut |value| {
                    array.push(value);
                })?;
            }
            take(FieldValue::Array(array.build().as_ref()));
        }
        Value::Object(map) => take(FieldValue::Table(build(map)?.as_ref())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_survives_a_table() {
        let value = json!({
            "a": [1, "b", {"c": 2}], "f": 1.5, "t": true, "big": 12_345_678_901_i64, "e": {},
        });
        let table = from_json(value.as_object().unwrap()).unwrap();
        assert_eq!(to_json(table.as_ref()), value);
        assert_eq!(table.as_ref().get("big"), Some(FieldValue::I64(12_345_678_901)));
    }

    #[test]
    fn every_type_of_field_has_its_json() {
        let inner = FieldTableBuilder::new().with("x", FieldValue::Void).build();
        let table = FieldTableBuilder::new()
            .with("decimal", FieldValue::Decimal { scale: 2, value: 325 })
            .with("bytes", FieldValue::Bytes(&[0xff, 0]))
            .with("text", FieldValue::LongStr("\u{e9}".as_bytes()))
            .with("time", FieldValue::Timestamp(7))
            .with("nan", FieldValue::F64(f64::NAN))
            .with("table", FieldValue::Table(inner.as_ref()))
            .with("small", FieldValue::I8(-1))
            .with("small", FieldValue::I8(2))
            .build();
        assert_eq!(
            to_json(table.as_ref()),
            json!({
                "decimal": 3.25, "bytes": "/wA=", "text": "\u{e9}", "time": 7, "nan": null,
                "table": {"x": null}, "small": -1,
            })
        );
    }

    #[test]
    fn what_no_table_can_hold_is_refused() {
        let refused = |value: Value| from_json(value.as_object().unwrap()).is_err();
        assert!(refused(json!({"a": null})));
        assert!(refused(json!({"a": [{"b": null}]})));
        assert!(refused(json!({"n".repeat(256): 1})));
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!({ "d": deep });
        }
        assert!(refused(deep));
        let body = json!({"arguments": [], "x": [1]});
        assert_eq!(arguments(body.as_object().unwrap(), "arguments"), Ok(OwnedTable::default()));
        assert!(arguments(body.as_object().unwrap(), "x").is_err());
    }
}
