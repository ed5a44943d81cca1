//! Settings as they are in force, each in the words of the settings file, with its origin.
//!
//! Why one list: `althing config show` prints it, and `change` compares two of them, so a setting
//! that is shown wrongly would be compared wrongly too, and a test sees it.
//!
//! Invariant: there is one row a `Spec`, in the order of `table::SPECS`.
//!
//! Deliberately not here: printing.

use crate::config::table::{self, Spec};
use crate::config::{Config, Origin};
use std::time::Duration;
use toml::Value;

/// One setting.
#[derive(Debug)]
pub struct Shown<'a> {
    /// What it is called.
    pub spec: &'static Spec,
    /// Its value, as the settings file would say it.
    pub value: Value,
    /// Where it comes from.
    pub origin: &'a Origin,
}

impl Config {
    /// Every setting. Those that nobody gave show what they were worked out to be.
    #[must_use]
    pub fn shown(&self) -> Vec<Shown<'_>> {
        let text = |text: &dyn std::fmt::Display| Value::String(text.to_string());
        vec![
            row(&table::NAME.spec, text(&self.name.value), &self.name.origin),
            row(&table::DATA_DIR.spec, text(&self.data_dir.value.display()), &self.data_dir.origin),
            row(
                &table::LISTEN_CLIENT_URLS.spec,
                Value::Array(self.listen_client_urls.value.iter().map(|url| text(url)).collect()),
                &self.listen_client_urls.origin,
            ),
            row(
                &table::ADVERTISE_CLIENT_URLS.spec,
                Value::Array(
                    self.advertise_client_urls.value.iter().map(|url| text(url)).collect(),
                ),
                &self.advertise_client_urls.origin,
            ),
            row(&table::CONFDIR.spec, text(&self.confdir.value.display()), &self.confdir.origin),
            row(
                &table::ALLOWED_DIRS.spec,
                Value::Array(
                    self.allowed_dirs.value.iter().map(|path| text(&path.display())).collect(),
                ),
                &self.allowed_dirs.origin,
            ),
            row(&table::INSECURE.spec, Value::Boolean(self.insecure.value), &self.insecure.origin),
            row(
                &table::RENDER_TIMEOUT.spec,
                text(&length_of_time(self.render_timeout.value)),
                &self.render_timeout.origin,
            ),
        ]
    }
}

fn row<'a>(spec: &'static Spec, value: Value, origin: &'a Origin) -> Shown<'a> {
    Shown { spec, value, origin }
}

/// As the settings file would say it, and as `table` reads it.
fn length_of_time(time: Duration) -> String {
    match (time.as_secs(), time.subsec_millis()) {
        (seconds, 0) => format!("{seconds}s"),
        (_, _) => format!("{}ms", time.as_millis()),
    }
}
