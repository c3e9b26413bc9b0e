//! The terminal as a screen: drawn over, read key by key, and given back as it was.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetwinsize,
    tcsetattr,
};
use std::fmt::Write as _;
use std::io::{Write as _, stdin, stdout};
use std::time::Duration;

/// What was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// `q`, Escape, or control and `c` or `d`.
    Quit,
    /// Another key.
    Letter(char),
}

/// A terminal that shows nothing but what is drawn. Dropping it gives the terminal back.
pub(super) struct Screen {
    before: Termios,
}

/// The alternate screen, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Columns and lines where the terminal does not tell.
const SIZE: (usize, usize) = (100, 25);

impl Screen {
    /// Takes the terminal, if there is one at both ends.
    pub(super) fn open() -> Option<Screen> {
        if !isatty(stdin()) || !isatty(stdout()) {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        raw.special_codes[SpecialCodeIndex::VMIN] = 0;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(stdin(), OptionalActions::Now, &raw).ok()?;
        let screen = Screen { before };
        show(ENTER);
        Some(screen)
    }

    /// Columns and lines.
    pub(super) fn size() -> (usize, usize) {
        match tcgetwinsize(stdout()) {
            Ok(size) if 0 < size.ws_col && 0 < size.ws_row => {
                (size.ws_col.into(), size.ws_row.into())
            }
            Ok(_) | Err(_) => SIZE,
        }
    }

    /// What makes the terminal show these lines and nothing else.
    pub(super) fn draw(lines: &[String]) -> String {
        let mut text = String::from("\x1b[H");
        for (index, line) in lines.iter().enumerate() {
            let end = if index + 1 == lines.len() { "" } else { "\n" };
            write!(text, "{line}\x1b[K{end}").expect("a String takes every text");
        }
        text.push_str("\x1b[J");
        text
    }

    /// Waits for a key.
    pub(super) fn wait(time: Duration) -> Option<Key> {
        let stdin = stdin();
        let mut watched = [PollFd::new(&stdin, PollFlags::IN)];
        let time = Timespec::try_from(time).ok()?;
        match poll(&mut watched, Some(&time)) {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
        let mut typed = [0; 16];
        match rustix::io::read(&stdin, &mut typed) {
            // The terminal has gone.
            Ok(0) | Err(_) => Some(Key::Quit),
            Ok(_) => Some(key(typed[0])),
        }
    }
}

fn key(byte: u8) -> Key {
    match byte {
        b'q' | b'Q' | 0x03 | 0x04 | 0x1b => Key::Quit,
        other => Key::Letter(char::from(other)),
    }
}

/// The terminal may be gone: then nobody sees it anyway.
fn show(text: &str) {
    let mut out = stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

impl Drop for Screen {
    fn drop(&mut self) {
        show(LEAVE);
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_end_programs_end_this_one() {
        for byte in [b'q', 0x03, 0x04, 0x1b] {
            assert_eq!(key(byte), Key::Quit);
        }
        assert_eq!(key(b'm'), Key::Letter('m'));
    }
}
