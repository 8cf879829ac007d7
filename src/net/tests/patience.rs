//! Patience: troubles that pass are waited out, those that last are told.
//!
//! Tests. Must never wait for real what a server asks for in minutes.

use super::*;

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
