//! Folders that somebody else filled: looked through, given away and removed, however deep they are.
//!
//! Layer 3 (effects). Every step goes from an open folder to a name in it, without following a link, and none calls
//! itself: a command may have left a chain of a hundred thousand folders. Must never leave the folder it was given.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

/// Levels of folders that are looked into. An open folder is held for each.
pub const DEPTH: usize = 256;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A walk through a folder that may change meanwhile, a part at a time: what cannot be looked at is passed over.
pub struct Walk {
    open: Vec<Dir>,
    too_deep: bool,
}

impl Walk {
    /// Begins at a folder, which is not itself among what is seen.
    ///
    /// # Errors
    /// Where it is no folder, or cannot be opened.
    pub fn begin(folder: &Path) -> io::Result<Self> {
        Ok(Self { open: vec![Dir::new(open(CWD, folder)?)?], too_deep: false })
    }

    /// Looks at the next `most` entries at most, each with the folder it lies in; false: there are no more.
    pub fn look(&mut self, most: u64, seen: &mut dyn FnMut(BorrowedFd<'_>, &CStr, &Stat)) -> bool {
        for _ in 0..most {
            let is_deepest = self.open.len() >= DEPTH;
            let Some(dir) = self.open.last_mut() else { return false };
            let (entry, folder) = (dir.read(), dir.fd());
            let (Some(Ok(entry)), Ok(folder)) = (entry, folder) else {
                self.open.pop();
                continue;
            };
            let name = entry.file_name();
            if is_dots(name) {
                continue;
            }
            let Ok(stat) = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            seen(folder, name, &stat);
            if !is_folder(&stat) {
                continue;
            }
            if is_deepest {
                self.too_deep = true;
            } else if let Ok(below) = open(folder, name).and_then(Dir::new) {
                self.open.push(below);
            }
        }
        !self.open.is_empty()
    }

    /// Whether a folder was passed over since it lies too deep.
    pub fn is_too_deep(&self) -> bool {
        self.too_deep
    }
}

/// Gives a folder and all in it to a user; links themselves, not what they lead to.
///
/// # Errors
/// What was refused first, after all the rest was tried; or a folder too deep to be reached.
pub fn give(folder: &Path, (user, group): (u32, u32)) -> io::Result<()> {
    let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    let mut walk = match Walk::begin(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        begun => begun?,
    };
    let mut refused = rustix::fs::fchown(walk.open[0].fd()?, user, group).err();
    let mut change = |folder: BorrowedFd<'_>, name: &CStr, _: &Stat| {
        if let Err(error) = rustix::fs::chownat(folder, name, user, group, AtFlags::SYMLINK_NOFOLLOW) {
            refused.get_or_insert(error);
        }
    };
    while walk.look(u64::MAX, &mut change) {}
    match refused {
        Some(error) => Err(error.into()),
        None if walk.too_deep => Err(io::Error::other(format!("its folders lie more than {DEPTH} deep"))),
        None => Ok(()),
    }
}

/// Removes a folder whatever the permissions of the folders in it are, or a file or link in its place; one that is not
/// there is fine.
///
/// # Errors
/// What the system refused.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match open(CWD, path) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return std::fs::remove_file(path),
        Err(Errno::ACCESS) => {
            open_up(CWD, path)?;
            open(CWD, path)?
        }
        opened => opened?,
    };
    rustix::fs::fchmod(&top, Mode::RWXU).or_else(|error| if error == Errno::PERM { Ok(()) } else { Err(error) })?;
    // What lies in a folder of the top is moved up into the top until every folder there is empty: two are open at
    // once, and no chain is too deep.
    let mut moved = 0u64;
    let mut idle = 0;
    loop {
        match remove_one_level(top.as_fd(), &mut moved)? {
            Level { seen: 0, .. } => break,
            Level { gone: 0, .. } if idle == IDLE => return Err(io::Error::other("its folders do not become empty")),
            Level { gone: 0, .. } => idle += 1,
            _ => idle = 0,
        }
    }
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Rounds that remove nothing, one after the other, after which it is given up: somebody else fills it, or a file system
/// keeps what is open somewhere under another name.
const IDLE: u32 = 100;

/// What one round through a folder found, and removed or moved.
#[derive(Default)]
struct Level {
    seen: u64,
    gone: u64,
}

/// Removes what lies in a folder; folders of its folders become its own.
fn remove_one_level(top: BorrowedFd<'_>, moved: &mut u64) -> io::Result<Level> {
    let mut level = Level::default();
    let mut entries = Dir::read_from(top)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if is_dots(name) {
            continue;
        }
        level.seen += 1;
        if !unlink(top, name)? {
            level.gone += 1;
            continue;
        }
        let below = match open(top, name) {
            Err(Errno::ACCESS) => {
                open_up(top, name)?;
                open(top, name)?
            }
            Err(Errno::NOENT) => {
                level.gone += 1;
                continue;
            }
            opened => opened?,
        };
        empty(top, &below, moved)?;
        match rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR) {
            // Somebody put something there meanwhile: the next round takes it.
            Ok(()) | Err(Errno::NOENT) => level.gone += 1,
            Err(Errno::NOTEMPTY) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(level)
}

