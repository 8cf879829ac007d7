//! Rows: a model hub that misbehaves, met by the command that a person types, and what a token may reach.

use std::fs;

use serde_json::{Value, json};

use super::{How, Refused, Row, judge};
use crate::hub_server::{HubFile, file_path, git_sha1, listing_path, pointer};
use crate::server::{Answer, Request, Server};
use crate::support::{Bench, COMMIT, Ran, hub_files, noise};

/// The repository of [`Bench::hubbed`].
const TINY: &str = "org/tiny";

const fn row(of: &'static str, name: &'static str, spoil: fn(&mut Bench), says: &'static str) -> Row {
    Row { of, name, how: How::Refused(Refused { bench: ready, spoil, command: "fetch", code: 2, says }) }
}

const fn lock(of: &'static str, name: &'static str, spoil: fn(&mut Bench), says: &'static str) -> Row {
    Row { of, name, how: How::Refused(Refused { bench: Bench::hubbed, spoil, command: "lock", code: 2, says }) }
}

/// Locked, with everything fetched forgotten: `pack fetch` must ask the hub.
fn ready() -> Bench {
    let bench = Bench::hubbed();
    bench.run("lock").good();
    bench.forget_bytes();
    bench
}

fn weights() -> String {
    file_path(TINY, COMMIT, "weights.bin")
}

fn config() -> String {
    file_path(TINY, COMMIT, "config.json")
}

/// The weights with one byte changed.
fn wrong() -> Vec<u8> {
    let mut bytes = noise(100_000);
    bytes[50_000] ^= 1;
    bytes
}

/// Lists other entries than are there.
fn listing(bench: &Bench, entries: impl IntoIterator<Item = Value>) {
    let entries: Vec<Value> = entries.into_iter().collect();
    bench.hub().put(&listing_path(TINY, COMMIT), Answer::ok(Value::from(entries).to_string()));
}

/// Lists another path for the weights.
fn named(bench: &Bench, path: &str) {
    let [config, weights] = hub_files().map(|file| file.entry());
    let mut other = weights;
    other["path"] = path.into();
    listing(bench, [config, other]);
}

