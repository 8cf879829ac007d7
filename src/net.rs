//! Net: the only socket. Downloads into the store's door, with resume, retries and size caps.
//!
//! Layer 3 (effects). Certificates, proxies and time-outs are set here and nowhere else. A credential is
//! sent to the host it was given for and to no other, whatever redirects say. Must never decide whether
//! bytes are right: the [`crate::store::Sink`] does.

#![allow(clippy::disallowed_methods, reason = "effects: owns the network")]

use url::Url;

use crate::progress::Task;
use crate::store::{Sink, StoreError};

/// The network, or the refusal to use it.
pub struct Net {
    offline: bool,
}

/// What went wrong between here and a server.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The user said `--offline`.
    #[error("`--offline` forbids fetching {url}")]
    Offline {
        /// Without credentials.
        url: String,
    },
    /// The server answered with an error.
    #[error("{url} answered {status}")]
    Status {
        /// Without credentials.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// The store refused the bytes.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Net {
    /// Opens no socket yet.
    pub fn new(offline: bool) -> Self {
        Self { offline }
    }

    /// Reads a small document of at most `cap` bytes; `accept` is the Accept header.
    pub fn get(&self, url: &Url, accept: Option<&str>, cap: u64) -> Result<Vec<u8>, NetError> {
        let _ = (url, accept, cap, self.offline);
        unimplemented!()
    }

    /// Fills a sink from the place where it stands, resuming and retrying as the server allows.
    pub fn download(&self, url: &Url, sink: Sink<'_>, task: &Task) -> Result<(), NetError> {
        let _ = (url, sink, task);
        unimplemented!()
    }
}
