//! What Net promises, tried against a server that misbehaves; each bad answer beside its good twin.

use std::error::Error;
use std::time::{Duration, Instant};

use super::server::{Answer, Server};
use super::transfer::{Range, check_range};
use super::*;
use crate::digest::Digest;
use crate::store::Store;

mod documents;
mod environment;
mod patience;
mod ranges;
mod resume;
mod trust;

/// Quick, and deaf to proxies.
fn net() -> Net {
    let patience = Patience {
        tries: 5,
        pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(1500),
        connect: Duration::from_secs(5),
        idle: Duration::from_millis(400),
    };
    Net::new(false).with_patience(patience).without_proxies()
}

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

fn body() -> Vec<u8> {
    (0..700_000u32).map(|n| (n % 251) as u8).collect()
}

/// Same length, one byte off.
fn spoiled() -> Vec<u8> {
    let mut bytes = body();
    bytes[99] ^= 1;
    bytes
}

/// The message and all that lies beneath.
fn told(error: &NetError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

struct Bench {
    _dir: tempfile::TempDir,
    store: Store,
    server: Server,
}

impl Bench {
    fn new(script: impl IntoIterator<Item = Answer>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &dir.path().join("memory")).unwrap();
        let server = Server::start();
        for answer in script {
            server.on("/f", answer);
        }
        Self { _dir: dir, store, server }
    }

    /// Leaves what an earlier run left.
    fn part(&self, bytes: &[u8]) {
        let mut sink = self.store.sink(Digest::of(&body()), body().len() as u64).unwrap().unwrap();
        sink.restart().unwrap();
        sink.write(bytes).unwrap();
    }

    fn kept(&self) -> u64 {
        self.store.sink(Digest::of(&body()), body().len() as u64).unwrap().unwrap().offset()
    }

    fn download_with(&self, net: &Net) -> Result<(), NetError> {
        let bytes = body();
        let sink = self.store.sink(Digest::of(&bytes), bytes.len() as u64).unwrap().expect("not there yet");
        let result = net.download(&url(&self.server.url("/f")), sink, &Task::hidden());
        assert_eq!(self.store.contains(&Digest::of(&bytes), bytes.len() as u64).unwrap(), result.is_ok());
        if result.is_ok() {
            assert_eq!(self.store.read(&Digest::of(&bytes)).unwrap(), bytes);
        }
        result
    }

    fn download(&self) -> Result<(), NetError> {
        self.download_with(&net())
    }

    fn ranges(&self) -> Vec<Option<String>> {
        self.server.hits("/f").iter().map(|hit| hit.header("range").map(str::to_owned)).collect()
    }
}

fn range(from: usize) -> Option<String> {
    Some(format!("bytes={from}-"))
}
