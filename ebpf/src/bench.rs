//! Programs that measure the data plane; only the benchmark loads them.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        bindings::xdp_action,
        btf_maps::{Array, ProgramArray},
        helpers::bpf_xdp_adjust_tail,
        macros::{btf_map, xdp},
        programs::XdpContext,
    };
    use siteswap_common::bench::{FRAME_WORDS, Frames};

    /// Which frame comes next, and of how many.
    #[btf_map]
    static NEXT: Array<[u32; 2], 1> = Array::new();
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
