//! Ranges: a large file over several connections.
//!
//! Tests. Must never pass by fetching it in one.

use super::*;

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