pub const ROWS: &[Row] = &[
    row(
        "hub",
        "a commit that vanished",
        |b| b.hub().forget(COMMIT),
        "error: the Hub no longer has commit 1111111111111111111111111111111111111111 of model org/tiny, or a file of it\ncaused by: [hub]/org/tiny/resolve/1111111111111111111111111111111111111111/config.json answered 404 Not Found\nhelp: name another mirror in HF_ENDPOINT, use a folder made by `pack vendor`, or choose afresh with `pack lock --upgrade`",
    ),
    lock(
        "hub",
        "a commit that is not there",
        |b| revision(b, &"2".repeat(40)),
        "error: the Hub no longer has commit 2222222222222222222222222222222222222222 of model org/tiny, or a file of it\ncaused by: [hub]/api/models/org/tiny/revision/2222222222222222222222222222222222222222 answered 404 Not Found\nhelp: name another mirror in HF_ENDPOINT, use a folder made by `pack vendor`, or choose afresh with `pack lock --upgrade`",
    ),
    lock(
        "hub",
        "a branch that is not there",
        |b| revision(b, "v9"),
        "error: model org/tiny has no revision `v9`\ncaused by: [hub]/api/models/org/tiny/revision/v9 answered 404 Not Found\nhelp: its branches, tags and commits are at [hub]/org/tiny; name one with `revision`",
    ),
    lock(
        "hub",
        "a repository that is not there",
        |b| b.edit("pack.toml", TINY, "org/tinny"),
        "error: the Hub shows model org/tinny to nobody without a token, or it does not exist\ncaused by: [hub]/api/models/org/tinny/revision/main answered 401 Unauthorized\nhelp: look at [hub]/org/tinny, and at the spelling; if it is yours or gated, set a token in HF_TOKEN, or log in with `hf auth login`",
    ),
    lock(
        "hub",
        "another commit than was asked for",
        |b| {
            let asked = "2".repeat(40);
            let said = json!({"id": TINY, "sha": COMMIT}).to_string();
            b.hub().put(&format!("/api/models/{TINY}/revision/{asked}"), Answer::ok(said));
            revision(b, &asked);
        },
        "error: cannot read what the Hub says of org/tiny: expected commit 2222222222222222222222222222222222222222, found 1111111111111111111111111111111111111111\nhelp: ask another Hub or mirror: HF_ENDPOINT names it",
    ),
    lock(
        "hub",
        "an LFS digest that lies",
        |b| b.hub().put(&weights(), Answer::ok(wrong())),
        "error: cannot take model org/tiny from the Hub\ncaused by: [hub]/org/tiny/resolve/1111111111111111111111111111111111111111/weights.bin does not have the bytes asked for\ncaused by: expected sha256:60a3e26bb6c58a0d5a8baf3ce7e22c270899d9b0d53f43033b721e28e6bccfce, found sha256:ae7216966ebdbfb367d2c86a5b74ec83d5d5c547e56e1c1110aac3b94ee518d3\nhelp: the Hub or mirror that HF_ENDPOINT names serves something else than it lists: ask another one",
    ),
    row(
        "hub",
        "an LFS digest that lies, met by fetch",
        |b| b.hub().put(&weights(), Answer::ok(wrong())),
        "error: cannot take model org/tiny from the Hub\ncaused by: [hub]/org/tiny/resolve/1111111111111111111111111111111111111111/weights.bin does not have the bytes asked for\ncaused by: expected sha256:60a3e26bb6c58a0d5a8baf3ce7e22c270899d9b0d53f43033b721e28e6bccfce, found sha256:ae7216966ebdbfb367d2c86a5b74ec83d5d5c547e56e1c1110aac3b94ee518d3\nhelp: the Hub or mirror that HF_ENDPOINT names serves something else than it lists: ask another one",
    ),
    lock(
        "hub",
        "a plain file whose git SHA-1 differs",
        |b| b.hub().put(&config(), Answer::ok("{\"layers\": 2}\n")),
        "error: `config.json` of org/tiny: expected git SHA-1 40efd252f583e4a612260216ef59f78e1fb8d25a, found 70c7e957c13decd9e2629de84619bbbf2e3b9def\nhelp: the Hub or mirror that HF_ENDPOINT names serves something else than it lists: ask another one",
    ),
    row(
        "hub",
        "a plain file whose digest differs",
        |b| b.hub().put(&config(), Answer::ok("{\"layers\": 2}\n")),
        "error: cannot take model org/tiny from the Hub\ncaused by: [hub]/org/tiny/resolve/1111111111111111111111111111111111111111/config.json does not have the bytes asked for\ncaused by: expected sha256:834e0ed2f5fc26755353750eb13716e04fd16e437a0c74133fa51e121280deb0, found sha256:09d343c37de0bba143b7ff45f82c0ab9308531dcc78b56b8eb40c5938c4be418\nhelp: the Hub or mirror that HF_ENDPOINT names serves something else than it lists: ask another one",
    ),
    lock(
        "hub",
        "a plain file that is longer than listed",
        |b| b.hub().put(&config(), Answer::ok("{\"layers\": 11}\n")),
        "error: cannot take model org/tiny from the Hub\ncaused by: expected at most 14 bytes from [hub]/org/tiny/resolve/1111111111111111111111111111111111111111/config.json, found more\nhelp: the Hub or mirror that HF_ENDPOINT names serves something else than it lists: ask another one",
    ),
    lock(
        "hub",
        "a pointer file instead of weights",
        pointer_in_git,
        "error: `weights.bin` of org/tiny is a git-lfs pointer and not the file itself\nhelp: its author put it there without git-lfs: tell them, name another `revision`, or leave it out with `files`",
    ),
    lock(
        "hub",
        "a pointer file in the place of weights",
        |b| b.hub().put(&weights(), Answer::ok(pointer(&noise(100_000)))),
        "error: cannot take model org/tiny from the Hub\ncaused by: [hub]/org/tiny/resolve/1111111111111111111111111111111111111111/weights.bin does not have the bytes asked for\ncaused by: expected 100000 bytes, found 131\nhelp: the Hub or mirror that HF_ENDPOINT names serves something else than it lists: ask another one",
    ),
    lock(
        "hub",
        "a listing with a `../` path",
        |b| named(b, "../weights.bin"),
        "error: the list of files of org/tiny cannot be used: path `../weights.bin` climbs out with `..`\nhelp: ask another Hub or mirror: HF_ENDPOINT names it",
    ),
    lock(
        "hub",
        "a listing with an absolute path",
        |b| named(b, "/etc/passwd"),
        "error: the list of files of org/tiny cannot be used: absolute path `/etc/passwd`\nhelp: ask another Hub or mirror: HF_ENDPOINT names it",
    ),
    lock(
        "hub",
        "a listing with one path twice",
        |b| named(b, "config.json"),
        "error: the list of files of org/tiny cannot be used: `config.json` is there twice\nhelp: ask another Hub or mirror: HF_ENDPOINT names it",
    ),
    lock(
        "hub",
        "a listing with a file below a file",
        |b| named(b, "config.json/weights.bin"),
        "error: model base: the files of org/tiny cannot form a folder\ncaused by: `config.json` and `config.json/weights.bin` cannot both be there",
    ),
    lock(
        "hub",
        "a listing that is no listing",
        |b| b.hub().put(&listing_path(TINY, COMMIT), Answer::ok("<html>")),
        "error: the list of files of org/tiny cannot be used: expected value at line 1 column 1\nhelp: ask another Hub or mirror: HF_ENDPOINT names it",
    ),
    lock(
        "hub",
        "a listing whose pages have no end",
        endless,
        "error: the list of files of org/tiny cannot be used: its pages have no end\nhelp: ask another Hub or mirror: HF_ENDPOINT names it",
    ),
    lock(
        "hub",
        "a listing that goes on elsewhere",
        elsewhere,
        "error: the list of files of org/tiny cannot be used: the next page lies elsewhere, at http://127.0.0.1:9/next\nhelp: ask another Hub or mirror: HF_ENDPOINT names it",
    ),
    row(
        "hub",
        "a hub that redirects in a circle",
        |b| b.hub().put(&weights(), Answer::redirect(302, &weights())),
        "error: cannot take model org/tiny from the Hub\ncaused by: [hub]/org/tiny/resolve/1111111111111111111111111111111111111111/weights.bin redirects in a circle, through [hub]/org/tiny/resolve/1111111111111111111111111111111111111111/weights.bin\nhelp: the Hub or mirror that HF_ENDPOINT names serves something else than it lists: ask another one",
    ),
    row(
        "hub",
        "a storage that refuses",
        storage_refuses,
        "error: cannot take model org/tiny from where the Hub keeps its files\ncaused by: [storage]/storage answered 403 Forbidden\nhelp: the Hub sends on to there for a short while only: type the same command again; if it stays so, look whether a proxy or a firewall stands between",
    ),
    row(
        "hub",
        "a hub that nobody may ask",
        |b| b.set("HF_HUB_OFFLINE", "1"),
        "error: HF_HUB_OFFLINE forbids asking the Hub for `config.json` of org/tiny\nhelp: run the same command where the Hub may be asked, or name a store that has it with `--store DIR` (`pack vendor` makes one)",
    ),
    lock(
        "hub",
        "an endpoint that is no address",
        |b| b.set("HF_ENDPOINT", "hub.example"),
        "error: HF_ENDPOINT is not the address of a Hub: expected one that begins with https:// or http://\nhelp: unset HF_ENDPOINT, or set it to the address of a mirror",
    ),
    Row { of: "hub", name: "a repository that grew after the lock", how: How::Story(grew) },
    Row { of: "hub", name: "a gated repository and no token", how: How::Story(no_token) },
    Row { of: "hub", name: "a gated repository and a token without access", how: How::Story(stranger) },
    Row { of: "hub", name: "a token that the hub does not know", how: How::Story(unknown_token) },
    Row { of: "hub", name: "a token with a space", how: How::Story(broken_token) },
    Row { of: "hub", name: "a token goes to the hub and to nobody else", how: How::Story(redirect) },
    Row { of: "hub", name: "a hub that ignores ranges", how: How::Story(no_ranges) },
    Row { of: "hub", name: "a file that is cut at every tenth", how: How::Story(cut_each) },
    Row { of: "hub", name: "a file that is cut ten times", how: How::Story(cut_ten) },
    Row { of: "hub", name: "a local cache with a wrong blob", how: How::Story(wrong_cache) },
];

