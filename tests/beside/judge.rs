//! Whether two answers are the same, to the last byte that can be.
//!
//! What differs between any two runs of one server is compared by less: moments in time within
//! `TIMES_APART_MS`, the place of Raft and the cluster's name by being there, statistics by their
//! shape. The order of a listing counts only where the client asked for one. Everything else in
//! status, headers (their case too) and body is compared byte by byte.

use crate::common::Response;
use crate::request::Request;
use serde_json::Value;

/// Both servers get a request within so many milliseconds of each other.
const TIMES_APART_MS: u64 = 1_500;
/// Headers whose values are their server's own.
const OWN_VALUE: &[&str] = &["X-Raft-Index", "X-Raft-Term", "X-Etcd-Cluster-Id"];
/// Headers of the transport, and of web pages (docs/divergence.md).
const NOT_COMPARED: &[&str] = &["date", "content-length", "transfer-encoding", "connection"];
/// Pages about the server itself.
const OF_SHAPE: &[&str] = &["/version", "/health", "/v2/stats/", "/v2/members", "/v2/machines"];

/// What differs between etcd's answer and althing's, if anything.
pub(crate) fn difference(request: &Request, etcd: &Response, althing: &Response) -> Option<String> {
    if etcd.status != althing.status {
        return Some(format!("status {} instead of {}", althing.status, etcd.status));
    }
    let (theirs, ours) = (headers(etcd), headers(althing));
    if theirs != ours {
        return Some(format!("headers {ours:?} instead of {theirs:?}"));
    }
    let is_about_itself = OF_SHAPE.iter().any(|place| request.path.starts_with(place));
    let same = if is_about_itself && etcd.status == 200 {
        shape(&etcd.body) == shape(&althing.body)
    } else {
        same_body(&etcd.body, &althing.body, request.is_sorted())
    };
    (!same).then(|| "the body".to_owned())
}

fn headers(answer: &Response) -> Vec<(&str, &str)> {
    let counts = |name: &str| {
        let lower = name.to_ascii_lowercase();
        !lower.starts_with("access-control-") && !NOT_COMPARED.contains(&lower.as_str())
    };
    let mut headers: Vec<(&str, &str)> = answer
        .headers
        .iter()
        .filter(|(name, _)| counts(name))
        .map(|(name, value)| {
            (name.as_str(), if OWN_VALUE.contains(&name.as_str()) { "" } else { value })
        })
        .collect();
    headers.sort_unstable();
    headers
}

/// Names and kinds of a JSON text in their order, and how it ends; the kind of any other text.
fn shape(text: &str) -> String {
    let end = if text.ends_with('\n') { "\n" } else { "" };
    serde_json::from_str(text).map_or_else(|_| "text".to_owned(), |value| kind(&value)) + end
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(items) => format!("[{}]", items.first().map(kind).unwrap_or_default()),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{name}:{}", kind(value));
            // Rates, which are left out at 0; the insecure listener (docs/divergence.md).
            let often = |name: &str| !name.ends_with("Rate") && name != "insecure";
            let fields = fields.iter().filter(|(name, _)| often(name)).map(field);
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
    }
}

/// Whether two bodies of the keys are the same but for their times, and for the order of listings
/// unless they have to be `sorted`.
pub(crate) fn same_body(etcd: &str, althing: &str, sorted: bool) -> bool {
    let ordered = |body: &str| if sorted { body.to_owned() } else { in_order(body) };
    let ((theirs, their_times), (ours, our_times)) =
        (without_times(&ordered(etcd)), without_times(&ordered(althing)));
    theirs == ours
        && their_times.len() == our_times.len()
        && their_times.iter().zip(&our_times).all(|(a, b)| a.abs_diff(*b) <= TIMES_APART_MS)
}

