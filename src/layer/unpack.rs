//! Unpacking archives ahead of the tar writer: several at once, handed over in order, in bounded memory.
//!
//! Layer 3 (effects). Each archive is opened and inflated by one worker, which hands its entries and their
//! content through a bounded channel; the writer takes the channels in the plan's order. Must never change
//! the order of entries, whatever the number of workers.

#![allow(clippy::disallowed_methods, reason = "effects: owns the unpacking threads")]

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::LayerError;
use crate::archive::{self, Archive, ArchiveError, WheelLayout};
use crate::artifact::Name;
use crate::path::ImagePath;
use crate::plan::Entry;
use crate::progress::Task;
use crate::store::{Store, io_error};
use crate::tree::Mode;

/// An entry on its way into the tar.
pub(super) enum Item {
    Dir(ImagePath),
    Link(ImagePath, String),
    File(ImagePath, Mode, u64),
}

enum Message {
    Item(Item),
    Bytes(Vec<u8>),
    EndOfFile,
    Failed(ArchiveError),
    Store(crate::store::StoreError),
}

/// Bytes a message carries at most, and messages under way for one archive: 8 MiB an archive.
const PIECE: usize = 1 << 20;
const UNDER_WAY: usize = 8;

/// Calls `take` with every entry of every archive, in order.
pub(super) fn ahead(
    store: &Store,
    archives: &[&Entry],
    jobs: usize,
    task: &Task,
    mut take: impl FnMut(&str, &Item, &mut dyn Read) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    let jobs = jobs.clamp(1, 4);
    std::thread::scope(|scope| {
        let mut receivers: std::collections::VecDeque<(usize, Receiver<Message>)> = Default::default();
        let mut next = 0;
        while next < archives.len() || !receivers.is_empty() {
            while next < archives.len() && receivers.len() < jobs {
                let (sender, receiver) = sync_channel(UNDER_WAY);
                let entry = archives[next];
                scope.spawn(move || unpack(store, entry, &sender));
                receivers.push_back((next, receiver));
                next += 1;
            }
            let Some((at, receiver)) = receivers.pop_front() else { break };
            hand_over(&name_of(archives[at]), &receiver, &mut take)?;
            if let Entry::Deb { size, .. } | Entry::Wheel { size, .. } = archives[at] {
                task.add(*size);
            }
        }
        Ok(())
    })
}

fn name_of(entry: &Entry) -> String {
    match entry {
        Entry::Deb { package, .. } => format!("package {package}"),
        Entry::Wheel { file, .. } => format!("wheel {file}"),
        _ => "pack".to_owned(),
    }
}

fn hand_over(
    name: &str,
    receiver: &Receiver<Message>,
    take: &mut impl FnMut(&str, &Item, &mut dyn Read) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    while let Ok(message) = receiver.recv() {
        match message {
            Message::Item(item) => {
                let is_file = matches!(item, Item::File(..));
                let mut content = Content { receiver, piece: Vec::new(), at: 0, ended: !is_file, failed: None };
                let taken = take(name, &item, &mut content);
                if let Some(source) = content.failed {
                    return Err(LayerError::Archive { name: name.to_owned(), source });
                }
                taken?;
            }
            Message::Failed(source) => return Err(LayerError::Archive { name: name.to_owned(), source }),
            Message::Store(error) => return Err(error.into()),
            Message::Bytes(_) | Message::EndOfFile => {}
        }
    }
    Ok(())
}

/// The content of one file, as its pieces come.
struct Content<'a> {
    receiver: &'a Receiver<Message>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
    failed: Option<ArchiveError>,
}

