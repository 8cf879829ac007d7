//! Error: what went wrong between here and a server, and what to do about it.
//!
//! Layer 3 (effects), but pure itself. Must never show the query, the user name or the password of an address.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use reqwest::StatusCode;

#[cfg(doc)]
use super::shown;
use crate::store::StoreError;

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
        /// What the server calls it, where it says so in `X-Error-Code`: letters and digits only.
        code: Option<String>,
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
    /// An answer that says neither how long it is nor when it ends.
    #[error("{url} does not say where its answer ends, so a part cannot be told from the whole")]
    Endless {
        /// The one that answered.
        url: String,
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