fn revision(bench: &Bench, revision: &str) {
    bench.edit("pack.toml", "[data.raw]", &format!("revision = \"{revision}\"\n[data.raw]"));
}

/// The hub sends on to another origin, where the leave has run out: that says nothing of the repository.
fn storage_refuses(bench: &mut Bench) {
    let storage = bench.hub().server.url("/storage").replace("127.0.0.1", "localhost");
    bench.hub().put("/storage", Answer::status(403));
    bench.hub().put(&weights(), Answer::redirect(302, &storage));
    bench.set("NO_PROXY", "127.0.0.1,localhost");
}

/// Weights that were put into git as their pointer, as a clone without git-lfs has them.
fn pointer_in_git(bench: &mut Bench) {
    let [config, _] = hub_files();
    bench.hub().commit(TINY, COMMIT, &[config, HubFile::git("weights.bin", pointer(&noise(100_000)))]);
}

fn endless(bench: &mut Bench) {
    let [config, _] = hub_files();
    let path = listing_path(TINY, COMMIT);
    let next = format!("<{}?recursive=true>; rel=\"next\"", bench.hub().server.url(&path));
    bench.hub().put(&path, Answer::ok(json!([config.entry()]).to_string()).header("Link", &next));
}

fn elsewhere(bench: &mut Bench) {
    let [config, _] = hub_files();
    let next = "<http://127.0.0.1:9/next>; rel=\"next\"";
    bench.hub().put(&listing_path(TINY, COMMIT), Answer::ok(json!([config.entry()]).to_string()).header("Link", next));
}

