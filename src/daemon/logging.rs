//! Log lines: text for people and files, `<N>` priorities for systemd's journal.
//!
//! Why two forms: the journal has its own clock and reads a priority from the start of a line;
//! a terminal or file has neither.
//!
//! Invariants:
//! * Libraries speak from `warn` on, we from `info` on; `ALTHING_LOG` overrules.
//! * Nothing is logged per request.
//!
//! Sources: sd-daemon(3) for the priorities, systemd.exec(5) for `JOURNAL_STREAM`.

use std::fmt;
use std::io::IsTerminal;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What is logged unless `ALTHING_LOG` says otherwise.
const DEFAULT_FILTER: &str = "warn,althing=info";

/// Sends the log lines of this process to standard error, from now on.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env("ALTHING_LOG");
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let stderr = std::io::stderr;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    // A second start, as in a test, changes nothing.
    let _ = if is_journal(|name| std::env::var_os(name).is_some()) {
        lines.with_ansi(false).event_format(Journal).try_init()
    } else {
        lines.with_ansi(stderr().is_terminal()).with_target(false).try_init()
    };
}

fn is_journal(has_variable: impl Fn(&str) -> bool) -> bool {
    has_variable("JOURNAL_STREAM") || has_variable("INVOCATION_ID")
}

/// `<N>message field=value`.
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
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
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
            tracing::info!("ready");
            tracing::debug!("not shown");
            tracing::info!(target: "hyper", "not shown");
            tracing::warn!(target: "hyper", "odd");
        });
        let lines = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        assert_eq!(lines, "<3>lost path=\"/x\"\n<6>ready\n<4>odd\n");
        assert!(is_journal(|name| name == "INVOCATION_ID") && !is_journal(|_| false));
    }
}
