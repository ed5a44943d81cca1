//! The functions a template calls: keys, and what it may know of its host.
//!
//! All take keyword arguments, as Tera does. A missing key fails the render unless a default is
//! given: a file with a hole in it is worse than the old file.
//!
//! | function | returns |
//! |---|---|
//! | `getv(key=, default=)` | the value; a key with an empty value does not take the default |
//! | `get(key=)` | `{key, name, value, json, mod_revision, ttl}` |
//! | `gets(pattern=)` | a list of those, in key order |
//! | `getvs(pattern=)` | their values, in key order |
//! | `ls(path=)`, `lsdir(path=)` | names of children; of those that have children |
//! | `exists(key=)` | whether there is a value |
//! | `getenv(name=, default=)` | a variable the daemon lets templates see, else the default |
//! | `lookup_ip(name=)` | the addresses of a host, sorted; an empty list if there are none |
//! | `node()`, `revision()` | this host, as the daemon describes it; the revision rendered from |
//!
//! Invariant: a function that fails leaves the key it was about in the session, so that the error
//! can name it.
//!
//! What `lookup_ip` finds is not part of the revision: no change wakes the template when an
//! address changes, it is seen at the next render. confd's templates rely on it all the same.
//!
//! Deliberately not here: `lookup_srv` (`docs/decisions/no-srv-lookup.md`); which arguments there
//! are is checked before (`calls`).
//!
//! Sources: `contracts/render.md` section 4, confd's template functions.

use crate::render::engine::formats;
use crate::render::engine::view::ViewError;
use crate::render::engine::{Failure, Session};
use crate::render::source::Item;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tera::value::Key;
use tera::{Error, Kwargs, Map, State, Tera, TeraResult, Value};

/// The session of the render that is running; functions and filters live longer than it.
pub(crate) type Shared = Arc<Mutex<Option<Session>>>;

/// The place of the session. A panic inside a render ends that render only; the session is
/// replaced before the next.
pub(crate) fn lock(shared: &Shared) -> MutexGuard<'_, Option<Session>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work` on the session.
pub(crate) fn with<T>(
    shared: &Shared,
    work: impl FnOnce(&mut Session) -> TeraResult<T>,
) -> TeraResult<T> {
    let mut session = lock(shared);
    let session = session.as_mut().ok_or_else(|| Error::message("no render is running"))?;
    work(session)
}

/// Notes key and help for the error that is about to be returned.
pub(crate) fn fail(session: &mut Session, key: Option<&str>, help: &str, message: String) -> Error {
    let help = Some(help).filter(|help| !help.is_empty()).map(Box::from);
    session.failure = Some(Failure { key: key.map(Box::from), help });
    Error::message(message)
}

type Function = fn(&Shared, &Kwargs) -> TeraResult<Value>;

const FUNCTIONS: &[(&str, Function)] = &[
    ("getv", getv),
    ("get", get),
    ("gets", gets),
    ("getvs", getvs),
    ("ls", |shared, args| list(shared, args, false)),
    ("lsdir", |shared, args| list(shared, args, true)),
    ("exists", exists),
    ("getenv", getenv),
    ("lookup_ip", lookup_ip),
    ("node", |shared, _| with(shared, |session| Ok(node(&session.surroundings.node)))),
    ("revision", |shared, _| {
        with(shared, |session| Ok(Value::from(session.surroundings.revision.0)))
    }),
];

/// Registers all functions.
pub(crate) fn register(tera: &mut Tera, shared: &Shared) {
    for (name, function) in FUNCTIONS {
        let shared = shared.clone();
        tera.register_function(*name, move |args: Kwargs, _: &State| function(&shared, &args));
    }
}

fn exists(shared: &Shared, args: &Kwargs) -> TeraResult<Value> {
    let key: &str = args.must_get("key")?;
    with(shared, |session| Ok(Value::from(read(session, key)?.is_some())))
}

fn getv(shared: &Shared, args: &Kwargs) -> TeraResult<Value> {
    let key: &str = args.must_get("key")?;
    let default: Option<Value> = args.get("default")?;
    with(shared, |session| match (read(session, key)?, default) {
        (Some(item), _) => Ok(Value::from(text(session, key, &item)?)),
        (None, Some(default)) => Ok(default),
        (None, None) => Err(missing(session, key, "getv")),
    })
}

fn get(shared: &Shared, args: &Kwargs) -> TeraResult<Value> {
    let key: &str = args.must_get("key")?;
    with(shared, |session| match read(session, key)? {
        Some(item) => described(session, key, &item),
        None => Err(missing(session, key, "get")),
    })
}

