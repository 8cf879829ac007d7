//! Environment: certificates and proxies of the host, in a process of their own.
//!
//! Tests. Must never change the variables of this one.

use super::*;

/// Ends TLS in front of a plain server: one request a connection.
fn with_tls(server: &Server, work: impl FnOnce(&str)) {
    use std::net::{TcpListener, TcpStream};
    let key = include_bytes!("../../../tests/fixtures/tls/server.key.der");
    let key = rustls::pki_types::PrivateKeyDer::try_from(&key[..]).unwrap();
    let certificate = include_bytes!("../../../tests/fixtures/tls/server.der")[..].into();
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
    command.args(["--exact", "net::tests::environment::fetches_for_another_test", "--nocapture", "--ignored"]);
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
