//! A request that can be shown, cut down, and sent to either server.
//!
//! It is kept as written: names and values stand there as their bytes go over the wire, so nothing
//! is encoded twice or made valid on the way. Only the marks for indexes are filled in, and a path
//! that etcd answers with a redirect (docs/divergence.md: "paths with `//`, `.`, `..`") is sent to
//! it clean, so that what althing makes of it is compared too.

/// One step of a sequence.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A request, answered at once.
    Ask(Request),
    /// A request that may wait for events; they are compared at the end.
    Watch(Request),
    /// A PUT of a node that expires, and the wait until it has.
    Expire(Request),
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    /// With `/v2/keys`.
    pub(crate) path: String,
    /// What stands between the `&` of the query.
    pub(crate) query: Vec<String>,
    pub(crate) body: Option<Body>,
    /// Whole lines.
    pub(crate) headers: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Body {
    /// The content type; `None` = no header.
    pub(crate) kind: Option<&'static str>,
    /// What stands between the `&`.
    pub(crate) pieces: Vec<String>,
    pub(crate) chunked: bool,
}

impl Step {
    pub(crate) fn request(&self) -> &Request {
        match self {
            Self::Ask(request) | Self::Watch(request) | Self::Expire(request) => request,
        }
    }

    pub(crate) fn request_mut(&mut self) -> &mut Request {
        match self {
            Self::Ask(request) | Self::Watch(request) | Self::Expire(request) => request,
        }
    }

    /// As a line for a shell; `base` is the index where the sequence begins.
    pub(crate) fn to_curl(&self, base: u64) -> String {
        let line = self.request().to_curl(base);
        match self {
            Self::Ask(_) => line,
            Self::Watch(_) => format!("{line} &"),
            Self::Expire(_) => format!("{line}; sleep 2"),
        }
    }
}

impl Request {
    /// Its bytes on the wire.
    pub(crate) fn bytes(&self, host: &str, base: u64, cleans: bool) -> Vec<u8> {
        let path = fill(&self.path, base);
        let path = if cleans { clean(&path).unwrap_or(path) } else { path };
        let mut head =
            format!("{} {path}{} HTTP/1.1\r\nHost: {host}\r\n", self.method, self.tail(base));
        for header in &self.headers {
            head = head + header + "\r\n";
        }
        let Some(body) = &self.body else {
            return (head + "\r\n").into_bytes();
        };
        if let Some(kind) = body.kind {
            head = head + "Content-Type: " + kind + "\r\n";
        }
        let text = fill(&body.pieces.join("&"), base);
        if !body.chunked {
            return format!("{head}Content-Length: {}\r\n\r\n{text}", text.len()).into_bytes();
        }
        let (first, rest) = text.split_at(text.floor_char_boundary(text.len() / 2));
        head += "Transfer-Encoding: chunked\r\n\r\n";
        for chunk in [first, rest].into_iter().filter(|chunk| !chunk.is_empty()) {
            head += &format!("{:x}\r\n{chunk}\r\n", chunk.len());
        }
        (head + "0\r\n\r\n").into_bytes()
    }

    fn tail(&self, base: u64) -> String {
        if self.query.is_empty() {
            String::new()
        } else {
            fill(&format!("?{}", self.query.join("&")), base)
        }
    }

    fn to_curl(&self, base: u64) -> String {
        let mut line = match self.method {
            "HEAD" => "curl -i --head".to_owned(),
            method => format!("curl -i -X {method}"),
        };
        let path = fill(&self.path, base);
        line += &format!(" --path-as-is \"$H\"'{path}{}'", self.tail(base));
        for header in &self.headers {
            line += &format!(" -H '{header}'");
        }
        if let Some(body) = &self.body {
            line += &format!(" -H 'Content-Type: {}'", body.kind.unwrap_or_default());
            line += if body.chunked { " -H 'Transfer-Encoding: chunked'" } else { "" };
            line += &format!(" --data-binary {:?}", fill(&body.pieces.join("&"), base));
        }
        line
    }

    /// Whether a listing has to come in order.
    pub(crate) fn is_sorted(&self) -> bool {
        let said = self.query.iter().find_map(|piece| piece.strip_prefix("sorted="));
        said.is_some_and(|said| ["1", "t", "T", "TRUE", "true", "True"].contains(&said))
    }
}

/// Puts numbers where `{i+5}` and `{n+5}` stand.
pub(crate) fn fill(text: &str, base: u64) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = ["{i+", "{n+"].iter().filter_map(|mark| rest.find(mark)).min() {
        let (before, mark) = rest.split_at(at);
        let end = mark.find('}').unwrap();
        let index = base + mark[3..end].parse::<u64>().unwrap();
        filled += before;
        filled += &if mark.starts_with("{i") { index.to_string() } else { format!("{index:020}") };
        rest = &mark[end + 1..];
    }
    filled + rest
}

/// The path that etcd redirects to, if it does: Go's `path.Clean` of the decoded one, with a slash
/// at its end kept.
fn clean(path: &str) -> Option<String> {
    let decoded = decode(path)?;
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut is_clean = true;
    for (at, segment) in decoded.split(|byte| *byte == b'/').enumerate().skip(1) {
        let is_last = at == decoded.split(|byte| *byte == b'/').count() - 1;
        match segment {
            b"" if is_last => {}
            b"" | b"." => is_clean = false,
            b".." => {
                is_clean = false;
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    if is_clean {
        return None;
    }
    let cleaned: String = segments.iter().flat_map(|name| ["/".to_owned(), encode(name)]).collect();
    let ends_in_slash = decoded.ends_with(b"/") || cleaned.is_empty();
    Some(if ends_in_slash { cleaned + "/" } else { cleaned })
}

/// The bytes of one name as they stand in a path.
pub(crate) fn encode(name: &[u8]) -> String {
    let escaped = |byte: &u8| {
        let is_plain = byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
        if is_plain { char::from(*byte).to_string() } else { format!("%{byte:02x}") }
    };
    name.iter().map(escaped).collect()
}

fn decode(path: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(high * 16 + low).unwrap()
            }
            byte => byte,
        });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcd_gets_the_path_it_would_redirect_to() {
        let table = [
            ("/v2/keys/a/b/", None),
            ("/v2/keys//a/", Some("/v2/keys/a/")),
            ("/v2/keys/a/%2e%2E/b", Some("/v2/keys/b")),
            ("/v2/keys/a/.", Some("/v2/keys/a")),
            ("/v2/keys/a%2F%2fb%20c", Some("/v2/keys/a/b%20c")),
            ("/v2/..", Some("/")),
            ("/v2//%zz", None),
        ];
        for (path, cleaned) in table {
            assert_eq!(clean(path).as_deref(), cleaned, "{path}");
        }
    }

    #[test]
    fn indexes_are_filled_in() {
        assert_eq!(fill("{n+1}x{i+20}{i", 5), "00000000000000000006x25{i");
    }
}
