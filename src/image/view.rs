//! View: images as they are, read from a layout, from an archive, or from what was just made.
//!
//! Layer 3 (effects). Every byte is hashed, and digests are those that were found; what a document says is kept
//! beside them only where it is not true. Must never trust a name or a size that a document states.

#![allow(clippy::disallowed_methods, reason = "effects: reads layouts and archives")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Image;
use crate::archive::{ArchiveError, ArchiveKind, Indexed, MAX_TOTAL, TarKind, index_tar};
use crate::diff::images::{EntryView, LayerView, View};
use crate::digest::{DiffId, Digest, HashingReader};
use crate::layer::{Kind, LayerError, Line};
use crate::path::ImagePath;
use crate::regular::open_regular;
use crate::store::Store;
use crate::tree::Mode;
use crate::weights::shown;

/// Documents are small; a layout that says otherwise is not read.
const MAX_DOCUMENT: u64 = 16 << 20;
const TAG: &str = "org.opencontainers.image.ref.name";

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// A layer that was just made.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The disk said no.
    #[error("cannot read `{what}`")]
    Read {
        /// Which file or member, escaped.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A tar that is refused.
    #[error("`{what}` cannot be taken")]
    Tar {
        /// Which file, member or layer, escaped.
        what: String,
        /// Why.
        #[source]
        source: ArchiveError,
    },
    /// The documents are not those of an image.
    #[error("{0}")]
    Form(String),
}

fn read_error(what: &str) -> impl FnOnce(io::Error) -> ViewError {
    let what = shown(what);
    move |source| match source.downcast::<ArchiveError>() {
        Ok(source) => tar_error(what, source),
        Err(source) => ViewError::Read { what, source },
    }
}

/// A tar that is refused, or a disk that did not give it: then nobody has seen what it is.
fn tar_error(what: String, source: ArchiveError) -> ViewError {
    match source {
        ArchiveError::Io { source, .. } if is_of_the_system(&source) => ViewError::Read { what, source },
        source => ViewError::Tar { what, source },
    }
}

/// Whether the system itself refused to read, beneath whatever was wrapped around that.
fn is_of_the_system(error: &io::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if cause.downcast_ref::<io::Error>().is_some_and(|error| error.raw_os_error().is_some()) {
            return true;
        }
        next = cause.source();
    }
    false
}

fn form(what: impl Into<String>) -> ViewError {
    ViewError::Form(what.into())
}

/// The image that was just made, by the listings that lie in the store; the order within its layers is not known.
pub fn of_image(image: &Image, store: &Store) -> Result<View, ViewError> {
    let mut layers = Vec::new();
    for layer in &image.layers {
        let entry = |line: Line| {
            let seen = match line.kind {
                Kind::Dir => EntryView::Dir,
                Kind::Link { target } => EntryView::Link { target },
                Kind::File { digest, size } => EntryView::File { mode: Mode::from_bits(line.mode).bits(), digest, size },
            };
            (line.path, seen)
        };
        layers.push(LayerView {
            name: layer.name.clone(),
            source: String::new(),
            diff_id: layer.diff_id,
            digest: layer.digest,
            size: layer.size,
            entries: layer.lines(store)?.into_iter().map(entry).collect(),
            order: None,
            claimed: None,
        });
    }
    let document = serde_json::from_slice(&image.config).map_err(|error| form(format!("the config is not JSON: {error}")))?;
    Ok(View {
        tag: image.kind.as_str().to_owned(),
        manifest: Some(image.manifest_digest()),
        config: image.config_digest(),
        lies: Vec::new(),
        document,
        layers,
    })
}

/// Where the files of a layout or an archive lie.
enum Files {
    Folder(PathBuf),
    Archive { file: File, members: BTreeMap<String, (u64, u64)> },
}

impl Files {
    fn open(&self, name: &str) -> Result<Box<dyn Read + '_>, ViewError> {
        match self {
            Files::Folder(root) => {
                // A layout that somebody handed in may hold links to anywhere.
                let path = root.join(name);
                let meta = std::fs::symlink_metadata(&path).map_err(read_error(name))?;
                if !meta.is_file() {
                    return Err(form(format!("`{}` is not a regular file", shown(name))));
                }
                Ok(Box::new(open_regular(&path).map_err(read_error(name))?))
            }
            Files::Archive { file, members } => {
                let (at, size) = members.get(name).ok_or_else(|| form(format!("the archive has no `{}`", shown(name))))?;
                Ok(Box::new(Part { file, at: *at, left: *size }))
            }
        }
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, ViewError> {
        let mut bytes = Vec::new();
        self.open(name)?.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(read_error(name))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(form(format!("`{}` has more than {MAX_DOCUMENT} bytes", shown(name))));
        }
        Ok(bytes)
    }

    fn json(&self, name: &str) -> Result<Value, ViewError> {
        serde_json::from_slice(&self.document(name)?).map_err(|error| form(format!("`{}` is not JSON: {error}", shown(name))))
    }
}

