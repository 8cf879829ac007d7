//! Layers as folders, for the box: unpacked once, hashed on the way, believed from then on.
//!
//! Layer 3 (effects). What lands in a folder is what the layer's tar says, and the folder gets its name only
//! when the whole tar had its diff_id. Modes and the one time are those of the image. Must never write
//! outside the folder it was given, whatever a tar says.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::listing::{Kind, Line};
use super::{Layer, LayerError, Layers, TIME};
use crate::digest::{Digest, HashingReader};
use crate::path::ImagePath;
use crate::plan::{Entry, Form, LayerPlan};
use crate::progress::Task;
use crate::store::{StoreError, io_error};
use crate::tree::Mode;

impl Layers<'_> {
    /// The folder that holds a layer's files; made on first use. A later call reads nothing of it.
    pub fn unpacked(&self, plan: &LayerPlan) -> Result<PathBuf, LayerError> {
        let layer = self.make(plan, None)?.0;
        if let Some(place) = self.store.unpacked(&layer.diff_id) {
            return Ok(place);
        }
        let unpacking = self.store.unpacking()?;
        // Somebody else may have done it while this process waited.
        if let Some(place) = self.store.unpacked(&layer.diff_id) {
            return Ok(place);
        }
        let scratch = unpacking.scratch()?;
        match plan.form {
            Form::Zstd => self.unpack_blob(&layer, scratch.path())?,
            Form::Plain => self.lay_out(plan, scratch.path())?,
        }
        Ok(unpacking.put(scratch, &layer.diff_id)?)
    }

    /// Reads every byte of a layer's folder and holds it against the layer's listing. A folder that is not as
    /// listed is removed, so that the next use unpacks it again; returns whether it was as listed. One that was
    /// not unpacked yet is.
    pub fn verify_unpacked(&self, plan: &LayerPlan) -> Result<bool, LayerError> {
        let layer = self.make(plan, None)?.0;
        let Some(place) = self.store.unpacked(&layer.diff_id) else { return Ok(true) };
        let lines = layer.lines(self.store)?;
        let size = |line: &Line| if let Kind::File { size, .. } = line.kind { size } else { 0 };
        let task = self.progress.task(&format!("verify {}", plan.name), lines.iter().map(size).sum());
        let listed: BTreeMap<ImagePath, Line> = lines.into_iter().map(|line| (line.path.clone(), line)).collect();
        if same_as_listed(&place, &listed, &task)? {
            return Ok(true);
        }
        self.store.unpacking()?.remove(&layer.diff_id)?;
        Ok(false)
    }

    fn unpack_blob(&self, layer: &Layer, into: &Path) -> Result<(), LayerError> {
        let task = self.progress.task(&format!("unpack {}", layer.name), layer.size);
        let failed = |source| LayerError::Unpack { name: layer.name.clone(), source };
        let blob = Counted { inner: self.store.open_blob(&layer.digest)?, task: &task };
        let decoder = zstd::Decoder::new(blob).map_err(failed)?;
        let mut archive = tar::Archive::new(HashingReader::new(decoder));
        let mut writer = FolderWriter::new(into);
        for entry in archive.entries().map_err(failed)? {
            let mut entry = entry.map_err(failed)?;
            let Ok(Some(path)) = ImagePath::from_archive(&entry.path_bytes()) else {
                return Err(failed(io::Error::other("an entry's path is not one of an image")));
            };
            let mode = entry.header().mode().map_err(failed)?;
            match entry.header().entry_type() {
                tar::EntryType::Directory => writer.dir(&path, mode),
                tar::EntryType::Regular => writer.file(&path, mode, &mut entry),
                tar::EntryType::Symlink => {
                    let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                    writer.link(&path, &String::from_utf8_lossy(&target))
                }
                other => Err(io::Error::other(format!("`{path}` is of a kind that no layer has: {other:?}"))),
            }
            .map_err(failed)?;
        }
        let mut rest = archive.into_inner();
        io::copy(&mut rest, &mut io::sink()).map_err(failed)?;
        writer.finish().map_err(failed)?;
        let (found, _) = rest.finish();
        if found != layer.diff_id.0 {
            return Err(StoreError::Mismatch { expected: layer.diff_id.0, found }.into());
        }
        Ok(())
    }

    /// Copies the files of a plain layer, each hashed on the way.
    fn lay_out(&self, plan: &LayerPlan, into: &Path) -> Result<(), LayerError> {
        let failed = |source| LayerError::Unpack { name: plan.name.clone(), source };
        let mut writer = FolderWriter::new(into);
        for entry in &plan.entries {
            if let Entry::File { path, mode, digest, .. } = entry {
                let mut blob = HashingReader::new(self.store.open_blob(digest)?);
                writer.file(path, mode.bits(), &mut blob).map_err(failed)?;
                let (found, _) = blob.finish();
                if found != *digest {
                    return Err(self.store.spoiled(digest)?.into());
                }
            }
        }
        writer.finish().map_err(failed)
    }
}

