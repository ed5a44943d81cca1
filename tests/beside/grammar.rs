//! Random requests of v2, as clients send them and as nobody should.
//!
//! A sequence is a few dozen steps on very few keys, so that they meet: most are what a client
//! might want, some carry one thing that is odd. What docs/divergence.md lists is not generated, by
//! name: origins, foreign hosts, values above 1.5 MiB, keys and heads beyond their bounds, a `ttl`
//! above ten years, bytes in a URL that RFC 3986 has no place for, changes of members that would be
//! made, `/_etcd/machines`, `/v2/leader`, `/metrics`, `/debug` and the page at `/`. Watches ask for
//! no index before their sequence, and sequences are shorter than etcd's history.
//!
//! Indexes are written `{i+5}`, five above where the sequence began, `{n+5}` in 20 digits.

use crate::chance::Chance;
use crate::request::{Body, Request, Step};
use crate::words::{
    BAD_NUMBERS, BAD_SWITCHES, CONTENT_TYPES, DEPTHS, FOREIGN_BODIES, FORM, HEADERS, METHODS,
    NAMES, ODD_NAMES, ODD_PIECES, ODD_TEXTS, PLACES, REFUSED_CHANGES, TRUE_AND_FALSE, VALUES,
};

/// The steps of a seed.
pub(crate) fn sequence(seed: u64) -> Vec<Step> {
    let mut grammar = Grammar { chance: Chance::new(seed), known: Vec::new(), written: 0 };
    // Long ones are seldom better at finding something, and slower to shrink.
    let steps = grammar.chance.between(5, 45);
    (0..steps).map(|_| grammar.step()).collect()
}

struct Grammar {
    chance: Chance,
    /// Where something was put, if that went well.
    known: Vec<String>,
    /// Steps that may have moved the index.
    written: u64,
}

/// Parameters as they stand in a query or a form.
type Pieces = Vec<String>;

