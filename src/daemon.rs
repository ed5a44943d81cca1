//! The story of one process: from settings to serving, and back to nothing.
//!
//! What: settings -> signals -> data directory -> listeners -> node -> renderer -> doors -> the
//! service manager hears that it is ready -> a signal or a fault -> drain -> end. Why in one file:
//! this is where the floors meet, and the order of starting and stopping is the whole of its
//! knowledge.
//!
//! Invariants:
//! * What is started later is stopped earlier: clients first, the store last.
//! * `run/client-url` is there only while clients are served.
//! * SIGTERM ends the process with 0 within `limits::STOP_MS_MAX`; a fault ends it with an error,
//!   whatever else goes on.
//! * An address that is taken is told before the store is touched.
//!
//! Deliberately not here: what any part does once it runs.

mod home;
mod logging;
mod manager;
mod reload;
mod sample;
mod signals;
pub mod source;
mod watchdog;

use crate::api::{Cors, Doors, Policy, RenderedFile, RendererStatus, service};
use crate::base::limits;
use crate::base::report::{Exit, Report, chain};
use crate::base::time::WallTime;
use crate::base::url::HttpUrl;
use crate::config::{self, Config, Flags, ListenUrl, Origin, Surroundings};
use crate::daemon::home::Home;
use crate::daemon::manager::Manager;
use crate::daemon::reload::{Reloaded, Settings};
use crate::daemon::signals::{Signal, Signals};
use crate::daemon::source::NodeSource;
use crate::daemon::watchdog::Watchdog;
use crate::node::{self, Node};
use crate::render::{Renderer, ResourceStatus};
use crate::sys::listen::{self, ListenError, Stop, Stopper};
use crate::sys::memory;
use crate::sys::notify::{self, Message, Notifier};
use crate::sys::pulse::Pulse;
use crate::sys::usage;
use rustix::io::Errno;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Threads that serve clients. The node has its own; more than two only help when the doors are
/// the bottleneck, and cost memory always.
const WORKER_THREADS: usize = 2;

/// Runs a member until it is told to stop.
///
/// # Errors
/// When it cannot start, or had to stop; the report says why and what to do.
pub fn run(flags: &Flags) -> Result<(), Report> {
    let surroundings = Surroundings::of_this_process();
    let config = config::load(flags, &surroundings)?;
    logging::start();
    for (name, near) in surroundings.misspelt() {
        tracing::warn!("the environment variable {name} sets nothing; did you mean {near}?");
    }
    usage::keep_inherited_descriptors();
    if let Err(error) = usage::raise_descriptors() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(WORKER_THREADS).enable_all().build();
    let runtime = runtime.map_err(|error| cannot("start an event loop", &error))?;
    let settings = Settings::new(flags, surroundings, config);
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = live(settings) => outcome,
            never = memory::when_idle(runtime.handle()) => match never {},
        }
    });
    // What does not end by now hangs in the kernel or in a template's command.
    runtime.shutdown_timeout(Duration::ZERO);
    outcome
}

fn cannot(what: &str, error: &dyn std::error::Error) -> Report {
    Report::new(Exit::Failed, format!("cannot {what}")).caused_by(error)
}

async fn live(settings: Settings<'_>) -> Result<(), Report> {
    let config = &settings.config();
    let mut signals = Signals::catch().map_err(|error| cannot("catch signals", &error))?;
    let notifier = service_manager();
    let home = Home::open(&config.data_dir.value)?;
    let doorways = bind(config)?;
    let urls = Urls::of(config, &doorways);
    if config.dev {
        let written = sample::write(&config.confdir.value);
        written.map_err(|error| cannot("write the sample", &error))?;
    }
    let node = start_node(config, &home, &urls)?;
    let renderer = SharedRenderer::default();
    renderer.start(config, &home, &node)?;
    let pulse = Pulse::default();
    let watchdog = watchdog(&doorways, &node, &renderer, &pulse);
    let (stopper, stop) = Stopper::new();
    let serving = serve(doorways, &urls, &node, &renderer, stop);
    let published = home.publish(&urls.local);
    published.map_err(|error| cannot("say where clients are served", &error))?;
    announce(config, &home, &urls);
    let wanted = Notify::new();
    let manager = Manager::new(notifier, &node, &renderer, &wanted);
    let reload = async || {
        if settings.reload() == Reloaded::OtherConfdir {
            renderer.stop().await;
        }
        match renderer.with(Renderer::reload_all) {
            Some(read) => {
                read.await;
                Ok(())
            }
            None => renderer.start(&settings.config(), &home, &node),
        }
    };
    let outcome = tokio::select! {
        outcome = attend(&mut signals, &node, &wanted, &pulse) => outcome,
        never = manager.run(config.render_timeout.value, watchdog, reload) => match never {},
    };
    manager.stopping();
    if let Err(error) = home.withdraw() {
        tracing::warn!(error = chain(&error), "the address file stays behind");
    }
    let patience = Duration::from_millis(limits::STOP_MS_MAX);
    let stopped = stop_all(stopper, serving, renderer, node);
    if tokio::time::timeout(patience, stopped).await.is_err() {
        tracing::warn!("not everything ended in time; what was acknowledged is on disk");
    }
    outcome
}

