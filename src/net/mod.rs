//! Net: the only socket. Downloads into the store's door, with resume, retries and size caps.
//!
//! Layer 3 (effects). Certificates, proxies and time-outs are set here and nowhere else. A credential is
//! sent to the origin it was given for and to no other, whatever redirects say. `file:` URLs come through the
//! same door, so a local mirror is a mirror like any other. Must never decide whether bytes are right: the
//! [`crate::store::Sink`] does.

#![allow(clippy::disallowed_methods, reason = "effects: owns the network, and reads `file:` URLs")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, OnceLock, PoisonError};

use reqwest::blocking::Client;
use reqwest::header::{CONTENT_TYPE, LINK};
use url::Url;

use crate::digest::Digest;
use crate::progress::{Progress, Task};
use crate::regular::open_regular;
use crate::store::{Sink, Store, StoreError};

mod address;
mod body;
mod error;
mod exchange;
mod learn;
mod patience;
mod ranges;
#[cfg(test)]
#[path = "../../tests/support/server.rs"]
pub(crate) mod server;
#[cfg(test)]
mod tests;
mod transfer;

pub use address::shown;
pub use error::NetError;
pub use learn::Learnt;

use address::bare;
use body::{Body, body_error, length};
use exchange::{Credential, Question};
pub(crate) use patience::Patience;
use patience::{Failure, Tries};
use ranges::{Came, Cut};
use transfer::{Transfer, wrong};

/// The network, or the refusal to use it; one serves all threads.
pub struct Net {
    offline: bool,
    patience: Patience,
    proxies: bool,
    cut: Cut,
    /// Connections that bring ranges now, beyond the first of each file.
    ranging: AtomicUsize,
    progress: Option<Progress>,
    /// By origin. What was given outright, and the logins of URLs seen: the links of an index behind a login
    /// stand without it.
    credentials: Mutex<BTreeMap<String, Credential>>,
    client: OnceLock<Result<Client, String>>,
}

/// A small document, with what is needed to follow its links.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// The body.
    pub bytes: Vec<u8>,
    /// Where it came from in the end, after redirects, without user name, password and fragment.
    pub url: Url,
    /// As the server said it, parameters included; none for `file:`.
    pub content_type: Option<String>,
    /// Where its neighbours are, as the server said it; none for `file:`.
    pub link: Option<String>,
}

impl Net {
    /// Opens no socket yet.
    pub fn new(offline: bool) -> Self {
        Self {
            offline,
            patience: Patience::default(),
            proxies: true,
            cut: Cut::default(),
            ranging: AtomicUsize::new(0),
            progress: None,
            credentials: Mutex::default(),
            client: OnceLock::new(),
        }
    }

    /// Whether the user said `--offline`: helper programs that use the network must not be started then.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// With other waiting times.
    #[cfg(test)]
    pub(crate) fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// With another way to cut large files.
    #[cfg(test)]
    pub(crate) fn with_cut(mut self, cut: Cut) -> Self {
        self.cut = cut;
        self
    }

    /// With somebody to tell that a server keeps us waiting.
    pub fn with_progress(mut self, progress: Progress) -> Self {
        self.progress = Some(progress);
        self
    }

    /// With a bearer token from the start.
    #[cfg(test)]
    pub(crate) fn with_token(self, origin: &Url, token: &str) -> Result<Self, NetError> {
        self.lend_token(origin, token)?;
        Ok(self)
    }

