//! Tables of both formats.

use super::*;

#[test]
fn lines_that_are_right() {
    let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let long = format!("[{full}]:65535");
    let unknown = Header::default();
    let cases = [
        // Section 2.1's example, and its longest lines.
        (
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443".to_owned(),
            addresses("192.168.0.1:56324", "192.168.0.11:443"),
        ),
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535".to_owned(),
            addresses("255.255.255.255:65535", "255.255.255.255:65535"),
        ),
        (format!("PROXY TCP6 {full} {full} 65535 65535"), addresses(&long, &long)),
        (format!("PROXY UNKNOWN {full} {full} 65535 65535"), unknown.clone()),
        ("PROXY UNKNOWN".to_owned(), unknown.clone()),
        ("PROXY UNKNOWN what  ever TCP4".to_owned(), unknown),
        ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0".to_owned(), addresses("0.0.0.0:0", "0.0.0.0:0")),
        ("PROXY TCP6 2001:DB8::1 ::1 1 2".to_owned(), addresses("[2001:db8::1]:1", "[::1]:2")),
        (
            "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c000:202 1 2".to_owned(),
            addresses("192.0.2.1:1", "192.0.2.2:2"),
        ),
    ];
    for (line, header) in cases {
        assert_eq!(read(format!("{line}\r\n").as_bytes()), header, "{line}");
    }
}

#[test]
fn lines_that_are_wrong() {
    use ProxyError::*;
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    assert_eq!(long.len(), 108);
    let endless = "PROXY ".to_owned() + &"x".repeat(200);
    let cases: &[(&str, ProxyError)] = &[
        ("GET / HTTP/1.1\r\n", NoHeader),
        ("PROXYTCP4 1.1.1.1 1.1.1.1 1 1\r\n", NoHeader),
        ("PROXY\r\n", NoHeader),
        ("PROXX", NoHeader),
        ("proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n", NoHeader),
        (" PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n", NoHeader),
        (&long, LineTooLong),
        (&endless, LineTooLong),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n", LineByte { byte: b'\n' }),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 1\rx", LineByte { byte: b'\r' }),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\r\n", LineByte { byte: b'\r' }),
        ("PROXY TCP4\t1.1.1.1 1.1.1.1 1 1\r\n", LineByte { byte: b'\t' }),
        ("PROXY UNKNOWN \0\r\n", LineByte { byte: 0 }),
        ("PROXY UNKNOWN \u{7f}\r\n", LineByte { byte: 0x7f }),
        ("PROXY UNKNOWN é\r\n", LineByte { byte: 0xc3 }),
        ("PROXY \r\n", LineProtocol),
        ("PROXY  TCP4 1.1.1.1 1.1.1.1 1 1\r\n", LineProtocol),
        ("PROXY TCP 1.1.1.1 1.1.1.1 1 1\r\n", LineProtocol),
        ("PROXY tcp4 1.1.1.1 1.1.1.1 1 1\r\n", LineProtocol),
        ("PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n", LineProtocol),
        ("PROXY UNKNOWNS\r\n", LineProtocol),
        ("PROXY TCP4\r\n", LineFields),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n", LineFields),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n", LineFields),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n", LineFields),
        ("PROXY TCP4 1.1.1.1  1.1.1.1 1 1\r\n", LineFields),
        ("PROXY TCP4 1.1.1.1  1.1.1.1 1\r\n", LinePort),
        ("PROXY TCP4 1.1.1 1.1.1.1 1 1\r\n", LineAddress),
        ("PROXY TCP4 1.1.1.256 1.1.1.1 1 1\r\n", LineAddress),
        ("PROXY TCP4 01.1.1.1 1.1.1.1 1 1\r\n", LineAddress),
        ("PROXY TCP4 0x1.1.1.1 1.1.1.1 1 1\r\n", LineAddress),
        ("PROXY TCP4 1.1.1.1 1.1.1.1.1 1 1\r\n", LineAddress),
        ("PROXY TCP4 ::1 ::1 1 1\r\n", LineAddress),
        ("PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n", LineAddress),
        ("PROXY TCP6 ::1::2 ::1 1 1\r\n", LineAddress),
        ("PROXY TCP6 1:2:3:4:5:6:7 ::1 1 1\r\n", LineAddress),
        ("PROXY TCP6 00001::1 ::1 1 1\r\n", LineAddress),
        ("PROXY TCP6 [::1] ::1 1 1\r\n", LineAddress),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n", LineAddress),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 65536 1\r\n", LinePort),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 00\r\n", LinePort),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 01\r\n", LinePort),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n", LinePort),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 -1 1\r\n", LinePort),
        ("PROXY TCP4 1.1.1.1 1.1.1.1 1 x\r\n", LinePort),
    ];
    for (line, error) in cases {
        assert_eq!(verdict(line.as_bytes()), Err(*error), "{}", line.escape_debug());
    }
}

