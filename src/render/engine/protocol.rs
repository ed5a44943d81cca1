//! The words between the daemon and a render worker.
//!
//! A frame is its length (4 bytes, little-endian) and that many bytes of `base::codec`. The
//! parent sends one `Render` and then answers `Range` and `Lookup` questions until `Ended` comes.
//! Both ends are the same binary, so there is no version.
//!
//! Invariant: a frame is at most `FRAME_BYTES_MAX` long; the reader refuses a longer one before
//! it allocates. What a worker lists is bounded in number too: a template may have taken it over.
//!
//! Deliberately not here: reading and writing the pipe (`child` blocks, `pool` awaits).

use crate::base::codec::{Malformed, Reader, Writer};
use crate::base::diagnostic::Diagnostic;
use crate::base::id::Revision;
use crate::base::limits;
use crate::base::range::KeyRange;
use crate::render::engine::bundle::Bundle;
use crate::render::engine::{Rendered, Surroundings};
use crate::render::scope::Scope;
use crate::render::source::Item;

/// The largest output or input and room for what is around it.
pub const FRAME_BYTES_MAX: usize = limits::RENDER_OUTPUT_BYTES_MAX + 16 * 1024 * 1024;

/// A message with its length before it.
pub fn framed(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let too_long = || std::io::Error::other("the message is too long for one frame");
    let fits = u32::try_from(body.len()).ok().filter(|_| body.len() <= FRAME_BYTES_MAX);
    let length = fits.ok_or_else(too_long)?;
    Ok([&length.to_le_bytes(), body].concat())
}

/// The length of the frame that begins with these bytes.
pub fn length_of(start: [u8; 4]) -> std::io::Result<usize> {
    let length = usize::try_from(u32::from_le_bytes(start)).ok();
    let too_long = || std::io::Error::other("the frame is too long");
    length.filter(|length| *length <= FRAME_BYTES_MAX).ok_or_else(too_long)
}

/// Parent to worker.
#[derive(Debug, PartialEq, Eq)]
pub enum ToWorker {
    Render(Box<Request>),
    Items(Vec<Item>),
    Unavailable(String),
    Addresses(Vec<String>),
}

/// Everything one render starts with.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub bundle: Bundle,
    pub scope: Scope,
    pub surroundings: Surroundings,
    /// Ranges the template will probably ask for, with all their keys.
    pub preloaded: Vec<(KeyRange, Vec<Item>)>,
}

/// Worker to parent.
#[derive(Debug, PartialEq, Eq)]
pub enum FromWorker {
    Range(KeyRange),
    /// The addresses of a host.
    Lookup(String),
    Ended(Rendered),
}

impl ToWorker {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Render(request) => {
                out.u8(1);
                request.bundle.encode(&mut out);
                request.scope.encode(&mut out);
                request.surroundings.encode(&mut out);
                out.uint(request.preloaded.len() as u64);
                for (range, items) in &request.preloaded {
                    encode_range(&mut out, range);
                    encode_items(&mut out, items);
                }
            }
            Self::Items(items) => encode_items(out.u8(2), items),
            Self::Unavailable(why) => {
                out.u8(3).bytes(why.as_bytes());
            }
            Self::Addresses(addresses) => {
                out.u8(4).uint(addresses.len() as u64);
                addresses.iter().for_each(|address| {
                    out.bytes(address.as_bytes());
                });
            }
        }
        out.into_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Reader::new(bytes);
        let message = match input.u8()? {
            1 => Self::Render(Box::new(decode_request(&mut input)?)),
            2 => Self::Items(decode_items(&mut input)?),
            3 => Self::Unavailable(text(&mut input)?),
            4 => {
                let count = input.count(limits::LOOKUP_ADDRESSES_MAX)?;
                let addresses = (0..count).map(|_| text(&mut input));
                Self::Addresses(addresses.collect::<Result<_, _>>()?)
            }
            value => return Err(Malformed::Unknown { what: "message", value: value.into() }),
        };
        input.finish()?;
        Ok(message)
    }
}

fn text(input: &mut Reader<'_>) -> Result<String, Malformed> {
    Ok(String::from_utf8_lossy(input.bytes()?).into_owned())
}

