//! What Net promises, tried against a server that misbehaves; each bad answer beside its good twin.

use std::error::Error;
use std::time::{Duration, Instant};

use super::server::{Answer, Server};
use super::transfer::{Range, check_range};
use super::*;
use crate::digest::Digest;
use crate::store::Store;

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

#[test]
fn a_good_body_arrives_however_it_is_framed() {
    for answer in [
        Answer::ok(body()),
        Answer::ok(body()).chunked(),
        Answer::ok(body()).unsized_body(),
        Answer::ok(body()).etag("\"a\""),
        // All of it came, though the end was not said.
        Answer::ok(body()).chunked().cut(700_000),
        Answer::ok(body()).late(Duration::from_millis(100)),
        Answer::ok(body()).slow(50_000, Duration::from_millis(60)),
    ] {
        let bench = Bench::new([answer]);
        bench.download().unwrap();
        let hits = bench.server.hits("/f");
        assert_eq!(hits.len(), 1);
        assert_eq!(hits[0].header("user-agent"), Some(concat!("pack/", env!("CARGO_PKG_VERSION"))));
        assert_eq!(hits[0].header("accept-encoding"), Some("identity"));
        assert_eq!(hits[0].header("range"), None);
        assert_eq!(hits[0].header("authorization"), None);
    }
}

#[test]
fn a_cut_body_goes_on_where_it_broke() {
    for good in [Answer::ok(body()).etag("\"a\""), Answer::ok(body()).header("Last-Modified", "then").ranged()] {
        let bench = Bench::new([good.clone().cut(300_000), good.clone().cut(1000), good]);
        bench.download().unwrap();
        assert_eq!(bench.ranges(), [None, range(300_000), range(301_000)]);
        let validator = bench.server.hits("/f")[1].header("if-range").map(str::to_owned);
        assert!(matches!(validator.as_deref(), Some("\"a\"" | "then")));
    }
    // A weak tag holds nothing together.
    let weak = Answer::ok(body()).etag("W/\"a\"");
    let bench = Bench::new([weak.clone().cut(300_000), weak]);
    bench.download().unwrap();
    assert_eq!(bench.ranges(), [None, range(300_000)]);
    assert_eq!(bench.server.hits("/f")[1].header("if-range"), None);
}

#[test]
fn a_body_that_ends_early_in_good_order_goes_on_too() {
    let short = Answer::ok(&body()[..300_000]).unsized_body();
    let bench = Bench::new([short.clone(), Answer::ok(body()).ranged()]);
    bench.download().unwrap();
    assert_eq!(bench.ranges(), [None, range(300_000)]);
    // The bad twin: the server's file really is shorter.
    let bench = Bench::new([short.ranged()]);
    assert!(told(&bench.download().unwrap_err()).ends_with("expected 700000 bytes, found 300000"));
}

#[test]
fn a_body_that_is_always_cut_gives_up_and_keeps_what_came() {
    let bench = Bench::new([Answer::ok(body()).ranged().cut(10_000)]);
    let error = bench.download().unwrap_err();
    assert!(matches!(error, NetError::Broken { .. }), "{error}");
    assert_eq!(error.to_string(), format!("the answer of {} broke off", bench.server.url("/f")));
    assert_eq!(bench.server.hits("/f").len(), 5);
    assert_eq!(bench.kept(), 50_000);
    // The next command goes on from there.
    bench.server.forget("/f");
    bench.server.on("/f", Answer::ok(body()).ranged());
    bench.download().unwrap();
    assert_eq!(bench.ranges()[5], range(50_000));
}

#[test]
fn a_large_file_may_break_as_often_as_it_moves_on() {
    let bytes: Vec<u8> = body().into_iter().cycle().take(10 << 20).collect();
    let download = |answer: Answer| {
        let bench = Bench::new([answer]);
        let sink = bench.store.sink(Digest::of(&bytes), bytes.len() as u64).unwrap().unwrap();
        let result = net().download(&url(&bench.server.url("/f")), sink, &Task::hidden());
        (result, bench.server.requests().len())
    };
    let (result, asked) = download(Answer::ok(bytes.clone()).etag("\"a\"").cut(1_100_000));
    result.unwrap();
    assert_eq!(asked, 10);
    // The bad twin begins anew each time and never gets further.
    let (result, asked) = download(Answer::ok(bytes.clone()).cut(1_100_000));
    assert!(matches!(result, Err(NetError::Broken { .. })));
    assert_eq!(asked, 5);
}

