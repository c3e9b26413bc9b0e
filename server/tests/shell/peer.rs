//! A client that does exactly what a test wants of it, byte by byte.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use leveret_protocol::constants::{
    FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, PROTOCOL_HEADER,
};
use leveret_protocol::field::{FieldTableBuilder, FieldValue, OwnedTable};
use leveret_protocol::method::{
    BasicAck, BasicCancel, BasicConsume, BasicGet, BasicPublish, ConnectionClose, ConnectionOpen,
    ConnectionStartOk, ConnectionTuneOk, Method, MethodId, QueueDeclare,
};

/// One frame as it came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The method in it.
    pub(crate) fn method(&self) -> Method<'_> {
        assert_eq!(self.kind, FRAME_METHOD, "{self:?}");
        Method::decode(&self.payload).expect("the broker sends whole methods")
    }
}

/// A raw connection.
pub(crate) struct Peer {
    pub(crate) socket: TcpStream,
}

impl Peer {
    /// Only connected.
    pub(crate) fn connect(address: SocketAddr) -> Peer {
        let socket = TcpStream::connect(address).expect("the broker listens");
        socket.set_nodelay(true).expect("an option can be set");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
        Peer { socket }
    }

    /// Logged in, in `/`, with this heartbeat and channel 1 open.
    pub(crate) fn open(address: SocketAddr, heartbeat_s: u16) -> Peer {
        Peer::open_as(address, heartbeat_s, &OwnedTable::default())
    }

    /// The same, and it wants to hear of alarms.
    pub(crate) fn open_blockable(address: SocketAddr, heartbeat_s: u16) -> Peer {
        let capabilities =
            FieldTableBuilder::new().with("connection.blocked", FieldValue::Bool(true)).build();
        let properties = FieldTableBuilder::new()
            .with("capabilities", FieldValue::Table(capabilities.as_ref()))
            .build();
        Peer::open_as(address, heartbeat_s, &properties)
    }

    /// The heartbeat that the broker proposes.
    pub(crate) fn proposed_heartbeat(address: SocketAddr) -> u16 {
        let mut peer = Peer::connect(address);
        peer.log_in(&OwnedTable::default(), "guest", "guest");
        let frame = peer.frame().expect("the broker answers");
        let Method::ConnectionTune(tune) = frame.method() else { panic!("{:?}", frame.method()) };
        tune.heartbeat
    }

    /// As somebody else, somewhere else.
    pub(crate) fn open_in(address: SocketAddr, user: &str, password: &str, vhost: &str) -> Peer {
        let mut peer = Peer::connect(address);
        peer.log_in(&OwnedTable::default(), user, password);
        peer.expect(MethodId::CONNECTION_TUNE);
        peer.enter(0, vhost);
        peer.expect(MethodId::CONNECTION_OPEN_OK);
        peer.call(1, &Method::ChannelOpen);
        peer.expect(MethodId::CHANNEL_OPEN_OK);
        peer
    }

    /// Whether somebody is not let in.
    pub(crate) fn is_refused(address: SocketAddr, user: &str, password: &str, vhost: &str) -> bool {
        let mut peer = Peer::connect(address);
        peer.log_in(&OwnedTable::default(), user, password);
        let Ok(frame) = peer.frame() else { return true };
        if frame.method().id() != MethodId::CONNECTION_TUNE {
            return true;
        }
        peer.enter(0, vhost);
        !peer.frame().is_ok_and(|frame| frame.method().id() == MethodId::CONNECTION_OPEN_OK)
    }

    fn open_as(address: SocketAddr, heartbeat_s: u16, properties: &OwnedTable) -> Peer {
        let mut peer = Peer::connect(address);
        peer.log_in(properties, "guest", "guest");
        peer.expect(MethodId::CONNECTION_TUNE);
        peer.enter(heartbeat_s, "/");
        peer.expect(MethodId::CONNECTION_OPEN_OK);
        peer.call(1, &Method::ChannelOpen);
        peer.expect(MethodId::CHANNEL_OPEN_OK);
        peer
    }

