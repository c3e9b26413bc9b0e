//! The field-table decoder: any bytes.
//!
//! Checked: no panic, whatever the nesting; a table that is accepted can be walked to its end, and
//! every name in it is found again.
#![no_main]

use leveret_protocol::{FieldArray, FieldTable, FieldValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(table) = FieldTable::parse(bytes) {
        walk_table(table);
        assert_eq!(table.to_owned().as_ref().as_bytes(), bytes);
    }
    if let Ok(array) = FieldArray::parse(bytes) {
        walk_array(array);
    }
});

fn walk_table(table: FieldTable<'_>) {
    for (name, value) in table.iter() {
        if let Ok(name) = std::str::from_utf8(name) {
            assert!(table.get(name).is_some(), "{name} is in the table");
        }
        walk(value);
    }
}

fn walk_array(array: FieldArray<'_>) {
    array.iter().for_each(walk);
}

fn walk(value: FieldValue<'_>) {
    if let Some(table) = value.as_table() {
        walk_table(table);
    }
    if let Some(array) = value.as_array() {
        walk_array(array);
    }
}
