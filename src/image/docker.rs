//! Docker archive: the images as one tar file that `docker load` and `skopeo docker-archive:` read.
//!
//! Layer 3 (effects). Configs are those of the OCI layout, byte for byte, so the image id that docker shows is
//! our config digest. Layers are uncompressed and stream from the store, each checked against its diff_id.
//! Must never hold a config or a layer that the OCI layout does not have.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use serde::Serialize;

use super::{Image, ImageError, Written, canonical};
use crate::digest::HashingReader;
use crate::layer::{Layer, Layers, TarWriter};
use crate::path::ImagePath;
use crate::plan::{Form, LayerPlan, Plan};
use crate::store::StoreError;

/// One image of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    layers: Vec<String>,
    repo_tags: Vec<String>,
}

/// Writes `manifest.json`, the configs and the layers, each once, sorted by name.
pub(super) fn write<W: Write>(
    tar: &mut TarWriter<W>,
    plans: &[Plan],
    images: &[Image],
    layers: &Layers<'_>,
) -> Result<Written, ImageError> {
    let path = |name: &str| ImagePath::new(name).expect("a constant, or hex and an ending");
    let entry = |(plan, image): (&Plan, &Image)| Entry {
        config: format!("{}.json", image.config_digest().hex()),
        layers: image.layers.iter().map(layer_name).collect(),
        repo_tags: vec![tag(plan)],
    };
    let manifest = canonical(&plans.iter().zip(images).map(entry).collect::<Vec<_>>(), "manifest.json")?;
    tar.file(&path("manifest.json"), 0o444, manifest.len() as u64, false, &mut &manifest[..])?;
    let configs: BTreeMap<String, &[u8]> =
        images.iter().map(|image| (format!("{}.json", image.config_digest().hex()), &image.config[..])).collect();
    for (name, bytes) in configs {
        tar.file(&path(&name), 0o444, bytes.len() as u64, false, &mut &bytes[..])?;
    }
    let mut all: BTreeMap<String, (&LayerPlan, &Layer)> = BTreeMap::new();
    for (plan, image) in plans.iter().zip(images) {
        all.extend(plan.layers.iter().zip(&image.layers).map(|(plan, layer)| (layer_name(layer), (plan, layer))));
    }
    let mut written = Written::default();
    for (name, (plan, layer)) in all {
        written.copied += 1;
        written.bytes += match layer.form {
            Form::Plain => {
                tar.file_with(&path(&name), 0o444, layer.size, |out| layers.write_plain_to(plan, layer, out))?;
                layer.size
            }
            Form::Zstd => inflate(tar, &path(&name), layer, layers)?,
        };
    }
    Ok(written)
}

/// A compressed layer, inflated twice: a tar header states a size that a zstd stream does not.
fn inflate<W: Write>(tar: &mut TarWriter<W>, path: &ImagePath, layer: &Layer, layers: &Layers<'_>) -> Result<u64, ImageError> {
    let open = || -> Result<_, ImageError> { Ok(zstd::Decoder::new(layers.store.open_blob(&layer.digest)?)?) };
    let size = io::copy(&mut open()?, &mut io::sink())?;
    let mut plain = HashingReader::new(open()?);
    tar.file(path, 0o444, size, false, &mut plain as &mut dyn Read)?;
    let (found, _) = plain.finish();
    if found != layer.diff_id.0 {
        return Err(StoreError::Mismatch { expected: layer.diff_id.0, found }.into());
    }
    Ok(size)
}

fn layer_name(layer: &Layer) -> String {
    format!("{}.tar", layer.diff_id.0.hex())
}

/// `<submission>:<track>-<kind>`, in the letters that an image reference may have.
fn tag(plan: &Plan) -> String {
    let label = |key: &str| plan.run.labels.get(key).map_or("", String::as_str);
    let name = words(&label("org.opencontainers.image.title").to_lowercase());
    let track = words(label("pack.track"));
    let tag = [track.as_str(), plan.kind.as_str()].iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>();
    format!("{}:{}", if name.is_empty() { "submission" } else { &name }, tag.join("-"))
}

/// Letters and digits, one `-` in the place of anything else between them; at most 100 bytes.
fn words(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect::<Vec<_>>();
    let mut joined = words.join("-");
    joined.truncate(100);
    joined.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_reference_has_only_letters_that_docker_takes() {
        assert_eq!(words("My_Team.v2~~x+".to_lowercase().as_str()), "my-team-v2-x");
        assert_eq!(words("rtx4090"), "rtx4090");
        assert_eq!(words("é"), "");
        assert_eq!(words(&"a-".repeat(80)).len(), 99);
    }
}
