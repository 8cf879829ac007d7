//! Secrets: what must not enter a lock, an image, a log or an error.
//!
//! Layer 2 (decisions): pure. Finds strings of the shape of access tokens and keys, and addresses with a
//! password in them. Must never return the secret itself: a finding has a place and a kind.

use std::io::{self, Read};
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

/// A secret's place and kind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Secret {
    /// Line, from 1.
    pub line: usize,
    /// What it looks like.
    pub kind: &'static str,
}

/// Prefix, how many characters of the token's alphabet must follow, kind.
const TOKENS: &[(&str, usize, &str)] = &[
    ("hf_", 30, "a Hugging Face token"),
    ("ghp_", 36, "a GitHub token"),
    ("gho_", 36, "a GitHub token"),
    ("ghs_", 36, "a GitHub token"),
    ("github_pat_", 50, "a GitHub token"),
    ("glpat-", 20, "a GitLab token"),
    ("pypi-AgE", 50, "a package index token"),
    ("sk-ant-", 40, "an Anthropic key"),
    ("sk-proj-", 40, "an OpenAI key"),
    ("xoxb-", 40, "a Slack token"),
    ("AKIA", 16, "an AWS access key"),
    ("AIza", 35, "a Google key"),
    ("wandb_v1_", 40, "a Weights & Biases key"),
];

/// Names of files that hold credentials by convention: where they end, what they are.
const RISKY: &[(&str, &str)] = &[
    (".aws/credentials", "AWS keys"),
    (".env", "a file of variables"),
    (".git-credentials", "git passwords"),
    (".netrc", "passwords of hosts"),
    (".pypirc", "package index passwords"),
    ("credentials.json", "a service's credentials"),
    ("id_ecdsa", "a private key"),
    ("id_ed25519", "a private key"),
    ("id_rsa", "a private key"),
    ("kaggle.json", "a Kaggle key"),
];

/// What a file of this relative path holds by convention, where that is a secret.
pub fn risky_name(path: &str) -> Option<&'static str> {
    let ends = |name: &str| path.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('/'));
    if let Some((_, what)) = RISKY.iter().find(|(name, _)| ends(name)) {
        return Some(what);
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    let shown = [".env.example", ".env.sample", ".env.template"].contains(&name);
    (name.starts_with(".env.") && !shown).then_some("a file of variables")
}

/// The longest piece of a line that is looked at at once, in bytes.
const PIECE: usize = 64 << 10;
/// How much of a piece is looked at again with the next one: longer than any secret that is looked for.
const OVERLAP: usize = 4 << 10;

/// What every secret that is looked for has in it: a line without any of these is not looked at.
static MARKS: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let prefixes = TOKENS.iter().map(|(prefix, ..)| *prefix);
    let others = ["sk-", "-----BEGIN ", "://"].into_iter().chain(NAMES);
    AhoCorasick::new(prefixes.chain(others)).expect("the marks are few and short")
});

/// All secrets in a text, by line. Bytes that are not UTF-8 are looked at too.
pub fn find(text: &[u8]) -> Vec<Secret> {
    let mut found = Vec::new();
    // The number of the line that begins at `counted`, and where lines begin that were not judged yet.
    let (mut number, mut counted, mut open) = (1, 0, 0);
    for mark in MARKS.find_iter(text) {
        if mark.start() < open {
            continue;
        }
        let begin = memchr::memrchr(b'\n', &text[open..mark.start()]).map_or(open, |at| open + at + 1);
        let end = memchr::memchr(b'\n', &text[mark.end()..]).map_or(text.len(), |at| mark.end() + at);
        number += memchr::memchr_iter(b'\n', &text[counted..begin]).count();
        counted = begin;
        open = end.saturating_add(1).min(text.len());
        if let Some(kind) = in_line(&text[begin..end]) {
            found.push(Secret { line: number, kind });
        }
    }
    found
}

/// The first secret in a line, which is looked at piece by piece where it is long.
fn in_line(line: &[u8]) -> Option<&'static str> {
    let mut rest = line;
    loop {
        if let Some(kind) = kind_of(&rest[..rest.len().min(PIECE)]) {
            return Some(kind);
        }
        if rest.len() <= PIECE {
            return None;
        }
        rest = &rest[PIECE - OVERLAP..];
    }
}

