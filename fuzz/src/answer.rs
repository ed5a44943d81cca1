//! v2's JSON, which is written by hand: any bytes of a key or value make a valid document that
//! says the same.

use althing::base::Revision;
use althing::wire::v2::{self, ErrorBody};
use serde_json::{Value, json};

/// Writes `data` as a string, and as the cause of an error.
pub fn check(data: &[u8]) {
    let mut string = Vec::new();
    v2::write_string(&mut string, data);
    let text = shown(data);
    assert_eq!(parsed(&string), Value::String(text.clone()));
    assert!(!string.iter().any(|byte| b"<>&".contains(byte) || *byte < 0x20), "not for a page");

    let (mut error, message, index) = (Vec::new(), "Key not found", Revision(data.len() as u64));
    v2::write_error(&mut error, ErrorBody { code: 100, message, cause: data, index });
    let mut expected = json!({ "errorCode": 100, "message": message, "index": index.0 });
    if !data.is_empty() {
        expected["cause"] = Value::String(text);
    }
    assert_eq!(parsed(&error), expected);
}

/// Go's reading of bytes that are not UTF-8: each byte that cannot be decoded is one U+FFFD.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|_| text.push(char::REPLACEMENT_CHARACTER));
    }
    text
}

fn parsed(json: &[u8]) -> Value {
    match serde_json::from_slice(json) {
        Ok(value) => value,
        Err(error) => panic!("{error}: {}", json.escape_ascii()),
    }
}
