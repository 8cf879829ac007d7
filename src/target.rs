//! Target: what a person points at, told by what it holds and never by its name.
//!
//! Layer 3 (effects): looks at a folder's entries and a file's first block. Must never read more than that, nor
//! judge what it finds.

#![allow(clippy::disallowed_methods, reason = "effects: looks at the named file or folder")]

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::bundle;
use crate::regular::open_regular;

/// Something that can be verified or compared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A folder with a pack.toml.
    Project(PathBuf),
    /// A folder with an OCI layout.
    Layout(PathBuf),
    /// A tar with an OCI layout, or what `docker load` takes.
    Archive(PathBuf),
    /// What `pack bundle` wrote.
    Bundle(PathBuf),
}

/// Why something is no target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It cannot be looked at.
    #[error("cannot read `{path}`")]
    Io {
        /// What.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A folder of another kind.
    #[error("`{path}` is neither a project nor an image: it has no pack.toml and no oci-layout; a bundle is a file")]
    Folder {
        /// Which.
        path: PathBuf,
    },
    /// A file of another kind.
    #[error("`{path}` is neither a bundle nor an image's archive")]
    File {
        /// Which.
        path: PathBuf,
    },
}

impl Target {
    /// Looks at a path.
    pub fn of(path: &Path) -> Result<Self, TargetError> {
        let failed = |source| TargetError::Io { path: path.to_owned(), source };
        let meta = fs::metadata(path).map_err(failed)?;
        let at = path.to_owned();
        if meta.is_dir() {
            // A project may hold the layout that was built from it, and then is the project.
            return match (path.join("pack.toml").exists(), path.join("oci-layout").exists()) {
                (true, _) => Ok(Target::Project(at)),
                (false, true) => Ok(Target::Layout(at)),
                (false, false) => Err(TargetError::Folder { path: at }),
            };
        }
        let mut block = Vec::new();
        open_regular(path).map_err(failed)?.take(512).read_to_end(&mut block).map_err(failed)?;
        match <&[u8; 512]>::try_from(block.as_slice()) {
            Ok(block) if block.starts_with(concat_nul(bundle::INDEX).as_bytes()) => Ok(Target::Bundle(at)),
            // Every tar that is written today says so at this place.
            Ok(block) if block[257..].starts_with(b"ustar") => Ok(Target::Archive(at)),
            _ => Err(TargetError::File { path: at }),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        match self {
            Target::Project(path) | Target::Layout(path) | Target::Archive(path) | Target::Bundle(path) => path,
        }
    }
}

/// A name as a tar header holds it: with the NUL that ends it, so that longer names differ.
fn concat_nul(name: &str) -> String {
    format!("{name}\0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::TarWriter;
    use crate::path::ImagePath;

    fn tar_of(name: &str) -> Vec<u8> {
        let mut tar = TarWriter::new(Vec::new());
        tar.file(&ImagePath::new(name).unwrap(), 0o644, 2, false, &mut &b"{}"[..]).unwrap();
        tar.finish().unwrap()
    }

    #[test]
    fn each_is_told_by_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["project", "layout", "both", "neither"] {
            fs::create_dir(at(name)).unwrap();
        }
        for name in ["project/pack.toml", "both/pack.toml", "both/oci-layout", "layout/oci-layout"] {
            fs::write(at(name), "").unwrap();
        }
        fs::write(at("b"), tar_of("bundle.json")).unwrap();
        fs::write(at("a"), tar_of("blobs/sha256/00")).unwrap();
        fs::write(at("like.pack.tar"), tar_of("bundle.json.old")).unwrap();
        fs::write(at("text"), "x".repeat(600)).unwrap();
        fs::write(at("short"), "bundle.json\0").unwrap();
        assert_eq!(Target::of(&at("project")).unwrap(), Target::Project(at("project")));
        assert_eq!(Target::of(&at("both")).unwrap(), Target::Project(at("both")));
        assert_eq!(Target::of(&at("layout")).unwrap(), Target::Layout(at("layout")));
        assert_eq!(Target::of(&at("b")).unwrap(), Target::Bundle(at("b")));
        assert_eq!(Target::of(&at("a")).unwrap(), Target::Archive(at("a")));
        assert_eq!(Target::of(&at("like.pack.tar")).unwrap(), Target::Archive(at("like.pack.tar")));
        assert!(matches!(Target::of(&at("neither")), Err(TargetError::Folder { .. })));
        assert!(matches!(Target::of(&at("text")), Err(TargetError::File { .. })));
        assert!(matches!(Target::of(&at("short")), Err(TargetError::File { .. })));
        assert!(matches!(Target::of(&at("gone")), Err(TargetError::Io { .. })));
    }
}