/// All secrets in what a reader gives, by line; memory does not grow with its length or that of its lines.
pub fn find_in(mut reader: impl Read) -> io::Result<Vec<Secret>> {
    let mut found: Vec<Secret> = Vec::new();
    // The line number of the first byte of `buffer`, which is less than a piece and the end of its line to come.
    let (mut number, mut buffer) = (1, Vec::with_capacity(2 * PIECE));
    loop {
        let read = reader.by_ref().take(PIECE as u64).read_to_end(&mut buffer)?;
        let whole = match memchr::memrchr(b'\n', &buffer) {
            _ if read == 0 => buffer.len(),
            Some(at) => at + 1,
            None => 0,
        };
        let mut see = |text: &[u8], number: usize| {
            for secret in find(text) {
                let line = number + secret.line - 1;
                if found.last().is_none_or(|last| last.line != line) {
                    found.push(Secret { line, kind: secret.kind });
                }
            }
        };
        see(&buffer[..whole], number);
        number += memchr::memchr_iter(b'\n', &buffer[..whole]).count();
        buffer.drain(..whole);
        if read == 0 {
            return Ok(found);
        }
        if buffer.len() >= PIECE {
            see(&buffer, number);
            buffer.drain(..buffer.len() - OVERLAP);
        }
    }
}

fn kind_of(line: &[u8]) -> Option<&'static str> {
    token(line)
        .or_else(|| {
            let begins = |at: usize| positions(&line[at..], b"PRIVATE KEY-----").next().is_some();
            positions(line, b"-----BEGIN ").any(begins).then_some("a private key")
        })
        .or_else(|| address(line))
        .or_else(|| query(line))
        .or_else(|| assignment(line))
}

/// A token whose prefix tells what it is.
fn token(line: &[u8]) -> Option<&'static str> {
    for (prefix, least, kind) in TOKENS {
        for at in positions(line, prefix.as_bytes()) {
            let before = at.checked_sub(1).map(|before| line[before]);
            if before.is_some_and(|byte| byte.is_ascii_alphanumeric()) {
                continue;
            }
            let tail = &line[at + prefix.len()..];
            if tail.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte)).count() >= *least {
                return Some(kind);
            }
        }
    }
    // The classic form has no mark but its prefix, so words with hyphens must not count.
    let classic = |at: usize| {
        let before = at.checked_sub(1).map(|before| line[before]);
        let value = run(&line[at + 3..], |byte| byte.is_ascii_alphanumeric());
        before.is_none_or(|byte| !byte.is_ascii_alphanumeric() && !b"-_".contains(&byte)) && value.len() >= 40 && mixed(value)
    };
    positions(line, b"sk-").any(classic).then_some("an OpenAI key")
}

/// `://user:password@host`, and `://token@host`.
fn address(line: &[u8]) -> Option<&'static str> {
    for at in positions(line, b"://") {
        let authority = run(&line[at + 3..], |byte| !b"/ \t\r\"'<>`)?#,".contains(&byte));
        // A password may hold an `@` itself.
        let Some(end) = authority.iter().rposition(|byte| *byte == b'@') else { continue };
        let user = &authority[..end];
        match user.iter().position(|byte| *byte == b':') {
            Some(colon) if !is_placeholder(&user[colon + 1..]) => return Some("an address with a password"),
            None if user.len() >= 20 && user.iter().all(u8::is_ascii_alphanumeric) => return Some("an address with a token"),
            _ => {}
        }
    }
    None
}

/// A password that shows how, not what: `${TOKEN}`, `<password>`, `***`, `%s`, `password`.
fn is_placeholder(value: &[u8]) -> bool {
    const WORDS: &[&str] = &["pass", "passwd", "password", "pw", "pwd", "secret", "token", "api_key", "apikey", "key"];
    value.iter().any(|byte| b"${}<>[]".contains(byte))
        || value.iter().all(|byte| b"*.xX".contains(byte))
        || value.starts_with(b"%s")
        || WORDS.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()))
}

/// An address whose query holds a token or is signed.
fn query(line: &[u8]) -> Option<&'static str> {
    const KEYS: &[&str] = &["token", "access_token", "sig", "signature", "x-amz-signature"];
    for at in positions(line, b"://") {
        let address = run(&line[at..], |byte| !b" \t\r\"'<>`)".contains(&byte));
        let Some(mark) = address.iter().position(|byte| *byte == b'?') else { continue };
        for pair in address[mark + 1..].split(|byte| b"&#;".contains(byte)) {
            let Some(equals) = pair.iter().position(|byte| *byte == b'=') else { continue };
            let (key, value) = (&pair[..equals], &pair[equals + 1..]);
            let known = KEYS.iter().any(|known| key.eq_ignore_ascii_case(known.as_bytes()));
            if known && value.len() >= 16 && !is_placeholder(value) {
                return Some("an address with a token");
            }
        }
    }
    None
}

