//! An input as a sequence of operations: small numbers, taken one after the other.

/// The bytes that are left.
pub struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    /// There is nothing left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte; 0 at the end.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// The next two bytes.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// One of `items`.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::from(self.byte()) % items.len()]
    }

    /// How many bytes something has: mostly few, sometimes none, sometimes more than there can be.
    pub fn length(&mut self) -> u64 {
        match self.byte() {
            few @ 0..=63 => u64::from(few),
            more @ 64..=199 => u64::from(more - 63) * 61,
            many @ 200..=249 => u64::from(many - 199) << 12,
            250 => u64::MAX,
            251 => u64::MAX - 4096,
            252 => 1 << 63,
            253 => 1 << 40,
            _ => 1 << 20,
        }
    }
}
