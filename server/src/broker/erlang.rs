//! JSON values printed as Erlang terms, because RabbitMQ's error texts do so and clients, tests and
//! people read them: `<<"a">>`, `[{<<"nope">>,1}]`.

use serde_json::Value;
use std::fmt::Write as _;

/// Longest text made here, in bytes: values come from outside and the text goes into an error.
const TEXT_LEN_MAX: usize = 1024;

/// `value` as `~p` prints it, cut after a while.
pub(super) fn term(value: &Value) -> String {
    let mut out = String::new();
    push(&mut out, value);
    cut(out)
}

/// A property list of names and values: `[{<<"a">>,1},{<<"b">>,true}]`.
pub(super) fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a Value)>) -> String {
    let mut out = String::new();
    push_pairs(&mut out, pairs.into_iter());
    cut(out)
}

/// A binary: `<<"text">>`, or its bytes when they do not print.
pub(super) fn binary(text: &str) -> String {
    let mut out = String::new();
    push_binary(&mut out, text);
    cut(out)
}

fn cut(mut out: String) -> String {
    if TEXT_LEN_MAX < out.len() {
        let end = (0..=TEXT_LEN_MAX).rev().find(|end| out.is_char_boundary(*end));
        out.truncate(end.expect("0 is a boundary"));
        out.push_str("...");
    }
    out
}

fn push(out: &mut String, value: &Value) {
    if TEXT_LEN_MAX < out.len() {
        return;
    }
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) if number.is_f64() => {
            let text = number.to_string();
            out.push_str(&text);
            if !text.contains(['.', 'e', 'E']) {
                out.push_str(".0");
            }
        }
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => push_binary(out, text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if 0 < index {
                    out.push(',');
                }
                push(out, item);
            }
            out.push(']');
        }
        Value::Object(members) => {
            push_pairs(out, members.iter().map(|(name, value)| (name.as_str(), value)));
        }
    }
}

fn push_pairs<'a>(out: &mut String, pairs: impl Iterator<Item = (&'a str, &'a Value)>) {
    out.push('[');
    for (index, (name, value)) in pairs.enumerate() {
        if 0 < index {
            out.push(',');
        }
        out.push('{');
        push_binary(out, name);
        out.push(',');
        push(out, value);
        out.push('}');
    }
    out.push(']');
}

fn push_binary(out: &mut String, text: &str) {
    if TEXT_LEN_MAX < out.len() {
        return;
    }
    let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\t' | b'\r'));
    if printable && !text.is_empty() {
        out.push_str("<<\"");
        for c in text.chars().take(TEXT_LEN_MAX) {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                _ => out.push(c),
            }
        }
        out.push_str("\">>");
        return;
    }
    out.push_str("<<");
    for (index, byte) in text.bytes().take(TEXT_LEN_MAX).enumerate() {
        let comma = if 0 < index { "," } else { "" };
        write!(out, "{comma}{byte}").expect("a String takes everything");
    }
    out.push_str(">>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn terms_print_as_erlang_prints_them() {
        for (value, text) in [
            (json!("a"), r#"<<"a">>"#),
            (json!(""), "<<>>"),
            (json!("q\"\\\n"), r#"<<"q\"\\\n">>"#),
            (json!("é"), "<<195,169>>"),
            (json!(-1), "-1"),
            (json!(1.0), "1.0"),
            (json!(true), "true"),
            (json!(null), "null"),
            (json!([1, "b"]), r#"[1,<<"b">>]"#),
            (json!({"nope": 1, "x": []}), r#"[{<<"nope">>,1},{<<"x">>,[]}]"#),
        ] {
            assert_eq!(term(&value), text);
        }
        assert_eq!(pairs([("a", &json!(1))]), r#"[{<<"a">>,1}]"#);
        assert_eq!(binary("x"), r#"<<"x">>"#);
    }

    #[test]
    fn large_values_make_short_texts() {
        let large = json!(vec!["x".repeat(10_000); 1000]);
        assert!(term(&large).len() <= TEXT_LEN_MAX + 3);
    }
}