fn decode_request(input: &mut Reader<'_>) -> Result<Request, Malformed> {
    let bundle = Bundle::decode(input)?;
    let scope = Scope::decode(input)?;
    let surroundings = Surroundings::decode(input)?;
    let mut preloaded = Vec::new();
    for _ in 0..input.uint()? {
        preloaded.push((decode_range(input)?, decode_items(input)?));
    }
    Ok(Request { bundle, scope, surroundings, preloaded })
}

impl FromWorker {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Range(range) => encode_range(out.u8(1), range),
            Self::Lookup(host) => {
                out.u8(4).bytes(host.as_bytes());
            }
            Self::Ended(Rendered { outcome, touched }) => {
                match outcome {
                    Ok(bytes) => {
                        out.u8(2).bytes(bytes);
                    }
                    Err(error) => error.encode(out.u8(3)),
                }
                out.uint(touched.len() as u64);
                touched.iter().for_each(|range| encode_range(&mut out, range));
            }
        }
        out.into_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Reader::new(bytes);
        let message = match input.u8()? {
            1 => Self::Range(decode_range(&mut input)?),
            4 => Self::Lookup(text(&mut input)?),
            kind @ (2 | 3) => {
                let outcome = match kind {
                    2 => Ok(input.bytes()?.to_vec()),
                    _ => Err(Box::new(Diagnostic::decode(&mut input)?)),
                };
                let count = input.count(limits::RENDER_TOUCHED_MAX)?;
                let touched = (0..count).map(|_| decode_range(&mut input));
                Self::Ended(Rendered { outcome, touched: touched.collect::<Result<_, _>>()? })
            }
            value => return Err(Malformed::Unknown { what: "message", value: value.into() }),
        };
        input.finish()?;
        Ok(message)
    }
}

fn encode_range(out: &mut Writer, range: &KeyRange) {
    out.bytes(&range.start).option(range.end.as_ref(), |out, end| {
        out.bytes(end);
    });
}

fn decode_range(input: &mut Reader<'_>) -> Result<KeyRange, Malformed> {
    Ok(KeyRange { start: input.owned()?, end: input.option(Reader::owned)? })
}

fn encode_items(out: &mut Writer, items: &[Item]) {
    out.uint(items.len() as u64);
    for item in items {
        out.bytes(&item.key).bytes(&item.value).uint(item.mod_revision.0);
        out.option(item.ttl_seconds, |out, ttl| {
            out.uint(ttl);
        });
    }
}

fn decode_items(input: &mut Reader<'_>) -> Result<Vec<Item>, Malformed> {
    (0..input.uint()?).map(|_| decode_item(input)).collect()
}

fn decode_item(input: &mut Reader<'_>) -> Result<Item, Malformed> {
    Ok(Item {
        key: input.owned()?,
        value: input.owned()?,
        mod_revision: Revision(input.uint()?),
        ttl_seconds: input.option(Reader::uint)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::path::KeyPath;

    #[test]
    fn messages_survive_the_pipe() {
        let item = Item {
            key: "/a".into(),
            value: "v".into(),
            mod_revision: Revision(3),
            ttl_seconds: Some(9),
        };
        let range = KeyRange::single(&"/a".into());
        let request = Request {
            bundle: Bundle::default(),
            scope: Scope::new(KeyPath::root(), &[]).unwrap(),
            surroundings: Surroundings {
                revision: Revision(4),
                node: vec![("name".into(), "n1".into())],
                environment: vec![],
            },
            preloaded: vec![(range.clone(), vec![item.clone()])],
        };
        let down = [
            ToWorker::Render(Box::new(request)),
            ToWorker::Items(vec![item]),
            ToWorker::Unavailable("no".into()),
            ToWorker::Addresses(vec!["192.0.2.1".into(), "::1".into()]),
        ];
        for message in down {
            assert_eq!(ToWorker::decode(&message.encode()), Ok(message));
        }
        let touched = vec![range.clone(), KeyRange::all()];
        let error = Box::new(Diagnostic::new("f", "m").help("h"));
        let up = [
            FromWorker::Range(range),
            FromWorker::Lookup("web1".into()),
            FromWorker::Ended(Rendered { outcome: Ok(b"out".to_vec()), touched: touched.clone() }),
            FromWorker::Ended(Rendered { outcome: Err(error), touched }),
        ];
        for message in up {
            assert_eq!(FromWorker::decode(&message.encode()), Ok(message));
        }
        assert!(ToWorker::decode(&[9]).is_err() && FromWorker::decode(&[]).is_err());
    }
}