#[test]
fn binary_headers_that_are_right() {
    let mapped = [
        &[0; 10][..],
        &[0xff, 0xff, 192, 0, 2, 1],
        &[0; 10],
        &[0xff, 0xff, 198, 51, 100, 2],
        &[0x12, 0x34, 1, 0xbb],
    ];
    let noop = [IP4, &tlv(0x04, &[0; 1009])].concat();
    let cases: &[(&str, Vec<u8>, Header)] = &[
        ("tcp4", binary(0x21, 0x11, IP4), ip4()),
        (
            "tcp6",
            binary(0x21, 0x21, &ip6_block()),
            addresses("[2001:db8::1]:4660", "[2001:db8::2]:443"),
        ),
        ("v4 in tcp6", binary(0x21, 0x21, &mapped.concat()), ip4()),
        ("local", binary(0x20, 0, b""), Header::default()),
        ("local with addresses", binary(0x20, 0x11, IP4), Header::default()),
        ("local, all of it ignored", binary(0x20, 0xff, b"\x02\xff"), Header::default()),
        ("unspecified", binary(0x21, 0, b""), Header::default()),
        ("unspecified with a block", binary(0x21, 0, b"\x02\xff"), Header::default()),
        ("IPv4 of no transport", binary(0x21, 0x10, IP4), Header::default()),
        ("udp4", binary(0x21, 0x12, IP4), Header::default()),
        ("udp6", binary(0x21, 0x22, &ip6_block()), Header::default()),
        ("unix stream", binary(0x21, 0x31, &[b'/'; 216]), Header::default()),
        ("unix datagram", binary(0x21, 0x32, &[b'/'; 216]), Header::default()),
        ("the longest", binary(0x21, 0x11, &noop), ip4()),
    ];
    for (name, bytes, header) in cases {
        assert_eq!(read(bytes), *header, "{name}");
    }
    assert_eq!(cases.last().unwrap().1.len(), MAX_V2_BYTES);
}

#[test]
fn binary_headers_that_are_wrong() {
    use ProxyError::*;
    let with = |more: &[u8]| binary(0x21, 0x11, &[IP4, more].concat());
    let cases: &[(&str, Vec<u8>, ProxyError)] = &[
        ("signature", b"\r\n\r\n\0\r\nQUIT\r".to_vec(), NoHeader),
        ("signature, early", b"\r\n\r\n\r\n".to_vec(), NoHeader),
        ("version 1", binary(0x11, 0x11, IP4), Version { version: 1 }),
        ("version 3", binary(0x31, 0x11, IP4), Version { version: 3 }),
        ("command", binary(0x22, 0x11, IP4), Command { command: 2 }),
        ("family", binary(0x21, 0x41, IP4), Family { family: 0x41 }),
        ("transport", binary(0x21, 0x13, IP4), Family { family: 0x13 }),
        ("short tcp4", binary(0x21, 0x11, &IP4[1..]), TooShort { announced: 11 }),
        ("short tcp6", binary(0x21, 0x21, IP4), TooShort { announced: 12 }),
        ("short unix", binary(0x21, 0x31, &[0; 215]), TooShort { announced: 215 }),
        ("long", binary(0x21, 0x11, &[0; 1025]), TooLong { announced: 1025 }),
        ("long local", binary(0x20, 0, &[0; 1025]), TooLong { announced: 1025 }),
        ("longest", binary(0x21, 0x11, &[0; 0xffff]), TooLong { announced: 0xffff }),
        ("tlv of one byte", with(&[4]), Tlv),
        ("tlv of two bytes", with(&[4, 0]), Tlv),
        ("tlv beyond the end", with(&[4, 0, 1]), Tlv),
        ("second tlv beyond the end", with(&[4, 0, 0, 4, 0, 9, 0]), Tlv),
        ("huge tlv", with(&[4, 0xff, 0xff, 0]), Tlv),
        ("tlv of udp", binary(0x21, 0x12, &[IP4, &[4]].concat()), Tlv),
        ("ssl without flags", with(&tlv(0x20, b"")), Tlv),
        ("ssl without verify", with(&tlv(0x20, &[1, 0, 0, 0])), Tlv),
        ("tlv within ssl", with(&tlv(0x20, &[1, 0, 0, 0, 0, 0x21, 0, 9])), Tlv),
        ("crc of three bytes", with(&tlv(0x03, &[0; 3])), Tlv),
        ("crc", with(&tlv(0x03, &[0; 4])), Checksum),
    ];
    for (name, bytes, error) in cases {
        assert_eq!(verdict(bytes), Err(*error), "{name}");
    }
}

