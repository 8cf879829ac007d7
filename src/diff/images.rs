//! Images: two of them, layer by layer and file by file, and the first difference with its cause.
//!
//! Layer 2 (decisions): pure. An image is seen by what its bytes are, not by what its documents say of them. Must
//! never call two images the same content whose configs differ.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Cause, Difference, Level};
use crate::digest::{DiffId, Digest};
use crate::path::ImagePath;

/// An image as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Its tag.
    pub tag: String,
    /// Digest of the manifest's bytes, where there is one.
    pub manifest: Option<Digest>,
    /// Digest of the config's bytes: the identity.
    pub config: Digest,
    /// What its documents say that is not so, a sentence each.
    pub lies: Vec<String>,
    /// The config itself.
    pub document: Value,
    /// From the bottom up.
    pub layers: Vec<LayerView>,
}

/// A layer as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerView {
    /// What it holds, for people.
    pub name: String,
    /// The file or member that holds it, where it was read from one.
    pub source: String,
    /// Digest of the uncompressed tar, as found in its bytes.
    pub diff_id: DiffId,
    /// Digest of the stored bytes, as found; equal to the diff_id where it is not compressed.
    pub digest: Digest,
    /// Bytes as stored.
    pub size: u64,
    /// What is in it, by path.
    pub entries: BTreeMap<ImagePath, EntryView>,
    /// Files in the order of the tar, where it is known.
    pub order: Option<Vec<ImagePath>>,
    /// The digest that the manifest or the config gives, where the bytes have another one.
    pub claimed: Option<Digest>,
}

/// One thing in a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryView {
    /// A folder.
    Dir,
    /// A file.
    File {
        /// Permission bits, 0644 or 0755.
        mode: u32,
        /// Of the content.
        digest: Digest,
        /// Bytes.
        size: u64,
    },
    /// A link.
    Link {
        /// What it says.
        target: String,
    },
}

/// How two images are to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "answer", deny_unknown_fields)]
pub enum Images {
    /// Config and every layer's stored bytes are the same.
    Identical,
    /// The configs are the same, and so is each layer's tar; some are compressed otherwise.
    Recompressed {
        /// Which layers.
        layers: Vec<String>,
    },
    /// Something that runs or is read is not the same.
    Different {
        /// The first difference: layer, file and cause; or what of the config.
        first: Difference,
        /// Everything, in the order of the layers.
        all: Vec<Difference>,
    },
}

/// How two images are to each other, the first difference first.
pub fn compare(a: &View, b: &View) -> Images {
    let mut all = Vec::new();
    let mut recompressed = Vec::new();
    for (side, image) in [("A", a), ("B", b)] {
        all.extend(image.lies.iter().map(|lie| Difference::new(Level::Document, lie, Cause::Value).within(format!("in {side}"))));
        for layer in &image.layers {
            if let Some(claimed) = &layer.claimed {
                let wrong = Difference::new(Level::Layer, &layer.name, Cause::Content).within(format!("in {side}"));
                all.push(wrong.between(format!("{claimed} by its name"), format!("{} by its bytes", layer.digest)));
            }
        }
    }
    // Layers are matched by their diff_ids first, so that one that was put in between leaves the others equal.
    let pairs = matched(&a.layers, &b.layers);
    let mut last = None;
    for pair in &pairs {
        match *pair {
            (Some(one), Some(other)) => {
                let (one_layer, other_layer) = (&a.layers[one], &b.layers[other]);
                if last.is_some_and(|last| other < last) {
                    all.push(Difference::new(Level::Layer, &one_layer.name, Cause::Order).between(one, other));
                }
                last = last.max(Some(other));
                if one_layer.diff_id != other_layer.diff_id {
                    all.extend(layer(one_layer, other_layer));
                } else if one_layer.digest != other_layer.digest {
                    recompressed.push(one_layer.name.clone());
                }
            }
            (Some(one), None) => all.push(alone(&a.layers[one], Cause::OnlyA)),
            (None, Some(other)) => all.push(alone(&b.layers[other], Cause::OnlyB)),
            (None, None) => {}
        }
    }
    if a.config != b.config {
        all.extend(config(&a.document, &b.document, !all.is_empty()));
    }
    match all.first() {
        Some(first) => Images::Different { first: first.clone(), all },
        None if recompressed.is_empty() => Images::Identical,
        None => Images::Recompressed { layers: recompressed },
    }
}

fn alone(layer: &LayerView, cause: Cause) -> Difference {
    let what = format!("{} entries", layer.entries.len());
    let one = Difference::new(Level::Layer, &layer.name, cause);
    if cause == Cause::OnlyA { one.between(what, "") } else { one.between("", what) }
}

type Pairs = Vec<(Option<usize>, Option<usize>)>;

