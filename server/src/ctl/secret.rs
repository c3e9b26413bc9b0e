//! A password that is not on the command line: read from the standard input, unseen.

use super::command::Session;
use super::failure::Failure;
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use std::io::{BufRead, stdin};

/// Bytes of a typed line at most.
const LINE_SIZE_MAX: u64 = 64 << 10;

/// Asks for a password and reads one line.
///
/// # Errors
/// The input ends before its first line does: an argument is missing.
pub(super) fn ask(session: &mut Session<'_>) -> Result<String, Failure> {
    session.out.raw(b"Password: ")?;
    let hidden = Hidden::start();
    let mut line = String::new();
    let read = std::io::Read::take(&mut *session.input, LINE_SIZE_MAX).read_line(&mut line);
    drop(hidden);
    session.out.raw(b"\n")?;
    match read {
        Ok(size) if 0 < size => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
        Ok(_) | Err(_) => Err(Failure::usage("not enough arguments.")),
    }
}

/// The terminal shows nothing of what is typed until this is dropped.
struct Hidden(Option<Termios>);

impl Hidden {
    fn start() -> Hidden {
        let stdin = stdin();
        if !isatty(&stdin) {
            return Hidden(None);
        }
        let Ok(shown) = tcgetattr(&stdin) else { return Hidden(None) };
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        let done = tcsetattr(&stdin, OptionalActions::Now, &hidden).is_ok();
        Hidden(done.then_some(shown))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(shown) = &self.0 {
            // The shell sets its terminal anew at its next prompt anyway.
            let _ = tcsetattr(stdin(), OptionalActions::Now, shown);
        }
    }
}
