//! `/v2/stats`: what this member has done, in the JSON of etcd 2.
//!
//! Invariants: numbers are this member's own, in memory, from 0 at its start; there is no newline
//! and no cluster header, unlike with keys.
//!
//! Sources: etcd's `etcdserver/api/v2stats` and `v2store/stats.go`; Go's `time.Duration.String`.

use crate::api::reply::{self, Response};
use crate::api::traffic::Traffic;
use crate::machine::Action;
use crate::node::{Figures, Handle, Role, Status, Tally};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The stats API of one node.
pub(in crate::api) struct Stats {
    node: Handle,
    traffic: Arc<Traffic>,
}

impl Stats {
    pub(in crate::api) fn new(node: Handle, traffic: Arc<Traffic>) -> Self {
        Self { node, traffic }
    }

    /// Answers a request for `/v2/stats/NAME`.
    pub(in crate::api) fn serve(&self, method: &Method, name: &[u8]) -> Response {
        let (status, value) = match name {
            _ if !matches!(name, b"self" | b"leader" | b"store") => return reply::not_found(),
            _ if *method != Method::GET => return reply::method_not_allowed("GET"),
            b"self" => (StatusCode::OK, this(&self.node.status(), self.node.now().1.0)),
            b"leader" => leader(&self.node.status()),
            _ => (StatusCode::OK, store(&self.node.figures(), self.traffic.reads())),
        };
        reply::json(status, value.to_string().into())
    }
}

fn this(status: &Status, now_nanos: u64) -> Value {
    let state = if status.role == Role::Leader { "StateLeader" } else { "StateFollower" };
    let uptime = match status.leader {
        Some(_) => now_nanos.saturating_sub(status.leader_since.0),
        None => 0,
    };
    json!({
        "name": status.name,
        "id": status.member.to_string(),
        "state": state,
        "startTime": status.started.to_string(),
        "leaderInfo": {
            "leader": status.leader.unwrap_or_default().to_string(),
            "uptime": go_duration(uptime),
            "startTime": status.leader_since.to_string(),
        },
        "recvAppendRequestCnt": 0,
        "sendAppendRequestCnt": 0,
    })
}

fn leader(status: &Status) -> (StatusCode, Value) {
    if status.leader == Some(status.member) {
        (StatusCode::OK, json!({ "leader": status.member.to_string(), "followers": {} }))
    } else {
        (StatusCode::FORBIDDEN, json!({ "message": "not current leader" }))
    }
}

fn store(figures: &Figures, reads: Tally) -> Value {
    let rows = [
        ("gets", reads),
        ("sets", figures.writes_of(Action::Set)),
        ("delete", figures.writes_of(Action::Delete)),
        ("update", figures.writes_of(Action::Update)),
        ("create", figures.writes_of(Action::Create)),
        ("compareAndSwap", figures.writes_of(Action::CompareAndSwap)),
        ("compareAndDelete", figures.writes_of(Action::CompareAndDelete)),
    ];
    let mut counters = Map::new();
    for (name, tally) in rows {
        counters.insert(format!("{name}Success"), tally.done.into());
        counters.insert(format!("{name}Fail"), tally.refused.into());
    }
    counters.insert("expireCount".into(), figures.writes_of(Action::Expire).done.into());
    counters.insert("watchers".into(), figures.watchers.into());
    Value::Object(counters)
}

/// A time span as Go prints it: `1h5m14.156490389s`, `3.2ms`, `0s`.
fn go_duration(nanos: u64) -> String {
    let decimal = |whole_nanos: u64, digits: usize| {
        let unit = 10_u64.pow(u32::try_from(digits).unwrap_or_default());
        let fraction = format!("{:0digits$}", whole_nanos % unit);
        let text = format!("{}.{fraction}", whole_nanos / unit);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let minutes = nanos / 60_000_000_000;
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanos, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanos, 6)),
        _ => {
            let rest = format!("{}s", decimal(nanos % 60_000_000_000, 9));
            match (minutes / 60, minutes % 60) {
                (0, 0) => rest,
                (0, minutes) => format!("{minutes}m{rest}"),
                (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_go_does() {
        let table = [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (3_200_000, "3.2ms"),
            (1_000_000_000, "1s"),
            (60_000_000_000, "1m0s"),
            (3_914_156_490_389, "1h5m14.156490389s"),
            (7_200_000_000_000, "2h0m0s"),
        ];
        for (nanos, text) in table {
            assert_eq!(go_duration(nanos), text);
        }
    }
}
