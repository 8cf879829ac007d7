//! Choose: which files of a wheel, a repository or a hub an author's patterns name.
//!
//! Layer 3 by place; pure. Must never leave out a pattern that matches nothing without saying so.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::path::ImagePath;
use crate::text::nearest;

/// Which of some files match, and their paths without the prefix. Patterns are relative to the
/// source's root; `*` stays within a folder and `**` does not; none takes all files. The number is the place in
/// `names`. Refused: a pattern that matches nothing, and a chosen file outside the prefix.
pub fn choose(names: &[&str], patterns: &[String], strip: Option<&str>) -> Result<Vec<(usize, ImagePath)>, String> {
    let mut sets: Vec<(&str, GlobSet)> = Vec::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        let glob = glob.map_err(|error| format!("the pattern `{}` cannot be read: {}", pattern.escape_debug(), error.kind()))?;
        let set = GlobSetBuilder::new().add(glob).build().map_err(|error| error.to_string())?;
        sets.push((pattern, set));
    }
    let mut idle: Vec<String> = Vec::new();
    for (pattern, set) in &sets {
        if !names.iter().any(|name| set.is_match(name)) {
            let near = nearest(pattern, names.iter().copied());
            idle.push(match near {
                Some(near) => format!("the pattern `{}` matches nothing (did you mean `{near}`?)", pattern.escape_debug()),
                None => format!("the pattern `{}` matches nothing; it holds {}", pattern.escape_debug(), some_of(names)),
            });
        }
    }
    if !idle.is_empty() {
        return Err(idle.join("; "));
    }
    let prefix = strip.map(|strip| format!("{}/", strip.trim_end_matches('/')));
    let mut chosen = Vec::new();
    for (at, name) in names.iter().enumerate() {
        if !sets.is_empty() && !sets.iter().any(|(_, set)| set.is_match(name)) {
            continue;
        }
        let rest = match &prefix {
            Some(prefix) => name.strip_prefix(prefix.as_str()).ok_or_else(|| {
                format!("`{name}` does not lie under `{}`, which `strip` names", prefix.trim_end_matches('/').escape_debug())
            })?,
            None => name,
        };
        chosen.push((at, ImagePath::new(rest).map_err(|error| error.to_string())?));
    }
    if chosen.is_empty() { Err("it holds no files".into()) } else { Ok(chosen) }
}

fn some_of(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(SHOWN) {
        0 if names.is_empty() => "no files".into(),
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["pkg/__init__.py", "pkg/model/config.json", "pkg/model/w.gguf", "pkg/model/sub/x.json"];

    fn paths(patterns: &[&str], strip: Option<&str>) -> Result<Vec<String>, String> {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        Ok(choose(&NAMES, &patterns, strip)?.into_iter().map(|(_, path)| path.to_string()).collect())
    }

    #[test]
    fn patterns_choose_and_strip() {
        assert_eq!(paths(&["pkg/model/*"], Some("pkg/model")).unwrap(), ["config.json", "w.gguf"]);
        assert_eq!(paths(&["pkg/model/**"], Some("pkg/model/")).unwrap(), ["config.json", "w.gguf", "sub/x.json"]);
        assert_eq!(paths(&[], None).unwrap().len(), 4);
        for (patterns, strip, expected) in [
            (&["pkg/model/w.ggu"][..], None, "the pattern `pkg/model/w.ggu` matches nothing (did you mean `pkg/model/w.gguf`?)"),
            (&["*.safetensors"], None, "the pattern `*.safetensors` matches nothing; it holds `pkg/__init__.py`, "),
            (&["x*", "y*"], None, "`x*` matches nothing"),
            (&["x*", "y*"], None, "; the pattern `y*` matches nothing"),
            (&["pkg/[", "y*"], None, "the pattern `pkg/[` cannot be read"),
            (&["**"], Some("pkg/model"), "`pkg/__init__.py` does not lie under `pkg/model`"),
        ] {
            let error = paths(patterns, strip).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(choose(&[], &[], None).unwrap_err(), "it holds no files");
    }
}
