//! Archive: the images as one tar file, in canonical order: an OCI layout, or what docker loads.
//!
//! Layer 3 (effects). Plain layers are generated into it, so weights are not on disk a third time, and every
//! byte that leaves the store is hashed on the way. Must never leave a half-written file under its name.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Image, ImageError, LAYOUT, Written, docker, index};
use crate::digest::{Digest, HashingReader};
use crate::layer::{LayerError, Layers, TarWriter};
use crate::path::ImagePath;
use crate::plan::{Form, Plan};
use crate::store::{StoreError, io_error};

/// What an archive's members are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Those of an OCI layout.
    Oci,
    /// Those that `docker load` takes.
    Docker,
}

/// Writes images as one archive. Plain layers are generated into it, so weights are not on disk a third time.
pub fn write_archive(to: &Path, shape: Shape, plans: &[Plan], layers: &Layers<'_>) -> Result<(Vec<Image>, Written), ImageError> {
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
    let name = to.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let temporary = folder.join(format!(".tmp-{}-{name}", std::process::id()));
    drop(fs::remove_file(&temporary));
    let result = stream_archive(&temporary, shape, plans, &images, layers);
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

fn stream_archive(to: &Path, shape: Shape, plans: &[Plan], images: &[Image], layers: &Layers<'_>) -> Result<Written, ImageError> {
    let file = File::create_new(to).map_err(io_error("create", to))?;
    let mut tar = TarWriter::new(io::BufWriter::with_capacity(1 << 20, file));
    let failed = |error: io::Error| io_error("write", to)(error);
    let members = match shape {
        Shape::Oci => write_oci(&mut tar, plans, images, layers),
        Shape::Docker => docker::write(&mut tar, plans, images, layers),
    };
    let written = members.map_err(|error| match error {
        ImageError::Write(source) => failed(source).into(),
        other => other,
    })?;
    let mut buffered = tar.finish().map_err(failed)?;
    buffered.flush().map_err(failed)?;
    let file = buffered.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    file.set_permissions(fs::Permissions::from_mode(0o644)).map_err(failed)?;
    Ok(written)
}

fn write_oci<W: Write>(
    tar: &mut TarWriter<W>,
    plans: &[Plan],
    images: &[Image],
    layers: &Layers<'_>,
) -> Result<Written, ImageError> {
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
            tar.file(&at(&digest), 0o444, bytes.len() as u64, false, &mut &bytes[..])?;
            continue;
        }
        let (layer_plan, layer) = blobs[&digest];
        match layer.form {
            Form::Zstd => {
                let mut blob = HashingReader::new(layers.store.open_blob(&digest)?);
                tar.file(&at(&digest), 0o444, layer.size, false, &mut blob)?;
                let (found, _) = blob.finish();
                if found != digest {
                    return Err(StoreError::Mismatch { expected: digest, found }.into());
                }
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
    tar.file(&root("index.json"), 0o444, index.len() as u64, false, &mut &index[..])?;
    tar.file(&root("oci-layout"), 0o444, LAYOUT.len() as u64, false, &mut &LAYOUT[..])?;
    Ok(written)
}
