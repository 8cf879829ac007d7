//! Documents beside weights and data that rules read: a card, a model's config.json, lines of JSON.
//!
//! Layer 2 (decisions): pure. What is not understood says nothing; must never take a licence from a card's prose.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Read};

/// Bytes of a line of JSONL that is read as JSON.
pub const MAX_LINE: u64 = 64 << 20;

/// Licences that a card's front matter names: `license: x`, `license: [x, y]`, or a list below it.
pub fn card(text: &str) -> Vec<String> {
    let mut lines = text.lines();
    if lines.next().map(str::trim_end) != Some("---") {
        return Vec::new();
    }
    let (mut found, mut named, mut listing) = (BTreeSet::new(), None, false);
    let clean =
        |word: &str| word.trim().trim_matches(['"', '\'']).chars().filter(|c| !c.is_control()).take(100).collect::<String>();
    for line in lines.take_while(|line| line.trim_end() != "---") {
        if let Some(rest) = line.strip_prefix("license_name:") {
            named = Some(clean(rest));
        } else if let Some(rest) = line.strip_prefix("license:") {
            listing = rest.trim().is_empty();
            let words = rest.trim().trim_matches(['[', ']']).split(',').map(clean);
            found.extend(words.filter(|word| !word.is_empty()));
        } else if let Some(item) = line.trim_start().strip_prefix("- ").filter(|_| listing) {
            found.insert(clean(item));
        } else {
            listing = false;
        }
    }
    if let Some(named) = named
        && found.remove("other")
    {
        found.insert(named);
    }
    found.into_iter().collect()
}

/// What a model's `config.json` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `model_type`.
    pub model_type: Option<String>,
    /// Repositories that `auto_map` takes code from.
    pub remote_code: Vec<String>,
    /// Whether weights are said to be quantised.
    pub quantised: bool,
}

/// Reads a `config.json`; what is no JSON object says nothing.
pub fn config(text: &str) -> Config {
    let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { return Config::default() };
    let maps = value.get("auto_map").and_then(|map| map.as_object()).into_iter().flat_map(|map| map.values());
    // A value is `[repository--]module.Class`, or a list of those.
    let names = maps.flat_map(|one| one.as_array().cloned().unwrap_or_else(|| vec![one.clone()]));
    let mut remote_code: Vec<String> =
        names.filter_map(|name| Some(name.as_str()?.split_once("--")?.0.chars().take(200).collect())).collect();
    remote_code.sort();
    remote_code.dedup();
    let word = |value: &str| value.chars().take(200).filter(|c| !c.is_control()).collect::<String>();
    Config {
        model_type: value.get("model_type").and_then(|value| value.as_str()).map(word),
        remote_code,
        quantised: value.get("quantization_config").is_some(),
    }
}

/// Lines of JSON in a stream, each read once and none kept.
///
/// # Errors
/// The first line that is none, or is longer than [`MAX_LINE`], as a sentence.
pub fn json_lines(mut reader: impl BufRead) -> io::Result<Result<u64, String>> {
    let (mut number, mut lines) = (0u64, 0u64);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(Ok(lines));
        }
        number += 1;
        if line.len() as u64 > MAX_LINE {
            return Ok(Err(format!("line {number} has more than {MAX_LINE} bytes")));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&line) {
            return Ok(Err(format!("line {number} is no JSON: {error}")));
        }
        lines += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_names_its_licences() {
        for (text, expected) in [
            ("---\nlicense: apache-2.0\n---\n", &["apache-2.0"][..]),
            ("---\nlicense:\n- mit\n- \"cc-by-4.0\"\ntags:\n- x\n---\n", &["cc-by-4.0", "mit"]),
            ("---\nlicense: [mit, gpl-3.0]\n---\n", &["gpl-3.0", "mit"]),
            ("---\nlicense: other\nlicense_name: qwen\n---\n", &["qwen"]),
            ("---\ntags: [x]\n---\nlicense: mit\n", &[]),
            ("license: mit\n", &[]),
            ("", &[]),
        ] {
            assert_eq!(card(text), expected, "{text}");
        }
    }

    #[test]
    fn a_config_says_its_type_and_where_its_code_is_from() {
        let text = r#"{"model_type":"mistral","auto_map":{"AutoModel":"tiiuae/falcon-7b--modeling.M","AutoConfig":"own.C","AutoTokenizer":["x/y--t.T",null]},"quantization_config":{}}"#;
        let remote_code = vec!["tiiuae/falcon-7b".to_owned(), "x/y".to_owned()];
        assert_eq!(config(text), Config { model_type: Some("mistral".into()), remote_code, quantised: true });
        for nothing in ["{}", "[1", "[]", "", "7"] {
            assert_eq!(config(nothing), Config::default());
        }
    }

    #[test]
    fn lines_are_json_one_by_one() {
        let said = |text: &str| json_lines(text.as_bytes()).unwrap();
        assert_eq!(said("{\"a\":1}\n\n[2]\n3"), Ok(3));
        assert_eq!(said(""), Ok(0));
        assert!(said("{}\n{]\n").unwrap_err().starts_with("line 2 is no JSON"));
        let long = io::BufReader::new(io::repeat(b'x').take(MAX_LINE + 2));
        assert_eq!(json_lines(long).unwrap(), Err("line 1 has more than 67108864 bytes".to_owned()));
    }
}
