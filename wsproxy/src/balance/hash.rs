//! The hashes that several gateways must agree on: fixed functions of their
//! input, the same on every machine and in every version.

use std::net::IpAddr;

/// What splitmix64 adds from one number to the next: 2^64 over the golden
/// ratio, made odd.
pub(super) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The hash of a balancing key: FNV-1a of 64 bits, then the finalizer of
/// splitmix64, since FNV alone leaves the high bits of short keys alike.
///
/// It is no secret and needs none: whoever picks his key freely can send the
/// same key all the time, so no hash keeps him from loading one server.
#[must_use]
pub fn hash_key(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    mix(bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME)))
}

/// The key of a client's address: all of an IPv4 address (also when it comes
/// as `::ffff:a.b.c.d`), the first 64 bits of an IPv6 address, since a client
/// moves freely within its network (RFC 4291 section 2.5.4, RFC 8981).
#[must_use]
pub fn client_key(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => hash_key(&v4.octets()),
        IpAddr::V6(v6) => hash_key(&v6.octets()[..8]),
    }
}

/// The finalizer of splitmix64: a permutation of the 64 bit numbers in which
/// every input bit moves every output bit.
pub(super) const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A number evenly spread over the open interval from 0 to 1. 52 bits and a
/// half: exact in an `f64`, so it never rounds to 0 or 1.
pub(super) fn unit(hash: u64) -> f64 {
    const STEP: f64 = 1.0 / (1_u64 << 52) as f64;
    ((hash >> 12) as f64 + 0.5) * STEP
}

/// The natural logarithm of a normal number above zero, to within 1e-15 of its
/// value.
///
/// `f64::ln` may differ in the last bit from one platform to the next. This
/// takes only operations that IEEE 754 rounds in one way, so that all gateways
/// compare the same numbers.
pub(super) fn ln(number: f64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    const ONE: u64 = 1023 << 52;
    let bits = number.to_bits();
    let mut exponent = (bits >> 52) as f64 - 1023.0;
    let mut mantissa = f64::from_bits(bits & MANTISSA | ONE);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1.0;
    }
    // ln(m) = 2 artanh((m - 1) / (m + 1)); the argument is below 0.172 here.
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    let sum = (0..11).rev().fold(0.0, |sum, term| sum * square + 1.0 / f64::from(2 * term + 1));
    exponent * std::f64::consts::LN_2 + 2.0 * ratio * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_never_change() {
        // FNV-1a of the empty string and of "a" are published: the finalizer is
        // all that is ours. The first outputs of splitmix64 for seed 0 too.
        assert_eq!(mix(GOLDEN), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(GOLDEN.wrapping_mul(2)), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(hash_key(b""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(hash_key(b"a"), mix(0xaf63_dc4c_8601_ec8c));
        assert_eq!(hash_key(b"foobar"), mix(0x8594_4171_f739_67e8));
    }

    #[test]
    fn a_client_is_its_ipv4_address_or_its_ipv6_network() {
        let key = |text: &str| client_key(text.parse().unwrap());
        let cases = [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8::1", "2001:db8::2", true),
            ("2001:db8::1", "2001:db8:0:0:ffff:ffff:ffff:ffff", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ];
        for (one, other, alike) in cases {
            assert_eq!(key(one) == key(other), alike, "{one} {other}");
        }
    }

    #[test]
    fn the_logarithm_is_right() {
        for hash in (0..100_000_u64).map(|n| mix(n.wrapping_mul(GOLDEN))).chain([0, u64::MAX]) {
            let number = unit(hash);
            assert!(number > 0.0 && number < 1.0, "{number}");
            let (ours, theirs) = (ln(number), number.ln());
            assert!((ours - theirs).abs() <= theirs.abs() * 1e-14, "{number}: {ours} {theirs}");
        }
    }
}
