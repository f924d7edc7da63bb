//! Bytes to values and back: no IO, no panics on hostile input.

use alloc::{string::String, vec::Vec};
use core::fmt;

use crate::MAX_FRAME_BYTES;

/// Bytes before the payload: length, kind, stream.
pub const FRAME_HEADER_BYTES: usize = 9;

/// Why received bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// A frame claims more than [`MAX_FRAME_BYTES`], or less than its own header.
    FrameSize(u32),
    /// The payload ends before the value does.
    Truncated,
    /// The payload goes on after the value.
    Trailing,
    /// A kind or tag that this version does not know.
    Unknown(u8),
    /// A value outside its range.
    Invalid(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FrameSize(size) => write!(f, "a frame of {size} bytes is not allowed"),
            Self::Truncated => f.write_str("the message is cut short"),
            Self::Trailing => f.write_str("the message has bytes after its end"),
            Self::Unknown(tag) => write!(f, "unknown message or tag {tag}"),
            Self::Invalid(what) => write!(f, "invalid {what}"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Builds frames in a buffer of the caller's.
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Encoder<'a> {
    /// Begins a frame at the end of `out`.
    pub fn frame(out: &'a mut Vec<u8>, kind: u8, stream: u32) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.push(kind);
        out.extend_from_slice(&stream.to_le_bytes());
        Self { out, start }
    }

    /// Writes the frame's length. A frame that is never ended is malformed.
    pub fn end(self) {
        let length = u32::try_from(self.out.len() - self.start - 4).unwrap_or(u32::MAX);
        if let Some(field) = self.out.get_mut(self.start..self.start + 4) {
            field.copy_from_slice(&length.to_le_bytes());
        }
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.out.push(value);
        self
    }

    /// Appends a truth value as one byte.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    /// Appends two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends four bytes.
    pub fn i32(&mut self, value: i32) -> &mut Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends eight bytes.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Appends a presence byte and the value.
    pub fn option_u64(&mut self, value: Option<u64>) -> &mut Self {
        self.bool(value.is_some());
        self.u64(value.unwrap_or(0))
    }

    /// Appends a length and the bytes.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.out.extend_from_slice(value);
        self
    }

    /// Appends bytes without a length: the rest of the frame.
    pub fn rest(&mut self, value: &[u8]) -> &mut Self {
        self.out.extend_from_slice(value);
        self
    }

    /// Appends a count and each element with its length.
    pub fn list(&mut self, values: &[Vec<u8>]) -> &mut Self {
        self.u32(u32::try_from(values.len()).unwrap_or(u32::MAX));
        for value in values {
            self.bytes(value);
        }
        self
    }
}

/// Reads values from one payload.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    input: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Reads from the start of `input`.
    #[must_use]
    pub const fn new(input: &'a [u8]) -> Self {
        Self { input }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self
            .input
            .split_at_checked(count)
            .ok_or(DecodeError::Truncated)?;
        self.input = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?.try_into().map_err(|_| DecodeError::Truncated)
    }

    /// Reads one byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] at the end, as of all methods here.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// Reads a truth value; anything but 0 and 1 is an error.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::Invalid`].
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid("truth value")),
        }
    }

    /// Reads two bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Reads four bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Reads four bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    /// Reads eight bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads eight bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// Reads a presence byte and the value.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::Invalid`].
    pub fn option_u64(&mut self) -> Result<Option<u64>, DecodeError> {
        let present = self.bool()?;
        let value = self.u64()?;
        Ok(present.then_some(value))
    }

    /// Reads length-prefixed bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.u32()?).map_err(|_| DecodeError::Truncated)?;
        self.take(length)
    }

    /// Reads length-prefixed UTF-8.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::Invalid`].
    pub fn string(&mut self) -> Result<String, DecodeError> {
        let bytes = self.bytes()?;
        core::str::from_utf8(bytes)
            .map(String::from)
            .map_err(|_| DecodeError::Invalid("UTF-8"))
    }

    /// Reads a list of length-prefixed elements.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn list(&mut self) -> Result<Vec<Vec<u8>>, DecodeError> {
        let count = usize::try_from(self.u32()?).map_err(|_| DecodeError::Truncated)?;
        // Each element has a length field, so a count beyond that is a lie; never reserve by it.
        if count > self.input.len() / 4 {
            return Err(DecodeError::Truncated);
        }
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(self.bytes()?.to_vec());
        }
        Ok(list)
    }

    /// Takes all that is left.
    #[must_use]
    pub fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.input)
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.input.is_empty()
    }

    /// Asserts that nothing is left.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`].
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.input.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing)
        }
    }
}

