//! Ranges: one large file over several connections.
//!
//! Layer 3 (effects): owns the threads of a download. The first answer decides: where it is not the range that
//! was asked for, the file comes in one stream as if nobody had asked. Each later answer is held to the first
//! one's validator, so that pieces of two files are never mixed; whoever ignores that is found out by the hash.
//! Must never hold more in memory than a buffer for each connection.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use reqwest::header::CONTENT_RANGE;
use url::Url;

use super::body::{Body, body_error};
use super::exchange::{Answer, Question};
use super::patience::{Again, Failure, Tries};
use super::transfer::{CHUNK, Range, check_range, fill_buffer, length_error, validator, wrong};
use super::{Net, NetError, shown};
use crate::progress::Task;
use crate::store::{Pieces, Sink};

/// How a large file is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Connections for one file at most.
    pub most: usize,
    /// Bytes of a range at least; files of less than two of them come in one stream.
    pub least: u64,
}

impl Default for Cut {
    fn default() -> Self {
        Self { most: 8, least: 32 << 20 }
    }
}

/// Connections for ranges of all files together, beyond the first of each.
pub(super) const TOGETHER: usize = 16;
/// Ranges for each connection: few questions, yet no connection is left with much at the end.
const EACH: u64 = 4;
const LONGEST: u64 = 256 << 20;
/// A range that moved on by so much has its tries back.
const STRIDE: u64 = 1 << 20;

/// How it went.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Came {
    /// All of it.
    Whole,
    /// The server does not serve ranges of this file, or it has another file by now.
    OneStream,
}

/// What the connections of one file share.
struct Shared<'a> {
    net: &'a Net,
    url: &'a Url,
    task: &'a Task,
    pieces: &'a Pieces,
    size: u64,
    validator: Option<String>,
    waiting: Mutex<VecDeque<(u64, u64)>>,
    failed: Mutex<Option<NetError>>,
    changed: AtomicBool,
    stop: AtomicBool,
}

/// Fills a sink with ranges, where that is worth it and the server serves them.
pub(super) fn fill(net: &Net, url: &Url, sink: &mut Sink<'_>, task: &Task) -> Result<Came, NetError> {
    let left = sink.size() - sink.offset();
    if left == 0 || net.cut.most < 2 || (left < 2 * net.cut.least && !sink.has_pieces()) {
        return Ok(Came::OneStream);
    }
    let pieces = sink.pieces()?;
    let ahead = pieces.there().saturating_sub(sink.offset());
    let range = (left / (net.cut.most as u64 * EACH)).clamp(net.cut.least, LONGEST.max(net.cut.least));
    let mut waiting: VecDeque<(u64, u64)> = pieces.missing(range).into();
    let Some(first) = waiting.pop_front() else {
        pieces.close();
        sink.follow(&pieces)?;
        return Ok(Came::Whole);
    };
    let mut tries = Tries::new(net.patience, net.progress.as_ref());
    let answer = loop {
        match net.ask(url, &Question { from: first.0, until: Some(first.1), ..Question::default() }) {
            Ok(answer) if matches!(answer.status, 200 | 206 | 416) => break answer,
            Ok(answer) => tries.again(answer.failure())?,
            Err(failure) => tries.again(failure)?,
        }
    };
    match check_range(answer.header(CONTENT_RANGE), answer.status, first.0, sink.size()) {
        Range::Fits if matches!(Body::of(&answer, Some(first.1 - first.0)), Ok(Body::Plain)) => {}
        Range::OtherSize(found) => return Err(wrong(&answer.url, length_error(sink, found))),
        _ => return Ok(Came::OneStream),
    }
    task.add(ahead);
    let workers = Workers::take(net, net.cut.most.min(waiting.len() + 1) - 1);
    let shared = Shared {
        net,
        url,
        task,
        pieces: &pieces,
        size: sink.size(),
        validator: validator(&answer),
        waiting: Mutex::new(waiting),
        failed: Mutex::new(None),
        changed: AtomicBool::new(false),
        stop: AtomicBool::new(false),
    };
    let running = AtomicUsize::new(workers.count + 1);
    let work = |first: Option<((u64, u64), Answer)>| {
        // Whatever happens to a worker, the last one lets the hash end.
        struct Last<'a>(&'a AtomicUsize, &'a Pieces);
        impl Drop for Last<'_> {
            fn drop(&mut self) {
                if self.0.fetch_sub(1, Ordering::SeqCst) == 1 {
                    self.1.close();
                }
            }
        }
        let _last = Last(&running, &pieces);
        shared.work(first);
    };
    let followed = std::thread::scope(|scope| {
        scope.spawn(|| work(Some((first, answer))));
        for _ in 0..workers.count {
            scope.spawn(|| work(None));
        }
        // A disk that fails is met by whoever writes next, and told there.
        scope.spawn(|| drop(pieces.write_back()));
        sink.follow(&pieces).inspect_err(|_| shared.stop.store(true, Ordering::SeqCst))
    });
    followed?;
    if shared.changed.load(Ordering::SeqCst) {
        return Ok(Came::OneStream);
    }
    match shared.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None if sink.offset() == sink.size() => Ok(Came::Whole),
        None => Ok(Came::OneStream),
    }
}