impl Grammar {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.chance.index(from.len())]
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.chance.below(times) == 0
    }

    fn step(&mut self) -> Step {
        match self.chance.below(1_000) {
            0..40 => Step::Ask(self.elsewhere()),
            40..120 => Step::Watch(self.watch()),
            120..123 => Step::Expire(self.short_lived()),
            _ => match self.keys() {
                // It may not be answered before something happens.
                waits if waits.query.iter().any(|piece| piece.starts_with("wait=")) => {
                    Step::Watch(waits)
                }
                request => Step::Ask(request),
            },
        }
    }

    fn keys(&mut self) -> Request {
        let method = match self.chance.below(100) {
            0..24 => "GET",
            24..68 => "PUT",
            68..76 => "POST",
            76..93 => "DELETE",
            93..96 => "HEAD",
            _ => self.pick(METHODS),
        };
        let mut pieces = self.sensible(method);
        if self.one_in(8) {
            for _ in 0..self.chance.between(1, 3) {
                let odd = self.odd_piece();
                let at = self.chance.index(pieces.len() + 1);
                pieces.insert(at, odd);
            }
        }
        self.written += u64::from(["PUT", "POST", "DELETE"].contains(&method));
        let path = self.path_to_ask();
        if method == "PUT" {
            self.known.push(path.clone());
        }
        self.request(method, path, pieces)
    }

    /// Puts parameters into query and body.
    fn request(&mut self, method: &'static str, path: String, pieces: Pieces) -> Request {
        let takes_form = ["PUT", "POST"].contains(&method);
        let in_body = if takes_form { 60 } else { 4 };
        let (mut query, mut form) = (Pieces::new(), Pieces::new());
        for piece in pieces {
            let is_in_body = self.chance.below(100) < in_body;
            if self.one_in(40) {
                query.push(piece.clone());
                form.push(piece);
            } else if is_in_body {
                form.push(piece);
            } else {
                query.push(piece);
            }
        }
        let body = self.body(form);
        let headers = if self.one_in(40) { vec![self.pick(HEADERS).to_owned()] } else { vec![] };
        Request { method, path, query, body, headers }
    }

    fn body(&mut self, pieces: Pieces) -> Option<Body> {
        if pieces.is_empty() && !self.one_in(10) {
            return None;
        }
        let chunked = self.one_in(12);
        if self.one_in(60) {
            let (kind, text) = FOREIGN_BODIES[self.chance.index(FOREIGN_BODIES.len())];
            return Some(Body { kind: Some(kind), pieces: vec![text.to_owned()], chunked });
        }
        let kind = if self.one_in(20) { self.pick(CONTENT_TYPES) } else { FORM };
        Some(Body { kind: (kind != "none").then_some(kind), pieces, chunked })
    }

    /// Parameters that a client may mean.
    fn sensible(&mut self, method: &str) -> Pieces {
        let mut pieces = Pieces::new();
        let mut maybe = |grammar: &mut Self, percent: u64, name: &str| {
            if grammar.chance.below(100) < percent {
                let value = grammar.good(name);
                pieces.push(format!("{name}={value}"));
            }
        };
        match method {
            "PUT" => {
                maybe(self, 80, "value");
                for name in ["ttl", "dir", "prevExist", "prevValue", "prevIndex"] {
                    maybe(self, 13, name);
                }
                maybe(self, 7, "refresh");
                maybe(self, 6, "noValueOnSuccess");
            }
            "POST" => {
                maybe(self, 80, "value");
                for name in ["ttl", "dir", "noValueOnSuccess"] {
                    maybe(self, 10, name);
                }
            }
            "DELETE" => {
                for name in ["recursive", "dir"] {
                    maybe(self, 30, name);
                }
                for name in ["prevValue", "prevIndex"] {
                    maybe(self, 20, name);
                }
            }
            _ => {
                for name in ["recursive", "sorted"] {
                    maybe(self, 40, name);
                }
                maybe(self, 12, "quorum");
            }
        }
        pieces
    }

    /// A value that the parameter takes.
    fn good(&mut self, name: &str) -> String {
        match name {
            "value" | "prevValue" if !self.one_in(3) => self.pick(&["x", "y"]).to_owned(),
            "value" | "prevValue" => self.pick(VALUES).to_owned(),
            "ttl" => self.pick(&["100", "1000", "0100", "86400", "315360000", ""]).to_owned(),
            "prevIndex" | "waitIndex" => self.index(),
            _ if self.one_in(10) => self.pick(TRUE_AND_FALSE).to_owned(),
            _ => if self.one_in(4) { "false" } else { "true" }.to_owned(),
        }
    }

    fn index(&mut self) -> String {
        match self.chance.below(20) {
            0 => self.pick(&["0", "00", "18446744073709551615", "9223372036854775808"]).to_owned(),
            1 => format!("000{{i+{}}}", self.chance.between(1, self.written + 3)),
            2..8 => format!("{{i+{}}}", self.chance.between(1, self.written + 3)),
            // About as many writes are refused as not.
            _ => format!("{{i+{}}}", self.chance.between(1, self.written / 2 + 2)),
        }
    }

    /// A parameter that is wrong, doubled, unknown, or on the wrong method.
    fn odd_piece(&mut self) -> String {
        match self.chance.below(10) {
            0..4 => {
                let name = self.pick(NAMES);
                format!("{name}={}", self.good(name))
            }
            4..8 => {
                let name = self.pick(NAMES);
                let bad = match name {
                    "value" | "prevValue" => self.pick(ODD_TEXTS),
                    "ttl" | "prevIndex" | "waitIndex" => self.pick(BAD_NUMBERS),
                    _ => self.pick(BAD_SWITCHES),
                };
                format!("{name}={bad}")
            }
            _ => self.pick(ODD_PIECES).to_owned(),
        }
    }

    /// Mostly one that was put before.
    fn path_to_ask(&mut self) -> String {
        if self.known.is_empty() || self.one_in(3) {
            return self.key_path();
        }
        self.known[self.chance.index(self.known.len())].clone()
    }

    fn key_path(&mut self) -> String {
        let mut path = "/v2/keys".to_owned();
        match self.chance.below(60) {
            0 => return path,
            1 => return path + "/",
            2 => return path + self.pick(&["//", "/.", "/..", "/%2e%2e/keys/s", "/./s//a"]),
            3 => path = self.pick(&["/v2//keys", "//v2/keys", "/v2/./keys", "/v2/%6beys"]).into(),
            _ => {}
        }
        path += self.pick(&["/s", "/s", "/s", "/s", "/s", "/s", "/s", "/s", "/_s", "/t"]);
        let depth = if self.one_in(150) { 40 } else { DEPTHS[self.chance.index(DEPTHS.len())] };
        for _ in 0..depth {
            path.push('/');
            let name = match self.chance.below(40) {
                0..36 => self.pick(&["a", "a", "a", "a", "b", "b", "_h", "ab"]),
                36 => return path + &format!("{{n+{}}}", self.chance.below(self.written + 2)),
                37 => return path + &"long".repeat(250),
                _ => self.pick(ODD_NAMES),
            };
            path += name;
        }
        if self.one_in(12) { path + "/" } else { path }
    }

    fn watch(&mut self) -> Request {
        let mut pieces = vec!["wait=true".to_owned()];
        for (percent, name) in [(60, "recursive"), (40, "stream"), (45, "waitIndex"), (3, "quorum")]
        {
            if self.chance.below(100) < percent {
                pieces.push(format!("{name}={}", self.good(name)));
            }
        }
        if self.one_in(20) {
            pieces.push(self.odd_piece());
        }
        let path = self.path_to_ask();
        Request { method: "GET", path, query: pieces, body: None, headers: Vec::new() }
    }

    /// A PUT of a node that expires at once.
    fn short_lived(&mut self) -> Request {
        let mut pieces = vec![format!("ttl={}", self.pick(&["0", "1"]))];
        for (percent, name) in [(20, "dir"), (20, "prevExist"), (30, "value"), (15, "refresh")] {
            if self.chance.below(100) < percent {
                pieces.push(format!("{name}={}", self.good(name)));
            }
        }
        self.written += 2;
        let path = format!("/v2/keys/s{}", self.pick(&["", "/a", "/b", "/a/b", "/_h", "/_h/a"]));
        Request { method: "PUT", path, query: pieces, body: None, headers: Vec::new() }
    }

    /// What is not the keys'.
    fn elsewhere(&mut self) -> Request {
        if self.one_in(4) {
            let (method, path, kind, text) =
                REFUSED_CHANGES[self.chance.index(REFUSED_CHANGES.len())];
            let kind = (kind != "none").then_some(kind);
            let body = Some(Body { kind, pieces: vec![text.to_owned()], chunked: false });
            return Request { method, path: path.to_owned(), query: vec![], body, headers: vec![] };
        }
        let path = self.pick(PLACES);
        // What would change members is not sent.
        let method = match self.chance.below(10) {
            0..7 => "GET",
            _ if path.starts_with("/v2/members") => self.pick(&["HEAD", "PATCH", "OPTIONS"]),
            _ => self.pick(METHODS),
        };
        let query = if self.one_in(5) { vec!["x=%zz".to_owned()] } else { vec![] };
        Request { method, path: path.to_owned(), query, body: None, headers: vec![] }
    }
}
