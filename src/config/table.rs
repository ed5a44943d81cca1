//! One row a setting: its names in the three places, its default, what it means, how it is read.
//!
//! Why a table: the command line's help, the reader of the file, the environment and the error
//! messages cannot drift apart when all of them are this one list. A new setting is a row here
//! and a field of `Config`.
//!
//! Invariants:
//! * Names are unique in each place; environment names start with `ALTHING_`.
//! * A row's own default always parses.
//!
//! Deliberately not here: rules between settings (`load`).
//!
//! Sources: flag names are etcd's (`server/etcdmain/help.go`) and confd's where they have one.

use crate::base::limits;
use crate::base::time::parse_duration;
use crate::base::url::HttpUrl;
use crate::config::ListenUrl;
use std::path::PathBuf;
use std::time::Duration;

/// What one setting is called and means.
#[derive(Debug)]
pub struct Spec {
    /// Key in the TOML file, and the name in messages.
    pub key: &'static str,
    /// Flag, without its dashes.
    pub flag: &'static str,
    /// Environment variable.
    pub env: &'static str,
    /// Default, as one would write it; empty = worked out from the surroundings.
    pub default: &'static str,
    /// Word for the value in help; empty = a switch.
    pub value_name: &'static str,
    /// One line of help.
    pub doc: &'static str,
    /// Whether a change of it takes effect at a reload (SIGHUP); else at a restart.
    pub live: bool,
}

/// A value that cannot be, and what would be right.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong with it.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl Wrong {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// A setting with the reader of its text.
#[derive(Debug)]
pub struct Row<T> {
    /// Names and meaning.
    pub spec: Spec,
    /// Reads what was written in any of the places.
    pub parse: fn(&str) -> Result<T, Wrong>,
}

/// Name of the member.
pub static NAME: Row<String> = Row {
    spec: Spec {
        key: "name",
        flag: "name",
        env: "ALTHING_NAME",
        default: "",
        value_name: "NAME",
        doc: "Name of this member; the host name unless given",
        live: false,
    },
    parse: name,
};

/// Directory of the store.
pub static DATA_DIR: Row<PathBuf> = Row {
    spec: Spec {
        key: "data_dir",
        flag: "data-dir",
        env: "ALTHING_DATA_DIR",
        default: "/var/lib/althing",
        value_name: "DIR",
        doc: "Directory of the store",
        live: false,
    },
    parse: directory,
};

/// Client listeners.
pub static LISTEN_CLIENT_URLS: Row<Vec<ListenUrl>> = Row {
    spec: Spec {
        key: "listen_client_urls",
        flag: "listen-client-urls",
        env: "ALTHING_LISTEN_CLIENT_URLS",
        default: "http://127.0.0.1:2379,http://[::1]:2379",
        value_name: "URLS",
        doc: "Addresses to serve clients on, with commas between; port 0 lets the system choose",
        live: false,
    },
    parse: listeners,
};

/// What others are told.
pub static ADVERTISE_CLIENT_URLS: Row<Vec<HttpUrl>> = Row {
    spec: Spec {
        key: "advertise_client_urls",
        flag: "advertise-client-urls",
        env: "ALTHING_ADVERTISE_CLIENT_URLS",
        default: "",
        value_name: "URLS",
        doc: "Addresses clients are told to use; the first listener unless given",
        live: false,
    },
    parse: advertised,
};

/// Resources and templates.
pub static CONFDIR: Row<PathBuf> = Row {
    spec: Spec {
        key: "confdir",
        flag: "confdir",
        env: "ALTHING_CONFDIR",
        default: "/etc/althing",
        value_name: "DIR",
        doc: "Directory that holds conf.d/ and templates/",
        live: true,
    },
    parse: directory,
};

/// Where files may be rendered to.
pub static ALLOWED_DIRS: Row<Vec<PathBuf>> = Row {
    spec: Spec {
        key: "allowed_dirs",
        flag: "allowed-dirs",
        env: "ALTHING_ALLOWED_DIRS",
        default: "",
        value_name: "DIRS",
        doc: "Directories that files may be rendered to, with commas between; everywhere but in \
              the daemon's own unless given",
        live: false,
    },
    parse: directories,
};

/// Consent to plain text beyond loopback.
pub static INSECURE: Row<bool> = Row {
    spec: Spec {
        key: "insecure",
        flag: "insecure",
        env: "ALTHING_INSECURE",
        default: "false",
        value_name: "",
        doc: "Allow clients to be served without TLS beyond loopback",
        live: false,
    },
    parse: switch,
};

/// Readiness without the files.
pub static RENDER_TIMEOUT: Row<Duration> = Row {
    spec: Spec {
        key: "render_timeout",
        flag: "render-timeout",
        env: "ALTHING_RENDER_TIMEOUT",
        default: "30s",
        value_name: "TIME",
        doc: "Longest wait for all files before systemd is told that the start is complete",
        live: false,
    },
    parse: length_of_time,
};

/// Every setting, in the order of help and of messages.
pub static SPECS: [&Spec; 8] = [
    &NAME.spec,
    &DATA_DIR.spec,
    &LISTEN_CLIENT_URLS.spec,
    &ADVERTISE_CLIENT_URLS.spec,
    &CONFDIR.spec,
    &ALLOWED_DIRS.spec,
    &INSECURE.spec,
    &RENDER_TIMEOUT.spec,
];