#[test]
fn a_server_that_ignores_ranges_is_read_from_the_start() {
    let bench = Bench::new([Answer::ok(body())]);
    bench.part(&body()[..400_000]);
    bench.download().unwrap();
    assert_eq!(bench.ranges(), [range(400_000)]);
    // Cut each time, it never ends, yet we do.
    let bench = Bench::new([Answer::ok(body()).cut(600_000)]);
    bench.download().unwrap_err();
    assert_eq!(bench.server.hits("/f").len(), 5);
}

#[test]
fn a_file_that_changed_in_between_is_read_from_the_start() {
    let bench = Bench::new([Answer::ok(spoiled()).etag("\"old\"").cut(300_000), Answer::ok(body()).etag("\"new\"")]);
    bench.download().unwrap();
    assert_eq!(bench.ranges(), [None, range(300_000)]);
}

#[test]
fn a_spoiled_part_is_fetched_once_more_from_scratch() {
    let bench = Bench::new([Answer::ok(body()).ranged()]);
    bench.part(&spoiled()[..400_000]);
    bench.download().unwrap();
    assert_eq!(bench.ranges(), [range(400_000), None]);
    // So are pieces of two files that nothing told apart.
    let bench = Bench::new([Answer::ok(spoiled()).ranged().cut(300_000), Answer::ok(body()).ranged()]);
    bench.download().unwrap();
    assert_eq!(bench.ranges(), [None, range(300_000), None]);
    // What came in one piece is not fetched again.
    let bench = Bench::new([Answer::ok(spoiled())]);
    bench.part(&body()[..400_000]);
    bench.download().unwrap_err();
    assert_eq!(bench.ranges(), [range(400_000)]);
    // The bad twin: from scratch it is wrong as well.
    let bench = Bench::new([Answer::ok(spoiled()).ranged()]);
    bench.part(&spoiled()[..400_000]);
    assert!(matches!(bench.download(), Err(NetError::Wrong { source: StoreError::Mismatch { .. }, .. })));
    assert_eq!(bench.ranges(), [range(400_000), None]);
}

#[test]
fn a_wrong_byte_of_the_right_length_is_refused_at_once() {
    let bench = Bench::new([Answer::ok(spoiled()).etag("\"a\"")]);
    let error = bench.download().unwrap_err();
    assert_eq!(bench.server.hits("/f").len(), 1);
    let (expected, found) = (Digest::of(&body()), Digest::of(&spoiled()));
    let address = bench.server.url("/f");
    assert_eq!(told(&error), format!("{address} does not have the bytes asked for: expected {expected}, found {found}"));
    assert!(error.help().is_some());
}

#[test]
fn a_content_length_that_is_not_the_pinned_size_is_refused_before_the_body() {
    for length in [699_999, 700_001, 20_000_000_000] {
        let bench = Bench::new([Answer::ok(body()).lie(length).stall(10, Duration::from_secs(20))]);
        let began = Instant::now();
        let error = bench.download().unwrap_err();
        assert!(told(&error).ends_with(&format!("expected 700000 bytes, found {length}")), "{}", told(&error));
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(bench.server.hits("/f").len(), 1);
    }
    // A true length with a body that is shorter than it is a broken body, and a resumed length is a part's.
    let bench = Bench::new([Answer::ok(&body()[..1000]).lie(700_000), Answer::ok(body()).ranged()]);
    bench.download().unwrap();
    assert_eq!(bench.ranges(), [None, range(1000)]);
}

#[test]
fn a_body_without_length_that_does_not_end_is_refused() {
    let mut long = body();
    long.extend([0; 100]);
    for answer in [Answer::ok(long.clone()).chunked(), Answer::ok(long.clone()).unsized_body()] {
        let bench = Bench::new([answer]);
        let error = bench.download().unwrap_err();
        assert!(told(&error).ends_with("expected 700000 bytes, found 700100"), "{}", told(&error));
        assert_eq!(bench.server.hits("/f").len(), 1);
    }
}