#[track_caller]
fn refused(ran: &Ran, says: &str) {
    judge(ran, 2, says).unwrap_or_else(|wrong| panic!("{wrong}"));
}

/// `main` moves on; the lock keeps its commit, and what it names is still what is fetched.
fn grew() {
    let bench = ready();
    let before = bench.read("pack.lock");
    let next = "2".repeat(40);
    let [config, weights] = hub_files();
    let more = [config, weights, HubFile::git("more.json", "{}")];
    bench.hub().commit(TINY, &next, &more);
    bench.run("fetch").good();
    bench.run("lock").good();
    assert_eq!(bench.read("pack.lock"), before);
    bench.run("build").good();
    let asked = bench.hub().server.requests();
    assert!(!asked.iter().any(|request| request.path.contains(&next)), "the new commit was asked for");
    bench.run("lock --upgrade").good();
    let after = bench.read("pack.lock");
    assert!(after.contains(&next) && after.contains("more.json") && !after.contains(COMMIT), "{after}");
}

const MEMBER: &str = "member-of-the-gated-model";
const STRANGER: &str = "stranger-to-the-gated-model";

fn gated() -> Bench {
    let bench = Bench::hubbed();
    bench.hub().gate(MEMBER, STRANGER);
    bench
}

/// Refused by lock and by fetch with the same words; with a token that has access, both go through. No token is
/// in anything that was said or written.
#[track_caller]
fn token_story(token: Option<&str>, says: &str) {
    let mut bench = gated();
    if let Some(token) = token {
        bench.set("HF_TOKEN", token);
    }
    let locked = bench.run("lock");
    refused(&locked, says);
    assert!(!bench.at("pack.lock").exists());
    bench.set("HF_TOKEN", MEMBER);
    let mut said = vec![locked, bench.run("lock").good()];
    bench.forget_bytes();
    bench.set("HF_TOKEN", token.unwrap_or_default());
    let fetched = bench.run("fetch -j 1");
    refused(&fetched, says);
    bench.set("HF_TOKEN", MEMBER);
    said.extend([fetched, bench.run("fetch").good(), bench.run("build").good()]);
    let written = crate::support::snapshot(bench.dir());
    for secret in [MEMBER].into_iter().chain(token) {
        assert!(said.iter().all(|ran| !ran.all().contains(secret)), "the token is shown: {said:?}");
        let bytes = secret.as_bytes();
        let holds = |(_, file): &(_, &Vec<u8>)| file.windows(bytes.len()).any(|window| window == bytes);
        let found: Vec<_> = written.iter().filter(holds).map(|(path, _)| path).collect();
        assert!(found.is_empty(), "the token is written: {found:?}");
    }
}

fn no_token() {
    token_story(
        None,
        "error: model org/tiny is gated, and no token was sent\ncaused by: [hub]/org/tiny/resolve/1111111111111111111111111111111111111111/config.json answered 401 Unauthorized\nhelp: ask for access at [hub]/org/tiny, then set HF_TOKEN, or log in with `hf auth login`",
    );
}

