//! `/v2/keys`: requests into commands, reads and watches; outcomes into answers.
//!
//! A request's words are checked first (`wire::form`), then its key, then it becomes one command
//! for the node, one read, or one watch. Reads are linearizable unless the client says
//! `quorum=false`; a watch begins at this member's state, which its answer names.
//!
//! Invariants:
//! * A form that cannot be meant never reaches the node.
//! * A body is read only when it is a form that counts.
//!
//! Source: etcd's `etcdserver/api/v2http/client.go`, and contract keys-api sections 1 to 9.

use crate::api::body;
use crate::api::reply::{self, Body, Response};
use crate::api::traffic::Traffic;
use crate::api::v2::answer::{self, Refused, Stand};
use crate::api::v2::registry;
use crate::api::v2::watch::{Events, Watch};
use crate::base::path::BadPath;
use crate::base::{Fault, KeyPath, Rejected, Revision, limits};
use crate::machine::tree::read::{self, Listing};
use crate::machine::{Action, Answer, Command, Condition, Content, Event, Outcome, Put};
use crate::node::{Handle, ReadMode};
use crate::sys::listen::Stop;
use crate::watch::Interest;
use crate::wire::form::{self, BadForm, Parameters};
use crate::wire::v2;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use std::sync::Arc;

/// The keys API of one node.
pub struct Keys {
    node: Handle,
    stop: Stop,
    traffic: Arc<Traffic>,
    /// The cluster's id as every answer shows it.
    cluster: HeaderValue,
}

/// What a method does, of those that are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Get,
    Head,
    Put,
    Post,
    Delete,
}

impl Verb {
    fn of(method: &Method) -> Option<Self> {
        match *method {
            Method::GET => Some(Self::Get),
            Method::HEAD => Some(Self::Head),
            Method::PUT => Some(Self::Put),
            Method::POST => Some(Self::Post),
            Method::DELETE => Some(Self::Delete),
            _ => None,
        }
    }
}

impl Keys {
    /// The keys API of a node; `stop` ends its watches.
    #[must_use]
    pub(in crate::api) fn new(node: Handle, stop: Stop, traffic: Arc<Traffic>) -> Self {
        let cluster = answer::cluster_header(&node.status());
        Self { node, stop, traffic, cluster }
    }

    /// Answers a request whose path begins with `/v2/keys`.
    pub(in crate::api) async fn serve(&self, request: Request<Incoming>) -> Response {
        let (parts, body) = request.into_parts();
        let raw = parts.uri.path().get("/v2/keys".len()..).unwrap_or_default();
        match form::unescape(raw.as_bytes(), false) {
            Ok(key) => self.serve_key(&parts, body, &key).await,
            Err(_) => reply::bad_request(),
        }
    }

    /// Answers a request for a decoded key.
    pub(in crate::api) async fn serve_key(
        &self,
        parts: &Parts,
        body: Incoming,
        key: &[u8],
    ) -> Response {
        let Some(verb) = Verb::of(&parts.method) else {
            return reply::method_not_allowed("HEAD,GET,PUT,POST,DELETE");
        };
        match self.act(verb, parts, body, key).await {
            Ok(response) => response,
            Err(refused) => answer::refusal(&self.cluster, &refused),
        }
    }

    async fn act(
        &self,
        verb: Verb,
        parts: &Parts,
        body: Incoming,
        key: &[u8],
    ) -> Result<Response, Refused> {
        let form = match verb {
            Verb::Put | Verb::Post => {
                let content_type = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
                if form::is_form(content_type)? { body::read(body).await? } else { Bytes::new() }
            }
            Verb::Get | Verb::Head | Verb::Delete => Bytes::new(),
        };
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        let asked = Parameters::parse(query, &form, verb == Verb::Get)?;
        let path = KeyPath::clean(key).map_err(too_far)?;
        match verb {
            Verb::Get if asked.wait && asked.quorum != Some(true) => self.watch(path, &asked).await,
            Verb::Get | Verb::Head => self.get(&path, &asked).await,
            Verb::Put | Verb::Post | Verb::Delete => {
                let action_only = asked.no_value_on_success && verb != Verb::Delete;
                let answer = self.node.propose(vec![command(verb, path, asked)?]).await?;
                self.written(answer, action_only)
            }
        }
    }

