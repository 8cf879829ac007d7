//! Learn: takes a file whose digest nobody has said into the store.
//!
//! Layer 3 (effects). Must never take a body whose end cannot be told from a broken connection.

use std::io::{self, Read};

use reqwest::Version;
use reqwest::header::{CONTENT_TYPE, TRANSFER_ENCODING};
use url::Url;

use super::body::{Body, body_error, length};
use super::exchange::Question;
use super::patience::{Failure, Tries};
use super::{Net, NetError, Place, shown};
use crate::digest::Digest;
use crate::progress::Task;
use crate::store::{Store, StoreError};

/// What was learnt of a file at first sight.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Learnt {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// As the server said it, parameters included.
    pub content_type: Option<String>,
}

/// Counts for the person, and keeps the error of a connection apart from those of the disk.
struct Watched<'a> {
    body: Box<dyn Read>,
    task: &'a Task,
    broken: Option<io::Error>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.body.read(buffer) {
            Ok(n) => {
                self.task.add(n as u64);
                Ok(n)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.broken = Some(error);
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
    }
}

impl Net {
    /// Takes what lies at a URL into the store and says what it is. Begins anew where a connection breaks.
    ///
    /// # Errors
    /// As [`Net::page`]; [`NetError::Endless`] where neither a length nor the transfer says where the file ends.
    pub fn learn(&self, url: &Url, store: &Store, task: &Task) -> Result<Learnt, NetError> {
        if let Place::Disk(_) = self.place(url)? {
            return Err(NetError::Scheme { url: shown(url), scheme: url.scheme().to_owned() });
        }
        let mut tries = Tries::new(self.patience, self.progress.as_ref());
        loop {
            match self.learn_once(url, store, task) {
                Ok(learnt) => return Ok(learnt),
                Err(failure) => tries.again(failure)?,
            }
        }
    }

    fn learn_once(&self, url: &Url, store: &Store, task: &Task) -> Result<Learnt, Failure> {
        let answer = self.ask(url, &Question::default())?;
        if answer.status != 200 {
            return Err(answer.failure());
        }
        let said = length(&answer);
        let framed = answer.response.version() >= Version::HTTP_2 || answer.header(TRANSFER_ENCODING).is_some();
        if said.is_none() && !framed {
            return Err(NetError::Endless { url: shown(&answer.url) }.into());
        }
        let content_type = answer.header(CONTENT_TYPE).map(str::to_owned);
        let body = Body::of(&answer, None)?;
        let (at, is_plain) = (answer.url.clone(), matches!(body, Body::Plain));
        let mut reader = Watched { body: body.reader(answer.response), task, broken: None };
        let added = store.add(&mut reader);
        let (digest, size) = match (added, reader.broken) {
            (_, Some(error)) => return Err(Failure::passing(NetError::Broken { url: shown(&at), source: body_error(error) })),
            (Ok(added), None) => added,
            (Err(error), None) => return Err(NetError::Store(error).into()),
        };
        match said {
            Some(expected) if is_plain && expected != size => {
                let source = StoreError::Length { expected, found: size };
                Err(Failure::passing(NetError::Wrong { url: shown(&at), source }))
            }
            _ => Ok(Learnt { digest, size, content_type }),
        }
    }
}