/// Whether a plain layer's files can be mounted as they lie in the store, where no file may be executed.
pub fn is_mountable(plan: &LayerPlan) -> bool {
    plan.form == Form::Plain && plan.entries.iter().all(|entry| matches!(entry, Entry::File { mode: Mode::Plain, .. }))
}

/// Writes a tar's entries below a folder. A path goes only through folders that this writer made.
struct FolderWriter<'a> {
    root: &'a Path,
    folders: BTreeMap<ImagePath, u32>,
}

impl<'a> FolderWriter<'a> {
    fn new(root: &'a Path) -> Self {
        Self { root, folders: BTreeMap::new() }
    }

    fn dir(&mut self, path: &ImagePath, mode: u32) -> io::Result<()> {
        if !self.folders.contains_key(path) {
            self.parents(path)?;
            fs::create_dir(path.under(self.root))?;
        }
        self.folders.insert(path.clone(), mode & 0o1777);
        Ok(())
    }

    fn parents(&mut self, path: &ImagePath) -> io::Result<()> {
        for folder in path.ancestors() {
            if !self.folders.contains_key(&folder) {
                fs::create_dir(folder.under(self.root))?;
                self.folders.insert(folder, 0o755);
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &ImagePath, mode: u32, content: &mut dyn Read) -> io::Result<()> {
        self.parents(path)?;
        let place = path.under(self.root);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&place)?;
        io::copy(content, &mut file)?;
        file.set_permissions(Permissions::from_mode(mode & 0o755))?;
        set_time(&place)
    }

    fn link(&mut self, path: &ImagePath, target: &str) -> io::Result<()> {
        self.parents(path)?;
        let place = path.under(self.root);
        symlink(target, &place)?;
        set_time(&place)
    }

    /// Modes and times of folders, from the inside out, when nothing is written into them any more.
    fn finish(self) -> io::Result<()> {
        for (path, mode) in self.folders.iter().rev() {
            let place = path.under(self.root);
            fs::set_permissions(&place, Permissions::from_mode(*mode))?;
            set_time(&place)?;
        }
        Ok(())
    }
}

fn set_time(path: &Path) -> io::Result<()> {
    let time = Timespec { tv_sec: TIME as i64, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Whether a folder holds exactly what is listed: kinds, modes, targets and bytes.
fn same_as_listed(root: &Path, listed: &BTreeMap<ImagePath, Line>, task: &Task) -> Result<bool, StoreError> {
    let mut seen: BTreeSet<ImagePath> = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(io_error("read", &folder))? {
            let entry = entry.map_err(io_error("read", &folder))?;
            let path = entry.path();
            let Ok(name) = ImagePath::from_local(path.strip_prefix(root).unwrap_or(&path)) else { return Ok(false) };
            let Some(line) = listed.get(&name) else { return Ok(false) };
            let meta = entry.metadata().map_err(io_error("read", &path))?;
            let same_mode = meta.permissions().mode() & 0o7777 == line.mode;
            let same = match &line.kind {
                Kind::Dir => meta.is_dir() && same_mode,
                Kind::Link { target } => {
                    meta.is_symlink() && fs::read_link(&path).is_ok_and(|to| to.as_os_str() == target.as_str())
                }
                Kind::File { digest, .. } => meta.is_file() && same_mode && digest_of(&path, task)? == *digest,
            };
            if !same {
                return Ok(false);
            }
            if meta.is_dir() {
                folders.push(path);
            }
            seen.insert(name);
        }
    }
    Ok(seen.len() == listed.len())
}

fn digest_of(path: &Path, task: &Task) -> Result<Digest, StoreError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    Ok(Digest::of_reader(Counted { inner: file, task }).map_err(io_error("read", path))?.0)
}

/// Tells a task what passes.
struct Counted<'a, R> {
    inner: R,
    task: &'a Task,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.task.add(n as u64);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Memory, listing, record_text};
    use crate::progress::Progress;
    use crate::store::Store;

    fn path(text: &str) -> ImagePath {
        ImagePath::new(text).unwrap()
    }