/// Whether two watches told the same so far. Rows of docs/divergence.md: a stream hears once of the
/// end of its path and goes on behind a past index, and history tells of no directory's end that
/// did not end the watched path, and of lives as they are now.
pub(crate) fn same_events(
    request: &Request,
    etcd: &(String, bool),
    althing: &(String, bool),
) -> bool {
    let has = |name: &str| request.query.iter().any(|piece| piece.starts_with(name));
    let lines = |text: &str| text.split_inclusive('\n').map(str::to_owned).collect::<Vec<_>>();
    let (mut theirs, mut ours) = (lines(&etcd.0), lines(&althing.0));
    let reads_history = has("waitIndex=");
    if reads_history {
        theirs.iter_mut().chain(&mut ours).for_each(|line| *line = without_lives(line));
    }
    if reads_history && theirs.first().is_some_and(|line| ends_above(line, &request.path)) {
        return true;
    }
    if has("stream=") {
        theirs.dedup();
        let compared = if reads_history { theirs.len().min(ours.len()) } else { ours.len() };
        return same_body(&theirs.concat(), &ours[..compared].concat(), true);
    }
    // One that is answered at once may be a listing.
    etcd.1 == althing.1 && same_body(&theirs.concat(), &ours.concat(), request.is_sorted())
}

/// The line without its `ttl` fields.
fn without_lives(line: &str) -> String {
    let mut pieces = line.split(",\"ttl\":");
    let mut kept = pieces.next().unwrap_or_default().to_owned();
    pieces.for_each(|piece| kept += piece.trim_start_matches(|c: char| c.is_ascii_digit()));
    kept
}

/// Whether an event is the end of a directory whose name the path goes on with.
fn ends_above(line: &str, path: &str) -> bool {
    let event: Value = serde_json::from_str(line).unwrap_or_default();
    let ended = event["prevNode"]["key"].as_str().filter(|_| event["prevNode"]["dir"] == true);
    let key = path.trim_end_matches('/').rsplit("keys").next().unwrap_or_default();
    ended.is_some_and(|ended| key.len() > ended.len() && key.starts_with(ended))
}

/// The body with its lists of nodes, at every depth, in the order of their texts.
fn in_order(body: &str) -> String {
    const LIST: &str = "\"nodes\":[";
    // A quote within a string is escaped, so this is a field wherever it stands.
    let Some(at) = body.find(LIST) else { return body.to_owned() };
    let (before, list) = body.split_at(at + LIST.len());
    let (mut items, mut begin, mut depth, mut quoted) = (Vec::new(), 0, 0_usize, false);
    let mut bytes = list.bytes().enumerate();
    let mut end = list.len();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' if quoted => _ = bytes.next(),
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b',' | b']' if depth == 0 => {
                items.push(in_order(&list[begin..at]));
                begin = at + 1;
                if byte == b']' {
                    end = at;
                    break;
                }
            }
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    items.sort_unstable();
    format!("{before}{}{}", items.join(","), in_order(&list[end..]))
}

/// The body without its moments and lives, and these in milliseconds.
pub(crate) fn without_times(body: &str) -> (String, Vec<u64>) {
    let (mut text, mut times, mut rest) = (String::new(), Vec::new(), body);
    loop {
        let fields = ["\"expiration\":\"", "\"ttl\":"];
        let found = fields.iter().filter_map(|field| Some((rest.find(field)?, field.len()))).min();
        let Some((at, length)) = found else { return (text + rest, times) };
        let (before, value) = rest.split_at(at + length);
        let end = value.find(['"', ',', '}']).unwrap();
        text += before;
        match value[..end].parse::<u64>() {
            Ok(seconds) => times.push(seconds * 1_000),
            Err(_) => match moment(&value[..end]) {
                Some(ms) => times.push(ms),
                // Not as Go writes one: left to be compared.
                None => text += &value[..end],
            },
        }
        rest = &value[end..];
    }
}

