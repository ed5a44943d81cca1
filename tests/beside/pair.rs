//! Both servers, asked the same.
//!
//! Before a sequence both are emptied and brought to one index, so that every number in their
//! answers is the same and nothing needs to be translated. Requests go over one kept connection a
//! server, as a client's would, so an answer that is not framed well spoils the next one. A watch
//! has a connection of its own; what came is compared when the sequence is over and both have
//! fallen silent.

use crate::common::{Response, http, read_head, read_response};
use crate::judge::{difference, same_events};
use crate::request::{Request, Step, encode};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Longest wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Longest time for events to arrive, on a busy machine.
const EVENTS_WITHIN: Duration = Duration::from_secs(3);
/// Events that did not come for so long after both servers said the same are not expected.
const SILENCE: Duration = Duration::from_millis(15);
/// Longest time for a node with a TTL of a second to go: etcd looks every half a second.
const EXPIRY_WITHIN: Duration = Duration::from_secs(5);

/// Answer or what went wrong instead.
type Answered = Result<Response, String>;

/// One server.
struct Side {
    host: String,
    /// Whether it has to be sent clean paths: etcd redirects from others.
    cleans: bool,
    kept: Option<BufReader<TcpStream>>,
}

/// Two servers and what they are at.
pub(crate) struct Pair {
    etcd: Side,
    althing: Side,
    /// How often etcd answered with which status, and which action or errorCode.
    pub(crate) seen: BTreeMap<String, u64>,
}

/// Where two servers part.
pub(crate) struct Difference {
    /// The step's number.
    pub(crate) at: usize,
    /// The index the sequence began at.
    pub(crate) base: u64,
    what: String,
    etcd: String,
    althing: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\netcd: {}\nalthing: {}", self.what, self.etcd, self.althing)
    }
}

/// A watch under way on both.
struct Watched {
    step: usize,
    request: Request,
    etcd: Watching,
    althing: Watching,
}

/// One answer whose body comes bit by bit.
struct Watching {
    head: Response,
    connection: BufReader<TcpStream>,
    /// As it came, chunks and all.
    raw: Vec<u8>,
    ended: bool,
}

impl Pair {
    /// Two servers at their URLs.
    pub(crate) fn new(etcd: &str, althing: &str) -> Self {
        let side = |url: &str, cleans| {
            let host = url.strip_prefix("http://").unwrap().to_owned();
            Side { host, cleans, kept: None }
        };
        Self { etcd: side(etcd, true), althing: side(althing, false), seen: BTreeMap::new() }
    }

    /// Plays a sequence to both; returns the first difference.
    pub(crate) fn play(&mut self, steps: &[Step]) -> Option<Difference> {
        let base = self.level();
        let mut watches = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            let parted = match step {
                Step::Ask(request) => self.ask(request, base),
                Step::Expire(request) => {
                    self.ask(request, base).or_else(|| self.await_expiry(request, base))
                }
                Step::Watch(request) => match self.watch(at, request, base) {
                    Ok(watched) => {
                        watches.push(watched);
                        None
                    }
                    Err(parted) => Some(parted),
                },
            };
            if let Some((what, etcd, althing)) = parted {
                return Some(Difference { at, base, what, etcd, althing });
            }
        }
        let parted = settle(&mut watches)?;
        let (etcd, althing) = (parted.etcd.shown(), parted.althing.shown());
        let what = "the events of a watch".to_owned();
        Some(Difference { at: parted.step, base, what, etcd, althing })
    }

    fn ask(&mut self, request: &Request, base: u64) -> Option<(String, String, String)> {
        let (etcd, althing) = (self.etcd.ask(request, base), self.althing.ask(request, base));
        if let Ok(etcd) = &etcd {
            *self.seen.entry(kind_of(etcd)).or_default() += 1;
        }
        let what = match (&etcd, &althing) {
            (Ok(etcd), Ok(althing)) => difference(request, etcd, althing)?,
            (Err(_), Err(_)) => return None,
            _ => "only one answers".to_owned(),
        };
        Some((what, shown(&etcd), shown(&althing)))
    }

    fn watch(
        &self,
        step: usize,
        request: &Request,
        base: u64,
    ) -> Result<Watched, (String, String, String)> {
        let (etcd, althing) = (self.etcd.watch(request, base), self.althing.watch(request, base));
        match (etcd, althing) {
            (Ok(etcd), Ok(althing)) => match difference(request, &etcd.head, &althing.head) {
                None => Ok(Watched { step, request: request.clone(), etcd, althing }),
                Some(what) => {
                    Err((what, format!("{:?}", etcd.head), format!("{:?}", althing.head)))
                }
            },
            (etcd, althing) => {
                let shown = |side: Answering| side.map_or_else(|e| e, |w| format!("{:?}", w.head));
                Err(("no head".to_owned(), shown(etcd), shown(althing)))
            }
        }
    }

    /// Waits until what the request put is gone from both.
    fn await_expiry(&mut self, put: &Request, base: u64) -> Option<(String, String, String)> {
        let get = Request { method: "GET", query: Vec::new(), ..put.clone() };
        let deadline = Instant::now() + EXPIRY_WITHIN;
        loop {
            let gone = [&mut self.etcd, &mut self.althing].map(|side| {
                side.ask(&get, base).is_ok_and(|answer| {
                    !answer.body.contains("\"ttl\"") && !answer.body.contains("\"expiration\"")
                })
            });
            if gone == [true, true] || Instant::now() > deadline {
                return self.ask(&get, base);
            }
        }
    }

    /// Of etcd and of althing.
    pub(crate) fn urls(&self) -> [String; 2] {
        [&self.etcd, &self.althing].map(|side| format!("http://{}", side.host))
    }

    /// Empties both and brings them to one index, which is returned.
    pub(crate) fn level(&mut self) -> u64 {
        let mut index = [self.etcd.empty(), self.althing.empty()];
        let target = index[0].max(index[1]);
        for (side, index) in [&mut self.etcd, &mut self.althing].into_iter().zip(&mut index) {
            while *index < target {
                let answer = http("PUT", &format!("http://{}/v2/keys/_level", side.host), "value=");
                *index = index_of(&answer);
            }
        }
        target
    }
}

