//! What a running command says: to the person line by line, to a file as far as it is not endless.
//!
//! Layer 4 (commands). What comes is somebody's program's: control characters never reach a terminal. Must never
//! hold more than a line, whatever is said.

#![allow(clippy::disallowed_methods, reason = "effects: writes the log of a run")]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::progress::{Progress, Running};
use crate::runner::Event;
use crate::text::acts_on_terminal;
use crate::text::bytes;

/// Bytes of a line that are kept.
const LINE: usize = 4096;
/// Bytes of a log file at most.
const LOG: u64 = 64 << 20;
/// Characters of the last line beside a spinner.
const STATUS: usize = 100;

/// Whether lines are shown as they come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Every line.
    Lines,
    /// The last line only, beside the spinner.
    Last,
}

/// One command's console.
pub struct Console<'a> {
    progress: &'a Progress,
    running: Running,
    show: Show,
    log: Option<(File, u64)>,
    line: Vec<u8>,
    last: String,
    memory: Option<u64>,
}

impl<'a> Console<'a> {
    /// For a command of this name; what it says goes to `log` too, where that can be written.
    pub fn new(name: &str, progress: &'a Progress, show: Show, log: Option<&Path>) -> Self {
        let log = log
            .and_then(|path| File::options().append(true).create(true).custom_flags(libc::O_NOFOLLOW).open(path).ok())
            .map(|file| (file, 0));
        let running = progress.running(name);
        Console { progress, running, show, log, line: Vec::new(), last: String::new(), memory: None }
    }

    /// Takes what happened.
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Said(_, said) => {
                self.write_log(said);
                for byte in said {
                    match byte {
                        b'\n' => self.end_line(),
                        // A progress bar paints its line again: the newest one is a status.
                        b'\r' if !self.line.is_empty() => {
                            self.last = clean(&self.line);
                            self.line.clear();
                        }
                        b'\r' => {}
                        _ if self.line.len() < LINE => self.line.push(*byte),
                        _ => {}
                    }
                }
            }
            Event::Usage { memory, .. } => self.memory = memory,
        }
        self.tell();
    }

    /// The last line that was said, without control characters.
    pub fn last_line(&self) -> String {
        if self.line.is_empty() { self.last.clone() } else { clean(&self.line) }
    }

    fn end_line(&mut self) {
        if !self.line.is_empty() {
            self.last = clean(&self.line);
            self.line.clear();
        }
        if self.show == Show::Lines {
            self.progress.note(&self.last);
        }
    }

    fn tell(&mut self) {
        let memory = self.memory.map_or_else(String::new, |memory| format!("{} ", bytes(memory)));
        let last: String = self.last.chars().take(STATUS).collect();
        self.running.tell(&format!("{memory}{last}"));
    }

    fn write_log(&mut self, said: &[u8]) {
        let Some((file, written)) = &mut self.log else { return };
        let room = usize::try_from(LOG.saturating_sub(*written)).unwrap_or(usize::MAX);
        if room == 0 {
            return;
        }
        // A log that cannot be written costs the log, never the run.
        let said = &said[..said.len().min(room)];
        if file.write_all(said).is_err() {
            self.log = None;
            return;
        }
        *written += said.len() as u64;
        if *written >= LOG {
            drop(file.write_all(b"\n[the log ends here: it has the most bytes it may have]\n"));
        }
    }
}

impl Drop for Console<'_> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
    }
}

/// A line without what a terminal would act on.
pub fn clean(line: &[u8]) -> String {
    let mut out = String::with_capacity(line.len());
    for c in String::from_utf8_lossy(line).chars() {
        match c {
            '\t' => out.push(c),
            c if acts_on_terminal(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::Stream;

    #[test]
    fn nothing_reaches_a_terminal_but_text() {
        assert_eq!(clean("a\tb é".as_bytes()), "a\tb é");
        assert_eq!(clean(b"\x1b]0;title\x07"), "\\u{1b}]0;title\\u{7}");
        assert_eq!(clean("a\u{202e}b\u{9b}31m".as_bytes()), "a\\u{202e}b\\u{9b}31m");
        assert_eq!(clean(b"\xff"), "\u{fffd}");
    }

    #[test]
    fn lines_are_bounded_and_a_bar_is_a_status() {
        let (progress, dir) = (Progress::silent(), tempfile::tempdir().unwrap());
        let log = dir.path().join("log");
        let mut console = Console::new("x", &progress, Show::Last, Some(&log));
        console.take(Event::Said(Stream::Out, &vec![b'a'; 3 * LINE]));
        assert_eq!(console.line.len(), LINE);
        console.take(Event::Said(Stream::Err, b"\n10%\r20%\rdone\nrest"));
        assert_eq!(console.last, "done");
        assert_eq!(console.last_line(), "rest");
        drop(console);
        assert_eq!(std::fs::metadata(&log).unwrap().len(), (3 * LINE) as u64 + 18);
    }
}
