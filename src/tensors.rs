//! Tensors: what the store's weight files hold, tensor by tensor, computed once.
//!
//! Layer 3 (effects). Headers are read from the blobs; tensors are streamed on several threads, the longest
//! first, and what was found is remembered by the blob's digest. A remembered text counts only where it fits
//! the header, which is read each time. Must never hold a tensor in memory.

#![allow(clippy::disallowed_methods, reason = "effects: reads the weight files")]

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::digest::Digest;
use crate::par;
use crate::progress::Task;
use crate::store::{Store, StoreError};
use crate::weights::numbers::{NonFinite, measure};
use crate::weights::{self, FileKind, HEAD, Header, Tensor, TensorInfo, WeightsError, kind_of};
pub use crate::weights::{Content as FileFacts, Measured as Facts};

/// Under which kind the store remembers; a new number where the text's form changes.
const MEMORY: &str = "tensors-1";
/// Bytes of a remembered text that are believed to be one.
const MAX_MEMORY: u64 = 256 << 20;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum TensorsError {
    /// The blob cannot be had.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file is refused.
    #[error("`{name}`")]
    Weights {
        /// The name that the caller gave, escaped.
        name: String,
        /// Why.
        #[source]
        source: WeightsError,
    },
    /// The file changed while it was read.
    #[error("`{name}` changed while it was being read")]
    Moving {
        /// The name that the caller gave, escaped.
        name: String,
    },
}

fn refused(name: &str) -> impl FnOnce(WeightsError) -> TensorsError {
    let name = weights::shown(name);
    move |source| TensorsError::Weights { name, source }
}

/// What an open file is, by its first bytes and its name.
pub fn file_kind(mut file: &File, name: &str) -> io::Result<FileKind> {
    let mut head = Vec::with_capacity(HEAD);
    io::Seek::seek(&mut file, io::SeekFrom::Start(0))?;
    file.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(kind_of(&head, name))
}

/// The header of an open file; pickles are refused unread.
pub fn file_header(mut file: &File, name: &str) -> Result<Header, WeightsError> {
    let kind = file_kind(file, name)?;
    let length = file.metadata()?.len();
    weights::header(&kind, &mut file, length)
}

/// The header of a blob, and nothing else read; `name` is the file's, for what its bytes leave open and for errors.
pub fn header(store: &Store, blob: &Digest, name: &str) -> Result<Header, TensorsError> {
    file_header(&store.open_blob(blob)?, name).map_err(refused(name))
}

/// What weight files of the store hold, remembered or computed now on at most `jobs` threads: one answer for each
/// (name, blob), in their order. `task` is told of every byte of a tensor, read or remembered.
pub fn facts(store: &Store, blobs: &[(String, Digest)], jobs: usize, task: &Task) -> Result<Vec<FileFacts>, TensorsError> {
    let mut found = Vec::new();
    let mut open = Vec::new();
    for (at, (name, blob)) in blobs.iter().enumerate() {
        let file = store.open_blob(blob)?;
        let header = file_header(&file, name).map_err(refused(name))?;
        let remembered = store.recall_at_most(MEMORY, blob, MAX_MEMORY).and_then(|text| parse(&text, &header));
        match &remembered {
            Some(_) => task.add(header.bytes()),
            None => open.push((at, name.as_str(), file)),
        }
        found.push((header, remembered));
    }
    let mut jobs_left = Vec::new();
    for (at, name, file) in &open {
        jobs_left.extend(found[*at].0.tensors.iter().map(|info| (*at, *name, file, info)));
    }
    let measured = measure_all(&jobs_left, jobs, task)?;
    let mut computed: Vec<Vec<Facts>> = blobs.iter().map(|_| Vec::new()).collect();
    for ((at, ..), facts) in jobs_left.iter().zip(measured) {
        computed[*at].push(facts);
    }
    for (at, _, _) in &open {
        store.remember(MEMORY, &blobs[*at].1, &text(&computed[*at]))?;
    }
    let files = found.into_iter().zip(computed).map(|((header, remembered), computed)| {
        let tensors = remembered.unwrap_or(computed);
        FileFacts { header, tensors }
    });
    Ok(files.collect())
}

/// What an open file holds that is in no store; nothing is remembered.
pub fn file_facts(file: &File, name: &str, jobs: usize, task: &Task) -> Result<FileFacts, TensorsError> {
    let header = file_header(file, name).map_err(refused(name))?;
    let all: Vec<_> = header.tensors.iter().map(|info| (0, name, file, info)).collect();
    let tensors = measure_all(&all, jobs, task)?;
    Ok(FileFacts { header, tensors })
}

/// Measures tensors on several threads and answers in their order. The longest are begun first, so that no
/// thread is left alone with one at the end.
fn measure_all(all: &[(usize, &str, &File, &TensorInfo)], jobs: usize, task: &Task) -> Result<Vec<Facts>, TensorsError> {
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(all[*at].3.bytes));
    let before: Vec<_> = stamps(all)?;
    let measured: Result<_, TensorsError> = par::map_ordered(&order, jobs, |at| {
        let (_, name, file, info) = all[*at];
        let mut reader = At { file, at: info.offset, task };
        let (digest, non_finite) =
            measure(&mut reader, info.bytes, info.dtype).map_err(|error| refused(name)(WeightsError::Io(error)))?;
        let tensor = Tensor { name: info.name.clone(), dtype: info.dtype, shape: info.shape.clone(), digest };
        Ok((*at, Facts { tensor, non_finite }))
    });
    let mut measured: Vec<(usize, Facts)> = measured?;
    if let Some((name, _)) = stamps(all)?.into_iter().zip(before).find(|(after, before)| after != before).map(|(after, _)| after)
    {
        return Err(TensorsError::Moving { name: weights::shown(name) });
    }
    measured.sort_by_key(|(at, _)| *at);
    Ok(measured.into_iter().map(|(_, facts)| facts).collect())
}

