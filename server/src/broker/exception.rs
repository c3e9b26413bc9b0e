//! A refused command: the only `Err` a handler of the broker returns.
//!
//! A handler that returns one has changed nothing. The scope (channel or connection) follows from
//! the reply code alone, as on RabbitMQ.

use leveret_protocol::method::MethodId;
use leveret_protocol::reply::ReplyCode;

/// Outcome of a handler that answers nothing itself.
pub type Outcome = Result<(), Exception>;

/// What the client is told in `channel.close` or `connection.close`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Number and name; decides whether the channel or the connection dies.
    pub code: ReplyCode,
    /// The explanation behind `NAME - `, e.g. `no queue 'q' in vhost '/'`.
    pub text: String,
    /// The failing method; 0,0 when no method is to blame.
    pub method: MethodId,
}

impl Exception {
    /// An exception with `text` as explanation. The failing method is filled in by the dispatcher
    /// ([`Exception::caused_by`]): handlers need not know which method called them.
    pub fn new(code: ReplyCode, text: impl Into<String>) -> Exception {
        Exception { code, text: text.into(), method: MethodId { class: 0, method: 0 } }
    }

    /// The same exception, blamed on `method` unless it already names one. An internal error
    /// blames none, as on RabbitMQ.
    #[must_use]
    pub fn caused_by(mut self, method: MethodId) -> Exception {
        let names_none = self.method == MethodId { class: 0, method: 0 };
        if names_none && self.code != ReplyCode::InternalError {
            self.method = method;
        }
        self
    }

    /// 404: `no queue 'Q' in vhost 'V'`.
    pub fn no_queue(queue: &str, vhost: &str) -> Exception {
        Exception::new(ReplyCode::NotFound, format!("no queue '{queue}' in vhost '{vhost}'"))
    }

    /// 404: `no exchange 'X' in vhost 'V'`.
    pub fn no_exchange(exchange: &str, vhost: &str) -> Exception {
        Exception::new(ReplyCode::NotFound, format!("no exchange '{exchange}' in vhost '{vhost}'"))
    }

    /// 406 with `text`.
    pub fn precondition(text: impl Into<String>) -> Exception {
        Exception::new(ReplyCode::PreconditionFailed, text)
    }

    /// 403 with `text`.
    pub fn refused(text: impl Into<String>) -> Exception {
        Exception::new(ReplyCode::AccessRefused, text)
    }

    /// 530 with `text`.
    pub fn not_allowed(text: impl Into<String>) -> Exception {
        Exception::new(ReplyCode::NotAllowed, text)
    }

    /// 540 with `text`: part of the protocol that is not there.
    pub fn not_implemented(text: impl Into<String>) -> Exception {
        Exception::new(ReplyCode::NotImplemented, text)
    }

    /// 320 with `text`: the operator closes it.
    pub fn connection_forced(text: impl Into<String>) -> Exception {
        Exception::new(ReplyCode::ConnectionForced, text)
    }
}
