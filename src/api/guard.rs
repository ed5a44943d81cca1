//! Who is asking: a client, or a web page in somebody's browser?
//!
//! A browser lets any page send requests to any address, also to this host's loopback, and a page
//! can make its own name resolve to it. Browsers tell on themselves by three headers: `Origin`
//! names the page, `Sec-Fetch-Site` says that it is another site's, `Host` is the name that was
//! looked up. So a request with an origin that is not allowed, or from another site, is refused,
//! and on a loopback listener also one for a host name that is not this host's.
//!
//! Invariant: without configuration no web page gets an answer, nor does anything it asks for
//! happen.

use crate::api::reply::{self, Response};
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Request, StatusCode};
use std::net::IpAddr;

/// Which web pages may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cors {
    /// None.
    #[default]
    Off,
    /// Every one, as etcd does.
    Any,
    /// Those of these origins, verbatim.
    Listed(Vec<String>),
}

/// What one listener lets in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Which web pages may ask.
    pub cors: Cors,
    /// The names of this host, when the listener is on loopback: other names are refused.
    /// `localhost` and loopback addresses are always good. `None` = any name is.
    pub hosts: Option<Vec<String>>,
}

impl Policy {
    /// Lets a request in, with the origin its answer is to name, or says why not.
    pub(super) fn admit<B>(
        &self,
        request: &Request<B>,
    ) -> Result<Option<HeaderValue>, Box<Response>> {
        if let Some(hosts) = &self.hosts
            && host_of(request).is_some_and(|host| !is_ours(host, hosts))
        {
            return Err(refusal(
                "this listener is for this host alone, and the request names another: \
                 ask for localhost, or add the name to the client URLs\n",
            ));
        }
        let origin = request.headers().get(header::ORIGIN);
        match (&self.cors, origin) {
            (Cors::Any, _) => Ok(Some(HeaderValue::from_static("*"))),
            (Cors::Off | Cors::Listed(_), None) if is_cross_site(request) => {
                Err(refusal("requests that other web sites cause are refused\n"))
            }
            (Cors::Off | Cors::Listed(_), None) => Ok(None),
            (Cors::Listed(allowed), Some(origin))
                if allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) =>
            {
                Ok(Some(origin.clone()))
            }
            (Cors::Off | Cors::Listed(_), Some(_)) => Err(refusal(
                "requests of web pages (with an Origin) are refused: use a client outside the \
                 browser\n",
            )),
        }
    }
}

/// Names the origin an answer is for.
pub(super) fn allow(response: &mut Response, origin: HeaderValue) {
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
    let names = HeaderValue::from_static("accept, content-type, authorization");
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
}

fn refusal(why: &'static str) -> Box<Response> {
    Box::new(reply::text(StatusCode::FORBIDDEN, Bytes::from_static(why.as_bytes())))
}

/// Whether a browser says that another site's page caused a request, which then may lack an
/// `Origin`: an image, a link.
fn is_cross_site<B>(request: &Request<B>) -> bool {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    let site = request.headers().get(SITE).map(HeaderValue::as_bytes);
    !matches!(site, None | Some(b"none" | b"same-origin"))
}

/// The host a request is for, without port: HTTP/1 has a header for it, HTTP/2 the authority.
fn host_of<B>(request: &Request<B>) -> Option<&[u8]> {
    let header = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
    let named =
        header.or_else(|| request.uri().authority().map(|name| name.as_str().as_bytes()))?;
    if let Some(rest) = named.strip_prefix(b"[") {
        return Some(rest.split(|byte| *byte == b']').next().unwrap_or(rest));
    }
    Some(named.split(|byte| *byte == b':').next().unwrap_or(named))
}

fn is_ours(host: &[u8], hosts: &[String]) -> bool {
    let named = |name: &String| host.eq_ignore_ascii_case(name.as_bytes());
    // Not every address: 0.0.0.0 reaches loopback too, past what browsers do to keep pages off.
    let is_address = || {
        let address = std::str::from_utf8(host).ok().and_then(|host| host.parse::<IpAddr>().ok());
        address.is_some_and(|address| address.to_canonical().is_loopback())
    };
    host.is_empty()
        || host.eq_ignore_ascii_case(b"localhost")
        || is_address()
        || hosts.iter().any(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host: &str, origin: Option<&str>) -> Request<()> {
        let mut request = Request::builder().uri("/v2/keys/a").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn a_foreign_name_is_refused_on_loopback() {
        let policy = Policy { hosts: Some(vec!["node1.lan".into()]), ..Policy::default() };
        let good = [
            "localhost:2379",
            "LOCALHOST",
            "127.0.0.1:2379",
            "[::1]:2379",
            "127.9.9.9",
            "Node1.lan:2379",
            "",
        ];
        for host in good {
            assert!(policy.admit(&request(host, None)).is_ok(), "{host}");
        }
        let bad =
            ["evil.example", "localhost.evil.example", "node1", "0.0.0.0", "203.0.113.1:2379"];
        for host in bad {
            let refused = policy.admit(&request(host, None)).unwrap_err();
            assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{host}");
        }
        assert!(Policy::default().admit(&request("evil.example", None)).is_ok());
    }

    #[test]
    fn what_another_site_causes_is_refused_without_an_origin_too() {
        let from = |site: &str| {
            let builder = Request::builder().uri("/v2/keys/a").header("host", "localhost");
            builder.header("sec-fetch-site", site).body(()).unwrap()
        };
        for site in ["cross-site", "same-site", ""] {
            let refused = Policy::default().admit(&from(site)).unwrap_err();
            assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{site}");
        }
        for site in ["none", "same-origin"] {
            assert!(Policy::default().admit(&from(site)).is_ok(), "{site}");
        }
        let any = Policy { cors: Cors::Any, hosts: None };
        assert!(any.admit(&from("cross-site")).is_ok());
    }

    #[test]
    fn web_pages_need_to_be_allowed() {
        let page = request("localhost", Some("http://a.example"));
        let listed = |origin: &str| Policy { cors: Cors::Listed(vec![origin.into()]), hosts: None };
        assert!(Policy::default().admit(&page).is_err());
        assert!(listed("http://b.example").admit(&page).is_err());
        let echoed = listed("http://a.example").admit(&page).unwrap();
        assert_eq!(echoed, Some(HeaderValue::from_static("http://a.example")));
        let any = Policy { cors: Cors::Any, hosts: None };
        assert_eq!(any.admit(&page).unwrap(), Some(HeaderValue::from_static("*")));
        assert_eq!(any.admit(&request("x", None)).unwrap(), Some(HeaderValue::from_static("*")));
        assert_eq!(listed("x").admit(&request("x", None)).unwrap(), None);
    }
}