/// How names of variables end that hold a secret.
const NAMES: [&str; 4] = ["_TOKEN", "_KEY", "_SECRET", "PASSWORD"];

/// `MY_TOKEN = "…"`: a variable of such a name that is given something random.
fn assignment(line: &[u8]) -> Option<&'static str> {
    for ending in NAMES {
        for at in positions(line, ending.as_bytes()) {
            let mut rest = &line[at + ending.len()..];
            // The name may stand in quotes, as in JSON.
            rest = rest.strip_prefix(b"\"").or_else(|| rest.strip_prefix(b"'")).unwrap_or(rest).trim_ascii_start();
            let Some(after) = rest.strip_prefix(b"=").or_else(|| rest.strip_prefix(b":")) else { continue };
            let after = after.trim_ascii_start();
            let after = after.strip_prefix(b"\"").or_else(|| after.strip_prefix(b"'")).unwrap_or(after);
            let value = run(after, |byte| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte));
            let next = after.get(value.len()).copied().unwrap_or(b' ');
            // `os.environ[…]`, `${…}`, `f(x)`, `<your key here>` name where the secret is, or none.
            let ends = next.is_ascii_whitespace() || b"\"',;#}&|)".contains(&next);
            if ends && value.len() >= 20 && mixed(value) && !looks_like_words(value) {
                return Some("a key or password");
            }
        }
    }
    None
}

/// Whether letters and digits stand together.
fn mixed(value: &[u8]) -> bool {
    value.iter().any(u8::is_ascii_alphabetic) && value.iter().any(u8::is_ascii_digit)
}

/// Whether a value reads as words, such as a path or `sha256-of-the-file`: split at its marks, no part is long
/// and mixed.
fn looks_like_words(value: &[u8]) -> bool {
    let is_long = |part: &[u8]| part.len() >= 12 && mixed(part);
    !value.split(|byte| b"/_-=".contains(byte)).any(is_long)
}

fn run(text: &[u8], of: impl Fn(u8) -> bool) -> &[u8] {
    &text[..text.iter().position(|byte| !of(*byte)).unwrap_or(text.len())]
}