    #[test]
    fn a_layer_is_unpacked_once_and_every_change_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), &dir.path().join("memory")).unwrap();
        let progress = Progress::silent();
        let layers = Layers { store: &store, progress: &progress, jobs: 1, memory: Memory::Use };
        let digest = store.add_bytes(b"program").unwrap();
        let small = LayerPlan {
            name: "small".into(),
            form: Form::Zstd,
            entries: vec![
                Entry::Dir { path: path("tmp"), mode: 0o1777 },
                Entry::Link { path: path("usr/bin/python"), target: "python3".into() },
                Entry::Link { path: path("usr/bin/a -> b"), target: "python -> 3".into() },
                Entry::Text { path: path("etc/hosts"), mode: Mode::Plain, text: "one\n".into() },
                Entry::File { path: path("usr/bin/python3"), mode: Mode::Executable, digest, size: 7 },
            ],
        };
        let program = Entry::File { path: path("models/base/run"), mode: Mode::Executable, digest, size: 7 };
        let programs = LayerPlan { name: "programs".into(), form: Form::Plain, entries: vec![program] };
        assert!(!is_mountable(&small) && !is_mountable(&programs));
        let place = layers.unpacked(&programs).unwrap();
        assert_eq!(fs::metadata(place.join("models/base/run")).unwrap().permissions().mode() & 0o777, 0o755);
        let place = layers.unpacked(&small).unwrap();
        assert_eq!(fs::metadata(place.join("tmp")).unwrap().permissions().mode() & 0o7777, 0o1777);
        assert_eq!(fs::read_link(place.join("usr/bin/python")).unwrap(), Path::new("python3"));
        assert!(layers.verify_unpacked(&small).unwrap(), "the good twin");
        type Change = fn(&Path);
        let changes: [(&str, Change); 6] = [
            ("content", |place| fs::write(place.join("etc/hosts"), "two\n").unwrap()),
            ("mode", |place| fs::set_permissions(place.join("etc/hosts"), Permissions::from_mode(0o755)).unwrap()),
            ("target", |place| {
                fs::remove_file(place.join("usr/bin/python")).unwrap();
                symlink("python2", place.join("usr/bin/python")).unwrap();
            }),
            ("one more", |place| fs::write(place.join("usr/bin/more"), "").unwrap()),
            ("one fewer", |place| fs::remove_file(place.join("usr/bin/python3")).unwrap()),
            ("another kind", |place| {
                fs::remove_dir(place.join("tmp")).unwrap();
                fs::write(place.join("tmp"), "").unwrap();
            }),
        ];
        for (what, change) in changes {
            change(&place);
            assert_eq!(layers.unpacked(&small).unwrap(), place, "it is believed until it is asked");
            assert!(!layers.verify_unpacked(&small).unwrap(), "{what}");
            assert!(!place.exists());
            assert_eq!(layers.unpacked(&small).unwrap(), place);
            assert!(layers.verify_unpacked(&small).unwrap(), "{what}");
        }
    }

    #[test]
    fn a_listing_that_cannot_be_read_is_no_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), &dir.path().join("memory")).unwrap();
        let progress = Progress::silent();
        let layers = Layers { store: &store, progress: &progress, jobs: 1, memory: Memory::Use };
        let entries = vec![Entry::Text { path: path("etc/hosts"), mode: Mode::Plain, text: "one\n".into() }];
        let plan = LayerPlan { name: "small".into(), form: Form::Zstd, entries };
        let (layer, _) = layers.make(&plan, None).unwrap();
        layers.unpacked(&plan).unwrap();
        let lines = layer.lines(&store).unwrap();
        assert_eq!(lines.iter().map(|line| line.path.as_str()).collect::<Vec<_>>(), ["etc", "etc/hosts"]);
        let bad = Layer { listing: store.add_bytes(b"dir 0755 etc\nfile 0644 - - etc/hosts\n").unwrap(), ..layer };
        assert!(matches!(bad.lines(&store), Err(LayerError::Listing { .. })));
        store.remember(listing::FORM, &plan.key(), &record_text(&bad)).unwrap();
        assert!(matches!(layers.verify_unpacked(&plan), Err(LayerError::Listing { .. })));
        // What an older `pack` remembered is in another form, and is not asked for.
        store.forget(listing::FORM, &plan.key());
        store.remember("layers", &plan.key(), &record_text(&bad)).unwrap();
        assert!(layers.verify_unpacked(&plan).unwrap());
    }
}
