//! Image: config, manifest and index as canonical JSON, and the OCI layout on disk.
//!
//! Layer 3 (effects). The config digest is the image's identity: it holds the diff_ids, so a manifest that
//! differs only in compression is the same content. All JSON is RFC 8785. A layout is built beside its place
//! and `index.json` is replaced last, so a killed build leaves the old image or the new one. Must never hold
//! a time but the constant one.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, DescriptorBuilder, HistoryBuilder, ImageConfigurationBuilder, ImageIndexBuilder,
    ImageManifestBuilder, MediaType, Os, RootFsBuilder, Sha256Digest,
};
use serde::Serialize;

use crate::digest::Digest;
use crate::layer::{Kind, Layer, LayerError, Layers, Line, TarWriter};
use crate::path::ImagePath;
use crate::plan::{Form, ImageKind, Plan};
use crate::store::{Placed, Store, StoreError, io_error};

/// The constant time, as OCI writes it.
const CREATED: &str = "1980-01-01T00:00:00Z";
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image that was made.
#[derive(Clone, Debug)]
pub struct Image {
    /// Which one.
    pub kind: ImageKind,
    /// The config's bytes.
    pub config: Vec<u8>,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// From the bottom up.
    pub layers: Vec<Layer>,
}

/// What can go wrong while an image is written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A layer.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The disk or the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something else lies where the layout is to go.
    #[error("`{path}` is there and is not an image that `pack` wrote")]
    Occupied {
        /// Where.
        path: PathBuf,
    },
    /// Two layers write one path differently.
    #[error("`{path}` is written by layer `{first}` and, with different content, by layer `{second}`")]
    Collision {
        /// Where.
        path: ImagePath,
        /// The lower layer.
        first: String,
        /// The upper layer.
        second: String,
    },
    /// A value that an OCI document cannot hold.
    #[error("cannot write the image's {document}: {reason}")]
    Document {
        /// Which.
        document: &'static str,
        /// Why.
        reason: String,
    },
}

/// How the bytes of an image came to its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Blobs that were there already.
    pub present: u64,
    /// Blobs that share the store's inode.
    pub linked: u64,
    /// Blobs that share the store's blocks.
    pub reflinked: u64,
    /// Blobs copied, with their bytes.
    pub copied: u64,
    /// Bytes copied or written.
    pub bytes: u64,
}

impl Written {
    fn count(&mut self, how: Placed, size: u64) {
        match how {
            Placed::Present => self.present += 1,
            Placed::Linked => self.linked += 1,
            Placed::Reflinked => self.reflinked += 1,
            Placed::Copied => {
                self.copied += 1;
                self.bytes += size;
            }
        }
    }
}

impl Image {
    /// Composes the documents for layers that were made from the plan's, in the same order.
    pub fn new(plan: &Plan, layers: Vec<Layer>) -> Result<Self, ImageError> {
        let config = config(plan, &layers)?;
        let descriptors: Vec<Descriptor> = layers
            .iter()
            .map(|layer| {
                let media = match layer.form {
                    Form::Zstd => MediaType::ImageLayerZstd,
                    Form::Plain => MediaType::ImageLayer,
                };
                descriptor(media, &layer.digest, layer.size)
            })
            .collect::<Result<_, _>>()?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .config(descriptor(MediaType::ImageConfig, &Digest::of(&config), config.len() as u64)?)
            .layers(descriptors)
            .build()
            .map_err(document("manifest"))?;
        Ok(Image { kind: plan.kind, config, manifest: canonical(&manifest, "manifest")?, layers })
    }

    /// The image's identity.
    pub fn config_digest(&self) -> Digest {
        Digest::of(&self.config)
    }

    /// Digest of the manifest, by which registries name the image.
    pub fn manifest_digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// Refuses a path that two layers write differently. Upper layers may repeat folders.
    pub fn check_collisions(&self, store: &Store) -> Result<(), ImageError> {
        let listings: Vec<String> = self.layers.iter().map(|layer| layer.listing.hex()).collect();
        let key = Digest::of(listings.join("\n").as_bytes());
        if store.recall("disjoint", &key).is_some() {
            return Ok(());
        }
        let mut seen: BTreeMap<ImagePath, (Line, &str)> = BTreeMap::new();
        for layer in &self.layers {
            let text = store.read(&layer.listing)?;
            for line in String::from_utf8_lossy(&text).lines().filter_map(Line::parse) {
                match seen.get(&line.path) {
                    Some((there, _)) if *there == line || (there.kind == Kind::Dir && line.kind == Kind::Dir) => {}
                    Some((_, first)) => {
                        return Err(ImageError::Collision {
                            path: line.path,
                            first: (*first).to_owned(),
                            second: layer.name.clone(),
                        });
                    }
                    None => {
                        seen.insert(line.path.clone(), (line, &layer.name));
                    }
                }
            }
        }
        store.remember("disjoint", &key, "\n")?;
        Ok(())
    }
}

