//! A frame as the driver gives it.

use core::ptr::read_volatile;

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_adjust_tail, programs::XdpContext};
use siteswap_common::packet::{Packet, Word};

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

    /// The address of `size` bytes at `offset`.
    #[inline(always)]
    fn at(&self, offset: usize, size: usize) -> Option<usize> {
        // The verifier wants the comparison on the very pointer that is then used.
        let address = self.start + offset;
        (address + size <= self.end).then_some(address)
    }
}

impl Packet for XdpPacket {
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
        let address = self.at(offset, W::SIZE)?;
        // SAFETY: within the packet.
        Some(unsafe { W::read(address as *const u8) })
    }

    #[inline(always)]
    fn store<W: Word>(&mut self, offset: usize, word: W) -> Option<()> {
        let address = self.at(offset, W::SIZE)?;
        // SAFETY: within the packet, which is ours alone while the program runs.
        unsafe { word.write(address as *mut u8) };
        Some(())
    }

    #[inline(always)]
    fn resize(&mut self, length: usize) -> Option<()> {
        let delta = length as i32 - self.length() as i32;
        // SAFETY: a helper on the program's own context; on failure it changes nothing.
        if unsafe { bpf_xdp_adjust_tail(self.context, delta) } != 0 {
            return None;
        }
        // Every pointer into the packet is void after the call.
        *self = Self::new(&XdpContext::new(self.context));
        Some(())
    }
}
