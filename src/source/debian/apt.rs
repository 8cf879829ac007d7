//! Apt: the host's `sources.list` and `.sources` files, read for archive roots.
//!
//! Layer 1 (documents): pure. What is read here is a hint: whether a root really is the distribution's is
//! told by the signed Release and nothing else. Options such as `trusted=yes` and `Signed-By` are not
//! looked at, since only embedded keys count.

use url::Url;

use super::control::{ControlError, Stanzas};

/// One place that apt would fetch packages from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AptSource {
    /// The archive's root.
    pub root: Url,
    /// The suite there.
    pub suite: String,
    /// Its sections.
    pub components: Vec<String>,
}

/// Reads the one-line form: `deb [option=value ...] URI suite component...`. Lines of another form, for
/// source packages or for flat repositories are no archive of ours and are passed over.
pub fn parse_list(text: &str) -> Vec<AptSource> {
    text.lines().filter_map(one_line).collect()
}

fn one_line(line: &str) -> Option<AptSource> {
    let line = line.split('#').next().unwrap_or("").trim();
    let mut rest = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t']))?.trim_start();
    if let Some(options) = rest.strip_prefix('[') {
        let (options, after) = options.split_once(']')?;
        if !serves_here(option(options, "arch")) {
            return None;
        }
        rest = after.trim_start();
    }
    let mut words = rest.split_whitespace();
    let root = root(words.next()?)?;
    let suite = words.next()?.to_owned();
    let components: Vec<String> = words.map(str::to_owned).collect();
    (!components.is_empty()).then_some(AptSource { root, suite, components })
}

fn option<'a>(options: &'a str, name: &str) -> Option<&'a str> {
    options.split_whitespace().find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
}

/// Reads the deb822 form, whose fields may hold several roots and suites.
///
/// # Errors
/// Where the text is no control file at all.
pub fn parse_sources(text: &str) -> Result<Vec<AptSource>, ControlError> {
    let mut stanzas = Stanzas::new(text.as_bytes(), &[]);
    let mut sources = Vec::new();
    while let Some(stanza) = stanzas.next_stanza()? {
        let words = |field| stanza.get(field).unwrap_or("").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let off =
            stanza.get("Enabled").is_some_and(|value| matches!(value, "no" | "false" | "0" | "off" | "without" | "disable"));
        let components = words("Components");
        if off
            || components.is_empty()
            || !words("Types").iter().any(|kind| kind == "deb")
            || !serves_here(stanza.get("Architectures"))
        {
            continue;
        }
        for root in words("URIs").iter().filter_map(|text| root(text)) {
            for suite in words("Suites") {
                sources.push(AptSource { root: root.clone(), suite, components: components.clone() });
            }
        }
    }
    Ok(sources)
}

/// Whether an architecture restriction leaves ours in.
fn serves_here(architectures: Option<&str>) -> bool {
    architectures.is_none_or(|list| list.split([',', ' ', '\n', '\t']).any(|word| word == super::index::ARCHITECTURE))
}

/// An archive's root, where it is one that can be fetched from; discs and mirror lists are not.
fn root(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    (matches!(url.scheme(), "http" | "https" | "file") && !url.cannot_be_a_base()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(sources: &[AptSource]) -> Vec<String> {
        sources.iter().map(|source| format!("{} {} {}", source.root, source.suite, source.components.join(","))).collect()
    }

    #[test]
    fn reads_the_one_line_form() {
        let text = "# deb http://m.example/debian old main\n\
            deb http://m.example/debian bookworm main contrib # ours\n\
            deb-src http://m.example/debian bookworm main\n\
            deb\t[arch=amd64 signed-by=/k.gpg] https://other.example/x/ bookworm stable\n\
            deb [ arch=arm64 ] http://arm.example/debian bookworm main\n\
            deb cdrom:[Debian]/ bookworm main\n\
            deb mirror+file:/etc/apt/mirrors.txt jammy main\n\
            deb http://flat.example/ ./\n\
            debris http://m.example bookworm main\n\
            deb [arch=amd64 http://broken.example bookworm main\n";
        assert_eq!(
            show(&parse_list(text)),
            ["http://m.example/debian bookworm main,contrib", "https://other.example/x/ bookworm stable"]
        );
    }

    #[test]
    fn reads_the_deb822_form() {
        let text = "Types: deb deb-src\n# http://comment.example\nURIs: http://m.example/debian http://n.example/debian\nSuites: bookworm\n bookworm-updates\nComponents: main\n\n\
            Enabled: no\nTypes: deb\nURIs: http://off.example\nSuites: bookworm\nComponents: main\n\n\
            Types: deb-src\nURIs: http://src.example\nSuites: bookworm\nComponents: main\n\n\
            Types: deb\nURIs: http://arm.example\nSuites: bookworm\nComponents: main\nArchitectures: arm64\n\n\
            Types: deb\nURIs: http://u.example/ubuntu\nSuites: jammy-security\nComponents: main universe\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n";
        assert_eq!(
            show(&parse_sources(text).unwrap()),
            [
                "http://m.example/debian bookworm main",
                "http://m.example/debian bookworm-updates main",
                "http://n.example/debian bookworm main",
                "http://n.example/debian bookworm-updates main",
                "http://u.example/ubuntu jammy-security main,universe",
            ]
        );
        assert!(parse_sources("<html>").is_err());
    }
}