impl Read for Content<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if self.ended {
                return Ok(0);
            }
            match self.receiver.recv() {
                Ok(Message::Bytes(piece)) => (self.piece, self.at) = (piece, 0),
                Ok(Message::EndOfFile) => self.ended = true,
                Ok(Message::Failed(error)) => {
                    self.failed = Some(error);
                    return Err(io::Error::other("the archive cannot be unpacked"));
                }
                Ok(_) | Err(_) => return Err(io::Error::other("the archive ended in the middle of a file")),
            }
        }
        let n = buf.len().min(self.piece.len() - self.at);
        buf[..n].copy_from_slice(&self.piece[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// The worker's side. A send fails only when the writer has given up, and then there is nobody to tell.
fn unpack(store: &Store, entry_of: &Entry, sender: &SyncSender<Message>) {
    let mut archive = match open(store, entry_of) {
        Ok(archive) => archive,
        Err(message) => {
            drop(sender.send(message));
            return;
        }
    };
    for index in 0..archive.entries().len() {
        let entry = &archive.entries()[index];
        let path = entry.path.clone();
        let item = match &entry.kind {
            archive::Kind::Dir => Item::Dir(path),
            archive::Kind::Link { target } => Item::Link(path, target.clone()),
            archive::Kind::File { mode, size } => Item::File(path, *mode, *size),
        };
        let is_file = matches!(item, Item::File(..));
        if sender.send(Message::Item(item)).is_err() {
            return;
        }
        if is_file && send_content(archive.as_mut(), index, entry_of, sender).is_none() {
            return;
        }
    }
}

fn send_content(archive: &mut dyn Archive, index: usize, entry: &Entry, sender: &SyncSender<Message>) -> Option<()> {
    let mut content = match archive.open(index) {
        Ok(content) => content,
        Err(error) => return sender.send(Message::Failed(error)).ok().and(None),
    };
    loop {
        let mut piece = Vec::with_capacity(PIECE.min(1 << 16));
        match content.by_ref().take(PIECE as u64).read_to_end(&mut piece) {
            Ok(0) => return sender.send(Message::EndOfFile).ok(),
            Ok(_) => sender.send(Message::Bytes(piece)).ok()?,
            Err(error) => return sender.send(Message::Failed(ArchiveError::io(place(entry), error))).ok().and(None),
        }
    }
}

fn open(store: &Store, entry: &Entry) -> Result<Box<dyn Archive>, Message> {
    let blob = |digest| store.open_blob(digest).map_err(Message::Store);
    match entry {
        Entry::Deb { digest, .. } => {
            let spool = tempfile::tempfile_in(store.root()).map_err(io_error("create a file in", store.root()));
            archive::deb(blob(digest)?, spool.map_err(Message::Store)?).map_err(Message::Failed)
        }
        Entry::Wheel { digest, python, file, .. } => {
            archive::wheel(blob(digest)?, &venv_layout(python, file)).map_err(Message::Failed)
        }
        other => unreachable!("only archives are unpacked, found {other:?}"),
    }
}

/// The same for one archive alone.
pub(super) fn open_one(store: &Store, entry: &Entry) -> Result<Box<dyn Archive>, LayerError> {
    open(store, entry).map_err(|message| match message {
        Message::Store(error) => error.into(),
        Message::Failed(source) => LayerError::Archive { name: name_of(entry), source },
        _ => unreachable!("opening sends nothing but errors"),
    })
}

/// Where a wheel's parts go: part of the plan version.
fn venv_layout(python: &str, file: &str) -> WheelLayout {
    let distribution = file.split('-').next().and_then(|name| Name::new(name).ok());
    let distribution = distribution.as_ref().map_or("unnamed", Name::as_str);
    let path = |text: String| ImagePath::new(&text).expect("built from a judged version and a Name");
    WheelLayout {
        site_packages: path(format!("opt/venv/lib/python{python}/site-packages")),
        bin: path("opt/venv/bin".into()),
        data: path("opt/venv".into()),
        include: path(format!("opt/venv/include/site/python{python}/{distribution}")),
        python: "/opt/venv/bin/python".into(),
        installer: "pack".into(),
    }
}

fn place(entry: &Entry) -> archive::Place {
    archive::Place::whole(match entry {
        Entry::Deb { .. } => archive::ArchiveKind::Deb,
        _ => archive::ArchiveKind::Wheel,
    })
}
