//! `pack image ls`: what is in an OCI layout, read from its own bytes.
//!
//! Layer 4 (commands). Every blob is hashed as it is read, so a listing is also a check. Must never trust a
//! name or a size that a document states.

#![allow(clippy::disallowed_methods, reason = "effects: reads a layout")]

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::Value;

use super::error::Problem;
use crate::archive::{ArchiveKind, Indexed, MAX_TOTAL, TarKind, index_tar};
use crate::digest::{Digest, HashingReader};

/// A layout's image.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its tag.
    pub tag: String,
    /// Manifest digest.
    pub manifest: String,
    /// Config digest: the identity.
    pub config: String,
    /// From the bottom up.
    pub layers: Vec<ListedLayer>,
}

/// A layer of it.
#[derive(Debug, Serialize)]
pub struct ListedLayer {
    /// From the config's history.
    pub name: String,
    /// Of the uncompressed tar, as computed here.
    pub diff_id: String,
    /// Of the stored blob, as computed here.
    pub digest: String,
    /// Bytes as stored.
    pub size: u64,
    /// Its entries.
    pub entries: usize,
    /// `file <mode> <sha256> <size> <path>`, `link <path> -> <target>`, `dir <path>/`, where asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
}

/// Documents are small; a layout that says otherwise is not read.
const MAX_DOCUMENT: u64 = 16 << 20;

/// Reads a layout.
pub fn ls(layout: &Path, files: bool) -> Result<Vec<Listed>> {
    let marker = layout.join("oci-layout");
    if !marker.is_file() {
        bail!(
            Problem::new(format!("`{}` is not an OCI layout: it has no oci-layout file", layout.display()))
                .help("run `pack build`, or name the folder it wrote")
        );
    }
    let index: Value = serde_json::from_slice(&small(&layout.join("index.json"))?).context("index.json is not JSON")?;
    let mut images = Vec::new();
    for entry in array(&index, "manifests")? {
        let tag = entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or("-").escape_debug().to_string();
        let (digest, manifest) = document(layout, entry)?;
        let (config_digest, config) = document(layout, &manifest["config"])?;
        let mut layers = Vec::new();
        let diff_ids = array(&config["rootfs"], "diff_ids")?;
        for (at, layer) in array(&manifest, "layers")?.iter().enumerate() {
            let history = config["history"][at]["created_by"].as_str().unwrap_or("-").escape_debug().to_string();
            let listed = self::layer(layout, layer, history.trim_start_matches("pack layer "), files)?;
            if diff_ids.get(at).and_then(Value::as_str) != Some(&listed.diff_id) {
                bail!(Problem::new(format!(
                    "layer {at} of `{tag}`: expected diff_id {}, found {}",
                    diff_ids.get(at).and_then(Value::as_str).unwrap_or("none"),
                    listed.diff_id
                )));
            }
            layers.push(listed);
        }
        images.push(Listed { tag, manifest: digest.to_string(), config: config_digest.to_string(), layers });
    }
    Ok(images)
}

fn array<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value[key].as_array().with_context(|| format!("the layout's documents have no `{key}`"))
}

fn small(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
    file.take(MAX_DOCUMENT).read_to_end(&mut bytes).with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(bytes)
}

fn digest_of(descriptor: &Value) -> Result<Digest> {
    let text = descriptor["digest"].as_str().context("a descriptor has no digest")?;
    text.parse().with_context(|| format!("a descriptor names `{text}`"))
}

fn document(layout: &Path, descriptor: &Value) -> Result<(Digest, Value)> {
    let digest = digest_of(descriptor)?;
    let bytes = small(&layout.join("blobs/sha256").join(digest.hex()))?;
    let found = Digest::of(&bytes);
    if found != digest {
        bail!(Problem::new(format!("a document of the layout: expected {digest}, found {found}")));
    }
    Ok((digest, serde_json::from_slice(&bytes).with_context(|| format!("{digest} is not JSON"))?))
}

fn layer(layout: &Path, descriptor: &Value, name: &str, files: bool) -> Result<ListedLayer> {
    let digest = digest_of(descriptor)?;
    let path = layout.join("blobs/sha256").join(digest.hex());
    let size = fs::metadata(&path).with_context(|| format!("layer `{name}` is not in the layout"))?.len();
    let blob = HashingReader::new(File::open(&path).with_context(|| format!("cannot open `{}`", path.display()))?);
    let media = descriptor["mediaType"].as_str().unwrap_or("");
    let plain: Box<dyn Read> = match media {
        media if media.ends_with("tar+zstd") => Box::new(zstd::Decoder::new(blob).context("zstd")?),
        media if media.ends_with(".tar") => Box::new(blob),
        other => bail!(Problem::new(format!("layer `{name}` has media type `{other}`, which `pack` does not write"))),
    };
    let mut plain = HashingReader::new(plain);
    let members =
        index_tar(ArchiveKind::Tar, &mut plain, MAX_TOTAL).with_context(|| format!("layer `{name}` cannot be taken"))?;
    io::copy(&mut plain, &mut io::sink()).with_context(|| format!("cannot read layer `{name}`"))?;
    let (diff_id, _) = plain.finish();
    let entries = members.len();
    let listed = if files { members.iter().map(line).collect() } else { Vec::new() };
    let found = hash_file(&path)?;
    if found != digest {
        bail!(Problem::new(format!("layer `{name}`: expected {digest}, found {found}")));
    }
    Ok(ListedLayer {
        name: name.to_owned(),
        diff_id: diff_id.to_string(),
        digest: digest.to_string(),
        size,
        entries,
        files: listed,
    })
}

fn line(member: &Indexed) -> String {
    let path = &member.path;
    match &member.kind {
        TarKind::Dir => format!("dir  {path}/"),
        TarKind::File { mode, size, digest, .. } => format!("file {:04o} {} {size} {path}", mode.bits(), digest.hex()),
        TarKind::Link { target, .. } => format!("link {path} -> {}", target.escape_debug()),
    }
}

fn hash_file(path: &Path) -> Result<Digest> {
    let mut reader = HashingReader::new(File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?);
    io::copy(&mut reader, &mut io::sink()).with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(reader.finish().0)
}
