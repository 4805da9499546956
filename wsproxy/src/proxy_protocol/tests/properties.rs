//! What holds for all headers and all bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn end() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| IpAddr::V4(ip.into())),
        any::<[u8; 16]>().prop_map(|ip| IpAddr::V6(ip.into())),
        any::<Ipv4Addr>().prop_map(|ip| IpAddr::V6(ip.to_ipv6_mapped())),
        // Long and short runs of zeros.
        (any::<[u16; 8]>(), any::<u8>()).prop_map(|(mut groups, mask)| {
            for (place, group) in groups.iter_mut().enumerate() {
                *group *= u16::from(mask >> place & 1);
            }
            IpAddr::V6(Ipv6Addr::from(groups))
        }),
    ];
    (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn plain(end: SocketAddr) -> SocketAddr {
    SocketAddr::new(end.ip().to_canonical(), end.port())
}

/// Bytes that come near to a header.
fn near() -> impl Strategy<Value = Vec<u8>> {
    let words = ["PROXY ", "TCP4 ", "TCP6 ", "UNKNOWN", " ", "1.2.3.4 ", "::1 ", "443 ", "1\r\n"];
    let line = vec(prop::sample::select(words.to_vec()), 0..9)
        .prop_map(|words| format!("PROXY {}", words.concat()).into_bytes());
    let bytes = (0x1e..0x24_u8, 0..0x40_u8, vec(0..0x25_u8, 0..80))
        .prop_map(|(command, family, block)| binary(command, family, &block));
    prop_oneof![line, bytes, vec(any::<u8>(), 0..150)]
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(source in end(), destination in end(), tail in vec(any::<u8>(), 0..20)) {
        let expected = Header {
            source: Some(plain(source)),
            destination: Some(plain(destination)),
            ..Header::default()
        };
        let line = write_v1(Some(source), Some(destination));
        prop_assert!(line.len() <= 104);
        for header in [line, write_v2(Some(source), Some(destination))] {
            prop_assert_eq!(&read(&header), &expected);
            let done = Progress::Done { value: expected.clone(), consumed: header.len() };
            prop_assert_eq!(parse(&[&header[..], &tail].concat()), Ok(done));
        }
    }

    #[test]
    fn a_verdict_does_not_depend_on_the_split(bytes in near()) {
        let _ = verdict(&bytes);
    }

    #[test]
    fn a_mutated_header_is_judged_alike(
        source in end(), destination in end(), binary in any::<bool>(),
        at in any::<prop::sample::Index>(), byte in any::<u8>(), drop in any::<bool>(),
    ) {
        let write = if binary { write_v2 } else { write_v1 };
        let mut bytes = write(Some(source), Some(destination));
        let at = at.index(bytes.len());
        if drop { bytes.remove(at); } else { bytes[at] = byte; }
        let _ = verdict(&bytes);
    }

    #[test]
    fn no_header_is_longer_than_its_limit(rest in vec(any::<u8>(), 1200)) {
        let printable = rest.iter().map(|byte| b' ' + byte % 95);
        let line: Vec<_> = b"PROXY UNKNOWN ".iter().copied().chain(printable).collect();
        prop_assert_eq!(parse(&line[..MAX_V1_BYTES - 1]), Ok(Progress::Partial));
        prop_assert_eq!(parse(&line[..MAX_V1_BYTES]), Err(ProxyError::LineTooLong));
        let header = [v2::SIGNATURE, &[0x21, 0x11], &rest[..]].concat();
        prop_assert_ne!(parse(&header[..MAX_V2_BYTES]), Ok(Progress::Partial));
    }
}
