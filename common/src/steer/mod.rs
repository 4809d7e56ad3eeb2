//! Steering: what becomes of a request for a resource. Pure functions from a frame and the tables to an outcome.
//!
//! A request goes to one of this site's backends, or whole, through the tunnel, to the peer that holds the resource. A
//! flow that is known stays where it is; the resource's instance decides on all others.

pub mod flows;
mod request;
mod send;
pub mod tunnel;

pub use self::request::address_hash;
use self::{
    flows::Known,
    request::{Request, find},
};
use crate::{
    answer::{self, Present},
    maps::{AddressEntry, InstanceEntry, RING_CHUNK, RingChunk, Steer, Target, TargetKind},
    network::Link,
    outcome::{Action, Outcome},
    packet::Packet,
};

/// What the agent tells the program about requests.
pub trait Tables: answer::Tables {
    /// The seed in that table for a bucket of addresses ([`placing::ADDRESSES`](crate::placing::ADDRESSES)).
    fn address_seed(&self, addresses: u32, bucket: u32) -> Option<u32>;

    /// The entry in a slot of that table.
    fn address(&self, addresses: u32, slot: u32) -> Option<&AddressEntry>;

    /// An instance of this site's.
    fn instance(&self, index: u32) -> Option<&InstanceEntry>;

    /// A part of an instance's table of backends.
    fn ring(&self, chunk: u32) -> Option<&RingChunk>;

    /// Where frames are sent.
    fn target(&self, index: u32) -> Option<&Target>;

    /// The set of known flows that one with this hash belongs to; the lower bits say which.
    fn flows(&self, hash: u64) -> Option<&flows::Set>;

    /// Writes a flow, unless the program only explains what it would do.
    fn keep(&self, flow: &flows::Way, word: u64);

    /// Address and port of this end of the tunnel. Zero: there is none.
    fn tunnel(&self) -> (u32, u32);

    /// What this site calls itself in the tunnel's header.
    fn site(&self) -> u32;

    /// What the peer with this tunnel address calls itself.
    fn peer(&self, address: u32) -> Option<u32>;

    /// Whether one more sender may be told that its packet is too big.
    fn may_tell(&self, now: u64) -> bool;
}

/// What is known of a packet's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knew {
    /// Nothing, or it was of no importance.
    Nothing = 0,
    /// Where it goes: it stays there.
    Target = 1,
    /// Where it went: that is gone, or it may not go there any more.
    Former = 2,
}

impl Knew {
    /// The one with this number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Target,
            2 => Self::Former,
            _ => Self::Nothing,
        }
    }
}

/// What became of a packet, for the program and for people. In one number, because every early way out sets all of it:
/// from the lowest bit on the outcome (8 bits), what was known of its flow (8), the target (16), and the interface (32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steered(u64);

impl Steered {
    #[inline(always)]
    fn new(outcome: Outcome, Choice { target, index, knew }: &Choice) -> Self {
        Self(
            outcome as u64 | (*knew as u64) << 8 | u64::from(*index & 0xffff) << 16 | u64::from(target.interface) << 32,
        )
    }

    /// The outcome.
    #[inline(always)]
    pub const fn outcome(self) -> Outcome {
        // SAFETY: both ways to make one of these put an outcome's number there.
        unsafe { core::mem::transmute::<u64, Outcome>(self.0 & 0xff) }
    }

    /// The number of what was known of its flow, a [`Knew`].
    #[inline(always)]
    pub const fn knew(self) -> u32 {
        (self.0 >> 8 & 0xff) as u32
    }

    /// The target it goes to; 0: none.
    #[inline(always)]
    pub const fn target(self) -> u32 {
        (self.0 >> 16 & 0xffff) as u32
    }