/// A moment as Go writes one in UTC, in milliseconds of an era of our own.
fn moment(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let fraction = text.get(19..)?.strip_suffix('Z')?;
    if fraction.len() > 10 || fraction.ends_with('0') || fraction == "." {
        return None;
    }
    let digits = fraction.strip_prefix('.').unwrap_or_default();
    let ms = format!("{digits:0<3}").get(..3)?.parse::<u64>().ok()?;
    // Months from March on, so that the leap day is a year's last (Gregorian years divide by 4
    // often enough for this program's life).
    let (year, month) = match (number(0, 4)?, number(5, 7)?) {
        (year, month @ 1..3) => (year - 1, month + 9),
        (year, month) => (year, month - 3),
    };
    let days = year * 365 + year / 4 + (month * 153 + 2) / 5 + number(8, 10)?;
    let seconds = ((days * 24 + number(11, 13)?) * 60 + number(14, 16)?) * 60 + number(17, 19)?;
    Some(seconds * 1_000 + ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_order_and_time_are_forgiven() {
        let node = |key: &str, end: &str, ttl: u64| {
            format!(
                "{{\"key\":\"{key}\",\"value\":\"],\\\"\",\"expiration\":\"{end}\",\"ttl\":{ttl}}}"
            )
        };
        let list =
            |one: &str, two: &str| format!("{{\"nodes\":[{one},{{\"nodes\":[{two}]}}],\"x\":1}}\n");
        let (a, b) =
            (node("/a", "2026-02-28T23:59:59.9Z", 100), node("/b", "2026-01-01T00:00:00Z", 7));
        let later = node("/a", "2026-03-01T00:00:00.123456789Z", 99);
        let too_late = node("/a", "2026-03-01T00:00:02Z", 99);
        let not_gos = node("/a", "2026-03-01T00:00:00.10Z", 99);
        let reversed = |one: &str| format!("{{\"nodes\":[{{\"nodes\":[{b}]}},{one}],\"x\":1}}\n");
        assert!(same_body(&list(&a, &b), &list(&later, &b), true));
        assert!(same_body(&list(&a, &b), &reversed(&later), false));
        assert!(!same_body(&list(&a, &b), &reversed(&later), true));
        assert!(!same_body(&list(&a, &b), &list(&too_late, &b), true));
        assert!(!same_body(&list(&a, &b), &list(&not_gos, &b), true));
        assert!(!same_body(&list(&a, &b), &list(&b, &a), false));
        assert!(!same_body("{}\n", "{}", true));
    }

    #[test]
    fn of_watches_only_what_the_book_lists_is_forgiven() {
        let get = |query: &str| Request {
            method: "GET",
            path: "/v2/keys/s/a".to_owned(),
            query: query.split('&').map(str::to_owned).collect(),
            body: None,
            headers: Vec::new(),
        };
        let same = |query: &str, etcd: &str, althing: &str| {
            same_events(&get(query), &(etcd.to_owned(), false), &(althing.to_owned(), false))
        };
        assert!(same("wait=true", "{1}\n", "{1}\n") && !same("wait=true", "{1}\n", "{2}\n"));
        assert!(!same("wait=true", "{1}\n", "{1}\n{1}\n"));
        assert!(same("stream=true", "{1}\n{2}\n{2}\n", "{1}\n{2}\n"));
        assert!(!same("stream=true", "{1}\n", "{1}\n{2}\n"));
        assert!(same("stream=true&waitIndex=1", "{1}\n", "{1}\n{2}\n"));
        assert!(!same("stream=true&waitIndex=1", "{2}\n", "{1}\n{2}\n"));
        let end = |key: &str| format!("{{\"prevNode\":{{\"key\":\"{key}\",\"dir\":true}}}}\n");
        assert!(same("waitIndex=1", &end("/s"), "") && !same("wait=true", &end("/s"), ""));
        assert!(!same("waitIndex=1", &end("/s/a"), "") && !same("waitIndex=1", &end("/t"), ""));
    }

    #[test]
    fn shapes_are_names_kinds_and_ends() {
        assert_eq!(shape("{\"a\":[1,2],\"b\":{\"recvPkgRate\":1}}\n"), "{a:[number],b:{}}\n");
        assert_eq!(shape("http://a:1"), "text");
    }
}