#[test]
fn a_content_range_is_held_to_the_question() {
    for (bad, expected) in [
        ("bytes 0-699999/700000", Range::Unusable),
        ("bytes 5-4/700000", Range::Unusable),
        ("bytes 5-700000/700000", Range::Unusable),
        ("bytes 5-700000/*", Range::Unusable),
        ("bytes 5-699999", Range::Unusable),
        ("bytes five-six/700000", Range::Unusable),
        ("items 5-699999/700000", Range::Unusable),
        ("", Range::Unusable),
        ("bytes 5-700000/700001", Range::OtherSize(700_001)),
        ("bytes 5-699999/700000", Range::Fits),
        ("bytes 5-699999/*", Range::Fits),
        ("bytes 5-9/700000", Range::Fits),
    ] {
        assert_eq!(check_range(Some(bad), 206, 5, 700_000), expected, "{bad}");
    }
    assert_eq!(check_range(None, 206, 5, 10), Range::Unusable);
    assert_eq!(check_range(Some("bytes */9"), 416, 5, 10), Range::OtherSize(9));
    assert_eq!(check_range(Some("bytes */10"), 416, 5, 10), Range::Unusable);

    // Another part than asked for: the whole is fetched instead.
    let bench = Bench::new([Answer::ok(body()).ranged().content_range("bytes 0-699999/700000")]);
    bench.part(&body()[..400_000]);
    bench.download().unwrap();
    assert_eq!(bench.ranges(), [range(400_000), None]);
    // A part of a file of another size: refused at once.
    let bench = Bench::new([Answer::ok(body()).ranged().content_range("bytes 400000-699999/800000")]);
    bench.part(&body()[..400_000]);
    assert!(told(&bench.download().unwrap_err()).ends_with("expected 700000 bytes, found 800000"));
    assert_eq!(bench.server.hits("/f").len(), 1);
    // A part that nobody asked for.
    let bench = Bench::new([Answer::status(206)]);
    assert!(matches!(bench.download(), Err(NetError::Status { status: 206, .. })));
}

#[test]
fn passing_troubles_are_waited_out() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let bench = Bench::new([Answer::status(status), Answer::status(status), Answer::ok(body())]);
        bench.download().unwrap();
        assert_eq!(bench.server.hits("/f").len(), 3, "{status}");
        // The bad twin never recovers.
        let bench = Bench::new([Answer::status(status)]);
        let error = bench.download().unwrap_err();
        assert!(matches!(error, NetError::Status { status: s, .. } if s == status));
        assert_eq!(bench.server.hits("/f").len(), 5, "{status}");
    }
}

#[test]
fn lasting_troubles_are_not() {
    for (status, text, advice) in [
        (401, "401 Unauthorized", "credentials"),
        (403, "403 Forbidden", "credentials"),
        (404, "404 Not Found", "the index or pool no longer has it"),
        (410, "410 Gone", "the index or pool no longer has it"),
        (400, "400 Bad Request", ""),
        (304, "304 Not Modified", ""),
    ] {
        let bench = Bench::new([Answer::status(status)]);
        let error = bench.download().unwrap_err();
        assert_eq!(error.to_string(), format!("{} answered {text}", bench.server.url("/f")));
        assert!(error.help().unwrap_or_default().contains(advice), "{error}");
        assert_eq!(bench.server.hits("/f").len(), 1);
    }
    let limited = NetError::Status { url: String::new(), status: 429, code: None };
    assert!(limited.help().unwrap().contains("wait a minute"));
}

#[test]
fn retry_after_is_honoured_up_to_a_limit() {
    let waited = |value: &str| {
        let bench = Bench::new([Answer::status(503).header("Retry-After", value), Answer::ok(body())]);
        let net = net();
        // The client is made outside the time that is taken.
        net.get(&url(&bench.server.url("/none")), None, 1).unwrap_err();
        let began = Instant::now();
        bench.download_with(&net).unwrap();
        began.elapsed()
    };
    assert!(waited("0") < Duration::from_millis(900));
    assert!((Duration::from_secs(1)..Duration::from_secs(3)).contains(&waited("1")));
    assert!((Duration::from_millis(1500)..Duration::from_secs(5)).contains(&waited("86400")));
}

#[test]
fn a_server_that_says_nothing_is_asked_again() {
    for bad in [Answer::refuse(), Answer::hang(Duration::from_secs(9)), Answer::ok(body()).late(Duration::from_secs(9))] {
        let bench = Bench::new([bad.clone(), Answer::ok(body())]);
        bench.download().unwrap();
        assert_eq!(bench.ranges(), [None, None]);
        let bench = Bench::new([bad]);
        let error = bench.download().unwrap_err();
        assert_eq!(error.to_string(), format!("cannot reach {}", bench.server.url("/f")));
        assert_eq!(bench.server.hits("/f").len(), 5);
    }
}

#[test]
fn a_body_that_stalls_is_asked_for_the_rest() {
    let good = Answer::ok(body()).etag("\"a\"");
    let bench = Bench::new([good.clone().stall(300_000, Duration::from_secs(9)), good.clone()]);
    bench.download().unwrap();
    assert_eq!(bench.ranges(), [None, range(300_000)]);
    // The good twin takes longer than the idle limit in all, and never pauses that long.
    let bench = Bench::new([good.slow(50_000, Duration::from_millis(100))]);
    let began = Instant::now();
    bench.download().unwrap();
    assert!(began.elapsed() > net().patience.idle);
    assert_eq!(bench.ranges(), [None]);
}

