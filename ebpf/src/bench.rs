//! Programs that measure the data plane; only the benchmark loads them.
//!
//! `BPF_PROG_TEST_RUN` repeats a program without restoring the packet, so that a responder would see its own reply from
//! the second time on. Here `restore` makes the packet a query again and calls the program under test, or `reflector`
//! in its place; the difference between the two is the program's own time.
//!
//! With live frames `restore` calls `send`, and the two are a generator, whose frames are `sink`'s to count.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
#[expect(clippy::cast_possible_truncation, reason = "frames are short")]
mod programs {
    use aya_ebpf::{
        bindings::xdp_action,
        btf_maps::{Array, PerCpuArray, ProgramArray},
        helpers::{
            bpf_xdp_adjust_head,
            generated::{bpf_ktime_get_ns, bpf_redirect},
        },
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
        /// Where `send` sends the frame: an interface's index.
        interface: u32,
        /// Nanoseconds from one frame to the next, at least.
        gap: u32,
        /// Zero.
        reserved: u32,
        /// When the next frame's time has come, of `CLOCK_MONOTONIC`; nanoseconds.
        due: u64,
    }

    /// A frame waits no longer than for this many looks at the clock, each of about 20 ns.
    const LOOKS: u32 = 1_000;

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

    /// Kinds of frames that `sink` knows.
    const KINDS: u32 = 5;

    /// A frame that `sink` expects; bytes as they are in the frame.
    #[repr(C)]
    struct Arrival {
        /// Destination MAC address; its last byte is the entry's index.
        to: [u8; 6],
        /// UDP destination port.
        port: [u8; 2],
        /// IPv4 destination address.
        address: [u8; 4],
    }

    #[btf_map]
    static EXPECTED: Array<Arrival, { KINDS as usize }> = Array::new();

    /// How many came of each kind, and at last how many UDP packets that are of none.
    #[btf_map]
    static ARRIVED: PerCpuArray<u64, { KINDS as usize + 1 }> = PerCpuArray::new();

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
        // SAFETY: the benchmark runs on one CPU.
        let plan = unsafe { &mut *PLAN.get_ptr_mut(0)? };
        pace(plan);
        let query = next(plan)?;
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

    /// Waits for the frame's time. Who is late does not catch up: a burst would be lost where an even stream is not.
    #[inline(always)]
    fn pace(plan: &mut Plan) {
        if plan.gap == 0 {
            return;
        }
        // SAFETY: a helper without arguments.
        let clock = || unsafe { bpf_ktime_get_ns() };
        let mut now = clock();
        let mut looks = 0;
        while now < plan.due && looks < LOOKS {
            now = clock();
            looks += 1;
        }
        plan.due = plan.due.max(now) + u64::from(plan.gap);
    }

    #[inline(always)]
    fn next(plan: &mut Plan) -> Option<&'static Query> {
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

    /// Sends the frame out of the plan's interface.
    #[xdp]
    pub fn send(_context: XdpContext) -> u32 {
        match PLAN.get(0) {
            // SAFETY: a helper without pointers.
            Some(plan) => unsafe { bpf_redirect(plan.interface, 0) as u32 },
            None => xdp_action::XDP_ABORTED,
        }
    }

    /// Counts the frame, if it is UDP over IPv4 without options, and drops it.
    #[xdp]
    pub fn sink(context: XdpContext) -> u32 {
        if let Some(kind) = kind(&context)
            && let Some(count) = ARRIVED.get_ptr_mut(kind)
        {
            // SAFETY: this CPU's own.
            unsafe { *count += 1 };
        }
        xdp_action::XDP_DROP
    }

    /// An index of `ARRIVED`.
    #[inline(always)]
    fn kind(context: &XdpContext) -> Option<u32> {
        let start = context.data();
        if start + size_of::<Headers>() > context.data_end() {
            return None;
        }
        // SAFETY: within the packet; its type has no alignment.
        let headers = unsafe { &*(start as *const Headers) };
        if headers.ethertype != [8, 0] || headers.version != 0x45 || headers.protocol != 17 {
            return None;
        }
        let kind = u32::from(headers.to[5]);
        let right = EXPECTED.get(kind).is_some_and(|expected| {
            headers.to == expected.to && headers.address == expected.address && headers.port == expected.port
        });
        Some(if right { kind } else { KINDS })
    }

    /// Of a UDP packet over IPv4 (RFC 791 section 3.1, RFC 768).
    #[repr(C)]
    struct Headers {
        to: [u8; 6],
        from: [u8; 6],
        ethertype: [u8; 2],
        version: u8,
        before_protocol: [u8; 8],
        protocol: u8,
        before_address: [u8; 6],
        address: [u8; 4],
        source_port: [u8; 2],
        port: [u8; 2],
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
