//! How a command ends badly: an exit code and what to say about it.

use std::io;

/// Wrong usage: unknown command, option or column, too few or too many arguments.
pub(crate) const EX_USAGE: u8 = 64;
/// Wrong data: a file that cannot be read, an object that should not be missing.
pub(crate) const EX_DATAERR: u8 = 65;
/// No such user.
pub(crate) const EX_NOUSER: u8 = 67;
/// The broker is not there, refuses, or a health check failed.
pub(crate) const EX_UNAVAILABLE: u8 = 69;
/// Everything else, as RabbitMQ sees it: a duplicate user, an unknown plugin.
pub(crate) const EX_SOFTWARE: u8 = 70;
/// It took too long.
pub(crate) const EX_TEMPFAIL: u8 = 75;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// `Error (argument validation): ...`, the arguments, and the usage. Exit code 64 or 65.
    Validation { code: u8, text: String },
    /// `Error:` and a text on the next line.
    Error { code: u8, text: String },
    /// A text as it is, for the few commands that word their own.
    Plain { code: u8, text: String },
    /// The broker answers but was told to stop serving; the command needs it to.
    Stopped,
    /// The command needs the broker to have been told to stop serving.
    NotStopped,
    /// No command of that name.
    UnknownCommand(String),
    /// The broker cannot be found or reached; the text says what was tried.
    NodeDown { tried: String },
    /// The broker did not answer in time.
    TimedOut {
        /// How long it had.
        timeout_ms: u128,
    },
    /// Not one: `--dry-run` got as far as it goes.
    DryRun,
    /// Our standard output was closed, as `| head` does.
    OutputClosed,
}

impl Failure {
    /// A refused argument.
    pub(crate) fn usage(text: impl Into<String>) -> Failure {
        Failure::Validation { code: EX_USAGE, text: text.into() }
    }

    /// An argument that has no sense, as RabbitMQ words it.
    pub(crate) fn bad_argument(text: &str) -> Failure {
        let text = if text.is_empty() {
            "Bad argument.".to_owned()
        } else {
            format!("Bad argument: {text}")
        };
        Failure::Validation { code: EX_DATAERR, text }
    }

    /// A virtual host that should be there and is not.
    pub(crate) fn no_vhost(name: &str) -> Failure {
        let text = format!("Virtual host '{name}' does not exist");
        Failure::Plain { code: EX_DATAERR, text }
    }

    /// A failed operation.
    pub(crate) fn error(code: u8, text: impl Into<String>) -> Failure {
        Failure::Error { code, text: text.into() }
    }
}

impl From<io::Error> for Failure {
    /// Only writing to our output fails with a bare I/O error.
    fn from(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Failure::OutputClosed
        } else {
            Failure::error(EX_SOFTWARE, error.to_string())
        }
    }
}
