//! The methods of AMQP 0-9-1 as RabbitMQ speaks it, as one table, and their arguments.

use std::sync::OnceLock;

use crate::text::{Scanner, SyntaxError, print_string};
use crate::value::{Table, Wire, put_long_prefixed, put_shortstr};

/// `CLASS.METHOD NAME ARGUMENT:TYPE ...`; a `+` behind the name: a content follows.
const CATALOGUE: &str = "
10.10 connection.start version-major:octet version-minor:octet server-properties:table mechanisms:longstr locales:longstr
10.11 connection.start-ok client-properties:table mechanism:shortstr response:longstr locale:shortstr
10.20 connection.secure challenge:longstr
10.21 connection.secure-ok response:longstr
10.30 connection.tune channel-max:short frame-max:long heartbeat:short
10.31 connection.tune-ok channel-max:short frame-max:long heartbeat:short
10.40 connection.open virtual-host:shortstr capabilities:shortstr insist:bit
10.41 connection.open-ok known-hosts:shortstr
10.50 connection.close reply-code:short reply-text:shortstr class-id:short method-id:short
10.51 connection.close-ok
10.60 connection.blocked reason:shortstr
10.61 connection.unblocked
10.70 connection.update-secret new-secret:longstr reason:shortstr
10.71 connection.update-secret-ok
20.10 channel.open out-of-band:shortstr
20.11 channel.open-ok channel-id:longstr
20.20 channel.flow active:bit
20.21 channel.flow-ok active:bit
20.40 channel.close reply-code:short reply-text:shortstr class-id:short method-id:short
20.41 channel.close-ok
30.10 access.request realm:shortstr exclusive:bit passive:bit active:bit write:bit read:bit
30.11 access.request-ok ticket:short
40.10 exchange.declare ticket:short exchange:shortstr type:shortstr passive:bit durable:bit auto-delete:bit internal:bit nowait:bit arguments:table
40.11 exchange.declare-ok
40.20 exchange.delete ticket:short exchange:shortstr if-unused:bit nowait:bit
40.21 exchange.delete-ok
40.30 exchange.bind ticket:short destination:shortstr source:shortstr routing-key:shortstr nowait:bit arguments:table
40.31 exchange.bind-ok
40.40 exchange.unbind ticket:short destination:shortstr source:shortstr routing-key:shortstr nowait:bit arguments:table
40.51 exchange.unbind-ok
50.10 queue.declare ticket:short queue:shortstr passive:bit durable:bit exclusive:bit auto-delete:bit nowait:bit arguments:table
50.11 queue.declare-ok queue:shortstr message-count:long consumer-count:long
50.20 queue.bind ticket:short queue:shortstr exchange:shortstr routing-key:shortstr nowait:bit arguments:table
50.21 queue.bind-ok
50.30 queue.purge ticket:short queue:shortstr nowait:bit
50.31 queue.purge-ok message-count:long
50.40 queue.delete ticket:short queue:shortstr if-unused:bit if-empty:bit nowait:bit
50.41 queue.delete-ok message-count:long
50.50 queue.unbind ticket:short queue:shortstr exchange:shortstr routing-key:shortstr arguments:table
50.51 queue.unbind-ok
60.10 basic.qos prefetch-size:long prefetch-count:short global:bit
60.11 basic.qos-ok
60.20 basic.consume ticket:short queue:shortstr consumer-tag:shortstr no-local:bit no-ack:bit exclusive:bit nowait:bit arguments:table
60.21 basic.consume-ok consumer-tag:shortstr
60.30 basic.cancel consumer-tag:shortstr nowait:bit
60.31 basic.cancel-ok consumer-tag:shortstr
60.40 basic.publish+ ticket:short exchange:shortstr routing-key:shortstr mandatory:bit immediate:bit
60.50 basic.return+ reply-code:short reply-text:shortstr exchange:shortstr routing-key:shortstr
60.60 basic.deliver+ consumer-tag:shortstr delivery-tag:longlong redelivered:bit exchange:shortstr routing-key:shortstr
60.70 basic.get ticket:short queue:shortstr no-ack:bit
60.71 basic.get-ok+ delivery-tag:longlong redelivered:bit exchange:shortstr routing-key:shortstr message-count:long
60.72 basic.get-empty cluster-id:shortstr
60.80 basic.ack delivery-tag:longlong multiple:bit
60.90 basic.reject delivery-tag:longlong requeue:bit
60.100 basic.recover-async requeue:bit
60.110 basic.recover requeue:bit
60.111 basic.recover-ok
60.120 basic.nack delivery-tag:longlong multiple:bit requeue:bit
85.10 confirm.select nowait:bit
85.11 confirm.select-ok
90.10 tx.select
90.11 tx.select-ok
90.20 tx.commit
90.21 tx.commit-ok
90.30 tx.rollback
90.31 tx.rollback-ok
";

