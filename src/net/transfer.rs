//! Transfer: fills a sink piece by piece, from a server or from this machine.
//!
//! Layer 3 (effects). Asks for what is missing and for nothing that is there, holds each answer to length and
//! range before its body is read, and keeps what came when a connection breaks. Must never finish the sink.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use reqwest::header::{CONTENT_RANGE, ETAG, LAST_MODIFIED};
use url::Url;

use super::body::{Body, body_error, length};
use super::exchange::{Answer, Question};
use super::patience::{Failure, Tries};
use super::{Net, NetError, open, shown};
use crate::progress::Task;
use crate::store::{Sink, StoreError};

/// Bytes that go to the disk at once.
pub(super) const CHUNK: usize = 256 * 1024;
/// A download that moved on by so much has its tries back.
const STRIDE: u64 = 1 << 20;

/// One download under way.
pub(super) struct Transfer<'a> {
    pub net: &'a Net,
    pub url: &'a Url,
    pub tries: Tries<'a>,
    pub task: &'a Task,
    /// ETag or date of the answer that the sink's last bytes are from.
    pub validator: Option<String>,
    /// Whether the sink's bytes are from more than one answer.
    pub pieced: bool,
    /// The most that the sink ever held; progress never goes back.
    pub furthest: u64,
}

impl Transfer<'_> {
    /// Asks until the sink is full.
    pub fn fill(&mut self, sink: &mut Sink<'_>) -> Result<(), NetError> {
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
    pub fn copy(&mut self, path: &Path, sink: &mut Sink<'_>) -> Result<(), NetError> {
        let (mut file, found) = open(path)?;
        if found != sink.size() {
            return Err(wrong(self.url, length_error(sink, found)));
        }
        file.seek(SeekFrom::Start(sink.offset())).map_err(|source| NetError::File { path: path.to_owned(), source })?;
        self.pour(&mut file, sink, self.url).map_err(|failure| failure.error)
    }
}

/// What holds a later piece to this answer: a strong ETag, else a date.
pub(super) fn validator(answer: &Answer) -> Option<String> {
    let strong = answer.header(ETAG).filter(|tag| tag.starts_with('"'));
    strong.or_else(|| answer.header(LAST_MODIFIED)).map(str::to_owned)
}

#[derive(PartialEq, Eq, Debug)]
pub(super) enum Range {
    Fits,
    /// The server's file has another size.
    OtherSize(u64),
    /// Not what was asked for; begin again without a range.
    Unusable,
}

/// Holds `bytes 5-9/10` to what was asked for.
pub(super) fn check_range(header: Option<&str>, status: u16, from: u64, size: u64) -> Range {
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

pub(super) fn length_error(sink: &Sink<'_>, found: u64) -> StoreError {
    StoreError::Length { expected: sink.size(), found }
}

/// Says whose bytes were refused; what the disk said stays as it is.
pub(super) fn wrong(url: &Url, source: StoreError) -> NetError {
    match source {
        StoreError::Mismatch { .. } | StoreError::Length { .. } => NetError::Wrong { url: shown(url), source },
        other => NetError::Store(other),
    }
}

/// Reads until the buffer is full, the reader ends, or fails; the network hands out small pieces and the
/// disk wants large ones.
pub(super) fn fill_buffer(reader: &mut dyn Read, buffer: &mut [u8]) -> (usize, Option<io::Error>) {
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