#[test]
fn nobody_listening_is_said_after_some_tries() {
    let gone = Server::start();
    let address = gone.url("/f?token=secret");
    drop(gone);
    let error = net().get(&url(&address), None, 10).unwrap_err();
    assert!(matches!(error, NetError::Unreachable { .. }));
    assert!(error.to_string().ends_with("/f") && !format!("{error:?} {}", told(&error)).contains("secret"));
}

#[test]
fn redirects_are_followed_and_circles_are_not() {
    for status in [301, 302, 303, 307, 308] {
        let bench = Bench::new([Answer::redirect(status, "/deep/one")]);
        bench.server.on("/deep/one", Answer::redirect(302, "two?x=1#y")).on("/deep/two", Answer::ok(body()));
        bench.download().unwrap();
        assert_eq!(bench.server.hits("/deep/two")[0].query.as_deref(), Some("x=1"));
    }
    let bench = Bench::new([Answer::redirect(302, "/g")]);
    bench.server.on("/g", Answer::redirect(302, "/f?token=secret"));
    let error = bench.download().unwrap_err();
    let (f, g) = (bench.server.url("/f"), bench.server.url("/g"));
    assert_eq!(error.to_string(), format!("{f} redirects in a circle, through {g}"));

    let server = Server::start();
    for n in 0..20 {
        server.on(&format!("/{n}"), Answer::redirect(302, &format!("/{}", n + 1)));
    }
    server.on("/20", Answer::ok("end"));
    assert_eq!(net().get(&url(&server.url("/10")), None, 10).unwrap(), b"end");
    let error = net().get(&url(&server.url("/9")), None, 10).unwrap_err();
    assert_eq!(error.to_string(), format!("{} redirects more than 10 times", server.url("/9")));
    for (path, to, why) in [
        ("/none", None, "without saying where to"),
        ("/file", Some("file:///etc/passwd"), "from http to `file:`"),
        ("/self", Some("/self"), "in a circle"),
    ] {
        server.on(path, to.map_or(Answer::status(302), |to| Answer::redirect(302, to)));
        let error = net().get(&url(&server.url(path)), None, 10).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(server.hits(path).len(), 1);
    }
}

#[test]
fn a_signed_redirect_is_asked_for_anew_when_a_body_breaks() {
    let bench = Bench::new([Answer::redirect(302, "/signed?sig=1"), Answer::redirect(302, "/signed?sig=2")]);
    let good = Answer::ok(body()).etag("\"a\"");
    bench.server.on("/signed", good.clone().cut(300_000)).on("/signed", good);
    bench.download().unwrap();
    let queries: Vec<_> = bench.server.hits("/signed").into_iter().map(|hit| hit.query.unwrap()).collect();
    assert_eq!(queries, ["sig=1", "sig=2"]);
}

#[test]
fn a_credential_goes_to_its_origin_and_nowhere_else() {
    let (home, other) = (Server::start(), Server::start());
    home.on("/here", Answer::ok("yes")).on("/near", Answer::redirect(302, "/here"));
    home.on("/away", Answer::redirect(307, &other.url("/there")));
    home.on("/round", Answer::redirect(307, &other.url("/back")));
    other.on("/there", Answer::ok("yes")).on("/back", Answer::redirect(302, &home.url("/here")));
    let with_login = home.url("").replace("http://", "http://me:s%40cret@");
    let token = net().with_token(&url(&home.url("/any/path")), "hf_secret").unwrap();

    for (net, base, expected) in [(&token, home.url(""), "Bearer hf_secret"), (&net(), with_login, "Basic bWU6c0BjcmV0")] {
        let before = home.requests().len();
        for path in ["/here", "/near", "/away", "/round"] {
            assert_eq!(net.get(&url(&format!("{base}{path}")), None, 10).unwrap(), b"yes");
        }
        let asked = home.requests().split_off(before);
        assert_eq!(asked.len(), 6);
        assert!(asked.iter().all(|request| request.header("authorization") == Some(expected)));
    }
    assert_eq!(other.requests().len(), 4);
    assert!(other.requests().iter().all(|request| request.header("authorization").is_none()));
    // Asked outright, the other host does not get it either.
    token.get(&url(&other.url("/there")), None, 10).unwrap();
    assert!(other.requests().iter().all(|request| request.header("authorization").is_none()));
    // Nor does a host with another name, or a server that puts a login into its redirect.
    let named = home.url("/here").replace("127.0.0.1", "localhost");
    token.get(&url(&named), None, 10).unwrap();
    assert_eq!(home.requests().last().unwrap().header("authorization"), None);
    home.on("/planted", Answer::redirect(302, &other.url("/there").replace("http://", "http://a:b@")));
    net().get(&url(&home.url("/planted")), None, 10).unwrap();
    assert_eq!(other.requests().last().unwrap().header("authorization"), None);
}

