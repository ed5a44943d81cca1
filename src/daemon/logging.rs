//! Log lines: text for people and files, `<N>` priorities for systemd's journal.
//!
//! Why two forms: the journal has its own clock and reads a priority from the start of a line;
//! a terminal or file has neither.
//!
//! Invariants:
//! * Libraries speak from `warn` on, we from `info` on; `ALTHING_LOG` overrules.
//! * Nothing is logged per request.
//! * Each line of an event has its priority: the journal makes an entry of every line.
//!
//! Sources: sd-daemon(3) for the priorities, systemd.exec(5) for `JOURNAL_STREAM`.

use std::fmt;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What is logged unless `ALTHING_LOG` says otherwise.
const DEFAULT_FILTER: &str = "warn,althing=info";

/// Sends the log lines of this process to standard error, from now on.
pub(crate) fn start() {
    let asked = std::env::var("ALTHING_LOG").ok().filter(|asked| !asked.is_empty());
    let filter = asked.as_deref().map(EnvFilter::try_new);
    let wrong = filter.as_ref().and_then(|filter| filter.as_ref().err()).map(ToString::to_string);
    let filter = filter.and_then(Result::ok).unwrap_or_else(|| EnvFilter::new(DEFAULT_FILTER));
    let stderr = std::io::stderr;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    // A second start, as in a test, changes nothing.
    let _ = if is_journal() {
        lines.with_ansi(false).event_format(Journal).try_init()
    } else {
        lines.with_ansi(stderr().is_terminal()).with_target(false).try_init()
    };
    if let Some(wrong) = wrong {
        tracing::warn!("ALTHING_LOG is not heeded: {wrong}; an example: warn,althing=debug");
    }
}

/// Whether standard error is the journal's; the variable alone is inherited by whoever redirects.
fn is_journal() -> bool {
    let said = std::env::var("JOURNAL_STREAM").ok();
    let stream = std::fs::metadata("/proc/self/fd/2").map(|is| (is.dev(), is.ino())).ok();
    said.zip(stream).is_some_and(|(said, stream)| names(&said, stream))
}

/// `JOURNAL_STREAM` is `device:inode`.
fn names(said: &str, (device, inode): (u64, u64)) -> bool {
    said == format!("{device}:{inode}")
}

/// `<N>message field=value`, and `<N>` again before each further line.
struct Journal;

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        let priority = priority(*event.metadata().level());
        text.lines().try_for_each(|line| writeln!(writer, "<{priority}>{line}"))
    }
}

/// syslog's numbers.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn journal_lines_begin_with_their_priority() {
        let buffer = Buffer::default();
        let sink = buffer.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(DEFAULT_FILTER))
            .with_writer(move || sink.clone())
            .with_ansi(false)
            .event_format(Journal)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(path = "/x", "lost");
            tracing::error!("error: no\n --> a");
            tracing::info!("ready");
            tracing::debug!("not shown");
            tracing::info!(target: "hyper", "not shown");
            tracing::warn!(target: "hyper", "odd");
        });
        let lines = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        assert_eq!(lines, "<3>lost path=\"/x\"\n<3>error: no\n<3> --> a\n<6>ready\n<4>odd\n");
        assert!(names("8:1234", (8, 1234)) && !names("8:1234", (8, 12)) && !names("", (8, 1)));
    }
}
