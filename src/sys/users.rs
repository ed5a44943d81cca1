//! Numbers of users and groups by their names.
//!
//! Why by hand: a static binary cannot load the name services of the C library, and the two files
//! are what a host has before its network. The lines are `name:password:number:...` in both.
//!
//! Invariant: a name that is all digits and is in no line is its own number, as in chown(1).
//!
//! Deliberately not here: directory services (LDAP, systemd-homed); such users are named by number.
//!
//! Sources: passwd(5), group(5).

use crate::sys::file::FileError;
use std::path::Path;

const USERS: &str = "/etc/passwd";

/// Why a name has no number.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The file of names cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It has no such name.
    #[error("there is no {kind} `{name}` in {file}; create it, or give its number")]
    Unknown {
        /// "user" or "group".
        kind: &'static str,
        /// The name.
        name: String,
        /// Where it was looked for.
        file: &'static str,
    },
    /// Only root may become somebody else.
    #[error(
        "commands as user `{name}` need a daemon that runs as root; leave `user` out, or run it so"
    )]
    NotRoot {
        /// The user.
        name: String,
    },
}

impl AccountError {
    /// Whether it is about a user; else about a group.
    #[must_use]
    pub fn is_of_user(&self) -> bool {
        match self {
            Self::File(error) => error.path.ends_with("passwd"),
            Self::Unknown { kind, .. } => *kind == "user",
            Self::NotRoot { .. } => true,
        }
    }
}

/// Whom a process runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Number of the user.
    pub user: u32,
    /// Number of its first group; it is in no other.
    pub group: u32,
}

impl Identity {
    /// The user of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(name: &str) -> Result<Self, AccountError> {
        let lines = read(Path::new(USERS))?;
        let find = |field| number_in(&lines, name, field);
        let unknown = || AccountError::Unknown { kind: "user", name: name.to_owned(), file: USERS };
        find(2).zip(find(3)).map(|(user, group)| Self { user, group }).ok_or_else(unknown)
    }

    /// The user of this name, if this process may become it; `None` = it is that user.
    ///
    /// # Errors
    /// When there is none, or this process may not.
    pub fn to_become(name: &str) -> Result<Option<Self>, AccountError> {
        let wanted = Self::of(name)?;
        let own = rustix::process::geteuid();
        match own.as_raw() == wanted.user {
            true => Ok(None),
            false if own.is_root() => Ok(Some(wanted)),
            false => Err(AccountError::NotRoot { name: name.to_owned() }),
        }
    }
}

/// The number of a user.
///
/// # Errors
/// When there is none of this name.
pub fn user_id(name: &str) -> Result<u32, AccountError> {
    look_up("user", name, USERS)
}

/// The number of a group.
///
/// # Errors
/// When there is none of this name.
pub fn group_id(name: &str) -> Result<u32, AccountError> {
    look_up("group", name, "/etc/group")
}

fn look_up(kind: &'static str, name: &str, file: &'static str) -> Result<u32, AccountError> {
    number_in(&read(Path::new(file))?, name, 2)
        .or_else(|| name.parse().ok())
        .ok_or_else(|| AccountError::Unknown { kind, name: name.to_owned(), file })
}

fn read(path: &Path) -> Result<String, AccountError> {
    let lines = std::fs::read(path).map_err(FileError::at("read", path))?;
    Ok(String::from_utf8_lossy(&lines).into_owned())
}

/// The number in a field of the line of this name; fields count from 0.
fn number_in(lines: &str, name: &str, field: usize) -> Option<u32> {
    lines.lines().find_map(|line| {
        let mut fields = line.split(':');
        let number = (fields.next() == Some(name)).then(|| fields.nth(field - 1)).flatten();
        number?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_numbers_taken() {
        let lines = "# comment\nroot:x:0:0:root:/root:/bin/sh\nbroken\nrootless:x:7:\n12:x:99:\n";
        let cases = [("root", Some(0)), ("rootless", Some(7)), ("roo", None), ("12", Some(99))];
        for (name, number) in cases {
            assert_eq!(number_in(lines, name, 2), number, "{name}");
        }
        assert_eq!((user_id("root").unwrap(), group_id("4711").unwrap()), (0, 4711));
        assert_eq!(number_in("a:x:5:6:::", "a", 3), Some(6));
        assert_eq!(Identity::of("root").unwrap(), Identity { user: 0, group: 0 });
        assert!(Identity::of("4711").is_err(), "which group would it have?");
        let error = user_id("no such user").unwrap_err().to_string();
        assert!(error.contains("no user `no such user` in /etc/passwd"), "{error}");
    }
}