/// systemd, if it started this process. A start without a word is better than none.
fn service_manager() -> Notifier {
    let notifier = Notifier::of_this_process().unwrap_or_else(|error| {
        tracing::warn!("{}: systemd will not hear of this daemon", chain(&error));
        Notifier::default()
    });
    let opening = [Message::Status("opening the store")];
    if let Err(error) = notifier.send(&opening) {
        tracing::warn!("{}", chain(&error));
    }
    notifier
}

/// Everything that must move for the process to count as alive.
fn watchdog(
    doorways: &[Doorway],
    node: &Node,
    renderer: &SharedRenderer,
    pulse: &Pulse,
) -> Watchdog {
    let mut watchdog = Watchdog::default();
    watchdog.watch_pulse("main loop", pulse.clone());
    watchdog.watch_count("core", node.turns());
    for doorway in doorways {
        watchdog.watch_pulse(&format!("door {}", doorway.bound), doorway.pulse.clone());
    }
    let shared = renderer.clone();
    let mut known = 0;
    watchdog.watch("renderer", move || shared.has_moved(&mut known));
    watchdog.watch_workers(&tokio::runtime::Handle::current());
    watchdog
}

/// A bound listener and the setting it is for.
struct Doorway {
    url: ListenUrl,
    listener: TcpListener,
    /// The loop that accepts there.
    pulse: Pulse,
    /// Where it really listens: the port may have been the system's choice.
    bound: HttpUrl,
}

fn bind(config: &Config) -> Result<Vec<Doorway>, Report> {
    let mut doorways = Vec::new();
    for url in &config.listen_client_urls.value {
        match listen::bind(url.address()) {
            Ok(listener) => {
                let address = listener.local_addr();
                let address = address.map_err(|error| cannot("see what was bound", &error))?;
                let (bound, pulse) = (HttpUrl::of(address), Pulse::default());
                doorways.push(Doorway { url: *url, listener, pulse, bound });
            }
            Err(error) if is_missing_ipv6(config, *url, &error) => {
                tracing::info!("this host has no IPv6 loopback: {url} is skipped");
            }
            Err(error) => {
                let report = cannot(&format!("serve clients on {url}"), &error.source);
                let from = &config.listen_client_urls.origin;
                return Err(report.help(format!("{}; the address is from {from}", error.advice)));
            }
        }
    }
    for doorway in doorways.iter().filter(|doorway| !doorway.url.is_loopback()) {
        let url = &doorway.bound;
        tracing::warn!("{url} is plain text and open to other hosts, as --insecure allows");
    }
    Ok(doorways)
}

/// Only where nobody asked for it: a listener somebody wrote down must be there.
fn is_missing_ipv6(config: &Config, url: ListenUrl, error: &ListenError) -> bool {
    let missing = [Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT].map(Errno::raw_os_error);
    config.listen_client_urls.origin == Origin::Default
        && url.address().is_ipv6()
        && error.source.raw_os_error().is_some_and(|code| missing.contains(&code))
}

/// The addresses of this daemon.
struct Urls {
    /// Where it listens.
    listening: Vec<HttpUrl>,
    /// What others are told.
    advertised: Vec<HttpUrl>,
    /// How programs of this host reach it.
    local: HttpUrl,
}

