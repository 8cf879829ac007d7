//! Diagnostics for text that a person wrote: line, column, what is wrong, what was perhaps meant; and words for numbers.
//!
//! Layer 0 (words): pure. Used for pack.toml, competition files and locks alike. Must never print the
//! value of a key, which may be a secret; the name of a key is enough.

use serde::de::DeserializeOwned;

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file's name as the user knows it.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// Parses TOML into `T`; an error names line and column and, for an unknown word, the nearest known one.
pub fn parse_toml<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Diagnostic> {
    toml::from_str(text).map_err(|error| {
        let (line, column) = position(text, error.span().map_or(0, |span| span.start));
        let message = without_value(&error.message().trim_end().replace('\n', ", "));
        Diagnostic { file: file.to_owned(), line, column, help: suggestion(&message), message }
    })
}

/// Line and column, both from 1, of a byte offset.
pub fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

/// Line and column of the first place where `[table]` or a key of it stands, or of the file's start.
pub fn locate(text: &str, table: &str, key: Option<&str>) -> (usize, usize) {
    let mut inside = table.is_empty();
    let mut header = 1;
    for (at, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.starts_with('[') {
            inside = trimmed.trim_matches(['[', ']']) == table;
            if inside {
                header = at + 1;
            }
        } else if inside
            && let Some(key) = key
            && trimmed.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
        {
            return (at + 1, line.chars().take_while(|c| c.is_whitespace()).count() + 1);
        }
    }
    (header, 1)
}

/// The nearest of some known words, if one is near enough to have been meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(word.len()) / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// serde says `invalid type: string "…", expected …` with the value in it, which may be a secret: leaves the
/// type. The value may hold quotes and commas itself, so all up to the last `, expected` goes.
fn without_value(message: &str) -> String {
    for (start, _) in message.match_indices("invalid ") {
        let rest = &message[start..];
        let kind = ["invalid type: ", "invalid value: "].into_iter().find(|kind| rest.starts_with(kind));
        let (Some(kind), Some(end)) = (kind, rest.rfind(", expected ")) else { continue };
        let found = &rest[kind.len()..end.max(kind.len())];
        let word = found.split(['"', '`']).next().unwrap_or_default().trim_end();
        return format!("{}{kind}{word}{}", &message[..start], &rest[end..]);
    }
    message.to_owned()
}

/// serde says "unknown field `x`, expected one of `a`, `b`": finds the nearest of those.
fn suggestion(message: &str) -> Option<String> {
    let rest = message.strip_prefix("unknown field ").or_else(|| message.strip_prefix("unknown variant "))?;
    let mut words = rest.split('`').skip(1).step_by(2);
    let found = words.next()?;
    nearest(found, words).map(|near| format!("did you mean `{near}`?"))
}

/// A number with the word for one or for several: `1 file changed`, `0 files changed`.
pub fn count(number: impl std::fmt::Display, one: &str, several: &str) -> String {
    let number = number.to_string();
    let word = if number == "1" { one } else { several };
    format!("{number} {word}")
}

/// Seconds as a person reads them.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Bytes as a person reads them: decimal units, three digits.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// An error with all that lies beneath it, on one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// The first `most` characters of a text from outside, escaped, with a mark where there are more.
pub fn shown(text: &str, most: usize) -> String {
    let mut out: String = text.chars().take(most).flat_map(char::escape_debug).collect();
    if text.chars().nth(most).is_some() {
        out.push('…');
    }
    out
}

