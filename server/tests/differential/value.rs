//! Field values and tables: wire bytes and notation, both ways.
//!
//! In the notation a value is its wire tag, a colon and a literal: `I:5`, `S:"two words"`, `t:1`,
//! `V`, `A:[I:1, S:x]`, `F:{key=I:1}`, `D:2/314` (scale, value). This codec shares no code with the
//! broker's, so that a mistake in one shows up against the other.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::text::{Scanner, SyntaxError, print_string};

/// A field table, in wire order, duplicates kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Table(pub(crate) Vec<(Vec<u8>, Value)>);

/// A field value with the tag it has on the wire.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// `t`, and the byte as it came.
    Bool(u8),
    /// `b B s u I i l L`.
    Int(u8, i64),
    /// `f d`.
    Float(u8, f64),
    /// `D`: scale and value.
    Decimal(u8, u32),
    /// `S x`.
    Bytes(u8, Vec<u8>),
    /// `A`.
    Array(Vec<Value>),
    /// `F`.
    Table(Table),
    /// `T`: seconds since 1970.
    Time(u64),
    /// `V`.
    Void,
}

/// Takes values off the front of wire bytes. `None`: they are not what they should be.
pub(crate) struct Wire<'a>(pub(crate) &'a [u8]);

impl<'a> Wire<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn octet(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn short(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn long(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn longlong(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn shortstr(&mut self) -> Option<&'a [u8]> {
        let len = self.octet()?;
        self.take(usize::from(len))
    }

    pub(crate) fn longstr(&mut self) -> Option<&'a [u8]> {
        let len = self.long()?;
        self.take(usize::try_from(len).ok()?)
    }

    pub(crate) fn table(&mut self) -> Option<Table> {
        let mut inner = Wire(self.longstr()?);
        let mut table = Table::default();
        while !inner.0.is_empty() {
            let key = inner.shortstr()?.to_vec();
            table.0.push((key, inner.value()?));
        }
        Some(table)
    }

    fn value(&mut self) -> Option<Value> {
        let tag = self.octet()?;
        Some(match tag {
            b't' => Value::Bool(self.octet()?),
            b'b' => Value::Int(tag, self.array().map(i8::from_be_bytes)?.into()),
            b'B' => Value::Int(tag, self.octet()?.into()),
            b's' => Value::Int(tag, self.array().map(i16::from_be_bytes)?.into()),
            b'u' => Value::Int(tag, self.short()?.into()),
            b'I' => Value::Int(tag, self.array().map(i32::from_be_bytes)?.into()),
            b'i' => Value::Int(tag, self.long()?.into()),
            b'l' | b'L' => Value::Int(tag, self.array().map(i64::from_be_bytes)?),
            b'f' => Value::Float(tag, self.array().map(f32::from_be_bytes)?.into()),
            b'd' => Value::Float(tag, self.array().map(f64::from_be_bytes)?),
            b'D' => Value::Decimal(self.octet()?, self.long()?),
            b'S' | b'x' => Value::Bytes(tag, self.longstr()?.to_vec()),
            b'A' => {
                let mut inner = Wire(self.longstr()?);
                let mut values = Vec::new();
                while !inner.0.is_empty() {
                    values.push(inner.value()?);
                }
                Value::Array(values)
            }
            b'F' => Value::Table(self.table()?),
            b'T' => Value::Time(self.longlong()?),
            b'V' => Value::Void,
            _ => return None,
        })
    }
}

/// Appends the length of what `fill` writes, as u32, and then that.
pub(crate) fn put_long_prefixed(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 4]);
    fill(out);
    let len = u32::try_from(out.len() - start - 4).expect("row files hold no 4 GiB strings");
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

pub(crate) fn put_shortstr(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(u8::try_from(bytes.len()).expect("a shortstr of a row file is under 256 bytes"));
    out.extend(bytes);
}

impl Table {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_long_prefixed(out, |out| {
            for (key, value) in &self.0 {
                put_shortstr(out, key);
                value.put(out);
            }
        });
    }

    /// `{key=VALUE, ...}`
    pub(crate) fn scan(scanner: &mut Scanner) -> Result<Table, SyntaxError> {
        let mut table = Table::default();
        scanner.expect(b'{')?;
        loop {
            scanner.skip_spaces();
            if scanner.accept(b'}') {
                return Ok(table);
            }
            let key = if scanner.peek() == Some(b'"') {
                scanner.string()?
            } else {
                scanner.name().into()
            };
            scanner.expect(b'=')?;
            table.0.push((key, Value::scan(scanner)?));
            scanner.skip_spaces();
            scanner.accept(b',');
        }
    }

    pub(crate) fn print(&self) -> String {
        let entries = self.0.iter().map(|(key, value)| {
            let key = String::from_utf8_lossy(key);
            format!("{key}={}", value.print())
        });
        format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
    }
}

