//! Layers: a planned layer to deterministic tar, compressed or plain, hashed as it is written.
//!
//! Layer 3 (effects). One pass: archives are unpacked ahead on worker threads, tar is written once, and its
//! hash, the compressor and the file each have a thread. What was made is remembered under the plan's key,
//! so an unchanged layer is never made again. Compressed layers live in the store as blobs; plain ones exist
//! only where an image is written, since the store already has their bytes as files.
//!
//! Must never put into a tar what the plan, the lock or an archive's own listing does not name.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Cursor, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::archive::{Archive, ArchiveError};
use crate::digest::{DiffId, Digest, HashingReader, HashingWriter};
use crate::path::ImagePath;
use crate::pipe::{self, Chunks};
use crate::plan::{Entry, Form, LayerPlan};
use crate::progress::{Progress, Task};
use crate::store::{Scratch, Store, StoreError, io_error};
use crate::tree::Mode;

mod listing;
mod tar;
mod unpack;
mod unpacked;

use listing::Written;
pub use listing::{Kind, Line, Listing, ListingError};
pub use tar::{ALIGN, TIME, TarWriter, header_of};
pub use unpacked::is_mountable;

/// zstd's level for compressed layers. Part of the plan version: changing it changes blob digests.
const LEVEL: i32 = 3;
/// Below this size, in bytes, a file is read whole; a larger one streams, so memory stays flat.
const SMALL: u64 = 1 << 20;

/// A layer that was made: its two identities and its size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layer {
    /// What it holds, for people.
    pub name: String,
    /// How its tar is stored.
    pub form: Form,
    /// SHA-256 of the uncompressed tar: the identity.
    pub diff_id: DiffId,
    /// SHA-256 of the stored blob; equals the diff_id of a plain layer.
    pub digest: Digest,
    /// Bytes of the stored blob.
    pub size: u64,
    /// The blob that lists what is in it.
    pub listing: Digest,
}

impl Layer {
    /// What is in it, from the blob that lists it.
    pub fn lines(&self, store: &Store) -> Result<Listing, LayerError> {
        let failed = |source| LayerError::Listing { name: self.name.clone(), source };
        listing::parse(&store.read(&self.listing)?).map_err(failed)
    }
}

/// What can go wrong while a layer is made.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An archive that cannot be taken.
    #[error("cannot unpack {name}")]
    Archive {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: ArchiveError,
    },
    /// Two things at one path.
    #[error("`{path}` is written by both {first} and {second}, with different content")]
    Collision {
        /// Where.
        path: ImagePath,
        /// By whom first.
        first: String,
        /// By whom then.
        second: String,
    },
    /// What is kept of what is in it cannot be read.
    #[error("cannot read the stored listing of layer `{name}`")]
    Listing {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: ListingError,
    },
    /// Writing failed.
    #[error("cannot write layer `{name}`")]
    Write {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer's folder cannot be made.
    #[error("cannot unpack layer `{name}`")]
    Unpack {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Passed through a pipe; turned into one of the above where the name is known.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Makes layers, or remembers them.
pub struct Layers<'a> {
    /// Where bytes come from and compressed layers go.
    pub store: &'a Store,
    /// What the person sees.
    pub progress: &'a Progress,
    /// Threads for unpacking and compressing.
    pub jobs: usize,
    /// Whether layers made before are taken as they were.
    pub memory: Memory,
}

/// Whether layers made before are taken as they were, or made again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// Taken.
    Use,
    /// Made again; the result is remembered.
    Renew,
}

/// Opens a package of a plan as a layer takes it in.
///
/// # Errors
/// Where the bytes are not in the store, or are no such package.
pub fn open_archive(store: &Store, entry: &Entry) -> Result<Box<dyn Archive>, LayerError> {
    unpack::open_one(store, entry)
}