/// Pairs of layers: the same tar, else the same name, else the same place from the bottom. Sorted by A's order.
fn matched(a: &[LayerView], b: &[LayerView]) -> Pairs {
    let mut free: Vec<bool> = vec![true; b.len()];
    let mut partner: Vec<Option<usize>> = vec![None; a.len()];
    let mut pass = |same: &dyn Fn(usize, usize) -> bool| {
        for (one, partner) in partner.iter_mut().enumerate().filter(|(_, partner)| partner.is_none()) {
            if let Some(other) = (0..b.len()).find(|other| free[*other] && same(one, *other)) {
                (*partner, free[other]) = (Some(other), false);
            }
        }
    };
    pass(&|one, other| one == other && a[one].diff_id == b[other].diff_id);
    pass(&|one, other| a[one].diff_id == b[other].diff_id);
    pass(&|one, other| a[one].name == b[other].name && a[one].name != "-");
    pass(&|one, other| one == other);
    let mut pairs: Pairs = partner.iter().enumerate().map(|(one, other)| (Some(one), *other)).collect();
    pairs.extend(free.iter().enumerate().filter(|(_, free)| **free).map(|(other, _)| (None, Some(other))));
    pairs
}

/// What differs in two layers that are to be the same one.
pub fn layer(a: &LayerView, b: &LayerView) -> Vec<Difference> {
    let file = |path: &ImagePath, cause| Difference::new(Level::File, &a.name, cause).within(path.as_str());
    let mut all = Vec::new();
    for (path, one) in &a.entries {
        match b.entries.get(path) {
            None => all.push(file(path, Cause::OnlyA)),
            Some(other) if one == other => {}
            Some(other) => all.push(match (one, other) {
                (EntryView::File { digest: a, .. }, EntryView::File { digest: b, .. }) if a != b => {
                    file(path, Cause::Content).between(a, b)
                }
                (EntryView::File { mode: a, .. }, EntryView::File { mode: b, .. }) => {
                    file(path, Cause::Mode).between(format!("{a:04o}"), format!("{b:04o}"))
                }
                (EntryView::Link { target: a }, EntryView::Link { target: b }) => file(path, Cause::Target).between(a, b),
                (one, other) => file(path, Cause::Type).between(word(one), word(other)),
            }),
        }
    }
    all.extend(b.entries.keys().filter(|path| !a.entries.contains_key(*path)).map(|path| file(path, Cause::OnlyB)));
    if all.is_empty() {
        all.push(match (&a.order, &b.order) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                let at = ours.iter().zip(theirs).position(|(a, b)| a != b).unwrap_or(0);
                let path = |order: &[ImagePath]| order.get(at).map_or_else(String::new, ToString::to_string);
                Difference::new(Level::Layer, &a.name, Cause::Order).between(path(ours), path(theirs))
            }
            (Some(_), Some(_)) => Difference::new(Level::Layer, &a.name, Cause::Header).between(a.diff_id, b.diff_id),
            _ => Difference::new(Level::Layer, &a.name, Cause::HeaderOrOrder).between(a.diff_id, b.diff_id),
        });
    }
    all
}

fn word(entry: &EntryView) -> &'static str {
    match entry {
        EntryView::Dir => "a folder",
        EntryView::File { .. } => "a file",
        EntryView::Link { .. } => "a link",
    }
}

/// What differs in two configs. The layers' digests and history follow the layers, so where those differ they are
/// not told again.
fn config(a: &Value, b: &Value, layers_differ: bool) -> Vec<Difference> {
    let mut all = Vec::new();
    below(a, b, String::new(), &mut all);
    if layers_differ {
        all.retain(|one| !one.place.iter().any(|place| place.starts_with("/rootfs/") || place.starts_with("/history/")));
    }
    if all.is_empty() && !layers_differ {
        all.push(Difference::new(Level::Config, "/", Cause::Layout));
    }
    all
}

fn below(a: &Value, b: &Value, at: String, all: &mut Vec<Difference>) {
    let text = |value: &Value| value.to_string();
    match (a, b) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, value) in ours {
                match theirs.get(key) {
                    Some(other) => below(value, other, format!("{at}/{key}"), all),
                    None => {
                        all.push(Difference::new(Level::Config, format!("{at}/{key}"), Cause::OnlyA).between(text(value), ""))
                    }
                }
            }
            for (key, value) in theirs.iter().filter(|(key, _)| !ours.contains_key(*key)) {
                all.push(Difference::new(Level::Config, format!("{at}/{key}"), Cause::OnlyB).between("", text(value)));
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (n, (one, other)) in ours.iter().zip(theirs).enumerate() {
                below(one, other, format!("{at}/{n}"), all);
            }
        }
        _ if a == b => {}
        _ => all.push(Difference::new(Level::Config, at, Cause::Value).between(text(a), text(b))),
    }
}
