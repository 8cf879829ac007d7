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
    // A name that nobody has: another container may write here under this process's number.
    let temporary = tempfile::Builder::new().prefix(".tmp-").tempfile_in(folder).map_err(io_error("create a file in", folder))?;
    let written = stream_archive(temporary.as_file(), to, shape, plans, &images, layers)?;
    temporary.persist(to).map_err(|failed| io_error("put in place", to)(failed.error))?;
    Ok((images, written))
}

/// Writes into an open file; errors name the one that it will be.
fn stream_archive(
    file: &File,
    to: &Path,
    shape: Shape,
    plans: &[Plan],
    images: &[Image],
    layers: &Layers<'_>,
) -> Result<Written, ImageError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Memory;
    use crate::progress::Progress;
    use crate::store::Store;

    #[test]
    fn what_another_process_of_this_number_writes_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), &dir.path().join("memory")).unwrap();
        let layers = Layers { store: &store, progress: &Progress::silent(), jobs: 1, memory: Memory::Use };
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        let theirs = out.join(format!(".tmp-{}-image.oci.tar", std::process::id()));
        fs::write(&theirs, "half").unwrap();
        let to = out.join("image.oci.tar");
        write_archive(&to, Shape::Oci, &[], &layers).unwrap();
        assert_eq!(fs::read(&theirs).unwrap(), b"half");
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o644);
        fs::remove_file(&to).unwrap();
        fs::create_dir(&to).unwrap();
        assert!(write_archive(&to, Shape::Oci, &[], &layers).is_err());
        assert_eq!(fs::read_dir(&out).unwrap().count(), 2, "nothing is left of one that failed");
    }
}
