//! A frame as the driver gives it.

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use siteswap_common::packet::{Packet, Word};

/// The longest frame that is moved to make room. Queries with the longest name that is answered are shorter.
const MAX_MOVED: usize = 384;
/// More than a reply ever adds to its query. A power of two.
const MAX_GROWTH: usize = 256;
/// Bytes moved at a time.
const WORD: usize = size_of::<u32>();

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

    /// Moves the frame's bytes forward by `delta` into the room before it, so that there are as many more behind them.
    ///
    /// For drivers that leave no room at the end: veth copies a frame to XDP into a buffer of just its size, rounded up
    /// to a cache line (`skb_pp_cow_data` in the kernel's `net/core/skbuff.c`), but always leaves 256 bytes in front.
    #[inline(always)]
    fn grow_forward(&mut self, delta: i32) -> Option<()> {
        let length = self.length();
        if !(1..MAX_GROWTH as i32).contains(&delta) || length > MAX_MOVED {
            return None;
        }
        // Volatile, so that the masks stay: the verifier knows the bounds by them.
        // SAFETY: local variables.
        let (delta, length) = unsafe { (read_volatile(&raw const delta), read_volatile(&raw const length)) };
        let distance = delta as usize & (MAX_GROWTH - 1);
        // Whole words are moved, the last of them ending where the frame does; so the first may begin before it, which
        // is what the additional word is for.
        let first = length & (WORD - 1);
        self.move_start(-(delta + WORD as i32))?;
        // Another end, as far as LLVM can tell: or it would leave out the check of each store, which follows from that of
        // the load, but not for the verifier.
        // SAFETY: the program's own context.
        let end = unsafe { read_volatile(&raw const (*self.context).data_end) } as usize;
        let old = Self { end, ..*self };
        for offset in (0..MAX_MOVED + WORD).step_by(WORD) {
            if offset + first >= length + WORD {
                break;
            }
            let word: u32 = old.load(first + distance + offset)?;
            self.store(first + offset, word)?;
        }
        self.move_start(WORD as i32)
    }

    /// Moves the frame's start by `delta` bytes.
    #[inline(always)]
    fn move_start(&mut self, delta: i32) -> Option<()> {
        // SAFETY: a helper on the program's own context; on failure it changes nothing.
        if unsafe { bpf_xdp_adjust_head(self.context, delta) } != 0 {
            return None;
        }
        // Every pointer into the packet is void after the call.
        *self = Self::new(&XdpContext::new(self.context));
        Some(())
    }

    /// Moves the frame's end by `delta` bytes.
    #[inline(always)]
    fn move_end(&mut self, delta: i32) -> Option<()> {
        // SAFETY: a helper on the program's own context; on failure it changes nothing.
        if unsafe { bpf_xdp_adjust_tail(self.context, delta) } != 0 {
            return None;
        }
        // Every pointer into the packet is void after the call.
        *self = Self::new(&XdpContext::new(self.context));
        Some(())
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
        match self.move_end(delta) {
            None => self.grow_forward(delta),
            done => done,
        }
    }
}
