//! Resuming: bodies that break off, end early, change or lie about their length.
//!
//! Tests. Must never take a byte that another answer gave for one of this file.

use super::*;

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
