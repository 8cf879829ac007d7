//! Net: the only socket. Downloads into the store's door, with resume, retries and size caps.
//!
//! Layer 3 (effects). Certificates, proxies and time-outs are set here and nowhere else. A credential is
//! sent to the origin it was given for and to no other, whatever redirects say. `file:` URLs come through the
//! same door, so a local mirror is a mirror like any other. Must never decide whether bytes are right: the
//! [`crate::store::Sink`] does.

#![allow(clippy::disallowed_methods, reason = "effects: owns the network, and reads `file:` URLs")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use flate2::read::MultiGzDecoder;
use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED};
use url::Url;

use crate::progress::{Progress, Task};
use crate::store::{Sink, StoreError};

mod address;
mod exchange;
mod patience;
#[cfg(test)]
#[path = "../../tests/support/server.rs"]
mod server;
#[cfg(test)]
mod tests;

pub use address::shown;
pub use patience::Patience;

use address::bare;
use exchange::{Answer, Credential, Question, body_error};
use patience::{Failure, Tries};

/// Bytes that go to the disk at once.
const CHUNK: usize = 256 * 1024;
/// A download that moved on by so much has its tries back.
const STRIDE: u64 = 1 << 20;

/// The network, or the refusal to use it; one serves all threads.
pub struct Net {
    offline: bool,
    patience: Patience,
    proxies: bool,
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
}

/// What went wrong between here and a server. Every `url` is as [`shown`] gives it.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The user said `--offline`.
    #[error("`--offline` forbids fetching {url}")]
    Offline {
        /// Asked for.
        url: String,
    },
    /// Neither the network nor the disk.
    #[error("cannot fetch {url}: expected http, https or file, found `{scheme}`")]
    Scheme {
        /// Asked for.
        url: String,
        /// What it begins with.
        scheme: String,
    },
    /// The server answered with an error.
    #[error("{url} answered {}", named(*status))]
    Status {
        /// The one that answered.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// No answer at all.
    #[error("cannot reach {url}")]
    Unreachable {
        /// Asked for.
        url: String,
        /// What the library says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server is not who it says, or this machine does not know who vouches for it.
    #[error("cannot trust the server of {url}")]
    Certificate {
        /// Asked for.
        url: String,
        /// What is wrong with the certificate.
        #[source]
        source: rustls::Error,
    },
    /// The answer began and did not end.
    #[error("the answer of {url} broke off")]
    Broken {
        /// The one that answered.
        url: String,
        /// What the library says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server sends on to where we do not go.
    #[error("{url} redirects {why}")]
    Redirect {
        /// The one that redirects.
        url: String,
        /// Where to, or how often.
        why: String,
    },
    /// A document that is larger than its kind can be.
    #[error("expected at most {cap} bytes from {url}, found more")]
    TooLong {
        /// The one that answered.
        url: String,
        /// The most that is read.
        cap: u64,
    },
    /// A part of a file was asked for and another part, or the part of another file, came.
    #[error("expected the bytes of {url} from {expected} on, found `{found}`")]
    Range {
        /// The one that answered.
        url: String,
        /// First byte asked for.
        expected: u64,
        /// The Content-Range that came.
        found: String,
    },
    /// Bytes came, and they are not the ones that are pinned.
    #[error("{url} does not have the bytes asked for")]
    Wrong {
        /// The one that answered.
        url: String,
        /// Length or digest, expected and found.
        #[source]
        source: StoreError,
    },
    /// A compression that was not asked for.
    #[error("{url} answered with the encoding `{encoding}`, which was not asked for")]
    Encoding {
        /// The one that answered.
        url: String,
        /// As the server names it.
        encoding: String,
    },
    /// A `file:` URL that cannot be read.
    #[error("cannot read `{path}`")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A token that does not fit into a header; it is not repeated here.
    #[error("the token for {url} has characters that cannot be sent")]
    Token {
        /// Whom it was meant for.
        url: String,
    },
    /// The network cannot be used at all.
    #[error("cannot prepare a connection to {url}: {why}")]
    Client {
        /// Asked for.
        url: String,
        /// What the library says.
        why: String,
    },
    /// The disk said no.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn named(status: u16) -> String {
    match StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()) {
        Some(reason) => format!("{status} {reason}"),
        None => status.to_string(),
    }
}

impl NetError {
    /// What to do about it, where there is something.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Offline { .. } => Some("run the same command without `--offline`, or `pack fetch` where there is a network"),
            Self::Status { status: 401 | 403, .. } => {
                Some("the server wants credentials: set its token in the environment or in your configuration")
            }
            Self::Status { status: 404 | 410, .. } => Some(
                "the index or pool no longer has it: name another mirror, use a folder made by `pack vendor`, \
                 or choose afresh with `pack lock --upgrade`",
            ),
            Self::Status { status: 429, .. } => {
                Some("the server limits how often it is asked: wait a minute, then type the same command again")
            }
            Self::Status { status: 500..=599, .. } | Self::Broken { .. } => {
                Some("the server is in trouble: type the same command again later, what has come so far is kept")
            }
            Self::Unreachable { .. } => Some("check the address and the network; a proxy is taken from HTTPS_PROXY"),
            Self::Certificate { .. } => {
                Some("if your network has a certificate authority of its own, name its file in SSL_CERT_FILE")
            }
            Self::Wrong { .. } => Some("the mirror has another file under this name: name another mirror"),
            _ => None,
        }
    }
}