    async fn get(&self, path: &KeyPath, asked: &Parameters) -> Result<Response, Refused> {
        let local = asked.quorum == Some(false);
        let mode = if local { ReadMode::Local } else { ReadMode::Linearizable };
        let mut state = self.node.read(mode).await?;
        let reader = state.reader()?;
        let at = Stand { revision: state.revision, index: state.applied, term: state.applied_term };
        let found = read::get(&reader, path, Listing { recursive: asked.recursive })?;
        let found = found.or_else(|missing| registry::look(path, &self.node).ok_or(missing));
        self.traffic.read(found.is_ok());
        let node = found.map_err(|rejected| Refused::Rejected(rejected, at.revision))?;
        let body = answer::event_body("get", &node, None, self.node.now().0);
        Ok(answer::success(&self.cluster, StatusCode::OK, at, Body::whole(body)))
    }

    async fn watch(&self, path: KeyPath, asked: &Parameters) -> Result<Response, Refused> {
        let state = self.node.read(ReadMode::Local).await?;
        let at = Stand { revision: state.revision, index: state.applied, term: state.applied_term };
        let from = match asked.wait_index {
            0 => at.revision.next(),
            index => Revision(index),
        };
        if from < state.compacted {
            let rejected = Rejected::Compacted { oldest: state.compacted, requested: from };
            return Err(Refused::Rejected(rejected, at.revision));
        }
        let (recursive, hides_after) = (asked.recursive, at.revision);
        let interest = Interest::Tree { path, recursive, hides_after };
        self.traffic.watched();
        let watcher = self.node.watch(interest, Some(from))?;
        let (node, stop) = (self.node.clone(), self.stop.clone());
        let events = Events::of(Watch { watcher, node, stop, stream: asked.stream });
        Ok(answer::success(&self.cluster, StatusCode::OK, at, Body::events(events)))
    }

    fn written(&self, answer: Answer, action_only: bool) -> Result<Response, Refused> {
        let Answer { verdict, revision, index, term } = answer;
        let outcomes = verdict.map_err(|rejected| Refused::Rejected(rejected, revision))?;
        let Some(Outcome::Changed(event)) = outcomes.into_iter().next() else {
            let what = "a v2 write came to something else than an event";
            return Err(Refused::Fault(Fault::Invariant(what.into())));
        };
        let Event { action, node, previous } = *event;
        let created = match action {
            Action::Create => true,
            Action::Set => previous.is_none(),
            Action::Update
            | Action::CompareAndSwap
            | Action::Delete
            | Action::CompareAndDelete
            | Action::Expire => false,
        };
        let status = if created { StatusCode::CREATED } else { StatusCode::OK };
        let body = if action_only {
            let mut out = Vec::new();
            v2::write_action(&mut out, action.name());
            out.into()
        } else {
            answer::event_body(action.name(), &node, previous.as_ref(), self.node.now().0)
        };
        let at = Stand { revision, index, term };
        Ok(answer::success(&self.cluster, status, at, Body::whole(body)))
    }
}

/// The command a write asks for.
fn command(verb: Verb, path: KeyPath, asked: Parameters) -> Result<Command, Refused> {
    if asked.value.len() > limits::VALUE_BYTES_MAX {
        let (bytes, max) = (asked.value.len(), limits::VALUE_BYTES_MAX);
        let cause = format!("the value has {bytes} bytes, at most {max} are allowed");
        return Err(Refused::TooLarge(cause));
    }
    let index = (asked.prev_index > 0).then_some(Revision(asked.prev_index));
    let condition = Condition { value: asked.prev_value, index };
    let compares = condition != Condition::default();
    if verb == Verb::Delete {
        return Ok(if compares {
            Command::CompareAndDelete { path, condition }
        } else {
            Command::Delete { path, dir: asked.dir, recursive: asked.recursive }
        });
    }
    let new = if asked.dir { Content::Directory } else { Content::File(asked.value.clone()) };
    // What changes something that is there ignores `dir`.
    let same = Content::File(asked.value);
    let put = |content| Put { path, content, ttl: asked.ttl, refresh: asked.refresh };
    Ok(match asked.prev_exist {
        _ if verb == Verb::Post => Command::CreateInOrder(Put { refresh: false, ..put(new) }),
        Some(false) => Command::Create(put(new)),
        Some(true) | None if compares => Command::CompareAndSwap(put(same), condition),
        Some(true) => Command::Update(put(same)),
        None => Command::Set(put(new)),
    })
}