    /// Header and login. The answer is not read.
    pub(crate) fn log_in(&mut self, properties: &OwnedTable, user: &str, password: &str) {
        let peer = self;
        peer.send(&PROTOCOL_HEADER);
        peer.expect(MethodId::CONNECTION_START);
        peer.call(
            0,
            &Method::ConnectionStartOk(ConnectionStartOk {
                client_properties: properties.as_ref(),
                mechanism: "PLAIN",
                response: format!("\0{user}\0{password}").as_bytes(),
                locale: "en_US",
            }),
        );
    }

    /// Tuning and virtual host. The answer is not read.
    pub(crate) fn enter(&mut self, heartbeat_s: u16, vhost: &str) {
        let tune = ConnectionTuneOk { channel_max: 10, frame_max: 131_072, heartbeat: heartbeat_s };
        self.call(0, &Method::ConnectionTuneOk(tune));
        self.call(0, &Method::ConnectionOpen(ConnectionOpen { virtual_host: vhost }));
    }

    /// Enters a virtual host as tuned before. The answer is not read.
    pub(crate) fn open_vhost(&mut self, vhost: &str) {
        self.call(0, &Method::ConnectionOpen(ConnectionOpen { virtual_host: vhost }));
    }

    /// Reads `channel.close`: code and text.
    pub(crate) fn channel_close(&mut self) -> (u16, String) {
        let frame = self.frame().expect("the broker answers");
        let Method::ChannelClose(close) = frame.method() else { panic!("{:?}", frame.method()) };
        (close.reply_code, close.reply_text.to_owned())
    }

    /// Reads `connection.close`: code and text.
    pub(crate) fn connection_close(&mut self) -> (u16, String) {
        let frame = self.frame().expect("the broker answers");
        let Method::ConnectionClose(close) = frame.method() else { panic!("{:?}", frame.method()) };
        (close.reply_code, close.reply_text.to_owned())
    }

    /// How many messages a queue has, if there is one.
    pub(crate) fn declare_passive(&mut self, queue: &str) -> Option<u32> {
        self.send_queue_declare(queue, true);
        let frame = self.frame().expect("the broker answers");
        let Method::QueueDeclareOk(ok) = frame.method() else { return None };
        Some(ok.message_count)
    }

    /// Declares a transient queue. Returns how many messages it has.
    pub(crate) fn declare(&mut self, queue: &str) -> u32 {
        self.send_declare(queue);
        let frame = self.frame().expect("the broker answers");
        let Method::QueueDeclareOk(ok) = frame.method() else { panic!("{:?}", frame.method()) };
        ok.message_count
    }

    /// The same. The answer is not read.
    pub(crate) fn send_declare(&mut self, queue: &str) {
        self.send_queue_declare(queue, false);
    }

    fn send_queue_declare(&mut self, queue: &str, passive: bool) {
        let none = OwnedTable::default();
        self.call(
            1,
            &Method::QueueDeclare(QueueDeclare {
                queue,
                passive,
                durable: false,
                exclusive: false,
                auto_delete: false,
                no_wait: false,
                arguments: none.as_ref(),
            }),
        );
    }

    /// Consumes without acknowledgement. The answer is not read.
    pub(crate) fn consume(&mut self, queue: &str) {
        self.send_consume(queue, "c", true);
    }

    /// Consumes with acknowledgement. The answer is not read.
    pub(crate) fn consume_with_acks(&mut self, queue: &str) {
        self.send_consume(queue, "c", false);
    }

    /// Consumes without acknowledgement, by another tag. The answer is not read.
    pub(crate) fn consume_as(&mut self, queue: &str, tag: &str) {
        self.send_consume(queue, tag, true);
    }