fn stranger() {
    token_story(
        Some(STRANGER),
        "error: model org/tiny is gated, and your token has no access to it\ncaused by: [hub]/org/tiny/resolve/1111111111111111111111111111111111111111/config.json answered 403 Forbidden\nhelp: ask for access at [hub]/org/tiny, with the account of your token; then type the same command again",
    );
}

fn unknown_token() {
    token_story(
        Some("nobody-knows-this-one"),
        "error: the Hub does not let your token see model org/tiny: it does not exist, it is private, or the token is no longer valid\ncaused by: [hub]/org/tiny/resolve/1111111111111111111111111111111111111111/config.json answered 401 Unauthorized\nhelp: look at [hub]/org/tiny, and at the spelling; set a new token in HF_TOKEN, or log in with `hf auth login`",
    );
}

fn broken_token() {
    token_story(
        Some("two words-of-a-token"),
        "error: the token for the Hub cannot be used\ncaused by: the token for [hub]/ has characters that cannot be sent\nhelp: set HF_TOKEN to the token alone, without spaces and quotes",
    );
}

fn shown(requests: &[Request]) -> Vec<Option<&str>> {
    requests.iter().map(|request| request.header("authorization")).collect()
}

/// The large file lies with somebody else, as on the real hub; the token stays behind, whoever says otherwise.
fn redirect() {
    let mut bench = gated();
    bench.set("HF_TOKEN", MEMBER);
    let storage = Server::start();
    storage.on("/bytes", Answer::ok(noise(100_000)).etag("\"1\""));
    bench.set("NO_PROXY", "127.0.0.1,localhost");
    // Once another port of the same host, once another host.
    for url in [storage.url("/bytes"), storage.url("/bytes").replace("127.0.0.1", "localhost")] {
        bench.hub().server.forget(&weights());
        bench.hub().server.on(&weights(), Answer::redirect(302, &url));
        let before = storage.requests().len();
        bench.run("lock").good();
        bench.forget_bytes();
        bench.run("fetch").good();
        let asked = storage.requests();
        assert!(asked.len() > before, "{url}");
        assert!(shown(&asked).iter().all(Option::is_none), "the token was forwarded to {url}");
        bench.forget_bytes();
    }
    let bearer = format!("Bearer {MEMBER}");
    let asked = bench.hub().server.requests();
    assert!(!asked.is_empty() && shown(&asked).iter().all(|shown| *shown == Some(bearer.as_str())), "{asked:?}");
}

