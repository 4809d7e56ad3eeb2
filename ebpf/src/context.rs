//! A frame as the driver gives it.
#![expect(clippy::cast_possible_truncation, reason = "frames are short")]

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use siteswap_common::packet::{Packet, Word, opaque};

/// The most bytes that are asked for in front of a frame. Drivers leave 256, and the kernel needs some of them to send.
const MOST_AT_FRONT: usize = 128;

/// The packet behind an [`XdpContext`].
pub struct XdpPacket {
    context: *mut xdp_md,
    start: usize,
    end: usize,
}

impl XdpPacket {
    /// The context's packet.
    #[inline(always)]
    pub fn new(context: &XdpContext) -> Self {
        Self { context: context.ctx, start: context.data(), end: context.data_end() }
    }

    /// The same, whatever is known of it.
    #[inline(always)]
    fn again(context: *mut xdp_md) -> Self {
        // SAFETY: the program's own context; volatile, so that these are other pointers to the verifier.
        let (start, end) =
            unsafe { (read_volatile(&raw const (*context).data), read_volatile(&raw const (*context).data_end)) };
        Self { context, start: start as usize, end: end as usize }
    }

    /// `address`, if `size` bytes of the frame are there.
    #[inline(always)]
    fn within(&self, address: usize, size: usize) -> Option<usize> {
        // The verifier wants the comparison on the very pointer that is then used.
        (address + size <= self.end).then_some(address)
    }

    /// Moves the frame's first byte, and says whether it could be.
    #[inline(always)]
    fn move_start(&self, bytes: i32) -> bool {
        // SAFETY: a helper on the program's own context; on failure it changes nothing.
        unsafe { bpf_xdp_adjust_head(self.context, bytes) == 0 }
    }
}

impl Packet for XdpPacket {
    /// Its address.
    type Place = usize;

    #[inline(always)]
    fn length(&self) -> usize {
        // Read anew, and volatile: if LLVM could tell that this is the distance of the two pointers, it would conclude
        // from a comparison of lengths that a comparison of pointers is needless, and the verifier would miss that one.
        // SAFETY: the program's own context.
        unsafe {
            let end = read_volatile(&raw const (*self.context).data_end);
            let start = read_volatile(&raw const (*self.context).data);
            (end - start) as usize
        }
    }

    #[inline(always)]
    fn load<W: Word>(&self, offset: usize) -> Option<W> {
        self.get(self.start, offset)
    }

    #[inline(always)]
    fn store<W: Word>(&mut self, offset: usize, word: W) -> Option<()> {
        self.set(self.start, offset, word)
    }

    #[inline(always)]
    fn forget(&mut self, number: usize) -> usize {
        *self = Self::again(self.context);
        // The verifier keeps track of numbers on the stack only if they are aligned.
        let mut slot = Slot([0; 8]);
        let byte = &raw mut slot.0[1];
        // SAFETY: the slot's own byte.
        opaque(unsafe {
            write_volatile(byte, number as u8);
            read_volatile(byte)
        } as usize)
    }

    #[inline(always)]
    fn place(&self, offset: usize) -> usize {
        self.start + offset
    }

    #[inline(always)]
    fn get<W: Word>(&self, place: usize, offset: usize) -> Option<W> {
        let address = self.within(place + offset, W::SIZE)?;
        // SAFETY: within the packet.
        Some(unsafe { W::read(address as *const u8) })
    }

    #[inline(always)]
    fn set<W: Word>(&mut self, place: usize, offset: usize, word: W) -> Option<()> {
        let address = self.within(place + offset, W::SIZE)?;
        // SAFETY: within the packet, which is ours alone while the program runs.
        unsafe { word.write(address as *mut u8) };
        Some(())
    }

    #[inline(always)]
    fn put<W: Word>(&mut self, place: &mut usize, word: W) -> Option<()> {
        self.set(*place, 0, word)?;
        *place += W::SIZE;
        Some(())
    }

    #[inline(always)]
    fn reshape(&mut self, keep: usize, length: usize) -> Option<usize> {
        // At the front: there the kernel does not clear the new bytes, which takes longer than moving the headers. At the
        // back if the driver left too little room before the frame.
        let missing = length - keep;
        let front = if missing <= MOST_AT_FRONT && self.move_start(-(missing as i32)) { missing } else { 0 };
        let delta = length as i32 - (self.length() as i32);
        // SAFETY: a helper on the program's own context; on failure it changes nothing.
        if delta != 0 && unsafe { bpf_xdp_adjust_tail(self.context, delta) } != 0 {
            self.move_start(front as i32);
            return None;
        }
        // Every pointer into the packet is void after these calls.
        *self = Self::again(self.context);
        Some(opaque(self.start + front))
    }

    #[inline(always)]
    fn push(&mut self, bytes: usize) -> Option<()> {
        let moved = self.move_start(-(bytes as i32));
        *self = Self::again(self.context);
        moved.then_some(())
    }

    #[inline(always)]
    fn pull(&mut self, bytes: usize) -> Option<()> {
        let moved = self.move_start(bytes as i32);
        *self = Self::again(self.context);
        moved.then_some(())
    }

    #[inline(always)]
    fn truncate(&mut self, length: usize) -> Option<()> {
        let delta = length as i32 - self.length() as i32;
        // SAFETY: a helper on the program's own context; on failure it changes nothing.
        let cut = delta <= 0 && unsafe { bpf_xdp_adjust_tail(self.context, delta) } == 0;
        *self = Self::again(self.context);
        cut.then_some(())
    }
}

/// For the stack.
#[repr(align(8))]
struct Slot([u8; 8]);