impl Shared<'_> {
    fn work(&self, first: Option<((u64, u64), Answer)>) {
        let mut held = first.map(|(range, answer)| (range, Some(answer)));
        loop {
            let next = held.take().or_else(|| {
                let range = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                range.map(|range| (range, None))
            });
            let Some((range, answer)) = next.filter(|_| !self.stop.load(Ordering::SeqCst)) else { return };
            if let Err(error) = self.range(range, answer) {
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                self.stop.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Brings one range, however often its connection breaks.
    fn range(&self, (first, end): (u64, u64), mut answer: Option<Answer>) -> Result<(), NetError> {
        let mut at = first;
        let mut tries = Tries::new(self.net.patience, self.net.progress.as_ref());
        while at < end && !self.stop.load(Ordering::SeqCst) {
            let before = at;
            let failure = match self.piece(&mut at, end, answer.take()) {
                Ok(()) => continue,
                Err(failure) => failure,
            };
            if at >= before + STRIDE {
                tries.reset();
            }
            if self.stop.load(Ordering::SeqCst) {
                return Ok(());
            }
            tries.again(failure)?;
        }
        Ok(())
    }

    fn piece(&self, at: &mut u64, end: u64, answer: Option<Answer>) -> Result<(), Failure> {
        let answer = match answer {
            Some(answer) => answer,
            None => {
                let question = Question { from: *at, until: Some(end), validator: self.validator.as_deref(), accept: None };
                self.net.ask(self.url, &question)?
            }
        };
        match (answer.status, check_range(answer.header(CONTENT_RANGE), answer.status, *at, self.size)) {
            (206, Range::Fits) if self.validator.is_none() || validator(&answer) == self.validator => {}
            // Another file by now, or no ranges any more: from the beginning, in one stream.
            (200 | 206 | 416, _) => {
                self.changed.store(true, Ordering::SeqCst);
                self.stop.store(true, Ordering::SeqCst);
                return Ok(());
            }
            _ => return Err(answer.failure()),
        }
        let Body::Plain = Body::of(&answer, Some(end - *at))? else {
            let encoding = "gzip".to_owned();
            return Err(NetError::Encoding { url: shown(&answer.url), encoding }.into());
        };
        let url = answer.url.clone();
        let mut reader = std::io::Read::take(answer.response, end - *at);
        let mut buffer = vec![0; CHUNK];
        while *at < end && !self.stop.load(Ordering::SeqCst) {
            let (n, error) = fill_buffer(&mut reader, &mut buffer);
            self.pieces.write(*at, &buffer[..n]).map_err(|error| wrong(&url, error))?;
            *at += n as u64;
            self.task.add(n as u64);
            if *at == end {
                break;
            }
            let source = match error {
                Some(error) => body_error(error),
                None if n == buffer.len() => continue,
                None => "it ended early".into(),
            };
            return Err(Failure { error: NetError::Broken { url: shown(&url), source }, again: Again::Soon });
        }
        Ok(())
    }
}

/// Connections taken out of what all files together may have.
struct Workers<'a> {
    net: &'a Net,
    count: usize,
}

impl<'a> Workers<'a> {
    fn take(net: &'a Net, wanted: usize) -> Self {
        let mut count = 0;
        let _ = net.ranging.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |busy| {
            count = wanted.min(TOGETHER.saturating_sub(busy));
            Some(busy + count)
        });
        Self { net, count }
    }
}

impl Drop for Workers<'_> {
    fn drop(&mut self) {
        self.net.ranging.fetch_sub(self.count, Ordering::SeqCst);
    }
}