/// A part of a file.
struct Part<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// Opens a layout or an archive.
fn files(path: &Path) -> Result<Files, ViewError> {
    let shown_path = path.display().to_string();
    let meta = std::fs::metadata(path).map_err(read_error(&shown_path))?;
    if meta.is_dir() {
        return Ok(Files::Folder(path.to_owned()));
    }
    let file = open_regular(path).map_err(read_error(&shown_path))?;
    let tar = BufReader::with_capacity(1 << 20, &file);
    let indexed = index_tar(ArchiveKind::Tar, tar, MAX_TOTAL).map_err(|source| tar_error(shown(&shown_path), source))?;
    let member = |one: Indexed| match one.kind {
        TarKind::File { size, at, .. } => Some((one.path.to_string(), (at, size))),
        _ => None,
    };
    Ok(Files::Archive { members: indexed.into_iter().filter_map(member).collect(), file })
}

/// Contents of small files of one layer, each at most `most` bytes, for a person to read: what cannot be read is left
/// out. `source` is the layer's in its view.
pub fn contents(path: &Path, source: &str, wanted: &BTreeSet<ImagePath>, most: u64) -> BTreeMap<ImagePath, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut read = || -> Option<()> {
        let files = files(path).ok()?;
        let mut tar = tar::Archive::new(plain(BufReader::new(files.open(source).ok()?)).ok()?);
        for entry in tar.entries().ok()? {
            let entry = entry.ok()?;
            let name = ImagePath::from_archive(&entry.path_bytes()).ok().flatten();
            if let Some(name) = name.filter(|name| wanted.contains(name) && entry.size() <= most) {
                let mut bytes = Vec::new();
                entry.take(most).read_to_end(&mut bytes).ok()?;
                found.insert(name, bytes);
            }
        }
        Some(())
    };
    read();
    found
}

/// A layer's tar. By its first bytes: a media type is what a document says.
fn plain<'a>(mut stored: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match stored.fill_buf()? {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(stored)?),
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(stored)),
        _ => Box::new(stored),
    })
}

/// The images of an OCI layout, of its archive, or of an archive that `docker save` writes; in their order.
pub fn open(path: &Path) -> Result<Vec<View>, ViewError> {
    open_beside(path, &[])
}

/// As [`open`], where `known` images are at hand: a layer whose bytes are those of one of theirs is hashed and not
/// looked into.
pub fn open_beside(path: &Path, known: &[View]) -> Result<Vec<View>, ViewError> {
    let files = files(path)?;
    let mut known = known.iter().flat_map(|view| view.layers.iter().cloned()).collect();
    let is_oci = match &files {
        Files::Folder(_) => true,
        Files::Archive { members, .. } => members.contains_key("index.json"),
    };
    if is_oci { oci(&files, &mut known) } else { docker(&files, &mut known) }
}

fn array<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>, ViewError> {
    value[key].as_array().ok_or_else(|| form(format!("the image's documents have no `{key}`")))
}

