//! What is written reads back as it was, and no bytes whatever can do harm.

use leveret_protocol::{
    BasicProperties, FieldArrayBuilder, FieldTable, FieldTableBuilder, FieldValue, Method,
    OwnedArray, OwnedTable, PropertiesWriter,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// A field value that owns what it holds.
#[derive(Clone, Debug)]
enum Model {
    Plain(FieldValue<'static>),
    LongStr(Vec<u8>),
    Bytes(Vec<u8>),
    Array(Vec<Model>),
    Table(Vec<(Vec<u8>, Model)>),
}

fn plain() -> impl Strategy<Value = Model> {
    prop_oneof![
        any::<bool>().prop_map(FieldValue::Bool),
        any::<i8>().prop_map(FieldValue::I8),
        any::<u8>().prop_map(FieldValue::U8),
        any::<i16>().prop_map(FieldValue::I16),
        any::<u16>().prop_map(FieldValue::U16),
        any::<i32>().prop_map(FieldValue::I32),
        any::<u32>().prop_map(FieldValue::U32),
        any::<i64>().prop_map(FieldValue::I64),
        any::<f32>().prop_map(FieldValue::F32),
        any::<f64>().prop_map(FieldValue::F64),
        any::<(u8, u32)>().prop_map(|(scale, value)| FieldValue::Decimal { scale, value }),
        any::<u64>().prop_map(FieldValue::Timestamp),
        Just(FieldValue::Void),
    ]
    .prop_map(Model::Plain)
}

fn model() -> impl Strategy<Value = Model> {
    let leaf = prop_oneof![
        plain(),
        vec(any::<u8>(), 0..20).prop_map(Model::LongStr),
        vec(any::<u8>(), 0..20).prop_map(Model::Bytes),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Model::Array),
            vec((vec(any::<u8>(), 0..8), inner), 0..6).prop_map(Model::Table),
        ]
    })
}

fn entries() -> impl Strategy<Value = Vec<(Vec<u8>, Model)>> {
    vec((vec(any::<u8>(), 0..40), model()), 0..8)
}

/// Calls `use_value` with the value that `model` stands for.
fn with_value<R>(model: &Model, use_value: impl FnOnce(FieldValue<'_>) -> R) -> R {
    match model {
        Model::Plain(value) => use_value(*value),
        Model::LongStr(bytes) => use_value(FieldValue::LongStr(bytes)),
        Model::Bytes(bytes) => use_value(FieldValue::Bytes(bytes)),
        Model::Array(values) => use_value(FieldValue::Array(build_array(values).as_ref())),
        Model::Table(entries) => use_value(FieldValue::Table(build_table(entries).as_ref())),
    }
}

fn build_array(values: &[Model]) -> OwnedArray {
    let mut builder = FieldArrayBuilder::new();
    for model in values {
        with_value(model, |value| {
            builder.push(value);
        });
    }
    builder.build()
}

fn build_table(entries: &[(Vec<u8>, Model)]) -> OwnedTable {
    let mut builder = FieldTableBuilder::new();
    for (key, model) in entries {
        with_value(model, |value| {
            builder.insert(key, value);
        });
    }
    builder.build()
}

/// One method as `tests/specification.txt` has it: ids, and names and types of its arguments.
#[derive(Clone, Debug)]
struct Specified {
    ids: [u16; 2],
    arguments: Vec<(&'static str, &'static str)>,
}

fn specification() -> Vec<Specified> {
    let lines = include_str!("specification.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split(' ').skip(1);
            let mut id = || words.next().expect("two ids").parse().expect("a number");
            let ids = [id(), id()];
            let arguments = words.map(|word| word.split_once(':').expect("name:type")).collect();
            Specified { ids, arguments }
        })
        .collect()
}

/// Arguments that nobody reads and that are sent as zero.
fn is_reserved(ids: [u16; 2], name: &str) -> bool {
    match name {
        "ticket" => ids != [30, 11],
        "capabilities" | "insist" | "known-hosts" | "out-of-band" | "channel-id" => true,
        name => name == "cluster-id",
    }
}

/// What the arguments of a method are filled with, whatever their types.
#[derive(Clone, Debug)]
struct Filling {
    numbers: Vec<u64>,
    texts: Vec<String>,
    tables: Vec<Vec<(Vec<u8>, Model)>>,
}

fn filling() -> impl Strategy<Value = Filling> {
    let parts = (vec(any::<u64>(), 10), vec(r"\PC{0,60}", 10), vec(entries(), 2));
    parts.prop_map(|(numbers, texts, tables)| Filling { numbers, texts, tables })
}

/// The payload of a method frame, built from the specification alone.
fn payload(method: &Specified, filling: &Filling) -> Vec<u8> {
    let Filling { numbers, texts, tables } = filling;
    let mut bytes: Vec<u8> = method.ids.iter().flat_map(|id| id.to_be_bytes()).collect();
    let mut bits = 0;
    for (index, (name, wire_type)) in method.arguments.iter().enumerate() {
        let reserved = is_reserved(method.ids, name);
        let number = if reserved { 0 } else { numbers[index] }.to_be_bytes();
        let text = if reserved { "" } else { &texts[index] };
        let bit_before = bits;
        bits = 0;
        match *wire_type {
            "bit" => {
                if bit_before == 0 {
                    bytes.push(0);
                }
                *bytes.last_mut().expect("just pushed") |= (number[7] & 1) << bit_before;
                bits = bit_before + 1;
            }
            "octet" => bytes.extend(&number[7..]),
            "short" => bytes.extend(&number[6..]),
            "long" => bytes.extend(&number[4..]),
            "longlong" => bytes.extend(number),
            "shortstr" => {
                bytes.push(text.len().try_into().expect("60 characters of at most 4 bytes"));
                bytes.extend(text.as_bytes());
            }
            "longstr" => {
                bytes.extend(u32::try_from(text.len()).expect("short").to_be_bytes());
                bytes.extend(text.as_bytes());
            }
            "table" => {
                let table = build_table(&tables[index % tables.len()]);
                let table = table.as_ref().as_bytes();
                bytes.extend(u32::try_from(table.len()).expect("short").to_be_bytes());
                bytes.extend(table);
            }
            other => panic!("unknown type {other}"),
        }
    }
    bytes
}

