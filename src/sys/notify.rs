//! Telling the service manager how this process is doing.
//!
//! What: datagrams of `NAME=VALUE` lines to the socket systemd names in `$NOTIFY_SOCKET`: ready,
//! reloading, stopping, a line of status, a sign of life. Why not a crate: the protocol is one
//! `sendto`, and the standard library knows abstract sockets.
//!
//! How data passes: environment -> `Notifier` -> `send`, one datagram for all messages of a call,
//! so that "ready" and its status arrive together.
//!
//! Invariants:
//! * Without `$NOTIFY_SOCKET` every call is a success that does nothing.
//! * A manager that does not read holds nobody up for longer than `limits::NOTIFY_SEND_MS_MAX`.
//! * A status is one line, whatever is in it.
//!
//! Deliberately not here: when to say what (`daemon::manager`), and taking the variables out of
//! the environment: that is not thread-safe. Commands start with an empty one (`exec`), and
//! `PRIVATE` names what templates must not see.
//!
//! Sources: sd_notify(3), sd_watchdog_enabled(3).

use crate::base::limits;
use rustix::time::{ClockId, clock_gettime};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The variables that are between this process and its manager.
pub const PRIVATE: &[&str] = &["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Something the service manager wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The start, or the reload, is complete.
    Ready,
    /// Resources and templates are read again; `Ready` follows.
    Reloading,
    /// The end has begun.
    Stopping,
    /// Every loop of this process turns.
    Watchdog,
    /// What `systemctl status` shows.
    Status(&'a str),
}

/// The service manager cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} the service manager's socket {socket}", socket = socket.display())]
pub struct NotifyError {
    doing: &'static str,
    socket: OsString,
    /// What the system said.
    #[source]
    source: io::Error,
}

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    way: Option<Way>,
    watchdog: Option<Duration>,
}

#[derive(Debug)]
struct Way {
    name: OsString,
    from: UnixDatagram,
    to: SocketAddr,
}

impl Notifier {
    /// The one this process was started with.
    ///
    /// # Errors
    /// When `$NOTIFY_SOCKET` names no socket that can be used.
    pub fn of_this_process() -> Result<Self, NotifyError> {
        Self::of(|name| std::env::var_os(name), std::process::id())
    }

    /// The one these variables tell of, for the process `pid`.
    ///
    /// # Errors
    /// As `of_this_process`.
    pub fn of(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Result<Self, NotifyError> {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Self::default());
        };
        let number = |name| variable(name).and_then(|text| text.to_str()?.parse::<u64>().ok());
        // The variables may have been left by a parent, whose watchdog is not ours.
        let is_ours = variable("WATCHDOG_PID").is_none()
            || number("WATCHDOG_PID").is_some_and(|wanted| wanted == u64::from(pid));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| is_ours && *usec > 0);
        let way = Way::open(&name).map_err(|source| NotifyError {
            doing: "use",
            socket: name,
            source,
        })?;
        Ok(Self { way: Some(way), watchdog: watchdog.map(Duration::from_micros) })
    }

    /// The time within which the manager wants a sign of life, again and again.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends the messages as one datagram.
    ///
    /// # Errors
    /// When the manager's socket is gone, or full for too long.
    pub fn send(&self, messages: &[Message<'_>]) -> Result<(), NotifyError> {
        let Some(way) = &self.way else { return Ok(()) };
        let text: String = messages.iter().map(Message::line).collect();
        let sent = way.from.send_to_addr(text.as_bytes(), &way.to);
        sent.map(drop).map_err(|source| NotifyError {
            doing: "write to",
            socket: way.name.clone(),
            source,
        })
    }
}

impl Way {
    fn open(name: &OsStr) -> io::Result<Self> {
        let from = UnixDatagram::unbound()?;
        from.set_write_timeout(Some(Duration::from_millis(limits::NOTIFY_SEND_MS_MAX)))?;
        Ok(Self { name: name.to_owned(), from, to: address(name)? })
    }
}

/// `/a/path`, or `@name` in the abstract name space.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor @name")),
    }
}

impl Message<'_> {
    fn line(&self) -> String {
        match self {
            Self::Ready => "READY=1\n".to_owned(),
            Self::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic_usec()),
            Self::Stopping => "STOPPING=1\n".to_owned(),
            Self::Watchdog => "WATCHDOG=1\n".to_owned(),
            Self::Status(text) => {
                let plain = |c: char| if c.is_control() { ' ' } else { c };
                format!("STATUS={}\n", text.chars().map(plain).collect::<String>())
            }
        }
    }
}

/// By this the manager tells a reload that has begun from one it has asked for since.
fn monotonic_usec() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notifier(variables: &[(&str, &str)]) -> Result<Notifier, NotifyError> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        Notifier::of(|name| find(name).map(|(_, value)| OsString::from(value)), 7)
    }

    fn received(socket: &UnixDatagram) -> String {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn messages_arrive_as_one_datagram() {
        std::fs::create_dir_all("target").unwrap();
        let dir = tempfile::tempdir_in("target").unwrap();
        let path = dir.path().canonicalize().unwrap().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(&[("NOTIFY_SOCKET", path.to_str().unwrap())]).unwrap();
        notifier.send(&[Message::Ready, Message::Status("two\nlines")]).unwrap();
        assert_eq!(received(&socket), "READY=1\nSTATUS=two lines\n");
        notifier.send(&[Message::Stopping]).unwrap();
        assert_eq!(received(&socket), "STOPPING=1\n");
        drop(socket);
        std::fs::remove_file(&path).unwrap();
        let error = notifier.send(&[Message::Watchdog]).unwrap_err();
        assert!(error.to_string().starts_with("cannot write to the service manager's socket /"));
    }

    #[test]
    fn an_abstract_socket_is_one_too() {
        let name = format!("althing-notify-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap());
        let socket = socket.unwrap();
        let notifier = notifier(&[("NOTIFY_SOCKET", &format!("@{name}"))]).unwrap();
        let before = monotonic_usec();
        notifier.send(&[Message::Reloading]).unwrap();
        let text = received(&socket);
        let stamp = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!((before..=monotonic_usec()).contains(&stamp.trim().parse().unwrap()), "{text}");
    }

    #[test]
    fn the_watchdog_is_that_of_this_process() {
        let ours = [("NOTIFY_SOCKET", "@x"), ("WATCHDOG_USEC", "5000000")];
        let with = |more: (&'static str, &'static str)| [ours[0], ours[1], more];
        assert_eq!(notifier(&ours[1..]).unwrap().watchdog(), None);
        assert_eq!(notifier(&ours).unwrap().watchdog(), Some(Duration::from_secs(5)));
        for (pid, expected) in [("7", Some(5)), ("8", None), ("x", None)] {
            let watchdog = notifier(&with(("WATCHDOG_PID", pid))).unwrap().watchdog();
            assert_eq!(watchdog, expected.map(Duration::from_secs), "{pid}");
        }
        let never = [ours[0], ("WATCHDOG_USEC", "0")];
        assert_eq!(notifier(&never).unwrap().watchdog(), None);
    }

    #[test]
    fn without_a_socket_nothing_is_said_and_a_bad_one_is_an_error() {
        for none in [&[][..], &[("NOTIFY_SOCKET", "")]] {
            notifier(none).unwrap().send(&[Message::Ready]).unwrap();
        }
        let error = notifier(&[("NOTIFY_SOCKET", "vsock:2:1")]).unwrap_err();
        assert_eq!(error.to_string(), "cannot use the service manager's socket vsock:2:1");
    }
}
