//! Server: a loopback HTTP server that does what it is told, good and bad.
//!
//! Test support, used by the unit tests of `net` and by the integration tests. Each path has a script of
//! [`Answer`]s, one a hit; the last one stays. Everything asked is recorded. Ends itself when dropped. Must
//! never listen anywhere but on 127.0.0.1, and knows nothing of `pack`.

#![allow(dead_code, reason = "each user needs another part of it")]
#![allow(clippy::disallowed_methods, reason = "effects: owns sockets and threads")]

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A request as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// `GET`.
    pub method: String,
    /// Path without query; for a client that takes this server for a proxy, the whole URL without query.
    pub path: String,
    /// What followed `?`.
    pub query: Option<String>,
    /// In the order they came, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// A header's value; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// First and last byte of a `Range: bytes=N-` or `bytes=N-M`.
    fn range(&self) -> Option<(usize, Option<usize>)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, if last.is_empty() { None } else { Some(last.parse().ok()?) }))
    }
}

/// How the length of a body is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    /// Content-Length, true.
    Length,
    /// Content-Length, as said here.
    Lie(usize),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Not at all: the connection ends.
    Close,
}

/// What to answer one request.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Arc<Vec<u8>>,
    framing: Framing,
    ranges: bool,
    content_range: Option<String>,
    cut: Option<usize>,
    late: Duration,
    drip: Option<(usize, Duration)>,
    stall: Option<(usize, Duration)>,
    silent: bool,
}

impl Answer {
    /// A status with an empty body.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Arc::default(),
            framing: Framing::Length,
            ranges: false,
            content_range: None,
            cut: None,
            late: Duration::ZERO,
            drip: None,
            stall: None,
            silent: false,
        }
    }

    /// 200 with a body; ignores Range.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { body: Arc::new(body.into()), ..Self::status(200) }
    }

    /// A redirect.
    pub fn redirect(status: u16, to: &str) -> Self {
        Self::status(status).header("Location", to)
    }

    /// Takes the request and closes without a byte, after a while.
    pub fn hang(time: Duration) -> Self {
        Self { late: time, silent: true, ..Self::status(200) }
    }

    /// Closes at once without a byte.
    pub fn refuse() -> Self {
        Self::hang(Duration::ZERO)
    }

    /// With a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Answers Range with 206, unless If-Range names something else than the ETag or Last-Modified given.
    pub fn ranged(mut self) -> Self {
        self.ranges = true;
        self
    }

    /// With an ETag (quotes included) and ranges.
    pub fn etag(self, tag: &str) -> Self {
        self.header("ETag", tag).ranged()
    }

    /// Says another Content-Range than is true.
    pub fn content_range(mut self, text: &str) -> Self {
        self.content_range = Some(text.to_owned());
        self
    }

    /// Closes after so many bytes of the body that is under way.
    pub fn cut(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }

    /// Says another Content-Length than is true.
    pub fn lie(mut self, length: usize) -> Self {
        self.framing = Framing::Lie(length);
        self
    }

    /// Sends the body in chunks, without Content-Length.
    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// Sends the body without saying its length.
    pub fn unsized_body(mut self) -> Self {
        self.framing = Framing::Close;
        self
    }

    /// Begins to answer only after a while.
    pub fn late(mut self, time: Duration) -> Self {
        self.late = time;
        self
    }

    /// Sends so many bytes at a time, with a pause after each.
    pub fn slow(mut self, bytes: usize, pause: Duration) -> Self {
        self.drip = Some((bytes, pause));
        self
    }

    /// Sends so many bytes of the body, then nothing for a while, then closes.
    pub fn stall(mut self, bytes: usize, time: Duration) -> Self {
        self.stall = Some((bytes, time));
        self
    }
}

type Otherwise = Box<dyn Fn(&Request) -> Answer + Send + Sync>;

#[derive(Default)]
struct Shared {
    routes: Mutex<BTreeMap<String, VecDeque<Answer>>>,
    otherwise: Mutex<Option<Otherwise>>,
    requests: Mutex<Vec<Request>>,
    stop: AtomicBool,
}

