//! Every method of AMQP 0-9-1 with RabbitMQ's extensions, both directions, as one table.
//!
//! A row of the table at the end of this file is everything there is to know about a method: its
//! ids, names, who sends it, and its arguments in wire order. From it come the structs, the
//! [`Method`] enum, decoding and encoding. Consecutive bits share octets; [`crate::wire`] packs
//! them. What `skip(..)` names is reserved: read past, and sent as zero or empty.
//!
//! `basic.publish` is in the table like any other, but the hot path never decodes it: see
//! [`Publish`](crate::content::Publish).

use std::fmt;

use crate::constants::{FRAME_END, FRAME_METHOD};
use crate::error::{BadArguments, ProtocolError};
use crate::field::FieldTable;
use crate::wire::{Argument, DecodeError, Reader, Writer};

/// The two numbers that name a method on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MethodId {
    /// The class: 10 connection, 20 channel, 30 access, 40 exchange, 50 queue, 60 basic,
    /// 85 confirm, 90 tx.
    pub class: u16,
    /// The method within its class.
    pub method: u16,
}

impl MethodId {
    /// What a close carries when no method is to blame.
    pub const NONE: MethodId = MethodId { class: 0, method: 0 };
}

/// The name where there is one, else the numbers.
impl fmt::Display for MethodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "[{},{}]", self.class, self.method),
        }
    }
}

impl fmt::Debug for MethodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Who sends a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Only clients.
    Client,
    /// Only the server; from a client it is answered 503.
    Server,
    /// Either side.
    Both,
}

/// What the table says about one method; the tests hold it against the specification.
#[cfg(test)]
struct MethodFacts {
    id: MethodId,
    name: &'static str,
    /// Wire types.
    reserved_before: &'static [&'static str],
    /// Names and wire types.
    arguments: &'static [(&'static str, &'static str)],
    /// Wire types.
    reserved_behind: &'static [&'static str],
}