fn digest_of(descriptor: &Value) -> Result<Digest, ViewError> {
    let text = descriptor["digest"].as_str().ok_or_else(|| form("a descriptor has no digest"))?;
    text.parse().map_err(|_| form(format!("a descriptor names `{}`", shown(text))))
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn oci(files: &Files, known: &mut Vec<LayerView>) -> Result<Vec<View>, ViewError> {
    let index = files.json("index.json")?;
    let mut views = Vec::new();
    for entry in array(&index, "manifests")? {
        let tag = entry["annotations"][TAG].as_str().unwrap_or("-").to_owned();
        let mut lies = Vec::new();
        let text = described(files, entry, "manifest", &mut lies)?;
        let manifest: Value = serde_json::from_slice(&text)
            .map_err(|error| form(format!("the manifest of `{}` is not JSON: {error}", shown(&tag))))?;
        let config = described(files, &manifest["config"], "config", &mut lies)?;
        let mut layers = Vec::new();
        for descriptor in array(&manifest, "layers")? {
            let digest = digest_of(descriptor)?;
            layers.push((blob(&digest), Some(digest)));
        }
        let mut seen = view(files, tag, config, layers, known)?;
        seen.manifest = Some(Digest::of(&text));
        for (layer, descriptor) in seen.layers.iter().zip(array(&manifest, "layers")?) {
            let kind = descriptor["mediaType"].as_str().unwrap_or_default();
            let plain = layer.digest == layer.diff_id.0;
            // An engine unpacks by this word, whatever the bytes are.
            if plain != kind.ends_with(".tar") {
                lies.push(format!(
                    "layer {} is called `{}` and is{} compressed",
                    layer.name,
                    kind,
                    if plain { " not" } else { "" }
                ));
            }
        }
        seen.lies = lies;
        views.push(seen);
    }
    Ok(views)
}

/// A document by its descriptor, and what the descriptor says of it that is not so.
fn described(files: &Files, descriptor: &Value, what: &str, lies: &mut Vec<String>) -> Result<Vec<u8>, ViewError> {
    let digest = digest_of(descriptor)?;
    let bytes = files.document(&blob(&digest))?;
    let found = Digest::of(&bytes);
    if found != digest {
        lies.push(format!("the {what} is called {digest} and is {found}"));
    }
    if let Some(size) = descriptor["size"].as_u64().filter(|size| *size != bytes.len() as u64) {
        lies.push(format!("the {what} is said to have {size} bytes and has {}", bytes.len()));
    }
    Ok(bytes)
}

fn docker(files: &Files, known: &mut Vec<LayerView>) -> Result<Vec<View>, ViewError> {
    let manifest = files.json("manifest.json")?;
    let images = manifest.as_array().ok_or_else(|| form("manifest.json is no list"))?;
    let mut views = Vec::new();
    for image in images {
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| form("manifest.json names no file"));
        let tag = image["RepoTags"][0].as_str().unwrap_or("-").to_owned();
        let config = files.document(&text(&image["Config"])?)?;
        let layers = array(image, "Layers")?.iter().map(|name| Ok((text(name)?, None))).collect::<Result<_, ViewError>>()?;
        views.push(view(files, tag, config, layers, known)?);
    }
    Ok(views)
}

fn view(
    files: &Files,
    tag: String,
    config: Vec<u8>,
    layers: Vec<(String, Option<Digest>)>,
    known: &mut Vec<LayerView>,
) -> Result<View, ViewError> {
    let document: Value = serde_json::from_slice(&config).map_err(|error| form(format!("the config is not JSON: {error}")))?;
    // History counts layers that are empty too; those of `pack` never are.
    let history: Vec<&Value> = document["history"]
        .as_array()
        .map_or_else(Vec::new, |all| all.iter().filter(|one| one["empty_layer"].as_bool() != Some(true)).collect());
    let mut seen = Vec::new();
    for (at, (name, claimed)) in layers.iter().enumerate() {
        let said = history.get(at).and_then(|one| one["created_by"].as_str()).unwrap_or("-");
        let mut one = layer(files, name, said.strip_prefix("pack layer ").unwrap_or(said), known)?;
        let diff_id = document["rootfs"]["diff_ids"][at].as_str().and_then(|text| text.parse::<Digest>().ok());
        let wrong = |claimed: Option<Digest>, found: Digest| claimed.filter(|claimed| *claimed != found);
        one.claimed = wrong(*claimed, one.digest).or(wrong(diff_id, one.diff_id.0));
        seen.push(one);
    }
    Ok(View { tag, manifest: None, config: Digest::of(&config), lies: Vec::new(), document, layers: seen })
}

/// A layer, and into what is `known`: images of one layout share layers, and those that are as they were rebuilt need
/// one hash instead of three.
fn layer(files: &Files, name: &str, said: &str, known: &mut Vec<LayerView>) -> Result<LayerView, ViewError> {
    // What was rebuilt lies in no file.
    let mut same = known.iter().find(|layer| !layer.source.is_empty() && layer.source == name);
    if same.is_none() && !known.is_empty() {
        let (digest, _) = Digest::of_reader(files.open(name)?).map_err(read_error(name))?;
        same = known.iter().find(|layer| layer.digest == digest);
    }
    let layer = match same {
        Some(same) => LayerView { source: name.to_owned(), order: None, claimed: None, ..same.clone() },
        None => read_layer(files, name, said)?,
    };
    known.push(layer.clone());
    Ok(LayerView { name: said.to_owned(), ..layer })
}

