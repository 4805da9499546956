//! Through which device a peer is reached, by the kernel's own answer (rtnetlink(7)).
//!
//! A way holds until something changes: the owner asks [`Ways::has_changed`]. A path MTU that the
//! kernel learns or forgets (RFC 1191, RFC 8201) is no change that it tells of; a way has the one
//! known when it was looked up.

mod answers;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, io, net::IpAddr};

use netlink_packet_core::{Emitable, NLM_F_DUMP, Parseable};
use netlink_packet_route::{
    AddressFamily, IpProtocol,
    link::{LinkAttribute, LinkExtentMask, LinkMessage},
    route::{RouteAttribute, RouteFlags, RouteMessage, RouteType},
};
use thiserror::Error;

use super::netlink::{Message, News, Questions, decoding, invalid};

/// Answers that are kept; all go when there are more.
const MOST_KNOWN: usize = 4096;
/// How often a list is asked for that changes while it is read.
const MOST_TRIES: usize = 3;
/// The index of `lo` in every network namespace (LOOPBACK_IFINDEX of the kernel).
pub const LOOPBACK: u32 = 1;

/// What else than the answer changes with it.
const GROUPS: [u32; 8] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV6_RULE,
    // Routes that name a nexthop object say nothing when it is replaced.
    libc::RTNLGRP_NEXTHOP,
];

/// How packets get to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Index of the device; `lo` for an address of this host.
    pub device: u32,
    /// The peer is an address of this host.
    pub local: bool,
    /// Who takes them next; none where the peer is on the link. May be of the other family
    /// (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// Bytes of a packet from its IP header on: the device's, or the route's where that is less.
    pub mtu: u32,
}

/// Why there is no way that translated packets could go.
#[derive(Debug, Error)]
pub enum NoWay {
    /// The kernel would not know where to send them either.
    #[error("no route")]
    NoRoute,
    /// The device's packets have no Ethernet header, or belong to a VRF.
    #[error("device {name} is neither Ethernet nor loopback, but {kind}")]
    Device {
        /// The device's name.
        name: String,
        /// What it is.
        kind: String,
    },
    /// The device went away, or is down.
    #[error("the device is gone or down")]
    Gone,
    /// The kernel could not be asked.
    #[error("asking the kernel for a route: {0}")]
    Netlink(#[source] io::Error),
    /// A route that no translation goes with: blackhole, prohibit, multicast, broadcast, several
    /// next hops, an encapsulation; or a link-local peer, whose link nobody names here.
    #[error("a route of a special kind")]
    Special,
}

impl NoWay {
    /// For metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoRoute => "packet_no_route",
            Self::Device { .. } => "packet_device",
            Self::Gone => "packet_gone",
            Self::Netlink(_) => "packet_netlink",
            Self::Special => "packet_special",
        }
    }

    /// The same again, if it lasts until something changes.
    fn lasting(&self) -> Option<Self> {
        match self {
            Self::NoRoute => Some(Self::NoRoute),
            Self::Special => Some(Self::Special),
            Self::Device { name, kind } => {
                Some(Self::Device { name: name.clone(), kind: kind.clone() })
            }
            Self::Gone | Self::Netlink(_) => None,
        }
    }
}

/// A network device that translated packets can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Bytes of its largest packet, from the IP header on.
    pub mtu: u32,
    /// It is switched on.
    pub up: bool,
    /// It is `lo`.
    pub loopback: bool,
}

/// Asks for ways, and remembers them until something changes.
#[derive(Debug)]
pub struct Ways {
    questions: Questions,
    news: News,
    known: HashMap<(IpAddr, IpAddr), Result<Way, NoWay>>,
}

