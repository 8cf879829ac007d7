//! ImagePath: the only way to name a file in an image, a tree or an archive.
//!
//! Layer 0 (words): no I/O. A value of this type is relative, normalised, valid UTF-8 and cannot leave
//! the folder it is joined to. Must never be built except through [`ImagePath::new`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest name of one component, in bytes: what Linux file systems hold.
pub const MAX_COMPONENT: usize = 255;
/// The longest path, in bytes: Linux's PATH_MAX less its NUL.
pub const MAX_PATH: usize = 4095;

/// A relative path with `/` between non-empty components, none of them `.` or `..`, without control
/// characters. Ordered by bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImagePath(String);

/// Why a name cannot stand in an image.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PathError {
    /// Nothing is left of the name.
    #[error("empty path")]
    Empty,
    /// Starts with `/`.
    #[error("absolute path `{0}`")]
    Absolute(String),
    /// Has a `..` component.
    #[error("path `{0}` climbs out with `..`")]
    Climbs(String),
    /// Has an empty or `.` component.
    #[error("path `{0}` is not normalised")]
    NotNormal(String),
    /// Has a newline, an escape or another control character.
    #[error("path `{0}` holds a control character")]
    Control(String),
    /// Is not UTF-8; shown escaped.
    #[error("path `{0}` is not UTF-8")]
    NotUtf8(String),
    /// A component or the whole is too long.
    #[error("path `{shown}…` is too long: {length} bytes, at most {most}")]
    TooLong {
        /// The first bytes of the path.
        shown: String,
        /// Length found, in bytes.
        length: usize,
        /// Longest allowed, in bytes.
        most: usize,
    },
}

impl ImagePath {
    /// Takes a path that is already in normal form.
    pub fn new(text: &str) -> Result<Self, PathError> {
        let shown = || text.chars().take(80).flat_map(char::escape_debug).collect::<String>();
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.starts_with('/') {
            return Err(PathError::Absolute(shown()));
        }
        if text.chars().any(char::is_control) {
            return Err(PathError::Control(shown()));
        }
        if text.len() > MAX_PATH {
            return Err(PathError::TooLong { shown: shown(), length: text.len(), most: MAX_PATH });
        }
        for component in text.split('/') {
            match component {
                ".." => return Err(PathError::Climbs(shown())),
                "" | "." => return Err(PathError::NotNormal(shown())),
                long if long.len() > MAX_COMPONENT => {
                    return Err(PathError::TooLong { shown: shown(), length: long.len(), most: MAX_COMPONENT });
                }
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// Takes the raw bytes of a name in an archive, which may spell a folder as `./a/b/`.
    ///
    /// Returns `None` for the archive's root itself (`.`, `./`).
    pub fn from_archive(raw: &[u8]) -> Result<Option<Self>, PathError> {
        let text =
            std::str::from_utf8(raw).map_err(|_| PathError::NotUtf8(raw.escape_ascii().take(80).map(char::from).collect()))?;
        let text = text.strip_prefix("./").unwrap_or(text);
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.is_empty() || text == "." {
            // `/` alone is absolute, `./` is the root.
            return if raw.first() == Some(&b'/') { Err(PathError::Absolute("/".into())) } else { Ok(None) };
        }
        Self::new(text).map(Some)
    }

    /// Takes a path of the local file system that is relative to a tree's root.
    pub fn from_local(path: &Path) -> Result<Self, PathError> {
        match path.to_str() {
            Some(text) => Self::new(text),
            None => {
                Err(PathError::NotUtf8(path.as_os_str().as_encoded_bytes().escape_ascii().take(80).map(char::from).collect()))
            }
        }
    }

    /// The text, without a leading `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This path with `rest` below it.
    pub fn join(&self, rest: &ImagePath) -> Result<ImagePath, PathError> {
        Self::new(&format!("{}/{}", self.0, rest.0))
    }

    /// The folder that holds it, unless that is the root.
    pub fn parent(&self) -> Option<ImagePath> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().expect("an ImagePath has at least one component")
    }

    /// All folders above it, the outermost first.
    pub fn ancestors(&self) -> impl Iterator<Item = ImagePath> + '_ {
        self.0.match_indices('/').map(|(at, _)| ImagePath(self.0[..at].to_owned()))
    }

    /// The place of this path below a local folder.
    pub fn under(&self, root: &Path) -> PathBuf {
        root.join(&self.0)
    }

    /// Where a link at this path with `target` points, as a path in the image; an error where the target
    /// leaves the root or holds a control character. `target` may be absolute (`/usr/lib`) or relative to the link's folder.
    pub fn resolve_link(&self, target: &str) -> Result<Option<ImagePath>, PathError> {
        let shown = || target.chars().take(80).flat_map(char::escape_debug).collect();
        if target.chars().any(char::is_control) {
            return Err(PathError::Control(shown()));
        }
        let mut stack: Vec<&str> = Vec::new();
        if !target.starts_with('/') {
            stack.extend(self.0.split('/'));
            stack.pop();
        }
        for component in target.split('/') {
            match component {
                "" | "." => {}
                ".." => {
                    if stack.pop().is_none() {
                        return Err(PathError::Climbs(shown()));
                    }
                }
                name => stack.push(name),
            }
        }
        if stack.is_empty() { Ok(None) } else { Self::new(&stack.join("/")).map(Some) }
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for ImagePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl Serialize for ImagePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ImagePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for ImagePath {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ImagePath".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_PATH })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn takes_normal_paths_and_refuses_the_rest() {
        for good in ["a", "a/b", "usr/lib/x86_64-linux-gnu/libc.so.6", "with space/é", "..a/b..", &"x".repeat(255)] {
            assert_eq!(ImagePath::new(good).unwrap().as_str(), good);
        }
        for bad in
            ["", "/a", "../a", "a/../b", "a//b", "a/./b", "a/", ".", "a\nb", "a\u{1b}[31m", &"x".repeat(256), &"x/".repeat(3000)]
        {
            assert!(ImagePath::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn archive_names() {
        assert_eq!(ImagePath::from_archive(b"./usr/bin/").unwrap().unwrap().as_str(), "usr/bin");
        assert_eq!(ImagePath::from_archive(b"./").unwrap(), None);
        assert!(ImagePath::from_archive(b"/").is_err());
        assert!(ImagePath::from_archive(b"a\xff").unwrap_err().to_string().contains("not UTF-8"));
        assert!(ImagePath::from_archive(b"./../x").is_err());
    }

    #[test]
    fn links_stay_inside() {
        let at = ImagePath::new("usr/lib/a").unwrap();
        assert_eq!(at.resolve_link("../bin/b").unwrap().unwrap().as_str(), "usr/bin/b");
        assert_eq!(at.resolve_link("/etc/x").unwrap().unwrap().as_str(), "etc/x");
        assert_eq!(at.resolve_link("/").unwrap(), None);
        assert!(at.resolve_link("../../../x").is_err());
        // A name that is left again is in the target all the same.
        assert_eq!(at.resolve_link("x y/../b").unwrap().unwrap().as_str(), "usr/lib/b");
        assert!(matches!(at.resolve_link("x\ny/../b"), Err(PathError::Control(_))));
    }

    proptest! {
        #[test]
        fn joined_never_escapes(text in "\\PC{0,40}") {
            if let Ok(path) = ImagePath::new(&text) {
                let joined = path.under(Path::new("/root-of-test"));
                prop_assert!(joined.starts_with("/root-of-test"));
                prop_assert!(!joined.components().any(|c| matches!(c, std::path::Component::ParentDir)));
            }
        }
    }
}
