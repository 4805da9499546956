//! How large segments may be where packets are translated: what one side sends goes to the other
//! as it is, so it must be no more than that one takes (RFC 9293 section 3.7.1).

use std::os::fd::AsFd as _;

use super::stream::Stream;
use crate::{
    config::{Datapath, Listener},
    sys::{Facts, facts},
};

/// The largest segment, in bytes, options included: two of them in one train fit the length field
/// of IPv4 and of IPv6. Only loopback has room for more; trains of it that are longer have a jumbo
/// payload option (RFC 2675), which is not translated.
const MOST: u16 = 32_732;
/// Bytes of options that timestamps take in each segment (RFC 7323, appendix A).
const TIMESTAMPS: u32 = 12;

/// What is announced to the clients of a listener at most; none: whatever their way takes.
pub(super) fn of_listener(datapath: &Datapath, listener: &Listener) -> Option<u16> {
    let may = datapath.may_translate() && listener.packets && listener.tls.is_none();
    may.then_some(MOST)
}

/// What is announced to the server of a session of this client at most; none: its packets are not
/// translated.
pub(super) fn of_server(datapath: &Datapath, listener: &Listener, client: &Stream) -> Option<u16> {
    of_listener(datapath, listener)?;
    let Stream::Tcp(socket) = client else { return None };
    // A connection that is gone already needs none.
    Some(taken_by(&facts(socket.as_fd()).ok()?))
}

/// The largest segment that a peer takes, options included, as far as its way does.
fn taken_by(peer: &Facts) -> u16 {
    let options = if peer.timestamps { TIMESTAMPS } else { 0 };
    let taken = peer.snd_mss.saturating_add(options);
    u16::try_from(taken).map_or(MOST, |taken| taken.min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DatapathMode;

    #[test]
    fn a_server_sends_what_the_client_takes() {
        for (snd_mss, timestamps, expected) in [
            // Ethernet; with timestamps, each segment has 12 bytes less of payload.
            (1460, false, 1460),
            (1448, true, 1460),
            (1380, true, 1392),
            (536, false, 536),
            // Loopback.
            (65_483, true, MOST),
            (65_495, false, MOST),
            (u32::MAX, true, MOST),
            (u32::from(MOST) - 12, true, MOST),
            (u32::from(MOST) - 12, false, MOST - 12),
        ] {
            let peer = Facts { snd_mss, timestamps, ..Facts::default() };
            assert_eq!(taken_by(&peer), expected, "{peer:?}");
        }
    }

    #[test]
    fn two_segments_fit_one_packet() {
        // Payload length counts from behind the fixed header of IPv6, total length with the
        // header of IPv4; both have the header of TCP once.
        let train =
            |segment: u32, header: u32| header + 20 + TIMESTAMPS + 2 * (segment - TIMESTAMPS);
        for header in [0, 20] {
            assert!(train(MOST.into(), header) <= u32::from(u16::MAX));
        }
    }

    #[test]
    fn only_who_may_go_the_packet_path_is_told_less() {
        let packet = Datapath { mode: DatapathMode::Packet, ..Datapath::default() };
        let listener = Listener::at("127.0.0.1:0".parse().unwrap());
        let kept = Listener { packets: false, ..listener.clone() };
        for (datapath, listener, expected) in [
            (Datapath::default(), &listener, Some(MOST)),
            (packet.clone(), &listener, Some(MOST)),
            (Datapath { packets: false, ..packet.clone() }, &listener, Some(MOST)),
            (packet, &kept, None),
            (Datapath { packets: false, ..Datapath::default() }, &listener, None),
            (Datapath { mode: DatapathMode::Sockmap, ..Datapath::default() }, &listener, None),
            (Datapath { mode: DatapathMode::Relay, ..Datapath::default() }, &listener, None),
        ] {
            assert_eq!(of_listener(&datapath, listener), expected, "{datapath:?} {listener:?}");
        }
    }
}
