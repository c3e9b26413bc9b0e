//! The properties of a message: a view over the bytes that came, and a writer for changed ones.
//!
//! ```text
//! | flags: u16 | content-type: shortstr | content-encoding: shortstr | headers: table
//! | delivery-mode: u8 | priority: u8 | correlation-id: shortstr | reply-to: shortstr
//! | expiration: shortstr | message-id: shortstr | timestamp: u64 | type: shortstr
//! | user-id: shortstr | app-id: shortstr | cluster-id: shortstr |
//! ```
//!
//! Bit 15 of the flags stands for content-type and bit 2 for cluster-id; only properties whose bit
//! is set are there. Bits 1 and 0 mean nothing: RabbitMQ knows no second word of flags.
//!
//! A message goes out with the very bytes it came in with, so nothing here is decoded before it is
//! asked for. The short strings are bytes; RabbitMQ does not insist on UTF-8 here.

use std::fmt;

use crate::field::FieldTable;
use crate::wire::{DecodeError, Reader, Writer};

/// The properties of a message: borrowed, checked, decoded on demand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BasicProperties<'a> {
    flags: u16,
    /// The values, without the flags.
    values: &'a [u8],
}

/// How a property's value is laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    ShortStr,
    Table,
    Octet,
    LongLong,
}

const CONTENT_TYPE: u32 = 15;
const CONTENT_ENCODING: u32 = 14;
const HEADERS: u32 = 13;
const DELIVERY_MODE: u32 = 12;
const PRIORITY: u32 = 11;
const CORRELATION_ID: u32 = 10;
const REPLY_TO: u32 = 9;
const EXPIRATION: u32 = 8;
const MESSAGE_ID: u32 = 7;
const TIMESTAMP: u32 = 6;
const KIND: u32 = 5;
const USER_ID: u32 = 4;
const APP_ID: u32 = 3;
const CLUSTER_ID: u32 = 2;
/// The flags that mean something.
const KNOWN_FLAGS: u16 = 0xFFFC;

const fn layout(bit: u32) -> Layout {
    match bit {
        HEADERS => Layout::Table,
        DELIVERY_MODE | PRIORITY => Layout::Octet,
        TIMESTAMP => Layout::LongLong,
        _ => Layout::ShortStr,
    }
}

impl<'a> BasicProperties<'a> {
    /// No properties.
    pub const EMPTY: BasicProperties<'static> = BasicProperties { flags: 0, values: &[] };

    /// Checks flags and values, down to the last value nested in the headers.
    ///
    /// # Errors
    /// The peer's fault: a value missing, broken or left over. RabbitMQ answers with a bare 541;
    /// see [`ProtocolError::InvalidProperties`](crate::error::ProtocolError::InvalidProperties).
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<BasicProperties<'a>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let flags = reader.u16("property flags")?;
        let properties = BasicProperties { flags, values: reader.rest() };
        let mut left = flags & KNOWN_FLAGS;
        while left != 0 {
            let bit = left.ilog2();
            left &= !(1 << bit);
            let value = read_raw(&mut reader, bit)?;
            if bit == HEADERS {
                FieldTable::parse(value)?;
            }
        }
        reader.finish()?;
        Ok(properties)
    }

    /// Whether no property is there.
    pub fn is_empty(self) -> bool {
        self.flags & KNOWN_FLAGS == 0
    }

    /// `content-type`: MIME, as the client says.
    pub fn content_type(self) -> Option<&'a [u8]> {
        self.raw(CONTENT_TYPE)
    }

    /// `content-encoding`: MIME, as the client says.
    pub fn content_encoding(self) -> Option<&'a [u8]> {
        self.raw(CONTENT_ENCODING)
    }

    /// `headers`: what the headers exchange looks at, and much else.
    pub fn headers(self) -> Option<FieldTable<'a>> {
        self.raw(HEADERS).map(FieldTable::from_checked)
    }

    /// `delivery-mode`: 2 is persistent.
    pub fn delivery_mode(self) -> Option<u8> {
        self.raw(DELIVERY_MODE).map(|octet| octet[0])
    }

    /// `priority`: the higher, the earlier.
    pub fn priority(self) -> Option<u8> {
        self.raw(PRIORITY).map(|octet| octet[0])
    }

    /// `correlation-id`: which request this answers.
    pub fn correlation_id(self) -> Option<&'a [u8]> {
        self.raw(CORRELATION_ID)
    }

    /// `reply-to`: the queue that wants the answer.
    pub fn reply_to(self) -> Option<&'a [u8]> {
        self.raw(REPLY_TO)
    }

    /// `expiration`: milliseconds in decimal.
    pub fn expiration(self) -> Option<&'a [u8]> {
        self.raw(EXPIRATION)
    }

    /// `message-id`: as the client says.
    pub fn message_id(self) -> Option<&'a [u8]> {
        self.raw(MESSAGE_ID)
    }

    /// `timestamp`: seconds since 1970.
    pub fn timestamp(self) -> Option<u64> {
        let bytes = self.raw(TIMESTAMP)?;
        Some(u64::from_be_bytes(bytes.try_into().expect("its layout has eight bytes")))
    }

    /// `type`: as the client says.
    pub fn kind(self) -> Option<&'a [u8]> {
        self.raw(KIND)
    }

    /// `user-id`: the publisher's login, if given.
    pub fn user_id(self) -> Option<&'a [u8]> {
        self.raw(USER_ID)
    }

    /// `app-id`: as the client says.
    pub fn app_id(self) -> Option<&'a [u8]> {
        self.raw(APP_ID)
    }

    /// `cluster-id`: deprecated, passed on.
    pub fn cluster_id(self) -> Option<&'a [u8]> {
        self.raw(CLUSTER_ID)
    }

    /// The value of one property, without its length; found by stepping over those in front.
    #[inline]
    fn raw(self, wanted: u32) -> Option<&'a [u8]> {
        if self.flags & (1 << wanted) == 0 {
            return None;
        }
        let mut reader = Reader::new(self.values);
        let mut in_front = self.flags & !(u16::MAX >> (15 - wanted));
        while in_front != 0 {
            let bit = in_front.ilog2();
            in_front &= !(1 << bit);
            read_raw(&mut reader, bit).expect("the properties were checked when parsed");
        }
        Some(read_raw(&mut reader, wanted).expect("the properties were checked when parsed"))
    }
}