impl Layers<'_> {
    /// The layer, if it was made before and, where it is compressed, its blob is still there.
    pub fn remembered(&self, plan: &LayerPlan) -> Result<Option<Layer>, LayerError> {
        if self.memory == Memory::Renew {
            return Ok(None);
        }
        let Some(layer) = self.store.recall(listing::FORM, &plan.key()).and_then(|text| parse_record(&text, plan)) else {
            return Ok(None);
        };
        let there = self.store.blob_path(&layer.listing).exists()
            && (plan.form == Form::Plain || self.store.contains(&layer.digest, layer.size)?);
        Ok(there.then_some(layer))
    }

    /// Makes a layer unless it is remembered. A plain one is written to `plain` (a folder for temporary
    /// files, on the file system it will stay on), and the temporary file's path is returned with it.
    pub fn make(&self, plan: &LayerPlan, plain: Option<&Path>) -> Result<(Layer, Option<PathBuf>), LayerError> {
        if (plan.form == Form::Zstd || plain.is_none())
            && let Some(layer) = self.remembered(plan)?
        {
            return Ok((layer, None));
        }
        let scratch = if plan.form == Form::Zstd { Some(self.store.scratch()?) } else { None };
        let plain = plain.filter(|_| plan.form == Form::Plain);
        let plain = plain.map(|folder| folder.join(format!(".tmp-{}-{}", std::process::id(), &plan.key().hex()[..16])));
        let made = self.write(plan, scratch.as_ref().map(Scratch::path).or(plain.as_deref()));
        if made.is_err()
            && let Some(path) = &plain
        {
            drop(fs::remove_file(path));
        }
        let layer = made?;
        if let Some(scratch) = scratch {
            self.store.adopt_scratch(scratch, &layer.digest, layer.size)?;
        }
        self.store.remember(listing::FORM, &plan.key(), &record_text(&layer))?;
        Ok((layer, plain))
    }

    /// Writes a plain layer that was made before once more, hashing it again. Returns its length.
    pub fn write_plain_to(&self, plan: &LayerPlan, layer: &Layer, out: &mut dyn Write) -> Result<u64, LayerError> {
        let task = self.progress.task(&format!("layer {}", plan.name), layer.size);
        let mut writer = LayerWriter { tar: TarWriter::new(HashingWriter::new(out)), listing: Written::new(), plan, task: &task };
        for entry in &plan.entries {
            if let Entry::File { path, mode, digest, size } = entry {
                writer.blob(self.store, path, *mode, digest, *size)?;
            }
        }
        let (_, found, size) = writer.tar.finish()?.finish();
        if found != layer.digest {
            return Err(StoreError::Mismatch { expected: layer.digest, found }.into());
        }
        Ok(size)
    }

    fn write(&self, plan: &LayerPlan, to: Option<&Path>) -> Result<Layer, LayerError> {
        let total = plan.entries.iter().map(|entry| match entry {
            Entry::File { size, .. } | Entry::Deb { size, .. } | Entry::Wheel { size, .. } => *size,
            _ => 0,
        });
        let task = self.progress.task(&format!("layer {}", plan.name), total.sum());
        let file = match to {
            None => None,
            Some(path) => {
                let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
                Some(open.map_err(io_error("create", path))?)
            }
        };
        // Results of the two kinds of consumer, in one type: (digest, bytes written).
        let hash: pipe::Consumer<'_, Stored> = Box::new(|chunks| Ok(Stored::Hash(consume_hash(chunks)?)));
        let mut consumers = vec![hash];
        if let Some(file) = file {
            let jobs = self.jobs;
            let form = plan.form;
            consumers.push(Box::new(move |chunks| match form {
                Form::Plain => write_plain(chunks, file),
                Form::Zstd => write_zstd(chunks, file, jobs),
            }));
        }
        let produced = pipe::tee(consumers, |tee| {
            let mut writer = LayerWriter { tar: TarWriter::new(tee), listing: Written::new(), plan, task: &task };
            self.entries(&mut writer)?;
            let LayerWriter { tar, listing, .. } = writer;
            let tee = tar.finish()?;
            Ok::<_, LayerError>((listing, tee.count()))
        });
        let ((listing, count), results) = produced.map_err(|error| match error {
            LayerError::Io(source) => LayerError::Write { name: plan.name.clone(), source },
            other => other,
        })?;
        let mut diff_id = None;
        let mut stored = None;
        for result in results {
            match result {
                Stored::Hash(digest) => diff_id = Some(digest),
                Stored::File(digest, size) => stored = Some((digest, size)),
            }
        }
        let diff_id = diff_id.expect("the first consumer hashes the tar");
        let (digest, size) = match (stored, plan.form) {
            (Some((Some(digest), size)), Form::Zstd) => (digest, size),
            _ => (diff_id, count),
        };
        let listing = self.store.add_bytes(listing::text(listing.values().map(|(line, _)| line)).as_bytes())?;
        Ok(Layer { name: plan.name.clone(), form: plan.form, diff_id: DiffId(diff_id), digest, size, listing })
    }

    fn entries(&self, writer: &mut LayerWriter<'_, '_, &mut pipe::Tee>) -> Result<(), LayerError> {
        let mut bundle = Vec::new();
        let mut archives = Vec::new();
        for entry in &writer.plan.entries {
            match entry {
                Entry::Dir { path, mode } => writer.dir(path, *mode)?,
                Entry::Link { path, target } => writer.link(path, target, "pack")?,
                Entry::Text { path, mode, text } => writer.text(path, *mode, text.as_bytes())?,
                Entry::File { path, mode, digest, size } => writer.blob(self.store, path, *mode, digest, *size)?,
                Entry::Deb { .. } | Entry::Wheel { .. } => archives.push(entry),
                Entry::CaBundle => {}
            }
        }
        unpack::ahead(self.store, &archives, self.jobs, writer.task, |name, entry, content| match entry {
            unpack::Item::Dir(path) => writer.dir(path, folder_mode(path)),
            unpack::Item::Link(path, target) => writer.link(path, target, name),
            unpack::Item::File(path, mode, size) => {
                let certificate = path.as_str().starts_with("usr/share/ca-certificates/") && path.as_str().ends_with(".crt");
                if certificate {
                    let mut bytes = Vec::new();
                    content.read_to_end(&mut bytes)?;
                    bundle.extend_from_slice(&bytes);
                    if !bytes.ends_with(b"\n") {
                        bundle.push(b'\n');
                    }
                    return writer.file(path, *mode, *size, &mut &bytes[..], name);
                }
                writer.file(path, *mode, *size, content, name)
            }
        })?;
        if writer.plan.entries.contains(&Entry::CaBundle) {
            let path = ImagePath::new("etc/ssl/certs/ca-certificates.crt").expect("a constant");
            writer.text(&path, Mode::Plain, &bundle)?;
        }
        Ok(())
    }
}