fn read_layer(files: &Files, name: &str, said: &str) -> Result<LayerView, ViewError> {
    let mut stored = HashingReader::new(files.open(name)?);
    let (members, diff_id) = {
        let mut plain = HashingReader::new(plain(BufReader::with_capacity(1 << 20, &mut stored)).map_err(read_error(name))?);
        let members = index_tar(ArchiveKind::Tar, &mut plain, MAX_TOTAL)
            .map_err(|source| tar_error(format!("layer {}", shown(said)), source))?;
        io::copy(&mut plain, &mut io::sink()).map_err(read_error(name))?;
        (members, plain.finish().0)
    };
    // What follows the compressed stream belongs to the blob too.
    io::copy(&mut stored, &mut io::sink()).map_err(read_error(name))?;
    let (digest, size) = stored.finish();
    let mut placed = Vec::new();
    let mut entries = BTreeMap::new();
    for Indexed { path, kind } in members {
        let seen = match kind {
            TarKind::Dir => EntryView::Dir,
            TarKind::File { mode, size, at, digest } => {
                placed.push((at, path.clone()));
                EntryView::File { mode: mode.bits(), digest, size }
            }
            TarKind::Link { target } => EntryView::Link { target },
        };
        entries.insert(path, seen);
    }
    placed.sort();
    let order = Some(placed.into_iter().map(|(_, path)| path).collect());
    let (name, source) = (said.to_owned(), name.to_owned());
    Ok(LayerView { name, source, diff_id: DiffId(diff_id), digest, size, entries, order, claimed: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Place;

    /// A layer that an archive has no name for is none that was rebuilt.
    #[test]
    fn a_layer_is_read_from_where_it_is_said_to_lie() {
        let dir = tempfile::tempdir().unwrap();
        let tar = |members: &[(&str, &[u8])]| {
            let mut out = tar::Builder::new(Vec::new());
            for (name, bytes) in members {
                let mut header = tar::Header::new_ustar();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                out.append_data(&mut header, name, *bytes).unwrap();
            }
            out.into_inner().unwrap()
        };
        let layer = tar(&[("a", b"x")]);
        let digest = Digest::of(&layer);
        let config = format!("{{\"rootfs\": {{\"diff_ids\": [\"{digest}\"]}}}}");
        let archive = |named: &str| {
            let manifest = format!("[{{\"Config\": \"c.json\", \"RepoTags\": [\"x\"], \"Layers\": [\"{named}\"]}}]");
            let path = dir.path().join("archive.tar");
            let all = tar(&[("manifest.json", manifest.as_bytes()), ("c.json", config.as_bytes()), ("layer.tar", &layer)]);
            std::fs::write(&path, all).unwrap();
            path
        };
        let mut known = open(&archive("layer.tar")).unwrap();
        assert_eq!(known[0].layers[0].digest, digest);
        // As what was rebuilt is shown.
        known[0].layers[0].source = String::new();
        let beside = |named| open_beside(&archive(named), &known);
        assert_eq!(beside("layer.tar").unwrap()[0].layers[0].entries, known[0].layers[0].entries);
        assert!(beside("").unwrap_err().to_string().contains("has no ``"));
    }

    #[test]
    fn a_disk_that_does_not_give_its_bytes_shows_no_other_image() {
        let wrapped = |source| io::Error::other(ArchiveError::Io { place: Place::whole(ArchiveKind::Tar), source });
        let system = || io::Error::from_raw_os_error(5);
        let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
        for (source, is_read) in [(system(), true), (short(), false)] {
            let error = tar_error("x".into(), ArchiveError::Io { place: Place::whole(ArchiveKind::Tar), source });
            assert_eq!(matches!(error, ViewError::Read { .. }), is_read, "{error}");
        }
        for (source, is_read) in [(wrapped(system()), true), (wrapped(short()), false)] {
            assert_eq!(matches!(read_error("x")(source), ViewError::Read { .. }), is_read);
        }
        // A file that is there and cannot be read, as Linux has one.
        let error = open(Path::new("/proc/self/mem")).unwrap_err();
        assert!(matches!(error, ViewError::Read { .. }), "{error}");
    }
}
