//! Files: the user's, read and written; one way to do each.
//!
//! Layer 4 (commands). Must never wait at a pipe, read more than it was told to, cut what is longer, or leave half a
//! file.

#![allow(clippy::disallowed_methods, reason = "effects: owns the user's files")]

use std::fs::{self, DirEntry, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::error::Problem;
use crate::regular::open_regular;
use crate::store::scratch::{is_at, lock_of_dead};
use crate::weights::shown;

/// Bytes of a manifest, a competition file or a report at most.
pub const MAX_TEXT: u64 = 4 << 20;
/// Bytes of a lock or a Record at most: some millions of files.
pub const MAX_LOCK: u64 = 1 << 30;

/// What a file is called while it is written, before a number that nobody can guess. The `path` source leaves it out
/// of trees.
const TEMPORARY: &str = ".pack.lock.tmp-";

/// Reads a regular file of `most` bytes at most.
pub fn read_bytes(path: &Path, most: u64) -> Result<Vec<u8>> {
    let failed = || format!("cannot read `{}`", path.display());
    let file = open_regular(path).with_context(failed)?;
    let size = file.metadata().with_context(failed)?.len();
    let mut bytes = Vec::new();
    if size <= most {
        // It may have grown since.
        file.take(most + 1).read_to_end(&mut bytes).with_context(failed)?;
    }
    let size = size.max(bytes.len() as u64);
    if size > most {
        bail!(Problem::new(format!("`{}` has {size} bytes, at most {most}", path.display())));
    }
    Ok(bytes)
}

/// Reads a regular file of UTF-8.
pub fn read_text(path: &Path, most: u64) -> Result<String> {
    let text = String::from_utf8(read_bytes(path, most)?);
    text.map_err(|_| Problem::new(format!("`{}` is not UTF-8", path.display())).into())
}

/// Whether it was not read because it is not there.
pub fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Replaces a file as a whole, with the mode that it had: whoever is killed leaves the old one or the new one. A link
/// of this name is replaced, and what it leads to stays.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let failed = || format!("cannot write `{}`", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sweep(folder);
    let (temporary, mut file) = temporary(folder).with_context(failed)?;
    let mut write = || {
        file.write_all(text.as_bytes())?;
        if let Some(before) = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file) {
            file.set_permissions(before.permissions())?;
        }
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary))).with_context(failed)
}

/// A new file in a folder, locked where the file system knows locks: whoever sweeps leaves it alone.
fn temporary(folder: &Path) -> io::Result<(PathBuf, File)> {
    loop {
        let path = folder.join(format!("{TEMPORARY}{:016x}", RandomState::new().hash_one(0)));
        // A file of this name is never ours, nor is what a link of this name leads to.
        let file = match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other?,
        };
        // Whoever sweeps may have locked and removed it before we could lock it.
        if file.lock().is_err() || is_at(&file, &path) {
            return Ok((path, file));
        }
    }
}

/// Removes what was half written by processes that were killed: nobody holds its lock, whatever machine or container
/// it ran in. What stays does no harm, so nothing is reported.
fn sweep(folder: &Path) {
    let is_ours = |entry: &DirEntry| entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes());
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().filter(is_ours) {
        if let Some(_lock) = lock_of_dead(&entry.path()) {
            drop(fs::remove_file(entry.path()));
        }
    }
}

/// The regular files below a folder, sorted by their names below it. A link counts where it leads to a file, as in
/// the Hub's cache; one to a folder is followed by nobody.
pub fn walk(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    below(root, "", &mut found)?;
    found.sort();
    Ok(found)
}