#[test]
fn a_login_in_an_index_url_serves_for_its_links_too() {
    let server = Server::start();
    server.on("/simple/", Answer::ok("<a href=../f.whl>").header("Content-Type", "text/html; charset=utf-8"));
    server.on("/f.whl", Answer::ok("wheel"));
    let net = net();
    let index = url(&server.url("/simple/#x").replace("http://", "http://me:secret@"));
    let page = net.page(&index, Some("text/html"), 100).unwrap();
    assert_eq!(page.url.as_str(), server.url("/simple/"));
    assert_eq!(page.content_type.as_deref(), Some("text/html; charset=utf-8"));
    assert_eq!(server.hits("/simple/")[0].header("accept"), Some("text/html"));
    net.get(&page.url.join("../f.whl").unwrap(), None, 100).unwrap();
    assert_eq!(server.hits("/f.whl")[0].header("authorization"), Some("Basic bWU6c2VjcmV0"));
    // Another login serves for its own URL and replaces nothing.
    net.get(&url(&server.url("/f.whl").replace("http://", "http://you:other@")), None, 100).unwrap();
    net.get(&url(&server.url("/f.whl")), None, 100).unwrap();
    assert_ne!(server.hits("/f.whl")[1].header("authorization"), Some("Basic bWU6c2VjcmV0"));
    assert_eq!(server.hits("/f.whl")[2].header("authorization"), Some("Basic bWU6c2VjcmV0"));
}

#[test]
fn no_secret_is_in_any_error() {
    let server = Server::start();
    let address = server.url("/f?X-Amz-Signature=hush&token=hush").replace("http://", "http://me:hush@");
    let net = net().with_token(&url(&server.url("/")), "hush").unwrap();
    for bad in [
        Answer::status(403),
        Answer::status(500),
        Answer::refuse(),
        Answer::ok("long enough").lie(5000),
        Answer::ok("long enough").chunked(),
        Answer::ok("long").lie(5),
        Answer::ok("long").header("Content-Encoding", "br"),
        Answer::ok("long").header("Content-Encoding", "gzip"),
        Answer::redirect(302, "/f?X-Amz-Signature=hush&token=hush"),
        Answer::redirect(302, "ftp://me:hush@host/f?sig=hush"),
        Answer::redirect(302, "http://me:hush@[::bad/f?sig=hush"),
    ] {
        server.forget("/f");
        server.on("/f", bad);
        let error = net.get(&url(&address), None, 5).unwrap_err();
        let all = format!("{error:?} {} {:?}", told(&error), error.help());
        assert!(!all.contains("hush"), "{all}");
    }
    for token in ["hush\nX: y", "", "hush hush", "hüsh"] {
        let error = Net::new(false).with_token(&url(&address), token).err().unwrap();
        assert!(matches!(error, NetError::Token { .. }) && !format!("{error:?}{error}").contains("hush"));
    }
}

#[test]
fn a_document_has_its_cap() {
    let server = Server::start();
    for answer in [Answer::ok("12345"), Answer::ok("12345").chunked(), Answer::ok("12345").unsized_body()] {
        server.forget("/d");
        server.on("/d", answer);
        assert_eq!(net().get(&url(&server.url("/d")), None, 5).unwrap(), b"12345");
        let error = net().get(&url(&server.url("/d")), None, 4).unwrap_err();
        assert_eq!(error.to_string(), format!("expected at most 4 bytes from {}, found more", server.url("/d")));
    }
    assert_eq!(server.hits("/d").len(), 6);
    server.on("/cut", Answer::ok("12345").cut(2)).on("/cut", Answer::ok("12345"));
    assert_eq!(net().get(&url(&server.url("/cut")), None, 5).unwrap(), b"12345");
    server.on("/empty", Answer::ok(""));
    assert_eq!(net().get(&url(&server.url("/empty")), None, 0).unwrap(), b"");
}