enum Stored {
    Hash(Digest),
    File(Option<Digest>, u64),
}

fn consume_hash(chunks: Chunks) -> io::Result<Digest> {
    let hash = pipe::hashing();
    Ok(hash(chunks)?.expect("a hashing consumer always returns a digest"))
}

fn write_plain(chunks: Chunks, mut file: File) -> io::Result<Stored> {
    let mut size = 0;
    chunks.each(|bytes| {
        size += bytes.len() as u64;
        file.write_all(bytes)
    })?;
    Ok(Stored::File(None, size))
}

fn write_zstd(chunks: Chunks, file: File, jobs: usize) -> io::Result<Stored> {
    let mut encoder = zstd::Encoder::new(HashingWriter::new(file), LEVEL)?;
    // At least one worker: none gives other bytes, one and more give the same (a golden test holds it).
    encoder.multithread(u32::try_from(jobs.clamp(1, 4)).unwrap_or(1))?;
    encoder.include_checksum(false)?;
    chunks.each(|bytes| encoder.write_all(bytes))?;
    let (_, digest, size) = encoder.finish()?.finish();
    Ok(Stored::File(Some(digest), size))
}

/// Permission bits of a folder that an archive brings or a path implies.
fn folder_mode(path: &ImagePath) -> u32 {
    if ["tmp", "var/tmp", "out"].contains(&path.as_str()) { 0o1777 } else { 0o755 }
}

/// Writes entries once each, implies the folders above them, and keeps the listing.
struct LayerWriter<'p, 't, W: Write> {
    tar: TarWriter<W>,
    listing: Written,
    plan: &'p LayerPlan,
    task: &'t Task,
}

impl<W: Write> LayerWriter<'_, '_, W> {
    fn dir(&mut self, path: &ImagePath, mode: u32) -> Result<(), LayerError> {
        match self.listing.get(path) {
            None => {}
            Some((Line { kind: Kind::Dir, .. }, _)) => return Ok(()),
            Some((_, first)) => return Err(collision(path, first, "a folder")),
        }
        self.parents(path)?;
        self.tar.dir(path, mode)?;
        self.note(Line { path: path.clone(), mode, kind: Kind::Dir }, "a folder");
        Ok(())
    }