    /// A bearer token for one scheme, host and port; path and query of `origin` do not count. What was given first
    /// for an origin stays.
    ///
    /// # Errors
    /// [`NetError::Token`] where the token cannot stand in a header.
    pub fn lend_token(&self, origin: &Url, token: &str) -> Result<(), NetError> {
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NetError::Token { url: shown(origin) });
        }
        self.remember(&address::origin(origin), &Credential::Token(token.to_owned()));
        Ok(())
    }

    /// Ignores the proxies of the environment: what tests serve on the loopback is not for a proxy.
    #[cfg(test)]
    pub(crate) fn without_proxies(mut self) -> Self {
        self.proxies = false;
        self
    }

    /// What was given first for an origin stays, so that a URL in an index cannot replace it.
    fn remember(&self, origin: &str, credential: &Credential) {
        let mut known = self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(origin.to_owned()).or_insert_with(|| credential.clone());
    }

    fn credential(&self, origin: &str) -> Option<Credential> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner).get(origin).cloned()
    }

    /// Reads a small document of at most `cap` bytes; `accept` is the Accept header.
    pub fn get(&self, url: &Url, accept: Option<&str>, cap: u64) -> Result<Vec<u8>, NetError> {
        self.page(url, accept, cap).map(|page| page.bytes)
    }

    /// Like [`Net::get`], and says what its links are relative to and what it is.
    pub fn page(&self, url: &Url, accept: Option<&str>, cap: u64) -> Result<Page, NetError> {
        if let Place::Disk(path) = self.place(url)? {
            let (file, _) = open(&path)?;
            let bytes = read_capped(file, cap).map_err(|source| NetError::File { path, source })?;
            let bytes = bytes.ok_or_else(|| NetError::TooLong { url: shown(url), cap })?;
            return Ok(Page { bytes, url: bare(url), content_type: None, link: None });
        }
        let mut tries = Tries::new(self.patience, self.progress.as_ref());
        loop {
            match self.page_once(url, accept, cap) {
                Ok(page) => return Ok(page),
                Err(failure) => tries.again(failure)?,
            }
        }
    }

    fn page_once(&self, url: &Url, accept: Option<&str>, cap: u64) -> Result<Page, Failure> {
        let answer = self.ask(url, &Question { accept, ..Question::default() })?;
        if answer.status != 200 {
            return Err(answer.failure());
        }
        let too_long = || NetError::TooLong { url: shown(&answer.url), cap };
        if length(&answer).is_some_and(|length| length > cap) {
            return Err(too_long().into());
        }
        let content_type = answer.header(CONTENT_TYPE).map(str::to_owned);
        let link = answer.header(LINK).map(str::to_owned);
        let body = Body::of(&answer, None)?;
        let broken = |error| Failure::passing(NetError::Broken { url: shown(&answer.url), source: body_error(error) });
        let bytes = read_capped(body.reader(answer.response), cap).map_err(broken)?.ok_or_else(too_long)?;
        Ok(Page { bytes, url: answer.url.clone(), content_type, link })
    }

    /// Bytes of what lies at a URL, as its server announces them, without reading it: some indexes do not list
    /// sizes.
    pub fn size(&self, url: &Url) -> Result<Option<u64>, NetError> {
        if let Place::Disk(path) = self.place(url)? {
            return Ok(Some(open(&path)?.1));
        }
        let mut tries = Tries::new(self.patience, self.progress.as_ref());
        loop {
            match self.ask(url, &Question::default()) {
                Ok(answer) if answer.status == 200 => return Ok(length(&answer)),
                Ok(answer) => tries.again(answer.failure())?,
                Err(failure) => tries.again(failure)?,
            }
        }
    }

    /// Takes what lies at a URL whose digest nobody has said, and learns it. Nothing of a body that broke off
    /// stays: pieces cannot be told to be of one file.
    pub fn observe(&self, url: &Url, store: &Store, task: &Task) -> Result<(Digest, u64), NetError> {
        self.see(url, task, &mut |reader| Ok(store.add(reader)?))
    }

    /// Digest and size of what lies at a URL, of which one byte more than `most` is read at most and nothing kept.
    pub fn hash(&self, url: &Url, most: u64, task: &Task) -> Result<(Digest, u64), NetError> {
        let broken = |source: io::Error| NetError::Broken { url: shown(url), source: body_error(source) };
        self.see(url, task, &mut |reader| Digest::of_reader(reader.take(most.saturating_add(1))).map_err(broken))
    }

    fn see(&self, url: &Url, task: &Task, take: &mut Take<'_>) -> Result<(Digest, u64), NetError> {
        if let Place::Disk(path) = self.place(url)? {
            return take(&mut open(&path)?.0);
        }
        let mut tries = Tries::new(self.patience, self.progress.as_ref());
        loop {
            match self.see_once(url, task, take) {
                Ok(seen) => return Ok(seen),
                Err(failure) => tries.again(failure)?,
            }
        }
    }

    fn see_once(&self, url: &Url, task: &Task, take: &mut Take<'_>) -> Result<(Digest, u64), Failure> {
        let answer = self.ask(url, &Question::default())?;
        if answer.status != 200 {
            return Err(answer.failure());
        }
        let shown = shown(&answer.url);
        let body = Body::of(&answer, None)?;
        let mut reader = Breaking { inner: body.reader(answer.response), error: None };
        let taken = take(&mut reader);
        if let Some(error) = reader.error {
            return Err(Failure::passing(NetError::Broken { url: shown, source: body_error(error) }));
        }
        let (digest, size) = taken?;
        task.add(size);
        Ok((digest, size))
    }

    /// Fills a sink from the place where it stands, resuming and retrying as the server allows.
    ///
    /// # Errors
    /// [`NetError::Wrong`] where the server has other bytes; what came before a connection broke for good
    /// stays in the store for the next command.
    pub fn download(&self, url: &Url, sink: Sink<'_>, task: &Task) -> Result<(), NetError> {
        let place = self.place(url)?;
        let mut sink = sink;
        let mut second_chance = true;
        task.add(sink.offset());
        let mut pieced = sink.offset() > 0 || sink.has_pieces();
        if matches!(place, Place::Server) {
            match ranges::fill(self, url, &mut sink, task)? {
                Came::Whole => pieced = true,
                // What came in pieces is not mixed with what comes now.
                Came::OneStream if sink.has_pieces() => sink.restart()?,
                Came::OneStream => {}
            }
        }
        let mut transfer = Transfer {
            net: self,
            url,
            tries: Tries::new(self.patience, self.progress.as_ref()),
            task,
            validator: None,
            pieced,
            furthest: sink.offset(),
        };
        loop {
            match &place {
                Place::Disk(path) => transfer.copy(path, &mut sink)?,
                Place::Server => transfer.fill(&mut sink)?,
            }
            let (store, expected, size) = (sink.store(), sink.expected(), sink.size());
            match sink.finish() {
                Ok(()) => return Ok(()),
                // The pieces may be of different files, e.g. when a mirror changed between two runs.
                Err(StoreError::Mismatch { .. }) if transfer.pieced && second_chance => second_chance = false,
                Err(error) => return Err(wrong(url, error)),
            }
            let Some(again) = store.sink(expected, size)? else { return Ok(()) };
            sink = again;
            sink.restart()?;
            transfer.validator = None;
            transfer.pieced = false;
        }
    }

    /// Where a URL leads, if it may be followed at all.
    fn place(&self, url: &Url) -> Result<Place, NetError> {
        match url.scheme() {
            "file" => match url.to_file_path() {
                Ok(path) => Ok(Place::Disk(path)),
                Err(()) => {
                    let source = io::Error::new(io::ErrorKind::InvalidInput, "not a path on this machine");
                    Err(NetError::File { path: url.path().into(), source })
                }
            },
            "http" | "https" if self.offline => Err(NetError::Offline { url: shown(url) }),
            "http" | "https" => Ok(Place::Server),
            scheme => Err(NetError::Scheme { url: shown(url), scheme: scheme.to_owned() }),
        }
    }
}

enum Place {
    Disk(PathBuf),
    Server,
}

/// Reads to the end; `None`: more than `cap` bytes.
fn read_capped(reader: impl Read, cap: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    reader.take(cap.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= cap).then_some(bytes))
}

/// Opens a regular file and says its size.
fn open(path: &Path) -> Result<(File, u64), NetError> {
    let fail = |source| NetError::File { path: path.to_owned(), source };
    let file = open_regular(path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    Ok((file, size))
}

/// Keeps the error of a connection, so that it is not taken for one of the disk.
/// Takes a body whose digest nobody has said.
type Take<'a> = dyn FnMut(&mut dyn Read) -> Result<(Digest, u64), NetError> + 'a;

struct Breaking {
    inner: Box<dyn Read>,
    error: Option<io::Error>,
}

impl Read for Breaking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.error = Some(error);
            }
            kind.into()
        })
    }
}