fn config(plan: &Plan, layers: &[Layer]) -> Result<Vec<u8>, ImageError> {
    let run = &plan.run;
    let mut inner = ConfigBuilder::default()
        .env(run.env.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>())
        .entrypoint(run.entrypoint.clone())
        .working_dir("/submission")
        .labels(run.labels.clone().into_iter().collect::<Labels>());
    if let Some(port) = run.port {
        inner = inner.exposed_ports(vec![format!("{port}/tcp")]);
    }
    let history = layers
        .iter()
        .map(|layer| HistoryBuilder::default().created(CREATED).created_by(format!("pack layer {}", layer.name)).build())
        .collect::<Result<Vec<_>, _>>()
        .map_err(document("config"))?;
    let rootfs = RootFsBuilder::default()
        .typ("layers")
        .diff_ids(layers.iter().map(|layer| layer.diff_id.to_string()).collect::<Vec<_>>())
        .build()
        .map_err(document("config"))?;
    let config = ImageConfigurationBuilder::default()
        .created(CREATED)
        .architecture(Arch::Amd64)
        .os(Os::Linux)
        .config(inner.build().map_err(document("config"))?)
        .rootfs(rootfs)
        .history(history)
        .build()
        .map_err(document("config"))?;
    canonical(&config, "config")
}

#[allow(clippy::disallowed_types, reason = "oci-spec's type; canonical JSON sorts it")]
type Labels = std::collections::HashMap<String, String>;

fn descriptor(media: MediaType, digest: &Digest, size: u64) -> Result<Descriptor, ImageError> {
    let digest: Sha256Digest = digest.hex().parse().map_err(document("descriptor"))?;
    DescriptorBuilder::default().media_type(media).digest(digest).size(size).build().map_err(document("descriptor"))
}

fn document<E: std::fmt::Display>(document: &'static str) -> impl Fn(E) -> ImageError {
    move |error| ImageError::Document { document, reason: error.to_string() }
}

fn canonical<T: Serialize>(value: &T, name: &'static str) -> Result<Vec<u8>, ImageError> {
    serde_json_canonicalizer::to_vec(value).map_err(document(name))
}

