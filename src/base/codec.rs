//! The byte codec of every stored format: WAL records, entries, store rows, snapshot chunks.
//!
//! Why not protobuf: replicated bytes must be *refused* when they hold something this binary does
//! not know, never skipped in silence, or two versions would apply one entry differently. So the
//! codec is strict: fields in a fixed order, integers as LEB128 varints, byte strings behind their
//! length, and `Reader::finish` fails on bytes left over. Formats carry a version in front.
//!
//! Invariant: reading never panics and never allocates more than the input is long.

use bytes::Bytes;

/// The bytes are not what their format says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The input ends inside a field.
    #[error("ends inside a field")]
    Truncated,
    /// A varint of more than 64 bits.
    #[error("integer out of range")]
    Overflow,
    /// A varint with zeros on top: every value has one encoding.
    #[error("integer longer than it needs to be")]
    Overlong,
    /// Bytes left over after the last field.
    #[error("bytes left over")]
    TrailingBytes,
    /// A tag, flag or enum value this version does not know.
    #[error("unknown {what} {value}")]
    Unknown {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// The format is newer than this binary.
    #[error("{what} has format {found}, this version reads up to {newest}; run a newer althing")]
    NewerFormat {
        /// What was being read.
        what: &'static str,
        /// Format found.
        found: u64,
        /// Newest format this binary reads.
        newest: u64,
    },
    /// The checksum does not match.
    #[error("{what} has a wrong checksum")]
    Checksum {
        /// What was being read.
        what: &'static str,
    },
}

/// Appends fields to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: Vec<u8>,
}

impl Writer {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer with room for `bytes`.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { buffer: Vec::with_capacity(bytes) }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.buffer.push(value);
        self
    }

    /// An unsigned integer as LEB128: 1 to 10 bytes.
    #[expect(clippy::cast_possible_truncation, reason = "the low 7 bits are what is meant")]
    pub fn uint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.buffer.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.buffer.push(value as u8);
        self
    }

    /// A signed integer, zigzag-coded so that small negatives stay short.
    #[expect(clippy::cast_sign_loss, reason = "zigzag keeps every bit")]
    pub fn int(&mut self, value: i64) -> &mut Self {
        self.uint(((value << 1) ^ (value >> 63)) as u64)
    }

    /// A fixed 8-byte little-endian integer.
    pub fn fixed(&mut self, value: u64) -> &mut Self {
        self.buffer.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// 0 or 1.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    /// A byte string behind its length.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.uint(value.len() as u64);
        self.raw(value)
    }

    /// Bytes without a length.
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.buffer.extend_from_slice(value);
        self
    }

    /// Presence byte, then the value if there is one.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) -> &mut Self {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
        self
    }

    /// Bytes written so far.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.buffer
    }

    /// The finished buffer.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.buffer
    }
}

/// Takes fields off a slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `input`.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// One byte.
    ///
    /// # Errors
    /// `Truncated` at the end of the input, as for every method here.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        let (&first, rest) = self.rest.split_first().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(first)
    }

    /// An unsigned LEB128 integer.
    ///
    /// # Errors
    /// `Overflow` past 64 bits, `Overlong` with zeros on top.
    pub fn uint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Malformed::Overflow);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                let shortest = byte > 0 || shift == 0;
                return if shortest { Ok(value) } else { Err(Malformed::Overlong) };
            }
        }
        Err(Malformed::Overflow)
    }

    /// How many elements follow, where more than `max` are never written: memory for them is not
    /// bounded by the input's length.
    ///
    /// # Errors
    /// `Overflow` above `max`.
    pub fn count(&mut self, max: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.uint()?).ok();
        count.filter(|count| *count <= max).ok_or(Malformed::Overflow)
    }

    /// The format of `what`, from 1 to `newest`.
    ///
    /// # Errors
    /// `NewerFormat` above, `Unknown` for 0.
    pub fn format(&mut self, what: &'static str, newest: u64) -> Result<u64, Malformed> {
        match self.uint()? {
            0 => Err(Malformed::Unknown { what: "format", value: 0 }),
            found if found > newest => Err(Malformed::NewerFormat { what, found, newest }),
            found => Ok(found),
        }
    }

    /// A zigzag-coded signed integer.
    ///
    /// # Errors
    /// As `uint`.
    #[expect(clippy::cast_possible_wrap, reason = "zigzag keeps every bit")]
    pub fn int(&mut self) -> Result<i64, Malformed> {
        let value = self.uint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A fixed 8-byte little-endian integer.
    ///
    /// # Errors
    /// `Truncated`.
    pub fn fixed(&mut self) -> Result<u64, Malformed> {
        let raw = self.raw(8)?;
        let mut eight = [0; 8];
        eight.copy_from_slice(raw);
        Ok(u64::from_le_bytes(eight))
    }

    /// 0 or 1; anything else is refused.
    ///
    /// # Errors
    /// `Unknown` for another value.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Malformed::Unknown { what: "flag", value: other.into() }),
        }
    }

    /// A byte string behind its length.
    ///
    /// # Errors
    /// `Truncated` when the length exceeds what is left.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.uint()?).map_err(|_| Malformed::Overflow)?;
        self.raw(length)
    }

    /// `bytes`, copied into an owned shared buffer.
    ///
    /// # Errors
    /// As `bytes`.
    pub fn owned(&mut self) -> Result<Bytes, Malformed> {
        Ok(Bytes::copy_from_slice(self.bytes()?))
    }

    /// `length` bytes.
    ///
    /// # Errors
    /// `Truncated`.
    pub fn raw(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// An optional field.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Succeeds only when everything was read.
    ///
    /// # Errors
    /// `TrailingBytes`.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::TrailingBytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_reads_back() {
        let mut writer = Writer::new();
        writer.u8(7).uint(0).uint(127).uint(128).uint(u64::MAX).int(-1).int(i64::MIN).int(i64::MAX);
        writer.fixed(42).bool(true).bytes(b"key").option(Some(5u64), |w, v| {
            w.uint(v);
        });
        writer.option(None::<u64>, |_, _| ());
        let bytes = writer.into_vec();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8(), Ok(7));
        for expected in [0, 127, 128, u64::MAX] {
            assert_eq!(reader.uint(), Ok(expected));
        }
        for expected in [-1, i64::MIN, i64::MAX] {
            assert_eq!(reader.int(), Ok(expected));
        }
        assert_eq!(reader.fixed(), Ok(42));
        assert_eq!(reader.bool(), Ok(true));
        assert_eq!(reader.bytes(), Ok(&b"key"[..]));
        assert_eq!(reader.option(|r| r.uint()), Ok(Some(5)));
        assert_eq!(reader.option(|r| r.uint()), Ok(None));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn bad_bytes_are_refused() {
        assert_eq!(Reader::new(&[0x80]).uint(), Err(Malformed::Truncated));
        assert_eq!(Reader::new(&[0xff; 11]).uint(), Err(Malformed::Overflow));
        assert_eq!(Reader::new(&[0x81, 0]).uint(), Err(Malformed::Overlong));
        let zero = Malformed::Unknown { what: "format", value: 0 };
        assert_eq!(Reader::new(&[0]).format("it", 1), Err(zero));
        assert_eq!(Reader::new(&[3]).count(2), Err(Malformed::Overflow));
        assert_eq!(Reader::new(&[5, 1]).bytes(), Err(Malformed::Truncated));
        assert_eq!(Reader::new(&[2]).bool(), Err(Malformed::Unknown { what: "flag", value: 2 }));
        assert_eq!(Reader::new(&[0]).finish(), Err(Malformed::TrailingBytes));
    }
}
