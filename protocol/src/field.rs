//! Field tables: the typed key-value maps of arguments, headers and peer properties.
//!
//! ```text
//! table  | size: u32 | key: shortstr | tag: u8 | value ..  (again until size is used up)
//! array  | size: u32 | tag: u8 | value ..                  (again until size is used up)
//! ```
//!
//! A [`FieldTable`] borrows the bytes between; it is checked once, whole, when it is parsed, and
//! from then on its entries are decoded as they are asked for. What nobody asks for is never
//! decoded and goes out as it came in. Keys are byte strings, may repeat, and the first counts.
//!
//! The tags are RabbitMQ's, not the specification's: `s` is a signed short (not a short string),
//! `l` and `L` are both signed longs (`l` is written), `x` is bytes, and `U` is unknown.
//! Of the tags that are written here, every client in use decodes all the broker itself needs.

use std::fmt;

use crate::constants::{FIELD_DEPTH_MAX, FIELD_TABLE_SIZE_MAX};
use crate::wire::{DecodeError, Reader, Writer};

/// A field table: borrowed, checked, decoded on demand.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FieldTable<'a>(&'a [u8]);

impl<'a> FieldTable<'a> {
    /// The table without entries.
    pub const EMPTY: FieldTable<'static> = FieldTable(&[]);

    /// Checks the bytes of a table, given without their length, to the last nested value.
    ///
    /// # Errors
    /// The peer's fault: a truncated or unknown value, too deep nesting, or too large a table.
    pub fn parse(bytes: &'a [u8]) -> Result<FieldTable<'a>, DecodeError> {
        if FIELD_TABLE_SIZE_MAX < bytes.len() {
            return Err(DecodeError::TableTooLarge);
        }
        check_table(bytes, FIELD_DEPTH_MAX)?;
        Ok(FieldTable(bytes))
    }

    /// A table whose bytes have been through [`FieldTable::parse`] before.
    #[inline]
    pub(crate) fn from_checked(bytes: &'a [u8]) -> FieldTable<'a> {
        FieldTable(bytes)
    }

    /// The bytes of the table, without their length.
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether there are no entries.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The entries in wire order, repeated keys included.
    pub fn iter(self) -> FieldTableIter<'a> {
        FieldTableIter { reader: Reader::new(self.0) }
    }

    /// The value of the first entry with this key.
    pub fn get(self, key: &str) -> Option<FieldValue<'a>> {
        self.iter().find(|(name, _)| *name == key.as_bytes()).map(|(_, value)| value)
    }

    /// Copies the table into memory of its own.
    pub fn to_owned(self) -> OwnedTable {
        OwnedTable(self.0.into())
    }
}

impl<'a> IntoIterator for FieldTable<'a> {
    type Item = (&'a [u8], FieldValue<'a>);
    type IntoIter = FieldTableIter<'a>;

    fn into_iter(self) -> FieldTableIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for FieldTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.iter().map(|(key, value)| (key.escape_ascii().to_string(), value));
        f.debug_map().entries(entries).finish()
    }
}

/// The entries of a [`FieldTable`].
#[derive(Clone, Debug)]
pub struct FieldTableIter<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for FieldTableIter<'a> {
    type Item = (&'a [u8], FieldValue<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let key = self.reader.shortstr_bytes("key").expect("the table was checked when parsed");
        let value = read_value(&mut self.reader).expect("the table was checked when parsed");
        Some((key, value))
    }
}

/// An array of field values: borrowed, checked, decoded on demand.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FieldArray<'a>(&'a [u8]);

impl<'a> FieldArray<'a> {
    /// The array without values.
    pub const EMPTY: FieldArray<'static> = FieldArray(&[]);

    /// Checks the bytes of an array, given without their length, to the last nested value.
    ///
    /// # Errors
    /// As for [`FieldTable::parse`].
    pub fn parse(bytes: &'a [u8]) -> Result<FieldArray<'a>, DecodeError> {
        if FIELD_TABLE_SIZE_MAX < bytes.len() {
            return Err(DecodeError::TableTooLarge);
        }
        check_array(bytes, FIELD_DEPTH_MAX)?;
        Ok(FieldArray(bytes))
    }

    /// The bytes of the array, without their length.
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether there are no values.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The values in order.
    pub fn iter(self) -> FieldArrayIter<'a> {
        FieldArrayIter { reader: Reader::new(self.0) }
    }
}

impl<'a> IntoIterator for FieldArray<'a> {
    type Item = FieldValue<'a>;
    type IntoIter = FieldArrayIter<'a>;

