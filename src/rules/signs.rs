//! Signs of generated text: phrases that models say of themselves, counted in a stream.
//!
//! Layer 2 (decisions): pure; the caller opens what is read. Memory does not grow with the length of a file or of a
//! line. A sign is no proof: people write about models too. Must never judge what it counts.

use std::io::{self, Read};

use aho_corasick::AhoCorasick;
use serde::{Deserialize, Serialize};

/// The phrases, in any letter case.
pub const PHRASES: [&str; 18] = [
    "as an ai language model",
    "as a large language model",
    "as an ai assistant",
    "i am an ai language model",
    "i'm an ai language model",
    "my knowledge cutoff",
    "trained by openai",
    "created by openai",
    "i am chatgpt",
    "i'm chatgpt",
    "i\u{2019}m an ai language model",
    "i\u{2019}m chatgpt",
    "i'm sorry, but as an ai",
    "i am an artificial intelligence language model",
    "as of my last knowledge update",
    "as of my knowledge cutoff",
    "trained by anthropic",
    "i cannot fulfill that request as an ai",
];
/// Samples that are kept.
const SAMPLES: usize = 3;
/// Bytes shown on each side of a sample.
const AROUND: usize = 60;
/// Bytes read at once.
const PIECE: usize = 1 << 20;
/// Bytes looked at again with the next piece: longer than any phrase and what is shown around it.
const OVERLAP: usize = 256;

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signs {
    /// How many phrases.
    pub count: u64,
    /// The first of them.
    pub samples: Vec<Sample>,
}

/// A phrase with what stands around it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Line, from 1.
    pub line: u64,
    /// The text, on one line, without control characters.
    pub text: String,
}

/// A finder of the phrases; made once.
pub fn finder() -> AhoCorasick {
    AhoCorasick::builder().ascii_case_insensitive(true).build(PHRASES).expect("the phrases are few and short")
}

/// Counts signs in what a reader gives.
pub fn find(finder: &AhoCorasick, mut reader: impl Read) -> io::Result<Signs> {
    let mut signs = Signs::default();
    let mut buffer = vec![0; PIECE + 2 * OVERLAP];
    // Bytes of the buffer that hold something, from where phrases are new, and the lines before the buffer.
    let (mut filled, mut fresh, mut lines) = (0, 0, 0u64);
    loop {
        let mut ended = false;
        while filled < buffer.len() && !ended {
            match reader.read(&mut buffer[filled..]) {
                Ok(0) => ended = true,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // What begins near the end is found with the next piece, where all that surrounds it is there.
        let until = if ended { filled } else { filled - OVERLAP };
        let text = &buffer[..filled];
        let (mut counted, mut line) = (0, lines);
        for found in finder.find_iter(&text[fresh..]) {
            let (start, end) = (fresh + found.start(), fresh + found.end());
            if start >= until {
                break;
            }
            signs.count += 1;
            if signs.samples.len() < SAMPLES {
                line += newlines(&text[counted..start]);
                counted = start;
                let around = &text[start.saturating_sub(AROUND)..(end + AROUND).min(filled)];
                let shown = String::from_utf8_lossy(around).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                signs.samples.push(Sample { line: line + 1, text: shown });
            }
        }
        if ended {
            return Ok(signs);
        }
        let keep = until - OVERLAP;
        lines += newlines(&text[..keep]);
        buffer.copy_within(keep..filled, 0);
        filled -= keep;
        fresh = until - keep;
    }
}

fn newlines(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(text: &[u8]) -> Signs {
        find(&finder(), text).unwrap()
    }

    #[test]
    fn phrases_are_counted_once_wherever_a_piece_ends() {
        assert_eq!(signs(b""), Signs::default());
        assert_eq!(signs(b"An AI wrote language.\n").count, 0);
        let phrase = b"As an AI language model";
        for before in [0, 1, PIECE - 5, PIECE + OVERLAP - 11, PIECE + OVERLAP, PIECE + 2 * OVERLAP - 3, 3 * PIECE] {
            let mut text = b"x\n".repeat(before / 2 + 1);
            let line = text.len() as u64 / 2 + 1;
            text.extend(phrase);
            text.extend(b", I");
            let found = signs(&text);
            assert_eq!((found.count, found.samples[0].line), (1, line), "{before}");
            assert!(found.samples[0].text.ends_with("As an AI language model, I"), "{found:?}");
        }
    }

    #[test]
    fn a_line_without_end_and_many_signs_take_no_memory() {
        let endless = io::repeat(b'x').take(64 << 20);
        assert_eq!(find(&finder(), endless).unwrap().count, 0);
        let many = signs(&b"I am ChatGPT ".repeat(200_000));
        assert_eq!((many.count, many.samples.len()), (200_000, 3));
        assert!(!signs(b"\x1b[2J trained by OpenAI").samples[0].text.contains('\x1b'));
    }
}