/// A whole frame: kind, stream and payload.
pub type Frame<'a> = (u8, u32, &'a [u8]);

/// Cuts a byte stream into frames.
///
/// Holds at most one incomplete frame plus what was pushed last.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl FrameBuffer {
    /// Starts empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
        }
    }

    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.tail(bytes.len()).extend_from_slice(bytes);
    }

    /// Where to append received bytes, with room for `count` of them.
    pub fn tail(&mut self, count: usize) -> &mut Vec<u8> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        if self.bytes.is_empty() && self.bytes.capacity() > 4 * crate::MAX_DATA_BYTES {
            self.bytes.shrink_to(crate::MAX_DATA_BYTES);
        }
        self.bytes.reserve(count);
        &mut self.bytes
    }

    /// Gives the memory back if nothing is left.
    pub fn release(&mut self) {
        if self.start == self.bytes.len() {
            *self = Self::new();
        }
    }

    /// Whether [`next_frame`](Self::next_frame) has one, or an error.
    #[must_use]
    pub fn has_frame(&self) -> bool {
        !matches!(self.first(), Ok(None))
    }

    /// Takes the next whole frame as kind, stream and payload.
    ///
    /// # Errors
    /// [`DecodeError::FrameSize`]; the connection cannot be used any more.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, DecodeError> {
        let Some((kind, stream, end)) = self.first()? else {
            return Ok(None);
        };
        let start = self.start + FRAME_HEADER_BYTES;
        self.start = end;
        Ok(Some((
            kind,
            stream,
            self.bytes.get(start..end).unwrap_or_default(),
        )))
    }

    /// The first frame, if it is whole: its kind, its stream, and where it ends.
    fn first(&self) -> Result<Option<(u8, u32, usize)>, DecodeError> {
        let pending = self.bytes.get(self.start..).unwrap_or_default();
        let Some((header, _)) = pending.split_at_checked(FRAME_HEADER_BYTES) else {
            return Ok(None);
        };
        let mut decoder = Decoder::new(header);
        let claimed = decoder.u32()?;
        let (kind, stream) = (decoder.u8()?, decoder.u32()?);
        let length = usize::try_from(claimed).map_err(|_| DecodeError::FrameSize(claimed))?;
        if !(FRAME_HEADER_BYTES - 4..=MAX_FRAME_BYTES).contains(&length) {
            return Err(DecodeError::FrameSize(claimed));
        }
        let whole = pending.len() >= 4 + length;
        Ok(whole.then_some((kind, stream, self.start + 4 + length)))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn frame_buffer_cut_anywhere_yields_the_same_frames() {
        let mut wire = vec![];
        let mut frame = Encoder::frame(&mut wire, 7, 3);
        frame.bytes(b"abc").u64(9);
        frame.end();
        Encoder::frame(&mut wire, 8, 4).end();
        for cut in 0..wire.len() {
            let mut buffer = FrameBuffer::new();
            let mut seen = vec![];
            for part in [&wire[..cut], &wire[cut..]] {
                buffer.push(part);
                while buffer.has_frame() {
                    let (kind, stream, payload) = buffer.next_frame().unwrap().unwrap();
                    seen.push((kind, stream, payload.len()));
                }
            }
            assert_eq!(seen, [(7, 3, 15), (8, 4, 0)], "cut at {cut}");
        }
    }

    #[test]
    fn frame_buffer_with_a_huge_claim_is_refused() {
        let mut buffer = FrameBuffer::new();
        buffer.push(&[255; FRAME_HEADER_BYTES]);
        assert!(buffer.has_frame(), "what is wrong is not waited for");
        assert_eq!(buffer.next_frame(), Err(DecodeError::FrameSize(u32::MAX)));
    }

    #[test]
    fn decoder_list_with_a_huge_count_is_refused() {
        assert_eq!(
            Decoder::new(&[255, 255, 255, 255, 0]).list(),
            Err(DecodeError::Truncated)
        );
    }
}
