//! Inspect: one index of an archive, read alone and told in lines.
//!
//! Layer 3 (effects), but pure itself. Serves `pack inspect`; what is refused here would be refused while
//! locking, with the same words.

use super::index::{self, Compression};
use super::release::Release;
use super::{Distribution, keys};
use crate::source::SourceError;

/// Says who signed an InRelease and what it is; an embedded key of either distribution counts.
pub fn inrelease(bytes: &[u8]) -> Result<Vec<String>, SourceError> {
    let mut last = None;
    for distribution in [Distribution::Debian, Distribution::Ubuntu] {
        match keys::embedded(distribution).verify(bytes) {
            Ok(signed) => {
                let release = Release::parse(&signed.text);
                release.map_err(|error| SourceError::new("cannot read what was signed").because(error))?;
                let field = |name: &str| {
                    let prefix = format!("{name}: ");
                    signed.text.lines().find_map(|line| line.strip_prefix(&prefix).map(str::to_owned)).unwrap_or_default()
                };
                return Ok(vec![
                    format!("signed by {} ({distribution})", signed.signer),
                    format!("{} {} of {}", field("Origin"), field("Codename"), field("Date")),
                ]);
            }
            Err(error) => last = last.or(Some(error)),
        }
    }
    let error = SourceError::new("cannot trust this InRelease");
    Err(match last {
        Some(cause) => error.because(cause),
        None => error,
    })
}

/// Counts the packages of an index; `name` says how it is compressed.
pub fn packages(name: &str, bytes: &[u8]) -> Result<Vec<String>, SourceError> {
    let compression = match name.rsplit_once('.').map(|(_, suffix)| suffix) {
        Some("xz") => Compression::Xz,
        Some("gz") => Compression::Gzip,
        _ => Compression::None,
    };
    let mut count = 0u64;
    let mut size = 0u64;
    index::read(bytes, compression, None, 0, &mut |package| {
        count += 1;
        size = size.saturating_add(package.size);
    })
    .map_err(|error| SourceError::new("cannot read this index").because(error))?;
    Ok(vec![format!("{count} packages for amd64, {} in all", crate::text::bytes(size))])
}