/// The index: one manifest an image, tagged by its kind.
fn index(images: &[Image]) -> Result<Vec<u8>, ImageError> {
    let manifests = images
        .iter()
        .map(|image| {
            let digest: Sha256Digest = image.manifest_digest().hex().parse().map_err(document("index"))?;
            DescriptorBuilder::default()
                .media_type(MediaType::ImageManifest)
                .digest(digest)
                .size(image.manifest.len() as u64)
                .annotations(Labels::from([("org.opencontainers.image.ref.name".to_owned(), image.kind.as_str().to_owned())]))
                .build()
                .map_err(document("index"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let index = ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests)
        .build()
        .map_err(document("index"))?;
    canonical(&index, "index")
}

/// An OCI layout folder that is being written; locked against other `pack` processes.
pub struct Layout {
    root: PathBuf,
    _lock: File,
}

impl Layout {
    /// Opens a place for a layout: a new or empty folder, or a layout that is to be replaced.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        let foreign = match fs::read_dir(root) {
            Ok(mut entries) => entries.next().is_some() && !root.join("oci-layout").is_file() && !root.join("blobs").is_dir(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(_) => true,
        };
        if foreign {
            return Err(ImageError::Occupied { path: root.to_owned() });
        }
        let blobs = root.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(io_error("create", &blobs))?;
        let lock = File::open(root).map_err(io_error("open", root))?;
        lock.lock().map_err(io_error("lock", root))?;
        Ok(Layout { root: root.to_owned(), _lock: lock })
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// Makes an image's layers and puts their blobs in place.
    pub fn image(&self, plan: &Plan, layers: &Layers<'_>, written: &mut Written) -> Result<Image, ImageError> {
        let mut made = Vec::with_capacity(plan.layers.len());
        for layer_plan in &plan.layers {
            if let Some(layer) = layers.remembered(layer_plan)?
                && layers.store.remembers_file(&self.blob(&layer.digest), &layer.digest)
            {
                written.present += 1;
                made.push(layer);
                continue;
            }
            let (layer, temporary) = layers.make(layer_plan, Some(&self.blobs()))?;
            let place = self.blob(&layer.digest);
            match temporary {
                Some(temporary) => {
                    let finish = || {
                        let file = File::open(&temporary)?;
                        file.set_permissions(fs::Permissions::from_mode(0o444))?;
                        file.sync_data()?;
                        fs::rename(&temporary, &place)
                    };
                    finish().map_err(io_error("put in place", &place))?;
                    written.copied += 1;
                    written.bytes += layer.size;
                }
                None => {
                    // What lies there is not what we remember, so it is not kept.
                    drop(fs::remove_file(&place));
                    written.count(layers.store.place(&layer.digest, layer.size, &place)?, layer.size);
                }
            }
            layers.store.remember_file(&place, &layer.digest)?;
            made.push(layer);
        }
        let image = Image::new(plan, made)?;
        image.check_collisions(layers.store)?;
        Ok(image)
    }

    /// Writes the documents, `index.json` last, and removes blobs that nothing names any more.
    pub fn finish(self, images: &[Image]) -> Result<(), ImageError> {
        let mut named: BTreeSet<String> = BTreeSet::new();
        for image in images {
            named.extend(image.layers.iter().map(|layer| layer.digest.hex()));
            for bytes in [&image.config, &image.manifest] {
                let digest = Digest::of(bytes);
                named.insert(digest.hex());
                self.put(&self.blob(&digest), bytes)?;
            }
        }
        self.put(&self.root.join("oci-layout"), LAYOUT)?;
        self.put(&self.root.join("index.json"), &index(images)?)?;
        // The layout is locked, so a temporary file belongs to nobody but a build that was killed.
        for entry in fs::read_dir(&self.root).map_err(io_error("read", &self.root))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(".tmp-") {
                drop(fs::remove_file(entry.path()));
            }
        }
        let blobs = self.blobs();
        for entry in fs::read_dir(&blobs).map_err(io_error("read", &blobs))?.flatten() {
            if !named.contains(entry.file_name().to_string_lossy().as_ref()) {
                drop(fs::remove_file(entry.path()));
            }
        }
        Ok(())
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
        if fs::read(path).is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        let temporary = self.root.join(format!(".tmp-{}", std::process::id()));
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.set_permissions(fs::Permissions::from_mode(0o444))?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        };
        write().map_err(io_error("write", path))?;
        Ok(())
    }
}

/// Writes images as one oci-archive: the layout as a tar in canonical order. Plain layers are generated into
/// it, so weights are not on disk a third time.
pub fn write_archive(to: &Path, plans: &[Plan], layers: &Layers<'_>) -> Result<(Vec<Image>, Written), ImageError> {
    let mut images = Vec::new();
    for plan in plans {
        let made = plan.layers.iter().map(|layer| match layers.remembered(layer)? {
            Some(layer) => Ok(layer),
            None => layers.make(layer, None).map(|(layer, _)| layer),
        });
        let image = Image::new(plan, made.collect::<Result<_, LayerError>>()?)?;
        image.check_collisions(layers.store)?;
        images.push(image);
    }
    let folder = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = folder.join(format!(".tmp-{}-archive", std::process::id()));
    let result = stream_archive(&temporary, plans, &images, layers);
    match result.and_then(|written| {
        fs::rename(&temporary, to).map_err(io_error("put in place", to))?;
        Ok(written)
    }) {
        Ok(written) => Ok((images, written)),
        Err(error) => {
            drop(fs::remove_file(&temporary));
            Err(error)
        }
    }
}

fn stream_archive(to: &Path, plans: &[Plan], images: &[Image], layers: &Layers<'_>) -> Result<Written, ImageError> {
    let file = File::create(to).map_err(io_error("create", to))?;
    let mut tar = TarWriter::new(io::BufWriter::with_capacity(1 << 20, file));
    let failed = |error: io::Error| io_error("write", to)(error);
    let mut documents: BTreeMap<Digest, &[u8]> = BTreeMap::new();
    let mut blobs = BTreeMap::new();
    for (plan, image) in plans.iter().zip(images) {
        for bytes in [&image.config, &image.manifest] {
            documents.insert(Digest::of(bytes), bytes);
        }
        for (layer_plan, layer) in plan.layers.iter().zip(&image.layers) {
            blobs.insert(layer.digest, (layer_plan, layer));
        }
    }
    let at = |digest: &Digest| ImagePath::new(&format!("blobs/sha256/{}", digest.hex())).expect("hex is a name");
    let mut written = Written::default();
    let all: BTreeSet<Digest> = documents.keys().chain(blobs.keys()).copied().collect();
    for digest in all {
        if let Some(bytes) = documents.get(&digest) {
            tar.file(&at(&digest), 0o444, bytes.len() as u64, false, &mut &bytes[..]).map_err(failed)?;
            continue;
        }
        let (layer_plan, layer) = blobs[&digest];
        match layer.form {
            Form::Zstd => {
                let mut blob = layers.store.open_blob(&digest)?;
                tar.file(&at(&digest), 0o444, layer.size, false, &mut blob).map_err(failed)?;
            }
            Form::Plain => {
                tar.file_with(&at(&digest), 0o444, layer.size, |out| layers.write_plain_to(layer_plan, layer, out))?;
            }
        }
        written.copied += 1;
        written.bytes += layer.size;
    }
    let root = |name: &str| ImagePath::new(name).expect("a constant");
    let index = index(images)?;
    tar.file(&root("index.json"), 0o444, index.len() as u64, false, &mut &index[..]).map_err(failed)?;
    tar.file(&root("oci-layout"), 0o444, LAYOUT.len() as u64, false, &mut &LAYOUT[..]).map_err(failed)?;
    let mut buffered = tar.finish().map_err(failed)?;
    buffered.flush().map_err(failed)?;
    let file = buffered.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    file.set_permissions(fs::Permissions::from_mode(0o644)).map_err(failed)?;
    Ok(written)
}