/// What a terminal acts on, or shows as what it is not: escapes, bells, and marks that have no width or turn the
/// direction of writing.
pub fn acts_on_terminal(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `%2B` to `+`; what is no escape stays. `None` where the bytes are no UTF-8.
pub fn percent_decoded(text: &str) -> Option<String> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| (*byte as char).to_digit(16));
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        match (bytes[at], digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

/// A JSON text in which nothing acts on a terminal or turns the direction of writing: such characters, which stand
/// in strings alone, are written by their numbers. It says the same.
pub fn harmless_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\n' && acts_on_terminal(c) { out.push_str(&format!("\\u{:04x}", u32::from(c))) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "its keys are named, never read")]
    struct Sample {
        command: Option<String>,
        packages: Option<u8>,
    }

    #[test]
    fn unknown_key_names_place_and_neighbour() {
        let error = parse_toml::<Sample>("pack.toml", "packages = 1\n  comand = 'x'\n").unwrap_err();
        assert_eq!((error.line, error.column), (2, 3));
        assert_eq!(error.help.as_deref(), Some("did you mean `command`?"));
        assert!(parse_toml::<Sample>("f", "command = 'x'").is_ok());
    }

    #[test]
    fn a_value_is_never_shown() {
        for text in ["packages = 'MyS3cret'", "packages = 'a\", expected MyS3cret'", "packages = 8883333", "command = 8883333"] {
            let error = parse_toml::<Sample>("pack.toml", text).unwrap_err().to_string();
            assert!(!error.contains("S3cret") && !error.contains("8883333"), "{error}");
            assert!(error.contains("invalid ") && error.contains(", expected "), "{error}");
        }
        let error = parse_toml::<Sample>("pack.toml", "packages = 'MyS3cret'").unwrap_err();
        assert_eq!(error.message, "invalid type: string, expected u8");
    }

    #[test]
    fn wrong_type_names_place() {
        let error = parse_toml::<Sample>("pack.toml", "\npackages = 'two'\n").unwrap_err();
        assert_eq!((error.line, error.column), (2, 12));
    }

    #[test]
    fn one_is_not_several() {
        assert_eq!([0, 1, 2, 11].map(|n| count(n, "file", "files")), ["0 files", "1 file", "2 files", "11 files"]);
    }

    #[test]
    fn bytes_read_well() {
        for (n, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (3_165_901_114, "3.17 GB"),
            (999_600, "1.00 MB"),
            (15_500_000, "15.5 MB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn what_comes_from_outside_is_harmless() {
        assert_eq!((shown("a\nb", 3), shown("éé", 1), shown("", 0)), ("a\\nb".into(), "é…".into(), String::new()));
        for harmless in ['a', ' ', 'é', '中', '…', '\u{301}'] {
            assert!(!acts_on_terminal(harmless), "{harmless}");
        }
        for acts in ['\x1b', '\x07', '\n', '\u{9b}', '\u{200b}', '\u{200e}', '\u{2028}', '\u{202e}', '\u{2066}', '\u{feff}'] {
            assert!(acts_on_terminal(acts), "{acts:?}");
        }
        assert_eq!(harmless_json("{\n\"\u{202e}\u{200b}é\"}"), "{\n\"\\u202e\\u200bé\"}");
    }

    #[test]
    fn causes_follow_each_other() {
        let cause = std::io::Error::other("no room");
        let error = crate::tool::ToolError::Io { action: "write", path: "a".into(), source: cause };
        assert_eq!(with_causes(&error), "cannot write `a`: no room");
        assert_eq!(with_causes(&std::io::Error::other("alone")), "alone");
    }

    #[test]
    fn escapes_of_addresses() {
        for (text, expected) in [
            ("a%2Bb", Some("a+b")),
            ("%c3%A9", Some("é")),
            ("é%20", Some("é ")),
            ("%", Some("%")),
            ("%2", Some("%2")),
            ("%zz%2", Some("%zz%2")),
            // A sign is no digit.
            ("%+f%-1", Some("%+f%-1")),
            // What was decoded is not decoded again.
            ("%2%42B", Some("%2BB")),
            ("%é0", Some("%é0")),
            ("%ff", None),
            ("%c3", None),
        ] {
            assert_eq!(percent_decoded(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn locate_finds_tables_and_keys() {
        let text = "[a]\nx = 1\n[b.c]\n  x = 2\n";
        assert_eq!(locate(text, "b.c", Some("x")), (4, 3));
        assert_eq!(locate(text, "b.c", None), (3, 1));
        assert_eq!(locate(text, "none", Some("x")), (1, 1));
    }
}