/// The first answer breaks off; the second is the whole file, though its rest was asked for.
fn no_ranges() {
    let bench = ready();
    let server = &bench.hub().server;
    server.on(&weights(), Answer::ok(noise(100_000)).etag("\"1\"").cut(50_000));
    server.on(&weights(), Answer::ok(noise(100_000)).header("ETag", "\"1\""));
    let before = server.hits(&weights()).len();
    bench.run("fetch").good();
    let hits = server.hits(&weights());
    let ranges: Vec<_> = hits[before..].iter().map(|request| request.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=50000-")]);
    bench.run("store verify").good();
    // Nor is what is left of it believed where it is another file.
    bench.forget_bytes();
    server.forget(&weights());
    server.on(&weights(), Answer::ok(noise(100_000)).etag("\"1\"").cut(50_000));
    server.on(&weights(), Answer::ok(wrong()));
    refused(
        &bench.run("fetch"),
        "error: cannot take model org/tiny from the Hub\ncaused by: [hub]/org/tiny/resolve/1111111111111111111111111111111111111111/weights.bin does not have the bytes asked for\ncaused by: expected sha256:60a3e26bb6c58a0d5a8baf3ce7e22c270899d9b0d53f43033b721e28e6bccfce, found sha256:ae7216966ebdbfb367d2c86a5b74ec83d5d5c547e56e1c1110aac3b94ee518d3\nhelp: the Hub or mirror that HF_ENDPOINT names serves something else than it lists: ask another one",
    );
}

fn cut_each() {
    let bench = ready();
    let server = &bench.hub().server;
    for tenth in 1..10 {
        server.forget(&weights());
        server.on(&weights(), Answer::ok(noise(100_000)).etag("\"1\"").cut(tenth * 10_000));
        server.on(&weights(), Answer::ok(noise(100_000)).etag("\"1\""));
        let before = server.hits(&weights()).len();
        bench.run("fetch").good();
        let hits = server.hits(&weights());
        let ranges: Vec<_> = hits[before..].iter().filter_map(|request| request.header("range")).collect();
        assert_eq!(ranges, [format!("bytes={}-", tenth * 10_000)], "what came was not kept");
        bench.run("store verify").good();
        bench.forget_bytes();
    }
}

/// Each answer brings a tenth and breaks off. A command gives up after a while; the next goes on where it was.
fn cut_ten() {
    let bench = ready();
    let server = &bench.hub().server;
    server.on(&weights(), Answer::ok(noise(100_000)).etag("\"1\"").cut(10_000));
    let before = server.hits(&weights()).len();
    let codes: Vec<i32> = (0..3).map(|_| bench.run("fetch").code).take_while(|code| *code != 0).collect();
    assert!(codes.len() < 3 && codes.iter().all(|code| *code == 2), "{codes:?}");
    let hits = server.hits(&weights());
    let ranges: Vec<_> = hits[before..].iter().filter_map(|request| request.header("range")).map(str::to_owned).collect();
    let expected: Vec<_> = (1..10).map(|tenth| format!("bytes={}-", tenth * 10_000)).collect();
    assert_eq!(ranges, expected);
    bench.run("store verify").good();
}

/// Blobs of the user's own cache of the hub: sound ones are taken without asking, others are not believed.
fn wrong_cache() {
    let mut bench = ready();
    let folder = bench.dir().join("cache/models--org--tiny");
    let (blobs, snapshot) = (folder.join("blobs"), folder.join("snapshots").join(COMMIT));
    [&blobs, &snapshot].into_iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
    bench.set("HF_HUB_CACHE", bench.dir().join("cache"));
    let config = b"{\"layers\": 1}\n".to_vec();
    let place = blobs.join(pack::digest::Digest::of(&noise(100_000)).hex());
    for (name, bytes, blob) in
        [("config.json", config.clone(), blobs.join(git_sha1(&config))), ("weights.bin", noise(100_000), place.clone())]
    {
        fs::write(&blob, bytes).unwrap();
        let target = std::path::Path::new("../../blobs").join(blob.file_name().unwrap());
        std::os::unix::fs::symlink(target, snapshot.join(name)).unwrap();
    }
    let asked = bench.hub().server.requests().len();
    bench.set("HF_HUB_OFFLINE", "1");
    bench.run("fetch").good();
    assert_eq!(bench.hub().server.requests().len(), asked, "the hub was asked");
    for spoiled in [wrong(), noise(99_999), Vec::new()] {
        bench.forget_bytes();
        // A link of the store's may have made it read-only.
        fs::remove_file(&place).unwrap();
        fs::write(&place, &spoiled).unwrap();
        bench.set("HF_HUB_OFFLINE", "1");
        refused(
            &bench.run("fetch"),
            "warning: `[dir]/cache/models--org--tiny/blobs/60a3e26bb6c58a0d5a8baf3ce7e22c270899d9b0d53f43033b721e28e6bccfce` in the Hub's cache is not the file `weights.bin` any more; it is fetched instead\nerror: HF_HUB_OFFLINE forbids asking the Hub for `weights.bin` of org/tiny\nhelp: run the same command where the Hub may be asked, or name a store that has it with `--store DIR` (`pack vendor` makes one)",
        );
        bench.set("HF_HUB_OFFLINE", "0");
        let asked = bench.hub().server.hits(&weights()).len();
        let ran = bench.run("fetch").good();
        judge(&ran, 0, "warning: `[dir]/cache/models--org--tiny/blobs/60a3e26bb6c58a0d5a8baf3ce7e22c270899d9b0d53f43033b721e28e6bccfce` in the Hub's cache is not the file `weights.bin` any more; it is fetched instead").unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(ran.all().matches("in the Hub's cache").count(), 1, "{}", ran.all());
        assert_eq!(bench.hub().server.hits(&weights()).len(), asked + 1);
        assert_eq!(fs::read(&place).unwrap(), spoiled, "the cache is the user's");
        bench.run("store verify").good();
    }
}