fn name(text: &str) -> Result<String, Wrong> {
    let help = "write one word without control characters, such as the host name";
    if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Wrong::new("is not a name", help));
    }
    if text.len() > limits::MEMBER_NAME_BYTES_MAX {
        let message = format!("is longer than {} bytes", limits::MEMBER_NAME_BYTES_MAX);
        return Err(Wrong::new(message, help));
    }
    Ok(text.to_owned())
}

fn directory(text: &str) -> Result<PathBuf, Wrong> {
    if text.is_empty() || text.contains('\0') {
        return Err(Wrong::new("is not a directory", "write its path"));
    }
    Ok(PathBuf::from(text))
}

fn directories(text: &str) -> Result<Vec<PathBuf>, Wrong> {
    let read = text.split(',').map(|part| match directory(part.trim())? {
        path if path.is_absolute() => Ok(path),
        path => {
            let message = format!("`{}` is not the whole path of a directory", path.display());
            Err(Wrong::new(message, "write it from its `/`, such as /etc/haproxy"))
        }
    });
    read.collect()
}

fn listeners(text: &str) -> Result<Vec<ListenUrl>, Wrong> {
    let help = "write an address of this host, such as http://127.0.0.1:2379";
    let listeners = urls(text, help)?.into_iter().map(|url| match url.socket_address() {
        Some(address) => Ok(ListenUrl(address)),
        None => {
            let message = format!("`{url}` names a host, and a listener needs an address");
            Err(Wrong::new(message, help))
        }
    });
    listeners.collect()
}

fn advertised(text: &str) -> Result<Vec<HttpUrl>, Wrong> {
    urls(text, "write an address others can reach, such as http://db1.example:2379")
}

fn urls(text: &str, help: &str) -> Result<Vec<HttpUrl>, Wrong> {
    let mut urls = Vec::new();
    for part in text.split(',').map(str::trim) {
        let url: HttpUrl =
            part.parse().map_err(|why| Wrong::new(format!("`{part}` {why}"), help))?;
        if urls.contains(&url) && url.port() != 0 {
            return Err(Wrong::new(format!("`{part}` is there twice"), "write it once"));
        }
        urls.push(url);
    }
    if urls.len() > limits::CLIENT_URLS_MAX {
        let message = format!("has {} addresses", urls.len());
        return Err(Wrong::new(message, format!("write at most {}", limits::CLIENT_URLS_MAX)));
    }
    Ok(urls)
}

fn length_of_time(text: &str) -> Result<Duration, Wrong> {
    let help = "write a whole number and a unit: ms, s, m or h, as in 30s";
    parse_duration(text).ok_or_else(|| Wrong::new("is not a length of time", help))
}

fn switch(text: &str) -> Result<bool, Wrong> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Wrong::new("is neither true nor false", "write true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_defaults_parse() {
        let unique = |name: fn(&Spec) -> &str| {
            SPECS.iter().map(|spec| name(spec)).collect::<BTreeSet<_>>().len() == SPECS.len()
        };
        assert!(unique(|spec| spec.key) && unique(|spec| spec.flag) && unique(|spec| spec.env));
        for spec in SPECS {
            assert!(spec.env.starts_with("ALTHING_"), "{spec:?}");
            assert_eq!(spec.flag, spec.key.replace('_', "-"), "{spec:?}");
        }
        assert!((DATA_DIR.parse)(DATA_DIR.spec.default).is_ok());
        assert!((CONFDIR.parse)(CONFDIR.spec.default).is_ok());
        assert_eq!((INSECURE.parse)(INSECURE.spec.default), Ok(false));
        let patience = (RENDER_TIMEOUT.parse)(RENDER_TIMEOUT.spec.default);
        assert_eq!(patience, Ok(Duration::from_secs(30)));
        let both = (LISTEN_CLIENT_URLS.parse)(LISTEN_CLIENT_URLS.spec.default).unwrap();
        assert_eq!(both.len(), 2);
        assert!(both.iter().all(|url| url.is_loopback()));
    }

    #[test]
    fn bad_values_are_refused_with_the_right_form() {
        let listen = |text| listeners(text).unwrap_err().message;
        let twice = "http://127.0.0.1:1,http://127.0.0.1:1";
        let many = vec!["http://127.0.0.1:0"; 17].join(",");
        let cases = [
            (name("").unwrap_err().message, "is not a name"),
            (name("a b").unwrap_err().message, "is not a name"),
            (name(&"x".repeat(300)).unwrap_err().message, "is longer than 255 bytes"),
            (directory("").unwrap_err().message, "is not a directory"),
            (directories("/a,b").unwrap_err().message, "`b` is not the whole path"),
            (directories("/a,").unwrap_err().message, "is not a directory"),
            (switch("maybe").unwrap_err().message, "is neither true nor false"),
            (length_of_time("30").unwrap_err().message, "is not a length of time"),
            (listen(""), "`` does not start with http://"),
            (listen("http://db1:2379"), "`http://db1:2379` names a host"),
            (listen("http://127.0.0.1"), "`http://127.0.0.1` has no valid port"),
            (listen("https://127.0.0.1:1"), "`https://127.0.0.1:1` asks for TLS"),
            (listen(twice), "`http://127.0.0.1:1` is there twice"),
            (listen(&many), "has 17 addresses"),
        ];
        for (message, start) in cases {
            assert!(message.starts_with(start), "{message}");
        }
        assert!(listeners("http://127.0.0.1:0, http://127.0.0.1:0").is_ok());
        assert!(!listeners("http://0.0.0.0:1").unwrap()[0].is_loopback());
        assert!(listeners("http://[::ffff:127.0.0.1]:1").unwrap()[0].is_loopback());
        assert_eq!(advertised("http://db1:0").unwrap().len(), 1);
    }
}
