//! Secrets: what must not enter a lock, an image, a log or an error.
//!
//! Layer 2 (decisions): pure. Finds strings of the shape of access tokens and keys, and addresses with a
//! password in them. Must never return the secret itself: a finding has a place and a kind.

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

/// All secrets in a text, by line. Bytes that are not UTF-8 are looked at too.
pub fn find(text: &[u8]) -> Vec<Secret> {
    let mut found = Vec::new();
    for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if let Some(kind) = kind_of(line) {
            found.push(Secret { line: at + 1, kind });
        }
    }
    found
}

fn kind_of(line: &[u8]) -> Option<&'static str> {
    for (prefix, most, kind) in TOKENS {
        for at in positions(line, prefix.as_bytes()) {
            let before = at.checked_sub(1).map(|before| line[before]);
            if before.is_some_and(|byte| byte.is_ascii_alphanumeric()) {
                continue;
            }
            let tail = &line[at + prefix.len()..];
            let length = tail.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte)).count();
            if length >= *most {
                return Some(kind);
            }
        }
    }
    if positions(line, b"-----BEGIN ").any(|at| positions(&line[at..], b"PRIVATE KEY-----").next().is_some()) {
        return Some("a private key");
    }
    for at in positions(line, b"://") {
        let tail = &line[at + 3..];
        let authority = tail.split(|byte| b"/ \"'<>`)".contains(byte)).next().unwrap_or_default();
        if let Some(end) = authority.iter().position(|byte| *byte == b'@')
            && let Some(colon) = authority[..end].iter().position(|byte| *byte == b':')
        {
            let password = &authority[colon + 1..end];
            // `user:${TOKEN}@` and `user:<password>@` show how, not what.
            if password.len() >= 6 && !password.iter().any(|byte| b"${}<>*%".contains(byte)) {
                return Some("an address with a password");
            }
        }
    }
    None
}

fn positions<'a>(line: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    line.windows(needle.len()).enumerate().filter(move |(_, window)| *window == needle).map(|(at, _)| at)
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
        for text in ["hf_hub_download(repo)", "self_hf_", "https://user@host/x", "https://me:${TOKEN}@host/", "mail a:b@c", ""] {
            assert_eq!(find(text.as_bytes()), [], "{text}");
        }
    }
}