impl Net {
    /// Opens no socket yet.
    pub fn new(offline: bool) -> Self {
        Self {
            offline,
            patience: Patience::default(),
            proxies: true,
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
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// With somebody to tell that a server keeps us waiting.
    pub fn with_progress(mut self, progress: Progress) -> Self {
        self.progress = Some(progress);
        self
    }

    /// With a bearer token for one scheme, host and port; path and query of `origin` do not count.
    ///
    /// # Errors
    /// [`NetError::Token`] where the token cannot stand in a header.
    pub fn with_token(self, origin: &Url, token: &str) -> Result<Self, NetError> {
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NetError::Token { url: shown(origin) });
        }
        self.remember(&address::origin(origin), &Credential::Token(token.to_owned()));
        Ok(self)
    }

    /// Ignores the proxies of the environment: what tests serve on the loopback is not for a proxy.
    #[cfg(test)]
    fn without_proxies(mut self) -> Self {
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
            return Ok(Page { bytes, url: bare(url), content_type: None });
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
        let body = Body::of(&answer, None)?;
        let broken = |error| Failure::passing(NetError::Broken { url: shown(&answer.url), source: body_error(error) });
        let bytes = read_capped(body.reader(answer.response), cap).map_err(broken)?.ok_or_else(too_long)?;
        Ok(Page { bytes, url: answer.url.clone(), content_type })
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
        let mut transfer = Transfer {
            net: self,
            url,
            tries: Tries::new(self.patience, self.progress.as_ref()),
            task,
            validator: None,
            pieced: sink.offset() > 0,
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

/// One download under way.
struct Transfer<'a> {
    net: &'a Net,
    url: &'a Url,
    tries: Tries<'a>,
    task: &'a Task,
    /// ETag or date of the answer that the sink's last bytes are from.
    validator: Option<String>,
    /// Whether the sink's bytes are from more than one answer.
    pieced: bool,
    /// The most that the sink ever held; progress never goes back.
    furthest: u64,
}

impl Transfer<'_> {
    /// Asks until the sink is full.
    fn fill(&mut self, sink: &mut Sink<'_>) -> Result<(), NetError> {
        while sink.offset() < sink.size() {
            let before = self.furthest;
            let failure = match self.piece(sink) {
                Ok(()) if sink.offset() == sink.size() => return Ok(()),
                // The body ended in good order, and early.
                Ok(()) => Failure::passing(wrong(self.url, length_error(sink, sink.offset()))),
                Err(failure) => failure,
            };
            if self.furthest >= before + STRIDE {
                self.tries.reset();
            }
            self.tries.again(failure)?;
        }
        Ok(())
    }

    /// Asks once for what is missing and takes what comes.
    fn piece(&mut self, sink: &mut Sink<'_>) -> Result<(), Failure> {
        let from = sink.offset();
        let question = Question { from, validator: self.validator.as_deref(), ..Question::default() };
        let answer = self.net.ask(self.url, &question)?;
        let size = match answer.status {
            200 => sink.size(),
            206 | 416 if from > 0 => {
                match check_range(answer.header(CONTENT_RANGE), answer.status, from, sink.size()) {
                    Range::Fits => sink.size() - from,
                    Range::OtherSize(found) => return Err(wrong(&answer.url, length_error(sink, found)).into()),
                    Range::Unusable => {
                        // Without an offset the next try asks for no range.
                        sink.restart()?;
                        let found = answer.header(CONTENT_RANGE).unwrap_or("no Content-Range").to_owned();
                        let error = NetError::Range { url: shown(&answer.url), expected: from, found };
                        return Err(Failure::passing(error));
                    }
                }
            }
            _ => return Err(answer.failure()),
        };
        let body = Body::of(&answer, Some(size))?;
        if let (Body::Plain, Some(length)) = (&body, length(&answer))
            && (length > size || (length < size && answer.status == 200))
        {
            return Err(wrong(&answer.url, length_error(sink, sink.size() - size + length)).into());
        }
        if answer.status == 200 {
            sink.restart()?;
        }
        self.pieced = answer.status == 206;
        self.validator = match body {
            Body::Plain => validator(&answer).or_else(|| self.validator.take().filter(|_| self.pieced)),
            Body::Gzip => None,
        };
        let url = answer.url.clone();
        self.pour(&mut body.reader(answer.response), sink, &url)
    }

    /// Moves bytes until the reader ends. What came before an error is kept.
    fn pour(&mut self, reader: &mut dyn Read, sink: &mut Sink<'_>, url: &Url) -> Result<(), Failure> {
        let mut buffer = vec![0; CHUNK.min(usize::try_from(sink.size()).unwrap_or(CHUNK).saturating_add(1))];
        loop {
            let (n, error) = fill_buffer(reader, &mut buffer);
            sink.write(&buffer[..n]).map_err(|error| wrong(url, error))?;
            if sink.offset() > self.furthest {
                self.task.add(sink.offset() - self.furthest);
                self.furthest = sink.offset();
            }
            match error {
                // Everything is here; how the connection ended does not matter.
                Some(_) if sink.offset() == sink.size() => return Ok(()),
                Some(error) => {
                    let source = body_error(error);
                    return Err(Failure::passing(NetError::Broken { url: shown(url), source }));
                }
                None if n == 0 => return Ok(()),
                None => {}
            }
        }
    }

    /// A file of this machine; a part that is there already is not copied again.
    fn copy(&mut self, path: &std::path::Path, sink: &mut Sink<'_>) -> Result<(), NetError> {
        let (mut file, found) = open(path)?;
        if found != sink.size() {
            return Err(wrong(self.url, length_error(sink, found)));
        }
        file.seek(SeekFrom::Start(sink.offset())).map_err(|source| NetError::File { path: path.to_owned(), source })?;
        self.pour(&mut file, sink, self.url).map_err(|failure| failure.error)
    }
}

/// How a body is to be read.
enum Body {
    Plain,
    Gzip,
}

impl Body {
    /// `identity` was asked for, yet some servers compress regardless, and others call the compression that
    /// is part of the file itself (`.tar.gz`) an encoding of the transfer. The length tells the two apart, or
    /// else the name.
    fn of(answer: &Answer, expected: Option<u64>) -> Result<Self, NetError> {
        let encoding = answer.header(CONTENT_ENCODING).unwrap_or("identity").trim().to_ascii_lowercase();
        let is_file = match (length(answer), expected) {
            (Some(length), Some(expected)) => length == expected,
            _ => [".gz", ".tgz"].iter().any(|end| answer.url.path().ends_with(end)),
        };
        match encoding.as_str() {
            "" | "identity" => Ok(Self::Plain),
            "gzip" | "x-gzip" if is_file => Ok(Self::Plain),
            // A part of a compressed stream cannot be read.
            "gzip" | "x-gzip" if answer.status == 200 => Ok(Self::Gzip),
            _ if is_file && expected.is_some() => Ok(Self::Plain),
            _ => Err(NetError::Encoding { url: shown(&answer.url), encoding }),
        }
    }