impl fmt::Debug for BasicProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        PropertiesWriter::from(*self).fmt(f)
    }
}

/// Properties taken apart, to be changed and written anew. Absent ones are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PropertiesWriter<'a> {
    /// `content-type`
    pub content_type: Option<&'a [u8]>,
    /// `content-encoding`
    pub content_encoding: Option<&'a [u8]>,
    /// `headers`
    pub headers: Option<FieldTable<'a>>,
    /// `delivery-mode`
    pub delivery_mode: Option<u8>,
    /// `priority`
    pub priority: Option<u8>,
    /// `correlation-id`
    pub correlation_id: Option<&'a [u8]>,
    /// `reply-to`
    pub reply_to: Option<&'a [u8]>,
    /// `expiration`
    pub expiration: Option<&'a [u8]>,
    /// `message-id`
    pub message_id: Option<&'a [u8]>,
    /// `timestamp`
    pub timestamp: Option<u64>,
    /// `type`
    pub kind: Option<&'a [u8]>,
    /// `user-id`
    pub user_id: Option<&'a [u8]>,
    /// `app-id`
    pub app_id: Option<&'a [u8]>,
    /// `cluster-id`
    pub cluster_id: Option<&'a [u8]>,
}

impl<'a> From<BasicProperties<'a>> for PropertiesWriter<'a> {
    fn from(properties: BasicProperties<'a>) -> Self {
        PropertiesWriter {
            content_type: properties.content_type(),
            content_encoding: properties.content_encoding(),
            headers: properties.headers(),
            delivery_mode: properties.delivery_mode(),
            priority: properties.priority(),
            correlation_id: properties.correlation_id(),
            reply_to: properties.reply_to(),
            expiration: properties.expiration(),
            message_id: properties.message_id(),
            timestamp: properties.timestamp(),
            kind: properties.kind(),
            user_id: properties.user_id(),
            app_id: properties.app_id(),
            cluster_id: properties.cluster_id(),
        }
    }
}

