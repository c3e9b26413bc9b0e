//! Writes rows as JSON objects, only the columns that were asked for.
//!
//! A row offers all its fields to an [`ObjectWriter`]; fields outside of [`Columns`] cost a
//! comparison and nothing else. So one description of a row serves full listings, projections
//! (`columns=name,message_stats.publish`) and sorting by any column.

use serde::Serialize;
use serde_json::Value;

/// The columns of a reply: everything, or some keys, each with the columns wanted below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Columns {
    /// Every field.
    #[default]
    All,
    /// Only these keys, in order of first mention.
    Some(Vec<(String, Columns)>),
}

impl Columns {
    /// Reads `a,b.c`. A dotted name descends into objects; a key named both alone and with a
    /// descent is written whole.
    pub(crate) fn parse(text: &str) -> Columns {
        let mut columns = Columns::Some(Vec::new());
        for path in text.split(',').take(COLUMNS_MAX) {
            columns.add(path.trim());
        }
        columns
    }

    fn add(&mut self, path: &str) {
        let (key, rest) = match path.split_once('.') {
            Some((key, rest)) => (key, Some(rest)),
            None => (path, None),
        };
        let Columns::Some(entries) = self else { return };
        let index = entries.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
            let below = if rest.is_some() { Columns::Some(Vec::new()) } else { Columns::All };
            entries.push((key.to_owned(), below));
            entries.len() - 1
        });
        match rest {
            Some(rest) => entries[index].1.add(rest),
            None => entries[index].1 = Columns::All,
        }
    }

    /// The columns below `key`, or nothing when it is not wanted.
    fn below(&self, key: &str) -> Option<&Columns> {
        match self {
            Columns::All => Some(&Columns::All),
            Columns::Some(entries) => {
                entries.iter().find(|(name, _)| name == key).map(|(_, below)| below)
            }
        }
    }
}

/// Columns of one request; what is named beyond is left out.
const COLUMNS_MAX: usize = 200;

/// Appends one JSON object to a buffer, field by field.
pub(crate) struct ObjectWriter<'a> {
    out: &'a mut Vec<u8>,
    columns: &'a Columns,
    empty: bool,
}

impl ObjectWriter<'_> {
    /// Appends the object that `fields` describes to `out`.
    pub(crate) fn write(
        out: &mut Vec<u8>,
        columns: &Columns,
        fields: impl FnOnce(&mut ObjectWriter<'_>),
    ) {
        out.push(b'{');
        fields(&mut ObjectWriter { out, columns, empty: true });
        out.push(b'}');
    }

    /// One field. Values are descended into only where [`Columns`] say so.
    pub(crate) fn field<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) {
        let Some(below) = self.columns.below(key) else { return };
        if *below == Columns::All {
            self.key(key);
            append(self.out, value);
        } else {
            let value = serde_json::to_value(value).expect("rows are made of JSON's types");
            let below = below.clone();
            self.key(key);
            append(self.out, &project(&value, &below));
        }
    }

    /// A field whose value costs work to make: `value` runs only when it is wanted.
    pub(crate) fn lazy<T: Serialize>(&mut self, key: &str, value: impl FnOnce() -> T) {
        if self.wants(key) {
            self.field(key, &value());
        }
    }

    /// A field that is an object itself.
    pub(crate) fn object(&mut self, key: &str, fields: impl FnOnce(&mut ObjectWriter<'_>)) {
        let columns = self.columns;
        let Some(below) = columns.below(key) else { return };
        self.key(key);
        ObjectWriter::write(self.out, below, fields);
    }

    /// A field that is a list of objects; columns do not descend into lists.
    pub(crate) fn list<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        mut fields: impl FnMut(T, &mut ObjectWriter<'_>),
    ) {
        if !self.wants(key) {
            return;
        }
        self.key(key);
        self.out.push(b'[');
        for (index, item) in items.into_iter().enumerate() {
            if 0 < index {
                self.out.push(b',');
            }
            ObjectWriter::write(self.out, &Columns::All, |object| fields(item, object));
        }
        self.out.push(b']');
    }

    /// Whether a field of this name would be written.
    pub(crate) fn wants(&self, key: &str) -> bool {
        self.columns.below(key).is_some()
    }

    fn key(&mut self, key: &str) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        append(self.out, key);
        self.out.push(b':');
    }
}

fn append<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(&mut *out, value).expect("a Vec takes every byte of JSON's types");
}

/// The part of `value` that `columns` name. What is no object stays whole.
pub(crate) fn project(value: &Value, columns: &Columns) -> Value {
    let (Columns::Some(entries), Value::Object(map)) = (columns, value) else {
        return value.clone();
    };
    let wanted = entries
        .iter()
        .filter_map(|(key, below)| map.get(key).map(|value| (key.clone(), project(value, below))));
    Value::Object(wanted.collect())
}

/// The value at the end of a dotted path, if every step is there.
pub(crate) fn descend<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, key| value.get(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(columns: &str) -> String {
        let columns = if columns == "*" { Columns::All } else { Columns::parse(columns) };
        let mut out = Vec::new();
        ObjectWriter::write(&mut out, &columns, |row| {
            row.field("name", "a\"b");
            row.object("stats", |stats| {
                stats.field("publish", &3);
                stats.object("publish_details", |details| details.field("rate", &0.0));
            });
            row.field("arguments", &serde_json::json!({"x-a": 1, "x-b": {"c": 2}}));
            row.list("members", ["n"], |member, object| object.field("node", member));
            row.lazy("last", || Option::<u64>::None);
        });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn all_columns_write_the_whole_object() {
        assert_eq!(
            written("*"),
            r#"{"name":"a\"b","stats":{"publish":3,"publish_details":{"rate":0.0}},"arguments":{"x-a":1,"x-b":{"c":2}},"members":[{"node":"n"}],"last":null}"#
        );
    }

    #[test]
    fn columns_project_and_descend() {
        assert_eq!(written("name"), r#"{"name":"a\"b"}"#);
        assert_eq!(
            written("stats.publish_details.rate,last"),
            r#"{"stats":{"publish_details":{"rate":0.0}},"last":null}"#
        );
        assert_eq!(written("arguments.x-b.c"), r#"{"arguments":{"x-b":{"c":2}}}"#);
        assert_eq!(written("stats.publish,stats"), written("stats"), "the wider one wins");
        assert_eq!(written("stats,stats.publish"), written("stats"));
        assert_eq!(written("nope"), "{}");
        assert_eq!(written(""), "{}");
    }

    #[test]
    fn descending_stops_at_what_is_missing() {
        let value = serde_json::json!({"a": {"b": 1}});
        assert_eq!(descend(&value, "a.b"), Some(&Value::from(1)));
        assert_eq!(descend(&value, "a.b.c"), None);
        assert_eq!(descend(&value, "x"), None);
    }
}
