//! Everything that can become of a packet: one variant, one counter, one action. No packet leaves without one.

/// What the program tells the driver to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Hand the frame, unchanged, to the host's network stack.
    Pass,
    /// Send the frame back out of the interface it came from.
    Transmit,
    /// Send the frame to a target, out of the interface that leads there.
    Send,
    /// Discard the frame.
    Drop,
}

/// Outcomes with this action.
const fn count(action: Action) -> u32 {
    let (mut count, mut index) = (0, 0);
    while index < ACTIONS.len() {
        if ACTIONS[index] as u32 == action as u32 {
            count += 1;
        }
        index += 1;
    }
    count
}

macro_rules! outcomes {
    ($($variant:ident $action:ident $name:literal $text:literal)*) => {
        /// Why a packet left the program; as a number, the index of its counter in `COUNTERS`.
        // As wide as a register: beside a narrower one LLVM keeps the other half of a `Result` in two pieces on the stack,
        // and a CPU waits when it reads them as one.
        #[repr(u64)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Outcome {
            $(#[doc = $text] $variant,)*
        }

        /// The outcomes' actions.
        const ACTIONS: &[Action] = &[$(Action::$action,)*];

        impl Outcome {
            /// All of them, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// What happens to the packet.
            #[inline(always)]
            pub const fn action(self) -> Action {
                const TRANSMITTED: u32 = count(Action::Transmit);
                const LEAVING: u32 = TRANSMITTED + count(Action::Send);
                const NOT_DROPPED: u32 = LEAVING + count(Action::Pass);
                match self as u32 {
                    ..TRANSMITTED => Action::Transmit,
                    TRANSMITTED..LEAVING => Action::Send,
                    LEAVING..NOT_DROPPED => Action::Pass,
                    NOT_DROPPED.. => Action::Drop,
                }
            }

            /// The counter's name; it never changes its meaning.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// One line for people.
            pub const fn describes(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

// Sorted by action, so that comparing the number tells it.
outcomes! {
    AnsweredA Transmit "answered_a" "A query answered"
    AnsweredAaaa Transmit "answered_aaaa" "AAAA query answered"
    TooBig Transmit "too_big_sent" "forwarded request too long for the tunnel: its sender was told (RFC 1191, RFC 8201)"
    TunnelEcho Transmit "tunnel_echo" "a peer asked whether this end of the tunnel answers"
    Served Send "served" "request served by a backend"
    ServedForPeer Send "served_for_peer" "request from a peer's tunnel served by a backend"
    Forwarded Send "forwarded" "request forwarded through the tunnel"
    ShortFrame Pass "short_frame" "frame ends inside its Ethernet, VLAN, IP or UDP header"
    NotIp Pass "not_ip" "neither IPv4 nor IPv6, or more than one VLAN tag"
    NotUdp Pass "not_udp" "another protocol than UDP, or an IPv6 extension header (RFC 8200 section 4)"
    NotDnsAddress Pass "not_dns_address" "UDP to an address that queries are not answered on"
    NotDnsPort Pass "not_dns_port" "UDP to a DNS address, but not to port 53"
    IpHeader Pass "ip_header" "version field differs from the EtherType, or IPv4 options (RFC 791 section 3.1)"
    IpFragment Pass "ip_fragment" "IPv4 fragment (RFC 791 section 3.2)"
    IpLength Pass "ip_length" "IP length disagrees with the frame's or the UDP length (RFC 1122 section 4.1.3)"
    IpChecksum Pass "ip_checksum" "IPv4 header checksum is wrong (RFC 1122 section 3.2.1.2)"
    GroupMac Pass "group_mac" "query from or to an Ethernet group address (RFC 1122 section 3.2.2)"
    SourceAddress Pass "source_address" "query from an address no reply may go to (RFC 1122 section 3.2.1.3)"
    SourcePort Pass "source_port" "query from port 0 or 53, which could loop"
    NoLease Pass "no_lease" "query while the agent's lease has run out"
    ShortQuery Pass "short_query" "UDP payload too short for a query (RFC 1035 section 4.1)"
    Response Pass "response" "message with QR set"
    Opcode Pass "opcode" "another opcode than QUERY (RFC 8906 section 8.1.4)"
    Counts Pass "counts" "other than one question, no answers and at most one additional record (RFC 9619)"
    NameLong Pass "name_long" "name of more than 128 bytes, or a longer query than one for such a name"
    Class Pass "class" "another class than IN, or bytes after the question"
    Type Pass "type" "another type than A and AAAA"
    Additional Pass "additional" "does not end with an OPT record that has no option, or only a new client's cookie"
    EdnsVersion Pass "edns_version" "EDNS version above 0 (RFC 6891 section 6.1.3)"
    UnknownName Pass "unknown_name" "name of no resource, or malformed"
    TableChanging Pass "table_changing" "name and answer tables of different age"
    NoAddress Pass "no_address" "no address of the asked family"
    NoRoom Pass "no_room" "frame could not be resized for the reply"
    OtherPort Pass "other_port" "to a resource's address, but to none of its ports"
    OtherProtocol Pass "other_protocol" "to a resource's address, but neither TCP nor UDP nor an ICMP error about them"
    Unmanaged Pass "unmanaged" "to a resource's address before its instance was first decided on"
    ZeroChecksum Drop "zero_checksum" "IPv6 query without UDP checksum (RFC 8200 section 8.1)"
    Fragment Drop "fragment" "fragment of a request (RFC 791 section 3.2, RFC 8200 section 4.5): it does not tell its port"
    Options Drop "options" "request with IPv4 options or IPv6 extension headers (RFC 7126, RFC 7045)"
    BadLength Drop "bad_length" "request shorter than its headers say"
    Refused Drop "refused" "request for a resource that is available nowhere"
    NoBackend Drop "no_backend" "request for an instance without a backend that passes its probes and can be reached"
    NoTunnel Drop "no_tunnel" "request for a peer whose tunnel cannot be reached"
    TooLong Drop "too_long" "request too long for the tunnel that may be fragmented or whose sender cannot be told"
    TooBigLimit Drop "too_big_limit" "request too long for the tunnel, after enough such senders were told (RFC 4443 section 2.4)"
    TunnelStranger Drop "tunnel_stranger" "tunnel packet from an address that is no peer's"
    TunnelHeader Drop "tunnel_header" "tunnel packet with a header no peer sends: version, mark or site"
    TunnelInner Drop "tunnel_inner" "tunnel packet that holds no whole IP packet"
    TunnelUnknown Drop "tunnel_unknown" "tunnel packet for no address and port of a resource"
    TunnelOlder Drop "tunnel_older" "forwarded here by a peer that knows an older epoch, and this site does not hold the resource"
    TunnelNewer Drop "tunnel_newer" "forwarded here by a peer that knows a newer epoch, which this site does not know yet"
    TunnelLoop Drop "tunnel_loop" "forwarded here in the same epoch, but this site does not hold the resource"
    Fault Drop "fault" "the reply left the resized frame: a defect of the program"
}

impl Outcome {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The outcome with this counter.
    #[inline(always)]
    pub fn from_index(index: u32) -> Option<Self> {
        // SAFETY: the variants are numbered from 0 on without a gap.
        ((index as usize) < Self::COUNT).then(|| unsafe { core::mem::transmute::<u64, Self>(u64::from(index)) })
    }

    /// The packet's counter.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self as u32
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_outcomes_are_sorted_by_their_actions() {
        let actions: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.action()).collect();
        assert_eq!(actions, ACTIONS);
    }

    #[test]
    fn each_outcome_has_its_own_counter_and_a_snake_case_name() {
        let mut names = HashSet::new();
        for (index, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(outcome.index() as usize, index);
            assert_eq!(Outcome::from_index(outcome.index()), Some(*outcome));
            assert!(names.insert(outcome.name()), "{} twice", outcome.name());
            let snake = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(outcome.name().bytes().all(snake), "{}", outcome.name());
            assert!(!outcome.describes().is_empty());
        }
    }
}
