//! Reading and writing the elementary types of AMQP: integers, strings, packed bits, tables.
//!
//! A [`Reader`] cannot run past its end, and every failure names the field it was reading. A
//! [`Writer`] appends to a buffer. Both pack consecutive bits into octets by themselves, so a
//! method is nothing but the list of its arguments. All integers are big-endian.

use std::fmt;

use crate::constants::SHORTSTR_SIZE_MAX;
use crate::field::FieldTable;

/// Why bytes from the peer are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end inside this field.
    Truncated(&'static str),
    /// Bytes are left over behind the last field.
    TrailingBytes,
    /// This short string is not UTF-8.
    InvalidUtf8(&'static str),
    /// A field table holds a type tag nobody defined.
    UnknownFieldTag(u8),
    /// A field table nests deeper than [`FIELD_DEPTH_MAX`](crate::constants::FIELD_DEPTH_MAX).
    TooDeep,
    /// A field table is larger than
    /// [`FIELD_TABLE_SIZE_MAX`](crate::constants::FIELD_TABLE_SIZE_MAX).
    TableTooLarge,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Truncated(field) => write!(f, "the bytes end inside {field}"),
            DecodeError::TrailingBytes => write!(f, "bytes are left over behind the last field"),
            DecodeError::InvalidUtf8(field) => write!(f, "{field} is not UTF-8"),
            DecodeError::UnknownFieldTag(tag) => write!(f, "unknown field type tag {tag:#04x}"),
            DecodeError::TooDeep => write!(f, "a field table nests too deep"),
            DecodeError::TableTooLarge => write!(f, "a field table is too large"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Takes values off the front of a byte slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// The bits of the octet being unpacked, the next one lowest.
    bits: u8,
    /// How many of `bits` are still to be taken; any other read drops them.
    bits_left: u8,
}

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes, bits: 0, bits_left: 0 }
    }

    /// What has not been read yet.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes `size` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] with the name `field`, as for all reads.
    #[inline]
    pub fn take(&mut self, size: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        self.bits_left = 0;
        let Some((taken, rest)) = self.rest.split_at_checked(size) else {
            return Err(DecodeError::Truncated(field));
        };
        self.rest = rest;
        Ok(taken)
    }

    /// Takes a fixed number of bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    #[inline]
    pub fn take_array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        self.bits_left = 0;
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Truncated(field));
        };
        self.rest = rest;
        Ok(*taken)
    }

    /// Takes the next bit. The first of a run opens an octet and is its lowest.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    #[inline]
    pub fn bit(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        if self.bits_left == 0 {
            let [octet] = self.take_array(field)?;
            self.bits = octet;
            self.bits_left = 8;
        }
        let bit = self.bits & 1 != 0;
        self.bits >>= 1;
        self.bits_left -= 1;
        Ok(bit)
    }

    /// Takes an octet.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    #[inline]
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.take_array(field).map(u8::from_be_bytes)
    }

    /// Takes a short: two bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    #[inline]
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.take_array(field).map(u16::from_be_bytes)
    }

    /// Takes a long: four bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    #[inline]
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.take_array(field).map(u32::from_be_bytes)
    }

    /// Takes a longlong: eight bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    #[inline]
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.take_array(field).map(u64::from_be_bytes)
    }

    /// Takes a short string, one length octet and up to 255 bytes, without looking inside.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    #[inline]
    pub fn shortstr_bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let size = self.u8(field)?;
        self.take(usize::from(size), field)
    }

    /// Takes a short string that must be UTF-8.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] or [`DecodeError::InvalidUtf8`].
    #[inline]
    pub fn shortstr(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let bytes = self.shortstr_bytes(field)?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::InvalidUtf8(field))
    }

    /// Takes a long string: four length octets and any bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    #[inline]
    pub fn longstr(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let size = self.u32(field)?;
        let size = usize::try_from(size).map_err(|_| DecodeError::Truncated(field))?;
        self.take(size, field)
    }

    /// Takes a field table and checks all of it.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], or whatever is wrong inside the table.
    #[inline]
    pub fn table(&mut self, field: &'static str) -> Result<FieldTable<'a>, DecodeError> {
        FieldTable::parse(self.longstr(field)?)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`] if something is left.
    #[inline]
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }
}

/// Appends values to a buffer.
#[derive(Debug)]
pub struct Writer<'o> {
    out: &'o mut Vec<u8>,
    /// How many bits of the last octet are taken; 0: the next bit opens a new one.
    bits: u8,
}

impl<'o> Writer<'o> {
    /// Appends to what `out` holds.
    #[inline]
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        Writer { out, bits: 0 }
    }

    /// Appends raw bytes.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bits = 0;
        self.out.extend_from_slice(bytes);
    }

    /// Appends a bit. The first of a run opens an octet and is its lowest.
    #[inline]
    pub fn bit(&mut self, bit: bool) {
        if self.bits == 0 {
            self.out.push(u8::from(bit));
        } else {
            let octet = self.out.last_mut().expect("the first bit of the run pushed its octet");
            *octet |= u8::from(bit) << self.bits;
        }
        self.bits = (self.bits + 1) % 8;
    }

    /// Appends an octet.
    #[inline]
    pub fn u8(&mut self, value: u8) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends a short: two bytes.
    #[inline]
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends a long: four bytes.
    #[inline]
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends a longlong: eight bytes.
    #[inline]
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends a short string.
    ///
    /// # Panics
    /// If `value` is longer than 255 bytes: ours to prevent, it never comes from the wire so.
    #[inline]
    pub fn shortstr(&mut self, value: &[u8]) {
        let size = u8::try_from(value.len()).expect("a short string is at most 255 bytes");
        const { assert!(SHORTSTR_SIZE_MAX == u8::MAX as usize, "the length is one octet") };
        self.u8(size);
        self.bytes(value);
    }

    /// Appends a long string.
    ///
    /// # Panics
    /// If `value` is longer than 4 GiB.
    #[inline]
    pub fn longstr(&mut self, value: &[u8]) {
        let size = u32::try_from(value.len()).expect("a long string is under 4 GiB");
        self.u32(size);
        self.bytes(value);
    }
}

/// A type that may stand in a method's argument list.
pub(crate) trait Argument<'a>: Sized {
    /// The specification's name of the type.
    #[cfg(test)]
    const WIRE_TYPE: &'static str;

    /// Takes the argument called `field` off the front of `reader`.
    fn read(reader: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError>;

    /// Appends the argument.
    fn write(&self, writer: &mut Writer<'_>);

    /// Appends what a reserved argument of this type is sent as.
    fn write_reserved(writer: &mut Writer<'_>);
}

macro_rules! argument {
    ($lifetime:lifetime $type:ty, $wire:literal, $read:ident, $reserved:expr,
     |$writer:ident, $value:ident| $write:expr) => {
        impl<$lifetime> Argument<$lifetime> for $type {
            #[cfg(test)]
            const WIRE_TYPE: &'static str = $wire;

            #[inline]
            fn read(
                reader: &mut Reader<$lifetime>,
                field: &'static str,
            ) -> Result<Self, DecodeError> {
                reader.$read(field)
            }

            #[inline]
            fn write(&self, $writer: &mut Writer<'_>) {
                let $value = *self;
                $write;
            }

            #[inline]
            fn write_reserved(writer: &mut Writer<'_>) {
                let reserved: $type = $reserved;
                reserved.write(writer);
            }
        }
    };
}

argument!('a bool, "bit", bit, false, |writer, value| writer.bit(value));
argument!('a u8, "octet", u8, 0, |writer, value| writer.u8(value));
argument!('a u16, "short", u16, 0, |writer, value| writer.u16(value));
argument!('a u32, "long", u32, 0, |writer, value| writer.u32(value));
argument!('a u64, "longlong", u64, 0, |writer, value| writer.u64(value));
argument!('a &'a str, "shortstr", shortstr, "", |writer, value| writer.shortstr(value.as_bytes()));
argument!('a &'a [u8], "longstr", longstr, &[], |writer, value| writer.longstr(value));
argument!('a FieldTable<'a>, "table", table, FieldTable::EMPTY,
    |writer, value| writer.longstr(value.as_bytes()));
