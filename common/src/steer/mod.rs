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
    flows::{Flow, Known},
    request::{Request, find},
};
use crate::{
    answer,
    maps::{AddressEntry, InstanceEntry, RING_CHUNK, RingChunk, Steer, Target, TargetKind},
    network::Link,
    outcome::Outcome,
    packet::Packet,
};

/// What the agent tells the program about requests.
pub trait Tables: answer::Tables {
    /// The current table of addresses.
    fn addresses(&self) -> u32;

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

    /// What flow hashes begin with: [`Control::flow_seed`](crate::maps::Control::flow_seed).
    fn flow_seed(&self) -> u64;

    /// A set of the flows that are known.
    fn flows(&self, set: u32) -> Option<&flows::Set>;

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

/// What became of a request, for the program and for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steered {
    /// The outcome.
    pub outcome: Outcome,
    /// The interface the frame goes out of, if its action is to send it.
    pub interface: u32,
    /// The target it goes to; 0: none.
    pub target: u32,
    /// Whether a known flow decided that.
    pub established: bool,
}

impl From<Outcome> for Steered {
    #[inline(always)]
    fn from(outcome: Outcome) -> Self {
        Self { outcome, interface: 0, target: 0, established: false }
    }
}

/// Steers `packet` if it is a request for a resource; `None` if it is none. **Decides before it writes**: whenever the
/// outcome's action is to pass, the frame is exactly as it came.
#[inline(always)]
pub fn steer<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Option<Steered> {
    let (link, from) = match tunnel::open(packet, Link::parse(packet).ok()?, tables) {
        Ok(opened) => opened,
        Err(outcome) => return Some(outcome.into()),
    };
    match requested(packet, link, from, tables) {
        None if from.is_some() => Some(Outcome::TunnelUnknown.into()),
        steered => steered,
    }
}

/// Steers the packet in `link`, which a peer may have forwarded.
#[inline(always)]
fn requested<P: Packet, T: Tables>(
    packet: &mut P,
    link: Link,
    from: Option<tunnel::From>,
    tables: &T,
) -> Option<Steered> {
    let (request, instance, now) = match find(packet, link, from.is_some(), tables)? {
        Ok(found) => found,
        Err(outcome) => return Some(outcome.into()),
    };
    let choice = match choose(&request, instance, from, now, tables) {
        Ok(choice) => choice,
        Err(outcome) => return Some(outcome.into()),
    };
    let outcome = if choice.target.kind == TargetKind::Peer as u32 {
        send::forward(packet, &request, choice.target, instance.epoch, now, tables)
    } else {
        let served = if from.is_some() { Outcome::ServedForPeer } else { Outcome::Served };
        send::serve(packet, &request, choice.target, served)
    };
    let Choice { target, index, established } = choice;
    Some(Steered { outcome, interface: target.interface, target: index, established })
}

/// Where a request goes.
struct Choice<'a> {
    target: &'a Target,
    index: u32,
    established: bool,
}

/// The target of a request: where its flow is, or else where its instance says.
#[inline(always)]
fn choose<'a, T: Tables>(
    request: &Request,
    instance: &InstanceEntry,
    from: Option<tunnel::From>,
    now: u64,
    tables: &'a T,
) -> Result<Choice<'a>, Outcome> {
    let flow = Flow::new(request.hash, now);
    let set = tables.flows(flow.set()).ok_or(Outcome::Fault)?;
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
            return Ok(Choice { target, index, established: true });
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
    Ok(Choice { target, index, established: false })
}

/// Whether a known flow may go on to its target.
#[inline(always)]
fn stays(request: &Request, instance: &InstanceEntry, from: Option<tunnel::From>, target: &Target, index: u32) -> bool {
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
    request: &Request,
    instance: &InstanceEntry,
    from: Option<tunnel::From>,
    tables: &T,
) -> Result<u32, Outcome> {
    if instance.steer == Steer::Serve as u32 {
        return backend(request.hash, instance, tables).ok_or(Outcome::NoBackend);
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
