//! Identities and counters, each its own type.
//!
//! A `LogIndex` counts Raft entries, a `Revision` counts changes of the key space; mixing them up
//! is the classic bug of this field, so the compiler keeps them apart. Ids print as etcd prints
//! them: lower-case hexadecimal without leading zeros.

use std::fmt;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The next value. Panics after 2^64 steps, which no cluster reaches.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

counter! {
    /// Position of an entry in the Raft log, from 1.
    LogIndex
}
counter! {
    /// Raft term.
    Term
}
counter! {
    /// A state of the key space: v2's index and v3's revision are this one number.
    /// A new store is at revision 1; the first change makes revision 2 (etcd's rule).
    Revision
}
counter! {
    /// Number of a proposal among those of one origin and boot, from 1.
    Sequence
}
identity! {
    /// A member of the cluster: voter, learner or replica. Never 0, never used twice.
    MemberId
}
identity! {
    /// The cluster: a member refuses data and peers of another one.
    ClusterId
}
identity! {
    /// One run of a member's process; with `Sequence` it names a proposal for ever.
    BootId
}

/// A v3 lease. 0 = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// A part of the one MVCC store. The numbers are on disk: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Space {
    /// User keys: what v1, v2 and v3 see.
    Keys = 1,
    /// Explicit v2 directories, by path. v3 never sees them.
    Dirs = 2,
    /// v3 leases, by id.
    Leases = 3,
    /// Users, roles and whether authentication is on.
    Auth = 4,
    /// Members of the cluster, by id.
    Members = 5,
}

impl Space {
    /// The space with this number on disk.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Space> {
        match byte {
            1 => Some(Space::Keys),
            2 => Some(Space::Dirs),
            3 => Some(Space::Leases),
            4 => Some(Space::Auth),
            5 => Some(Space::Members),
            _ => None,
        }
    }
}