/// The properties of a content header, from the highest flag bit down.
const PROPERTIES: &str = "content-type:shortstr content-encoding:shortstr headers:table \
    delivery-mode:octet priority:octet correlation-id:shortstr reply-to:shortstr \
    expiration:shortstr message-id:shortstr timestamp:longlong type:shortstr user-id:shortstr \
    app-id:shortstr cluster-id:shortstr";

/// One method: its number, name and arguments in wire order.
pub(crate) struct Method {
    pub(crate) class: u16,
    pub(crate) id: u16,
    pub(crate) name: &'static str,
    pub(crate) has_content: bool,
    fields: Vec<Field>,
}

#[derive(Clone, Copy)]
struct Field {
    name: &'static str,
    kind: &'static str,
}

/// One argument as read: its name and its value in the notation.
#[derive(Clone, Debug)]
pub(crate) enum Argument {
    Bit(bool),
    Number(u64),
    Text(Vec<u8>),
    Table(Table),
}

/// Arguments by name; what is absent is zero, false or empty.
pub(crate) type Arguments = Vec<(String, Argument)>;

fn catalogue() -> &'static [Method] {
    static METHODS: OnceLock<Vec<Method>> = OnceLock::new();
    METHODS.get_or_init(|| CATALOGUE.trim().lines().map(parse_method).collect())
}

fn parse_method(line: &'static str) -> Method {
    let mut words = line.split(' ');
    let (class, id) = words.next().and_then(|id| id.split_once('.')).expect("ids come first");
    let name = words.next().expect("a name follows");
    Method {
        class: class.parse().expect("a number"),
        id: id.parse().expect("a number"),
        name: name.trim_end_matches('+'),
        has_content: name.ends_with('+'),
        fields: words.map(parse_field).collect(),
    }
}

fn parse_field(word: &'static str) -> Field {
    let (name, kind) = word.split_once(':').expect("name and type");
    Field { name, kind }
}

fn properties() -> impl Iterator<Item = Field> {
    PROPERTIES.split_ascii_whitespace().map(parse_field)
}

impl Method {
    pub(crate) fn named(name: &str) -> Option<&'static Method> {
        catalogue().iter().find(|method| method.name == name)
    }

    pub(crate) fn numbered(class: u16, id: u16) -> Option<&'static Method> {
        catalogue().iter().find(|method| (method.class, method.id) == (class, id))
    }

    /// `name=value` and bare bit names up to the end of the line. Names that are no arguments of
    /// the method are handed to `other`.
    pub(crate) fn scan(
        &self,
        scanner: &mut Scanner,
        mut other: impl FnMut(&str, &mut Scanner) -> Result<(), SyntaxError>,
    ) -> Result<Arguments, SyntaxError> {
        let mut arguments = Arguments::new();
        while !scanner.is_at_end() {
            let name = scanner.name();
            match self.fields.iter().find(|field| field.name == name) {
                Some(field) => arguments.push((name, scan_argument(field.kind, scanner)?)),
                None => other(&name, scanner)?,
            }
        }
        Ok(arguments)
    }

    /// The payload of a method frame.
    pub(crate) fn encode(&self, arguments: &Arguments) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.class.to_be_bytes());
        out.extend(self.id.to_be_bytes());
        let mut bits = 0; // how many of the last octet are taken
        for field in &self.fields {
            let argument = find(arguments, field.name);
            if field.kind == "bit" {
                if bits % 8 == 0 {
                    out.push(0);
                }
                let set = matches!(argument, Some(Argument::Bit(true)));
                *out.last_mut().expect("pushed above") |= u8::from(set) << (bits % 8);
                bits += 1;
            } else {
                bits = 0;
                put_argument(&mut out, field.kind, argument);
            }
        }
        out
    }

    /// What the payload of a method frame says behind the two ids, in the notation: false bits
    /// left out. `None`: the bytes do not fit the method.
    pub(crate) fn decode(&self, wire: &mut Wire) -> Option<Arguments> {
        let mut arguments = Arguments::new();
        let mut bits = None;
        for field in &self.fields {
            let argument = if field.kind == "bit" {
                let (octet, used) = bits.take().map_or_else(|| Some((wire.octet()?, 0)), Some)?;
                bits = (used < 7).then_some((octet, used + 1));
                Argument::Bit(octet >> used & 1 == 1)
            } else {
                bits = None;
                take_argument(field.kind, wire)?
            };
            arguments.push((field.name.to_owned(), argument));
        }
        wire.0.is_empty().then_some(arguments)
    }
}

