//! Programs that measure the data plane; only the benchmark loads them.
//!
//! `BPF_PROG_TEST_RUN` repeats a program without restoring the packet, so that a responder would see its own reply from
//! the second time on. Here `restore` makes the packet a query again and calls the program under test, or `reflector`
//! in its place; the difference between the two is the program's own time.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
#[expect(clippy::cast_possible_truncation, reason = "frames are short")]
mod programs {
    use aya_ebpf::{
        bindings::xdp_action,
        btf_maps::{Array, ProgramArray},
        helpers::bpf_xdp_adjust_head,
        macros::{btf_map, xdp},
        programs::XdpContext,
    };

    /// Words of a frame's longest form, behind its Ethernet header.
    const WORDS: usize = 14;
    const WORD: usize = size_of::<u64>();
    /// Bytes of that header.
    const ETHERNET: usize = 14;

    /// What `restore` does next.
    #[repr(C)]
    struct Plan {
        /// Slot of `TARGETS`.
        target: u32,
        /// Frames in use.
        frames: u32,
        /// The frame whose turn it is.
        next: u32,
        /// Zero.
        reserved: u32,
    }

    /// A query.
    #[repr(C)]
    struct Query {
        /// Bytes.
        length: u32,
        /// Where its last eight bytes are.
        tail_at: u32,
        /// These.
        tail: u64,
        /// The Ethernet header's first eight bytes.
        ethernet: u64,
        /// Its next four.
        ethernet_next: u32,
        /// Its last two.
        ethertype: u16,
        /// Zero.
        reserved: u16,
        /// What follows, as far as it fills words. From there on headers begin at multiples of four bytes, so that what
        /// the program reads was mostly written as one: a frame that a card has written is not in the store buffer,
        /// and waits for nothing there.
        words: [u64; WORDS],
    }

    #[btf_map]
    static PLAN: Array<Plan, 1> = Array::new();

    #[btf_map]
    static FRAMES: Array<Query, 100_000> = Array::new();

    #[btf_map]
    static TARGETS: ProgramArray<2> = ProgramArray::new();

    /// Makes the packet the next query, whatever it was, and calls the target.
    #[xdp]
    pub fn restore(context: XdpContext) -> u32 {
        if write(&context).is_some()
            && let Some(plan) = PLAN.get(0)
        {
            // SAFETY: nothing is borrowed from the packet.
            unsafe { TARGETS.tail_call(&context, plan.target) };
        }
        xdp_action::XDP_ABORTED
    }

    #[inline(always)]
    fn write(context: &XdpContext) -> Option<()> {
        let query = next()?;
        let length = (context.data_end() - context.data()) as u32;
        // Always, so that it costs the same whether the target has moved the start or not.
        // SAFETY: a helper on the program's own context.
        let moved = unsafe { bpf_xdp_adjust_head(context.ctx, length.wrapping_sub(query.length).cast_signed()) };
        if moved != 0 {
            return None;
        }
        let end = context.data_end();
        let mut at = context.data();
        if at + ETHERNET > end {
            return None;
        }
        // SAFETY: within the packet; BPF needs no alignment.
        unsafe {
            *(at as *mut u64) = query.ethernet;
            *((at + 8) as *mut u32) = query.ethernet_next;
            *((at + 12) as *mut u16) = query.ethertype;
        }
        at += ETHERNET;
        for word in &query.words {
            if at + WORD > end {
                break;
            }
            // SAFETY: within the packet; BPF needs no alignment.
            unsafe { *(at as *mut u64) = *word };
            at += WORD;
        }
        // What is left after whole words, by a word that overlaps the one before.
        let at = context.data() + (query.tail_at as usize % (WORD * (WORDS + 2)));
        if at + WORD > end {
            return None;
        }
        // SAFETY: as above.
        unsafe { *(at as *mut u64) = query.tail };
        Some(())
    }

    #[inline(always)]
    fn next() -> Option<&'static Query> {
        // SAFETY: the benchmark runs on one CPU.
        let plan = unsafe { &mut *PLAN.get_ptr_mut(0)? };
        let this = plan.next;
        plan.next = if this + 1 < plan.frames { this + 1 } else { 0 };
        FRAMES.get(this)
    }

    /// The cheapest program that answers anything: changes the MAC addresses' places and sends the frame back.
    #[xdp]
    pub fn reflector(context: XdpContext) -> u32 {
        let start = context.data();
        if start + 12 > context.data_end() {
            return xdp_action::XDP_ABORTED;
        }
        let words = start as *mut u32;
        // SAFETY: within the packet; BPF needs no alignment.
        unsafe {
            let (a, b, c) = (*words, *words.add(1), *words.add(2));
            *words = b >> 16 | c << 16;
            *words.add(1) = c >> 16 | a << 16;
            *words.add(2) = a >> 16 | b << 16;
        }
        xdp_action::XDP_TX
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