impl Ways {
    /// For the network namespace of this thread.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub fn open() -> io::Result<Self> {
        // Listens before anything is asked: no change falls between.
        let news = News::open(&GROUPS)?;
        Ok(Self { questions: Questions::open(None)?, news, known: HashMap::new() })
    }

    /// The way from one of our sockets to its peer. `from` is the socket's own address, which
    /// may be a client's (transparent proxying). An answer that is known is given again until
    /// [`Ways::has_changed`] has seen a change.
    ///
    /// # Errors
    /// There is none, or none that translated packets could go.
    pub fn to(&mut self, peer: IpAddr, from: IpAddr) -> Result<Way, NoWay> {
        let key = (peer.to_canonical(), from.to_canonical());
        match self.known.get(&key) {
            Some(Ok(way)) => return Ok(*way),
            Some(Err(no)) => {
                if let Some(no) = no.lasting() {
                    return Err(no);
                }
            }
            None => {}
        }
        let answer = self.look_up(key.0, key.1);
        let lasting = match &answer {
            Ok(way) => Some(Ok(*way)),
            Err(no) => no.lasting().map(Err),
        };
        if let Some(lasting) = lasting {
            if self.known.len() >= MOST_KNOWN {
                self.known.clear();
            }
            self.known.insert(key, lasting);
        }
        answer
    }

    /// Reads what the kernel told; true if routes, rules, addresses or devices changed since the
    /// last call, or may have. Everything known is forgotten then.
    pub fn has_changed(&mut self) -> bool {
        let changed = self.news.drain();
        if changed {
            self.known.clear();
        }
        changed
    }

    /// The devices that translated packets can use, up or down.
    ///
    /// # Errors
    /// The kernel could not be asked, or devices changed at every try.
    pub fn devices(&mut self) -> io::Result<Vec<Device>> {
        let body = link_question(0);
        let mut tries = 1;
        loop {
            let mut devices = Vec::new();
            let listed = self.questions.ask(libc::RTM_GETLINK, NLM_F_DUMP, &body, |message| {
                // What can't be read of a device is no device for us; the others are.
                let link = parse::<LinkMessage>(&message, libc::RTM_NEWLINK);
                devices.extend(link.ok().and_then(|link| answers::device(&link).ok()));
            });
            match listed {
                Ok(()) => return Ok(devices),
                Err(e) if e.kind() == io::ErrorKind::Interrupted && tries < MOST_TRIES => {
                    tries += 1;
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn look_up(&mut self, peer: IpAddr, from: IpAddr) -> Result<Way, NoWay> {
        if answers::is_special(peer) {
            return Err(NoWay::Special);
        }
        let (route, from) = self.route_from(peer, from)?;
        let hop = answers::hop(&route)?;
        if !hop.local && self.has_choice(peer, from) {
            return Err(NoWay::Special);
        }
        let device = self.device(hop.device)?;
        answers::way(hop, &device)
    }

    /// The route of a packet, and the source address with which there is one.
    fn route_from(
        &mut self,
        peer: IpAddr,
        from: IpAddr,
    ) -> Result<(RouteMessage, Option<IpAddr>), NoWay> {
        let from =
            Some(from).filter(|from| from.is_ipv4() == peer.is_ipv4() && !from.is_unspecified());
        let first = self.route(peer, from, RouteFlags::empty());
        match (first, from) {
            (Ok(route), from) => Ok((route, from)),
            // The kernel refuses a source that is not this host's; a transparent socket may
            // have it. For one that is ours the refusal is the answer.
            (Err(e), Some(from)) if answers::may_be_foreign(&e) && !self.is_ours(from) => {
                let route = self.route(peer, None, RouteFlags::empty());
                Ok((route.map_err(answers::refusal)?, None))
            }
            (Err(e), _) => Err(answers::refusal(e)),
        }
    }

    fn is_ours(&mut self, address: IpAddr) -> bool {
        let route = self.route(address, None, RouteFlags::empty());
        route.is_ok_and(|route| route.header.kind == RouteType::Local)
    }

    /// Whether the route has several next hops, of which each connection takes its own: the
    /// answer for a packet names one only, the route as it is written all.
    fn has_choice(&mut self, peer: IpAddr, from: Option<IpAddr>) -> bool {
        let written = self.route(peer, from, RouteFlags::FibMatch);
        written.is_ok_and(|written| answers::has_choice(&written))
    }

    fn route(
        &mut self,
        peer: IpAddr,
        from: Option<IpAddr>,
        flags: RouteFlags,
    ) -> io::Result<RouteMessage> {
        let body = route_question(peer, from, flags);
        self.ask_one(libc::RTM_GETROUTE, libc::RTM_NEWROUTE, &body)
    }

    fn device(&mut self, index: u32) -> Result<Device, NoWay> {
        let body = link_question(index);
        let link: io::Result<LinkMessage> =
            self.ask_one(libc::RTM_GETLINK, libc::RTM_NEWLINK, &body);
        match link {
            Ok(link) => answers::device(&link),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Err(NoWay::Gone),
            Err(e) => Err(NoWay::Netlink(e)),
        }
    }

    fn ask_one<T>(&mut self, question: u16, answer: u16, body: &[u8]) -> io::Result<T>
    where
        T: Parseable<[u8]>,
    {
        let mut answered = Err(invalid("no answer"));
        self.questions.ask(question, 0, body, |message| answered = parse(&message, answer))?;
        answered
    }
}

fn parse<T: Parseable<[u8]>>(message: &Message<'_>, kind: u16) -> io::Result<T> {
    if message.kind != kind {
        return Err(invalid(format!("a message of type {}", message.kind)));
    }
    T::parse(message.body).map_err(decoding)
}

fn route_question(peer: IpAddr, from: Option<IpAddr>, flags: RouteFlags) -> Vec<u8> {
    let (family, bits) =
        if peer.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
    let mut question = RouteMessage::default();
    question.header.address_family = family;
    question.header.destination_prefix_length = bits;
    question.header.flags = flags;
    question.attributes.push(RouteAttribute::Destination(peer.into()));
    // Rules may be for some protocols only.
    question.attributes.push(RouteAttribute::IpProto(IpProtocol::Tcp.into()));
    if let Some(from) = from {
        question.header.source_prefix_length = bits;
        question.attributes.push(RouteAttribute::Source(from.into()));
    }
    emitted(&question)
}

/// For one device, or for all (index 0).
fn link_question(index: u32) -> Vec<u8> {
    let mut question = LinkMessage::default();
    question.header.index = index;
    question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    emitted(&question)
}

fn emitted(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}