fn positions<'a>(line: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    // No needle overlaps itself, so that none is missed behind another.
    memchr::memmem::find_iter(line, needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_and_look_alikes_are_not() {
        let fake = "EXAMPLE".repeat(6);
        for (text, kind) in [
            (format!("token = \"hf_{fake}\""), "a Hugging Face token"),
            (format!("\n\nghp_{fake}"), "a GitHub token"),
            ("-----BEGIN RSA PRIVATE KEY-----".to_owned(), "a private key"),
            ("url = \"https://me:secretpassword@host/simple\"".to_owned(), "an address with a password"),
        ] {
            let found = find(text.as_bytes());
            assert_eq!(found.len(), 1, "{text}");
            assert_eq!(found[0].kind, kind);
            assert_eq!(found[0].line, text.matches('\n').count() + 1);
        }
    }

    #[test]
    fn each_form_beside_its_look_alike() {
        let (mixed, hex) = ("a1B2c3D4e5F6g7H8i9J0".repeat(2), "0123456789abcdef".repeat(4));
        let key = "an OpenAI key";
        for (text, kind) in [
            (format!("sk-{mixed}xyz"), key),
            (format!("client('sk-{mixed}')"), key),
            (format!("WANDB_API_KEY={hex}"), "a key or password"),
            (format!("export DB_PASSWORD = '{mixed}'"), "a key or password"),
            (format!("\"MY_SECRET\": \"{mixed}\","), "a key or password"),
            (format!("MY_TOKEN: {mixed}"), "a key or password"),
            ("https://me:p@host/x".into(), "an address with a password"),
            ("https://me:p@ss@host/x".into(), "an address with a password"),
            ("https://me:100%25sure@host/x".into(), "an address with a password"),
            (format!("https://{mixed}@host/x"), "an address with a token"),
            (format!("https://host/x?a=1&token={mixed}"), "an address with a token"),
            (format!("https://host/x?X-Amz-Signature={hex}"), "an address with a token"),
            (format!("https://host/x?sig={mixed}&b"), "an address with a token"),
        ] {
            assert_eq!(find(text.as_bytes()), [Secret { line: 1, kind }], "{text}");
        }
        for text in [
            "hf_hub_download(repo)".to_owned(),
            "self_hf_".into(),
            "https://user@host/x".into(),
            "https://me:${TOKEN}@host/".into(),
            "https://me:<password>@host/".into(),
            "https://user:password@host/".into(),
            "https://user:***@host/".into(),
            "https://{user}:{password}@host/".into(),
            "mail a:b@c".into(),
            "ssh://git@host:22/x".into(),
            "https://host:8080/@scope/name".into(),
            "https://host/?mail=a@b:c".into(),
            String::new(),
            // Digests are no secrets.
            format!("sha256 = \"{hex}\""),
            format!("hash: {hex}"),
            format!("numpy==2.2.6 --hash=sha256:{hex} --hash=sha256:{hex}"),
            format!("numpy==2.2.6 \\\n    --hash=sha256:{hex} \\\n    --hash=sha256:{hex}\n"),
            format!("FILE_SHA256 = \"{hex}\""),
            format!("https://host/x?digest={hex}#sha256={hex}"),
            // Where a secret is, or its name.
            "API_KEY = os.environ[\"API_KEY_OF_THE_2ND_TEAM\"]".into(),
            "HF_TOKEN=${{ secrets.HF_TOKEN_1234567890abc }}".into(),
            "HF_TOKEN=$HF_TOKEN_1234567890_1234567890".into(),
            "HF_TOKEN = \"<your token, 40 letters and digits: 1234>\"".into(),
            "MY_KEY = load_key_from_file_2(path)".into(),
            "SORT_KEY = \"column_1_of_the_second_table_2\"".into(),
            "PAD_TOKEN = \"<|reserved_special_token_250|>\"".into(),
            "EOS_TOKEN: end-of-sentence-token-number-1".into(),
            "CACHE_KEY = 12345678901234567890123".into(),
            "https://host/x?token=short".into(),
            "https://host/x?token={token}&padding_of_it=1".into(),
            format!("task-{}", "sk-".repeat(30)),
            format!("risk-{mixed}xyz"),
        ] {
            assert_eq!(find(text.as_bytes()), [], "{text}");
        }
    }

    #[test]
    fn a_stream_gives_what_the_whole_text_gives() {
        /// Gives a few bytes at a time.
        struct Slow<'a>(&'a [u8], usize);
        impl Read for Slow<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let most = self.1.min(buffer.len());
                (&mut self.0).take(most as u64).read(&mut buffer[..most])
            }
        }
        let token = format!("hf_{}", "EXAMPLE".repeat(6));
        let pad = |n: usize| " ".repeat(n);
        for (text, lines) in [
            (format!("a\n{token}\n\n{token}"), vec![2, 4]),
            (format!("{}{token}\n{token}", pad(PIECE - 10)), vec![1, 2]),
            (format!("x\n{}{token}{}{token}\nend", pad(3 * PIECE - 20), pad(PIECE)), vec![2]),
            (format!("{}\n", "x\n".repeat(PIECE)) + &token, vec![PIECE + 2]),
            (pad(5 * PIECE), vec![]),
            (String::new(), vec![]),
        ] {
            assert_eq!(find(text.as_bytes()).iter().map(|secret| secret.line).collect::<Vec<_>>(), lines);
            for step in [4099, usize::MAX] {
                let found = find_in(Slow(text.as_bytes(), step)).unwrap();
                assert_eq!(found.iter().map(|secret| secret.line).collect::<Vec<_>>(), lines);
            }
        }
    }

    #[test]
    fn files_of_credentials_are_known_by_name() {
        for name in [".env", "a/.env", ".env.local", ".netrc", "home/.aws/credentials", "id_rsa", "x/kaggle.json", ".pypirc"] {
            assert!(risky_name(name).is_some(), "{name}");
        }
        for name in
            [".env.example", "a/.env.template", "env", "x.env", "id_rsa.pub", "my_id_rsa", "aws/credentials", "environment.py"]
        {
            assert_eq!(risky_name(name), None, "{name}");
        }
    }
}