fn too_far(bad: BadPath) -> Refused {
    BadForm::unreadable(bad.to_string()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Parameters {
        Parameters::parse(query.as_bytes(), &Bytes::new(), false).unwrap()
    }

    fn name(verb: Verb, query: &str) -> &'static str {
        match command(verb, KeyPath::root(), asked(query)).unwrap() {
            Command::Set(_) => "set",
            Command::Create(_) => "create",
            Command::CreateInOrder(_) => "createInOrder",
            Command::Update(_) => "update",
            Command::CompareAndSwap(..) => "compareAndSwap",
            Command::Delete { .. } => "delete",
            Command::CompareAndDelete { .. } => "compareAndDelete",
            other => panic!("{other:?}"),
        }
    }

    /// Contract keys-api section 5, row by row.
    #[test]
    fn requests_become_etcds_operations() {
        let table = [
            (Verb::Post, "value=1", "createInOrder"),
            (Verb::Post, "value=1&prevExist=true&prevValue=x&prevIndex=4", "createInOrder"),
            (Verb::Put, "value=1&prevExist=true", "update"),
            (Verb::Put, "value=1&prevExist=true&prevIndex=0", "update"),
            (Verb::Put, "value=1&prevExist=true&prevValue=x", "compareAndSwap"),
            (Verb::Put, "value=1&prevExist=true&prevIndex=4", "compareAndSwap"),
            (Verb::Put, "value=1&prevExist=false", "create"),
            (Verb::Put, "value=1&prevExist=false&prevValue=x&prevIndex=4", "create"),
            (Verb::Put, "value=1&prevValue=x", "compareAndSwap"),
            (Verb::Put, "value=1&prevIndex=4", "compareAndSwap"),
            (Verb::Put, "value=1&prevIndex=0", "set"),
            (Verb::Put, "", "set"),
            (Verb::Delete, "recursive=true&dir=true&prevIndex=4", "compareAndDelete"),
            (Verb::Delete, "prevValue=x", "compareAndDelete"),
            (Verb::Delete, "prevExist=true&prevIndex=0", "delete"),
        ];
        for (verb, query, operation) in table {
            assert_eq!(name(verb, query), operation, "{verb:?} {query}");
        }
    }

    #[test]
    fn only_new_nodes_can_be_directories() {
        let is_directory = |query| match command(Verb::Put, KeyPath::root(), asked(query)) {
            Ok(
                Command::Set(put)
                | Command::Create(put)
                | Command::Update(put)
                | Command::CompareAndSwap(put, _),
            ) => put.content == Content::Directory,
            other => panic!("{other:?}"),
        };
        assert!(is_directory("dir=true") && is_directory("dir=true&prevExist=false"));
        assert!(!is_directory("dir=true&prevExist=true") && !is_directory("dir=1&prevIndex=3"));
    }

    #[test]
    fn a_value_too_large_is_named_with_the_bound() {
        let value = Bytes::from(vec![b'x'; limits::VALUE_BYTES_MAX + 1]);
        let asked = Parameters { value, ..Parameters::default() };
        let refused = command(Verb::Put, KeyPath::root(), asked).unwrap_err();
        let Refused::TooLarge(cause) = refused else { panic!("{refused:?}") };
        assert!(cause.contains("1572865") && cause.contains("1572864"), "{cause}");
    }
}
