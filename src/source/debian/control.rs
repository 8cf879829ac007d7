//! Control: the deb822 form of Release, Packages and apt's `.sources` files, read stanza by stanza.
//!
//! Layer 1 (documents): pure, over any reader. Holds one stanza at a time, so that an index of tens of
//! megabytes costs no memory. Must never accept a stanza or a line beyond the caps.

use std::io::{self, BufRead, Read};

/// No line of a real index comes near this.
const LINE_CAP: u64 = 1 << 20;
/// Ubuntu's Release, one stanza with all its files, is some 0.3 MB.
const STANZA_CAP: usize = 16 << 20;

/// What is wrong with a control file.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A line that is no field.
    #[error("line {line}: {problem}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// The reader beneath failed, e.g. while decompressing.
    #[error("line {line}: cannot read on")]
    Read {
        /// From 1.
        line: usize,
        /// What the reader said.
        #[source]
        source: io::Error,
    },
}

/// The fields of one stanza, in order; a continuation line follows its field after a newline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stanza(Vec<(String, String)>);

impl Stanza {
    /// A field's value; names are matched without regard to case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// A field's value, which is then gone.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let (_, value) = self.0.iter_mut().find(|(field, _)| field.eq_ignore_ascii_case(name))?;
        Some(std::mem::take(value))
    }
}

/// Reads stanzas one by one, keeping only the fields that are asked for.
pub struct Stanzas<'a, R> {
    reader: R,
    keep: &'a [&'a str],
    line: usize,
    buffer: Vec<u8>,
}

impl<'a, R: BufRead> Stanzas<'a, R> {
    /// `keep` names the fields to hold; empty: all.
    pub fn new(reader: R, keep: &'a [&'a str]) -> Self {
        Self { reader, keep, line: 0, buffer: Vec::new() }
    }

    fn refuse(&self, problem: &'static str) -> ControlError {
        ControlError::Line { line: self.line, problem }
    }

    /// Reads one line without its end into the buffer; false at the end.
    fn read_line(&mut self) -> Result<bool, ControlError> {
        self.buffer.clear();
        self.line += 1;
        let read = (&mut self.reader).take(LINE_CAP).read_until(b'\n', &mut self.buffer);
        let n = read.map_err(|source| ControlError::Read { line: self.line, source })?;
        if n as u64 == LINE_CAP {
            return Err(self.refuse("expected a line of less than 1 MiB, found a longer one"));
        }
        while self.buffer.last().is_some_and(|c| b"\r\n".contains(c)) {
            self.buffer.pop();
        }
        Ok(n > 0)
    }

    /// The next stanza, or none at the end. A stanza none of whose fields are kept comes back empty.
    pub fn next_stanza(&mut self) -> Result<Option<Stanza>, ControlError> {
        let mut stanza = Stanza::default();
        let mut size = 0;
        // Whether a field was seen at all, and whether the last one is kept.
        let (mut begun, mut kept) = (false, false);
        while self.read_line()? {
            if self.buffer.iter().all(|c| b" \t".contains(c)) {
                if begun {
                    return Ok(Some(stanza));
                }
                continue;
            }
            if self.buffer[0] == b'#' {
                continue;
            }
            size += self.buffer.len();
            if size > STANZA_CAP {
                return Err(self.refuse("expected a stanza of at most 16 MiB, found a larger one"));
            }
            if b" \t".contains(&self.buffer[0]) {
                if !begun {
                    return Err(self.refuse("expected a field, found a continuation line"));
                }
                if kept {
                    let text = str::from_utf8(&self.buffer).map_err(|_| self.refuse("expected UTF-8"))?;
                    let (_, value) = stanza.0.last_mut().expect("a kept field was pushed before");
                    value.push('\n');
                    value.push_str(text.trim());
                }
                continue;
            }
            let Some(colon) = self.buffer.iter().position(|c| *c == b':') else {
                return Err(self.refuse("expected `Field: value`, found no colon"));
            };
            let name = str::from_utf8(&self.buffer[..colon]).ok().filter(|name| !name.is_empty() && !name.contains([' ', '\t']));
            let Some(name) = name else { return Err(self.refuse("expected a field's name before the colon")) };
            begun = true;
            kept = self.keep.is_empty() || self.keep.iter().any(|keep| keep.eq_ignore_ascii_case(name));
            if kept {
                if stanza.get(name).is_some() {
                    return Err(self.refuse("expected each field once, found one twice"));
                }
                let value = str::from_utf8(&self.buffer[colon + 1..]).map_err(|_| self.refuse("expected UTF-8"))?;
                stanza.0.push((name.to_owned(), value.trim().to_owned()));
            }
        }
        Ok(begun.then_some(stanza))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], keep: &[&str]) -> Result<Vec<Stanza>, String> {
        let mut stanzas = Stanzas::new(text, keep);
        let mut out = Vec::new();
        while let Some(stanza) = stanzas.next_stanza().map_err(|error| error.to_string())? {
            out.push(stanza);
        }
        Ok(out)
    }

    #[test]
    fn reads_stanzas_and_continuations() {
        let text = b"\n# note\nPackage: a\nDescription: first\n second\n .\n\n\nPackage:b\r\nX-Y: \n";
        let found = all(text, &[]).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].get("description"), Some("first\nsecond\n."));
        assert_eq!((found[1].get("Package"), found[1].get("x-y")), (Some("b"), Some("")));
    }

    #[test]
    fn keeps_only_what_is_asked_for() {
        let found = all(b"Package: a\nMaintainer: \xff\n \xfe\nSize: 1\n", &["Size"]).unwrap();
        assert_eq!((found[0].get("Package"), found[0].get("Size")), (None, Some("1")));
    }

    #[test]
    fn refuses_what_is_no_control_file() {
        for (text, sentence) in [
            (&b"<html>\n"[..], "line 1: expected `Field: value`, found no colon"),
            (b" a\n", "line 1: expected a field, found a continuation line"),
            (b"a b: c\n", "line 1: expected a field's name before the colon"),
            (b"A: 1\na: 2\n", "line 2: expected each field once, found one twice"),
            (b"A: \xff\n", "line 1: expected UTF-8"),
        ] {
            assert_eq!(all(text, &[]).unwrap_err(), sentence);
        }
        let long = vec![b'a'; 2 << 20];
        assert!(all(&long, &[]).unwrap_err().contains("less than 1 MiB"));
        let many = [b"A: 1\n".to_vec(), b" line of some length\n".repeat(1 << 20)].concat();
        assert!(all(&many, &[]).unwrap_err().contains("at most 16 MiB"));
    }
}