    fn send_consume(&mut self, queue: &str, consumer_tag: &str, no_ack: bool) {
        let none = OwnedTable::default();
        self.call(
            1,
            &Method::BasicConsume(BasicConsume {
                queue,
                consumer_tag,
                no_local: false,
                no_ack,
                exclusive: false,
                no_wait: false,
                arguments: none.as_ref(),
            }),
        );
    }

    /// Acknowledges all deliveries up to a tag.
    pub(crate) fn ack_all(&mut self, delivery_tag: u64) {
        self.call(1, &Method::BasicAck(BasicAck { delivery_tag, multiple: true }));
    }

    /// Ends the consumer. The answer is not read.
    pub(crate) fn cancel(&mut self) {
        self.call(1, &Method::BasicCancel(BasicCancel { consumer_tag: "c", no_wait: false }));
    }

    /// Closes the connection. The answer is not read.
    pub(crate) fn close(&mut self) {
        let close =
            ConnectionClose { reply_code: 200, reply_text: "bye", class_id: 0, method_id: 0 };
        self.call(0, &Method::ConnectionClose(close));
    }

    pub(crate) fn heartbeat(&mut self) {
        self.send(&[FRAME_HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END]);
    }

    /// Two ends of the same connection, for two threads.
    pub(crate) fn split(self) -> (Peer, Peer) {
        let other = self.socket.try_clone().expect("a socket can be shared");
        (self, Peer { socket: other })
    }

    /// Whether no frame comes for so long, heartbeats aside.
    pub(crate) fn is_silent_for(&mut self, time: Duration) -> bool {
        let timeout = self.socket.read_timeout().expect("it has one");
        self.socket.set_read_timeout(Some(time)).expect("a timeout can be set");
        let silent = self.frame().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.socket.set_read_timeout(timeout).expect("a timeout can be set");
        silent
    }

    /// Asks for one message. The answer is not read.
    pub(crate) fn get(&mut self, queue: &str) {
        self.call(1, &Method::BasicGet(BasicGet { queue, no_ack: true }));
    }

    /// Publishes to a queue.
    pub(crate) fn publish(&mut self, queue: &str, body: &[u8]) {
        let mut frames = Vec::new();
        let publish =
            BasicPublish { exchange: "", routing_key: queue, mandatory: false, immediate: false };
        Method::BasicPublish(publish).encode(1, &mut frames);
        let mut header = vec![0, 60, 0, 0];
        header.extend_from_slice(&(body.len() as u64).to_be_bytes());
        header.extend_from_slice(&[0, 0]);
        for (kind, payload) in [(FRAME_HEADER, header.as_slice()), (FRAME_BODY, body)] {
            frames.extend_from_slice(&[kind, 0, 1]);
            let size = u32::try_from(payload.len()).expect("a test's body is small");
            frames.extend_from_slice(&size.to_be_bytes());
            frames.extend_from_slice(payload);
            frames.push(FRAME_END);
        }
        self.send(&frames);
    }

    pub(crate) fn call(&mut self, channel: u16, method: &Method<'_>) {
        let mut frame = Vec::new();
        method.encode(channel, &mut frame);
        self.send(&frame);
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the broker takes what is sent");
    }

    /// The next frame, heartbeats aside.
    pub(crate) fn frame(&mut self) -> io::Result<Frame> {
        loop {
            let mut header = [0; 7];
            self.socket.read_exact(&mut header)?;
            let [kind, _, _, size @ ..] = header;
            let mut payload = vec![0; u32::from_be_bytes(size) as usize + 1];
            self.socket.read_exact(&mut payload)?;
            assert_eq!(payload.pop(), Some(0xCE), "a frame ends");
            if kind != FRAME_HEARTBEAT {
                return Ok(Frame { kind, payload });
            }
        }
    }

    /// Reads a frame that must be this method.
    pub(crate) fn expect(&mut self, method: MethodId) {
        let frame = self.frame().expect("the broker answers");
        assert_eq!(frame.method().id(), method, "{:?}", frame.method());
    }

    /// Whether the broker closes the connection before the read timeout; what it sends is dropped.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
            }
        }
    }
}
