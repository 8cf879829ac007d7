//! Pattern: `*` for any text, in any letter case; as short as organizers write it.
//!
//! Layer 1 (documents): pure. Takes time linear in pattern times text, whatever either holds.

/// Whether the whole of a text fits a pattern.
pub fn matches(pattern: &str, text: &str) -> bool {
    let lower = |text: &str| text.chars().flat_map(char::to_lowercase).collect::<Vec<char>>();
    let (pattern, text) = (lower(pattern), lower(text));
    let (mut p, mut t) = (0, 0);
    // Where the last star stood, and how much of the text it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            p = at + 1;
            t = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_stand_for_any_text_and_case_does_not_count() {
        for (pattern, text) in
            [("a/b", "A/B"), ("*-chat*", "meta-llama/Llama-2-7b-Chat-hf"), ("*", ""), ("a*c*e", "abcde"), ("*aab", "aaaab")]
        {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a/b", "a/bc"), ("*-chat", "x-chat-hf"), ("", "a"), ("a*c", "ab"), ("flan-*", "google/flan-t5")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        // Many stars and no end: a naive matcher would still be here tomorrow.
        assert!(!matches(&"*a".repeat(200), &"a".repeat(199)));
    }
}
