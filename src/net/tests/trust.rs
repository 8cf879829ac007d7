//! Trust: redirects, credentials, and secrets in errors.
//!
//! Tests. Must never use a credential that looks real.

use super::*;

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
