//! The road between the HTTP thread and the event loop: requests one way, one reply each back.
//!
//! The event loop is woken by its [`mio::Waker`], takes requests from the [`ControlInbox`] between
//! two ticks and answers through each request's [`Responder`]. The number of requests under way is
//! bounded by the number of HTTP connections, each of which waits for its reply before the next.

use crate::broker::control::{ControlReply, ControlRequest};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a reply may take before the client is told that the broker is not available.
const REPLY_TIMEOUT: Duration = Duration::from_mins(1);

/// Makes the two ends. `waker` belongs to the poll of the loop that will own the inbox.
pub fn channel(waker: Arc<mio::Waker>) -> (ControlHandle, ControlInbox) {
    let (sender, receiver) = mpsc::channel();
    (ControlHandle { calls: sender, waker }, ControlInbox { calls: receiver })
}

/// One request and where its reply goes.
#[derive(Debug)]
pub struct ControlCall {
    /// What is asked.
    pub request: ControlRequest,
    /// Where the answer goes. Dropping it tells the client that the broker is not available.
    pub responder: Responder,
}

/// Takes the reply to one request.
#[derive(Debug)]
pub struct Responder(oneshot::Sender<ControlReply>);

impl Responder {
    /// Sends the reply. A client that has gone away meanwhile misses it.
    pub fn send(self, reply: ControlReply) {
        let _ = self.0.send(reply);
    }
}

/// The end of the event loop.
#[derive(Debug)]
pub struct ControlInbox {
    calls: mpsc::Receiver<ControlCall>,
}

impl ControlInbox {
    /// The next request, if one waits. Never blocks.
    ///
    /// A reply that reports a durable change is to be sent only when that change is durable, as
    /// `declare-ok` is.
    pub fn try_next(&self) -> Option<ControlCall> {
        self.calls.try_recv().ok()
    }
}

/// The end of the HTTP thread.
#[derive(Clone, Debug)]
pub struct ControlHandle {
    calls: mpsc::Sender<ControlCall>,
    waker: Arc<mio::Waker>,
}

/// The event loop has ended or does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BrokerGone;

impl ControlHandle {
    /// Asks, and waits for the reply.
    pub(crate) async fn ask(&self, request: ControlRequest) -> Result<ControlReply, BrokerGone> {
        let (sender, receiver) = oneshot::channel();
        let call = ControlCall { request, responder: Responder(sender) };
        self.calls.send(call).map_err(|_| BrokerGone)?;
        self.waker.wake().map_err(|_| BrokerGone)?;
        match tokio::time::timeout(REPLY_TIMEOUT, receiver).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) | Err(_) => Err(BrokerGone),
        }
    }
}