#[test]
fn the_host_name_and_the_tls_of_the_client() {
    let part = |kind, text: &str| tlv(kind, text.as_bytes());
    let tls = |client: u8, verify: u8, parts: &[Vec<u8>]| {
        tlv(0x20, &[&[client, 0, 0, 0, verify][..], &parts.concat()].concat())
    };
    let names = [part(0x21, "TLSv1.3"), part(0x23, "X"), part(0x22, "Zoë A"), part(0x22, "2")];
    let said = |version: Option<&str>, verified, name: Option<&str>| {
        let (version, common_name) = (version.map(str::to_owned), name.map(str::to_owned));
        Some(ProxyTls { version, verified, common_name })
    };
    let cases = [
        (part(0x02, "example.com"), Some("example.com"), None),
        ([part(0x02, "a"), part(0x04, ""), part(0x02, "b")].concat(), Some("a"), None),
        (part(0x02, "bad\r\nname"), None, None),
        (part(0x02, "bad name"), None, None),
        (part(0x02, ""), None, None),
        (tlv(0x02, b"\xff"), None, None),
        (tls(1, 1, &[]), None, said(None, false, None)),
        (tls(0, 0, &[]), None, None),
        (tls(1, 0, &names[..1]), None, said(Some("TLSv1.3"), false, None)),
        (tls(3, 0, &names), None, said(Some("TLSv1.3"), true, Some("Zoë A"))),
        (tls(5, 0, &names), None, said(Some("TLSv1.3"), true, Some("Zoë A"))),
        (tls(3, 1, &names), None, said(Some("TLSv1.3"), false, Some("Zoë A"))),
        (tls(1, 0, &[part(0x21, "a\nb"), part(0x22, "c\nd")]), None, said(None, false, None)),
        (part(0xee, "whatever"), None, None),
    ];
    for (tlvs, authority, tls) in cases {
        let header = read(&binary(0x21, 0x11, &[IP4, &tlvs].concat()));
        let expected = Header { authority: authority.map(str::to_owned), tls, ..ip4() };
        assert_eq!(header, expected, "{}", tlvs.escape_ascii());
    }
}

#[test]
fn a_checksum_is_checked() {
    // The check value of CRC-32C (RFC 3720 appendix B.4 has more).
    assert_eq!(tlv::crc32c(b"123456789".iter().copied()), 0xe306_9283);
    assert_eq!(tlv::crc32c([0; 32].into_iter()), 0x8a91_36aa);
    let tlvs = [tlv(0x04, b"x"), tlv(0x03, &[0; 4]), tlv(0x02, b"example.com")].concat();
    let mut bytes = binary(0x21, 0x11, &[IP4, &tlvs].concat());
    let sum = tlv::crc32c(bytes.iter().copied());
    let place = 16 + IP4.len() + 4 + 3;
    bytes[place..place + 4].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(read(&bytes).authority.as_deref(), Some("example.com"));
    for byte in 16..bytes.len() {
        for bit in 0..8 {
            let mut other = bytes.clone();
            other[byte] ^= 1 << bit;
            let other = parse(&other);
            // The type and length of the checksum itself are not protected.
            let kind = (place - 3..place).contains(&byte);
            assert!(kind || other.is_err(), "{byte}.{bit}: {other:?}");
        }
    }
}

#[test]
fn what_is_written() {
    let four = "192.0.2.1:4660";
    let six = "[2001:db8::1]:443";
    let mapped = "[::ffff:192.0.2.1]:4660";
    let lines = [
        (Some(four), Some("198.51.100.2:443"), "PROXY TCP4 192.0.2.1 198.51.100.2 4660 443\r\n"),
        (Some(mapped), Some(four), "PROXY TCP4 192.0.2.1 192.0.2.1 4660 4660\r\n"),
        (Some(six), Some("[::1]:1"), "PROXY TCP6 2001:db8::1 ::1 443 1\r\n"),
        (Some(four), Some(six), "PROXY TCP6 ::ffff:c000:201 2001:db8::1 4660 443\r\n"),
        (Some(six), Some(mapped), "PROXY TCP6 2001:db8::1 ::ffff:c000:201 443 4660\r\n"),
        (None, Some(four), "PROXY UNKNOWN\r\n"),
        (Some(four), None, "PROXY UNKNOWN\r\n"),
        (None, None, "PROXY UNKNOWN\r\n"),
    ];
    for (source, destination, line) in lines {
        let (source, destination) = (source.map(socket), destination.map(socket));
        assert_eq!(
            write_v1(source, destination).escape_ascii().to_string(),
            line.escape_default().to_string()
        );
        let header = write_v2(source, destination);
        assert_eq!(read(&header), read(line.as_bytes()), "{line}");
        let expected = match line.as_bytes()[9] {
            b'4' => (28, [0x21, 0x11, 0, 12]),
            b'6' => (52, [0x21, 0x21, 0, 36]),
            _ => (16, [0x20, 0, 0, 0]),
        };
        assert_eq!((header.len(), header[12..16].try_into().unwrap()), expected, "{line}");
    }
    assert_eq!(
        write_v2(Some(socket(four)), Some(socket("198.51.100.2:443"))),
        binary(0x21, 0x11, IP4)
    );
    let ends = (socket("[2001:db8::1]:4660"), socket("[2001:db8::2]:443"));
    assert_eq!(write_v2(Some(ends.0), Some(ends.1)), binary(0x21, 0x21, &ip6_block()));
}
