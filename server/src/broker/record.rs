//! Reads definitions back from the field tables they are stored as.
//!
//! The tables come from our own log and have passed its checksums; what is missing or of a wrong
//! type there was written by another version, and the start says so instead of guessing.

use leveret_protocol::field::{FieldTable, FieldValue};
use std::fmt;

/// A stored definition that this version does not understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// The field that is missing, of another type, or out of range.
    pub field: &'static str,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stored definition without a usable '{}'", self.field)
    }
}

impl std::error::Error for RecordError {}

/// A text that must be there.
///
/// # Errors
/// It is not, or is no UTF-8.
pub(super) fn text<'a>(
    record: FieldTable<'a>,
    field: &'static str,
) -> Result<&'a str, RecordError> {
    record.get(field).and_then(FieldValue::as_str).ok_or(RecordError { field })
}

/// Bytes that must be there.
///
/// # Errors
/// They are not.
pub(super) fn bytes<'a>(
    record: FieldTable<'a>,
    field: &'static str,
) -> Result<&'a [u8], RecordError> {
    match record.get(field) {
        Some(FieldValue::Bytes(bytes)) => Ok(bytes),
        _ => Err(RecordError { field }),
    }
}

/// A number that must be there.
///
/// # Errors
/// It is not.
pub(super) fn integer(record: FieldTable<'_>, field: &'static str) -> Result<i64, RecordError> {
    record.get(field).and_then(FieldValue::as_i64).ok_or(RecordError { field })
}

/// A number that may be absent.
///
/// # Errors
/// It is there and no integer.
pub(super) fn optional_integer(
    record: FieldTable<'_>,
    field: &'static str,
) -> Result<Option<i64>, RecordError> {
    match record.get(field) {
        None => Ok(None),
        Some(value) => value.as_i64().map(Some).ok_or(RecordError { field }),
    }
}

/// A JSON document kept as text.
///
/// # Errors
/// It is not there, or not JSON.
pub(super) fn json(
    record: FieldTable<'_>,
    field: &'static str,
) -> Result<serde_json::Value, RecordError> {
    serde_json::from_str(text(record, field)?).map_err(|_| RecordError { field })
}

#[cfg(test)]
mod tests {
    use super::*;
    use leveret_protocol::field::FieldTableBuilder;

    #[test]
    fn fields_are_read_by_type() {
        let record = FieldTableBuilder::new()
            .with("text", FieldValue::LongStr(b"t"))
            .with("bytes", FieldValue::Bytes(b"b"))
            .with("number", FieldValue::I64(7))
            .with("json", FieldValue::LongStr(b"{\"a\":1}"))
            .build();
        let record = record.as_ref();
        assert_eq!(text(record, "text"), Ok("t"));
        assert_eq!(bytes(record, "bytes"), Ok(&b"b"[..]));
        assert_eq!(integer(record, "number"), Ok(7));
        assert_eq!(optional_integer(record, "number"), Ok(Some(7)));
        assert_eq!(optional_integer(record, "absent"), Ok(None));
        assert_eq!(json(record, "json"), Ok(serde_json::json!({"a": 1})));
        let missing = |field| RecordError { field };
        assert_eq!(text(record, "number"), Err(missing("number")));
        assert_eq!(bytes(record, "text"), Err(missing("text")));
        assert_eq!(integer(record, "text"), Err(missing("text")));
        assert_eq!(optional_integer(record, "text"), Err(missing("text")));
        assert_eq!(json(record, "text"), Err(missing("text")));
        assert!(missing("text").to_string().contains("'text'"));
    }
}