/// A server on a free port.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accept: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens; answers 404 until told otherwise.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        let accept = Some(thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        }));
        Self { address, shared, accept }
    }

    /// `http://127.0.0.1:PORT` and the path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Adds an answer to a path's script.
    pub fn on(&self, path: &str, answer: Answer) -> &Self {
        self.shared.routes.lock().unwrap().entry(path.to_owned()).or_default().push_back(answer);
        self
    }

    /// Drops a path's script, e.g. to let it vanish.
    pub fn forget(&self, path: &str) {
        self.shared.routes.lock().unwrap().remove(path);
    }

    /// Answers for every path without a script.
    pub fn otherwise(&self, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) {
        *self.shared.otherwise.lock().unwrap() = Some(Box::new(answer));
    }

    /// Everything asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// What was asked of one path.
    pub fn hits(&self, path: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.path == path).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection. If that fails it has ended already.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.accept.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            break;
        }
        let Ok(stream) = stream else { continue };
        connections.retain(|connection| !connection.is_finished());
        let shared = shared.clone();
        // A client that goes away while it is answered is part of the game.
        connections.push(thread::spawn(move || drop(serve(&stream, &shared))));
    }
    for connection in connections {
        let _ = connection.join();
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    stream.set_nodelay(true)?;
    let request = read_request(stream)?;
    shared.requests.lock().unwrap().push(request.clone());
    let scripted = {
        let mut routes = shared.routes.lock().unwrap();
        routes.get_mut(&request.path).and_then(
            |script| {
                if script.len() > 1 { script.pop_front() } else { script.front().cloned() }
            },
        )
    };
    let answer = scripted.unwrap_or_else(|| match &*shared.otherwise.lock().unwrap() {
        Some(otherwise) => otherwise(&request),
        None => Answer::status(404),
    });
    send(stream, shared, &request, &answer)?;
    stream.shutdown(Shutdown::Both)
}

fn read_request(stream: &TcpStream) -> io::Result<Request> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        lines.push(line.to_owned());
    }
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let (first, headers) = lines.split_first().ok_or_else(bad)?;
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Err(bad()) };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let header = |line: &String| line.split_once(':').map(|(k, v)| (k.to_ascii_lowercase(), v.trim().to_owned()));
    Ok(Request { method: method.to_owned(), path: path.to_owned(), query, headers: headers.iter().filter_map(header).collect() })
}

fn send(mut stream: &TcpStream, shared: &Shared, request: &Request, answer: &Answer) -> io::Result<()> {
    wait(shared, answer.late);
    if answer.silent {
        return Ok(());
    }
    let whole = &answer.body[..];
    let same = |tag: &str| {
        let is_validator = |name: &str| name.eq_ignore_ascii_case("etag") || name.eq_ignore_ascii_case("last-modified");
        answer.headers.iter().any(|(name, value)| is_validator(name) && value == tag)
    };
    let wanted = request.range().filter(|_| answer.ranges && request.header("if-range").is_none_or(same));
    let (status, body, range) = match wanted {
        Some((from, last)) if from < whole.len() => {
            let last = last.unwrap_or(usize::MAX).min(whole.len() - 1);
            (206, &whole[from..=last], Some(format!("bytes {from}-{last}/{}", whole.len())))
        }
        Some(_) => (416, &whole[..0], Some(format!("bytes */{}", whole.len()))),
        None => (answer.status, whole, None),
    };
    let mut head = format!("HTTP/1.1 {status} Scripted\r\nConnection: close\r\n");
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(range) = range {
        head += &format!("Content-Range: {}\r\n", answer.content_range.as_ref().unwrap_or(&range));
    }
    match answer.framing {
        Framing::Length => head += &format!("Content-Length: {}\r\n", body.len()),
        Framing::Lie(length) => head += &format!("Content-Length: {length}\r\n"),
        Framing::Chunked => head += "Transfer-Encoding: chunked\r\n",
        Framing::Close => {}
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    let stop = answer.cut.into_iter().chain(answer.stall.map(|(bytes, _)| bytes)).min();
    let sent = &body[..stop.map_or(body.len(), |bytes| bytes.min(body.len()))];
    let (size, pause) = answer.drip.unwrap_or((64 * 1024, Duration::ZERO));
    for piece in sent.chunks(size.max(1)) {
        if answer.framing == Framing::Chunked {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
            stream.write_all(piece)?;
            stream.write_all(b"\r\n")?;
        } else {
            stream.write_all(piece)?;
        }
        wait(shared, pause);
        if shared.stop.load(Ordering::SeqCst) {
            return Ok(());
        }
    }
    if let Some((_, time)) = answer.stall {
        wait(shared, time);
    } else if answer.framing == Framing::Chunked && stop.is_none() {
        stream.write_all(b"0\r\n\r\n")?;
    }
    Ok(())
}

/// Sleeps, yet not beyond the server's end.
fn wait(shared: &Shared, time: Duration) {
    let end = Instant::now() + time;
    while !shared.stop.load(Ordering::SeqCst) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(Duration::from_millis(20)));
    }
}
