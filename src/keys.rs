//! Signing keys on disk: `$XDG_CONFIG_HOME/pack/keys/NAME.pem`, or a file that is named.
//!
//! Layer 3 (effects). Made once with the system's randomness, mode 0600, never overwritten. Must never print a
//! key, copy it elsewhere, or take one that others may read.

#![allow(clippy::disallowed_methods, reason = "effects: owns the user's keys")]

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

use crate::artifact::Name;
use crate::attestation::{KeyError, SigningKey};

/// Bytes of a key file at most; ours have 119.
const MAX_FILE: usize = 4096;

/// What can go wrong with a key's file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The disk said no.
    #[error("cannot {action} the signing key `{path}`")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is one already.
    #[error("there is a signing key `{path}` already, and a key is never overwritten")]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// Not there.
    #[error("there is no signing key `{path}`")]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// Others may read or write it.
    #[error("the signing key `{path}` can be read by others: its mode is {mode:04o}, expected 0600")]
    Open {
        /// Where.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a key; nothing of it is repeated.
    #[error("`{path}` is no signing key: {why}")]
    NotAKey {
        /// Where.
        path: PathBuf,
        /// What was expected.
        why: KeyError,
    },
    /// Neither a name nor a path.
    #[error("expected the name of a key, or a path with a `/` in it, found `{0}`")]
    Name(String),
    /// There is no folder for keys.
    #[error("there is no home folder to keep keys in")]
    NoHome,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random(#[source] io::Error),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyFileError {
    let path = path.to_owned();
    move |source| KeyFileError::Io { action, path, source }
}

/// Where a key lies: what has a `/` or ends with `.pem` is a path, all else a name in the folder of keys.
pub fn place(key: &str) -> Result<PathBuf, KeyFileError> {
    if key.contains('/') || key.ends_with(".pem") {
        return Ok(PathBuf::from(key));
    }
    let name = Name::new(key).map_err(|_| KeyFileError::Name(key.chars().take(60).flat_map(char::escape_debug).collect()))?;
    Ok(folder().ok_or(KeyFileError::NoHome)?.join(format!("{name}.pem")))
}

fn folder() -> Option<PathBuf> {
    let var = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = var("XDG_CONFIG_HOME").filter(|path| path.is_absolute()).or_else(|| Some(var("HOME")?.join(".config")))?;
    Some(config.join("pack").join("keys"))
}

/// Makes a key and writes it to a file that was not there.
pub fn create(path: &Path) -> Result<SigningKey, KeyFileError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("create a folder for", path))?;
    }
    let mut seed = Zeroizing::new([0u8; 32]);
    let mut filled = 0;
    while filled < seed.len() {
        filled += match getrandom(&mut seed[filled..], GetRandomFlags::empty()) {
            Ok(got) => got,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(KeyFileError::Random(error.into())),
        };
    }
    let key = SigningKey::from_seed(&seed);
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(KeyFileError::Exists { path: path.to_owned() });
        }
        Err(error) => return Err(failed("create", path)(error)),
    };
    // A half-written file would stand in the way of the next try, and is nobody's key yet.
    let written = file.write_all(key.to_pem().as_bytes()).and_then(|()| file.sync_all());
    written.inspect_err(|_| drop(std::fs::remove_file(path))).map_err(failed("write", path))?;
    Ok(key)
}

/// Reads a key, if nobody else can.
pub fn read(path: &Path) -> Result<SigningKey, KeyFileError> {
    let no_wait = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(no_wait).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(KeyFileError::Missing { path: path.to_owned() }),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let meta = file.metadata().map_err(failed("read", path))?;
    if !meta.is_file() {
        return Err(failed("read", path)(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(KeyFileError::Open { path: path.to_owned(), mode: meta.mode() & 0o7777 });
    }
    let text = contents(&file).map_err(failed("read", path))?;
    let text = std::str::from_utf8(&text).map_err(|_| KeyError::Pem);
    text.and_then(SigningKey::from_pem).map_err(|why| KeyFileError::NotAKey { path: path.to_owned(), why })
}

/// A short file in memory that is cleared afterwards and never moved.
fn contents(mut file: &File) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; MAX_FILE]);
    let mut length = 0;
    while length < MAX_FILE {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(n) => length += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/folder/me.pem");
        let made = create(&path).unwrap().public();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(read(&path).unwrap().public(), made);
        assert!(matches!(create(&path), Err(KeyFileError::Exists { .. })));
        assert_eq!(read(&path).unwrap().public(), made);
        for mode in [0o640, 0o604, 0o620, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read(&path), Err(KeyFileError::Open { .. })), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(read(&path).unwrap().public(), made);
        assert_ne!(create(&dir.path().join("other.pem")).unwrap().public(), made);
    }

    #[test]
    fn what_is_no_key_is_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.pem");
        let good = create(&path).unwrap().to_pem().to_string();
        for bad in [good.replace("PRIVATE", "PUBLIC"), good.replace("MC4", "MC5"), good.replace("MC4", "MC"), String::new()] {
            let bad = if bad == good { panic!() } else { bad };
            fs::write(&path, &bad).unwrap();
            let error = read(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::NotAKey { .. }), "{error}");
            assert!(!format!("{error:?} {error}").contains("MC"), "{error}");
        }
        fs::write(&path, &good).unwrap();
        assert!(read(&path).is_ok());
        fs::remove_file(&path).unwrap();
        assert!(matches!(read(&path), Err(KeyFileError::Missing { .. })));
        assert!(matches!(place("a b"), Err(KeyFileError::Name(_))));
        assert_eq!(place("./a").unwrap(), Path::new("./a"));
    }
}