macro_rules! methods {
    ($(
        $(#[doc = $doc:literal])*
        $class:literal $method:literal $constant:ident $name:ident $wire_name:literal
        $sender:ident $(skip($($before:ty),*))?
        $(<$($lifetime:lifetime)?> {
            $($(#[doc = $field_doc:literal])* $field:ident : $type:ty,)*
        })?
        $(then skip($($behind:ty),*))?;
    )*) => {
        impl MethodId {
            $(
                #[doc = concat!("`", $wire_name, "`")]
                pub const $constant: MethodId = MethodId { class: $class, method: $method };
            )*

            /// The specification's name, such as `queue.declare`.
            pub const fn name(self) -> Option<&'static str> {
                match (self.class, self.method) {
                    $(($class, $method) => Some($wire_name),)*
                    _ => None,
                }
            }

            /// Who sends this method, if it exists.
            pub const fn sender(self) -> Option<Sender> {
                match (self.class, self.method) {
                    $(($class, $method) => Some(Sender::$sender),)*
                    _ => None,
                }
            }
        }

        $($(
            #[doc = concat!("The arguments of `", $wire_name, "`.")]
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $name<$($lifetime)?> {
                $($(#[doc = $field_doc])* pub $field: $type,)*
            }
        )?)*

        /// A method, its arguments borrowed from the frame it came in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Method<'a> {
            $($(#[doc = $doc])* $name $(($name<$($lifetime)?>))?,)*
        }

        impl<'a> Method<'a> {
            /// The ids of this method.
            pub const fn id(&self) -> MethodId {
                match self {
                    $(Method::$name $(($name::<$($lifetime)?> { .. }))? => MethodId::$constant,)*
                }
            }

            fn decode_arguments(
                id: MethodId,
                reader: &mut Reader<'a>,
            ) -> Result<Option<Method<'a>>, DecodeError> {
                Ok(Some(match (id.class, id.method) {
                    $(($class, $method) => {
                        $($(<$before as Argument>::read(reader, "reserved")?;)*)?
                        let method = Method::$name $(($name {
                            $($field: Argument::read(reader, stringify!($field))?,)*
                        }))?;
                        $($(<$behind as Argument>::read(reader, "reserved")?;)*)?
                        method
                    })*
                    _ => return Ok(None),
                }))
            }

            /// The table, for the tests.
            #[cfg(test)]
            fn facts() -> Vec<MethodFacts> {
                vec![$(MethodFacts {
                    id: MethodId::$constant,
                    name: $wire_name,
                    reserved_before: &[$($(<$before>::WIRE_TYPE),*)?],
                    arguments: &[$($((stringify!($field), <$type>::WIRE_TYPE)),*)?],
                    reserved_behind: &[$($(<$behind>::WIRE_TYPE),*)?],
                }),*]
            }

            fn encode_arguments(&self, writer: &mut Writer<'_>) {
                match self {
                    $(Method::$name $(($name { $($field),* }))? => {
                        $($(<$before>::write_reserved(writer);)*)?
                        $($($field.write(writer);)*)?
                        $($(<$behind>::write_reserved(writer);)*)?
                    })*
                }
            }
        }
    };
}

impl<'a> Method<'a> {
    /// Decodes the payload of a method frame, all of it.
    ///
    /// # Errors
    /// The peer's fault: 503 for ids nobody defined, 501 for anything wrong with the arguments.
    pub fn decode(payload: &'a [u8]) -> Result<Method<'a>, ProtocolError> {
        let mut reader = Reader::new(payload);
        let id =
            read_id(&mut reader).map_err(|cause| cannot_decode(MethodId::NONE, payload, cause))?;
        let arguments = reader.rest();
        let method = Method::decode_arguments(id, &mut reader)
            .map_err(|cause| cannot_decode(id, arguments, cause))?
            .ok_or(ProtocolError::UnimplementedMethod(id))?;
        reader.finish().map_err(|cause| cannot_decode(id, arguments, cause))?;
        Ok(method)
    }

    /// Appends this method as a whole frame.
    ///
    /// # Panics
    /// If a short string is longer than 255 bytes: what came from the wire never is.
    pub fn encode(&self, channel: u16, out: &mut Vec<u8>) {
        let [channel_high, channel_low] = channel.to_be_bytes();
        let id = self.id();
        let start = out.len();
        out.extend_from_slice(&[FRAME_METHOD, channel_high, channel_low, 0, 0, 0, 0]);
        let payload = out.len();
        let mut writer = Writer::new(out);
        writer.u16(id.class);
        writer.u16(id.method);
        self.encode_arguments(&mut writer);
        let size = u32::try_from(out.len() - payload).expect("a method is far under 4 GiB");
        out[start + 3..payload].copy_from_slice(&size.to_be_bytes());
        out.push(FRAME_END);
    }
}

fn read_id(reader: &mut Reader<'_>) -> Result<MethodId, DecodeError> {
    Ok(MethodId { class: reader.u16("class id")?, method: reader.u16("method id")? })
}

#[cold]
pub(crate) fn cannot_decode(
    method: MethodId,
    arguments: &[u8],
    cause: DecodeError,
) -> ProtocolError {
    if let DecodeError::InvalidUtf8(_) = cause {
        return ProtocolError::InvalidUtf8;
    }
    ProtocolError::CannotDecode { method, arguments: BadArguments::new(arguments), cause }
}

methods! {
    /// Opens the handshake: what the server is and how one may log in.
    10 10 CONNECTION_START ConnectionStart "connection.start" Server <'a> {
        /// 0
        version_major: u8,
        /// 9
        version_minor: u8,
        /// Who the server is and what it can.
        server_properties: FieldTable<'a>,
        /// Separated by single spaces.
        mechanisms: &'a [u8],
        /// Separated by single spaces.
        locales: &'a [u8],
    };
    /// Chooses a mechanism and logs in.
    10 11 CONNECTION_START_OK ConnectionStartOk "connection.start-ok" Client <'a> {
        /// Who the client is and what it can.
        client_properties: FieldTable<'a>,
        /// One of those offered.
        mechanism: &'a str,
        /// The mechanism's first message; it holds the password.
        response: &'a [u8],
        /// Ignored.
        locale: &'a str,
    };
    /// Asks for another round of the login.
    10 20 CONNECTION_SECURE ConnectionSecure "connection.secure" Server <'a> {
        /// The mechanism's next message.
        challenge: &'a [u8],
    };
    /// Answers a challenge.
    10 21 CONNECTION_SECURE_OK ConnectionSecureOk "connection.secure-ok" Client <'a> {
        /// The mechanism's next message.
        response: &'a [u8],
    };
    /// Offers limits.
    10 30 CONNECTION_TUNE ConnectionTune "connection.tune" Server <> {
        /// How many channels may be open at once; 0: no limit.
        channel_max: u16,
        /// The largest frame, its overhead included, in bytes; 0: no limit.
        frame_max: u32,
        /// Seconds between heartbeats; 0: none.
        heartbeat: u16,
    };
    /// Settles the limits.
    10 31 CONNECTION_TUNE_OK ConnectionTuneOk "connection.tune-ok" Client <> {
        /// At most what was offered.
        channel_max: u16,
        /// At most what was offered.
        frame_max: u32,
        /// Any; it holds for both directions.
        heartbeat: u16,
    };
    /// Enters a virtual host.
    10 40 CONNECTION_OPEN ConnectionOpen "connection.open" Client <'a> {
        /// Looked up literally.
        virtual_host: &'a str,
    } then skip(&'a str, bool);
    /// The connection may be used.
    10 41 CONNECTION_OPEN_OK ConnectionOpenOk "connection.open-ok" Server skip(&'a str);
    /// Ends the connection.
    10 50 CONNECTION_CLOSE ConnectionClose "connection.close" Both <'a> {
        /// Why; see [`ReplyCode`](crate::reply::ReplyCode).
        reply_code: u16,
        /// Why, in words.
        reply_text: &'a str,
        /// The class of the method to blame, or 0.
        class_id: u16,
        /// The method to blame, or 0.
        method_id: u16,
    };
    /// The other side knows.
    10 51 CONNECTION_CLOSE_OK ConnectionCloseOk "connection.close-ok" Both;
    /// The broker takes no messages for now.
    10 60 CONNECTION_BLOCKED ConnectionBlocked "connection.blocked" Server <'a> {
        /// Which resource is low.
        reason: &'a str,
    };
    /// The broker takes messages again.
    10 61 CONNECTION_UNBLOCKED ConnectionUnblocked "connection.unblocked" Server;
    /// Replaces the credentials of a running connection.
    10 70 CONNECTION_UPDATE_SECRET ConnectionUpdateSecret "connection.update-secret" Client <'a> {
        /// The new credential.
        new_secret: &'a [u8],
        /// Why, in words.
        reason: &'a str,
    };
    /// The new credentials count.
    10 71 CONNECTION_UPDATE_SECRET_OK ConnectionUpdateSecretOk "connection.update-secret-ok" Server;

    /// Opens a channel.
    20 10 CHANNEL_OPEN ChannelOpen "channel.open" Client skip(&'a str);
    /// The channel may be used.
    20 11 CHANNEL_OPEN_OK ChannelOpenOk "channel.open-ok" Server skip(&'a [u8]);
    /// Asks the other side to stop or go on sending content.
    20 20 CHANNEL_FLOW ChannelFlow "channel.flow" Both <> {
        /// Go on.
        active: bool,
    };
    /// Confirms a flow request.
    20 21 CHANNEL_FLOW_OK ChannelFlowOk "channel.flow-ok" Both <> {
        /// As asked.
        active: bool,
    };
    /// Ends a channel.
    20 40 CHANNEL_CLOSE ChannelClose "channel.close" Both <'a> {
        /// Why; see [`ReplyCode`](crate::reply::ReplyCode).
        reply_code: u16,
        /// Why, in words.
        reply_text: &'a str,
        /// The class of the method to blame, or 0.
        class_id: u16,
        /// The method to blame, or 0.
        method_id: u16,
    };
    /// The other side knows; the number is free again.
    20 41 CHANNEL_CLOSE_OK ChannelCloseOk "channel.close-ok" Both;

    /// Asks for a ticket, which older clients send along and everybody ignores.
    30 10 ACCESS_REQUEST AccessRequest "access.request" Client <'a> {
        /// Ignored.
        realm: &'a str,
        /// Ignored.
        exclusive: bool,
        /// Ignored.
        passive: bool,
        /// Ignored.
        active: bool,
        /// Ignored.
        write: bool,
        /// Ignored.
        read: bool,
    };
    /// Grants a ticket.
    30 11 ACCESS_REQUEST_OK AccessRequestOk "access.request-ok" Server <> {
        /// Any number; 1.
        ticket: u16,
    };

    /// Creates an exchange, or checks one.
    40 10 EXCHANGE_DECLARE ExchangeDeclare "exchange.declare" Client skip(u16) <'a> {
        /// Its name.
        exchange: &'a str,
        /// Its type.
        kind: &'a str,
        /// Check only.
        passive: bool,
        /// Outlives a restart.
        durable: bool,
        /// Goes with its last binding.
        auto_delete: bool,
        /// Takes messages from other exchanges only.
        internal: bool,
        /// Send no answer.
        no_wait: bool,
        /// Type-specific.
        arguments: FieldTable<'a>,
    };
    /// The exchange is there.
    40 11 EXCHANGE_DECLARE_OK ExchangeDeclareOk "exchange.declare-ok" Server;
    /// Deletes an exchange.
    40 20 EXCHANGE_DELETE ExchangeDelete "exchange.delete" Client skip(u16) <'a> {
        /// Its name.
        exchange: &'a str,
        /// Only without bindings.
        if_unused: bool,
        /// Send no answer.
        no_wait: bool,
    };
    /// The exchange is gone.
    40 21 EXCHANGE_DELETE_OK ExchangeDeleteOk "exchange.delete-ok" Server;
    /// Binds an exchange to an exchange.
    40 30 EXCHANGE_BIND ExchangeBind "exchange.bind" Client skip(u16) <'a> {
        /// Takes the messages.
        destination: &'a str,
        /// Routes the messages.
        source: &'a str,
        /// As the source's type has it.
        routing_key: &'a str,
        /// Send no answer.
        no_wait: bool,
        /// As the source's type has it.
        arguments: FieldTable<'a>,
    };
    /// The binding is there.
    40 31 EXCHANGE_BIND_OK ExchangeBindOk "exchange.bind-ok" Server;
    /// Removes a binding between exchanges.
    40 40 EXCHANGE_UNBIND ExchangeUnbind "exchange.unbind" Client skip(u16) <'a> {
        /// As it was bound.
        destination: &'a str,
        /// As it was bound.
        source: &'a str,
        /// As it was bound.
        routing_key: &'a str,
        /// Send no answer.
        no_wait: bool,
        /// As it was bound.
        arguments: FieldTable<'a>,
    };
    /// The binding is gone. Its id is 51, as RabbitMQ has it, not 41.
    40 51 EXCHANGE_UNBIND_OK ExchangeUnbindOk "exchange.unbind-ok" Server;

    /// Creates a queue, or checks one.
    50 10 QUEUE_DECLARE QueueDeclare "queue.declare" Client skip(u16) <'a> {
        /// Its name; empty: the broker makes one up.
        queue: &'a str,
        /// Check only.
        passive: bool,
        /// Outlives a restart.
        durable: bool,
        /// Of this connection alone.
        exclusive: bool,
        /// Goes with its last consumer.
        auto_delete: bool,
        /// Send no answer.
        no_wait: bool,
        /// The queue's properties.
        arguments: FieldTable<'a>,
    };
    /// The queue is there.
    50 11 QUEUE_DECLARE_OK QueueDeclareOk "queue.declare-ok" Server <'a> {
        /// Its name.
        queue: &'a str,
        /// Messages ready in it.
        message_count: u32,
        /// Consumers on it.
        consumer_count: u32,
    };
    /// Binds a queue to an exchange.
    50 20 QUEUE_BIND QueueBind "queue.bind" Client skip(u16) <'a> {
        /// The queue; empty: the last declared on this channel.
        queue: &'a str,
        /// The exchange.
        exchange: &'a str,
        /// As the exchange's type has it.
        routing_key: &'a str,
        /// Send no answer.
        no_wait: bool,
        /// As the exchange's type has it.
        arguments: FieldTable<'a>,
    };
    /// The binding is there.
    50 21 QUEUE_BIND_OK QueueBindOk "queue.bind-ok" Server;
    /// Drops the ready messages of a queue.
    50 30 QUEUE_PURGE QueuePurge "queue.purge" Client skip(u16) <'a> {
        /// The queue; empty: the last declared on this channel.
        queue: &'a str,
        /// Send no answer.
        no_wait: bool,
    };
    /// The messages are gone.
    50 31 QUEUE_PURGE_OK QueuePurgeOk "queue.purge-ok" Server <> {
        /// How many.
        message_count: u32,
    };
    /// Deletes a queue.
    50 40 QUEUE_DELETE QueueDelete "queue.delete" Client skip(u16) <'a> {
        /// The queue; empty: the last declared on this channel.
        queue: &'a str,
        /// Only without consumers.
        if_unused: bool,
        /// Only without ready messages.
        if_empty: bool,
        /// Send no answer.
        no_wait: bool,
    };
    /// The queue is gone.
    50 41 QUEUE_DELETE_OK QueueDeleteOk "queue.delete-ok" Server <> {
        /// Messages that were ready in it.
        message_count: u32,
    };
    /// Removes a binding of a queue. It has no `no_wait`.
    50 50 QUEUE_UNBIND QueueUnbind "queue.unbind" Client skip(u16) <'a> {
        /// As it was bound.
        queue: &'a str,
        /// As it was bound.
        exchange: &'a str,
        /// As it was bound.
        routing_key: &'a str,
        /// As it was bound.
        arguments: FieldTable<'a>,
    };
    /// The binding is gone.
    50 51 QUEUE_UNBIND_OK QueueUnbindOk "queue.unbind-ok" Server;

    /// Bounds the messages in flight to consumers.
    60 10 BASIC_QOS BasicQos "basic.qos" Client <> {
        /// Bytes; only 0 is supported.
        prefetch_size: u32,
        /// Messages; 0: no limit.
        prefetch_count: u16,
        /// For the channel as a whole, not for each consumer to come.
        global: bool,
    };
    /// The limit holds.
    60 11 BASIC_QOS_OK BasicQosOk "basic.qos-ok" Server;
    /// Asks for a queue's messages as they come.
    60 20 BASIC_CONSUME BasicConsume "basic.consume" Client skip(u16) <'a> {
        /// The queue; empty: the last declared on this channel.
        queue: &'a str,
        /// The consumer's name; empty: the broker makes one up.
        consumer_tag: &'a str,
        /// Ignored, as by RabbitMQ.
        no_local: bool,
        /// Deliveries are settled when they are sent.
        no_ack: bool,
        /// No other consumers on the queue.
        exclusive: bool,
        /// Send no answer.
        no_wait: bool,
        /// The consumer's properties.
        arguments: FieldTable<'a>,
    };
    /// Deliveries follow.
    60 21 BASIC_CONSUME_OK BasicConsumeOk "basic.consume-ok" Server <'a> {
        /// The consumer's name.
        consumer_tag: &'a str,
    };
    /// Ends a consumer; from the server: it has ended.
    60 30 BASIC_CANCEL BasicCancel "basic.cancel" Both <'a> {
        /// The consumer's name.
        consumer_tag: &'a str,
        /// Send no answer.
        no_wait: bool,
    };
    /// The consumer has ended. RabbitMQ takes it from clients from 4.3 on only.
    60 31 BASIC_CANCEL_OK BasicCancelOk "basic.cancel-ok" Server <'a> {
        /// The consumer's name.
        consumer_tag: &'a str,
    };
    /// Sends a message; content follows.
    60 40 BASIC_PUBLISH BasicPublish "basic.publish" Client skip(u16) <'a> {
        /// The exchange; empty: the default exchange.
        exchange: &'a str,
        /// What it routes by.
        routing_key: &'a str,
        /// Return it if it reaches no queue.
        mandatory: bool,
        /// Not supported by RabbitMQ.
        immediate: bool,
    };
    /// Gives an unroutable message back; content follows.
    60 50 BASIC_RETURN BasicReturn "basic.return" Server <'a> {
        /// Why; see [`ReplyCode`](crate::reply::ReplyCode).
        reply_code: u16,
        /// Why, in words.
        reply_text: &'a str,
        /// As it was published.
        exchange: &'a str,
        /// As it was published.
        routing_key: &'a str,
    };
    /// A message for a consumer; content follows.
    60 60 BASIC_DELIVER BasicDeliver "basic.deliver" Server <'a> {
        /// The consumer's name.
        consumer_tag: &'a str,
        /// Its number on the channel.
        delivery_tag: u64,
        /// It may have been delivered before.
        redelivered: bool,
        /// As it was published.
        exchange: &'a str,
        /// As it was published.
        routing_key: &'a str,
    };
    /// Asks for one message.
    60 70 BASIC_GET BasicGet "basic.get" Client skip(u16) <'a> {
        /// The queue; empty: the last declared on this channel.
        queue: &'a str,
        /// The message is settled when it is sent.
        no_ack: bool,
    };
    /// The message; content follows.
    60 71 BASIC_GET_OK BasicGetOk "basic.get-ok" Server <'a> {
        /// Its number on the channel.
        delivery_tag: u64,
        /// It may have been delivered before.
        redelivered: bool,
        /// As it was published.
        exchange: &'a str,
        /// As it was published.
        routing_key: &'a str,
        /// Messages still ready.
        message_count: u32,
    };
    /// There is no message.
    60 72 BASIC_GET_EMPTY BasicGetEmpty "basic.get-empty" Server skip(&'a str);
    /// Settles deliveries; from the server: publishes are safe.
    60 80 BASIC_ACK BasicAck "basic.ack" Both <> {
        /// Which; 0 with `multiple`: all outstanding.
        delivery_tag: u64,
        /// All up to it, too.
        multiple: bool,
    };
    /// Refuses a delivery.
    60 90 BASIC_REJECT BasicReject "basic.reject" Client <> {
        /// Which.
        delivery_tag: u64,
        /// Put it back; else it is dropped or dead-lettered.
        requeue: bool,
    };
    /// As `basic.recover`, without an answer.
    60 100 BASIC_RECOVER_ASYNC BasicRecoverAsync "basic.recover-async" Client <> {
        /// Only true is supported.
        requeue: bool,
    };
    /// Puts all outstanding deliveries of the channel back.
    60 110 BASIC_RECOVER BasicRecover "basic.recover" Client <> {
        /// Only true is supported.
        requeue: bool,
    };
    /// They are back.
    60 111 BASIC_RECOVER_OK BasicRecoverOk "basic.recover-ok" Server;
    /// Refuses deliveries; from the server: publishes were refused.
    60 120 BASIC_NACK BasicNack "basic.nack" Both <> {
        /// Which; 0 with `multiple`: all outstanding.
        delivery_tag: u64,
        /// All up to it, too.
        multiple: bool,
        /// Put them back; the server sends true, to no effect.
        requeue: bool,
    };

    /// Asks for confirms of all publishes from here on.
    85 10 CONFIRM_SELECT ConfirmSelect "confirm.select" Client <> {
        /// Send no answer.
        no_wait: bool,
    };
    /// Confirms follow.
    85 11 CONFIRM_SELECT_OK ConfirmSelectOk "confirm.select-ok" Server;

    /// Makes the channel transactional.
    90 10 TX_SELECT TxSelect "tx.select" Client;
    /// The channel is transactional.
    90 11 TX_SELECT_OK TxSelectOk "tx.select-ok" Server;
    /// Makes publishes and acks since the last commit take effect.
    90 20 TX_COMMIT TxCommit "tx.commit" Client;
    /// They have.
    90 21 TX_COMMIT_OK TxCommitOk "tx.commit-ok" Server;
    /// Forgets publishes and acks since the last commit.
    90 30 TX_ROLLBACK TxRollback "tx.rollback" Client;
    /// They are forgotten.
    90 31 TX_ROLLBACK_OK TxRollbackOk "tx.rollback-ok" Server;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the table is the specification's, id by id and argument by argument. Method: each row
    /// written the way the specification's facts are listed, reserved arguments by type alone.
    #[test]
    fn table_is_the_specification() {
        let specification = include_str!("../tests/specification.txt");
        let facts = Method::facts();
        let mut rows = facts.iter();
        for line in specification.lines().filter(|line| !line.starts_with('#')) {
            let row = rows.next().unwrap_or_else(|| panic!("missing: {line}"));
            let mut words = line.split(' ');
            let mut word = || words.next().expect("three words").to_owned();
            let ids = (row.id.class.to_string(), row.id.method.to_string());
            assert_eq!((row.name.to_owned(), ids), (word(), (word(), word())));
            let specified: Vec<&str> = words.collect();
            let reserved = |wire_type: &&str| format!("*:{wire_type}");
            let named = |(name, wire_type): &(&str, &str)| {
                let name = match *name {
                    "kind" => "type".to_owned(),
                    "no_wait" => "nowait".to_owned(),
                    other => other.replace('_', "-"),
                };
                format!("{name}:{wire_type}")
            };
            let before = row.reserved_before.iter().map(reserved);
            let arguments = row.arguments.iter().map(named);
            let behind = row.reserved_behind.iter().map(reserved);
            let ours: Vec<String> = before.chain(arguments).chain(behind).collect();
            assert_eq!(ours.len(), specified.len(), "{line}");
            for (ours, specified) in ours.iter().zip(specified) {
                let matches = match ours.strip_prefix('*') {
                    Some(wire_type) => specified.ends_with(wire_type),
                    None => ours == specified,
                };
                assert!(matches, "{line}: {ours} is not {specified}");
            }
        }
        assert!(rows.next().is_none(), "all methods are the specification's");
    }

    /// Goal: ids, names and constants agree. Method: every row, through each door.
    #[test]
    fn ids_and_names_agree() {
        for row in Method::facts() {
            assert_eq!(row.id.name(), Some(row.name));
            assert_eq!(row.id.to_string(), row.name);
            assert!(row.id.sender().is_some());
            let constant = row.name.replace(['.', '-'], "_").to_uppercase();
            let known = Method::facts().iter().filter(|other| other.id == row.id).count();
            assert_eq!(known, 1, "{constant} is there once");
        }
        assert_eq!(MethodId::NONE.name(), None);
        assert_eq!(MethodId { class: 60, method: 201 }.to_string(), "[60,201]");
    }

    #[test]
    fn bits_share_an_octet() {
        let declare = Method::QueueDeclare(QueueDeclare {
            queue: "q",
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            no_wait: true,
            arguments: FieldTable::EMPTY,
        });
        let mut frame = Vec::new();
        declare.encode(7, &mut frame);
        let expected = b"\x01\x00\x07\x00\x00\x00\x0d\x00\x32\x00\x0a\x00\x00\x01q\x12\0\0\0\0\xce";
        assert_eq!(frame, expected);
        assert_eq!(Method::decode(&frame[7..frame.len() - 1]), Ok(declare));
    }

    #[test]
    fn damage_is_answered_with_the_methods_ids() {
        let cut = Method::decode(&[0, 50, 0, 10, 0, 0]).expect_err("arguments are missing");
        assert_eq!(cut.to_string(), "cannot decode <<0,0>>");
        assert_eq!(cut.reply().method, MethodId::QUEUE_DECLARE);
        let long = Method::decode(&[0, 90, 0, 10, 1]).expect_err("an octet is left over");
        assert_eq!(long.to_string(), "cannot decode <<1>>");
        let unknown = Method::decode(&[0, 60, 0, 200]).expect_err("credit is not served");
        assert_eq!(unknown.reply().code.value(), 503);
        let name = Method::decode(b"\0\x32\0\x1e\0\0\x02\xff\xfe\0").expect_err("not UTF-8");
        assert_eq!(name, ProtocolError::InvalidUtf8);
    }
}
