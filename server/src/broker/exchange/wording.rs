//! Values as RabbitMQ prints them in reply texts: as Erlang terms.

use leveret_protocol::field::FieldValue;

/// A binary: `<<"text">>`, or its bytes when they are not printable.
pub(super) fn binary(bytes: &[u8]) -> String {
    if bytes.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        let text = String::from_utf8_lossy(bytes).replace('\\', "\\\\").replace('"', "\\\"");
        return format!("<<\"{text}\">>");
    }
    let bytes: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("<<{}>>", bytes.join(","))
}

/// A field's value.
pub(super) fn value(value: FieldValue<'_>) -> String {
    if let FieldValue::LongStr(bytes) | FieldValue::Bytes(bytes) = value {
        return binary(bytes);
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_print_as_text_or_bytes() {
        assert_eq!(binary(b"foo"), "<<\"foo\">>");
        assert_eq!(binary(b"a\"\\"), "<<\"a\\\"\\\\\">>");
        assert_eq!(binary(&[1, 200]), "<<1,200>>");
        assert_eq!(binary(b""), "<<\"\">>");
    }
}