fn below(folder: &Path, name: &str, out: &mut Vec<(String, PathBuf)>) -> Result<()> {
    let failed = || format!("cannot read `{}`", folder.display());
    for entry in fs::read_dir(folder).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let Some(last) = entry.file_name().to_str().map(str::to_owned) else {
            bail!(Problem::new(format!("`{}` holds a name that is not UTF-8", folder.display())));
        };
        let (path, name) = (entry.path(), if name.is_empty() { last } else { format!("{name}/{last}") });
        if entry.file_type().with_context(failed)?.is_dir() {
            below(&path, &name, out)?;
        } else if fs::metadata(&path).is_ok_and(|meta| meta.is_file()) {
            out.push((name, path));
        } else {
            bail!(Problem::new(format!("`{}` is neither a file nor a folder", shown(&path.display().to_string()))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn pipe(path: &Path) {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_too_long_is_refused_and_never_cut() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("text"), "four").unwrap();
        fs::write(at("bytes"), b"\xff").unwrap();
        pipe(&at("pipe"));
        assert_eq!(read_text(&at("text"), 4).unwrap(), "four");
        assert_eq!(read_bytes(&at("bytes"), 4).unwrap(), b"\xff");
        for (name, most, expected) in [
            ("text", 3, "has 4 bytes, at most 3"),
            ("bytes", 4, "is not UTF-8"),
            ("pipe", 4, "it is not a regular file"),
            ("", 4, "it is not a regular file"),
            ("none", 4, "No such file"),
        ] {
            let error = read_text(&at(name), most).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{name}: {error:#}");
            assert_eq!(is_missing(&error), name == "none");
        }
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
        replace(&at("a"), "one").unwrap();
        assert_eq!(fs::read(at("a")).unwrap(), b"one");
        fs::set_permissions(at("a"), fs::Permissions::from_mode(0o640)).unwrap();
        replace(&at("a"), "two").unwrap();
        assert_eq!((fs::read(at("a")).unwrap(), mode("a")), (b"two".to_vec(), 0o640));
        symlink("a", at("link")).unwrap();
        replace(&at("link"), "three").unwrap();
        assert_eq!((fs::read(at("a")).unwrap(), fs::read(at("link")).unwrap()), (b"two".to_vec(), b"three".to_vec()));
        assert!(replace(&at("none/a"), "x").is_err());
        fs::create_dir(at("folder")).unwrap();
        assert!(replace(&at("folder"), "x").is_err());
        assert_eq!(names(dir.path()), ["a", "folder", "link"], "nothing is left beside it");
    }

    #[test]
    fn what_somebody_writes_is_left_alone_whatever_process_it_is_of() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (held, mut file) = temporary(dir.path()).unwrap();
        // Of an older `pack`, whose process has a number that nobody has here; it was killed long ago.
        fs::write(at(".pack.lock.tmp-4194305-1"), "half").unwrap();
        fs::write(at(".tmp-of-somebody"), "theirs").unwrap();
        replace(&at("a"), "one").unwrap();
        let name = held.file_name().unwrap().to_str().unwrap();
        assert_eq!(names(dir.path()), [name, ".tmp-of-somebody", "a"]);
        file.write_all(b"whole").unwrap();
        fs::rename(&held, at("b")).unwrap();
        assert_eq!(fs::read(at("b")).unwrap(), b"whole");
    }

    #[test]
    fn a_walk_takes_files_and_says_what_it_cannot_take() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("b/c")).unwrap();
        fs::write(at("b/c/x"), "").unwrap();
        fs::write(at("b.x"), "").unwrap();
        symlink("b/c/x", at("link")).unwrap();
        let found: Vec<String> = walk(dir.path()).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(found, ["b.x", "b/c/x", "link"]);
        type Spoil = fn(&Path);
        let cases: [(Spoil, &str); 4] = [
            (|path| symlink("b", path).unwrap(), "neither a file nor a folder"),
            (|path| symlink("none", path).unwrap(), "neither a file nor a folder"),
            (|path| pipe(path), "neither a file nor a folder"),
            (|path| fs::write(path.with_file_name(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap(), "not UTF-8"),
        ];
        for (spoil, expected) in cases {
            spoil(&at("odd"));
            let error = walk(dir.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            drop(fs::remove_file(at("odd")));
        }
    }
}