fn shortstr() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(vec(any::<u8>(), 0..=255))
}

proptest! {
    /// Goal: every method of the specification decodes, and encodes to the very same bytes.
    /// Method: payloads built from the specification's list of arguments, without the table.
    #[test]
    fn every_method_comes_back(filling in filling(), channel in any::<u16>()) {
        for method in specification() {
            let payload = payload(&method, &filling);
            let decoded = Method::decode(&payload);
            let decoded = decoded.map_err(|error| TestCaseError::fail(error.to_string()))?;
            let id = decoded.id();
            prop_assert_eq!([id.class, id.method], method.ids);
            let mut frame = vec![0xEE];
            decoded.encode(channel, &mut frame);
            let [c0, c1] = channel.to_be_bytes();
            let [s0, s1, s2, s3] = u32::try_from(payload.len()).expect("short").to_be_bytes();
            prop_assert_eq!(&frame[..8], &[0xEE, 1, c0, c1, s0, s1, s2, s3]);
            prop_assert_eq!(&frame[8..frame.len() - 1], &payload[..], "{:?}", decoded);
            prop_assert_eq!(frame[frame.len() - 1], 0xCE);
            // One octet less or more is an error, and no panic.
            let cut = &payload[..payload.len() - 1];
            prop_assert!(Method::decode(cut).is_err());
            let longer = [&payload[..], &[0]].concat();
            prop_assert!(Method::decode(&longer).is_err());
        }
    }

    /// Goal: what is built from values of all types iterates as the same values.
    #[test]
    fn tables_come_back(entries in entries()) {
        let table = build_table(&entries);
        let parsed = FieldTable::parse(table.as_ref().as_bytes());
        let parsed = parsed.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(parsed.iter().count(), entries.len());
        for ((key, value), (model_key, model)) in parsed.iter().zip(&entries) {
            prop_assert_eq!(key, &model_key[..]);
            // NaN differs from itself: compare the debug forms, which are exact.
            let expected = with_value(model, |expected| format!("{expected:?}"));
            prop_assert_eq!(format!("{value:?}"), expected);
        }
        prop_assert_eq!(OwnedTable::parse(table.as_ref().as_bytes().to_vec()), Ok(table));
    }

    /// Goal: taken apart and put together, properties are the same bytes.
    #[test]
    fn properties_come_back(
        texts in vec(shortstr(), 10),
        octets in any::<[Option<u8>; 2]>(),
        timestamp in any::<Option<u64>>(),
        headers in option::of(entries()),
    ) {
        let headers = headers.map(|entries| build_table(&entries));
        let text = |index: usize| texts[index].as_deref();
        let written = PropertiesWriter {
            content_type: text(0),
            content_encoding: text(1),
            headers: headers.as_ref().map(OwnedTable::as_ref),
            delivery_mode: octets[0],
            priority: octets[1],
            correlation_id: text(2),
            reply_to: text(3),
            expiration: text(4),
            message_id: text(5),
            timestamp,
            kind: text(6),
            user_id: text(7),
            app_id: text(8),
            cluster_id: text(9),
        };
        let bytes = written.to_bytes();
        let parsed = BasicProperties::parse(&bytes);
        let parsed = parsed.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(PropertiesWriter::from(parsed), written);
        prop_assert_eq!(parsed.is_empty(), bytes == [0, 0]);
    }

    /// Goal: no bytes make a decoder panic, and what decodes can be walked to the end.
    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..300)) {
        walk(&bytes);
    }

    /// The same from valid methods with a few octets changed, which get further.
    #[test]
    fn damaged_methods_do_no_harm(
        filling in filling(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for method in specification() {
            let mut payload = payload(&method, &filling);
            for (index, octet) in &damage {
                let index = index.index(payload.len());
                payload[index] = *octet;
            }
            walk(&payload);
        }
    }
}

/// Decodes `bytes` as everything they might be, and looks at all of it.
fn walk(bytes: &[u8]) {
    if let Ok(method) = Method::decode(bytes) {
        assert!(format!("{method:?}").len() < 100 * bytes.len() + 1000);
        let mut frame = Vec::new();
        method.encode(1, &mut frame);
        assert_eq!(Method::decode(&frame[7..frame.len() - 1]), Ok(method));
    }
    if let Ok(table) = FieldTable::parse(bytes) {
        assert!(format!("{table:?}").len() < 100 * bytes.len() + 1000);
    }
    if let Ok(properties) = BasicProperties::parse(bytes) {
        let rewritten = PropertiesWriter::from(properties).to_bytes();
        let again = BasicProperties::parse(&rewritten).map(PropertiesWriter::from);
        assert_eq!(again, Ok(PropertiesWriter::from(properties)));
    }
}
