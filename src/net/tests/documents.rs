//! Documents: small answers, compressed ones, files of this machine, and no network at all.
//!
//! Tests. Must never reach a server but its own.

use super::*;

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