/// Removes the files of a folder, and moves its folders up into the top under names that nothing has.
fn empty(top: BorrowedFd<'_>, below: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    // Who may not write into a folder may still own it.
    let _refused_below = rustix::fs::fchmod(below, Mode::RWXU);
    let mut entries = Dir::read_from(below)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if is_dots(name) || !unlink(below.as_fd(), name)? {
            continue;
        }
        loop {
            *moved += 1;
            let place = CString::new(format!(".removed-{moved}")).unwrap_or_default();
            match rustix::fs::renameat_with(below, name, top, &*place, rustix::fs::RenameFlags::NOREPLACE) {
                Ok(()) | Err(Errno::NOENT) => break,
                Err(Errno::EXIST) => {}
                // A folder that changes its place is written to.
                Err(Errno::ACCESS) => open_up(below, name)?,
                // A file system that cannot tell: whoever is in the way is no folder of ours, or it is empty.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    rustix::fs::renameat(below, name, top, &*place)?;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Removes what is no folder; whether it is one.
fn unlink(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(false),
        Err(Errno::ISDIR) => Ok(true),
        // What POSIX wants said of a folder.
        Err(error @ Errno::PERM) => match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_folder(&stat) => Ok(true),
            _ => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// Lets its owner into a folder that may not be opened, by the very folder and not by its name.
fn open_up<P: rustix::path::Arg>(folder: impl AsFd, name: P) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    Ok(rustix::fs::chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), Mode::RWXU)?)
}

fn open<P: rustix::path::Arg>(folder: impl AsFd, name: P) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(folder, name, FOLDER, Mode::empty())
}

fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn is_dots(name: &CStr) -> bool {
    [c".", c".."].contains(&name)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    /// A chain of folders in a folder, with a file in the last one.
    fn chain(folder: &Path, deep: usize) {
        let mut at = open(CWD, folder).unwrap();
        for _ in 0..deep {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open(&at, "d").unwrap();
        }
        rustix::fs::openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
    }

    fn count(folder: &Path, part: u64) -> (usize, bool) {
        let (mut walk, mut count) = (Walk::begin(folder).unwrap(), 0);
        while walk.look(part, &mut |_, _, _| count += 1) {}
        (count, walk.is_too_deep())
    }

    #[test]
    fn a_walk_sees_everything_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("x"), "x").unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/file"), "x").unwrap();
        symlink(outside.path(), dir.path().join("a/link")).unwrap();
        for part in [1, 2, 1000] {
            assert_eq!(count(dir.path(), part), (4, false), "{part} at once");
        }
        assert!(Walk::begin(&dir.path().join("a/link")).is_err(), "a link is no folder");
        assert!(Walk::begin(&dir.path().join("none")).is_err());
    }

    /// The folder that was seen is a link by the time it is opened.
    #[test]
    fn a_walk_does_not_leave_by_a_link_that_comes_later() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("x"), "x").unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        let mut seen = Vec::new();
        let mut walk = Walk::begin(dir.path()).unwrap();
        let mut swap = |_: BorrowedFd<'_>, name: &CStr, _: &Stat| {
            seen.push(name.to_owned());
            fs::remove_dir(dir.path().join("a")).unwrap();
            symlink(outside.path(), dir.path().join("a")).unwrap();
        };
        while walk.look(10, &mut swap) {}
        assert_eq!(seen, [c"a".to_owned()]);
    }

    #[test]
    fn a_chain_is_seen_as_far_as_it_may_reach_and_removed_however_long() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        for (deep, seen) in [(DEPTH - 1, (DEPTH, false)), (DEPTH, (DEPTH, true)), (2000, (DEPTH, true))] {
            fs::create_dir(&top).unwrap();
            chain(&top, deep);
            assert_eq!(count(&top, 1000), seen, "{deep} folders");
            let own = fs::metadata(&top).unwrap();
            assert_eq!(give(&top, (own.uid(), own.gid())).is_ok(), !seen.1, "{deep} folders");
            remove_tree(&top).unwrap();
            assert!(!top.exists(), "{deep} folders");
        }
        remove_tree(&top).unwrap();
    }

    #[test]
    fn whatever_lies_there_is_removed_and_nothing_else() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("x"), "x").unwrap();
        let top = dir.path().join("top");
        for folder in ["a/b/c", "a/d", ".removed-1/e", "shut/in"] {
            fs::create_dir_all(top.join(folder)).unwrap();
            fs::write(top.join(folder).join("file"), "x").unwrap();
        }
        symlink(outside.path(), top.join("a/b/link")).unwrap();
        for shut in ["shut/in", "shut"] {
            fs::set_permissions(top.join(shut), Permissions::from_mode(0o0)).unwrap();
        }
        remove_tree(&top).unwrap();
        assert!(!top.exists() && outside.path().join("x").exists());
        // A link in its place goes, and what it leads to stays.
        symlink(outside.path(), &top).unwrap();
        remove_tree(&top).unwrap();
        assert!(fs::symlink_metadata(&top).is_err() && outside.path().join("x").exists());
    }

    #[test]
    fn giving_follows_no_link() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = outside.path().join("x");
        fs::write(&file, "x").unwrap();
        symlink(&file, dir.path().join("link")).unwrap();
        fs::write(dir.path().join("own"), "x").unwrap();
        if !rustix::process::geteuid().is_root() {
            return;
        }
        give(dir.path(), (4242, 4243)).unwrap();
        let owner = |path: &Path| fs::symlink_metadata(path).map(|meta| (meta.uid(), meta.gid())).unwrap();
        for path in [dir.path(), &dir.path().join("own"), &dir.path().join("link")] {
            assert_eq!(owner(path), (4242, 4243), "{path:?}");
        }
        assert_eq!(owner(&file).0, 0);
    }
}
