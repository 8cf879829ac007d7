//! Laws of files at addresses: what was seen once is what comes, or nothing.

use super::*;
use crate::artifact::{Name, Role};
use crate::manifest::{Manifest, TreeWant};
use crate::net::{Net, Patience};
use crate::progress::Progress;
use crate::store::Store;

use crate::net::server::{Answer, Server};

struct World {
    dir: tempfile::TempDir,
    server: Server,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), server: Server::start() }
    }

    fn with<T>(&self, store: &str, offline: bool, run: impl FnOnce(&Context) -> Result<T, SourceError>) -> Result<T, String> {
        let manifest = Manifest::parse("[submission]\nname = \"x\"\ncompetition = \"c\"\ntrack = \"t\"\n").unwrap();
        let store = Store::open(&self.dir.path().join(store), &self.dir.path().join(format!("{store}-memory"))).unwrap();
        let quick = Patience { tries: 2, pause: std::time::Duration::from_millis(1), ..Patience::default() };
        let (net, progress) = (Net::new(offline).with_patience(quick), Progress::silent());
        let cx =
            Context { project: self.dir.path(), manifest: &manifest, store: &store, net: &net, progress: &progress, jobs: 2 };
        run(&cx).map_err(|error| {
            let mut text = error.to_string();
            let mut next = std::error::Error::source(&error);
            while let Some(cause) = next {
                text.push_str(&format!(": {cause}"));
                next = cause.source();
            }
            format!("{text} ({})", error.help.unwrap_or_default())
        })
    }

    fn resolve(&self, path: &str, sha256: Option<String>) -> Result<Resolved, String> {
        let want = TreeWant { url: Some(self.server.url(path)), sha256, ..TreeWant::default() };
        let name = Name::new("it").unwrap();
        let want = Want::Tree { name: &name, role: Role::Data, want: &want };
        let previous = Previous { artifacts: &[], evidence: &[], upgrade: None };
        self.with("store", false, |cx| UrlSource.resolve(&want, &previous, cx))
    }

    fn answer(&self, path: &str, answer: Answer) {
        self.server.forget(path);
        self.server.on(path, answer);
    }
}

#[test]
fn observed_once_and_held_to_it() {
    let world = World::new();
    world.answer("/a%20b.txt", Answer::ok("one"));
    let first = world.resolve("/a%20b.txt", None).unwrap();
    let taken = &first.artifacts[0];
    assert_eq!(taken.files.as_ref().unwrap().text(), format!("0644 {} 3 a b.txt\n", Digest::of(b"one").hex()));
    assert_eq!((taken.basis, first.warnings.len()), (Basis::Observed, 0));
    world.with("other", false, |cx| UrlSource.fetch(taken, cx)).unwrap();
    world.with("other", true, |cx| UrlSource.fetch(taken, cx)).unwrap();
    assert!(world.with("third", true, |cx| UrlSource.fetch(taken, cx)).unwrap_err().contains("`--offline` forbids"));
    for changed in ["two", "longer"] {
        world.answer("/a%20b.txt", Answer::ok(changed));
        let error = world.with("third", false, |cx| UrlSource.fetch(taken, cx)).unwrap_err();
        assert!(error.contains("expected") && error.contains("is another one now"), "{error}");
    }
    assert_ne!(world.resolve("/a%20b.txt", None).unwrap().artifacts[0].digest, taken.digest);
}

#[test]
fn given_is_held_from_the_start() {
    let world = World::new();
    world.answer("/f", Answer::ok("one"));
    for answer in [Answer::ok("one"), Answer::ok("one").chunked()] {
        world.answer("/f", answer);
        let found = world.resolve("/f", Some(Digest::of(b"one").hex())).unwrap();
        assert_eq!(found.artifacts[0].basis, Basis::Given);
        let error = world.resolve("/f", Some(Digest::of(b"two").hex())).unwrap_err();
        assert!(error.contains("expected sha256:") && error.contains("found sha256:"), "{error}");
    }
}

#[test]
fn what_is_cut_or_is_no_file_is_not_taken() {
    let world = World::new();
    for (answer, why) in [
        (Answer::ok("0123456789").cut(5), "broke off"),
        (Answer::ok("0123456789").chunked().cut(5), "broke off"),
        (Answer::ok("0123456789").unsized_body(), "does not say where its answer ends"),
        (Answer::status(403), "sends no credentials"),
        (Answer::status(404), "no longer has it"),
    ] {
        world.answer("/f", answer);
        let error = world.resolve("/f", None).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    world.answer("/f", Answer::ok("<html>log in").header("Content-Type", "text/html; charset=utf-8"));
    assert!(world.resolve("/f", None).unwrap().warnings[0].contains("came as a web page"));
}

/// What an address has is read again for whoever did not read it there.
#[test]
fn an_address_is_asked_again() {
    let world = World::new();
    world.answer("/a.txt", Answer::ok("one"));
    let artifact = &world.resolve("/a.txt", Some(Digest::of(b"one").hex())).unwrap().artifacts[0];
    let ask =
        |store: &str, offline: bool| world.with(store, offline, |cx| Ok(vouch::ask_all(&[artifact], cx)?.remove(0))).unwrap();
    // Read here when it was locked.
    assert!(matches!(ask("store", true), vouch::Vouched::Yes));
    // By nobody, then by whoever asks.
    assert!(matches!(ask("other", true), vouch::Vouched::Open(_)));
    assert!(matches!(ask("other", false), vouch::Vouched::Yes));
    assert!(matches!(ask("other", true), vouch::Vouched::Yes));
    // Fetched by pin.
    world.with("third", false, |cx| UrlSource.fetch(artifact, cx)).unwrap();
    assert!(matches!(ask("third", true), vouch::Vouched::Yes));
    world.answer("/a.txt", Answer::ok("two"));
    assert!(matches!(ask("fourth", false), vouch::Vouched::No(what) if what.starts_with("`a.txt`: expected sha256:")));
    // A memory that came with a store is whoever made that store.
    for (memory, is_heard) in [("sixth/memory", false), ("sixth-memory", true)] {
        let store = Store::open(&world.dir.path().join("sixth"), &world.dir.path().join(memory)).unwrap();
        let said = world.with("store", true, |cx| {
            let cx = &Context { store: &store, ..*cx };
            vouch::remember(artifact, cx);
            Ok(vouch::ask_all(&[artifact], cx)?.remove(0))
        });
        assert_eq!(matches!(said.unwrap(), vouch::Vouched::Yes), is_heard, "{memory}");
    }
    // Bytes that came otherwise are nobody's word: a lock that finds them in the store has not read them there.
    world.with("fifth", false, |cx| Ok(cx.store.add_bytes(b"two")?)).unwrap();
    let want = TreeWant { url: Some(world.server.url("/a.txt")), sha256: Some(Digest::of(b"two").hex()), ..TreeWant::default() };
    let name = Name::new("it").unwrap();
    let want = Want::Tree { name: &name, role: Role::Data, want: &want };
    let previous = Previous { artifacts: &[], evidence: &[], upgrade: None };
    let found = world.with("fifth", false, |cx| UrlSource.resolve(&want, &previous, cx)).unwrap();
    let said = world.with("fifth", true, |cx| Ok(vouch::ask_all(&[&found.artifacts[0]], cx)?.remove(0))).unwrap();
    assert!(matches!(said, vouch::Vouched::Open(_)), "{said:?}");
}
