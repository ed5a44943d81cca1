//! The worker process: `althing render-worker`.
//!
//! Why: see the header of `engine`. It reads requests from its standard input and writes answers
//! to its standard output until the input ends; between, it renders.
//!
//! Invariants:
//! * Before the first byte of a template is looked at, the limits are set: address space, no core
//!   dump, no file written, no process started, few descriptors. CPU time is extended by
//!   `limits::RENDER_CPU_SECONDS_MAX` for each render; past it, the kernel ends the process.
//! * A panic of the engine is an error of that render.
//! * When the parent dies, the input ends, and so does the worker; a looping template ends with
//!   its CPU time.
//!
//! Deliberately not here: tokio, files, the network, the environment.
//!
//! Sources: setrlimit(2), clock_gettime(2).

use crate::base::diagnostic::Diagnostic;
use crate::base::limits;
use crate::base::range::KeyRange;
use crate::render::engine::protocol::{self, FromWorker, Request, ToWorker};
use crate::render::engine::tera::TeraEngine;
use crate::render::engine::view::{Fetch, View};
use crate::render::engine::{Rendered, Session};
use crate::render::source::Item;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The life of a worker; returns its exit code. `main` calls it when the first argument is
/// `render-worker`.
#[must_use]
pub fn worker_main() -> i32 {
    if let Err(error) = limit_this_process() {
        let _ = send(&FromWorker::Ended(failed("", &format!("cannot be limited: {error}"))));
        return 1;
    }
    // The parent reads what happened from the answer or the exit status; a backtrace on the
    // daemon's standard error would be noise.
    std::panic::set_hook(Box::new(|_| {}));
    let mut engine = TeraEngine::new();
    loop {
        match receive() {
            Ok(Some(ToWorker::Render(request))) => {
                allow_cpu();
                if send(&FromWorker::Ended(render(&mut engine, *request))).is_err() {
                    return 0;
                }
            }
            Ok(None) => return 0,
            Ok(Some(ToWorker::Items(_) | ToWorker::Unavailable(_) | ToWorker::Addresses(_)))
            | Err(_) => return 1,
        }
    }
}

fn render(engine: &mut TeraEngine, request: Request) -> Rendered {
    let Request { bundle, scope, surroundings, preloaded } = request;
    let view = View::new(scope, preloaded, Box::new(Pipe));
    let session = Session { view, surroundings, failure: None };
    catch_unwind(AssertUnwindSafe(|| engine.render(&bundle, session))).unwrap_or_else(|_| {
        *engine = TeraEngine::new();
        let path = bundle.files.first().map_or("", |file| file.path.as_str());
        failed(path, "panicked: this is a bug; please report it with the template")
    })
}

fn failed(path: &str, why: &str) -> Rendered {
    let error = Diagnostic::new(path, format!("the template engine {why}"))
        .help("the template is not to blame; the last good file stays");
    Rendered { outcome: Err(Box::new(error)), touched: Vec::new() }
}

/// Asks the parent, who is waiting for exactly that.
struct Pipe;

impl Fetch for Pipe {
    fn fetch(&mut self, range: &KeyRange) -> Result<Vec<Item>, String> {
        match ask(&FromWorker::Range(range.clone()))? {
            ToWorker::Items(items) => Ok(items),
            ToWorker::Unavailable(why) => Err(why),
            ToWorker::Render(_) | ToWorker::Addresses(_) => Err(GIVEN_UP.to_owned()),
        }
    }

    fn lookup(&mut self, host: &str) -> Result<Vec<String>, String> {
        match ask(&FromWorker::Lookup(host.to_owned()))? {
            ToWorker::Addresses(addresses) => Ok(addresses),
            ToWorker::Unavailable(why) => Err(why),
            ToWorker::Render(_) | ToWorker::Items(_) => Err(GIVEN_UP.to_owned()),
        }
    }
}

const GIVEN_UP: &str = "the daemon gave this render up";

fn ask(question: &FromWorker) -> Result<ToWorker, String> {
    let broken = |error: std::io::Error| format!("the daemon is gone: {error}");
    send(question).map_err(broken)?;
    receive().map_err(broken)?.ok_or_else(|| GIVEN_UP.to_owned())
}

fn receive() -> std::io::Result<Option<ToWorker>> {
    let mut input = std::io::stdin().lock();
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut frame = vec![0; protocol::length_of(length)?];
    input.read_exact(&mut frame)?;
    ToWorker::decode(&frame).map(Some).map_err(std::io::Error::other)
}

fn send(message: &FromWorker) -> std::io::Result<()> {
    let frame = protocol::framed(&message.encode())?;
    // Not `Stdout`: it buffers by lines and would cut a frame into many writes.
    let output = std::io::stdout().as_fd().try_clone_to_owned()?;
    File::from(output).write_all(&frame)
}

fn limit_this_process() -> std::io::Result<()> {
    let fixed = |resource, wanted: u64| {
        // Whoever started the daemon may have set a lower limit, which then holds.
        let value = wanted.min(getrlimit(resource).maximum.unwrap_or(wanted));
        setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
    };
    fixed(Resource::As, limits::RENDER_MEMORY_BYTES_MAX)?;
    fixed(Resource::Core, 0)?;
    fixed(Resource::Fsize, 0)?;
    fixed(Resource::Nproc, 0)?;
    fixed(Resource::Nofile, 16)?;
    Ok(())
}

/// Lets the process compute for one render more.
fn allow_cpu() {
    let used = u64::try_from(clock_gettime(ClockId::ProcessCPUTime).tv_sec).unwrap_or_default();
    // The kernel counts whole seconds; one more keeps the full allowance.
    let allowed = used + limits::RENDER_CPU_SECONDS_MAX + 1;
    let maximum = getrlimit(Resource::Cpu).maximum;
    let current = Some(allowed.min(maximum.unwrap_or(allowed)));
    let _ = setrlimit(Resource::Cpu, Rlimit { current, maximum });
}