fn missing(session: &mut Session, key: &str, function: &str) -> Error {
    let help = match function {
        "getv" => format!("set it, or give a default: getv(key=\"{key}\", default=\"...\")"),
        _ => format!("set it, or ask first: {{% if exists(key=\"{key}\") %}}"),
    };
    fail(session, Some(key), &help, format!("key does not exist: {key}"))
}

fn gets(shared: &Shared, args: &Kwargs) -> TeraResult<Value> {
    each_matching(shared, args, described)
}

fn getvs(shared: &Shared, args: &Kwargs) -> TeraResult<Value> {
    each_matching(shared, args, |session, name, item| Ok(Value::from(text(session, name, item)?)))
}

fn each_matching(
    shared: &Shared,
    args: &Kwargs,
    shown: fn(&mut Session, &str, &Item) -> TeraResult<Value>,
) -> TeraResult<Value> {
    let pattern: &str = args.must_get("pattern")?;
    with(shared, |session| {
        let found = session.view.matching(pattern);
        let found = found.map_err(|error| explain(session, Some(pattern), &error))?;
        let values = found.iter().map(|(name, item)| shown(session, name, item));
        Ok(Value::from(values.collect::<TeraResult<Vec<_>>>()?))
    })
}

fn list(shared: &Shared, args: &Kwargs, directories_only: bool) -> TeraResult<Value> {
    let path: &str = args.must_get("path")?;
    with(shared, |session| {
        let children = session.view.children(path, directories_only);
        let children = children.map_err(|error| explain(session, Some(path), &error))?;
        Ok(Value::from(children.into_iter().map(Value::from).collect::<Vec<_>>()))
    })
}

fn getenv(shared: &Shared, args: &Kwargs) -> TeraResult<Value> {
    let name: &str = args.must_get("name")?;
    let default: Option<Value> = args.get("default")?;
    with(shared, |session| {
        let found = session.surroundings.environment.iter().find(|(known, _)| known == name);
        // As in confd, a variable that is set but empty takes the default.
        let value = found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty());
        Ok(value.map(Value::from).or(default).unwrap_or_else(|| Value::from("")))
    })
}

fn lookup_ip(shared: &Shared, args: &Kwargs) -> TeraResult<Value> {
    let name: &str = args.must_get("name")?;
    with(shared, |session| {
        let found = session.view.lookup(name).map(<[String]>::to_vec);
        let found = found.map_err(|error| explain(session, None, &error))?;
        Ok(Value::from(found.into_iter().map(Value::from).collect::<Vec<_>>()))
    })
}

fn node(facts: &[(String, String)]) -> Value {
    let mut facts: Vec<_> = facts.iter().collect();
    facts.sort();
    let pairs = facts
        .into_iter()
        .map(|(name, value)| (Key::from(name.clone()), Value::from(value.as_str())));
    Value::from(pairs.collect::<Map>())
}

fn read(session: &mut Session, key: &str) -> TeraResult<Option<Item>> {
    let item = session.view.get(key);
    item.map_err(|error| explain(session, Some(key), &error))
}

fn explain(session: &mut Session, key: Option<&str>, error: &ViewError) -> Error {
    let help = match error {
        ViewError::Outside { keys, .. } => {
            format!("add it to `keys` of the resource (now: {keys}), or leave `keys` out")
        }
        ViewError::BadPattern(_) => {
            r#"to mean a `[` itself, write "\\[": the string takes one `\`, the pattern the other"#
                .to_owned()
        }
        ViewError::TooMuch => "read less, or split the file into several".to_owned(),
        ViewError::TooManyLookups => "look up fewer names, or store addresses".to_owned(),
        ViewError::BadPath(_) => "a key is written as /a/b".to_owned(),
        ViewError::Unavailable(_) => "it is tried again".to_owned(),
    };
    fail(session, key, &help, error.to_string())
}

fn text(session: &mut Session, name: &str, item: &Item) -> TeraResult<String> {
    String::from_utf8(item.value.to_vec()).map_err(|_| {
        let help = "templates make text; store it as base64 and use `| b64decode`";
        fail(session, Some(name), help, format!("the value of {name} is not UTF-8 text"))
    })
}

/// An item as a map, its keys always in this order.
fn described(session: &mut Session, name: &str, item: &Item) -> TeraResult<Value> {
    let value = text(session, name, item)?;
    let last = name.rsplit('/').next().unwrap_or_default();
    let json = formats::from_json(&value).unwrap_or_else(|_| Value::none());
    let fields = [
        ("key", Value::from(name)),
        ("name", Value::from(last)),
        ("value", Value::from(value)),
        ("json", json),
        ("mod_revision", Value::from(item.mod_revision.0)),
        ("ttl", Value::from(item.ttl_seconds)),
    ];
    let pairs = fields.into_iter().map(|(name, value)| (Key::from(name), value));
    Ok(Value::from(pairs.collect::<Map>()))
}
