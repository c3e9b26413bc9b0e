//! A client that does exactly what a test wants of it, byte by byte.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use leveret_protocol::constants::{
    FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, PROTOCOL_HEADER,
};
use leveret_protocol::field::OwnedTable;
use leveret_protocol::method::{
    BasicConsume, BasicGet, BasicPublish, ConnectionOpen, ConnectionStartOk, ConnectionTuneOk,
    Method, MethodId, QueueDeclare,
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
        let mut peer = Peer::connect(address);
        peer.send(&PROTOCOL_HEADER);
        peer.expect(MethodId::CONNECTION_START);
        let none = OwnedTable::default();
        peer.call(
            0,
            &Method::ConnectionStartOk(ConnectionStartOk {
                client_properties: none.as_ref(),
                mechanism: "PLAIN",
                response: b"\0guest\0guest",
                locale: "en_US",
            }),
        );
        peer.expect(MethodId::CONNECTION_TUNE);
        let tune = ConnectionTuneOk { channel_max: 10, frame_max: 131_072, heartbeat: heartbeat_s };
        peer.call(0, &Method::ConnectionTuneOk(tune));
        peer.call(0, &Method::ConnectionOpen(ConnectionOpen { virtual_host: "/" }));
        peer.expect(MethodId::CONNECTION_OPEN_OK);
        peer.call(1, &Method::ChannelOpen);
        peer.expect(MethodId::CHANNEL_OPEN_OK);
        peer
    }

    /// Declares a transient queue.
    pub(crate) fn declare(&mut self, queue: &str) {
        let none = OwnedTable::default();
        self.call(
            1,
            &Method::QueueDeclare(QueueDeclare {
                queue,
                passive: false,
                durable: false,
                exclusive: false,
                auto_delete: false,
                no_wait: false,
                arguments: none.as_ref(),
            }),
        );
        self.expect(MethodId::QUEUE_DECLARE_OK);
    }

    /// Consumes without acknowledgement. The answer is not read.
    pub(crate) fn consume(&mut self, queue: &str) {
        let none = OwnedTable::default();
        self.call(
            1,
            &Method::BasicConsume(BasicConsume {
                queue,
                consumer_tag: "c",
                no_local: false,
                no_ack: true,
                exclusive: false,
                no_wait: false,
                arguments: none.as_ref(),
            }),
        );
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