impl Value {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(self.tag());
        match self {
            Value::Bool(byte) => out.push(*byte),
            Value::Int(tag, int) => {
                let width = match tag {
                    b'b' | b'B' => 1,
                    b's' | b'u' => 2,
                    b'I' | b'i' => 4,
                    _ => 8,
                };
                out.extend(&int.to_be_bytes()[8 - width..]);
            }
            #[expect(clippy::cast_possible_truncation, reason = "an `f` holds an f32's digits")]
            Value::Float(b'f', float) => out.extend((*float as f32).to_be_bytes()),
            Value::Float(_, float) => out.extend(float.to_be_bytes()),
            Value::Decimal(scale, value) => {
                out.push(*scale);
                out.extend(value.to_be_bytes());
            }
            Value::Bytes(_, bytes) => put_long_prefixed(out, |out| out.extend(bytes)),
            Value::Array(values) => {
                put_long_prefixed(out, |out| values.iter().for_each(|value| value.put(out)));
            }
            Value::Table(table) => table.put(out),
            Value::Time(seconds) => out.extend(seconds.to_be_bytes()),
            Value::Void => {}
        }
    }

    fn tag(&self) -> u8 {
        match self {
            Value::Bool(_) => b't',
            Value::Int(tag, _) | Value::Float(tag, _) | Value::Bytes(tag, _) => *tag,
            Value::Decimal(..) => b'D',
            Value::Array(_) => b'A',
            Value::Table(_) => b'F',
            Value::Time(_) => b'T',
            Value::Void => b'V',
        }
    }

    fn scan(scanner: &mut Scanner) -> Result<Value, SyntaxError> {
        let Some(tag) = scanner.peek() else { return scanner.error("value expected") };
        scanner.expect(tag)?;
        if tag == b'V' {
            return Ok(Value::Void);
        }
        scanner.expect(b':')?;
        match tag {
            b'F' => return Table::scan(scanner).map(Value::Table),
            b'A' => return Value::scan_array(scanner),
            b'S' | b'x' => return Ok(Value::Bytes(tag, scanner.string()?)),
            _ => {}
        }
        let literal = String::from_utf8_lossy(&scanner.string()?).into_owned();
        let value = match tag {
            b't' => literal.parse().ok().map(Value::Bool),
            b'T' => literal.parse().ok().map(Value::Time),
            b'f' | b'd' => literal.parse().ok().map(|float| Value::Float(tag, float)),
            b'D' => literal.split_once('/').and_then(|(scale, value)| {
                Some(Value::Decimal(scale.parse().ok()?, value.parse().ok()?))
            }),
            b'b' | b'B' | b's' | b'u' | b'I' | b'i' | b'l' | b'L' => {
                literal.parse().ok().map(|int| Value::Int(tag, int))
            }
            _ => None,
        };
        value.map_or_else(|| scanner.error("value not understood"), Ok)
    }

    fn scan_array(scanner: &mut Scanner) -> Result<Value, SyntaxError> {
        let mut values = Vec::new();
        scanner.expect(b'[')?;
        loop {
            scanner.skip_spaces();
            if scanner.accept(b']') {
                return Ok(Value::Array(values));
            }
            values.push(Value::scan(scanner)?);
            scanner.skip_spaces();
            scanner.accept(b',');
        }
    }

    fn print(&self) -> String {
        let tag = char::from(self.tag());
        match self {
            Value::Bool(byte) => format!("t:{byte}"),
            Value::Int(_, int) => format!("{tag}:{int}"),
            Value::Float(_, float) => format!("{tag}:{float}"),
            Value::Decimal(scale, value) => format!("D:{scale}/{value}"),
            Value::Bytes(_, bytes) => format!("{tag}:{}", print_string(bytes)),
            Value::Array(values) => {
                let values: Vec<_> = values.iter().map(Value::print).collect();
                format!("A:[{}]", values.join(", "))
            }
            Value::Table(table) => format!("F:{}", table.print()),
            Value::Time(seconds) if is_recent(*seconds) => "T:now".to_owned(),
            Value::Time(seconds) => format!("T:{seconds}"),
            Value::Void => "V".to_owned(),
        }
    }
}

/// The broker stamps x-death with its clock; a recording can only say "about now".
fn is_recent(seconds: u64) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    now.abs_diff(seconds) < 60 * 60
}