#[test]
fn what_is_compressed_on_the_way_is_read_and_what_is_compressed_itself_is_left_alone() {
    use std::io::Write;
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let encoded = |bytes: &[u8]| Answer::ok(gzip(bytes)).header("Content-Encoding", "gzip");
    for answer in [encoded(&body()), encoded(&body()).chunked()] {
        Bench::new([answer]).download().unwrap();
    }
    // The pinned bytes themselves, labelled by a server that knows the file's ending.
    Bench::new([Answer::ok(body()).header("Content-Encoding", "x-gzip")]).download().unwrap();
    // Decompressed without end.
    let bench = Bench::new([encoded(&vec![0; 9_000_000])]);
    assert!(matches!(bench.download(), Err(NetError::Wrong { source: StoreError::Length { .. }, .. })));
    let bench = Bench::new([Answer::ok("brr").header("Content-Encoding", "br")]);
    assert!(told(&bench.download().unwrap_err()).contains("encoding `br`"));

    let server = Server::start();
    server.on("/page", encoded(b"hello")).on("/Packages.gz", encoded(b"hello"));
    assert_eq!(net().get(&url(&server.url("/page")), None, 100).unwrap(), b"hello");
    assert_eq!(net().get(&url(&server.url("/Packages.gz")), None, 100).unwrap(), gzip(b"hello"));
}

#[test]
fn files_of_this_machine_come_through_the_same_door() {
    let bench = Bench::new([]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a b.whl");
    let address = Url::from_file_path(&path).unwrap();
    let offline = Net::new(true);
    let download = |part: &[u8], content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        bench.part(part);
        let sink = bench.store.sink(Digest::of(&body()), 700_000).unwrap().unwrap();
        offline.download(&address, sink, &Task::hidden())
    };
    assert!(told(&download(b"", &body()[1..]).unwrap_err()).ends_with("expected 700000 bytes, found 699999"));
    assert!(matches!(download(b"", &spoiled()), Err(NetError::Wrong { source: StoreError::Mismatch { .. }, .. })));
    download(&spoiled()[..400_000], &body()).unwrap();
    assert_eq!(bench.store.read(&Digest::of(&body())).unwrap(), body());

    assert_eq!(offline.get(&address, None, 700_000).unwrap(), body());
    assert!(matches!(offline.get(&address, None, 699_999), Err(NetError::TooLong { .. })));
    assert_eq!(offline.page(&address, None, 700_000).unwrap().url, address);
    for bad in [dir.path().to_owned(), dir.path().join("none"), "/dev/zero".into()] {
        let error = offline.get(&Url::from_file_path(&bad).unwrap(), None, 10).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read `{}`", bad.display()));
    }
    assert!(matches!(offline.get(&url("file://elsewhere/a"), None, 10), Err(NetError::File { .. })));
}

#[test]
fn offline_opens_no_socket() {
    let bench = Bench::new([Answer::ok(body())]);
    let address = url(&bench.server.url("/f?token=secret"));
    let offline = Net::new(true).without_proxies();
    let error = offline.get(&address, None, 10).unwrap_err();
    assert_eq!(error.to_string(), format!("`--offline` forbids fetching {}", bench.server.url("/f")));
    assert!(error.help().unwrap().contains("pack fetch"));
    assert!(matches!(bench.download_with(&offline), Err(NetError::Offline { .. })));
    assert!(bench.server.requests().is_empty());
    bench.download().unwrap();
    let error = net().get(&url("ftp://me:secret@host/a"), None, 10).unwrap_err();
    assert_eq!(error.to_string(), "cannot fetch ftp://host/a: expected http, https or file, found `ftp`");
}

#[test]
fn threads_share_one_net() {
    let server = Server::start();
    for n in 0..16 {
        server.on(&format!("/{n}"), Answer::status(503)).on(&format!("/{n}"), Answer::ok(format!("body {n}")));
    }
    let net = net();
    std::thread::scope(|scope| {
        for n in 0..16 {
            let (net, server) = (&net, &server);
            scope.spawn(move || {
                let bytes = net.get(&url(&server.url(&format!("/{n}"))), None, 100).unwrap();
                assert_eq!(bytes, format!("body {n}").into_bytes());
            });
        }
    });
    assert_eq!(server.requests().len(), 32);
}

#[test]
fn an_empty_file_needs_no_server() {
    let bench = Bench::new([]);
    let empty = Digest::of(b"");
    let sink = bench.store.sink(empty, 0).unwrap().unwrap();
    net().download(&url(&bench.server.url("/f")), sink, &Task::hidden()).unwrap();
    assert!(bench.store.contains(&empty, 0).unwrap());
    assert!(bench.server.requests().is_empty());
}