/// A watch or what went wrong instead.
type Answering = Result<Watching, String>;

impl Side {
    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(&self.host)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    }

    fn ask(&mut self, request: &Request, base: u64) -> Answered {
        let bytes = request.bytes(&self.host, base, self.cleans);
        let is_head = request.method == "HEAD";
        // A server may close a connection that rests; then nothing was read of this request.
        if let Some(kept) = self.kept.take()
            && let Ok(answer) = self.ask_on(kept, &bytes, is_head)
        {
            return Ok(answer);
        }
        let fresh = self.connect().map_err(|error| error.to_string())?;
        self.ask_on(fresh, &bytes, is_head).map_err(|error| error.to_string())
    }

    fn ask_on(
        &mut self,
        mut on: BufReader<TcpStream>,
        bytes: &[u8],
        is_head: bool,
    ) -> io::Result<Response> {
        on.get_mut().write_all(bytes)?;
        let mut answer = read_response(&mut on, is_head)?;
        while answer.status == 100 {
            answer = read_response(&mut on, is_head)?;
        }
        let closes = answer.header("Connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
        self.kept = (!closes).then_some(on);
        Ok(answer)
    }

    fn watch(&self, request: &Request, base: u64) -> Answering {
        let open = || -> io::Result<Watching> {
            let mut connection = self.connect()?;
            connection.get_mut().write_all(&request.bytes(&self.host, base, self.cleans))?;
            let head = read_head(&mut connection)?;
            connection.get_mut().set_nonblocking(true)?;
            // An answer to HEAD ends with its head, though etcd's to a bad path has a body.
            Ok(Watching { head, connection, raw: Vec::new(), ended: request.method == "HEAD" })
        };
        open().map_err(|error| error.to_string())
    }

    /// Deletes everything; returns the index.
    fn empty(&mut self) -> u64 {
        let url = format!("http://{}/v2/keys", self.host);
        let listing = http("GET", &url, "").json();
        let names = listing["node"]["nodes"].as_array().into_iter().flatten();
        let names = names.filter_map(|node| node["key"].as_str());
        for name in names.chain(["/_s"]) {
            let name = encode(&name.as_bytes()[1..]);
            http("DELETE", &format!("{url}/{name}?recursive=true"), "");
        }
        index_of(&http("GET", &url, ""))
    }
}

fn kind_of(answer: &Response) -> String {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    match (&body["errorCode"], &body["action"]) {
        (Value::Number(code), _) => format!("{} {code}", answer.status),
        (_, Value::String(action)) => format!("{} {action}", answer.status),
        _ => answer.status.to_string(),
    }
}

fn index_of(answer: &Response) -> u64 {
    answer.header("X-Etcd-Index").and_then(|index| index.parse().ok()).unwrap()
}

fn shown(answer: &Answered) -> String {
    match answer {
        Ok(answer) => {
            format!("{} {:?}\n  {}", answer.status, answer.headers, answer.body.trim_end())
        }
        Err(error) => error.clone(),
    }
}

/// Waits until all watches were told the same and both servers are silent; returns the first that
/// was not.
fn settle(watches: &mut [Watched]) -> Option<&Watched> {
    let deadline = Instant::now() + EVENTS_WITHIN;
    let mut quiet_since = Instant::now();
    while !watches.is_empty() {
        let (mut came, mut same) = (false, true);
        for watched in &mut *watches {
            came |= watched.etcd.pull() | watched.althing.pull();
            same &= watched.is_same();
        }
        let now = Instant::now();
        if came || !same {
            quiet_since = now;
        }
        if now > deadline || now > quiet_since + SILENCE {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    watches.iter().find(|watched| !watched.is_same())
}

impl Watched {
    fn is_same(&self) -> bool {
        same_events(&self.request, &self.etcd.body(), &self.althing.body())
    }
}

impl Watching {
    /// Takes what has come; whether that was anything.
    fn pull(&mut self) -> bool {
        let before = self.raw.len();
        if !self.ended {
            // Anything but "nothing there yet" is the end.
            let end = self.connection.read_to_end(&mut self.raw);
            self.ended = !end.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        }
        self.raw.len() > before
    }

    /// The body so far, and whether it is complete.
    fn body(&self) -> (String, bool) {
        let is_chunked = self.head.header("Transfer-Encoding").is_some();
        if !is_chunked {
            let length = self.head.header("Content-Length").and_then(|text| text.parse().ok());
            let text = String::from_utf8_lossy(&self.raw).into_owned();
            return (
                text,
                self.ended || length.is_some_and(|length: usize| self.raw.len() >= length),
            );
        }
        let (mut body, mut rest) = (Vec::new(), self.raw.as_slice());
        while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
            let size = std::str::from_utf8(&rest[..end]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            let chunk = &rest[end + 2..];
            if size == 0 || chunk.len() < size + 2 {
                return (String::from_utf8_lossy(&body).into_owned(), size == 0);
            }
            body.extend_from_slice(&chunk[..size]);
            rest = &chunk[size + 2..];
        }
        (String::from_utf8_lossy(&body).into_owned(), self.ended)
    }

    fn shown(&self) -> String {
        let (body, is_complete) = self.body();
        let end = if is_complete { "(end)" } else { "(goes on)" };
        format!("{} {:?}\n  {}{end}", self.head.status, self.head.headers, body)
    }
}