/// The argument called `name`.
pub(crate) fn find<'a>(arguments: &'a Arguments, name: &str) -> Option<&'a Argument> {
    arguments.iter().find(|(key, _)| key == name).map(|(_, argument)| argument)
}

fn scan_argument(kind: &str, scanner: &mut Scanner) -> Result<Argument, SyntaxError> {
    if kind == "bit" {
        return Ok(Argument::Bit(true));
    }
    scanner.expect(b'=')?;
    if kind == "table" {
        return Table::scan(scanner).map(Argument::Table);
    }
    let text = scanner.string()?;
    if kind.ends_with("str") {
        return Ok(Argument::Text(text));
    }
    let number = String::from_utf8_lossy(&text).parse().ok().map(Argument::Number);
    number.map_or_else(|| scanner.error("number expected"), Ok)
}

fn put_argument(out: &mut Vec<u8>, kind: &str, argument: Option<&Argument>) {
    let number = if let Some(Argument::Number(number)) = argument { *number } else { 0 };
    let text = if let Some(Argument::Text(text)) = argument { text.as_slice() } else { &[] };
    match kind {
        "octet" => out.extend(&number.to_be_bytes()[7..]),
        "short" => out.extend(&number.to_be_bytes()[6..]),
        "long" => out.extend(&number.to_be_bytes()[4..]),
        "longlong" => out.extend(number.to_be_bytes()),
        "shortstr" => put_shortstr(out, text),
        "longstr" => put_long_prefixed(out, |out| out.extend(text)),
        "table" => match argument {
            Some(Argument::Table(table)) => table.put(out),
            _ => Table::default().put(out),
        },
        other => unreachable!("the catalogue knows no type {other}"),
    }
}

fn take_argument(kind: &str, wire: &mut Wire) -> Option<Argument> {
    Some(match kind {
        "octet" => Argument::Number(wire.octet()?.into()),
        "short" => Argument::Number(wire.short()?.into()),
        "long" => Argument::Number(wire.long()?.into()),
        "longlong" => Argument::Number(wire.longlong()?),
        "shortstr" => Argument::Text(wire.shortstr()?.to_vec()),
        "longstr" => Argument::Text(wire.longstr()?.to_vec()),
        "table" => Argument::Table(wire.table()?),
        other => unreachable!("the catalogue knows no type {other}"),
    })
}

/// `name=value name=value`, false bits left out.
pub(crate) fn print_arguments(arguments: &Arguments) -> String {
    let mut out = String::new();
    for (name, argument) in arguments {
        let value = match argument {
            Argument::Bit(false) => continue,
            Argument::Bit(true) => String::new(),
            Argument::Number(number) => format!("={number}"),
            Argument::Text(text) => format!("={}", print_string(text)),
            Argument::Table(table) => format!("={}", table.print()),
        };
        out.extend([" ", name, &value]);
    }
    out
}

/// `{name=value, ...}` of properties, as flags and values.
pub(crate) fn scan_properties(scanner: &mut Scanner) -> Result<Vec<u8>, SyntaxError> {
    let mut given = Arguments::new();
    scanner.expect(b'{')?;
    loop {
        scanner.skip_spaces();
        if scanner.accept(b'}') {
            break;
        }
        let name = scanner.name();
        let Some(field) = properties().find(|field| field.name == name) else {
            return scanner.error("no such property");
        };
        given.push((name, scan_argument(field.kind, scanner)?));
        scanner.skip_spaces();
        scanner.accept(b',');
    }
    let mut flags = 0_u16;
    let mut values = Vec::new();
    for (index, field) in properties().enumerate() {
        if let Some(argument) = find(&given, field.name) {
            flags |= 1 << (15 - index);
            put_argument(&mut values, field.kind, Some(argument));
        }
    }
    let mut out = flags.to_be_bytes().to_vec();
    out.extend(values);
    Ok(out)
}

/// Flags and values back to ` props={...}`; nothing when none is set.
pub(crate) fn print_properties(bytes: &[u8]) -> String {
    let mut wire = Wire(bytes);
    let mut decode = || {
        let flags = wire.short()?;
        let mut given = Arguments::new();
        for (index, field) in properties().enumerate() {
            if flags >> (15 - index) & 1 == 1 {
                given.push((field.name.to_owned(), take_argument(field.kind, &mut wire)?));
            }
        }
        wire.0.is_empty().then_some(given)
    };
    let Some(given) = decode() else {
        return format!(" props-undecodable={}", print_string(bytes));
    };
    if given.is_empty() {
        return String::new();
    }
    let entries: Vec<_> = given
        .iter()
        .map(|entry| print_arguments(&vec![entry.clone()]).trim_start().to_owned())
        .collect();
    format!(" props={{{}}}", entries.join(", "))
}
