//! Relation: what Depends, Provides, Conflicts and Breaks say (Debian policy, 7.1).
//!
//! Layer 1 (documents): pure. One machine architecture is served, amd64, so an architecture after a colon
//! is read and judged here and plays no part in solving.

use std::fmt;

use super::version::{Version, VersionError};

/// How a version must stand to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Operator {
    fn as_str(self) -> &'static str {
        match self {
            Operator::Earlier => "<<",
            Operator::EarlierOrEqual => "<=",
            Operator::Equal => "=",
            Operator::LaterOrEqual => ">=",
            Operator::Later => ">>",
        }
    }
}

/// One package named in a relation, perhaps with a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The package, real or virtual.
    pub name: String,
    /// Whether it means a package of this machine's architecture; `libc6:i386` does not.
    pub here: bool,
    /// The versions that will do; all without it.
    pub version: Option<(Operator, Version)>,
}

impl Relation {
    /// Whether a version will do.
    pub fn admits(&self, version: &Version) -> bool {
        self.here
            && match &self.version {
                None => true,
                Some((Operator::Earlier, limit)) => version < limit,
                Some((Operator::EarlierOrEqual, limit)) => version <= limit,
                Some((Operator::Equal, limit)) => version == limit,
                Some((Operator::LaterOrEqual, limit)) => version >= limit,
                Some((Operator::Later, limit)) => version > limit,
            }
    }

    /// Whether a `Provides`, perhaps with a version, will do: one without a version answers only a relation
    /// without one.
    pub fn admits_provided(&self, provided: Option<&Version>) -> bool {
        match provided {
            Some(version) => self.admits(version),
            None => self.here && self.version.is_none(),
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some((operator, version)) = &self.version {
            write!(f, " ({} {version})", operator.as_str())?;
        }
        Ok(())
    }
}

/// Alternatives, of which the first that can be had is taken.
pub type Alternatives = Vec<Relation>;

/// Alternatives as they are written.
pub fn show(alternatives: &[Relation]) -> String {
    alternatives.iter().map(Relation::to_string).collect::<Vec<_>>().join(" | ")
}

/// A text that is not a list of relations.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RelationError {
    /// Its form is wrong.
    #[error("expected a relation such as `libc6 (>= 2.36)`, found `{0}`")]
    Form(String),
    /// A version in it is wrong.
    #[error(transparent)]
    Version(#[from] VersionError),
}

/// Parses `a (>= 1) | b, c`; an empty text is no relation.
pub fn parse(text: &str) -> Result<Vec<Alternatives>, RelationError> {
    let groups = text.split(',').map(str::trim).filter(|group| !group.is_empty());
    groups.map(|group| group.split('|').map(|one| parse_one(one.trim())).collect()).collect()
}

fn parse_one(text: &str) -> Result<Relation, RelationError> {
    let form = || RelationError::Form(text.chars().take(80).flat_map(char::escape_debug).collect());
    let end = text.find(|c: char| c.is_whitespace() || "([<:".contains(c)).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let good = name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c));
    if !good {
        return Err(form());
    }
    let mut here = true;
    if let Some(qualified) = rest.strip_prefix(':') {
        let end = qualified.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(qualified.len());
        here = match &qualified[..end] {
            "" => return Err(form()),
            "any" | "native" | "amd64" | "all" => true,
            _ => false,
        };
        rest = &qualified[end..];
    }
    let rest = rest.trim();
    if rest.is_empty() {
        return Ok(Relation { name: name.to_owned(), here, version: None });
    }
    let inner = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).ok_or_else(form)?.trim();
    let end = inner.find(|c: char| !"<>=".contains(c)).ok_or_else(form)?;
    let operator = match &inner[..end] {
        "<<" => Operator::Earlier,
        // The single signs are old spellings and mean "or equal".
        "<=" | "<" => Operator::EarlierOrEqual,
        "=" => Operator::Equal,
        ">=" | ">" => Operator::LaterOrEqual,
        ">>" => Operator::Later,
        _ => return Err(form()),
    };
    let version = Version::parse(inner[end..].trim())?;
    Ok(Relation { name: name.to_owned(), here, version: Some((operator, version)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_relations() {
        let found = parse("libc6 (>= 2.36), debconf (>= 0.5) | debconf-2.0,\n python3:any (<<3.12) , libstdc++6,").unwrap();
        let shown: Vec<String> = found.iter().map(|group| show(group)).collect();
        assert_eq!(shown, ["libc6 (>= 2.36)", "debconf (>= 0.5) | debconf-2.0", "python3 (<< 3.12)", "libstdc++6"]);
        assert!(parse(" ").unwrap().is_empty());
        let old = parse("a1 (> 1)").unwrap();
        assert!(old[0][0].admits(&Version::parse("1").unwrap()));
    }

    #[test]
    fn another_architecture_is_not_here() {
        for (text, here) in
            [("gcc:native", true), ("gcc:any", true), ("gcc:amd64 (>= 1)", true), ("gcc:i386", false), ("gcc:arm64 (= 1)", false)]
        {
            assert_eq!(parse(text).unwrap()[0][0].here, here, "{text}");
        }
    }

    #[test]
    fn admits_versions() {
        let rows = [
            ("aa", "1", true),
            ("aa (= 1.0-1)", "1.0-1", true),
            ("aa (= 1.0)", "1.0-1", false),
            ("aa (<< 1.0)", "1.0~rc1", true),
            ("aa (>= 1:1)", "2", false),
            ("aa (>> 2.36)", "2.36-9", true),
            ("aa:i386", "1", false),
        ];
        for (relation, version, expected) in rows {
            let relation = &parse(relation).unwrap()[0][0];
            assert_eq!(relation.admits(&Version::parse(version).unwrap()), expected, "{relation} {version}");
        }
        assert!(!parse("aa (>= 1)").unwrap()[0][0].admits_provided(None));
        assert!(parse("aa").unwrap()[0][0].admits_provided(None));
    }

    #[test]
    fn refuses_what_is_no_relation() {
        for text in ["| a1", "a1 |", "a1 (2)", "a1 (>= 1", "a1 (== 1)", "a1 [amd64]", "a1:", "a1 b", "-a", "a1 (>= )"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
