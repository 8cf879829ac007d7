//! `pack image ls`: what is in an OCI layout or an archive, read from its own bytes.
//!
//! Layer 4 (commands). Every blob is hashed as it is read, so a listing is also a check. Must never trust a
//! name or a size that a document states, nor list an image whose documents say what is not so.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde::Serialize;

use super::args::ImageCommand;
use super::error::Problem;
use super::render;
use super::session::Call;
use crate::diff::images::{EntryView, LayerView, View};
use crate::image::view;
use crate::path::ImagePath;
use crate::weights::shown;

/// An image.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its tag.
    pub tag: String,
    /// Manifest digest; an archive for docker has no manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
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

/// Reads a layout or an archive.
pub fn ls(place: &Path, files: bool) -> Result<Vec<Listed>> {
    if !place.is_file() && !place.join("oci-layout").is_file() {
        bail!(
            Problem::new(format!("`{}` is not an OCI layout: it has no oci-layout file", place.display()))
                .help("run `pack build`, or name the folder or the archive that it wrote")
        );
    }
    view::open(place)?.into_iter().map(|view| listed(view, files)).collect()
}

fn listed(view: View, files: bool) -> Result<Listed> {
    let tag = shown(&view.tag);
    let wrong = view.layers.iter().filter_map(|layer| {
        let claimed = layer.claimed?;
        let (name, digest, diff_id) = (shown(&layer.name), layer.digest, layer.diff_id.0);
        Some(format!("layer {name}: expected {claimed}, found {digest}, or uncompressed {diff_id}"))
    });
    let wrong: Vec<String> = view.lies.iter().map(|lie| shown(lie)).chain(wrong).collect();
    if !wrong.is_empty() {
        let problem = Problem::new(format!("image `{tag}` is not as its documents say: {}", wrong.join("; ")));
        bail!(problem.help("build it anew, or ask whoever made it for a whole copy"));
    }
    let manifest = view.manifest.map(|digest| digest.to_string());
    let layers = view.layers.into_iter().map(|layer| listed_layer(&layer, files)).collect();
    Ok(Listed { tag, manifest, config: view.config.to_string(), layers })
}

fn listed_layer(layer: &LayerView, files: bool) -> ListedLayer {
    ListedLayer {
        name: shown(&layer.name),
        diff_id: layer.diff_id.to_string(),
        digest: layer.digest.to_string(),
        size: layer.size,
        entries: layer.entries.len(),
        files: if files { layer.entries.iter().map(line).collect() } else { Vec::new() },
    }
}

fn line((path, entry): (&ImagePath, &EntryView)) -> String {
    match entry {
        EntryView::Dir => format!("dir  {path}/"),
        EntryView::File { mode, digest, size } => format!("file {mode:04o} {} {size} {path}", digest.hex()),
        EntryView::Link { target } => format!("link {path} -> {}", target.escape_debug()),
    }
}

/// What was typed, done and shown.
pub(super) fn main(command: &ImageCommand, call: &Call) -> Result<ExitCode> {
    match command {
        ImageCommand::Ls { layout, files } => {
            let images = ls(layout, *files)?;
            call.out.show(&images, |images| images.iter().map(render::image).collect())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
