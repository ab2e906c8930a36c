//! The one form in which addresses stand in the maps: 16 bytes in network order,
//! IPv4 as an IPv4-mapped IPv6 address (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2).
//!
//! One form means one lookup whether a client dials `10.96.0.7` from an IPv4 socket
//! or `::ffff:10.96.0.7` from an IPv6 one, as Java and Go do.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The first 12 bytes of every IPv4-mapped address.
pub const MAPPED_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// The 16-byte form of an address.
#[must_use]
pub const fn to_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address that the 16 bytes stand for; mapped addresses come back as IPv4.
#[must_use]
pub fn from_bytes(bytes: [u8; 16]) -> IpAddr {
    let v6 = Ipv6Addr::from(bytes);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

/// The 16-byte form of four IPv4 octets.
#[must_use]
pub const fn mapped(octets: [u8; 4]) -> [u8; 16] {
    Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])
        .to_ipv6_mapped()
        .octets()
}

/// Whether the 16 bytes stand for an IPv4 address.
#[must_use]
pub fn is_mapped(bytes: &[u8; 16]) -> bool {
    bytes[..12] == MAPPED_PREFIX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_and_its_mapped_form_are_one_address() {
        let plain: IpAddr = [10, 96, 0, 7].into();
        let mapped_form = IpAddr::V6(Ipv4Addr::new(10, 96, 0, 7).to_ipv6_mapped());
        assert_eq!(to_bytes(plain), to_bytes(mapped_form));
        assert_eq!(to_bytes(plain), mapped([10, 96, 0, 7]));
        assert_eq!(from_bytes(to_bytes(mapped_form)), plain);
        assert!(is_mapped(&to_bytes(plain)));
    }

    #[test]
    fn ipv6_goes_through_unchanged() {
        let address: IpAddr = "fd00::7".parse().unwrap();
        assert_eq!(from_bytes(to_bytes(address)), address);
        assert!(!is_mapped(&to_bytes(address)));
    }
}
