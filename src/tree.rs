//! Tree: a folder as a canonical listing of its files.
//!
//! Layer 0 (words): no I/O. The listing's text *is* the format: one line a file, sorted by path,
//! `<mode> <sha256 hex> <size> <path>\n`, mode `0644` or `0755`. The SHA-256 of that text is the tree's
//! digest, so `sha256sum` over the lock's `files` lines checks one. Must never hold a link, an empty
//! folder or a path twice.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::path::{ImagePath, PathError};

/// Permission bits of a file, reduced to what a tree may say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mode {
    /// 0644
    Plain,
    /// 0755
    Executable,
}

impl Mode {
    /// From any Unix mode: executable where the owner may execute.
    pub fn from_bits(bits: u32) -> Self {
        if bits & 0o100 != 0 { Mode::Executable } else { Mode::Plain }
    }

    /// The permission bits, as a tar header has them.
    pub fn bits(self) -> u32 {
        match self {
            Mode::Plain => 0o644,
            Mode::Executable => 0o755,
        }
    }
}

/// The most bytes a tree or a lock may add up to: what a lock's integers hold.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// One file of a tree.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TreeFile {
    /// Where it lies below the tree's root.
    pub path: ImagePath,
    /// Plain or executable.
    pub mode: Mode,
    /// SHA-256 of its content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// A sorted set of files; equal trees have equal text.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree(Vec<TreeFile>);

/// A listing that is not canonical.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// A line has not the four fields.
    #[error("expected `<mode> <sha256> <size> <path>`, found `{0}`")]
    Line(String),
    /// The path cannot stand in an image.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The same path twice, or a file where another needs a folder.
    #[error("`{0}` and `{1}` cannot both be there")]
    Collision(ImagePath, ImagePath),
    /// Lines out of order.
    #[error("`{0}` is out of order")]
    Order(ImagePath),
    /// The sum of the sizes is beyond [`MAX_SIZE`].
    #[error("its sizes add up to more than {MAX_SIZE} bytes")]
    Size,
}

impl Tree {
    /// Sorts the files; refuses a path given twice or used as file and folder at once, and sizes that no
    /// integer holds together.
    pub fn new(mut files: Vec<TreeFile>) -> Result<Self, TreeError> {
        files.sort();
        let paths: std::collections::BTreeSet<&ImagePath> = files.iter().map(|f| &f.path).collect();
        for pair in files.windows(2) {
            if pair[0].path == pair[1].path {
                return Err(TreeError::Collision(pair[0].path.clone(), pair[1].path.clone()));
            }
        }
        for file in &files {
            if let Some(folder) = file.path.ancestors().find(|a| paths.contains(a)) {
                return Err(TreeError::Collision(folder, file.path.clone()));
            }
        }
        drop(paths);
        // So that size() cannot overflow, of this tree or of a part of it.
        let sum = files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.size));
        if sum.is_none_or(|sum| sum > MAX_SIZE) {
            return Err(TreeError::Size);
        }
        Ok(Self(files))
    }

    /// The files, sorted by path.
    pub fn files(&self) -> &[TreeFile] {
        &self.0
    }

    /// The canonical text.
    pub fn text(&self) -> String {
        self.0.iter().map(|file| format!("{file}\n")).collect()
    }

    /// SHA-256 of the canonical text: the tree's identity.
    pub fn digest(&self) -> Digest {
        let mut hasher = crate::digest::Hasher::new();
        for file in &self.0 {
            hasher.update(format!("{file}\n").as_bytes());
        }
        hasher.finish()
    }

    /// Sum of the files' sizes, in bytes.
    pub fn size(&self) -> u64 {
        self.0.iter().map(|file| file.size).sum()
    }

    /// The part of the tree whose paths `keep` accepts.
    pub fn filter(&self, keep: impl Fn(&ImagePath) -> bool) -> Tree {
        Tree(self.0.iter().filter(|file| keep(&file.path)).cloned().collect())
    }
}

impl fmt::Display for TreeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o} {} {} {}", self.mode.bits(), self.digest.hex(), self.size, self.path)
    }
}

impl FromStr for TreeFile {
    type Err = TreeError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let refuse = || TreeError::Line(line.chars().take(120).flat_map(char::escape_debug).collect());
        let mut fields = line.splitn(4, ' ');
        let mut next = || fields.next().ok_or_else(refuse);
        let mode = match next()? {
            "0644" => Mode::Plain,
            "0755" => Mode::Executable,
            _ => return Err(refuse()),
        };
        let digest = Digest::from_hex(next()?).map_err(|_| refuse())?;
        let size_text = next()?;
        let size: u64 = size_text.parse().map_err(|_| refuse())?;
        if size.to_string() != size_text {
            return Err(refuse());
        }
        Ok(TreeFile { path: ImagePath::new(next()?)?, mode, digest, size })
    }
}

impl Serialize for TreeFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TreeFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for TreeFile {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TreeFile".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^(0644|0755) [0-9a-f]{64} [0-9]+ [^/].*$" })
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Tree {
    /// Accepts canonical order only: a lock's digest must be the digest of its lines as they stand.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let files = Vec::<TreeFile>::deserialize(deserializer)?;
        if let Some(pair) = files.windows(2).find(|pair| pair[0].path >= pair[1].path) {
            return Err(Error::custom(TreeError::Order(pair[1].path.clone())));
        }
        Tree::new(files).map_err(Error::custom)
    }
}

impl schemars::JsonSchema for Tree {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Tree".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Vec::<TreeFile>::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> TreeFile {
        TreeFile { path: ImagePath::new(path).unwrap(), mode: Mode::Plain, digest: Digest::of(path.as_bytes()), size: 3 }
    }

    #[test]
    fn order_of_input_does_not_matter() {
        let one = Tree::new(vec![file("b"), file("a/c"), file("a.txt")]).unwrap();
        let two = Tree::new(vec![file("a.txt"), file("b"), file("a/c")]).unwrap();
        assert_eq!(one.digest(), two.digest());
        assert_eq!(one.digest(), Digest::of(one.text().as_bytes()));
        assert!(one.text().starts_with("0644 "));
    }

    #[test]
    fn collisions_are_refused() {
        assert!(matches!(Tree::new(vec![file("a"), file("a")]), Err(TreeError::Collision(..))));
        assert!(matches!(Tree::new(vec![file("a/b"), file("a")]), Err(TreeError::Collision(..))));
        assert!(Tree::new(vec![file("a/b"), file("ab")]).is_ok());
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        let sized = |path: &str, size| TreeFile { size, ..file(path) };
        assert_eq!(Tree::new(vec![sized("a", MAX_SIZE - 1), sized("b", 1)]).unwrap().size(), MAX_SIZE);
        assert_eq!(Tree::new(vec![sized("a", MAX_SIZE), sized("b", 1)]), Err(TreeError::Size));
        assert_eq!(Tree::new(vec![sized("a", u64::MAX), sized("b", 2)]), Err(TreeError::Size));
    }

    #[test]
    fn lines_round_trip_and_are_strict() {
        let line = file("a b").to_string();
        assert_eq!(line.parse::<TreeFile>().unwrap().to_string(), line);
        for bad in ["", "0600 x 1 a", &line.replace(" 3 ", " 03 "), &line.replace("a b", "../a"), "0644 00 1"] {
            assert!(bad.parse::<TreeFile>().is_err(), "{bad}");
        }
    }
}
