//! View: what an invocation sees, as folders and files of this host.
//!
//! Layer 3 (effects). Layers that hold archives and small files are folders, unpacked once; files of plain layers
//! stay where they are in the store and are mounted. Must never add what the invocation does not name.

#![allow(clippy::disallowed_methods, reason = "effects: looks at the store's files")]

use std::fs::Metadata;
use std::path::PathBuf;

use super::{RunError, io_error};
use crate::invocation::Invocation;
use crate::layer::{LayerError, Layers, is_mountable};
use crate::path::ImagePath;
use crate::plan::Entry;

/// What an invocation sees.
pub(super) struct View {
    /// Folders that lie over each other, the topmost first.
    pub(super) lower: Vec<PathBuf>,
    /// Files that are mounted.
    pub(super) files: Vec<StoreFile>,
}

/// A file of the store in the view.
pub(super) struct StoreFile {
    /// Where it lies.
    pub(super) source: PathBuf,
    /// Where it is seen.
    pub(super) at: ImagePath,
    /// What it was when it was verified.
    pub(super) meta: Metadata,
}

impl View {
    /// Makes what is missing; what was made before is taken as it is.
    pub(super) fn new(invocation: &Invocation, layers: &Layers) -> Result<Self, RunError> {
        let mut view = View { lower: Vec::new(), files: Vec::new() };
        for plan in &invocation.view {
            if !is_mountable(plan) {
                let folder = layers.unpacked(plan)?;
                // Over itself, a folder would change nothing, and the kernel takes none twice.
                view.lower.retain(|there| *there != folder);
                view.lower.insert(0, folder);
                continue;
            }
            for entry in &plan.entries {
                if let Entry::File { path, digest, .. } = entry {
                    let file = layers.store.open_blob(digest).map_err(LayerError::from)?;
                    let source = layers.store.blob_path(digest);
                    let meta = file.metadata().map_err(io_error("read", &source))?;
                    view.files.push(StoreFile { source, at: path.clone(), meta });
                }
            }
        }
        Ok(view)
    }
}
