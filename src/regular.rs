//! Regular: files that are opened only where they are files.
//!
//! Layer 3 (effects). Must never wait at a pipe or a device.

#![allow(clippy::disallowed_methods, reason = "effects: opens files")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a file without waiting for a pipe's other end; refuses everything but a regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (file, pipe) = (dir.path().join("a"), dir.path().join("pipe"));
        std::fs::write(&file, "a").unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(open_regular(&file).is_ok());
        for other in [dir.path(), &pipe, Path::new("/dev/zero")] {
            assert_eq!(open_regular(other).unwrap_err().to_string(), "it is not a regular file");
        }
    }
}