impl PropertiesWriter<'_> {
    /// Appends flags and values.
    ///
    /// # Panics
    /// If a short string is longer than 255 bytes: what came from the wire never is.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0, 0]);
        let mut flags = 0_u16;
        let mut writer = Writer::new(out);
        let mut shortstr = |writer: &mut Writer<'_>, bit: u32, value: Option<&[u8]>| {
            if let Some(value) = value {
                flags |= 1 << bit;
                writer.shortstr(value);
            }
        };
        shortstr(&mut writer, CONTENT_TYPE, self.content_type);
        shortstr(&mut writer, CONTENT_ENCODING, self.content_encoding);
        if let Some(headers) = self.headers {
            writer.longstr(headers.as_bytes());
        }
        for octet in [self.delivery_mode, self.priority].into_iter().flatten() {
            writer.u8(octet);
        }
        shortstr(&mut writer, CORRELATION_ID, self.correlation_id);
        shortstr(&mut writer, REPLY_TO, self.reply_to);
        shortstr(&mut writer, EXPIRATION, self.expiration);
        shortstr(&mut writer, MESSAGE_ID, self.message_id);
        if let Some(timestamp) = self.timestamp {
            writer.u64(timestamp);
        }
        shortstr(&mut writer, KIND, self.kind);
        shortstr(&mut writer, USER_ID, self.user_id);
        shortstr(&mut writer, APP_ID, self.app_id);
        shortstr(&mut writer, CLUSTER_ID, self.cluster_id);
        for (bit, present) in [
            (HEADERS, self.headers.is_some()),
            (DELIVERY_MODE, self.delivery_mode.is_some()),
            (PRIORITY, self.priority.is_some()),
            (TIMESTAMP, self.timestamp.is_some()),
        ] {
            flags |= u16::from(present) << bit;
        }
        out[start..start + 2].copy_from_slice(&flags.to_be_bytes());
    }

    /// Flags and values in a buffer of their own.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes
    }
}

/// Takes the value that belongs to a flag, without its length.
#[inline]
fn read_raw<'a>(reader: &mut Reader<'a>, bit: u32) -> Result<&'a [u8], DecodeError> {
    match layout(bit) {
        Layout::ShortStr => reader.shortstr_bytes("property"),
        Layout::Table => reader.longstr("headers"),
        Layout::Octet => reader.take(1, "property"),
        Layout::LongLong => reader.take(8, "timestamp"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{FieldTableBuilder, FieldValue};

    /// Goal: each property sits under its own flag, in the specification's order. Method: the
    /// bytes of all fourteen, written out by hand.
    #[test]
    fn all_properties_in_wire_order() {
        let headers = FieldTableBuilder::new().with("h", FieldValue::U8(7)).build();
        let properties = PropertiesWriter {
            content_type: Some(b"ct"),
            content_encoding: Some(b"ce"),
            headers: Some(headers.as_ref()),
            delivery_mode: Some(2),
            priority: Some(9),
            correlation_id: Some(b"ci"),
            reply_to: Some(b"rt"),
            expiration: Some(b"60"),
            message_id: Some(b"mi"),
            timestamp: Some(1),
            kind: Some(b"ty"),
            user_id: Some(b"ui"),
            app_id: Some(b"ai"),
            cluster_id: Some(b"cl"),
        };
        let bytes = properties.to_bytes();
        let expected = b"\xff\xfc\x02ct\x02ce\x00\x00\x00\x04\x01hB\x07\x02\x09\x02ci\x02rt\x0260\
            \x02mi\x00\x00\x00\x00\x00\x00\x00\x01\x02ty\x02ui\x02ai\x02cl";
        assert_eq!(bytes, expected);
        let parsed = BasicProperties::parse(&bytes).expect("just written");
        assert_eq!(PropertiesWriter::from(parsed), properties);
        assert_eq!(parsed.timestamp(), Some(1));
        assert_eq!(parsed.cluster_id(), Some(&b"cl"[..]));
        for size in 0..bytes.len() {
            assert!(BasicProperties::parse(&bytes[..size]).is_err(), "cut at {size}");
        }
    }

    /// Goal: bits 1 and 0 are ignored, so a second word of flags is left over and refused.
    #[test]
    fn there_is_no_second_word_of_flags() {
        let one = BasicProperties::parse(&[0x10, 0x03, 2]).expect("the low bits mean nothing");
        assert_eq!(one.delivery_mode(), Some(2));
        assert_eq!(one.priority(), None);
        assert_eq!(BasicProperties::parse(&[0x10, 0x01, 0, 0, 2]), Err(DecodeError::TrailingBytes));
        assert_eq!(BasicProperties::parse(&[0, 0]).map(BasicProperties::is_empty), Ok(true));
        assert!(BasicProperties::parse(&[0]).is_err());
        assert_eq!(
            BasicProperties::parse(b"\x20\x00\x00\x00\x00\x04\x01kU\x00"),
            Err(DecodeError::UnknownFieldTag(b'U'))
        );
    }
}