/// Size and times of each file, once.
fn stamps<'a>(all: &[(usize, &'a str, &File, &TensorInfo)]) -> Result<Vec<(&'a str, [i64; 5])>, TensorsError> {
    let mut out = Vec::new();
    let mut last = None;
    for (at, name, file, _) in all {
        if last != Some(*at) {
            let meta = file.metadata().map_err(|error| refused(name)(WeightsError::Io(error)))?;
            out.push((*name, [meta.size() as i64, meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()]));
            last = Some(*at);
        }
    }
    Ok(out)
}

/// A file from some byte on, without a position that threads would share.
struct At<'a> {
    file: &'a File,
    at: u64,
    task: &'a Task,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        self.task.add(n as u64);
        Ok(n)
    }
}

/// One line a tensor, in the header's order: `<sha256 hex> <nan> <infinite>`, or `- -`.
fn text(facts: &[Facts]) -> String {
    let line = |facts: &Facts| match facts.non_finite {
        Some(found) => format!("{} {} {}\n", facts.tensor.digest.hex(), found.nan, found.infinite),
        None => format!("{} - -\n", facts.tensor.digest.hex()),
    };
    facts.iter().map(line).collect::<String>() + "end\n"
}

/// Reads a remembered text; `None` where it does not fit the header to the last word.
fn parse(text: &str, header: &Header) -> Option<Vec<Facts>> {
    let mut lines = text.strip_suffix("end\n")?.lines();
    let mut facts = Vec::with_capacity(header.tensors.len());
    for info in &header.tensors {
        let mut words = lines.next()?.split(' ');
        let digest = Digest::from_hex(words.next()?).ok()?;
        let non_finite = match (info.dtype.float(), words.next()?, words.next()?) {
            (None, "-", "-") => None,
            (Some(_), nan, infinite) => Some(NonFinite { nan: nan.parse().ok()?, infinite: infinite.parse().ok()? }),
            _ => return None,
        };
        let tensor = Tensor { name: info.name.clone(), dtype: info.dtype, shape: info.shape.clone(), digest };
        facts.push(Facts { tensor, non_finite });
    }
    lines.next().is_none().then_some(facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::testing::safe;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), &dir.path().join("memory")).unwrap();
        (dir, store)
    }

    fn sample() -> Vec<u8> {
        let big: Vec<u8> = (0..600_000u32).flat_map(|n| (n as u16 & 0x3fff).to_le_bytes()).collect();
        safe(&[("a", "F32", &[1], &f32::NAN.to_le_bytes()), ("b", "F16", &[600_000], &big), ("c", "U8", &[3], b"abc")])
    }

    #[test]
    fn facts_are_the_same_on_any_number_of_threads_and_when_remembered() {
        let (_dir, store) = store();
        let bytes = sample();
        let blobs = vec![("model.safetensors".to_owned(), store.add_bytes(&bytes).unwrap())];
        let first = facts(&store, &blobs, 1, &Task::hidden()).unwrap();
        assert_eq!(first[0].tensors[0].non_finite, Some(NonFinite { nan: 1, infinite: 0 }));
        assert_eq!(first[0].tensors[2].tensor.digest, Digest::of(b"abc"));
        assert_eq!(first[0].tensors[2].non_finite, None);
        let remembered = store.recall(MEMORY, &blobs[0].1).unwrap();
        assert_eq!(remembered, text(&first[0].tensors));
        assert_eq!(facts(&store, &blobs, 8, &Task::hidden()).unwrap(), first);
        // A lie that fits is the user's own: it shows that the memory was used.
        let lie = remembered.replace(&Digest::of(b"abc").hex(), &Digest::of(b"lie").hex());
        store.remember(MEMORY, &blobs[0].1, &lie).unwrap();
        assert_eq!(facts(&store, &blobs, 2, &Task::hidden()).unwrap()[0].tensors[2].tensor.digest, Digest::of(b"lie"));
        for broken in [
            "",
            "end\n",
            &remembered[..remembered.len() - 5],
            &remembered.replacen('-', "7", 1),
            &remembered.replacen("1 0", "- -", 1),
        ] {
            store.remember(MEMORY, &blobs[0].1, broken).unwrap();
            assert_eq!(facts(&store, &blobs, 8, &Task::hidden()).unwrap(), first, "{broken:?}");
        }
    }

    #[test]
    fn refusals_name_the_file() {
        let (_dir, store) = store();
        let pickle = store.add_bytes(b"\x80\x04\x95rest").unwrap();
        let error = header(&store, &pickle, "pytorch_model.bin").unwrap_err();
        assert_eq!(error.to_string(), "`pytorch_model.bin`");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(source, "a pickle of protocol 4: a pickle runs code when it is read, so it is not opened");
        assert!(matches!(header(&store, &Digest::of(b"none"), "x"), Err(TensorsError::Store(StoreError::Missing { .. }))));
    }
}
