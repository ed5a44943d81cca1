//! What a host name, a port, an address and a name are.
//!
//! Why strict: a value that passes is put into a file as it is, and a program that reads it may
//! guess (`080` as octal, `1.2.3` as an address).
//!
//! Invariant: what passes has one meaning and is written in one way.
//!
//! Deliberately not here: whether a host exists.
//!
//! Sources: RFC 1123 section 2.1, inet_aton(3) on numbers that look like addresses.

use std::net::IpAddr;

/// A host name or an IP address.
pub(crate) fn is_host(text: &str) -> bool {
    is_ip(text) || is_name(text)
}

fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len())
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // What is all numbers is an address to most programs, and not the one that was meant.
    let number = |label: &str| {
        let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
        hex.map_or(label.chars().all(|c| c.is_ascii_digit()), |digits| {
            digits.chars().all(|c| c.is_ascii_hexdigit())
        })
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    name.len() <= 253 && name.split('.').all(label) && !name.split('.').all(number)
}

/// An IPv4 or IPv6 address.
pub(crate) fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// A port from 1 to 65535 in plain digits.
pub(crate) fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0 && port.to_string() == text)
}

/// Letters, digits, `_`, `-` and `.`, with a letter, a digit or `_` in front: no option, no
/// hidden file, no parent directory.
pub(crate) fn is_ident(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    !text.is_empty() && text.chars().all(inner) && !text.starts_with(['-', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validators_know_their_kind() {
        type Case = (fn(&str) -> bool, &'static [&'static str], &'static [&'static str]);
        let cases: [Case; 4] = [
            (
                is_host,
                &[
                    "web1",
                    "a.example.test",
                    "10.0.0.1",
                    "fd00::1",
                    "x.",
                    "_srv.a",
                    "1.example",
                    "0xa.b",
                ],
                &[
                    "",
                    ".",
                    "a b",
                    "-a",
                    "a-",
                    "a..b",
                    "a\nb",
                    "ü",
                    "256.1.1.1",
                    "1.2.3",
                    "10",
                    "0x7f.1",
                    "192.0.2.1.",
                    "192.0.2.1.5",
                ],
            ),
            (is_ip, &["192.0.2.1", "::1"], &["", "1.2.3", "192.0.2.1/24", "[::1]", "192.0.2.01"]),
            (
                is_port,
                &["1", "80", "65535"],
                &["", "0", "65536", "+80", "080", "80.0", "-1", " 80"],
            ),
            (
                is_ident,
                &["a-b_c.1", "_x", "9"],
                &["", "a/b", "a b", ".", "..", "-rf", ".hidden", "ü"],
            ),
        ];
        for (is_it, good, bad) in cases {
            assert_eq!(good.iter().filter(|text| !is_it(text)).collect::<Vec<_>>(), [&""; 0]);
            assert_eq!(bad.iter().filter(|text| is_it(text)).collect::<Vec<_>>(), [&""; 0]);
        }
    }
}
