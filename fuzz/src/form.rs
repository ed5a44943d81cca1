//! The words of a v2 request: query string, form body, content type and percent-encoding.

use althing::base::limits;
use althing::wire::form::{self, Parameters};
use bytes::Bytes;

/// Reads `data` as a query, a body, an escaped path and a content type.
pub fn check(data: &[u8]) {
    words(data);
    for plus_is_space in [false, true] {
        escapes(data, plus_is_space);
    }
    if form::is_form(Some(data)) == Ok(true) {
        let named =
            data.trim_ascii().get(..FORM.len()).is_some_and(|it| it.eq_ignore_ascii_case(FORM));
        assert!(named, "a form by another name");
    }
}

const FORM: &[u8] = b"application/x-www-form-urlencoded";

fn words(data: &[u8]) {
    let (none, body) = (Bytes::new(), Bytes::copy_from_slice(data));
    let asked = Parameters::parse(data, &none, true);
    assert_eq!(asked, Parameters::parse(b"", &body, true), "query and body differ");
    assert_eq!(asked, Parameters::parse(data, &body, true), "the first word of a name counts");
    match asked {
        Ok(asked) => {
            assert!(asked.value.len() <= data.len());
            assert!(asked.ttl.is_none_or(|ttl| ttl.seconds() <= limits::TTL_SECONDS_MAX));
            assert_eq!(Parameters::parse(&written(&asked), &none, true), Ok(asked));
        }
        Err(bad) => assert!((201..=212).contains(&bad.code) && !bad.cause.is_empty(), "{bad:?}"),
    }
}

fn escapes(data: &[u8], plus_is_space: bool) {
    let escaped = escape(data);
    assert_eq!(form::unescape(&escaped, plus_is_space).as_deref(), Ok(data));
    if let Ok(plain) = form::unescape(data, plus_is_space) {
        assert!(plain.len() <= data.len());
    }
}

/// Every word, said.
fn written(asked: &Parameters) -> Vec<u8> {
    let mut query = format!(
        "prevIndex={}&waitIndex={}&recursive={}&sorted={}&wait={}&dir={}&stream={}&refresh={}\
         &noValueOnSuccess={}",
        asked.prev_index,
        asked.wait_index,
        asked.recursive,
        asked.sorted,
        asked.wait,
        asked.dir,
        asked.stream,
        asked.refresh,
        asked.no_value_on_success,
    );
    for (name, said) in [("quorum", asked.quorum), ("prevExist", asked.prev_exist)] {
        query += &said.map_or_else(String::new, |said| format!("&{name}={said}"));
    }
    query += &asked.ttl.map_or_else(String::new, |ttl| format!("&ttl={}", ttl.seconds()));
    let mut query = query.into_bytes();
    for (name, value) in [("prevValue", &asked.prev_value), ("value", &Some(asked.value.clone()))] {
        if let Some(value) = value {
            query.extend_from_slice(format!("&{name}=").as_bytes());
            query.extend_from_slice(&escape(value));
        }
    }
    query
}

fn escape(plain: &[u8]) -> Vec<u8> {
    let digit = |four: u8| b"0123456789aBcDeF"[usize::from(four)];
    plain.iter().flat_map(|byte| [b'%', digit(byte >> 4), digit(byte & 15)]).collect()
}
