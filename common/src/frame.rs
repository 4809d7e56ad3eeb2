//! A frame in ordinary memory.

use alloc::vec::Vec;

use crate::{
    network::ETHERNET_HEADER,
    packet::{MOST_FORGOTTEN, Packet, Word},
};

/// A packet on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// From the destination MAC address on.
    pub bytes: Vec<u8>,
    /// How long [`Packet::reshape`] can make it, in bytes.
    pub room: usize,
    /// How far it can move what is in it, in bytes.
    pub headroom: usize,
}

impl Frame {
    /// A frame that can grow without limit at either end.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, room: usize::MAX, headroom: usize::MAX }
    }
}

impl Packet for Frame {
    type Place = usize;

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

    fn reshape(&mut self, keep: usize, length: usize) -> Option<usize> {
        if length > self.room || keep > self.bytes.len() {
            return None;
        }
        let missing = length.saturating_sub(keep);
        let moved = if missing <= self.headroom { missing } else { 0 };
        self.bytes.truncate(keep);
        self.bytes.splice(..0, core::iter::repeat_n(0, moved));
        self.bytes.resize(length, 0);
        Some(moved)
    }

    fn push(&mut self, bytes: usize) -> Option<()> {
        if bytes > self.headroom {
            return None;
        }
        self.bytes.splice(..0, core::iter::repeat_n(0, bytes));
        Some(())
    }

    fn pull(&mut self, bytes: usize) -> Option<()> {
        // As in the kernel, an Ethernet header must be left.
        if bytes + ETHERNET_HEADER > self.bytes.len() {
            return None;
        }
        self.bytes.drain(..bytes);
        Some(())
    }

    fn truncate(&mut self, length: usize) -> Option<()> {
        if length > self.bytes.len() {
            return None;
        }
        self.bytes.truncate(length);
        Some(())
    }

    fn forget(&mut self, number: usize) -> usize {
        assert!(number <= MOST_FORGOTTEN, "{number} does not fit");
        number
    }

    fn place(&self, offset: usize) -> usize {
        offset
    }

    fn get<W: Word>(&self, place: usize, offset: usize) -> Option<W> {
        self.load(place + offset)
    }

    fn set<W: Word>(&mut self, place: usize, offset: usize, word: W) -> Option<()> {
        self.store(place + offset, word)
    }

    fn put<W: Word>(&mut self, place: &mut usize, word: W) -> Option<()> {
        self.store(*place, word)?;
        *place += W::SIZE;
        Some(())
    }
}