    fn reader(&self, response: Response) -> Box<dyn Read> {
        match self {
            Self::Plain => Box::new(response),
            Self::Gzip => Box::new(MultiGzDecoder::new(response)),
        }
    }
}

/// What the server says about the length of what it sends.
fn length(answer: &Answer) -> Option<u64> {
    answer.header(CONTENT_LENGTH)?.trim().parse().ok()
}

/// What holds a later piece to this answer: a strong ETag, else a date.
fn validator(answer: &Answer) -> Option<String> {
    let strong = answer.header(ETAG).filter(|tag| tag.starts_with('"'));
    strong.or_else(|| answer.header(LAST_MODIFIED)).map(str::to_owned)
}

#[derive(PartialEq, Eq, Debug)]
enum Range {
    Fits,
    /// The server's file has another size.
    OtherSize(u64),
    /// Not what was asked for; begin again without a range.
    Unusable,
}

/// Holds `bytes 5-9/10` to what was asked for.
fn check_range(header: Option<&str>, status: u16, from: u64, size: u64) -> Range {
    let Some((range, total)) = header.and_then(|text| text.trim().strip_prefix("bytes ")?.split_once('/')) else {
        return Range::Unusable;
    };
    if let Ok(total) = total.trim().parse()
        && total != size
    {
        return Range::OtherSize(total);
    }
    let Some((first, last)) = range.trim().split_once('-') else { return Range::Unusable };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if status == 206 && first == from && last >= first && last < size => Range::Fits,
        _ => Range::Unusable,
    }
}

fn length_error(sink: &Sink<'_>, found: u64) -> StoreError {
    StoreError::Length { expected: sink.size(), found }
}

/// Says whose bytes were refused; what the disk said stays as it is.
fn wrong(url: &Url, source: StoreError) -> NetError {
    match source {
        StoreError::Mismatch { .. } | StoreError::Length { .. } => NetError::Wrong { url: shown(url), source },
        other => NetError::Store(other),
    }
}

/// Opens a regular file and says its size.
fn open(path: &std::path::Path) -> Result<(File, u64), NetError> {
    let fail = |source| NetError::File { path: path.to_owned(), source };
    // Looked at before it is opened: opening a pipe would wait for its writer.
    let meta = std::fs::metadata(path).map_err(fail)?;
    if !meta.is_file() {
        return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    Ok((File::open(path).map_err(fail)?, meta.len()))
}

/// Reads to the end; `None`: more than `cap` bytes.
fn read_capped(reader: impl Read, cap: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    reader.take(cap.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= cap).then_some(bytes))
}

/// Reads until the buffer is full, the reader ends, or fails; the network hands out small pieces and the
/// disk wants large ones.
fn fill_buffer(reader: &mut dyn Read, buffer: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut n = 0;
    while n < buffer.len() {
        match reader.read(&mut buffer[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (n, Some(error)),
        }
    }
    (n, None)
}
