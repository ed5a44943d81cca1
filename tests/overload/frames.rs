//! HTTP/2 frames written by hand, as no client library sends half of one (RFC 9113, RFC 7541).
//!
//! Headers are literals without indexing, so that no state of the compression is shared.

use crate::client::address;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame with its head.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The header block of a request for `path`, with a form when it writes.
pub(crate) fn request(method: &str, path: &str) -> Vec<u8> {
    const SCHEME_HTTP: u8 = 0x86;
    const AUTHORITY: &[u8] = &[0x01];
    const METHOD: &[u8] = &[0x02];
    const PATH: &[u8] = &[0x04];
    // Index 31 of the static table, in a prefix of four bits.
    const CONTENT_TYPE: &[u8] = &[0x0f, 31 - 15];
    let mut block = vec![SCHEME_HTTP];
    let mut literal = |name: &[u8], value: &str| {
        block.extend(name);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.as_bytes());
    };
    literal(METHOD, method);
    literal(PATH, path);
    literal(AUTHORITY, "localhost");
    if method == "PUT" {
        literal(CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    block
}

/// A client that has sent its preface and settings.
pub(crate) struct Raw(TcpStream);

impl Raw {
    pub(crate) fn connect(url: &str, silence_max: Duration) -> Self {
        let mut stream = TcpStream::connect(address(url)).unwrap();
        stream.set_read_timeout(Some(silence_max)).unwrap();
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).unwrap();
        Self(stream)
    }

    /// Sends bytes, whole frames or not.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// The kinds and streams of the frames that come until the server closes, at most `frames`.
    ///
    /// # Panics
    /// When the server neither speaks nor closes for the longest silence.
    pub(crate) fn hear(&mut self, frames: usize) -> Vec<(u8, u32)> {
        let mut heard = Vec::new();
        while heard.len() < frames {
            let mut head = [0; 9];
            match self.0.read_exact(&mut head) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("the connection is held after {heard:?}");
                }
                Err(_) => break,
            }
            let [_, a, b, c] = [0, head[0], head[1], head[2]];
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            let _ = self.0.read_exact(&mut payload);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            heard.push((head[3], stream));
        }
        heard
    }
}
