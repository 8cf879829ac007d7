//! Rooms: the folders of one run, below its caller's `work`.
//!
//! Layer 3 (effects). `out/<name>` stays; everything else lies in `box` and goes with the run, or with the next one
//! where this one was killed. Must never follow a link that a command left behind.

#![allow(clippy::disallowed_methods, reason = "effects: owns the run's folders")]

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::gpu::Given;
use super::view::View;
use super::{RunError, io_error};
use crate::folders::{give, remove_tree};
use crate::invocation::Invocation;
use crate::path::ImagePath;

/// Folders that every box has.
const FOLDERS: &[&str] = &["data", "dev", "etc", "models", "out", "proc", "submission", "sys", "tmp", "weights"];
const HOSTS: &str = "127.0.0.1 localhost box\n::1 localhost\n";

/// The folders of one run.
pub(super) struct Rooms {
    /// Outputs, by name.
    pub(super) out: PathBuf,
    /// Scratch.
    pub(super) tmp: PathBuf,
    /// Links `0`, `1`, … to the folders that make up the root.
    pub(super) lower: PathBuf,
    /// Where the root is put together.
    pub(super) mount_point: PathBuf,
    /// All of this run's that goes with it.
    pub(super) box_folder: PathBuf,
    /// What everything is mounted on, over all layers.
    pub(super) root: PathBuf,
}

impl Rooms {
    /// Makes them. What an earlier run left in outputs stays, and nothing else.
    pub(super) fn make(work: &Path, invocation: &Invocation, view: &View) -> Result<Self, RunError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(work).map_err(io_error("create", work))?;
        let work = fs::canonicalize(work).map_err(io_error("find", work))?;
        // Whoever made it: what a command leaves below, set-uid programs too, is for its caller alone to reach.
        fs::set_permissions(&work, Permissions::from_mode(0o700)).map_err(io_error("close", &work))?;
        let box_folder = work.join("box");
        remove_tree(&box_folder).map_err(io_error("clear", &box_folder))?;
        let rooms = Rooms {
            out: work.join("out"),
            tmp: box_folder.join("tmp"),
            lower: box_folder.join("lower"),
            mount_point: box_folder.join("mount"),
            root: box_folder.join("root"),
            box_folder,
        };
        for folder in [&rooms.tmp, &rooms.lower, &rooms.mount_point] {
            builder.mode(0o755).create(folder).map_err(io_error("create", folder))?;
        }
        fs::set_permissions(&rooms.tmp, Permissions::from_mode(0o1777)).map_err(io_error("open up", &rooms.tmp))?;
        refuse_link(&rooms.out)?;
        for output in &invocation.outputs {
            let folder = rooms.out.join(output.as_str());
            refuse_link(&folder)?;
            builder.create(&folder).map_err(io_error("create", &folder))?;
            fs::set_permissions(&folder, Permissions::from_mode(0o755)).map_err(io_error("open up", &folder))?;
        }
        let root = &rooms.root;
        rooms.skeleton(root, invocation, view).map_err(io_error("lay out", root))?;
        // Of one folder alone the kernel makes no overlay.
        let empty = rooms.box_folder.join("empty");
        builder.create(&empty).map_err(io_error("create", &empty))?;
        for (n, folder) in std::iter::once(root).chain(&view.lower).chain([&empty]).enumerate() {
            let link = rooms.lower.join(n.to_string());
            symlink(folder, &link).map_err(io_error("create", &link))?;
        }
        Ok(rooms)
    }

    /// What everything is mounted on. It lies over all layers, so that no link of theirs is ever gone through.
    fn skeleton(&self, root: &Path, invocation: &Invocation, view: &View) -> io::Result<()> {
        fs::create_dir(root)?;
        for folder in FOLDERS {
            fs::create_dir(root.join(folder))?;
        }
        fs::write(root.join("etc/hosts"), HOSTS)?;
        fs::write(root.join("etc/hostname"), "box\n")?;
        for output in &invocation.outputs {
            fs::create_dir(root.join("out").join(output.as_str()))?;
        }
        for file in &view.files {
            let place = file.at.under(root);
            if let Some(folder) = place.parent() {
                fs::create_dir_all(folder)?;
            }
            File::create(place)?;
        }
        open_up(root)?;
        fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777))
    }

    /// Adds what a GPU's files are mounted on, and its links.
    pub(super) fn add(&self, given: &Given) -> Result<(), RunError> {
        let add = || -> io::Result<()> {
            for (host, at) in &given.mounts {
                let place = at.under(&self.root);
                make_folders(&self.root, at)?;
                if fs::metadata(host)?.is_dir() {
                    fs::create_dir_all(&place)?;
                    fs::set_permissions(&place, Permissions::from_mode(0o755))?;
                } else if !place.exists() {
                    File::create(&place)?;
                    fs::set_permissions(&place, Permissions::from_mode(0o444))?;
                }
            }
            for (target, at) in &given.links {
                make_folders(&self.root, at)?;
                symlink(target, at.under(&self.root))?;
            }
            Ok(())
        };
        add().map_err(io_error("lay out", &self.root))
    }

    /// Lets another user write what a command writes.
    pub(super) fn give_to(&self, user: (u32, u32)) -> Result<(), RunError> {
        for folder in [&self.tmp, &self.out] {
            give(folder, user).map_err(io_error("hand over", folder))?;
        }
        Ok(())
    }
}

/// A folder of outputs may be there from an earlier run, or from whoever made the project: a link in its place would
/// lead what is written to anywhere.
fn refuse_link(folder: &Path) -> Result<(), RunError> {
    if fs::symlink_metadata(folder).is_ok_and(|meta| !meta.is_dir()) {
        let what = format!("`{}` is no folder, and a command is to write into it", folder.display());
        return Err(RunError::Host { what, help: Some("remove it; nothing in it is believed".into()) });
    }
    Ok(())
}

/// Makes the folders above a path, for everybody to go through.
fn make_folders(root: &Path, path: &ImagePath) -> io::Result<()> {
    for folder in path.ancestors() {
        let place = folder.under(root);
        if !place.is_dir() {
            fs::create_dir(&place)?;
            fs::set_permissions(&place, Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// Lets everybody read a folder and all in it, whatever the caller's umask is.
fn open_up(folder: &Path) -> io::Result<()> {
    let mut paths = vec![folder.to_owned()];
    while let Some(path) = paths.pop() {
        let is_dir = fs::symlink_metadata(&path)?.is_dir();
        fs::set_permissions(&path, Permissions::from_mode(if is_dir { 0o755 } else { 0o444 }))?;
        if is_dir {
            for entry in fs::read_dir(&path)? {
                paths.push(entry?.path());
            }
        }
    }
    Ok(())
}

impl Drop for Rooms {
    fn drop(&mut self) {
        // What stays is cleared by the next run.
        drop(remove_tree(&self.box_folder));
    }
}