    /// The interface the frame goes out of, if its action is to send it.
    #[inline(always)]
    pub const fn interface(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

const _: () = assert!(Outcome::COUNT < 1 << 8);

impl From<Outcome> for Steered {
    #[inline(always)]
    fn from(outcome: Outcome) -> Self {
        Self(outcome as u64)
    }
}

/// What becomes of a frame: queries are answered, requests are steered, and the rest is left to the host. **Decides before
/// it writes**: whenever the outcome's action is to pass, the frame is exactly as it came.
#[inline(always)]
pub fn receive<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Steered {
    let link = match Link::parse(packet) {
        Ok(link) => link,
        Err(outcome) => return outcome.into(),
    };
    match answer::respond(packet, link, tables) {
        // None of these was a query, so it may be a request.
        otherwise @ (Outcome::NotUdp | Outcome::NotDnsAddress | Outcome::NotDnsPort) => {
            steer(packet, link, otherwise, tables)
        }
        outcome => outcome.into(),
    }
}

/// Steers `packet` if it is a request for a resource; `otherwise` is what became of one that is none.
#[inline(always)]
fn steer<P: Packet, T: Tables>(packet: &mut P, link: Link, otherwise: Outcome, tables: &T) -> Steered {
    let present = tables.present();
    let (link, from) = match tunnel::open(packet, link, present.leased, tables) {
        Ok(opened) => opened,
        Err(outcome) => return outcome.into(),
    };
    requested(packet, link, from, otherwise, present, tables).unwrap_or_else(|outcome| match from {
        // The host has no use for what came through the tunnel.
        Some(_) if outcome.action() == Action::Pass => Outcome::TunnelUnknown.into(),
        _ => outcome.into(),
    })
}

/// Steers the packet in `link`, which a peer may have forwarded.
#[inline(always)]
fn requested<P: Packet, T: Tables>(
    packet: &mut P,
    link: Link,
    from: Option<tunnel::From>,
    otherwise: Outcome,
    present: Present,
    tables: &T,
) -> Result<Steered, Outcome> {
    let (request, instance) = find(packet, link, from, otherwise, present, tables)?;
    let choice = choose(&request, instance, from, tables)?;
    let outcome = if choice.target.kind == TargetKind::Peer as u32 {
        send::forward(packet, &request, choice.target, instance.epoch, present.now, tables)
    } else {
        let served = if from.is_some() { Outcome::ServedForPeer } else { Outcome::Served };
        send::serve(packet, &request, choice.target, served)
    };
    Ok(Steered::new(outcome, &choice))
}

/// Where a request goes.
struct Choice<'a> {
    target: &'a Target,
    index: u32,
    knew: Knew,
}

/// The target of a request: where its flow is, or else where its instance says.
#[inline(always)]
fn choose<'a, T: Tables>(
    request: &Request<'_>,
    instance: &InstanceEntry,
    from: Option<tunnel::From>,
    tables: &'a T,
) -> Result<Choice<'a>, Outcome> {
    let Request { flow, set, .. } = *request;
    let known = flow.find(set);
    if let Some(found @ Known { word, .. }) = known {
        let index = flows::target(word);
        if let Some(target) = tables.target(index)
            && u64::from(target.generation) == flows::generation(word)
            && stays(request, instance, from, target, index)
        {
            if request.starts {
                flow.refresh(set, found, tables);
            }
            return Ok(Choice { target, index, knew: Knew::Target });
        }
    }
    let index = decide(request, instance, from, tables)?;
    // A table of backends that changes at this moment may give another instance's.
    let (wanted, owner, missing) = match instance.steer == Steer::Serve as u32 {
        true => (TargetKind::Backend, instance.id, Outcome::NoBackend),
        false => (TargetKind::Peer, 0, Outcome::NoTunnel),
    };
    let target = tables.target(index).filter(|target| target.kind == wanted as u32 && target.owner == owner);
    let target = target.ok_or(missing)?;
    if request.starts {
        flow.insert(set, known, index, target.generation, tables);
    }
    let knew = if known.is_some() { Knew::Former } else { Knew::Nothing };
    Ok(Choice { target, index, knew })
}

/// Whether a known flow may go on to its target.
#[inline(always)]
fn stays(
    request: &Request<'_>,
    instance: &InstanceEntry,
    from: Option<tunnel::From>,
    target: &Target,
    index: u32,
) -> bool {
    let serves = instance.steer == Steer::Serve as u32;
    let forwards = instance.steer == Steer::Forward as u32;
    if target.kind == TargetKind::Backend as u32 {
        // Of another instance if two flows have one hash, which happens once in a billion.
        target.owner == instance.id && (serves || (instance.stay != 0 && !request.new))
    } else if target.kind == TargetKind::Peer as u32 {
        // What a peer has forwarded is never forwarded again.
        from.is_none() && ((forwards && instance.peer == index) || (instance.leaving == index && !request.new))
    } else {
        false
    }
}

/// The index of the target for a request that no flow decides.
#[inline(always)]
fn decide<T: Tables>(
    request: &Request<'_>,
    instance: &InstanceEntry,
    from: Option<tunnel::From>,
    tables: &T,
) -> Result<u32, Outcome> {
    if instance.steer == Steer::Serve as u32 {
        return backend(request.flow.hash, instance, tables).ok_or(Outcome::NoBackend);
    }
    match from {
        Some(from) if from.epoch < instance.epoch => Err(Outcome::TunnelOlder),
        Some(from) if from.epoch > instance.epoch => Err(Outcome::TunnelNewer),
        Some(_) => Err(Outcome::TunnelLoop),
        None if instance.steer == Steer::Forward as u32 => Ok(instance.peer),
        None if instance.steer == Steer::Refuse as u32 => Err(Outcome::Refused),
        None => Err(Outcome::Unmanaged),
    }
}

/// The backend that Maglev's table has for a flow.
#[inline(always)]
fn backend<T: Tables>(hash: u64, instance: &InstanceEntry, tables: &T) -> Option<u32> {
    // Half of the hash, so that the product's upper half is evenly spread below the size.
    let position = ((hash & 0xffff_ffff) * u64::from(instance.ring_size)) >> 32;
    let chunk = tables.ring(instance.ring.wrapping_add((position / u64::from(RING_CHUNK)) as u32))?;
    Some(u32::from(chunk.targets[position as usize % RING_CHUNK as usize]))
}
