//! Reply codes: number, name, and whether they close a channel or the connection.

use crate::constants::SHORTSTR_SIZE_MAX;

/// What a close with this code ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `channel.close`: the channel dies, the connection lives. On channel 0 it is the connection.
    Channel,
    /// `connection.close`: everything dies.
    Connection,
}

macro_rules! reply_codes {
    ($($(#[$doc:meta])* $variant:ident = $value:literal $name:literal $scope:ident,)*) => {
        /// A reply code of `channel.close`, `connection.close` or `basic.return`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ReplyCode {
            $($(#[$doc])* $variant = $value,)*
        }

        impl ReplyCode {
            /// Every code.
            pub const ALL: &'static [ReplyCode] = &[$(ReplyCode::$variant),*];

            /// The number on the wire.
            #[inline]
            pub const fn value(self) -> u16 {
                self as u16
            }

            /// The name that opens the reply text.
            pub const fn name(self) -> &'static str {
                match self {
                    $(ReplyCode::$variant => $name,)*
                }
            }

            /// What a close with this code ends.
            pub const fn scope(self) -> Scope {
                match self {
                    $(ReplyCode::$variant => Scope::$scope,)*
                }
            }
        }
    };
}

reply_codes! {
    /// All is well; the code of an orderly close.
    ReplySuccess = 200 "REPLY_SUCCESS" Connection,
    /// The content is too large. RabbitMQ answers [`ReplyCode::PreconditionFailed`] instead.
    ContentTooLarge = 311 "CONTENT_TOO_LARGE" Channel,
    /// A mandatory message reached no queue; the code of `basic.return`.
    NoRoute = 312 "NO_ROUTE" Channel,
    /// An immediate message found no consumer; RabbitMQ knows no immediate messages.
    NoConsumers = 313 "NO_CONSUMERS" Channel,
    /// An operator closed the connection, or the broker stops.
    ConnectionForced = 320 "CONNECTION_FORCED" Connection,
    /// The virtual host is unknown. RabbitMQ answers [`ReplyCode::NotAllowed`] instead.
    InvalidPath = 402 "INVALID_PATH" Connection,
    /// The user may not do this. After a failed login it closes the connection.
    AccessRefused = 403 "ACCESS_REFUSED" Channel,
    /// The exchange or queue does not exist.
    NotFound = 404 "NOT_FOUND" Channel,
    /// Another connection holds the queue.
    ResourceLocked = 405 "RESOURCE_LOCKED" Channel,
    /// A precondition does not hold.
    PreconditionFailed = 406 "PRECONDITION_FAILED" Channel,
    /// A frame could not be decoded.
    FrameError = 501 "FRAME_ERROR" Connection,
    /// The frame's values are illegal. RabbitMQ does not send it.
    SyntaxError = 502 "SYNTAX_ERROR" Connection,
    /// The method is unknown, or not one a client may send.
    CommandInvalid = 503 "COMMAND_INVALID" Connection,
    /// The channel is not in a state for this method.
    ChannelError = 504 "CHANNEL_ERROR" Connection,
    /// This frame does not belong here.
    UnexpectedFrame = 505 "UNEXPECTED_FRAME" Connection,
    /// A resource ran out.
    ResourceError = 506 "RESOURCE_ERROR" Connection,
    /// Not permitted, whoever asks.
    NotAllowed = 530 "NOT_ALLOWED" Connection,
    /// The broker does not do this.
    NotImplemented = 540 "NOT_IMPLEMENTED" Connection,
    /// The broker failed, or the message's properties could not be decoded.
    InternalError = 541 "INTERNAL_ERROR" Connection,
}

/// The reply text as it goes out: `NAME - explanation`, or the bare name without explanation.
///
/// It must fit a short string: longer ones are cut to 252 bytes, at a character boundary, and end
/// in `...`.
pub fn reply_text(code: ReplyCode, explanation: &str) -> String {
    let mut text = String::from(code.name());
    if !explanation.is_empty() {
        text.push_str(" - ");
        text.push_str(explanation);
    }
    if SHORTSTR_SIZE_MAX < text.len() {
        text.truncate(text.floor_char_boundary(SHORTSTR_SIZE_MAX - ELLIPSIS.len()));
        text.push_str(ELLIPSIS);
    }
    text
}

const ELLIPSIS: &str = "...";

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the codes close what RabbitMQ lets them close. Method: both lists written out.
    #[test]
    fn scope_follows_from_the_code() {
        for code in ReplyCode::ALL {
            let expected = match code.value() {
                311 | 312 | 313 | 403 | 404 | 405 | 406 => Scope::Channel,
                _ => Scope::Connection,
            };
            assert_eq!(code.scope(), expected, "{code:?}");
        }
        assert_eq!(ReplyCode::ALL.len(), 19);
    }

    #[test]
    fn text_is_name_and_explanation() {
        assert_eq!(
            reply_text(ReplyCode::NotFound, "no queue 'q' in vhost '/'"),
            "NOT_FOUND - no queue 'q' in vhost '/'"
        );
        assert_eq!(reply_text(ReplyCode::InternalError, ""), "INTERNAL_ERROR");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let text = reply_text(ReplyCode::NotFound, &"x".repeat(300));
        assert_eq!(text.len(), 255);
        assert!(text.ends_with("x..."));
        let text = reply_text(ReplyCode::NotFound, &"é".repeat(300));
        assert!(text.len() <= 255);
        assert!(text.ends_with("é..."));
        let exact = reply_text(ReplyCode::NotFound, &"x".repeat(255 - "NOT_FOUND - ".len()));
        assert!(exact.ends_with('x'));
    }
}
