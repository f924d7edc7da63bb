//! Bytes as a row of choices.

/// Gives out the bytes of an input as what a target wants to vary; zeros once there are none left.
#[derive(Clone, Debug)]
pub(crate) struct Choices<'a> {
    left: &'a [u8],
}

impl<'a> Choices<'a> {
    /// Starts at the first byte.
    pub(crate) const fn new(input: &'a [u8]) -> Self {
        Self { left: input }
    }

    /// Whether all bytes are used.
    pub(crate) const fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// All that is left.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.left
    }

    /// One byte.
    pub(crate) fn u8(&mut self) -> u8 {
        let Some((first, left)) = self.left.split_first() else {
            return 0;
        };
        self.left = left;
        *first
    }

    /// Yes or no.
    pub(crate) fn bool(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// Two bytes.
    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// Four bytes.
    pub(crate) fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    /// Eight bytes.
    pub(crate) fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u8) -> u8 {
        self.u8() % end
    }

    /// So many bytes, or as many as there are.
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, left) = self.left.split_at(count.min(self.left.len()));
        self.left = left;
        taken
    }

    /// Up to 255 bytes, after their number.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let count = self.u8();
        self.take(usize::from(count))
    }
}
