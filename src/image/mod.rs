//! Image: config, manifest and index as canonical JSON, and the OCI layout on disk.
//!
//! Layer 3 (effects). The config digest is the image's identity: it holds the diff_ids, so a manifest that
//! differs only in compression is the same content. All JSON is RFC 8785. `layout` writes a folder, `archive`
//! one file. Must never hold a time but the constant one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, DescriptorBuilder, HistoryBuilder, ImageConfigurationBuilder, ImageIndexBuilder,
    ImageManifestBuilder, MediaType, Os, RootFsBuilder, Sha256Digest,
};
use serde::Serialize;

use crate::digest::Digest;
use crate::layer::{Kind, Layer, LayerError, Line};
use crate::path::ImagePath;
use crate::plan::{Form, ImageKind, Plan};
use crate::store::{Placed, Store, StoreError};

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
    /// An archive's members; the file's name is added where it is known.
    #[error(transparent)]
    Write(#[from] std::io::Error),
    /// A value that an OCI document cannot hold.
    #[error("cannot write the image's {document}: {reason}")]
    Document {
        /// Which.
        document: &'static str,
        /// Why.
        reason: String,
    },
}

mod archive;
mod docker;
mod layout;
pub mod view;

pub use archive::{Shape, write_archive};
pub use layout::Layout;

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
            for line in layer.lines(store)? {
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
