//! The daemon's answer to `lookup_ip`: addresses of a host, by the system's resolver.
//!
//! Why here: a worker has no network. The system's resolver knows `/etc/hosts`, search domains
//! and whatever else the host is set up with, as confd's `lookupIP` did.
//!
//! Invariants:
//! * An answer comes within `limits::LOOKUP_MS_MAX`; what takes longer is no answer.
//! * Only what can be a host is asked for: the question comes from a worker, which may be in
//!   somebody else's hands.
//! * No more than `limits::LOOKUPS_AT_ONCE_MAX` threads wait for name servers, for the system's
//!   resolver cannot be interrupted.
//!
//! Deliberately not here: SRV records (`docs/decisions/no-srv-lookup.md`); telling why a name has
//! no addresses: to a template, none is an empty list.
//!
//! Sources: getaddrinfo(3); `contracts/confd.md` section 4.

use crate::base::limits;
use crate::render::engine::valid;
use std::collections::BTreeSet;
use std::net::ToSocketAddrs;
use std::time::Duration;
use tokio::sync::Semaphore;

static THREADS: Semaphore = Semaphore::const_new(limits::LOOKUPS_AT_ONCE_MAX);

/// The addresses of `host`, sorted as texts; none if they are not found within `patience`.
pub(crate) async fn addresses(host: String, patience: Duration) -> Vec<String> {
    let limit = patience.min(Duration::from_millis(limits::LOOKUP_MS_MAX));
    // Some resolvers take what is no host for a number, or wait long for it.
    if limit.is_zero() || !valid::is_host(&host) {
        return Vec::new();
    }
    tokio::time::timeout(limit, ask(host)).await.ok().flatten().unwrap_or_default()
}

async fn ask(host: String) -> Option<Vec<String>> {
    let thread = THREADS.acquire().await.ok()?;
    let found = tokio::task::spawn_blocking(move || {
        let _thread = thread;
        (host.as_str(), 0).to_socket_addrs().ok()
    });
    let texts: BTreeSet<String> = found.await.ok()??.map(|found| found.ip().to_string()).collect();
    Some(texts.into_iter().take(limits::LOOKUP_ADDRESSES_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_sorted_and_none_is_no_error() {
        let soon = Duration::from_millis(limits::LOOKUP_MS_MAX);
        let found = addresses("localhost".to_owned(), soon).await;
        assert!(
            found.iter().any(|address| address == "127.0.0.1" || address == "::1"),
            "{found:?}"
        );
        assert!(found.is_sorted());
        assert_eq!(addresses("192.0.2.7".to_owned(), soon).await, ["192.0.2.7"]);
        assert_eq!(addresses("no host".to_owned(), soon).await, [""; 0]);
        assert_eq!(addresses("localhost".to_owned(), Duration::ZERO).await, [""; 0]);
    }
}