impl Urls {
    fn of(config: &Config, doorways: &[Doorway]) -> Self {
        let listening: Vec<HttpUrl> = doorways.iter().map(|door| door.bound.clone()).collect();
        let everywhere = doorways.iter().find(|door| door.url.address().ip().is_unspecified());
        // `listen_client_urls` is never empty, and its first is bound or an error.
        let first =
            listening.first().cloned().unwrap_or_else(|| HttpUrl::of(([127, 0, 0, 1], 0).into()));
        let here = |url: &HttpUrl, host| match everywhere {
            Some(door) if door.bound == *url => url.with_host(host),
            Some(_) | None => url.clone(),
        };
        let advertised = match config.advertise_client_urls.value.as_slice() {
            [] => vec![here(&first, &config.name.value)],
            said => {
                let real = |url: &HttpUrl| match url.port() {
                    0 => url.with_port(first.port()),
                    _ => url.clone(),
                };
                said.iter().map(real).collect()
            }
        };
        let local = here(&first, "127.0.0.1");
        Self { listening, advertised, local }
    }
}

const WRONG_DIR: &str =
    "nothing was changed there; if it is the wrong directory, name the right one with --data-dir";

fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let full = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    };
    std::iter::successors(Some(error), |error| error.source())
        .any(|error| error.downcast_ref::<io::Error>().is_some_and(full))
}

fn start_node(config: &Config, home: &Home, urls: &Urls) -> Result<Node, Report> {
    let options = node::Options {
        data_dir: home.path().to_owned(),
        name: config.name.value.clone(),
        client_urls: urls.advertised.iter().map(ToString::to_string).collect(),
        wal_segment_bytes: limits::WAL_SEGMENT_BYTES,
    };
    Node::start(options).map_err(|error| {
        let report = Report::new(Exit::Failed, error.to_string());
        let Some(source) = std::error::Error::source(&error) else { return report.help(WRONG_DIR) };
        let report = report.cause(chain(source));
        report.help(if is_disk_full(source) { "free some space on that disk" } else { WRONG_DIR })
    })
}

/// The renderer, for the doors to ask and for the end to take away; empty while there is nothing
/// to render from.
#[derive(Clone, Default)]
struct SharedRenderer(Arc<Mutex<Option<Renderer>>>);

impl SharedRenderer {
    /// Starts it, unless nobody named a confdir and the usual one is not there: a host may want
    /// the store alone.
    fn start(&self, config: &Config, home: &Home, node: &Node) -> Result<(), Report> {
        let confdir = std::path::absolute(&config.confdir.value);
        let confdir = confdir.map_err(|error| cannot("find the confdir", &error))?;
        let resources = confdir.join("conf.d");
        if config.confdir.origin == Origin::Default && !resources.is_dir() {
            tracing::info!(
                "nothing is rendered: there is no {}; SIGHUP looks again",
                resources.display()
            );
            return Ok(());
        }
        let mut options = crate::render::Options::new(confdir, home.render_state());
        let file = config.file.as_ref().map(|file| file.path.as_path());
        options.keep_off(home.path(), file, &config.allowed_dirs.value);
        options.node = vec![("name".to_owned(), config.name.value.clone())];
        options.environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| !notify::PRIVATE.contains(&name.as_str()))
            .collect();
        let renderer = Renderer::start(options, Arc::new(NodeSource(node.handle())));
        let renderer = renderer.map_err(|error| cannot("start the renderer", &error))?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(renderer);
        Ok(())
    }

    fn with<T>(&self, ask: impl FnOnce(&Renderer) -> T) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(ask)
    }

    /// Ends it; what is owed stays written down.
    async fn stop(&self) {
        let renderer = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(renderer) = renderer {
            renderer.shutdown().await;
        }
    }

    /// Whether it has answered since `known` answers; one that is not there cannot hang.
    fn has_moved(&self, known: &mut u64) -> bool {
        let moved = self.with(|renderer| {
            let pulse = renderer.pulse();
            pulse.ask();
            let answers = pulse.answers();
            answers != std::mem::replace(known, answers)
        });
        moved.unwrap_or(true)
    }

    /// How every file is doing.
    fn files(&self) -> Vec<ResourceStatus> {
        self.with(Renderer::status).unwrap_or_default()
    }

    /// What the doors tell of it.
    fn report(&self) -> Option<Vec<RenderedFile>> {
        self.with(|renderer| renderer.status().into_iter().map(file_report).collect())
    }
}

