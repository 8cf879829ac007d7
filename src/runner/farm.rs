//! A farm: one folder that shows several, made of links, for where the kernel lays none over each other.
//!
//! Layer 3 (effects). Files are hard links, or copies where the folders lie on another file system. A path of a
//! folder further up hides one further down. Must never be writable by a command: its files are the layers' own.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Adds to `root` what the folders have and it has not; the topmost folder first.
pub(super) fn fill(root: &Path, folders: &[PathBuf]) -> io::Result<()> {
    for folder in folders {
        let mut todo = vec![PathBuf::new()];
        while let Some(below) = todo.pop() {
            for entry in fs::read_dir(folder.join(&below))? {
                let entry = entry?;
                let path = below.join(entry.file_name());
                let (from, to) = (entry.path(), root.join(&path));
                let there = fs::symlink_metadata(&to).ok();
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    match there {
                        None => {
                            fs::create_dir(&to)?;
                            fs::set_permissions(&to, entry.metadata()?.permissions())?;
                        }
                        Some(there) if there.is_dir() => {}
                        // Something else hides it, and all in it.
                        Some(_) => continue,
                    }
                    todo.push(path);
                } else if there.is_none() {
                    if kind.is_symlink() {
                        symlink(fs::read_link(&from)?, &to)?;
                    } else if fs::hard_link(&from, &to).is_err() {
                        fs::copy(&from, &to)?;
                    }
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_folder_wins() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for (path, text) in [("a/x/one", "a"), ("a/x/two", "a"), ("b/x/one", "b"), ("b/x/three/four", "b"), ("b/y", "b")] {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), text).unwrap();
        }
        fs::create_dir(at("root")).unwrap();
        symlink("elsewhere", at("root/y")).unwrap();
        fill(&at("root"), &[at("a"), at("b")]).unwrap();
        for (path, text) in [("x/one", "a"), ("x/two", "a"), ("x/three/four", "b")] {
            assert_eq!(fs::read_to_string(at("root").join(path)).unwrap(), text, "{path}");
        }
        assert_eq!(fs::read_link(at("root/y")).unwrap(), Path::new("elsewhere"));
    }
}