/// Ends TLS in front of a plain server: one request a connection.
fn with_tls(server: &Server, work: impl FnOnce(&str)) {
    use std::net::{TcpListener, TcpStream};
    let key = include_bytes!("../../tests/fixtures/tls/server.key.der");
    let key = rustls::pki_types::PrivateKeyDer::try_from(&key[..]).unwrap();
    let certificate = include_bytes!("../../tests/fixtures/tls/server.der")[..].into();
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = std::sync::Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let plain = url(&server.url("/")).socket_addrs(|| None).unwrap()[0];
    // A client that does not trust us hangs up; that is for the test to notice.
    let pass = |stream: TcpStream| -> io::Result<()> {
        use std::io::Write;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let connection = rustls::ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        let mut outer = rustls::StreamOwned::new(connection, stream);
        let mut inner = TcpStream::connect(plain)?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            outer.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        inner.write_all(&head)?;
        io::copy(&mut inner, &mut outer)?;
        outer.conn.send_close_notify();
        outer.flush()
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for stream in listener.incoming() {
                if stop.load(std::sync::atomic::Ordering::SeqCst) {
                    break;
                }
                let _ = pass(stream.unwrap());
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&format!("https://{address}"))));
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let _ = TcpStream::connect(address);
        done.unwrap();
    });
}

/// Fetches in a process of its own, since certificates and proxies are read from the environment.
fn fetch_with_environment(address: &str, environment: &[(&str, &str)]) -> String {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "net::tests::fetches_for_another_test", "--nocapture", "--ignored"]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name);
    }
    command.env_remove("SSL_CERT_DIR").env("PACK_TEST_ADDRESS", address).envs(environment.iter().copied());
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, rest) = text.split_once("<<").unwrap_or_else(|| panic!("{text}"));
    rest.split_once(">>").unwrap().0.to_owned()
}

#[test]
#[ignore = "is no test of its own: fetch_with_environment runs it"]
fn fetches_for_another_test() {
    let Ok(address) = std::env::var("PACK_TEST_ADDRESS") else { return };
    let net = Net::new(false).with_patience(net().patience);
    match net.get(&url(&address), None, 100) {
        Ok(bytes) => println!("<<{}>>", String::from_utf8(bytes).unwrap()),
        Err(error) => println!("<<{}\n{}>>", told(&error), error.help().unwrap_or_default()),
    }
}

#[test]
fn certificates_are_the_hosts_and_https_stays_https() {
    let server = Server::start();
    server.on("/f", Answer::ok("over tls")).on("/near", Answer::redirect(302, "/f"));
    server.on("/down", Answer::redirect(302, &server.url("/f?token=secret")));
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");
    let (ours, other) = (format!("{fixtures}/authority.pem"), format!("{fixtures}/other.pem"));
    with_tls(&server, |base| {
        let fetch = |path, file: &str| fetch_with_environment(&format!("{base}{path}"), &[("SSL_CERT_FILE", file)]);
        assert_eq!(fetch("/f", &ours), "over tls");
        assert_eq!(fetch("/near", &ours), "over tls");
        let before = server.requests().len();
        let error = fetch("/f?token=secret", &other);
        assert!(error.starts_with(&format!("cannot trust the server of {base}/f: ")), "{error}");
        assert!(error.contains("SSL_CERT_FILE") && !error.contains("secret"), "{error}");
        assert_eq!(server.requests().len(), before);
        let error = fetch("/down", &ours);
        assert!(error.starts_with(&format!("{base}/down redirects from https to http ({})", server.url("/f"))), "{error}");
        assert!(!error.contains("secret"));
    });
}

#[test]
fn proxies_are_the_environments() {
    let (proxy, server) = (Server::start(), Server::start());
    proxy.otherwise(|_| Answer::ok("by the proxy"));
    server.on("/f", Answer::ok("straight"));
    let (address, by) = (server.url("/f"), proxy.url("/").replace("http://", "http://me:secret@"));
    assert_eq!(fetch_with_environment(&address, &[]), "straight");
    assert_eq!(fetch_with_environment(&address, &[("HTTP_PROXY", &by)]), "by the proxy");
    assert_eq!(fetch_with_environment(&address, &[("HTTP_PROXY", &by), ("NO_PROXY", "127.0.0.1")]), "straight");
    let asked = proxy.requests();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].path, address);
    // The proxy's own login is for the proxy, and the server never sees it.
    assert!(asked[0].header("proxy-authorization").is_some() && asked[0].header("authorization").is_none());
    assert!(server.requests().iter().all(|request| request.header("proxy-authorization").is_none()));
}

/// Cuts what is larger than two kilobytes into ranges.
fn ranging() -> Net {
    net().with_cut(Cut { most: 4, least: 50_000 })
}