    fn into_iter(self) -> FieldArrayIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for FieldArray<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The values of a [`FieldArray`].
#[derive(Clone, Debug)]
pub struct FieldArrayIter<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for FieldArrayIter<'a> {
    type Item = FieldValue<'a>;

    fn next(&mut self) -> Option<FieldValue<'a>> {
        if self.reader.is_empty() {
            return None;
        }
        Some(read_value(&mut self.reader).expect("the array was checked when parsed"))
    }
}

/// One value of a table or array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FieldValue<'a> {
    /// `t`: any octet but 0 is true.
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`; `L` is read as the same.
    I64(i64),
    /// `f`
    F32(f32),
    /// `d`
    F64(f64),
    /// `D`: `value` divided by ten to the power of `scale`.
    Decimal {
        /// How many decimal digits of `value` stand behind the point.
        scale: u8,
        /// The digits.
        value: u32,
    },
    /// `S`: any bytes.
    LongStr(&'a [u8]),
    /// `x`: any bytes.
    Bytes(&'a [u8]),
    /// `A`
    Array(FieldArray<'a>),
    /// `F`
    Table(FieldTable<'a>),
    /// `T`: seconds since 1970.
    Timestamp(u64),
    /// `V`
    Void,
}

impl<'a> FieldValue<'a> {
    /// RabbitMQ's name of the type, as its error texts have it.
    pub const fn type_name(self) -> &'static str {
        match self {
            FieldValue::Bool(_) => "bool",
            FieldValue::I8(_) => "byte",
            FieldValue::U8(_) => "unsignedbyte",
            FieldValue::I16(_) => "short",
            FieldValue::U16(_) => "unsignedshort",
            FieldValue::I32(_) => "signedint",
            FieldValue::U32(_) => "unsignedint",
            FieldValue::I64(_) => "long",
            FieldValue::F32(_) => "float",
            FieldValue::F64(_) => "double",
            FieldValue::Decimal { .. } => "decimal",
            FieldValue::LongStr(_) => "longstr",
            FieldValue::Bytes(_) => "binary",
            FieldValue::Array(_) => "array",
            FieldValue::Table(_) => "table",
            FieldValue::Timestamp(_) => "timestamp",
            FieldValue::Void => "void",
        }
    }

    /// The number, if this is an integer of any width; a timestamp is none.
    pub fn as_i64(self) -> Option<i64> {
        match self {
            FieldValue::I8(value) => Some(value.into()),
            FieldValue::U8(value) => Some(value.into()),
            FieldValue::I16(value) => Some(value.into()),
            FieldValue::U16(value) => Some(value.into()),
            FieldValue::I32(value) => Some(value.into()),
            FieldValue::U32(value) => Some(value.into()),
            FieldValue::I64(value) => Some(value),
            FieldValue::Bool(_)
            | FieldValue::F32(_)
            | FieldValue::F64(_)
            | FieldValue::Decimal { .. }
            | FieldValue::LongStr(_)
            | FieldValue::Bytes(_)
            | FieldValue::Array(_)
            | FieldValue::Table(_)
            | FieldValue::Timestamp(_)
            | FieldValue::Void => None,
        }
    }

    /// The bytes of a long string; nothing for `x`, which RabbitMQ tells apart.
    pub fn as_longstr(self) -> Option<&'a [u8]> {
        if let FieldValue::LongStr(bytes) = self { Some(bytes) } else { None }
    }

    /// A long string that is UTF-8.
    pub fn as_str(self) -> Option<&'a str> {
        self.as_longstr().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The bool, if this is one.
    pub fn as_bool(self) -> Option<bool> {
        if let FieldValue::Bool(value) = self { Some(value) } else { None }
    }

    /// The nested table, if this is one.
    pub fn as_table(self) -> Option<FieldTable<'a>> {
        if let FieldValue::Table(table) = self { Some(table) } else { None }
    }

    /// The nested array, if this is one.
    pub fn as_array(self) -> Option<FieldArray<'a>> {
        if let FieldValue::Array(array) = self { Some(array) } else { None }
    }

    /// Appends tag and value.
    fn write(self, writer: &mut Writer<'_>) {
        match self {
            FieldValue::Bool(value) => writer.bytes(&[b't', u8::from(value)]),
            FieldValue::I8(value) => tagged(writer, b'b', value.to_be_bytes()),
            FieldValue::U8(value) => tagged(writer, b'B', value.to_be_bytes()),
            FieldValue::I16(value) => tagged(writer, b's', value.to_be_bytes()),
            FieldValue::U16(value) => tagged(writer, b'u', value.to_be_bytes()),
            FieldValue::I32(value) => tagged(writer, b'I', value.to_be_bytes()),
            FieldValue::U32(value) => tagged(writer, b'i', value.to_be_bytes()),
            FieldValue::I64(value) => tagged(writer, b'l', value.to_be_bytes()),
            FieldValue::F32(value) => tagged(writer, b'f', value.to_be_bytes()),
            FieldValue::F64(value) => tagged(writer, b'd', value.to_be_bytes()),
            FieldValue::Decimal { scale, value } => {
                tagged(writer, b'D', scale.to_be_bytes());
                writer.u32(value);
            }
            FieldValue::LongStr(bytes) => sized(writer, b'S', bytes),
            FieldValue::Bytes(bytes) => sized(writer, b'x', bytes),
            FieldValue::Array(array) => sized(writer, b'A', array.0),
            FieldValue::Table(table) => sized(writer, b'F', table.0),
            FieldValue::Timestamp(value) => tagged(writer, b'T', value.to_be_bytes()),
            FieldValue::Void => writer.u8(b'V'),
        }
    }
}

/// As RabbitMQ's error texts show a value: strings bare, numbers in decimal.
impl fmt::Display for FieldValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldValue::Bool(value) => value.fmt(f),
            FieldValue::I8(value) => value.fmt(f),
            FieldValue::U8(value) => value.fmt(f),
            FieldValue::I16(value) => value.fmt(f),
            FieldValue::U16(value) => value.fmt(f),
            FieldValue::I32(value) => value.fmt(f),
            FieldValue::U32(value) => value.fmt(f),
            FieldValue::I64(value) => value.fmt(f),
            FieldValue::F32(value) => fmt::Debug::fmt(value, f),
            FieldValue::F64(value) => fmt::Debug::fmt(value, f),
            FieldValue::Decimal { scale, value } => write!(f, "{{{scale},{value}}}"),
            FieldValue::LongStr(bytes) | FieldValue::Bytes(bytes) => {
                f.write_str(&String::from_utf8_lossy(bytes))
            }
            FieldValue::Array(array) => fmt::Debug::fmt(array, f),
            FieldValue::Table(table) => fmt::Debug::fmt(table, f),
            FieldValue::Timestamp(value) => value.fmt(f),
            FieldValue::Void => f.write_str("undefined"),
        }
    }
}

/// A field table in memory of its own.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct OwnedTable(Box<[u8]>);

impl OwnedTable {
    /// Takes over the bytes of a table, given without their length, after checking them.
    ///
    /// # Errors
    /// As for [`FieldTable::parse`].
    pub fn parse(bytes: Vec<u8>) -> Result<OwnedTable, DecodeError> {
        FieldTable::parse(&bytes)?;
        Ok(OwnedTable(bytes.into()))
    }

    /// The table to read from.
    #[inline]
    pub fn as_ref(&self) -> FieldTable<'_> {
        FieldTable(&self.0)
    }
}

impl fmt::Debug for OwnedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

/// An array of field values in memory of its own.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct OwnedArray(Box<[u8]>);

impl OwnedArray {
    /// The array to read from.
    #[inline]
    pub fn as_ref(&self) -> FieldArray<'_> {
        FieldArray(&self.0)
    }
}

impl fmt::Debug for OwnedArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

/// Builds an [`OwnedTable`], entry by entry, in wire order.
///
/// Nested tables and arrays are built first and inserted as values.
#[derive(Clone, Debug, Default)]
pub struct FieldTableBuilder {
    bytes: Vec<u8>,
}

impl FieldTableBuilder {
    /// Starts with no entries.
    pub fn new() -> Self {
        FieldTableBuilder::default()
    }

    /// Appends an entry. It does not replace one with the same key, which counts first.
    ///
    /// # Panics
    /// If `key` is longer than 255 bytes: keys that do not come from a table are checked before.
    pub fn insert(&mut self, key: impl AsRef<[u8]>, value: FieldValue<'_>) -> &mut Self {
        let mut writer = Writer::new(&mut self.bytes);
        writer.shortstr(key.as_ref());
        value.write(&mut writer);
        self
    }

    /// As [`FieldTableBuilder::insert`], for chaining.
    #[must_use]
    pub fn with(mut self, key: impl AsRef<[u8]>, value: FieldValue<'_>) -> Self {
        self.insert(key, value);
        self
    }

    /// How many bytes the table takes so far.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The finished table.
    pub fn build(self) -> OwnedTable {
        OwnedTable(self.bytes.into())
    }
}

/// Builds an [`OwnedArray`], value by value.
#[derive(Clone, Debug, Default)]
pub struct FieldArrayBuilder {
    bytes: Vec<u8>,
}

impl FieldArrayBuilder {
    /// Starts with no values.
    pub fn new() -> Self {
        FieldArrayBuilder::default()
    }

    /// Appends a value.
    pub fn push(&mut self, value: FieldValue<'_>) -> &mut Self {
        value.write(&mut Writer::new(&mut self.bytes));
        self
    }

    /// The finished array.
    pub fn build(self) -> OwnedArray {
        OwnedArray(self.bytes.into())
    }
}

fn tagged<const N: usize>(writer: &mut Writer<'_>, tag: u8, value: [u8; N]) {
    writer.u8(tag);
    writer.bytes(&value);
}

fn sized(writer: &mut Writer<'_>, tag: u8, bytes: &[u8]) {
    writer.u8(tag);
    writer.longstr(bytes);
}

/// Checks a table into which `depth` more levels may be nested.
fn check_table(bytes: &[u8], depth: usize) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        reader.shortstr_bytes("key")?;
        check_value(&mut reader, depth)?;
    }
    Ok(())
}

fn check_array(bytes: &[u8], depth: usize) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        check_value(&mut reader, depth)?;
    }
    Ok(())
}

/// Takes one value and checks what is nested in it; the recursion ends at [`FIELD_DEPTH_MAX`].
fn check_value(reader: &mut Reader<'_>, depth: usize) -> Result<(), DecodeError> {
    let nested = match read_value(reader)? {
        FieldValue::Table(table) => (table.0, check_table as fn(&[u8], usize) -> _),
        FieldValue::Array(array) => (array.0, check_array as fn(&[u8], usize) -> _),
        FieldValue::Bool(_)
        | FieldValue::I8(_)
        | FieldValue::U8(_)
        | FieldValue::I16(_)
        | FieldValue::U16(_)
        | FieldValue::I32(_)
        | FieldValue::U32(_)
        | FieldValue::I64(_)
        | FieldValue::F32(_)
        | FieldValue::F64(_)
        | FieldValue::Decimal { .. }
        | FieldValue::LongStr(_)
        | FieldValue::Bytes(_)
        | FieldValue::Timestamp(_)
        | FieldValue::Void => return Ok(()),
    };
    let (bytes, check) = nested;
    check(bytes, depth.checked_sub(1).ok_or(DecodeError::TooDeep)?)
}

/// Takes tag and value. What is nested comes back unchecked: the caller has checked it, or will.
fn read_value<'a>(reader: &mut Reader<'a>) -> Result<FieldValue<'a>, DecodeError> {
    const VALUE: &str = "field value";
    Ok(match reader.u8("field type")? {
        b't' => FieldValue::Bool(reader.u8(VALUE)? != 0),
        b'b' => FieldValue::I8(i8::from_be_bytes(reader.take_array(VALUE)?)),
        b'B' => FieldValue::U8(reader.u8(VALUE)?),
        b's' => FieldValue::I16(i16::from_be_bytes(reader.take_array(VALUE)?)),
        b'u' => FieldValue::U16(reader.u16(VALUE)?),
        b'I' => FieldValue::I32(i32::from_be_bytes(reader.take_array(VALUE)?)),
        b'i' => FieldValue::U32(reader.u32(VALUE)?),
        b'l' | b'L' => FieldValue::I64(i64::from_be_bytes(reader.take_array(VALUE)?)),
        b'f' => FieldValue::F32(f32::from_be_bytes(reader.take_array(VALUE)?)),
        b'd' => FieldValue::F64(f64::from_be_bytes(reader.take_array(VALUE)?)),
        b'D' => FieldValue::Decimal { scale: reader.u8(VALUE)?, value: reader.u32(VALUE)? },
        b'S' => FieldValue::LongStr(reader.longstr(VALUE)?),
        b'x' => FieldValue::Bytes(reader.longstr(VALUE)?),
        b'A' => FieldValue::Array(FieldArray(reader.longstr(VALUE)?)),
        b'F' => FieldValue::Table(FieldTable(reader.longstr(VALUE)?)),
        b'T' => FieldValue::Timestamp(reader.u64(VALUE)?),
        b'V' => FieldValue::Void,
        tag => return Err(DecodeError::UnknownFieldTag(tag)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_type() -> OwnedTable {
        let nested = FieldTableBuilder::new().with("k", FieldValue::Void).build();
        let mut array = FieldArrayBuilder::new();
        array.push(FieldValue::U8(1)).push(FieldValue::Table(nested.as_ref()));
        FieldTableBuilder::new()
            .with("t", FieldValue::Bool(true))
            .with("b", FieldValue::I8(-1))
            .with("B", FieldValue::U8(255))
            .with("s", FieldValue::I16(-2))
            .with("u", FieldValue::U16(65535))
            .with("I", FieldValue::I32(-3))
            .with("i", FieldValue::U32(4_000_000_000))
            .with("l", FieldValue::I64(i64::MIN))
            .with("f", FieldValue::F32(1.5))
            .with("d", FieldValue::F64(-2.25))
            .with("D", FieldValue::Decimal { scale: 2, value: 314 })
            .with("S", FieldValue::LongStr(b"text"))
            .with("x", FieldValue::Bytes(&[0, 255]))
            .with("A", FieldValue::Array(array.build().as_ref()))
            .with("F", FieldValue::Table(nested.as_ref()))
            .with("T", FieldValue::Timestamp(1_700_000_000))
            .with("V", FieldValue::Void)
            .build()
    }

    /// Goal: each type is written with its tag and read back. Method: the keys are the tags.
    #[test]
    fn every_type_comes_back_under_its_tag() {
        let table = every_type();
        let table = FieldTable::parse(table.as_ref().as_bytes()).expect("it was built here");
        let mut count = 0;
        let mut rest = table.as_bytes();
        for (key, value) in table {
            assert_eq!(rest[..3], [1, key[0], key[0]], "key {key:?} with value {value:?}");
            let mut entry = FieldTableBuilder::new();
            entry.insert(key, value);
            rest = &rest[entry.size()..];
            count += 1;
        }
        assert_eq!(count, 17);
        assert!(rest.is_empty());
        assert_eq!(table.get("l"), Some(FieldValue::I64(i64::MIN)));
        let nested = table.get("A").and_then(FieldValue::as_array).expect("an array");
        assert_eq!(nested.iter().count(), 2);
    }

    #[test]
    fn unsigned_long_is_read_as_signed() {
        let table = FieldTable::parse(b"\x01kL\xff\xff\xff\xff\xff\xff\xff\xff").expect("valid");
        assert_eq!(table.get("k"), Some(FieldValue::I64(-1)));
    }

    #[test]
    fn first_of_repeated_keys_counts() {
        let table = FieldTableBuilder::new()
            .with("k", FieldValue::U8(1))
            .with("k", FieldValue::U8(2))
            .build();
        assert_eq!(table.as_ref().get("k"), Some(FieldValue::U8(1)));
        assert_eq!(table.as_ref().get("absent"), None);
    }

    /// Goal: every truncation of a valid table is refused or is a shorter valid table, and the
    /// tags RabbitMQ does not know are named.
    #[test]
    fn damage_is_refused() {
        let table = every_type();
        let bytes = table.as_ref().as_bytes();
        let boundaries: Vec<usize> = {
            let mut builder = FieldTableBuilder::new();
            table.as_ref().iter().map(|(k, v)| builder.insert(k, v).size()).collect()
        };
        for size in 1..bytes.len() {
            let valid = boundaries.contains(&size);
            assert_eq!(FieldTable::parse(&bytes[..size]).is_ok(), valid, "cut at {size}");
        }
        let unknown = FieldTable::parse(b"\x01kU\x00\x01");
        assert_eq!(unknown, Err(DecodeError::UnknownFieldTag(b'U')));
    }

    #[test]
    fn nesting_is_bounded() {
        let mut table = OwnedTable::default();
        for _ in 0..FIELD_DEPTH_MAX {
            let value = FieldValue::Table(table.as_ref());
            table = FieldTableBuilder::new().with("k", value).build();
        }
        assert!(FieldTable::parse(table.as_ref().as_bytes()).is_ok());
        let deeper = FieldTableBuilder::new().with("k", FieldValue::Table(table.as_ref())).build();
        let parsed = FieldTable::parse(deeper.as_ref().as_bytes());
        assert_eq!(parsed, Err(DecodeError::TooDeep));
        let huge = vec![0; FIELD_TABLE_SIZE_MAX + 1];
        assert_eq!(FieldTable::parse(&huge), Err(DecodeError::TableTooLarge));
    }

    #[test]
    fn values_read_as_in_error_texts() {
        let shown = |value: FieldValue<'_>| format!("'{value}' of type '{}'", value.type_name());
        assert_eq!(shown(FieldValue::I32(1000)), "'1000' of type 'signedint'");
        assert_eq!(shown(FieldValue::LongStr(b"foo")), "'foo' of type 'longstr'");
        assert_eq!(shown(FieldValue::Bool(true)), "'true' of type 'bool'");
        assert_eq!(shown(FieldValue::F64(1.0)), "'1.0' of type 'double'");
    }
}