fn file_report(file: ResourceStatus) -> RenderedFile {
    let wall = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        WallTime(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    };
    RenderedFile {
        name: file.name,
        file: file.file.display().to_string(),
        dest: file.dest.display().to_string(),
        ok: file.ok,
        error: file.error,
        revision: file.revision.0,
        renders: file.renders,
        changes: file.changes,
        reloads: file.reloads,
        failures: file.failures.into_iter().map(|(step, count)| (step.name(), count)).collect(),
        owed_since: file.owed_since.map(wall),
        last_pass: file.last_pass.map(wall),
        last_success: file.last_success.map(wall),
        behind: file.behind,
        waiting_for: file.waiting.to_string(),
        since: file.since.map(wall),
        until: file.until.map(wall),
        sensitive: file.sensitive,
    }
}

fn serve(
    doorways: Vec<Doorway>,
    urls: &Urls,
    node: &Node,
    renderer: &SharedRenderer,
    stop: Stop,
) -> JoinHandle<()> {
    let asked = renderer.clone();
    let status: RendererStatus = Arc::new(move || asked.report());
    let insecure = doorways.iter().any(|doorway| !doorway.url.is_loopback());
    let doors = Arc::new(Doors::new(node.handle(), status, stop.clone(), insecure));
    let names: Vec<String> = urls.advertised.iter().map(|url| url.host().to_owned()).collect();
    let doorways = doorways.into_iter().map(|doorway| {
        let hosts = doorway.url.is_loopback().then(|| names.clone());
        let policy = Policy { cors: Cors::Off, hosts };
        (doorway.listener, service(Arc::clone(&doors), policy), doorway.pulse)
    });
    tokio::spawn(listen::serve(doorways.collect(), stop))
}

/// Says on the terminal what is where, and in the log that the daemon serves.
fn announce(config: &Config, home: &Home, urls: &Urls) {
    let listening: Vec<String> = urls.listening.iter().map(ToString::to_string).collect();
    let listening = listening.join(", ");
    let data = home.path().display();
    let mut stdout = io::stdout();
    if !config.dev && !stdout.is_terminal() {
        tracing::info!(name = config.name.value, clients = listening, data = %data, "serving");
        return;
    }
    let mut lines = format!(
        "althing {}, member {}\n  clients  {listening}\n  data     {data}\n",
        env!("CARGO_PKG_VERSION"),
        config.name.value
    );
    if config.dev {
        lines += &next_steps(&config.confdir.value, &urls.local);
    }
    // A terminal that is gone is no reason to end.
    let _ = stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush());
}

/// What to try with `--dev`.
fn next_steps(confdir: &Path, url: &HttpUrl) -> String {
    let dest = confdir.join("hello.txt");
    let dest = dest.display();
    let program = std::env::args().next().unwrap_or_else(|| "althing".to_owned());
    let endpoint = match url.port() {
        2379 => String::new(),
        _ => format!(" --endpoint {url}"),
    };
    format!(
        "  sample   {dest}, made from {}\n\
         Try, in another terminal:\n  \
         curl -XPUT {url}/v2/keys/message -d value=Hello\n  \
         cat {dest}\n  \
         {program} watch{endpoint}\n",
        confdir.join("templates").display(),
    )
}

/// Waits for the end: a signal, or trouble in the core.
async fn attend(
    signals: &mut Signals,
    node: &Node,
    reload: &Notify,
    pulse: &Pulse,
) -> Result<(), Report> {
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => return Ok(()),
                Signal::Reload => reload.notify_one(),
            },
            () = pulse.answer() => {}
            fault = node.fault() => {
                let error = "the store stopped; what was acknowledged is on disk";
                return Err(Report::new(Exit::Failed, error).caused_by(&fault));
            }
        }
    }
}

/// Clients and files first, the store last.
async fn stop_all(stopper: Stopper, serving: JoinHandle<()>, renderer: SharedRenderer, node: Node) {
    stopper.stop();
    let (served, ()) = tokio::join!(serving, renderer.stop());
    // It returns when the last checkpoint is durable.
    let stored = tokio::task::spawn_blocking(move || node.stop()).await;
    for ended in [served, stored] {
        if let Err(error) = ended {
            tracing::error!(%error, "a part of the daemon panicked while it was stopped");
        }
    }
}
