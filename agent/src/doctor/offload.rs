//! Interfaces' offloads, by the ETHTOOL ioctls (linux/ethtool.h).

use std::{io, mem, os::fd::AsRawFd};

use nix::{
    errno::Errno,
    libc::{self, c_char},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const ETH_FLAG_LRO: u32 = 1 << 15;

/// Whether `interface` merges received packets into larger ones.
pub fn lro(interface: &str) -> io::Result<bool> {
    Ok(get(interface, ETHTOOL_GFLAGS)? & ETH_FLAG_LRO != 0)
}

/// Whether the kernel does that with what `interface` has received.
pub fn gro(interface: &str) -> io::Result<bool> {
    Ok(get(interface, ETHTOOL_GGRO)? != 0)
}

/// Whether `interface` takes VLAN tags off what it receives.
pub fn takes_tags(interface: &str) -> io::Result<bool> {
    Ok(get(interface, ETHTOOL_GFLAGS)? & ETH_FLAG_RXVLAN != 0)
}

/// Whether the checksums of what is sent are left to `interface`.
pub fn tx_checksums(interface: &str) -> io::Result<bool> {
    Ok(get(interface, ETHTOOL_GTXCSUM)? != 0)
}

/// `struct ethtool_value`
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

fn get(interface: &str, command: u32) -> io::Result<u32> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut value = Value { command, data: 0 };
    // SAFETY: all of it is integers and pointers, for which zero is valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(interface.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request names an interface, NUL-terminated, and points to a `struct ethtool_value`, which is what
    // these commands write to; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    Errno::result(result)?;
    Ok(value.data)
}
