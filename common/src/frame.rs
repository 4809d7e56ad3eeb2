//! A frame in ordinary memory.

use alloc::vec::Vec;

use crate::packet::{Packet, Word};

/// A packet on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// From the destination MAC address on.
    pub bytes: Vec<u8>,
    /// How long [`Packet::resize`] can make it, in bytes.
    pub room: usize,
}

impl Frame {
    /// A frame that can grow without limit.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, room: usize::MAX }
    }
}

impl Packet for Frame {
    fn length(&self) -> usize {
        self.bytes.len()
    }

    fn load<W: Word>(&self, offset: usize) -> Option<W> {
        let bytes = self.bytes.get(offset..offset.checked_add(W::SIZE)?)?;
        // SAFETY: the slice has `W::SIZE` bytes.
        Some(unsafe { W::read(bytes.as_ptr()) })
    }

    fn store<W: Word>(&mut self, offset: usize, word: W) -> Option<()> {
        let bytes = self.bytes.get_mut(offset..offset.checked_add(W::SIZE)?)?;
        // SAFETY: the slice has `W::SIZE` bytes.
        unsafe { word.write(bytes.as_mut_ptr()) };
        Some(())
    }

    fn resize(&mut self, length: usize) -> Option<()> {
        if length > self.room {
            return None;
        }
        self.bytes.resize(length, 0);
        Some(())
    }
}
