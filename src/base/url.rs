//! Addresses of HTTP services: `http://HOST:PORT` and nothing behind it.
//!
//! Why an own type: listeners, advertised addresses and endpoints are this one form, and a port
//! somebody forgot or a path somebody added should be refused where it was written, with the form
//! that is right, not where a connection fails. Parsing resolves no names, and the address types
//! are those of `core`: words, no sockets.
//!
//! Invariants:
//! * Every `HttpUrl` has a host and a port, and prints as text that parses to itself.
//!
//! Deliberately not here: `https`, paths and credentials; they are refused with a reason.
//!
//! Sources: RFC 3986 section 3.2.

use core::net::{IpAddr, SocketAddr};
use std::fmt;
use std::str::FromStr;

/// Why text is not an `HttpUrl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// No `http://` in front.
    #[error("does not start with http://")]
    Scheme,
    /// TLS is asked for.
    #[error("asks for TLS, which this version does not have")]
    Tls,
    /// The host is missing or holds other characters than names and addresses do.
    #[error("has no valid host (an IPv6 address stands in brackets)")]
    Host,
    /// The port is missing or not a number up to 65535.
    #[error("has no valid port")]
    Port,
    /// Something follows the port.
    #[error("has something behind its port")]
    Path,
    /// `user:password@`.
    #[error("holds credentials")]
    Credentials,
}

/// `http://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpUrl {
    host: String,
    port: u16,
}

impl HttpUrl {
    /// The address of this socket.
    #[must_use]
    pub fn of(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }

    /// Name or address, an IPv6 address without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 where the system shall choose one.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same host with another port.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        Self { host: self.host.clone(), port }
    }

    /// The same port with another host name.
    #[must_use]
    pub fn with_host(&self, host: &str) -> Self {
        Self { host: host.to_owned(), port: self.port }
    }

    /// The socket address, if the host is an address; `localhost` is 127.0.0.1 (RFC 6761).
    #[must_use]
    pub fn socket_address(&self) -> Option<SocketAddr> {
        let host = if self.host == "localhost" { "127.0.0.1" } else { &self.host };
        host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }

    /// `HOST:PORT` as a `Host` header and a connect call want it.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HttpUrl {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        if text.starts_with("https://") {
            return Err(BadUrl::Tls);
        }
        let rest = text.strip_prefix("http://").ok_or(BadUrl::Scheme)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(BadUrl::Path);
        }
        if rest.contains('@') {
            return Err(BadUrl::Credentials);
        }
        let (host, port) = rest.rsplit_once(':').ok_or(BadUrl::Port)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(ip6) => ip6.parse::<core::net::Ipv6Addr>().map_err(|_| BadUrl::Host)?.to_string(),
            None if is_name(host) => host.to_ascii_lowercase(),
            None => return Err(BadUrl::Host),
        };
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| is_number).ok_or(BadUrl::Port)?;
        Ok(Self { host, port })
    }
}

fn is_name(host: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !host.is_empty() && host.bytes().all(fits)
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls_print_as_themselves() {
        for text in ["http://127.0.0.1:2379", "http://[::1]:0", "http://a-b.example:80"] {
            assert_eq!(text.parse::<HttpUrl>().unwrap().to_string(), text);
        }
        let url: HttpUrl = "http://LocalHost:1/".parse().unwrap();
        assert_eq!(url.to_string(), "http://localhost:1");
        assert_eq!(url.socket_address(), Some("127.0.0.1:1".parse().unwrap()));
        assert_eq!(url.with_port(9).with_host("b").authority(), "b:9");
        let six: HttpUrl = "http://[0:0::1]:5".parse().unwrap();
        assert_eq!((six.host(), six.authority().as_str()), ("::1", "[::1]:5"));
        assert_eq!(HttpUrl::of("[::1]:5".parse().unwrap()), six);
        assert_eq!("http://db:1".parse::<HttpUrl>().unwrap().socket_address(), None);
    }

    #[test]
    fn bad_urls_say_what_is_wrong() {
        let table = [
            ("", BadUrl::Scheme),
            ("127.0.0.1:2379", BadUrl::Scheme),
            ("https://127.0.0.1:2379", BadUrl::Tls),
            ("http://", BadUrl::Port),
            ("http://:2379", BadUrl::Host),
            ("http://a b:2379", BadUrl::Host),
            ("http://::1:2379", BadUrl::Host),
            ("http://[::g]:2379", BadUrl::Host),
            ("http://[::1]", BadUrl::Host),
            ("http://127.0.0.1", BadUrl::Port),
            ("http://127.0.0.1:", BadUrl::Port),
            ("http://127.0.0.1:+1", BadUrl::Port),
            ("http://127.0.0.1:65536", BadUrl::Port),
            ("http://127.0.0.1:1/v2", BadUrl::Path),
            ("http://me:pw@127.0.0.1:1", BadUrl::Credentials),
        ];
        for (text, why) in table {
            assert_eq!(text.parse::<HttpUrl>(), Err(why), "{text}");
        }
    }
}