    fn parents(&mut self, path: &ImagePath) -> Result<(), LayerError> {
        let missing: Vec<ImagePath> = path.ancestors().filter(|folder| !self.is_dir(folder)).collect();
        for folder in missing {
            if let Some((_, first)) = self.listing.get(&folder) {
                return Err(collision(&folder, first, path.as_str()));
            }
            let mode = folder_mode(&folder);
            self.tar.dir(&folder, mode)?;
            self.note(Line { path: folder, mode, kind: Kind::Dir }, "a folder");
        }
        Ok(())
    }

    fn is_dir(&self, path: &ImagePath) -> bool {
        self.listing.get(path).is_some_and(|(line, _)| line.kind == Kind::Dir)
    }

    fn note(&mut self, line: Line, by: &str) {
        self.listing.insert(line.path.clone(), (line, by.to_owned()));
    }

    fn link(&mut self, path: &ImagePath, target: &str, by: &str) -> Result<(), LayerError> {
        let line = Line { path: path.clone(), mode: 0o777, kind: Kind::Link { target: target.to_owned() } };
        if let Some((there, first)) = self.listing.get(path) {
            return if *there == line { Ok(()) } else { Err(collision(path, first, by)) };
        }
        self.parents(path)?;
        self.tar.link(path, target)?;
        self.note(line, by);
        Ok(())
    }

    fn text(&mut self, path: &ImagePath, mode: Mode, bytes: &[u8]) -> Result<(), LayerError> {
        self.file(path, mode, bytes.len() as u64, &mut &bytes[..], "pack")
    }

    fn blob(&mut self, store: &Store, path: &ImagePath, mode: Mode, digest: &Digest, size: u64) -> Result<(), LayerError> {
        if size < SMALL {
            let bytes = store.read(digest)?;
            self.task.add(size);
            return self.file(path, mode, size, &mut Cursor::new(bytes), "pack");
        }
        self.parents(path)?;
        let mut blob = HashingReader::new(store.open_blob(digest)?);
        self.tar.file(
            path,
            mode.bits(),
            size,
            self.plan.form == Form::Plain,
            &mut Counted { inner: &mut blob, task: self.task },
        )?;
        let (found, _) = blob.finish();
        if found != *digest {
            return Err(store.spoiled(digest)?.into());
        }
        let line = Line { path: path.clone(), mode: mode.bits(), kind: Kind::File { digest: *digest, size } };
        self.note(line, "pack");
        Ok(())
    }

    fn file(&mut self, path: &ImagePath, mode: Mode, size: u64, content: &mut dyn Read, by: &str) -> Result<(), LayerError> {
        if let Some((there, first)) = self.listing.get(path).cloned() {
            let (digest, size) = Digest::of_reader(content)?;
            let same = there.mode == mode.bits() && there.kind == Kind::File { digest, size };
            return if same { Ok(()) } else { Err(collision(path, &first, by)) };
        }
        self.parents(path)?;
        let mut hashed = HashingReader::new(content);
        self.tar.file(path, mode.bits(), size, self.plan.form == Form::Plain, &mut hashed)?;
        let (digest, _) = hashed.finish();
        let line = Line { path: path.clone(), mode: mode.bits(), kind: Kind::File { digest, size } };
        self.note(line, by);
        Ok(())
    }
}

/// Tells a task what passes.
struct Counted<'a> {
    inner: &'a mut dyn Read,
    task: &'a Task,
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.task.add(n as u64);
        Ok(n)
    }
}

fn collision(path: &ImagePath, first: &str, second: &str) -> LayerError {
    LayerError::Collision { path: path.clone(), first: first.to_owned(), second: second.to_owned() }
}

fn record_text(layer: &Layer) -> String {
    format!("{} {} {} {}\n", layer.diff_id, layer.digest, layer.size, layer.listing)
}

fn parse_record(text: &str, plan: &LayerPlan) -> Option<Layer> {
    let mut words = text.split_whitespace();
    let diff_id = DiffId(words.next()?.parse().ok()?);
    let digest = words.next()?.parse().ok()?;
    let size = words.next()?.parse().ok()?;
    let listing = words.next()?.parse().ok()?;
    Some(Layer { name: plan.name.clone(), form: plan.form, diff_id, digest, size, listing })
}