fn ranges_asked(bench: &Bench) -> usize {
    bench.server.requests().iter().filter(|request| request.header("range").is_some()).count()
}

fn download_with(net: &Net, bench: &Bench, bytes: &[u8]) -> Result<(), NetError> {
    let Some(sink) = bench.store.sink(Digest::of(bytes), bytes.len() as u64)? else { return Ok(()) };
    net.download(&url(&bench.server.url("/f")), sink, &Task::hidden())
}

#[test]
fn a_large_file_comes_in_ranges() {
    let bench = Bench::new([Answer::ok(body()).etag("\"1\"")]);
    download_with(&ranging(), &bench, &body()).unwrap();
    assert!(ranges_asked(&bench) >= 10, "{}", ranges_asked(&bench));
    assert_eq!(bench.store.read(&Digest::of(&body())).unwrap(), body());
    // Nothing stays beside the blob.
    let left = std::fs::read_dir(bench.store.root().join("blobs/sha256")).unwrap().count();
    assert_eq!(left, 1);
}

#[test]
fn a_server_that_ignores_ranges_gives_one_stream() {
    let bench = Bench::new([Answer::ok(body())]);
    download_with(&ranging(), &bench, &body()).unwrap();
    assert_eq!(bench.store.read(&Digest::of(&body())).unwrap(), body());
    // In the middle of it: the first answers are ranges, then none are.
    let bench = Bench::new([Answer::ok(body()).etag("\"1\""), Answer::ok(body()).etag("\"1\""), Answer::ok(body())]);
    download_with(&ranging(), &bench, &body()).unwrap();
}

#[test]
fn another_file_in_the_middle_is_not_mixed_in() {
    let old = Answer::ok(spoiled()).etag("\"1\"");
    let bench = Bench::new([old.clone(), old, Answer::ok(body()).etag("\"2\"")]);
    download_with(&ranging(), &bench, &body()).unwrap();
    // A server that says nothing of what it serves is found out by the hash.
    let old = Answer::ok(spoiled()).ranged();
    let bench = Bench::new([old.clone(), old, Answer::ok(body()).ranged()]);
    download_with(&ranging(), &bench, &body()).unwrap();
    let bench = Bench::new([Answer::ok(spoiled()).ranged()]);
    assert!(matches!(download_with(&ranging(), &bench, &body()), Err(NetError::Wrong { .. })));
}

#[test]
fn ranges_that_break_off_are_taken_up() {
    let cut = Answer::ok(body()).etag("\"1\"").cut(20_000);
    let bench = Bench::new([cut.clone(), cut.clone(), cut.clone(), cut, Answer::ok(body()).etag("\"1\"")]);
    download_with(&ranging(), &bench, &body()).unwrap();
}

#[test]
fn pieces_that_came_are_not_asked_for_again() {
    let bench = Bench::new([Answer::ok(body()).etag("\"1\"")]);
    let (digest, size) = (Digest::of(&body()), body().len() as u64);
    {
        // As after a kill: three pieces, one of them at the end, and half a line in the log.
        let mut sink = bench.store.sink(digest, size).unwrap().unwrap();
        let pieces = sink.pieces().unwrap();
        for (from, to) in [(0, 1000), (300_000, 400_000), (600_000, 700_000)] {
            pieces.write(from as u64, &body()[from..to]).unwrap();
        }
    }
    let log = bench.store.root().join(format!("blobs/sha256/.part-{}.ranges", digest.hex()));
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, format!("{text}100000 2")).unwrap();
    download_with(&ranging(), &bench, &body()).unwrap();
    let asked: Vec<u64> = bench
        .server
        .requests()
        .iter()
        .filter_map(|request| request.header("range")?.strip_prefix("bytes=")?.split('-').next()?.parse().ok())
        .collect();
    assert!(asked.contains(&1000) && asked.contains(&400_000), "{asked:?}");
    assert!(asked.iter().all(|from| !(300_000..400_000).contains(from) && *from < 600_000), "{asked:?}");
}

#[test]
fn a_log_that_lies_costs_a_second_download() {
    let bench = Bench::new([Answer::ok(body()).etag("\"1\"")]);
    let digest = Digest::of(&body());
    let part = bench.store.root().join(format!("blobs/sha256/.part-{}", digest.hex()));
    std::fs::write(&part, vec![0; body().len()]).unwrap();
    std::fs::write(part.with_file_name(format!(".part-{}.ranges", digest.hex())), "0 5000\n200000 700000\n").unwrap();
    download_with(&ranging(), &bench, &body()).unwrap();
    assert_eq!(bench.store.read(&digest).unwrap(), body());
}
